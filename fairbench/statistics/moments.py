"""Groups' means, the variance of each, and limits for it: what intervals, tests and power start from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fairbench.statistics.intervals import MINIMUM, Floats, proportion_limits
from fairbench.statistics.resampling import Table
from fairbench.statistics.seeds import SeedVariance


@dataclass(frozen=True)
class Moments:
    """Every rate in every group, arrays (rates, groups), NaN where there are no rows.

    variance: of the mean, cluster-robust, NaN for one unit; rows; units; independent: how many units of equal
    size would weigh as much (Kish 1965); freedom: degrees of freedom of the variance, from those and from how
    many units differ from the commonest one. binary: rows are 0 or 1; fractions: rows lie in 0 to 1.
    """

    mean: Floats
    variance: Floats
    rows: Floats
    units: Floats
    independent: Floats
    freedom: Floats
    binary: bool
    fractions: bool


def uneven(table: Table) -> bool:
    """Whether units may differ in scatter at equal means: several rows a unit, or real scores."""
    return table.repeats_rows or not table.binary


def group_features(table: Table) -> Floats:
    """Per pattern, for every rate: s, n, s², s·n, n²; (patterns, 5·rates)."""
    s, n = table.sums, table.sizes
    return np.concatenate([s, n, s * s, s * n, n * n], axis=1)


def unit_counts(table: Table) -> Floats:
    """Units that enter each rate, per group; (rates, groups)."""
    return ((table.sizes > 0).T @ table.counts).astype(float)


def group_moments(table: Table) -> Moments:
    """Mean and variance of every rate in every group.

    The variance is that of a ratio of sums over units (Cochran 1977, eq. 2.46) with each unit's residual
    divided by 1 − its share of the group's rows (Bell and McCaffrey 2002, CR2), which is units / (units − 1)
    where units have equal sizes.
    """
    s, n = (table.counts.T @ column for column in (table.sums, table.sizes))
    rows, units = n.T, unit_counts(table)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = s.T / rows
    variance, square = np.zeros((2, *mean.shape))
    pattern, group = np.nonzero(table.counts)
    count = table.counts[pattern, group]
    for rate in range(mean.shape[0]):
        size = table.sizes[pattern, rate]
        share = np.divide(size, rows[rate, group], out=np.zeros(size.size), where=size > 0)
        residual = np.where(size > 0, table.sums[pattern, rate] - mean[rate, group] * size, 0)
        part = np.divide(residual**2, 1 - share, out=np.zeros(size.size), where=share < 1)
        variance[rate] = np.bincount(group, count * part, mean.shape[1])
        square[rate] = np.bincount(group, count * size**2, mean.shape[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = np.where(units > 1, variance / rows**2, np.nan)
        independent = rows**2 / square
    fractions = bool((table.sums >= 0).all() and (table.sums <= table.sizes).all()) or table.binary
    freedom = independent - 1
    if uneven(table):
        freedom = np.minimum(freedom, units - _commonest(table))
    return Moments(mean, variance, rows, units, independent, np.maximum(freedom, 1), table.binary, fractions)


def _commonest(table: Table) -> Floats:
    """How many of a group's units share the commonest mean, such as 0 of a text score; (rates, groups)."""
    most = np.zeros((table.sums.shape[1], table.counts.shape[1]))
    for rate in range(len(most)):
        inside = table.sizes[:, rate] > 0
        means = table.sums[inside, rate] / table.sizes[inside, rate]
        level = np.unique(means, return_inverse=True)[1].ravel()
        counts = table.counts[inside]
        for group in range(counts.shape[1]):
            most[rate, group] = np.bincount(level, counts[:, group]).max(initial=0)
    return most


def effective_rows(m: Moments) -> Floats:
    """Rows that independent 0/1 sampling would need for the same precision: n / design effect (Kish 1965).

    The design effect is never taken below 1. A group whose rows all agree shows no variance of its own; it
    gets the pooled design effect of the others, or, if there is none, as many rows as it has units.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        simple = m.mean * (1 - m.mean) / m.rows * m.units / (m.units - 1)
        effect = np.where((simple > 0) & (m.units > 1), np.maximum(m.variance / simple, 1), np.nan)
        weight = np.where(np.isnan(effect), 0, m.units)
        pooled = np.nansum(weight * np.nan_to_num(effect)) / weight.sum() if weight.sum() else np.nan
        fallback = m.rows / m.units if np.isnan(pooled) else np.full_like(m.rows, pooled)
        rows: Floats = m.rows / np.where(np.isnan(effect), np.minimum(fallback, m.rows / m.units), effect)
    return rows


def few_units(m: Moments) -> NDArray[np.bool_]:
    """Which groups have few independent units, or few beside the commonest score, to tell their scatter by; (rates,
    groups).
    """
    return (m.rows > 0) & (m.freedom + 1 < MINIMUM)


def few_differ(m: Moments) -> NDArray[np.bool_]:
    """Which groups have so few rows beside the commonest score that their limits are wider than they need be.

    Then only the bound for 0/1 rows is known to hold; (rates, groups).
    """
    return few_units(m) & (m.fractions and not m.binary)


def limits(m: Moments, alpha: float) -> tuple[Floats, Floats]:
    """Two-sided limits of every group's mean; NaN where a group has no rows (or too few, for unbounded scores).

    Fractions: a proportion's limits on as many trials as give the observed variance, shrunk by (z/t)² for its
    degrees of freedom (Korn and Graubard 1998), and never fewer than the units: no fraction varies more than
    0/1 does at the same mean. So they stay in 0 to 1. Other scores: mean ± t.
    """
    t = stats.t.ppf(1 - alpha / 2, m.freedom)
    if not m.fractions:
        half = np.where(m.freedom > 1, t * np.sqrt(m.variance), np.nan)
        return m.mean - half, m.mean + half
    trials = m.rows
    if not m.binary or np.any(m.units < m.rows):
        with np.errstate(divide="ignore", invalid="ignore"):
            own = effective_rows(m) if m.binary else m.mean * (1 - m.mean) / m.variance
            shrunk = own * (stats.norm.ppf(1 - alpha / 2) / t) ** 2
        trials = np.fmax(np.where(np.isfinite(shrunk), shrunk, 0), m.independent)
    return proportion_limits(m.mean, trials, alpha)


def limits_with_seeds(
    m: Moments, alpha: float, weights: Sequence[float] | None, seeds: Sequence[SeedVariance]
) -> tuple[Floats, Floats, Floats]:
    """Means and limits, of the weighted sum of the rates if weights are given; each (rates, groups).

    Sums and the seeds' part are added by "square and add" (Zou and Donner 2008), the seeds with their own t.
    """
    low, high = limits(m, alpha)
    mean, below, above = m.mean, m.mean - low, high - m.mean
    if weights is not None:
        w = np.asarray(weights, float)[:, None]
        mean, below, above = (w * mean).sum(0)[None], *(np.sqrt((w**2 * x**2).sum(0))[None] for x in (below, above))
    if seeds:
        reach = [stats.t.ppf(1 - alpha / 2, part.freedom) * np.sqrt(part.between) for part in seeds]
        below, above = (np.hypot(x, np.array(reach)[:, None]) for x in (below, above))
    low, high = mean - below, mean + above
    return (mean, np.maximum(low, 0), np.minimum(high, 1)) if m.fractions else (mean, low, high)


def known(m: Moments, weights: Sequence[float] | None) -> NDArray[np.bool_]:
    """Which groups have rows of each rate, or of all rates that are summed; (rates, groups)."""
    present = m.rows > 0
    return present if weights is None else np.atleast_2d(present.all(axis=0))
