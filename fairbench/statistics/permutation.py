"""Tell whether a disparity is more than chance gives on these very patients.

A gap between groups is never zero on a finite test set: with 1816, 76 and 108 patients a method that treats
all alike shows 7 points on average. `judge` says what chance alone gives, and what the observed value adds to
it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fairbench.errors import FairbenchError
from fairbench.statistics.intervals import (
    Floats,
    Ints,
    Moments,
    effective_rows,
    ends,
    gap_interval,
    labelled,
    limits,
    moments,
    pairwise_alpha,
    warning,
    worst_interval,
)
from fairbench.statistics.power import detectable_gap
from fairbench.statistics.resampling import Table, checked, countable, permuted, rounded, tabulate
from fairbench.statistics.results import ALPHA, Estimate, Gap

BUDGET = 2_000_000_000  # units moved at most; beyond it fewer permutations are drawn, and the result says so
MINIMUM = 20  # rows of one class below which a group is flagged

Statistic = Callable[[Floats, Floats], Floats]


def gap_max(values: Floats, sizes: Floats) -> Floats:
    """Largest over rates of max - min over groups; (draws, rates, groups) -> (draws,)."""
    spread: Floats = (np.nanmax(values, axis=2) - np.nanmin(values, axis=2)).max(axis=1)
    return spread


def gap_mean(values: Floats, sizes: Floats) -> Floats:
    """Mean over rates of max - min over groups."""
    spread: Floats = (np.nanmax(values, axis=2) - np.nanmin(values, axis=2)).mean(axis=1)
    return spread


def worst(values: Floats, sizes: Floats) -> Floats:
    """Smallest group value (of the worst rate)."""
    smallest: Floats = np.nanmin(values, axis=(1, 2))
    return smallest


REDUCTIONS: dict[str, Statistic] = {"max": gap_max, "mean": gap_mean, "worst": worst}


def judge(
    rates: Sequence[Floats],
    group: Ints,
    cluster: Ints | None = None,
    reduce: str | Statistic = "max",
    repeats: int = 10_000,
    seed: int = 0,
    names: Sequence[str] | None = None,
    higher_is_worse: bool = True,
) -> Gap:
    """Value, interval, noise floor, p-value and detectable size of a disparity between groups.

    rates: arrays (n,) of row scores, NaN where the row does not enter that rate (accuracy: [correct]; EqOdds:
    [answered yes on positives, answered yes on negatives]); group: (n,) codes, -1 = not recorded; cluster:
    (n,) patient or lesion, rows of which move together. reduce: "max", "mean" (over rates of the gap),
    "worst" (group), or a function of (values, sizes), both (draws, rates, groups), with `higher_is_worse`.

    The floor permutes group labels over units within the rates they enter (Fisher 1935; DiCiccio et al. 2020,
    2007.05124), exactly, p = (k + 1) / (repeats + 1) (Phipson and Smyth 2010). For single 0/1 rows the
    p-value compares the gap itself: at equal rates the rows are exchangeable whatever the class mix. For
    clusters and real scores, whose variance may differ between groups at equal means, it compares studentised
    differences.
    """
    if isinstance(reduce, str) and reduce not in REDUCTIONS:
        raise FairbenchError(f"no reduction is called {reduce!r}", f"choose one of {', '.join(REDUCTIONS)}")
    values, codes, clusters = checked(rates, group, cluster)
    labels = labelled(codes, names)
    table = tabulate(values, codes, clusters, len(labels))
    summary = group_moments(table)
    notes = cautions(summary, labels, table)
    coverage = int((summary.rows > 0).all(axis=0).sum()), len(labels)
    present = (summary.rows > 0).sum(axis=1)
    if (present < 2).any():
        short = "no group has rows" if present.max(initial=0) == 0 else "fewer than two groups have rows"
        reason = f"{short} of rate {int(present.argmin())}"
        return Gap(reason=reason, notes=notes, coverage=coverage)
    statistic = REDUCTIONS[reduce] if isinstance(reduce, str) else reduce
    sign = -1.0 if reduce == "worst" or not higher_is_worse else 1.0
    value = float(statistic(summary.mean[None], summary.rows[None])[0])
    coarse = rounded(table)
    drawn = affordable(coarse, repeats)
    if drawn < repeats:
        notes = (*notes, f"{drawn:,} permutations instead of {repeats:,}: too many distinct units")
    floor, tests = noise_floor(coarse, statistic, sign, reduce, drawn, seed)
    threshold = sign * value
    if uneven(table) and isinstance(reduce, str):
        threshold = studentised(*standardised(group_sums(coarse)[None], unit_counts(coarse)), reduce)[0]
    p = (1 + np.count_nonzero(tests >= threshold - 1e-12)) / (drawn + 1)
    mean = float(floor.mean())
    power = detectable_gap(*design(summary)) if reduce in ("max", "mean") else None
    low, high = gap_bounds(summary, reduce) if isinstance(reduce, str) else (None, None)
    return Gap(
        value=value,
        low=low,
        high=high,
        notes=notes,
        coverage=coverage,
        floor_mean=mean,
        floor_95=float(np.quantile(floor, 0.95 if sign > 0 else 0.05)),
        p=float(p),
        excess=value - mean,
        detectable=power.value if power else None,
    )


def group_features(table: Table) -> Floats:
    """Per pattern, for every rate: s, n, s², s·n, n²; (patterns, 5·rates)."""
    s, n = table.sums, table.sizes
    return np.concatenate([s, n, s * s, s * n, n * n], axis=1)


def group_sums(table: Table) -> Floats:
    """Add the features up per group; (groups, 5·rates)."""
    return table.counts.T @ group_features(table)


def unit_counts(table: Table) -> Floats:
    """Units that enter each rate, per group; (rates, groups)."""
    return ((table.sizes > 0).T @ table.counts).astype(float)


def group_moments(table: Table) -> Moments:
    """Mean and variance of every rate in every group; arrays are (rates, groups)."""
    parts = np.split(group_sums(table).T, 5)
    units = unit_counts(table)
    if uneven(table):
        return moments(parts[0], parts[1], parts[2], parts[3], parts[4], units, table.binary)
    with np.errstate(divide="ignore", invalid="ignore"):  # one 0/1 row a unit: the textbook variance
        mean = parts[0] / parts[1]
        variance = mean * (1 - mean) / (parts[1] - 1)
    return Moments(mean, np.where(parts[1] > 1, variance, np.nan), parts[1], units, True)


def noise_floor(
    table: Table, statistic: Statistic, sign: float, reduce: str | Statistic, repeats: int, seed: int
) -> tuple[Floats, Floats]:
    """Draw the value and the test statistic (large is bad) in worlds where all groups are treated alike.

    Where units differ in size or scatter (`uneven`), a permuted group's deviation, in its own standard
    errors, is given the standard error of the group it stands for; else a group with small patients would
    borrow large ones.
    """
    rates = table.sums.shape[1]
    features = group_features(table) if uneven(table) else np.concatenate([table.sums, table.sizes], axis=1)
    units = unit_counts(table)
    rng = np.random.default_rng(seed)
    own = np.sqrt(standardised(group_sums(table)[None], units)[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        unit_means = table.sums / table.sizes
    lowest, highest = (limit(unit_means, axis=0)[None, :, None] for limit in (np.nanmin, np.nanmax))
    floor, tests = [], []
    for sums in permuted(table, features, repeats, rng):
        sizes = sums[:, :, rates : 2 * rates].transpose(0, 2, 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            means = sums[:, :, :rates].transpose(0, 2, 1) / sizes
        if uneven(table):
            means, variance, pooled = standardised(sums, units)
            if isinstance(reduce, str):
                tests.append(studentised(means, variance, pooled, reduce))
            with np.errstate(divide="ignore", invalid="ignore"):
                scaled = pooled + (means - pooled) * np.nan_to_num(own / np.sqrt(variance), nan=1.0, posinf=1.0)
            # A group whose few units happen to agree has hardly any standard error: no mean can leave the scores.
            means = np.clip(scaled, lowest, highest)
        floor.append(statistic(means, sizes))
    values = np.concatenate(floor)
    return values, np.concatenate(tests) if tests else sign * values


def uneven(table: Table) -> bool:
    """Whether units may differ in scatter at equal means: several rows a unit, or real scores."""
    return table.repeats_rows or not table.binary


def standardised(sums: Floats, units: Floats) -> tuple[Floats, Floats, Floats]:
    """Means, their variances and the pooled mean, (draws, rates, groups or 1), from (draws, groups, 5·rates).

    One average unit's scatter is added to every group, so that a small group whose rows happen to agree does
    not look infinitely certain; permutation stays exact for any such statistic.
    """
    s, n, ss, sn, nn = np.split(sums.transpose(0, 2, 1), 5, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = s / n
        scatter = np.maximum(ss - 2 * mean * sn + mean**2 * nn, 0)
        usual = np.nansum(scatter, axis=2, keepdims=True) / units.sum(axis=1)[None, :, None]
        variance = (scatter + usual) / n**2 * units / np.maximum(units - 1, 1)
        pooled = s.sum(axis=2, keepdims=True) / n.sum(axis=2, keepdims=True)
    return mean, variance, pooled


def studentised(mean: Floats, variance: Floats, pooled: Floats, reduce: str | Statistic) -> Floats:
    """Take the largest difference in standard errors: between groups, or (`worst`) below all together."""
    with np.errstate(divide="ignore", invalid="ignore"):
        if reduce == "worst":
            below = (pooled - mean) / np.sqrt(variance)
            lowest: Floats = np.nan_to_num(below, nan=-np.inf, neginf=-np.inf).max(axis=(1, 2))
            return lowest
        i, j = np.triu_indices(mean.shape[2], 1)
        distance = np.abs(mean[:, :, i] - mean[:, :, j]) / np.sqrt(variance[:, :, i] + variance[:, :, j])
    largest = np.where(np.isnan(distance), 0.0, distance).max(axis=2)
    combined: Floats = largest.mean(axis=1) if reduce == "mean" else largest.max(axis=1)
    return combined


def gap_bounds(m: Moments, reduce: str, alpha: float = ALPHA) -> tuple[float, float] | tuple[None, None]:
    """Bound a gap (or the worst group) so that it is covered whatever the truth; None twice where undefined."""
    rates, groups = m.mean.shape
    if reduce == "worst":
        low, high = limits(m, alpha / (rates * groups))
        both = worst_interval(low.ravel(), high.ravel())
    else:
        low, high = limits(m, pairwise_alpha(groups, rates, alpha))
        both = gap_interval(m.mean, low, high, reduce)
    return ends(*both) if both else (None, None)


def group_rates(
    rate: Floats,
    group: Ints,
    cluster: Ints | None = None,
    names: Sequence[str] | None = None,
    minimum: int = MINIMUM,
) -> tuple[Estimate, ...]:
    """Every group's value with its own interval (see `intervals.limits`), and a note below `minimum` rows."""
    values, codes, clusters = checked([rate], group, cluster)
    labels = labelled(codes, names)
    m = group_moments(tabulate(values, codes, clusters, len(labels)))
    low, high = limits(m, ALPHA)
    found = []
    for k in range(len(labels)):
        rows, note = int(m.rows[0, k]), warning(m.rows[0, k], minimum)
        if rows == 0:
            found.append(Estimate(reason=note, rows=0))
            continue
        bottom, top = ends(low[0, k], high[0, k])
        notes = (note,) if note else ()
        found.append(Estimate(float(m.mean[0, k]), bottom, top, rows=rows, notes=notes))
    return tuple(found)


