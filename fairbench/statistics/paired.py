"""Compare two methods on the same patients, and say what patients and seeds alone would do.

Differences of gap, worst and best group and equity-scaled score are taken together, from the same draws; that
of the overall score rests on whole clusters and on no attribute. p-values come from swapping the two methods'
answers patient by patient; an interval leaves out 0 exactly where its p is .05 or less.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fairbench.errors import FairbenchError
from fairbench.statistics.equity import equity_bounds
from fairbench.statistics.intervals import Floats, Ints, labelled
from fairbench.statistics.max_difference import Extreme, extreme
from fairbench.statistics.ranking import opposite
from fairbench.statistics.resampling import Table, bootstrapped, checked, swapped, tabulate
from fairbench.statistics.results import ALPHA, Difference
from fairbench.statistics.seeds import SeedPrior, SeedScatter
from fairbench.statistics.tail import CLOSE, critical_value, p_value

DRAWS = 2_000  # bootstrap draws behind intervals
CELLS = 20_000_000  # distinct units of a group that are drawn at most, in all draws of a comparison
ONE_SEED = "one seed: this compares two trained models, not two methods"
LONE = "one seed against several: the luck of that one training is in no interval"
NOT_COMPARED = Difference(reason="not compared")
NO_SCORE = Difference(reason="no accuracy was given beside the rates")
MEASURES = ("gap", "worst_group", "best_group", "equity_scaled", "distance")

Bounds = tuple[float, float]
Priors = Mapping[str, SeedPrior]  # by "score" or one of MEASURES
Equity = Callable[[Sequence[Floats], Sequence[Floats]], Floats]


@dataclass(frozen=True)
class Comparison:
    """A minus B for the gap, the overall score, the worst and the best group's score, the equity-scaled score, and
    the distance to the optimum, √((1 − score)² + gap²) (Han et al. 2022), of which less is better.

    Warnings are in `flags`. `best_group` < 0 beside a smaller gap is levelling down.
    """

    gap: Difference
    accuracy: Difference
    worst_group: Difference
    seeds: int
    flags: tuple[str, ...] = ()
    best_group: Difference = NOT_COMPARED
    equity_scaled: Difference = NOT_COMPARED
    distance: Difference = NOT_COMPARED


@dataclass(frozen=True)
class Pair:
    """Two methods on the same rows: a Table whose last column is the patients of no recorded group."""

    table: Table
    seeds: int
    rates: int  # rates that make the gap
    correct: int | None  # index of the rate that is accuracy
    reduce: str = "max"
    equity: Equity | None = None
    weights: tuple[float, ...] | None = None  # of the rates whose weighted sum makes the gap

    def values(self, sums: Floats, sizes: Floats) -> Floats:
        """Divide sums (draws, groups + 1, columns) into values (draws, methods, seeds, rates, groups)."""
        draws, groups, _ = sums.shape
        shaped = sums.reshape(draws, groups, sizes.shape[2], 2, self.seeds).transpose(0, 3, 4, 2, 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            means: Floats = shaped / sizes.transpose(0, 2, 1)[:, None, None]
        return means[..., :-1]

    def gap_rates(self, values: Floats) -> Floats:
        """Return the rates that make the gap, of values (..., rates, groups); with weights, their one sum."""
        rates = values[..., : self.rates, :]
        if self.weights is None:
            return rates
        weighted: Floats = (np.array(self.weights)[:, None] * rates).sum(axis=-2, keepdims=True)
        return weighted

    def overall(self, sums: Floats, sizes: Floats) -> Floats:
        """Score over all patients, recorded or not; (draws, methods, seeds)."""
        assert self.correct is not None
        draws, groups, _ = sums.shape
        shaped = sums.reshape(draws, groups, sizes.shape[2], 2, self.seeds)[:, :, self.correct].sum(axis=1)
        with np.errstate(invalid="ignore"):  # no row enters
            total: Floats = shaped / sizes[:, :, self.correct].sum(axis=1)[:, None, None]
        return total

    def measures(self, sums: Floats, sizes: Floats) -> Floats:
        """MEASURES of sums (draws, groups + 1, columns): (draws, measures, methods, seeds), NaN where undefined."""
        values = self.values(sums, sizes)
        gap = extreme(self.gap_rates(values), "range", self.reduce)
        if self.correct is None:
            return np.stack([gap, *[np.full(gap.shape, np.nan)] * 4], axis=1)
        score, overall = values[..., self.correct, :], self.overall(sums, sizes)
        worst, best = (extreme(score[..., None, :], kind, "mean") for kind in ("worst", "best"))
        scaled = np.full(gap.shape, np.nan) if self.equity is None else self.equity([score], [overall])
        return np.stack([gap, worst, best, scaled, np.hypot(1 - overall, gap)], axis=1)


def compare(
    a: Sequence[Floats],
    b: Sequence[Floats],
    group: Ints,
    cluster: Ints | None = None,
    correct: tuple[Floats, Floats] | None = None,
    reduce: str = "max",
    repeats: int = 10_000,
    seed: int = 0,
    names: Sequence[str] | None = None,
    equity: Equity | None = None,
    weights: Sequence[float] | None = None,
    bounds: Sequence[Bounds | None] = (),
    priors: Priors | None = None,
) -> Comparison:
    """Compare A minus B on the same patients and seeds: gap, overall score, worst and best group, jointly.

    a, b: per rate an array (seeds, n) or (n,), NaN where a row does not enter the rate (in both methods alike);
    correct: both methods' (seeds, n) correctness where the rates are not accuracy itself. One seed is set against
    every seed of the other. reduce: "max" or "mean" over rates of max - min. equity: what ES-M is, of [groups'
    values (..., groups)] and [overall (...)]. weights: the gap is that of the weighted sum of the rates, such as
    the classes' accuracies by the pooled class mix (`standardised.by_class`). bounds: both methods' limits of ES-M
    (`equity.equity_bounds`), where they are known. priors: what a table's other rows say of the variance between
    seeds, by measure.

    `exchange_p`: the two methods' answers on any one patient could be swapped (Fisher 1935; Pitman 1937); exact
    with one seed. But methods with equal gaps between different groups are not exchangeable, and the swap test
    alone would call their gaps different far too often; and of two fair methods the one whose answers vary more
    has the larger gap by chance. So `p` is the largest of it and of the p-values from the sampling noise of the two
    values where they were observed (`Extreme.placed`), and were all groups alike (`Extreme.level`; of ES-M see
    `judged_scaled`). With several
    seeds the part of that noise that all share is convolved with a t for the rest, of seeds - 1 degrees of freedom
    or of more with `priors`, so two seeds can hardly show anything. Intervals are `Extreme.bounds`, joined with the
    seeds' t interval; where they and the test disagree about 0, the test decides (`agreeing`). A cluster is drawn
    whole in each group that it spans; overall, whole. B against A is the mirror image.
    """
    if later(a, b):
        swap = None if correct is None else (correct[1], correct[0])
        return mirrored(
            compare(b, a, group, cluster, swap, reduce, repeats, seed, names, equity, weights, bounds[::-1], priors)
        )
    pair, flags = paired(a, b, group, cluster, correct, reduce, names, equity, weights)
    right = correct or ((a[0], b[0]) if len(a) == 1 else None)
    priors = priors or {}
    overall = mean_difference(*right, cluster, repeats, seed, priors.get("score")) if right else NO_SCORE
    if equity and not bounds:
        bounds = [equity_bounds(rate, group, equity, cluster) for rate in right or ()]
    spans = cluster is not None and pair.table.units > np.unique(cluster).size
    each = _judged_each(pair, bounds, overall if spans else None, repeats, seed, priors)
    return Comparison(accuracy=overall, seeds=pair.seeds, flags=flags, **each)


def compare_gaps(
    a: Sequence[Floats],
    b: Sequence[Floats],
    group: Ints,
    cluster: Ints | None = None,
    correct: tuple[Floats, Floats] | None = None,
    reduce: str = "max",
    repeats: int = 10_000,
    seed: int = 0,
    names: Sequence[str] | None = None,
    weights: Sequence[float] | None = None,
    priors: Priors | None = None,
) -> Difference:
    """Compare the gaps alone: what `compare` says of them, number by number, for a third of its time."""
    if later(a, b):
        swap = None if correct is None else (correct[1], correct[0])
        return opposite(compare_gaps(b, a, group, cluster, swap, reduce, repeats, seed, names, weights, priors))
    pair, _ = paired(a, b, group, cluster, correct, reduce, names, None, weights)
    return _judged_each(replace(pair, correct=None), (), None, repeats, seed, priors or {})["gap"]


def values_by_seed(
    rates: Sequence[Floats],
    group: Ints,
    correct: Floats | None = None,
    reduce: str = "max",
    equity: Equity | None = None,
    weights: Sequence[float] | None = None,
) -> dict[str, Floats]:
    """One method's score and MEASURES by seed, each (seeds,), as `compare` takes them; no undefined one."""
    both = None if correct is None else (correct, correct)
    pair, _ = paired(rates, rates, group, None, both, reduce, None, equity, weights)
    table = pair.table
    sums, sizes = (table.counts.T @ table.sums)[None], (table.counts.T @ table.sizes)[None]
    values = dict(zip(MEASURES, pair.measures(sums, sizes)[0, :, 0], strict=True))
    if pair.correct is not None:
        values["score"] = pair.overall(sums, sizes)[0, 0]
    return {name: value for name, value in values.items() if not np.isnan(value).any()}


