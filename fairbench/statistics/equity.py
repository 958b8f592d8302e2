"""Evidence for an equity-scaled score, ES-M = M / (1 + ΔM): what chance gives, and an interval.

ES-M multiplies how good and how fair a method is, and a gap of five points already divides it by six: on a few
hundred patients a fair method of 80 % shows anything from 9 to 41. It says little without its chance value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from fairbench.statistics.intervals import Floats, Ints
from fairbench.statistics.permutation import group_rates, judge
from fairbench.statistics.results import Gap

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
) -> Gap:
    """Value (mean of the seeds'), interval, value by chance (mean and 5th percentile) and p of ES-M.

    rate: (n,) or (seeds, n) row scores of 0 to 1; combine: ES-M of [groups' values (..., groups)] and [overall
    (...)], which falls as groups lie further apart; gap: the same rate's judged max − min, if it is known. With
    M given, ES-M is below M exactly where there is a gap: so p is the gap's, and the interval holds all ES-M of
    a score within M's interval and groups whose range lies within the gap's.
    """
    scores = np.atleast_2d(np.asarray(rate, float))
    gap = gap or judge([scores], group, cluster, repeats=repeats, seed=seed, names=names)
    if gap.value is None:
        return gap
    overall = np.asarray(np.nanmean(scores))

    def scaled(values: Floats, sizes: Floats) -> Floats:
        return combine([values[:, 0]], [np.broadcast_to(overall, (len(values),))])

    found = judge([scores], group, cluster, scaled, repeats, seed, names, higher_is_worse=False)
    everyone = group_rates(scores, np.zeros_like(group), cluster)[0]
    if gap.low is None or gap.high is None or everyone.low is None or everyone.high is None:
        return replace(found, p=gap.p)
    present = gap.coverage[0] if gap.coverage else 2
    low = float(combine([_furthest(everyone.low, gap.high, present)], [np.asarray(everyone.low)]))
    high = float(combine([_nearest(everyone.high, gap.low, present)], [np.asarray(everyone.high)]))
    value = found.value or 0.0
    return replace(found, low=max(0.0, min(low, value)), high=min(1.0, max(high, value)), p=gap.p)


def _furthest(mean: float, gap: float, groups: int) -> Floats:
    """Groups of this range that lie as far from `mean` as they can: one at it, all others a gap below."""
    return np.array([mean] + [mean - gap] * (groups - 1))


def _nearest(mean: float, gap: float, groups: int) -> Floats:
    """Groups of this range that lie as near to `mean` as they can: one a gap below, all others at it."""
    return np.array([mean] * (groups - 1) + [mean - gap])
