"""The difference of two maxima: a gap is the largest of many differences, and that spoils textbook intervals.

A `Part` holds one maximum of each method: its value in every direction (a direction is an ordered pair of
groups for a gap, a group for the worst group, one for accuracy) and bootstrap draws of the same. A maximum of
noisy values is too large on average, by something between nothing (one direction stands out) and the mean
maximum of the noise alone (all are equal). Percentile bootstrap intervals ignore this and cover as little as
56 % of the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from fairbench.statistics.intervals import Floats


@dataclass(frozen=True)
class Part:
    """estimate: (2 methods, seeds, directions); draws: (draws, 2, seeds, directions); pad: (directions,).

    `pad` is a variance to add to every direction's own: one row's worth, so that few patients whose two
    answers happen to agree never look certain. Several parts of one disparity are averaged.
    """

    estimate: Floats
    draws: Floats
    pad: Floats

    @property
    def errors(self) -> Floats:
        """Bootstrap errors of every direction; none where a draw leaves it undefined (a class missed a group)."""
        return np.nan_to_num(self.draws - self.estimate)


def defined(part: Part) -> Part:
    """Keep the directions that have a value."""
    known = ~np.isnan(part.estimate).any(axis=(0, 1))
    return Part(part.estimate[..., known], part.draws[..., known], part.pad[known])


def bounds(parts: Sequence[Part]) -> tuple[float, float]:
    """Bound max A - max B (seed means) with 95 %: the tighter of two bounds that each hold on their own."""
    low_a, high_a = despite_bias(parts)
    low_b, high_b = over_directions(parts)
    return max(low_a, low_b), min(high_a, high_b)


def despite_bias(parts: Sequence[Part]) -> tuple[float, float]:
    """Take normal bounds, widened by the largest bias that A's maximum and B's maximum can have.

    The maximum is convex and subadditive: 0 <= E max(x + noise) - max x <= E max(noise), by Jensen's
    inequality.
    """
    value = np.mean([part.estimate.max(axis=-1) for part in parts], axis=0).mean(axis=-1)
    drawn = np.mean([(part.estimate + part.errors).max(axis=-1) for part in parts], axis=0).mean(axis=-1)
    bias = np.mean([part.errors.max(axis=-1).mean(axis=(0, 2)) for part in parts], axis=0)
    difference = value[0] - value[1]
    reach = stats.norm.ppf(0.975) * (drawn[:, 0] - drawn[:, 1]).std()
    return float(difference - bias[0] - reach), float(difference + bias[1] + reach)


def over_directions(parts: Sequence[Part]) -> tuple[float, float]:
    """Bounds from simultaneous intervals for A, B and A - B in every direction (sup-t of the joint draws).

    max A - max B is at most the largest upper bound of A - B over directions that may attain A's maximum, and
    at least the smallest lower bound over those that may attain B's. Tight where two methods nearly agree.
    Montiel Olea and Plagborg-Møller 2019 (sup-t bands).
    """
    spreads = []
    largest = np.zeros(parts[0].draws.shape[0])
    for part in parts:
        errors = part.errors
        both = (errors[:, 0] - errors[:, 1]).mean(axis=1)
        own = np.sqrt(errors.var(axis=0) + part.pad)
        joint = np.sqrt(both.var(axis=0) + part.pad)
        largest = np.maximum(largest, in_errors(errors, own).max(axis=(1, 2, 3)))
        largest = np.maximum(largest, in_errors(both, joint).max(axis=1))
        spreads.append((own, joint))
    critical = np.quantile(largest, 0.95)
    low, high = [], []
    for part, (own, joint) in zip(parts, spreads, strict=True):
        top = (part.estimate - critical * own).max(axis=-1, keepdims=True)
        may = part.estimate + critical * own >= top
        difference = part.estimate[0] - part.estimate[1]
        high.append(np.where(may[0], difference + critical * joint, -np.inf).max(axis=-1).mean())
        low.append(np.where(may[1], difference - critical * joint, np.inf).min(axis=-1).mean())
    return float(np.mean(low)), float(np.mean(high))


def in_errors(deviation: Floats, error: Floats) -> Floats:
    """Express deviations in standard errors; 0 where nothing varies."""
    sized = np.broadcast_to(error, deviation.shape)
    return np.divide(np.abs(deviation), sized, out=np.zeros(deviation.shape), where=sized > 0)


def placed_noise(parts: Sequence[Part]) -> Floats:
    """Draw the noise of max A - max B, (draws, seeds), were each maximum where it was observed.

    Two methods whose gaps are equal but lie between different groups are not exchangeable; this is their
    null.
    """
    noise = []
    for part in parts:
        place = part.estimate.argmax(axis=-1)[None, ..., None]
        at = np.take_along_axis(part.errors, np.broadcast_to(place, (len(part.draws), *place.shape[1:])), axis=-1)
        noise.append(at[:, 0, :, 0] - at[:, 1, :, 0])
    mean: Floats = np.mean(noise, axis=0)
    return mean