def _judged_each(
    pair: Pair,
    bounds: Sequence[Bounds | None],
    whole: Difference | None,
    repeats: int,
    seed: int,
    priors: Priors,
) -> dict[str, Difference]:
    """Judge every one of MEASURES by its own values, swaps and draws; see the functions that do."""
    rng, table = np.random.default_rng(seed), pair.table
    sums, sizes = (table.counts.T @ table.sums)[None], (table.counts.T @ table.sizes)[None]
    own = pair.measures(sums, sizes)[0]
    null = exchanged(pair, sums[0], sizes[0], repeats, rng)
    extremes, scaled, noise = resampled(pair, sums, sizes, min(repeats, DRAWS), rng)
    differences = {}
    for index, name in enumerate(MEASURES):
        scatter = SeedScatter.of(own[index], priors.get(name))
        if np.isnan(own[index]).any():
            differences[name] = Difference(reason=undefined(pair, name))
        elif name == "equity_scaled":
            ranges = priors.get("gap") if pair.correct == 0 else None  # the prior of other rates' gap is another
            differences[name] = judged_scaled(
                own[index], null[:, index], scaled, scatter, extremes["score"], ranges, bounds, rng
            )
        elif name == "distance":
            differences[name] = judged_distance(own, null[:, index], noise, scatter, extremes["gap"], whole, rng)
        else:
            one = judged(own[index], null[:, index], scatter, extremes[name], rng)
            low, high = within(pair.table, *(one.interval or (-np.inf, np.inf)))
            differences[name] = replace(one, low=low, high=high)
    return differences


