"""Intervals for a group's rate, a group's AUROC and the gap between groups.

One idea serves them all: a limit for each group on its own (Wilson for 0/1 rows, cluster-robust t for real
scores, DeLong for AUROC), then every pairwise difference by "square and add" (Newcombe 1998, method 10; Zou
and Donner 2008 call it MOVER), then the gap from all pairs at once. No resampling, so 5 million rows cost
nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats
from statsmodels.stats.proportion import proportion_confint

from fairbench.statistics.results import ALPHA

FEW_OF_A_CLASS = "few independent rows of the smaller class, so the interval is wider than 95 % needs"
MINIMUM = 20  # rows, or independent units of a class, below which a number is flagged

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def wilson(rate: ArrayLike, trials: ArrayLike, alpha: float = ALPHA) -> tuple[Floats, Floats]:
    """Score interval of a proportion (Wilson 1927), for arrays; NaN where there are no trials."""
    return _proportion(rate, trials, alpha, "wilson")


def proportion_limits(rate: ArrayLike, trials: ArrayLike, alpha: float = ALPHA) -> tuple[Floats, Floats]:
    """Limits of a proportion, for arrays; NaN where there are no trials; `trials` need not be whole.

    Wilson's interval joined with Jeffreys' (Brown, Cai and DasGupta 2001): alone, Wilson's covers 86 % of the
    time at 5 trials and a rate of .97, Jeffreys' 92 % at 60 trials and .95; joined, 93 % or more.
    """
    low, high = wilson(rate, trials, alpha)
    below, above = _proportion(rate, trials, alpha, "jeffreys")
    p = np.asarray(rate, float)
    return np.where(p > 0, np.minimum(low, below), low), np.where(p < 1, np.maximum(high, above), high)


def _proportion(rate: ArrayLike, trials: ArrayLike, alpha: float, method: str) -> tuple[Floats, Floats]:
    p, n = np.asarray(rate, float), np.asarray(trials, float)
    empty = ~(n > 0) | np.isnan(p)
    counted, of = np.where(empty, 0.0, p * n), np.where(empty, 1.0, n)
    low, high = proportion_confint(np.minimum(counted, of), of, alpha, method)
    return np.where(empty, np.nan, low), np.where(empty, np.nan, high)


def gap_interval(values: Floats, low: Floats, high: Floats, reduce: str = "max") -> tuple[float, float] | None:
    """Bounds on max - min over groups, from limits made at `pairwise_alpha`.

    None if a rate has < 2 groups, or a group whose value has no limits: it may be what makes the gap.
    values, low, high: (rates, groups), NaN where undefined. Every pairwise difference gets its square-and-add
    interval; all of them hold together, and then the gap lies between the largest lower and the largest upper
    bound of |difference|. Several rates: the larger of the ends (`max`) or their mean (`mean`).
    """
    if _boundless(values, low):
        return None
    bounds = []
    for value, bottom, top in zip(values, low, high, strict=True):
        i, j = np.triu_indices(value.size, 1)
        difference = value[i] - value[j]
        lower = difference - np.hypot(value[i] - bottom[i], top[j] - value[j])
        upper = difference + np.hypot(top[i] - value[i], value[j] - bottom[j])
        known = ~np.isnan(lower)
        if not known.any():
            return None
        nearest = np.maximum(0, np.maximum(lower, -upper))
        bounds.append((nearest[known].max(), np.maximum(-lower, upper)[known].max()))
    ends = np.array(bounds)
    both = ends.max(axis=0) if reduce == "max" else ends.mean(axis=0)
    return float(both[0]), float(both[1])


def pairwise_alpha(groups: int, rates: int, alpha: float) -> float:
    """Bonferroni: the error left to each of the groups·(groups-1)/2 differences of each rate."""
    return alpha / max(1, rates * groups * (groups - 1) // 2)


def worst_interval(values: Floats, low: Floats, high: Floats) -> tuple[float, float] | None:
    """Bounds on the smallest group value, from limits that hold for all groups together; None as for a gap."""
    if _boundless(values, low) or np.isnan(low).all():
        return None
    return float(np.nanmin(low)), float(np.nanmin(high))


def _boundless(values: Floats, low: Floats) -> bool:
    """Whether a group's value is known and nothing bounds it."""
    return bool((np.isnan(low) & ~np.isnan(values)).any())


@dataclass(frozen=True)
class Auroc:
    """AUROC, its DeLong variance, and how many positives, negatives and units it rests on.

    freedom: of the variance, from the smaller class or its clusters. With several seeds the value is their mean,
    `between` the variance that training again adds to it, with freedom_between.
    """

    value: float
    variance: float
    positives: int
    negatives: int
    units: int
    freedom: float
    between: float = 0.0
    freedom_between: float = np.inf


