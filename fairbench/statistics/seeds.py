"""What training again changes: the variance that seeds add to groups' values, on one set of patients.

Seeds are a sample as patients are. Groups by seeds are a crossed layout (Owen 2007): a group's mean over seeds
varies because other patients could have been tested, and because other seeds could have been trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize

from fairbench.statistics.intervals import Floats, Ints


@dataclass(frozen=True)
class SeedVariance:
    """Of the mean over seeds: `between`, what training again adds to each group alike, and `within`, (groups,),
    the part of the sampling variance that seeds do not share; both with `freedom` degrees of freedom.
    """

    between: float
    within: Floats
    freedom: float


def seed_variances(
    rates: Sequence[Floats],
    group: Ints,
    cluster: Ints | None,
    groups: int,
    weights: Sequence[float] | None = None,
    contrasts: bool = True,
) -> list[SeedVariance]:
    """Split the seeds' part off for every rate, or for the weighted sum of the rates; empty with one seed.

    rates: (seeds, n), NaN outside the rate. contrasts: whether only differences between groups matter, so that
    what moves all groups alike is removed.
    """
    if len(rates[0]) == 1:
        return []
    parts = [group_seeds(rate, group, cluster, groups) for rate in rates]
    if weights is not None:
        values = sum(weight * value for weight, (value, _) in zip(weights, parts, strict=True))
        within = sum(weight**2 * own for weight, (_, own) in zip(weights, parts, strict=True))
        parts = [(np.asarray(values), np.asarray(within))]
    return [from_groups(values, within, contrasts) for values, within in parts]


def group_seeds(scores: Floats, group: Ints, cluster: Ints | None, groups: int) -> tuple[Floats, Floats]:
    """Every seed's group means, (seeds, groups), and the sampling variance peculiar to one seed, (groups,)."""
    keep = (group >= 0) & ~np.isnan(scores[0])
    scores, group = scores[:, keep], group[keep]
    n = np.bincount(group, minlength=groups).astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.stack([np.bincount(group, row, groups) for row in scores]) / n
    own = scores - scores.mean(axis=0)
    own -= (values - values.mean(axis=0))[:, group]
    unit = np.arange(group.size)
    if cluster is not None:
        unit = np.unique(cluster[keep] * np.int64(groups) + group, return_inverse=True)[1].ravel()
    number = int(unit.max(initial=-1)) + 1
    owner = np.zeros(number, dtype=np.int64)
    owner[unit] = group
    square = sum(np.bincount(unit, row, number) ** 2 for row in own)
    units = np.bincount(owner, minlength=groups).astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        within = np.bincount(owner, square, groups) / (len(scores) - 1) / n**2 * units / np.maximum(units - 1, 1)
    return values, within


def from_groups(values: Floats, within: Floats, contrasts: bool) -> SeedVariance:
    """Estimate what seeds add beyond `within`: the variance at which the scatter is what it should be.

    values: (seeds, groups); within: (groups,). Paule and Mandel 1982: Q(v) = sum of squared residuals over
    (within + v) equals its degrees of freedom; 0 where even v = 0 leaves less. Residuals of seeds x groups with
    group means, and with seed means too for contrasts.
    """
    known = ~np.isnan(values[0])
    x, q = values[:, known], within[known]
    seeds, groups = x.shape
    x = x - x.mean(axis=0)
    freedom = (seeds - 1) * (groups - 1 if contrasts else groups)
    if freedom < 1:
        return SeedVariance(0.0, within / seeds, np.inf)

    def scatter(variance: float) -> float:
        weight = 1 / (q + variance)
        moved = (x * weight).sum(axis=1, keepdims=True) / weight.sum() if contrasts else 0.0
        return float(((x - moved) ** 2 * weight).sum())

    top = float((x**2).sum())
    least = 1e-12
    if top <= least or scatter(least) <= freedom:
        return SeedVariance(0.0, within / seeds, float(freedom))
    # scatter(2 * top) is a half or less; at top itself it may be 1 and a rounding more, where freedom is 1.
    between = optimize.brentq(lambda variance: scatter(variance) - freedom, least, 2 * top)
    return SeedVariance(float(between) / seeds, within / seeds, float(freedom))
