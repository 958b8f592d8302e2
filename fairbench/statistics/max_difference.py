"""The difference of two extremes: a gap is the largest of many differences, and that spoils textbook intervals.

A maximum of noisy values is too large on average, by something between nothing (one group stands out) and the
mean maximum of the noise alone (all groups are equal). Percentile bootstrap intervals ignore this and cover as
little as 56 % of the time. `Extreme` holds one extreme of two methods: a range over groups (a gap), the best
group or the worst, with bootstrap draws of the groups' values.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import stats

from fairbench.statistics.intervals import Floats, Ints, max_minus_min, over_groups
from fairbench.statistics.results import ALPHA


@dataclass(frozen=True)
class Extreme:
    """values: (2 methods, seeds, rates, groups); draws: (draws, 2, seeds, rates, groups); NaN where undefined.

    kind: "range", "best" or "worst" (group; of one rate). reduce: "max" or "mean" over rates. pad: (rates,
    groups), a variance to add to every group's own: one row's worth, so that few patients whose two answers
    happen to agree never look certain.
    """

    kind: str
    reduce: str
    values: Floats
    draws: Floats
    pad: Floats

    @cached_property
    def errors(self) -> Floats:
        """Bootstrap errors; none where a draw leaves a value undefined (a class missed a group)."""
        return np.nan_to_num(self.draws - self.values)

    def of(self, values: Floats) -> Floats:
        """The extreme of values (..., rates, groups): (...)."""
        return extreme(values, self.kind, self.reduce)

    @cached_property
    def level(self) -> Floats:
        """Noise of either extreme were all groups alike in each method, (draws, methods, seeds).

        A range is then as far too large as it can be; of two methods whose answers vary unlike much, one's by more.
        """
        return self.of(self.errors)

    @cached_property
    def placed(self) -> Floats:
        """Noise of either extreme where it was observed, (draws, methods, seeds).

        Two methods whose gaps are equal but lie between different groups are not exchangeable; this is their
        null.
        """
        at = _at(self.errors, np.where(np.isnan(self.values), -np.inf, self.values).argmax(axis=-1))
        lowest = _at(self.errors, np.where(np.isnan(self.values), np.inf, self.values).argmin(axis=-1))
        noise = {"range": at - lowest, "best": at, "worst": lowest}[self.kind]
        if self.reduce == "mean" or self.kind != "range":
            averaged: Floats = noise.mean(axis=-1)
            return averaged
        return _at(noise, max_minus_min(self.values).argmax(axis=-1))

    def bias(self) -> Floats:
        """The most by which either extreme can be too large on average (of `worst`: too small), (methods,)."""
        largest: Floats = self.level.mean(axis=(0, 2))
        return largest

    def bounds(self) -> tuple[float, float]:
        """Bound A − B (seed means) with 95 %: the tighter of two bounds that each hold on their own."""
        low_a, high_a = self.despite_bias()
        low_b, high_b = self.by_groups()
        return max(low_a, low_b), min(high_a, high_b)

    def despite_bias(self) -> tuple[float, float]:
        """Normal bounds, widened by the largest bias that A's extreme and B's can have.

        A maximum is convex and subadditive: 0 <= E max(x + noise) − max x <= E max(noise), by Jensen's
        inequality.
        """
        value, errors = self.of(self.values).mean(axis=-1), self.errors
        drawn = self.of(self.values + errors).mean(axis=-1)
        bias = self.bias()
        difference = value[0] - value[1]
        reach = stats.norm.ppf(1 - ALPHA / 2) * (drawn[:, 0] - drawn[:, 1]).std()
        if self.kind == "worst":  # minus a maximum
            return float(difference + bias[1] - reach), float(difference - bias[0] + reach)
        return float(difference - bias[0] - reach), float(difference + bias[1] + reach)

    def by_groups(self) -> tuple[float, float]:
        """Bounds from simultaneous intervals for A − B in every group (sup-t of the joint draws).

        With d the groups' A − B: min A − min B and max A − max B lie between min d and max d, and the
        difference of two ranges within ± range of d. Tight where two methods nearly agree.
        """
        moved = self.values[0] - self.values[1]
        errors = self.errors[:, 0] - self.errors[:, 1]
        spread = np.sqrt(errors.var(axis=0) + self.pad)
        t = np.divide(np.abs(errors), spread, out=np.zeros_like(errors), where=spread > 0)
        most = np.quantile(t.max(axis=(1, 2, 3)), 1 - ALPHA)
        if most == 0:  # no draw moves them apart: they answer alike, which few patients do not prove
            most = stats.norm.ppf(1 - ALPHA / 2)
        reach = most * spread
        high, low = extreme(moved + reach, "best", "mean"), extreme(moved - reach, "worst", "mean")
        if self.kind == "range":
            ranges = over_groups(np.fmax, moved + reach) - over_groups(np.fmin, moved - reach)
            widest = float((ranges.max(axis=-1) if self.reduce == "max" else ranges.mean(axis=-1)).mean())
            return -widest, widest
        return float(low.mean()), float(high.mean())


def extreme(values: Floats, kind: str, reduce: str) -> Floats:
    """Range, best or worst over groups, then the largest or the mean over rates; (..., rates, groups) -> (...)."""
    if kind == "range":
        by_rate = max_minus_min(values)
    elif values.shape[-1] == 0:
        by_rate = np.full(values.shape[:-1], np.nan)
    else:
        by_rate = over_groups(np.fmax if kind == "best" else np.fmin, values)
    combined: Floats = by_rate.max(axis=-1) if reduce == "max" else by_rate.mean(axis=-1)
    return combined


def _at(values: Floats, place: Ints) -> Floats:
    """Pick one entry of the last axis of values (draws, ...), the same in every draw."""
    index = np.broadcast_to(place[None, ..., None], (len(values), *place.shape, 1))
    picked: Floats = np.take_along_axis(values, index, axis=-1)[..., 0]
    return picked
