"""What a test set can show before anything is trained, by the very tests that are printed.

Groups' values are drawn from the normal limit with common random numbers, so answers are repeatable, fall
with the size of the test set, and cost milliseconds. A size is found "whichever group holds it" where the
least favourable group departing is found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from fairbench.errors import FairbenchError
from fairbench.statistics.results import ALPHA, Estimate

Floats = NDArray[np.float64]

POWER = 0.8
DRAWS = 4_000  # drawn test sets; fewer where many groups make many pairs
PAIRS = 4_000_000  # differences between two groups that are drawn at a time
NESTED = 1_000_000  # groups' values that are drawn at a time for two methods: test sets x swaps of each x groups
STEPS = 12  # halvings of the search interval
SIZES = 6  # different group sizes that are all tried as the one that departs; of more, the smallest and largest


def detectable_gap(
    sizes: ArrayLike, rate: float, binary: bool = True, power: float = POWER, alpha: float = ALPHA
) -> Estimate:
    """Smallest max - min gap that the studentised permutation test finds, one group departing from the rest.

    sizes: (effective) rows per group; rate: the pooled rate of 0/1 rows, else a row's standard deviation. A
    0/1 rate departs to the side where there is more room, and cannot leave 0 to 1.
    """
    n = _sizes(sizes)
    if n.size < 2:
        return Estimate(reason="fewer than two groups have rows")
    variance = rate * (1 - rate) if binary else rate**2
    if not variance > 0:
        return Estimate(reason="the rows do not vary")
    draws = int(np.clip(PAIRS / n.size**2, 500, DRAWS))
    noise = np.random.default_rng(0).standard_normal((draws, n.size)) * np.sqrt(variance / n)
    error = np.sqrt(variance / n[:, None] + variance / n)
    critical = np.quantile(_largest(noise, error), 1 - alpha)
    room = max(rate, 1 - rate) if binary else 20 * np.sqrt(variance / n.min())
    side = -1.0 if binary and rate > 0.5 else 1.0

    def finds(group: int) -> Callable[[float], float]:
        others = np.delete(np.arange(n.size), group)
        among = _largest(noise[:, others], error[np.ix_(others, others)])

        def share(gap: float) -> float:
            moved = float(np.clip(rate + side * gap, 0, 1)) if binary else rate
            own = noise[:, group] * (np.sqrt(moved * (1 - moved) / variance) if binary else 1.0)
            pooled = rate + side * gap * n[group] / n.sum()
            stretch = np.sqrt(pooled * (1 - pooled) / variance) if binary else 1.0
            apart = np.abs(side * gap + own[:, None] - noise[:, others]) / error[group, others]
            return float((np.maximum(among, apart.max(axis=1)) > critical * stretch).mean())

        return share

    answers = _least_favourable(n, lambda group: _smallest(finds(group), float(room), power))
    if any(answer is None for answer in answers):
        return Estimate(reason="some group is too small: no gap it could hold would be found")
    return Estimate(max(a for a in answers if a is not None))


def detectable_interaction(
    sizes: ArrayLike, agreement: float, power: float = POWER, alpha: float = ALPHA
) -> Estimate:
    """Smallest amount by which a method must move one group more than the rest for `interaction` to find it.

    agreement: share of rows on which the two methods are both right or both wrong.
    """
    if not 0 <= agreement < 1:
        return Estimate(reason="needs methods that disagree on some rows")
    return detectable_gap(sizes, float(np.sqrt(1 - agreement)), False, power, alpha)


def detectable_improvement(
    sizes: ArrayLike,
    rate: float,
    agreement: float,
    baseline_gap: float,
    power: float = POWER,
    alpha: float = ALPHA,
) -> Estimate:
    """Smallest cut of a baseline's true gap that the difference of two gaps finds (`compare`'s p); 0/1 rows.

    agreement: share of rows on which the two methods are both right or both wrong. The baseline's gap is held
    by one group below the rest; a method that cuts it by d leaves baseline_gap - d. None where even removing
    all of the gap would go unnoticed.
    """
    n = _sizes(sizes)
    variance, disagree = rate * (1 - rate), 1 - agreement
    if n.size < 2 or not variance > 0 or not 0 <= agreement <= 1 or not baseline_gap > 0:
        return Estimate(reason="needs two groups, rows that vary, agreement in 0 to 1 and a gap to cut")
    rng = np.random.default_rng(0)
    of_both, of_one = np.maximum(variance - disagree / 4, 0) / n, disagree / 4 / n
    draws = int(np.clip(np.sqrt(NESTED / n.size), 100, 400))
    common = rng.standard_normal((draws, n.size)) * np.sqrt(of_both)
    own, swap = rng.standard_normal((2, draws, n.size)) * np.sqrt(of_one)
    swap = np.ascontiguousarray(swap.T)[:, None]  # groups first: reducing over them is then ten times faster
    place = int((1 - alpha) * draws)

    def finds(group: int) -> Callable[[float], float]:
        shift = np.zeros(n.size)
        shift[group] = 1

        def share(cut: float) -> float:
            method = common + own - (baseline_gap - cut) * shift
            baseline = common - own - baseline_gap * shift
            centre = np.ascontiguousarray((method + baseline).T / 2)[:, :, None]
            swapped = np.abs(np.ptp(centre + swap, axis=0) - np.ptp(centre - swap, axis=0))
            exchange = np.partition(swapped, place, axis=1)[:, place]
            a, b = _ends(method), _ends(baseline)
            placed = stats.norm.ppf(1 - alpha / 2) * np.sqrt((a - b) ** 2 @ of_both + (a + b) ** 2 @ of_one)
            gained = np.ptp(baseline, axis=1) - np.ptp(method, axis=1)
            return float((gained > np.maximum(exchange, placed)).mean())

        return share

    answers = _least_favourable(n, lambda group: _smallest(finds(group), baseline_gap, power))
    if any(answer is None for answer in answers):
        return Estimate(reason="even removing the whole gap would go unnoticed")
    return Estimate(max(a for a in answers if a is not None))


def detectable_accuracy(rows: float, agreement: float, power: float = POWER, alpha: float = ALPHA) -> float:
    """Smallest difference in overall accuracy that a paired test finds: (z + z') sqrt(disagreement / rows).

    McNemar's test, normal limit (Miettinen 1968); rows: (effective) rows of the test set.
    """
    z = stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power)
    return float(z * np.sqrt((1 - agreement) / rows))


def _largest(values: Floats, error: Floats) -> Floats:
    """Largest difference between two groups, (draws,), in standard errors; error: (groups, groups)."""
    top = np.zeros(len(values))
    for first in range(values.shape[1] - 1):
        apart = np.abs(values[:, first, None] - values[:, first + 1 :]) / error[first, first + 1 :]
        top = np.maximum(top, apart.max(axis=1))
    return top


def _ends(values: Floats) -> Floats:
    """1 at each draw's largest group, -1 at its smallest; (draws, groups)."""
    rows, marks = np.arange(len(values)), np.zeros(values.shape)
    marks[rows, values.argmax(axis=1)] = 1
    marks[rows, values.argmin(axis=1)] -= 1
    return marks


def _sizes(sizes: ArrayLike | Sequence[float]) -> Floats:
    n = np.asarray(sizes, dtype=np.float64)
    if n.ndim != 1 or np.isnan(n).any() or (n < 0).any():
        raise FairbenchError("group sizes must be a list of numbers of rows")
    return n[n > 0]


def _least_favourable(sizes: Floats, answer: Callable[[int], float | None]) -> list[float | None]:
    """Ask for one group of each size: equal ones differ only in their random numbers."""
    first = np.unique(sizes, return_index=True)[1]
    chosen = first if first.size <= SIZES else first[[0, -1]]
    return [answer(int(group)) for group in chosen]


def _smallest(share: Callable[[float], float], top: float, power: float) -> float | None:
    """Halve towards the smallest size found with `power`; None if even `top` is not."""
    if share(top) < power:
        return None
    low, high = 0.0, top
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if share(middle) >= power else (middle, high)
    return high