def mirrored(comparison: Comparison) -> Comparison:
    """B minus A."""
    return replace(
        comparison,
        gap=opposite(comparison.gap),
        accuracy=opposite(comparison.accuracy),
        worst_group=opposite(comparison.worst_group),
        best_group=opposite(comparison.best_group),
        equity_scaled=opposite(comparison.equity_scaled),
        distance=opposite(comparison.distance),
    )


def later(a: Sequence[Floats], b: Sequence[Floats]) -> bool:
    """Put any two methods in one order, so that which is called A does not change the draws."""

    def key(rates: Sequence[Floats]) -> bytes:
        return b"".join(np.nan_to_num(np.asarray(rate, float)).tobytes() for rate in rates)  # NaN has two signs

    return key(a) > key(b)


def paired(
    a: Sequence[Floats],
    b: Sequence[Floats],
    group: Ints,
    cluster: Ints | None = None,
    correct: tuple[Floats, Floats] | None = None,
    reduce: str = "max",
    names: Sequence[str] | None = None,
    equity: Equity | None = None,
    weights: Sequence[float] | None = None,
) -> tuple[Pair, tuple[str, ...]]:
    """Both methods' rows as one table. Raises FairbenchError where they are not the same rows or seeds."""
    if reduce not in ("max", "mean"):
        raise FairbenchError(f"no gap is called {reduce!r}", "choose max or mean")
    first, second = list(a), list(b)
    if correct is not None:
        first, second = [*first, correct[0]], [*second, correct[1]]
    left, right, codes, clusters = same_rows(first, second, group, cluster)
    labels = labelled(codes, names)
    codes = np.where(codes < 0, len(labels), codes)
    seeds = len(left[0])
    columns = [row for x, y in zip(left, right, strict=True) for row in (*x, *y)]
    table = tabulate(columns, codes, clusters, len(labels) + 1, paired=2 * seeds)
    accuracy = len(a) if correct is not None else 0 if len(a) == 1 else None
    shares = None if weights is None else tuple(weights)
    lone = 1 in (len(np.atleast_2d(a[0])), len(np.atleast_2d(b[0])))
    flags = (ONE_SEED,) if seeds == 1 else (LONE,) if lone else ()
    return Pair(table, seeds, len(a), accuracy, reduce, equity, shares), flags


