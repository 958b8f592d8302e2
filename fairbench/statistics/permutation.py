"""Tell whether a disparity is more than chance gives on these very patients.

A gap between groups is never zero on a finite test set: with 1816, 76 and 108 patients a method that treats
all alike shows 7 points on average. `judge` says what chance alone gives, and what the observed value adds to
it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fairbench.errors import FairbenchError
from fairbench.statistics.contrasts import max_t, own_cells
from fairbench.statistics.intervals import (
    MINIMUM,
    Floats,
    Ints,
    ends,
    gap_interval,
    labelled,
    max_minus_min,
    pairwise_alpha,
    warning,
    worst_interval,
)
from fairbench.statistics.moments import (
    Moments,
    effective_rows,
    few_differ,
    few_units,
    group_features,
    group_moments,
    known,
    limits,
    limits_with_seeds,
    uneven,
    unit_counts,
)
from fairbench.statistics.power import Design, detectable
from fairbench.statistics.resampling import Table, affordable, checked, permuted, rounded, tabulate
from fairbench.statistics.results import ALPHA, Estimate, Gap
from fairbench.statistics.seeds import SeedPrior, SeedVariance, seed_variances
from fairbench.statistics.tail import p_value

BOUNDLESS = "too few rows differ for an interval"
WIDE = "few rows differ from the commonest score, so the interval is wider than 95 % needs"
LEAST = 2_000  # permutations behind chance values
MOVED = 20_000_000  # units that are moved for them beyond that
SMALLEST, LARGEST = 1e-12, 0.99  # p-values beyond which none is looked for
HALVINGS = 30  # of the interval in which a p-value is looked for

Statistic = Callable[[Floats, Floats], Floats]


def gap_max(values: Floats, sizes: Floats) -> Floats:
    """Largest over rates of max - min over groups; (draws, rates, groups) -> (draws,)."""
    largest: Floats = max_minus_min(values).max(axis=1)
    return largest


def gap_mean(values: Floats, sizes: Floats) -> Floats:
    """Mean over rates of max - min over groups."""
    average: Floats = max_minus_min(values).mean(axis=1)
    return average


def worst(values: Floats, sizes: Floats) -> Floats:
    """Smallest group value (of the worst rate)."""
    smallest: Floats = np.nanmin(values, axis=(1, 2))
    return smallest


REDUCTIONS: dict[str, Statistic] = {"max": gap_max, "mean": gap_mean, "worst": worst}


@dataclass(frozen=True)
class Rows:
    """What is judged: `each` seed's row scores of every rate, (seeds, n), and their Table by seed means."""

    each: list[Floats]
    group: Ints
    cluster: Ints | None
    labels: tuple[str, ...]
    weights: tuple[float, ...] | None
    table: Table
    priors: tuple[SeedPrior | None, ...] = ()

    @classmethod
    def of(
        cls,
        rates: Sequence[Floats],
        group: Ints,
        cluster: Ints | None,
        names: Sequence[str] | None,
        weights: Sequence[float] | None = None,
        priors: Sequence[SeedPrior | None] = (),
    ) -> Rows:
        """Check and tabulate. Raises FairbenchError for shapes that do not fit."""
        values, codes, clusters = checked(rates, group, cluster)
        each = [np.atleast_2d(value) for value in values]
        if any(len(rate) != len(each[0]) for rate in each):
            raise FairbenchError("the rates have different numbers of seeds")
        labels = labelled(codes, names)
        table = tabulate([rate.mean(axis=0) for rate in each], codes, clusters, len(labels))
        shares = None if weights is None else tuple(weights)
        return cls(each, codes, clusters, labels, shares, table, tuple(priors))

    @property
    def seeds(self) -> int:
        """Number of seeds."""
        return len(self.each[0])

    def seed_parts(self, contrasts: bool) -> list[SeedVariance]:
        """What training again adds, per rate; empty with one seed."""
        count, priors = len(self.labels), self.priors if contrasts else ()
        return seed_variances(self.each, self.group, self.cluster, count, self.weights, contrasts, priors)