def delong(target: ArrayLike, score: ArrayLike, cluster: ArrayLike | None = None) -> Auroc | None:
    """AUROC with ties counted half and its variance (DeLong 1988, by midranks as in Sun and Xu 2014).

    target: (n,); score: (n,) or (seeds, n). Rows of one cluster are not independent: with `cluster` the
    structural components are summed within clusters first (Obuchowski 1997). O(n log n). None where a class is
    missing.
    """
    positive = np.asarray(target).astype(bool)
    rows = np.atleast_2d(np.asarray(score, float))
    m, n = int(positive.sum()), int((~positive).sum())
    if m == 0 or n == 0:
        return None
    values, parts = (np.array(x) for x in zip(*(influence(positive, row) for row in rows), strict=True))
    unit = np.arange(m + n) if cluster is None else np.unique(np.asarray(cluster), return_inverse=True)[1].ravel()
    units = int(unit.max()) + 1

    def variance(part: Floats) -> float:
        if cluster is None:
            both = [(part[inside] ** 2).sum() * k / (k - 1) if k > 1 else np.nan for inside, k in
                    ((positive, m), (~positive, n))]  # fmt: skip
            return float(sum(both))
        return float((np.bincount(unit, part) ** 2).sum() * units / (units - 1)) if units > 1 else np.nan

    freedom = min(effective_units(unit[inside]) for inside in (positive, ~positive)) - 1
    seeds, value = len(rows), float(values.mean())
    pooled = Auroc(value, variance(parts.mean(axis=0)), m, n, units, max(freedom, 1.0))
    if seeds == 1:
        return pooled
    own = sum(variance(part - parts.mean(axis=0)) for part in parts) / (seeds - 1)
    between = max(0.0, float(values.var(ddof=1)) - own) / seeds
    return replace(pooled, between=between, freedom_between=float(seeds - 1))


def influence(positive: NDArray[np.bool_], score: Floats) -> tuple[float, Floats]:
    """AUROC and every row's part in it, (n,), which sum to 0 within each class."""
    m, n = int(positive.sum()), int((~positive).sum())
    ranks = stats.rankdata(score)
    above = (ranks[positive] - stats.rankdata(score[positive])) / n
    below = 1 - (ranks[~positive] - stats.rankdata(score[~positive])) / m
    value = float(above.mean())
    part = np.empty(score.size)
    part[positive], part[~positive] = (above - value) / m, (below - value) / n
    return value, part


def effective_units(unit: Ints) -> float:
    """How many units of equal size would weigh as much as these, given the unit of every row (Kish 1965)."""
    sizes = np.bincount(unit)
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def auroc_limits(a: Auroc, alpha: float = ALPHA) -> tuple[float, float]:
    """DeLong limits on the logit scale, so that they stay inside 0 and 1.

    t has the degrees of freedom of the smaller class, and one row's worth is added to the variance: six
    positives know less than six hundred rows seem to. A perfectly separated (or reversed) group shows no
    variance: it gets the limits of a proportion on its smaller class.
    """
    smaller = min(a.positives, a.negatives, a.freedom + 1)
    if not a.variance > 0 or a.value in (0.0, 1.0):
        low, high = proportion_limits(a.value, smaller, alpha)
        return float(low), float(high)
    slope = a.value * (1 - a.value)
    t, t_seeds = (stats.t.ppf(1 - alpha / 2, freedom) for freedom in (a.freedom, a.freedom_between))
    half = np.hypot(t * np.sqrt(a.variance + slope / (4 * smaller**2)), t_seeds * np.sqrt(a.between)) / slope
    ends = special.expit(special.logit(a.value) + np.array([-half, half]))
    return float(ends[0]), float(ends[1])


def auroc_notes(a: Auroc) -> tuple[str, ...]:
    """Say that an AUROC's limits are wider than they need be, where the smaller class has few independent units."""
    units = min(a.positives, a.negatives, a.freedom + 1)
    return (FEW_OF_A_CLASS,) if units < MINIMUM else ()


def labelled(group: Ints, names: Sequence[str] | None) -> tuple[str, ...]:
    """Group names: those given, else the codes themselves."""
    if names is not None:
        return tuple(names)
    return tuple(str(code) for code in range(int(group.max(initial=-1)) + 1))


def warning(rows: float, minimum: int, of: str = "") -> str | None:
    """Flag a group that is too small to say anything; None for the others. `of`: of which rows, if not all."""
    if rows == 0:
        return "no rows: undefined"
    return f"only {int(rows)} rows{of} (fewer than {minimum})" if rows < minimum else None


def ends(low: Any, high: Any) -> tuple[float, float] | tuple[None, None]:
    """Both ends as numbers; None twice if one is undefined."""
    return (None, None) if np.isnan(low) or np.isnan(high) else (float(low), float(high))


def max_minus_min(values: Floats) -> Floats:
    """Largest minus smallest group value over the last axis, NaN where fewer than two groups have one."""
    if values.shape[-1] == 0:
        return np.full(values.shape[:-1], np.nan)
    largest: Floats = over_groups(np.fmax, values) - over_groups(np.fmin, values)
    finite = np.isfinite(values)
    if values.shape[-1] >= 2 and finite.all():
        return largest
    return np.where(finite.sum(axis=-1) >= 2, largest, np.nan)


def over_groups(limit: np.ufunc, values: Floats) -> Floats:
    """Reduce the last axis, group by group: many times faster than `limit.reduce` over an axis of a few."""
    reduced: Floats = functools.reduce(limit, np.moveaxis(values, -1, 0))
    return reduced