def same_rows(
    a: Sequence[Floats], b: Sequence[Floats], group: Ints, cluster: Ints | None
) -> tuple[list[Floats], list[Floats], Ints, Ints | None]:
    """Both methods' rates as (seeds, n), with checked codes and clusters.

    A method with one seed is repeated for every seed of the other. Raises FairbenchError where rows or seeds
    differ.
    """
    if len(a) != len(b):
        raise FairbenchError(f"A has {len(a)} rates and B has {len(b)}")
    values, codes, clusters = checked([*a, *b], group, cluster)
    values = [np.atleast_2d(value) for value in values]
    seeds = max(len(value) for value in values)
    if any(len(value) not in (1, seeds) for value in values):
        raise FairbenchError("A and B have different numbers of seeds", "compare the seeds both have")
    left, right = (
        [np.broadcast_to(value, (seeds, value.shape[1])) for value in part]
        for part in (values[: len(a)], values[len(a) :])
    )
    for x, y in zip(left, right, strict=True):
        outside = np.isnan(x[0])
        if (np.isnan(x) != outside).any() or (np.isnan(y) != outside).any():
            hint = "score an unreadable answer as wrong, not as missing"
            raise FairbenchError("A and B do not score the same rows", hint)
    return left, right, codes, clusters


def mean_difference(
    a: Floats,
    b: Floats,
    cluster: Ints | None = None,
    repeats: int = 10_000,
    seed: int = 0,
    prior: SeedPrior | None = None,
) -> Difference:
    """Mean of A − B over rows, whole clusters swapped; a, b: (seeds, n) or (n,), NaN outside in both alike.

    prior: what a table's rows say of one method's variance between seeds. With one 0/1 row a cluster this is
    McNemar's test. p and interval come from the same draws.
    """
    rows = np.asarray(a).shape[-1]
    if rows == 0 or np.isnan(np.asarray(a, float)).all():
        return Difference(reason="no rows")
    left, right, codes, clusters = same_rows([a], [b], np.zeros(rows, dtype=np.int64), cluster)
    columns, seeds = [*left[0], *right[0]], len(left[0])
    table = tabulate(columns, codes, clusters, 1, paired=2 * seeds)
    split = table.sums.reshape(len(table.sums), 2, seeds)
    half = (split[:, 0] - split[:, 1]) / 2
    total = float((table.counts[:, 0] * table.sizes[:, 0]).sum())
    own = np.tensordot(table.counts[:, 0], split, axes=1) / total
    scatter = SeedScatter.of(own, prior)
    rng = np.random.default_rng(seed)
    null = np.concatenate([*swapped(table, half, affordable_swaps(table, repeats), rng)])[:, 0] * 2 / total
    draws = two_sided(scatter, null, rng)
    value, critical = float((own[0] - own[1]).mean()), critical_value(draws)
    critical = (
        max(critical, 3 / table.units) if critical < CLOSE * 10 else critical
    )  # the rule of three: no certainty
    p = p_value(draws, abs(value), scatter.freedom)
    low, high = within(table, value - critical, value + critical)
    return Difference(value, low, high, p=p, exchange_p=p)


