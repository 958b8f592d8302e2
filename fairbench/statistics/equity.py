"""Evidence for an equity-scaled score, ES-M = M / (1 + ΔM): what chance gives, and an interval.

ES-M multiplies how good and how fair a method is, and a gap of five points already divides it by six: on a few
hundred patients a fair method of 80 % shows anything from 9 to 41. It says little without its chance value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from fairbench.statistics.intervals import Floats, Ints
from fairbench.statistics.moments import group_moments, limits_with_seeds
from fairbench.statistics.permutation import Rows, gap_bounds, judge, seed_values
from fairbench.statistics.results import Gap
from fairbench.statistics.seeds import SeedPrior

OVERALL = 0.01  # error of the overall score's limits, which hardly widen the interval
Combine = Callable[[Sequence[Floats], Sequence[Floats]], Floats]


def judge_equity_scaled(
    rate: Floats,
    group: Ints,
    combine: Combine,
    cluster: Ints | None = None,
    gap: Gap | None = None,
    repeats: int = 10_000,
    seed: int = 0,
    names: Sequence[str] | None = None,
    priors: Sequence[SeedPrior | None] = (),
) -> Gap:
    """Value (mean of the seeds'), interval, value by chance (mean and 5th percentile) and p of ES-M.

    rate: (n,) or (seeds, n) row scores of 0 to 1; combine: ES-M of [groups' values (..., groups)] and [overall
    (...)], which falls as groups lie further apart; gap: the same rate's judged max − min, if it is known. With
    M given, ES-M is below M exactly where there is a gap: so p is the gap's, and the interval holds all ES-M of
    a score within M's interval and groups whose range lies within the gap's. priors: as in `judge`.
    """
    scores = np.atleast_2d(np.asarray(rate, float))
    gap = gap or judge([scores], group, cluster, repeats=repeats, seed=seed, names=names, priors=priors)
    if gap.value is None:
        return gap
    overall = np.asarray(np.nanmean(scores))

    def scaled(values: Floats, sizes: Floats) -> Floats:
        return combine([values[:, 0]], [np.broadcast_to(overall, (len(values),))])

    scaled_gap = judge([scores], group, cluster, scaled, repeats, seed, names, higher_is_worse=False, priors=priors)
    bounds = equity_bounds(scores, group, combine, cluster, gap)
    own = seed_values(Rows.of([scores], group, cluster, names))[0][:, 0]
    value = float(combine([own], [np.nanmean(scores, axis=1)]).mean())  # of every seed its own score and gap
    scaled_gap = replace(scaled_gap, value=value, excess=value - (scaled_gap.floor_mean or 0.0))
    if bounds is None:
        return replace(scaled_gap, p=gap.p)
    return replace(scaled_gap, low=min(bounds[0], value), high=max(bounds[1], value), p=gap.p)


def equity_bounds(
    rate: Floats, group: Ints, combine: Combine, cluster: Ints | None = None, gap: Gap | None = None
) -> tuple[float, float] | None:
    """All ES-M of a score within its interval (99 %) and groups whose range lies within the gap's (95 %)."""
    rows, everyone = Rows.of([rate], group, cluster, None), Rows.of([rate], np.zeros_like(group), cluster, None)
    m = group_moments(rows.table)
    gaps = (gap.low, gap.high) if gap else gap_bounds(m, "max", None, rows.seed_parts(contrasts=True))
    overall = limits_with_seeds(group_moments(everyone.table), OVERALL, None, everyone.seed_parts(contrasts=False))
    least, most = float(overall[1][0, 0]), float(overall[2][0, 0])
    if gaps[0] is None or gaps[1] is None or np.isnan(least):
        return None
    groups = int((m.rows > 0).sum())
    low = float(combine([_furthest(least, gaps[1], groups)], [np.asarray(least)]))
    ends = _nearest(most, gaps[0], groups), _above(most, gaps[0], groups)
    high = max(float(combine([values], [np.asarray(most)])) for values in ends)
    return max(0.0, low), min(1.0, high)


def _furthest(mean: float, gap: float, groups: int) -> Floats:
    """Groups of this range that lie as far from `mean` as they can: one at it, all others a gap below."""
    return np.array([mean] + [mean - gap] * (groups - 1))


def _nearest(mean: float, gap: float, groups: int) -> Floats:
    """Groups of this range that lie as near to `mean` as they can: one a gap below, all others at it."""
    return np.array([mean] * (groups - 1) + [mean - gap])


def _above(mean: float, gap: float, groups: int) -> Floats:
    """Groups of this range as good as they can be where one of nearly all rows is at `mean`: the best case of an M
    that is the mean of the groups' values.
    """
    return np.array([mean] + [mean + gap] * (groups - 1))