def design(m: Moments) -> tuple[Floats, float, bool]:
    """Take what power needs: effective rows per group, pooled rate (or a row's deviation), 0/1 or not."""
    rate = int(np.nan_to_num(m.rows, nan=0).min(axis=1).argmin())
    known = m.rows[rate] > 0
    mean, rows, units = m.mean[rate][known], m.rows[rate][known], m.units[rate][known]
    if m.binary:
        one = Moments(mean, m.variance[rate][known], rows, units, True)
        sizes = effective_rows(one) if np.any(units < rows) else rows
        return sizes, float((mean * rows).sum() / rows.sum()), True
    spread = (m.variance[rate][known] * rows)[units > 1]
    scale = spread.mean() if spread.size else 0.0
    return rows, float(np.sqrt(scale)), False


def cautions(m: Moments, labels: Sequence[str], table: Table) -> tuple[str, ...]:
    """Everything a reader must know before trusting a number, one sentence each."""
    notes = []
    for k, label in enumerate(labels):
        note = warning(m.rows[:, k].min(), MINIMUM)
        if note:
            notes.append(f"{label}: {note}")
    covered = int((m.rows > 0).all(axis=0).sum())
    if covered < len(labels):
        notes.append(f"over {covered} of {len(labels)} groups")
    if table.units and np.ptp(np.nan_to_num(table.sums / np.maximum(table.sizes, 1))) == 0:
        notes.append("every row scores the same: chance has nothing to vary")
    return tuple(notes)


def affordable(table: Table, repeats: int) -> int:
    """As many of the repeats as BUDGET allows; counting is always affordable."""
    moved = 0
    for stratum in np.unique(table.stratum):
        counts = table.counts[table.stratum == stratum]
        moved += 0 if countable(counts) else int(counts.sum())
    return repeats if moved == 0 else int(max(99, min(repeats, BUDGET // moved)))