def judge(
    rates: Sequence[Floats],
    group: Ints,
    cluster: Ints | None = None,
    reduce: str | Statistic = "max",
    repeats: int = 10_000,
    seed: int = 0,
    names: Sequence[str] | None = None,
    higher_is_worse: bool = True,
    weights: Sequence[float] | None = None,
    priors: Sequence[SeedPrior | None] = (),
) -> Gap:
    """Value, interval, value by chance, p-value and detectable size of a disparity between groups.

    rates: arrays (n,) or (seeds, n) of row scores, NaN where the row does not enter that rate (accuracy:
    [correct]; EqOdds: [answered yes on positives, on negatives]); group: (n,) codes, -1 = not recorded; cluster:
    (n,) patient or lesion, rows of which move together. reduce: "max", "mean" (over rates of the gap), "worst"
    (group), or a function of (values, sizes), both (draws, rates, groups), with `higher_is_worse`. weights:
    judge the weighted sum of the rates as one rate. priors: what a table's rows say of each (`seeds.group_priors`).
    Chance values permute group labels over units within the rates they enter (Fisher 1935; DiCiccio et al. 2020,
    2007.05124), exactly. A gap's p compares the largest studentised difference (`contrasts.max_t`), so that
    rates and groups of any size are heard; its interval leaves out 0 exactly where p <= .05. Else p is the share
    of chance values at least as bad. Seeds are a sample: the value is the mean of theirs, p and interval are about
    the mean over all that could be trained.
    """
    if isinstance(reduce, str) and reduce not in REDUCTIONS:
        raise FairbenchError(f"no reduction is called {reduce!r}", f"choose one of {', '.join(REDUCTIONS)}")
    rows = Rows.of(rates, group, cluster, names, weights, priors)
    m = group_moments(rows.table)
    present = known(m, rows.weights)
    known_of = int(present.all(axis=0).sum()), len(rows.labels)
    if (present.sum(axis=1) < 2).any():
        return Gap(reason=_too_few(present), notes=cautions(m, rows), coverage=known_of)
    statistic = REDUCTIONS[reduce] if isinstance(reduce, str) else reduce
    sign = -1.0 if reduce == "worst" or not higher_is_worse else 1.0
    value = float(statistic(*seed_values(rows)).mean())
    chance = chance_values(rows, statistic, repeats, seed)
    gap = Gap(
        value=value,
        notes=cautions(m, rows),
        coverage=known_of,
        floor_mean=float(chance.mean()),
        floor_95=float(np.quantile(chance, 0.95 if sign > 0 else 0.05)),
        p=p_value(sign * chance, sign * value),
        excess=value - float(chance.mean()),
    )
    if reduce == "worst":
        low, high = worst_bounds(rows, value)
        return replace(gap, low=low, high=high)
    return tested(gap, rows, m, str(reduce), repeats, seed) if isinstance(reduce, str) else gap


def tested(gap: Gap, rows: Rows, m: Moments, reduce: str, repeats: int, seed: int) -> Gap:
    """Give a gap its test, the interval that agrees with it, and what could have been found."""
    parts = rows.seed_parts(contrasts=True)
    pooled = not uneven(rows.table)
    test = max_t(rows.table, rows.weights, parts, repeats, seed, reduce, pooled)
    bounds = gap_bounds(m, reduce, rows.weights, parts)
    largest = float(test.largest.mean() if reduce == "mean" else test.largest.max())
    p = test.p
    if not pooled and m.fractions and few_units(m).any():
        p = max(p, p_by_bounds(m, reduce, rows.weights, parts))
    low, high = parity_end(bounds, p, test.critical, largest, gap.value or 0.0)
    found = detectable(designs(m, parts), reduce).value if rows.weights is None else None
    found = None if found is not None and m.fractions and found > 1 else found
    return replace(gap, p=p, low=low, high=high, detectable=found)


def p_by_bounds(m: Moments, reduce: str, weights: Sequence[float] | None, seeds: Sequence[SeedVariance]) -> float:
    """The error at which the gap's interval first leaves out 0.

    A group whose few patients are nearly all right by luck hardly scatters, and the test of a gap in standard
    errors would take that for certainty; limits of a proportion know how few patients there are.
    """

    def apart(log_error: float) -> bool:
        low, _ = gap_bounds(m, reduce, weights, seeds, float(np.exp(log_error)))
        return low is not None and low > 0

    least, most = np.log(SMALLEST), np.log(LARGEST)
    if not apart(most):
        return 1.0
    for _ in range(HALVINGS):
        middle = (least + most) / 2
        least, most = (least, middle) if apart(middle) else (middle, most)
    return float(np.exp(most))


def parity_end(
    bounds: tuple[float, float] | tuple[None, None], p: float, critical: float, largest: float, value: float
) -> tuple[float, float] | tuple[None, None]:
    """Let a gap's interval leave out 0 exactly where the test of largest > critical does, and hold the value.

    An interval is the set of gaps that are not rejected: at 0 by the permutation test, elsewhere by the
    pairwise limits. Where the test alone rejects 0, the lower end is as far above it as the test went.
    """
    low, high = bounds
    if low is None or high is None:
        return None, None
    if p > ALPHA:
        low = 0.0
    elif low == 0:
        low = value * float(1 - critical / largest)
    return min(low, value), max(high, value)