def affordable_swaps(table: Table, repeats: int) -> int:
    """As many draws as CELLS allows, at least DRAWS."""
    return min(repeats, max(DRAWS, CELLS // max(1, int(np.count_nonzero(table.counts)))))


def exchanged(pair: Pair, sums: Floats, sizes: Floats, repeats: int, rng: np.random.Generator) -> Floats:
    """A − B when the two methods' answers are swapped at random: (draws, measures, seeds)."""
    table = pair.table
    split = table.sums.reshape(len(table.sums), table.sizes.shape[1], 2, pair.seeds)
    half = ((split[:, :, 0] - split[:, :, 1]) / 2).reshape(len(table.sums), table.sums.shape[1] // 2)
    centre = sums.reshape(len(sums), -1, 2, pair.seeds).mean(axis=2)
    null = []
    for draw in swapped(table, half, affordable_swaps(table, repeats), rng):
        move = draw.reshape(len(draw), *centre.shape)
        both = np.stack([centre + move, centre - move], axis=3).reshape(len(draw), len(sums), -1)
        value = pair.measures(both, np.broadcast_to(sizes, (len(draw), *sizes.shape)))
        null.append(value[:, :, 0] - value[:, :, 1])
    return np.concatenate(null)


def resampled(
    pair: Pair, sums: Floats, sizes: Floats, repeats: int, rng: np.random.Generator
) -> tuple[dict[str, Extreme], Floats, Floats]:
    """Resample whole clusters: gap, worst and best group; draws of ES-M where there is an `equity`, as observed and
    were all groups alike in each method, (2, draws, methods, seeds); and the noise in the overall score, (draws,
    methods, seeds), where there is a score.
    """
    table, width = pair.table, pair.table.sums.shape[1]
    drawn, overall = [], []
    for draw in bootstrapped(table, np.concatenate([table.sums, table.sizes], axis=1), repeats, rng):
        drawn.append(pair.values(draw[..., :width], draw[..., width:]))
        if pair.correct is not None:
            overall.append(pair.overall(draw[..., :width], draw[..., width:]))
    draws, values = np.concatenate(drawn), pair.values(sums, sizes)[0]
    row = 1.0 if table.binary else float(np.std(table.sums))
    pad = (row / np.maximum(sizes[0, :-1].T, 1)) ** 2
    of_gap = pad[: pair.rates]
    if pair.weights is not None:
        of_gap = (np.square(pair.weights)[:, None] * of_gap).sum(axis=0, keepdims=True)
    extremes = {"gap": Extreme("range", pair.reduce, pair.gap_rates(values), pair.gap_rates(draws), of_gap)}
    if pair.correct is None:
        return extremes, np.empty(0), np.empty(0)
    score = slice(pair.correct, pair.correct + 1)
    for name, kind in (("worst_group", "worst"), ("best_group", "best")):
        extremes[name] = Extreme(kind, "mean", values[..., score, :], draws[..., score, :], pad[score])
    extremes["score"] = replace(extremes["worst_group"], kind="range")
    whole, everyone = np.concatenate(overall), pair.overall(sums, sizes)
    if pair.equity is None:
        return extremes, np.empty(0), whole - everyone
    moved = draws[..., pair.correct, :]
    # A group that is empty stays so; one that a draw left empty does not move.
    errors = np.where(np.isnan(values[..., pair.correct, :]), np.nan, extremes["score"].errors[..., 0, :])
    scaled = [pair.equity([one], [whole]) for one in (moved, everyone[..., None] + errors)]
    return extremes, np.stack(scaled), whole - everyone


def judged(
    own: Floats, null: Floats, scatter: SeedScatter, extremes_of: Extreme, rng: np.random.Generator
) -> Difference:
    """One difference of extremes with its interval and p-values; own: (2, seeds), null: (draws, seeds)."""
    value = float((own[0] - own[1]).mean())
    noises = (extremes_of.placed, extremes_of.level)
    tests = [two_sided(scatter, draws, rng) for draws in (null, *(one[:, 0] - one[:, 1] for one in noises))]
    exchange, placed, level = (p_value(draws, abs(value), scatter.freedom) for draws in tests)
    low, high = extremes_of.bounds()
    low, high = (
        value - float(np.hypot(value - low, scatter.reach)),
        value + float(np.hypot(high - value, scatter.reach)),
    )
    low, high = agreeing(value, low, high, max(map(critical_value, tests)))
    return Difference(value, low, high, p=max(exchange, placed, level), exchange_p=exchange)


def judged_scaled(
    own: Floats,
    null: Floats,
    drawn: Floats,
    scatter: SeedScatter,
    spread: Extreme,
    ranges: SeedPrior | None,
    bounds: Sequence[tuple[float, float] | None],
    rng: np.random.Generator,
) -> Difference:
    """Difference of two equity-scaled scores; own: (2, seeds), null: (draws, seeds), drawn: (2, draws, 2, seeds).

    ES-M is far too small on average, since a gap is too large, and the smaller the more a method's answers vary.
    The noise where it was observed is centred on what the bootstrap gives; were all groups alike in each method, it
    is not: two fair methods differ by that. There ES-M varies most, so that null falls by ES-M or by the range of
    the groups' scores, `spread`, at half the level each (Bonferroni). The interval is that of A less that of B
    (`equity.equity_bounds`), which holds whatever the bias.
    """
    value, freedom = float((own[0] - own[1]).mean()), scatter.freedom
    noise, level = (np.nan_to_num(one[:, 0] - one[:, 1]) for one in drawn)
    own_draws = rng.spawn(1)[0]  # the measures that follow keep theirs
    tests = [two_sided(scatter, draws, rng) for draws in (null, noise - noise.mean(axis=0))]
    exchange, placed = (p_value(draws, abs(value), freedom) for draws in tests)
    alike = two_sided(scatter, level, own_draws)
    by_score = p_value(alike, abs(value), freedom)
    spreads, wider = spread.of(spread.values), spread.level
    apart = SeedScatter.of(spreads, ranges)
    ranged = two_sided(apart, wider[:, 0] - wider[:, 1], own_draws)
    by_range = p_value(ranged, abs(float((spreads[0] - spreads[1]).mean())), apart.freedom)
    critical = max(map(critical_value, tests))
    if by_range > ALPHA / 2:
        critical = max(critical, critical_value(alike, ALPHA / 2))
    a, b = (limits or (0.0, 1.0) for limits in bounds)
    low, high = agreeing(value, a[0] - b[1], a[1] - b[0], critical)
    p = max(exchange, placed, min(1.0, 2 * min(by_score, by_range)))
    return Difference(value, low, high, p=p, exchange_p=exchange)


def judged_distance(
    own: Floats,
    null: Floats,
    noise: Floats,
    scatter: SeedScatter,
    gaps: Extreme,
    whole: Difference | None,
    rng: np.random.Generator,
) -> Difference:
    """Difference of two distances to the optimum, D = hypot(1 − score, gap).

    own: MEASURES (measures, 2, seeds), the first the gap and the last D; null: swaps, (draws, seeds); noise: in the
    score, (draws, 2, seeds). Noise in D follows from that in score and gap by its derivatives, and the interval is
    widened by the bias that the gaps can have (`Extreme.bias`). Where clusters span groups the draws take them
    apart; `whole` is then A − B in the score with clusters whole, and both kinds of draws are stretched to it.
    """
    gap, distance = own[0], np.maximum(own[-1], CLOSE)
    value = float((own[-1, 0] - own[-1, 1]).mean())
    by_score, by_gap = -np.sqrt(np.maximum(distance**2 - gap**2, 0)) / distance, gap / distance
    stretch = 1.0 if whole is None else _stretch(noise[:, 0] - noise[:, 1], whole)
    moved = [by_score * noise + by_gap * error for error in (gaps.placed, gaps.level)]
    draws = (null, *(one[:, 0] - one[:, 1] for one in moved))
    tests = [two_sided(scatter, stretch * one, rng) for one in draws]
    exchange, placed, level = (p_value(one, abs(value), scatter.freedom) for one in tests)
    reach, bias = critical_value(tests[1]), by_gap.mean(axis=1) * gaps.bias()
    ends = (value - reach - float(bias[0]), value + reach + float(bias[1]))
    low, high = agreeing(value, *ends, max(map(critical_value, tests)))
    return Difference(value, low, high, p=max(exchange, placed, level), exchange_p=exchange)


def _stretch(noise: Floats, whole: Difference) -> float:
    """How much wider the score's interval is with clusters whole than by noise (draws, seeds) of their parts."""
    value, (low, high) = whole.value or 0.0, whole.interval or (0.0, 0.0)
    apart = critical_value(np.abs(noise.mean(axis=1)))
    return max(1.0, max(high - value, value - low) / apart) if apart > CLOSE else 1.0


def agreeing(value: float, low: float, high: float, critical: float) -> tuple[float, float]:
    """Let an interval leave out 0 exactly where the test does, that is where |value| > critical.

    The interval is the set of differences that are not rejected: 0 by the test, others by bounds that hold
    whatever the two methods' worst groups. An end on the wrong side of 0 moves to value ± critical.
    """
    if abs(value) > critical:
        low, high = (
            (value - critical if value > 0 >= low else low),
            (value + critical if value < 0 <= high else high),
        )
    else:
        low, high = (value - critical if low > 0 else low), (value + critical if high < 0 else high)
    return min(low, value), max(high, value)


def two_sided(scatter: SeedScatter, null: Floats, rng: np.random.Generator) -> Floats:
    """Draws of |seed mean| without a difference, (draws,); null: (draws, seeds).

    Of several seeds the part of the noise that all share is drawn as it is, and the rest from a normal law whose
    variance is drawn, too: what the seeds' scatter allows (a scaled inverse chi-squared of its degrees of freedom,
    which alone makes a t), but never less than patients give who are answered otherwise from seed to seed: seeds
    that happen to agree are no proof that training again changes nothing.
    """
    seeds = scatter.seeds
    draws = null.mean(axis=1)
    if seeds > 1:
        mean_square, each = float((draws**2).mean()), float((null**2).mean())
        shared = np.clip((seeds * mean_square - each) / (seeds - 1), 0, mean_square)
        share = shared / mean_square if mean_square > 0 else 0.0
        drawn = scatter.variance * scatter.freedom / rng.chisquare(scatter.freedom, draws.size)
        own = np.sqrt(np.maximum(drawn, each - shared) / seeds)
        draws = np.sqrt(share) * draws + own * rng.standard_normal(draws.size)
    size: Floats = np.abs(draws)
    return size


def within(table: Table, low: float, high: float) -> tuple[float, float]:
    """Cut an interval at what no mean difference can exceed: the largest |score| twice, 1 for fractions."""
    values = table.sums / np.maximum(table.sizes[:, :1], 1)
    widest = float(np.ptp(values)) if not table.binary else 1.0
    return max(low, -widest), min(high, widest)


def undefined(pair: Pair, name: str) -> str:
    """Say why a difference is undefined."""
    if name == "gap" or (pair.correct is not None and name != "equity_scaled"):
        return "fewer than two groups have rows of every rate"
    if pair.correct is None:
        return NO_SCORE.reason or ""
    return "no equity-scaled score was asked for" if pair.equity is None else "fewer than two groups have rows"
