"""What a statistic returns: a number that may be undefined, never a made-up 0 or 1.

Three types carry it from the statistics to the JSON: an estimate, a gap with its chance distribution, and a
difference of two methods with its adjusted p, which a contrast says of two groups. `value` None is undefined, and
`reason` says why; beside a value, `notes` say what a reader must mind. Units are those of the rows: fractions for
0/1 rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ALPHA = 0.05  # error of every interval and test
# What ranks go by: several measures at once (by dominance), or one.
RankBy = Literal["dominance", "dominance-odds", "gap", "worst-group", "score", "dto"]


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval; `rows` are those that entered it, its denominator if it is a mean.

    With several seeds the value is their mean.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str | None = None
    rows: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends, or None where there is no interval."""
        return None if self.low is None or self.high is None else (self.low, self.high)


@dataclass(frozen=True)
class Gap(Estimate):
    """A disparity between groups, beside what chance gives on the same rows.

    `coverage` is (groups that entered, groups present). `group` names the worst group of a worst-group
    disparity, and `agreeing` counts the seeds whose worst group it is. `floor_mean` and `floor_95` (95th
    percentile; the 5th where low is bad) describe the value if all groups were treated alike; `p` is the share
    of such draws at least as bad, never 0, and `adjusted` is p adjusted for the disparities tested together;
    `excess` = value - floor_mean; `detectable` is the smallest gap found with 80 % power.
    """

    coverage: tuple[int, int] | None = None
    group: str | None = None
    agreeing: int | None = None
    floor_mean: float | None = None
    floor_95: float | None = None
    p: float | None = None
    adjusted: float | None = None
    excess: float | None = None
    detectable: float | None = None


@dataclass(frozen=True)
class Difference(Estimate):
    """A minus B on the same rows, its p and the p adjusted for the comparisons made together.

    `p` is of "the two are equal", wherever each method's worst groups are; `exchange_p` of the stronger "the
    two methods' answers are exchangeable", which it never undercuts: use `p` to rank.
    """

    p: float | None = None
    adjusted: float | None = None
    exchange_p: float | None = None

    @property
    def significant(self) -> bool:
        """Whether the two differ after adjustment; without an adjusted p, no."""
        return self.adjusted is not None and self.adjusted <= ALPHA


@dataclass(frozen=True)
class Contrast(Difference):
    """A moved a group by this much more than it moved `against`, compared with B, in one rate.

    Of the two it is the one that was moved further, so that the sign says who gained or lost. The interval holds
    for all pairs of groups and rates together, and `p` is adjusted for them.
    """

    group: str = ""
    against: str = ""
    rate: str = ""

    @property
    def apart(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


@dataclass(frozen=True)
class Interaction:
    """Whether A moved the groups unequally against B: p <= .05 exactly where a contrast's interval leaves out 0.

    `adjusted` is p adjusted for the comparisons made together. `contrasts` come with the largest t first. None is
    undefined, and `reason` says why.
    """

    p: float | None = None
    adjusted: float | None = None
    contrasts: tuple[Contrast, ...] = ()
    reason: str | None = None

    @property
    def significant(self) -> bool:
        """Whether the groups were moved unequally after adjustment."""
        return self.adjusted is not None and self.adjusted <= ALPHA
