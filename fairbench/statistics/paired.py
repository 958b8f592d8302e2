"""Compare two methods on the same patients, and say what patients and seeds alone would do.

Differences of gap, accuracy and worst-group accuracy are taken together, from the same draws. p-values come
from swapping the two methods' answers patient by patient; intervals from resampling patients, made to cover
the true difference of two maxima, which plain bootstrap percentiles do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from fairbench.errors import FairbenchError
from fairbench.statistics.intervals import Floats, Ints, labelled
from fairbench.statistics.max_difference import Part, bounds, defined, placed_noise
from fairbench.statistics.resampling import Table, bootstrapped, checked, swapped, tabulate
from fairbench.statistics.results import Difference

DRAWS = 2_000  # bootstrap draws behind intervals
ONE_SEED = "one seed: this compares two trained models, not two methods"


@dataclass(frozen=True)
class Comparison:
    """A minus B for the gap, the overall accuracy and the worst group's accuracy; warnings in `flags`."""

    gap: Difference
    accuracy: Difference
    worst_group: Difference
    seeds: int
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pair:
    """Two methods on the same rows: a Table whose last column is the patients of no recorded group."""

    table: Table
    seeds: int
    rates: int  # rates that make the gap
    correct: int | None  # index of the rate that is accuracy

    def values(self, sums: Floats, sizes: Floats) -> Floats:
        """Divide sums (draws, groups + 1, columns) into values (draws, methods, seeds, rates, groups)."""
        draws, groups, _ = sums.shape
        shaped = sums.reshape(draws, groups, sizes.shape[2], 2, self.seeds).transpose(0, 3, 4, 2, 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            means: Floats = shaped / sizes.transpose(0, 2, 1)[:, None, None]
        return means

    def overall(self, sums: Floats, sizes: Floats) -> Floats:
        """Accuracy over all patients, recorded or not; (draws, methods, seeds)."""
        assert self.correct is not None
        draws, groups, _ = sums.shape
        shaped = sums.reshape(draws, groups, sizes.shape[2], 2, self.seeds)[:, :, self.correct].sum(axis=1)
        total: Floats = shaped / sizes[:, :, self.correct].sum(axis=1)[:, None, None]
        return total


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
) -> Comparison:
    """Compare A minus B on the same patients and seeds: gap, accuracy and worst-group accuracy, jointly.

    a, b: per rate an array (seeds, n) or (n,), NaN where a row does not enter the rate (in both methods
    alike); correct: the two methods' (seeds, n) correctness where the rates are not accuracy itself. A method
    with one seed is set against every seed of the other. reduce: "max" or "mean" over rates of max - min over
    groups.

    `exchange_p`: the two methods' answers on any one patient could be swapped (Fisher 1935; Pitman 1937);
    exact with one seed. But methods with equal gaps between different groups are not exchangeable, and the
    swap test alone would call their gaps different in 16 to 32 % of worlds. So `p` is the larger of it and
    the p-value from the sampling noise of the two observed differences (`maxima.placed_noise`); for accuracy,
    a mean, the two agree.

    With several seeds the seeds are a sample too: the part of that noise that all seeds share is convolved
    with a t of seeds - 1 degrees of freedom for the rest, so two seeds can hardly show anything. Interval:
    `maxima.bounds`, joined with the seeds' t interval. Clusters are drawn whole, not resampled again inside
    (Davison and Hinkley 1997, §3.8); seeds cross patients and enter through their own variance.
    """
    pair, flags = paired(a, b, group, cluster, correct, reduce, names)
    table = pair.table
    rng = np.random.default_rng(seed)
    sums, sizes = table.counts.T @ table.sums, table.counts.T @ table.sizes
    truth = measures(pair, sums[None], sizes[None], reduce)[0]
    observed = truth[:, 0] - truth[:, 1]
    split = table.sums.reshape(len(table.sums), table.sizes.shape[1], 2, pair.seeds)
    half = ((split[:, :, 0] - split[:, :, 1]) / 2).reshape(len(table.sums), table.sums.shape[1] // 2)
    centre = sums.reshape(len(sums), -1, 2, pair.seeds).mean(axis=2)
    null = []
    for draw in swapped(table, half, repeats, rng):
        move = draw.reshape(len(draw), *centre.shape)
        both = np.stack([centre + move, centre - move], axis=3).reshape(len(draw), len(sums), -1)
        value = measures(pair, both, np.broadcast_to(sizes, (len(draw), *sizes.shape)), reduce)
        null.append(value[:, :, 0] - value[:, :, 1])
    world = np.concatenate(null)
    maxima = directions(pair, sums, sizes, reduce, min(repeats, DRAWS), rng)
    results = [
        judged(observed[index], world[:, index], maxima[index], index, undefined(pair, index), rng)
        for index in range(3)
    ]
    gap, accuracy, worst_group = results
    return Comparison(gap, accuracy, worst_group, pair.seeds, flags)


def paired(
    a: Sequence[Floats],
    b: Sequence[Floats],
    group: Ints,
    cluster: Ints | None,
    correct: tuple[Floats, Floats] | None,
    reduce: str,
    names: Sequence[str] | None,
) -> tuple[Pair, tuple[str, ...]]:
    """Both methods' rows as one table. Raises FairbenchError where they are not the same rows or seeds."""
    if reduce not in ("max", "mean"):
        raise FairbenchError(f"no gap is called {reduce!r}", "choose max or mean")
    if len(a) != len(b):
        raise FairbenchError(f"A has {len(a)} rates and B has {len(b)}")
    first, second = list(a), list(b)
    if correct is not None:
        first, second = [*first, correct[0]], [*second, correct[1]]
    values, codes, clusters = checked([*first, *second], group, cluster)
    values = [np.atleast_2d(value) for value in values]
    seeds = max(len(value) for value in values)
    if any(len(value) not in (1, seeds) for value in values):
        raise FairbenchError("A and B have different numbers of seeds", "compare the seeds both have")
    columns: list[Floats] = []
    for left, right in zip(values[: len(first)], values[len(first) :], strict=True):
        rows = [*np.broadcast_to(left, (seeds, left.shape[1]))]
        rows += [*np.broadcast_to(right, (seeds, right.shape[1]))]
        if any((np.isnan(row) != np.isnan(rows[0])).any() for row in rows):
            hint = "score an unreadable answer as wrong, not as missing"
            raise FairbenchError("A and B do not score the same rows", hint)
        columns += rows
    labels = labelled(codes, names)
    codes = np.where(codes < 0, len(labels), codes)
    table = tabulate(columns, codes, clusters, len(labels) + 1, paired=2 * seeds)
    accuracy = len(a) if correct is not None else 0 if len(a) == 1 else None
    return Pair(table, seeds, len(a), accuracy), (ONE_SEED,) if seeds == 1 else ()


def measures(pair: Pair, sums: Floats, sizes: Floats, reduce: str) -> Floats:
    """Gap, accuracy and worst-group accuracy; (draws, 3, methods, seeds)."""
    values = pair.values(sums, sizes)[..., :-1]
    low, high = np.nan_to_num(values, nan=np.inf), np.nan_to_num(values, nan=-np.inf)
    compared = (~np.isnan(values)).sum(axis=-1) > 1
    spread = np.where(compared, high.max(-1, initial=-np.inf) - low.min(-1, initial=np.inf), np.nan)[
        ..., : pair.rates
    ]
    gap = spread.max(axis=-1) if reduce == "max" else spread.mean(axis=-1)
    nothing = np.full(gap.shape, np.nan)
    if pair.correct is None:
        return np.stack([gap, nothing, nothing], axis=1)
    lowest = low[..., pair.correct, :].min(axis=-1, initial=np.inf)
    worst = np.where(np.isinf(lowest), np.nan, lowest)
    accuracy = pair.overall(sums, sizes) if sizes[..., pair.correct].any() else nothing
    return np.stack([gap, accuracy, worst], axis=1)


def judged(
    observed: Floats, world: Floats, parts: Sequence[Part], index: int, reason: str, rng: np.random.Generator
) -> Difference:
    """One difference with its interval and p-values; observed: (seeds,), world: (draws, seeds)."""
    if np.isnan(observed).any():
        return Difference(reason=reason)
    known = [defined(part) for part in parts]
    low, high = bounds(known)
    if index == 2:  # the worst group is minus a maximum
        low, high = -high, -low
    mean, reach = float(observed.mean()), seed_reach(observed)
    exchange = two_sided(observed, world, rng)
    placed = exchange if index == 1 else two_sided(observed, placed_noise(known), rng)
    return Difference(
        value=mean,
        low=mean - float(np.hypot(mean - low, reach)),
        high=mean + float(np.hypot(high - mean, reach)),
        p=max(exchange, placed),
        exchange_p=exchange,
    )


def two_sided(observed: Floats, world: Floats, rng: np.random.Generator) -> float:
    """Two-sided p-value of the seed mean; observed: (seeds,), worlds without a difference: (draws, seeds)."""
    seeds = observed.size
    draws = world.mean(axis=1)
    if seeds > 1:
        mean_square = (draws**2).mean()
        shared = (seeds * mean_square - (world**2).mean()) / (seeds - 1)
        share = np.clip(shared / mean_square, 0, 1) if mean_square > 0 else 0.0
        scale = observed.std(ddof=1) / np.sqrt(seeds)
        draws = np.sqrt(share) * draws + scale * rng.standard_t(seeds - 1, draws.size)
    as_far = np.count_nonzero(np.abs(draws) >= abs(observed.mean()) - 1e-12)
    return float((1 + as_far) / (draws.size + 1))


def seed_reach(observed: Floats) -> float:
    """Half width of the 95 % t interval that the seeds alone would give; 0 with one seed."""
    if observed.size == 1:
        return 0.0
    t = stats.t.ppf(0.975, observed.size - 1)
    return float(t * observed.std(ddof=1) / np.sqrt(observed.size))


def directions(
    pair: Pair, sums: Floats, sizes: Floats, reduce: str, repeats: int, rng: np.random.Generator
) -> list[list[Part]]:
    """Gap, accuracy and worst group as maxima over directions, from one set of bootstrap draws."""
    table = pair.table
    width = table.sums.shape[1]
    drawn_values, drawn_overall = [], []
    for draw in bootstrapped(table, np.concatenate([table.sums, table.sizes], axis=1), repeats, rng):
        drawn_values.append(pair.values(draw[..., :width], draw[..., width:])[..., :-1])
        if pair.correct is not None:
            drawn_overall.append(pair.overall(draw[..., :width], draw[..., width:])[..., None])
    drawn = np.concatenate(drawn_values)
    value = pair.values(sums[None], sizes[None])[0][..., :-1]
    row = 1.0 if table.binary else float(np.std(table.sums))
    pad = (row / np.maximum(sizes[:-1].T, 1)) ** 2
    i, j = np.where(~np.eye(value.shape[-1], dtype=bool))
    gaps = [
        Part(value[..., r, i] - value[..., r, j], drawn[..., r, i] - drawn[..., r, j], pad[r, i] + pad[r, j])
        for r in range(pair.rates)
    ]
    if reduce == "max":
        values, draws = (
            np.concatenate([getattr(part, name) for part in gaps], -1) for name in ("estimate", "draws")
        )
        gaps = [Part(values, draws, np.concatenate([part.pad for part in gaps]))]
    if pair.correct is None:
        return [gaps, [], []]
    c = pair.correct
    overall = pair.overall(sums[None], sizes[None])[0][..., None]
    accuracy = Part(overall, np.concatenate(drawn_overall), np.array([(row / max(sizes[:, c].sum(), 1)) ** 2]))
    return [gaps, [accuracy], [Part(-value[..., c, :], -drawn[..., c, :], pad[c])]]


def undefined(pair: Pair, index: int) -> str:
    """Say why a difference is undefined."""
    if index == 0:
        return "fewer than two groups have rows of every rate"
    return "no accuracy was given beside the rates" if pair.correct is None else "no row of a recorded group"