def seed_values(rows: Rows) -> tuple[Floats, Floats]:
    """Every seed's rates by group (a weighted sum counts as one), and their rows; (seeds, rates, groups)."""
    count = len(rows.labels)
    values, sizes = np.full((2, rows.seeds, len(rows.each), count), np.nan)
    for rate, each in enumerate(rows.each):
        keep = (rows.group >= 0) & ~np.isnan(each[0])
        n = np.bincount(rows.group[keep], minlength=count)
        sizes[:, rate] = n
        for seed, row in enumerate(each):
            with np.errstate(invalid="ignore"):
                values[seed, rate] = np.bincount(rows.group[keep], row[keep], count) / n
    return combined(values, sizes, rows.weights)


def combined(values: Floats, sizes: Floats, weights: Sequence[float] | None) -> tuple[Floats, Floats]:
    """Sum the rates by the weights, if there are any; (…, rates, groups)."""
    if weights is None:
        return values, sizes
    w = np.asarray(weights, float)[:, None]
    return (w * values).sum(axis=1, keepdims=True), sizes.sum(axis=1, keepdims=True)


def chance_values(rows: Rows, statistic: Statistic, repeats: int, seed: int) -> Floats:
    """Draw the value, mean of the seeds', when labels are permuted: all groups are treated alike; (draws,).

    Where units differ in size or scatter (`uneven`), a permuted group's deviation, in its own standard errors,
    is given the standard error of the group it stands for; else a group with small patients would borrow large
    ones. Seeds that move groups by chance do so here too, within the range of the scores.
    """
    flat = [row for rate in rows.each for row in rate]
    table = rounded(tabulate(flat, rows.group, rows.cluster, len(rows.labels)))
    rates, seeds, groups = len(rows.each), rows.seeds, len(rows.labels)
    scaled = uneven(table)
    features = group_features(table) if scaled else np.concatenate([table.sums, table.sizes], axis=1)
    cost = table.units if scaled else 4 * table.counts.size
    draws = min(affordable(table, repeats), max(LEAST, MOVED // max(1, cost)))
    units, rng = unit_counts(table), np.random.default_rng(seed)
    own = np.sqrt(own_cells((table.counts.T @ features)[None], units).variance) if scaled else None
    with np.errstate(divide="ignore", invalid="ignore"):
        unit_means = table.sums / table.sizes
    lowest, highest = (limit(unit_means, axis=0)[None, :, None] for limit in (np.nanmin, np.nanmax))
    ends = [limit(end.reshape(1, rates, seeds, 1), axis=2) for limit, end in ((np.min, lowest), (np.max, highest))]
    spread = [np.sqrt(part.between * seeds) for part in rows.seed_parts(contrasts=True)]
    chance = []
    for sums in permuted(table, features, draws, rng):
        width = rates * seeds
        sizes = sums[:, :, width : 2 * width].transpose(0, 2, 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            means = sums[:, :, :width].transpose(0, 2, 1) / sizes
        if own is not None:
            # A group whose few units happen to agree has hardly any standard error: no mean can leave the scores.
            means = np.clip(_rescaled(sums, units, own), lowest, highest)
        shape = (len(sums), rates, seeds, groups)
        values, counts = (x.reshape(shape).transpose(0, 2, 1, 3).reshape(-1, rates, groups) for x in (means, sizes))
        values, counts = combined(values, counts, rows.weights)
        if spread:
            values = values + np.array(spread)[:, None] * rng.standard_normal(values.shape)
            values = np.clip(values, *(combined(end, end, rows.weights)[0] for end in ends))
        chance.append(statistic(values, counts).reshape(len(sums), seeds).mean(axis=1))
    return np.concatenate(chance)


def _rescaled(sums: Floats, units: Floats, own: Floats) -> Floats:
    """Permuted means about their pooled mean, in the standard errors `own`; (draws, rates, groups)."""
    cells = own_cells(sums, units)
    s, n = np.split(sums.transpose(0, 2, 1), 5, axis=1)[:2]
    with np.errstate(divide="ignore", invalid="ignore"):
        centre = s.sum(axis=2, keepdims=True) / n.sum(axis=2, keepdims=True)
        stretch = np.nan_to_num(own / np.sqrt(cells.variance), nan=1.0, posinf=1.0)
    moved: Floats = centre + (cells.mean - centre) * stretch
    return moved


def gap_bounds(
    m: Moments,
    reduce: str,
    weights: Sequence[float] | None = None,
    seeds: Sequence[SeedVariance] = (),
    error: float = ALPHA,
) -> tuple[float, float] | tuple[None, None]:
    """Bound a gap so that it is covered whatever the truth; None twice where undefined."""
    rates = 1 if weights is not None else m.mean.shape[0]
    alpha = pairwise_alpha(m.mean.shape[1], rates, error)
    mean, low, high = limits_with_seeds(m, alpha, weights, seeds)
    both = gap_interval(mean, low, high, reduce)
    return ends(*both) if both else (None, None)


def worst_bounds(rows: Rows, value: float) -> tuple[float, float] | tuple[None, None]:
    """Bound the smallest group value so that it is covered whatever the truth; None twice where undefined.

    `value`, the mean of the seeds' smallest, is held too: seeds may disagree about which group that is.
    """
    m = group_moments(rows.table)
    alpha = ALPHA / known(m, rows.weights).size
    mean, low, high = limits_with_seeds(m, alpha, rows.weights, rows.seed_parts(contrasts=False))
    both = worst_interval(mean, low, high)
    return ends(min(both[0], value), max(both[1], value)) if both else (None, None)


def group_rates(
    rate: Floats,
    group: Ints,
    cluster: Ints | None = None,
    names: Sequence[str] | None = None,
    minimum: int = MINIMUM,
) -> tuple[Estimate, ...]:
    """Every group's value with its own interval (see `moments.limits`), and a note below `minimum` rows.

    rate: (n,), or (seeds, n), whose mean is bounded with the seeds as a sample.
    """
    rows = Rows.of([rate], group, cluster, names)
    m = group_moments(rows.table)
    mean, low, high = limits_with_seeds(m, ALPHA, None, rows.seed_parts(contrasts=False))
    rates, few = [], few_differ(m)
    for k in range(len(rows.labels)):
        size, note = int(m.rows[0, k]), warning(m.rows[0, k], minimum)
        if size == 0:
            rates.append(Estimate(reason=note, rows=0))
            continue
        bottom, top = ends(low[0, k], high[0, k])
        notes = (note,) if note else ()
        if bottom is None:
            notes = (*notes, BOUNDLESS)
        elif few[0, k]:
            notes = (*notes, WIDE)
        rates.append(Estimate(float(mean[0, k]), bottom, top, rows=size, notes=notes))
    return tuple(rates)


def designs(m: Moments, seeds: Sequence[SeedVariance] = ()) -> list[Design]:
    """Take what power needs, of every rate: effective rows per group, pooled rate (or a row's deviation), seeds.

    The mean over seeds is no 0/1 number: it has a deviation of its own.
    """
    effective = effective_rows(m) if m.binary and np.any(m.units < m.rows) else m.rows
    made = []
    for rate, part in enumerate(seeds or [None] * len(m.mean)):
        has = m.rows[rate] > 0
        mean, rows = m.mean[rate][has], m.rows[rate][has]
        if m.binary:
            pooled = float((mean * rows).sum() / rows.sum())
            made.append(Design(np.where(has, effective[rate], 0.0), pooled, seeds=part))
            continue
        spread = (m.variance[rate][has] * rows)[m.units[rate][has] > 1]
        scale = spread.mean() if spread.size else 0.0
        made.append(Design(np.where(has, m.rows[rate], 0.0), float(np.sqrt(scale)), binary=False, seeds=part))
    return made


def cautions(m: Moments, rows: Rows) -> tuple[str, ...]:
    """Everything a reader must know before trusting a number, one sentence each."""
    notes, labels, table = [], rows.labels, rows.table
    for k, label in enumerate(labels):
        note = warning(m.rows[:, k].min(), MINIMUM, " of a class" if len(m.rows) > 1 else "")
        if note:
            notes.append(f"{label}: {note}")
    wide = [label for label, few in zip(labels, np.logical_or.reduce(few_differ(m)), strict=True) if few]
    if wide:
        notes.append(f"{', '.join(wide)}: {WIDE}")
    unbounded = np.logical_or.reduce((m.rows > 0) & np.isnan(limits(m, ALPHA)[0]))
    boundless = [label for label, one in zip(labels, unbounded, strict=True) if one]
    if boundless:
        notes.append(f"{', '.join(boundless)}: {BOUNDLESS}")
    covered = int((m.rows > 0).all(axis=0).sum())
    if covered < len(labels):
        notes.append(f"over {covered} of {len(labels)} groups")
    if table.units and np.ptp(np.nan_to_num(table.sums / np.maximum(table.sizes, 1))) == 0:
        notes.append("every row scores the same: chance has nothing to vary")
    return tuple(notes)


def _too_few(present: NDArray[np.bool_]) -> str:
    most = present.sum(axis=1).max(initial=0)
    short = "no group has rows" if most == 0 else "fewer than two groups have rows"
    return short if len(present) == 1 else f"{short} in one of the rates"
