"""What a test set can show before anything is trained: detectable gaps and detectable improvements.

Groups' values are drawn from the normal limit with common random numbers, so answers are repeatable, fall
with the size of the test set, and cost milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from fairbench.errors import FairbenchError
from fairbench.statistics.results import ALPHA, Estimate

Floats = NDArray[np.float64]

DRAWS = 4_000
STEPS = 20  # halvings of the search interval


def detectable_gap(
    sizes: ArrayLike,
    rate: float,
    binary: bool = True,
    power: float = 0.8,
    alpha: float = ALPHA,
) -> Estimate:
    """Smallest max - min gap that the permutation test finds with `power`, one group departing from the rest.

    sizes: (effective) rows per group; rate: the pooled rate of 0/1 rows, else a row's standard deviation. A
    0/1 rate departs to the side where there is more room, and cannot leave 0 to 1.
    """
    n = _sizes(sizes)
    if n.size < 2:
        return Estimate(reason="fewer than two groups have rows")
    variance = rate * (1 - rate) if binary else rate**2
    if not variance > 0:
        return Estimate(reason="the rows do not vary")
    noise = np.random.default_rng(0).standard_normal((DRAWS, n.size)) * np.sqrt(variance / n)
    critical = np.quantile(np.ptp(noise, axis=1), 1 - alpha)
    room = max(rate, 1 - rate) if binary else np.inf
    side = -1.0 if binary and rate > 0.5 else 1.0

    def found(group: int) -> Callable[[float], float]:
        others = np.delete(noise, group, axis=1)
        highest, lowest, own = others.max(axis=1), others.min(axis=1), noise[:, group]

        def share(gap: float) -> float:
            moved = float(np.clip(rate + side * gap, 0, 1)) if binary else rate
            narrowing = np.sqrt(moved * (1 - moved) / variance) if binary else 1.0
            value = side * gap + own * narrowing
            return float((np.maximum(highest, value) - np.minimum(lowest, value) > critical).mean())

        return share

    top = float(room if binary else 20 * np.sqrt(variance / n.min()))
    answers = _by_size(n, lambda group: _smallest(found(group), top, power))
    if any(answer is None for answer in answers):
        return Estimate(reason="some group is too small: no gap it could hold would be found")
    return Estimate(max(a for a in answers if a is not None))


def detectable_improvement(
    sizes: ArrayLike,
    rate: float,
    agreement: float,
    baseline_gap: float,
    power: float = 0.8,
    alpha: float = ALPHA,
) -> Estimate:
    """Smallest cut of a baseline's true gap that the paired swap test finds with `power`; 0/1 rows.

    agreement: share of rows on which the two methods are both right or both wrong. The baseline's gap is held
    by one group below the rest; a method that cuts it by d leaves baseline_gap - d. None where even removing
    all of the gap would go unnoticed.
    """
    n = _sizes(sizes)
    variance, disagree = rate * (1 - rate), 1 - agreement
    if n.size < 2 or not variance > 0 or not 0 <= agreement <= 1 or not baseline_gap > 0:
        return Estimate(reason="needs two groups, rows that vary, agreement in 0 to 1 and a gap to cut")
    rng = np.random.default_rng(0)
    common, own = rng.standard_normal((2, DRAWS, n.size))
    common = common * np.sqrt(np.maximum(variance - disagree / 4, 0) / n)
    own = own * np.sqrt(disagree / 4 / n)

    def found(group: int) -> Callable[[float], float]:
        shift = np.zeros(n.size)
        shift[group] = 1

        def share(cut: float) -> float:
            middle = -(baseline_gap - cut / 2) * shift
            difference = np.abs(np.ptp(common + middle + own, axis=1) - np.ptp(common + middle - own, axis=1))
            critical = np.quantile(difference, 1 - alpha)
            method = common + own - (baseline_gap - cut) * shift
            baseline = common - own - baseline_gap * shift
            gained = np.ptp(baseline, axis=1) - np.ptp(method, axis=1)
            return float((gained > critical).mean())

        return share

    answers = _by_size(n, lambda group: _smallest(found(group), baseline_gap, power))
    if any(answer is None for answer in answers):
        return Estimate(reason="even removing the whole gap would go unnoticed")
    return Estimate(max(a for a in answers if a is not None))


def detectable_accuracy(rows: float, agreement: float, power: float = 0.8, alpha: float = ALPHA) -> float:
    """Smallest difference in overall accuracy that a paired test finds: (z + z') sqrt(disagreement / rows).

    McNemar's test, normal limit (Miettinen 1968); rows: (effective) rows of the test set.
    """
    z = stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power)
    return float(z * np.sqrt((1 - agreement) / rows))


def _sizes(sizes: ArrayLike | Sequence[float]) -> Floats:
    n = np.asarray(sizes, dtype=np.float64)
    if n.ndim != 1 or np.isnan(n).any() or (n < 0).any():
        raise FairbenchError("group sizes must be a list of numbers of rows")
    return n[n > 0]


def _by_size(sizes: Floats, answer: Callable[[int], float | None]) -> tuple[float | None, ...]:
    """Ask once for groups of one size: they differ only in their random numbers."""
    first, inverse = np.unique(sizes, return_index=True, return_inverse=True)[1:]
    known = [answer(int(group)) for group in first]
    return tuple(known[which] for which in inverse)


def _smallest(share: Callable[[float], float], top: float, power: float) -> float | None:
    """Halve towards the smallest size found with `power`; None if even `top` is not."""
    if share(top) < power:
        return None
    low, high = 0.0, top
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if share(middle) >= power else (middle, high)
    return high
