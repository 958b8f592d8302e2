"""What a test set can show before anything is trained, by the very tests that are printed.

Groups' values are drawn from the normal limit with common random numbers, so answers are repeatable, fall
with the size of the test set, and cost milliseconds. A size is found "whichever group holds it" where the
least favourable group departing is found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from fairbench.errors import FairbenchError
from fairbench.statistics.results import ALPHA, Estimate
from fairbench.statistics.seeds import SeedVariance

Floats = NDArray[np.float64]

POWER = 0.8
DRAWS = 4_000  # drawn test sets; fewer where many groups make many pairs
PAIRS = 4_000_000  # differences between two groups that are drawn at a time
NESTED = 1_000_000  # groups' values that are drawn at a time for two methods: test sets x swaps of each x groups
STEPS = 12  # halvings of the search interval
SIZES = 6  # different group sizes that are all tried as the one that departs; of more, the smallest and largest


@dataclass(frozen=True)
class Design:
    """What one rate is measured on: (effective) rows per group, (groups,); the pooled rate of 0/1 rows, else a
    row's standard deviation; and what training again adds, with several seeds.
    """

    sizes: Floats
    rate: float
    binary: bool = True
    seeds: SeedVariance | None = None

    @property
    def variance(self) -> float:
        """Variance of one row."""
        return self.rate * (1 - self.rate) if self.binary else self.rate**2


def detectable_gap(
    sizes: ArrayLike, rate: float, binary: bool = True, power: float = POWER, alpha: float = ALPHA
) -> Estimate:
    """Smallest max - min gap that the studentised permutation test finds, one group departing from the rest.

    sizes: (effective) rows per group; rate: the pooled rate of 0/1 rows, else a row's standard deviation. A
    0/1 rate departs to the side where there is more room, and cannot leave 0 to 1.
    """
    return detectable([Design(_sizes(sizes), rate, binary)], "max", power, alpha)


def detectable(
    designs: Sequence[Design], together: str = "max", power: float = POWER, alpha: float = ALPHA
) -> Estimate:
    """Smallest gap that is found in whichever of some rates that are tested together, by whichever group departs.

    together: "max" tests the largest difference over all rates, "mean" the mean of every rate's largest.
    """
    if any(np.count_nonzero(one.sizes) < 2 for one in designs):
        return Estimate(reason="fewer than two groups have rows")
    if not all(one.variance > 0 for one in designs):
        return Estimate(reason="the rows do not vary")
    draws = int(np.clip(PAIRS / max(one.sizes.size for one in designs) ** 2, 500, DRAWS))
    rng = np.random.default_rng(0)
    drawn = [_Drawn.of(one, draws, rng) for one in designs]
    null = np.stack([one.null for one in drawn])
    critical = float(np.quantile(null.max(axis=0) if together == "max" else null.mean(axis=0), 1 - alpha))
    answers = []
    for place, one in enumerate(drawn):
        others = np.delete(null, place, axis=0)
        ask = partial(_found, one, others, critical, together, power)
        answers += _least_favourable(one.design.sizes, ask)
    if any(answer is None for answer in answers):
        return Estimate(reason="some group is too small: no gap it could hold would be found")
    return Estimate(max(a for a in answers if a is not None))


def _found(drawn: _Drawn, others: Floats, critical: float, together: str, power: float, group: int) -> float | None:
    """Smallest gap of one group in one rate that is found beside `others`, the other rates' largest differences."""
    largest = drawn.departing(group)

    def share(gap: float) -> float:
        top, stretch = largest(gap)
        if together == "mean":
            found = top / stretch + others.sum(axis=0) > critical * (1 + len(others))
        else:
            found = (top > critical * stretch) | (others > critical).any(axis=0)
        return float(found.mean())

    return _smallest(share, drawn.room, power)


@dataclass(frozen=True)
class _Drawn:
    """Drawn test sets of a design: groups' deviations from the truth, (draws, groups), the variance that a test
    takes them to have, (draws or 1, groups), and the largest difference that its null draws show, (draws,).
    """

    design: Design
    noise: Floats
    variance: Floats
    null: Floats

    @classmethod
    def of(cls, design: Design, draws: int, rng: np.random.Generator) -> _Drawn:
        """Draw them. Of several seeds the part that they do not share is known with few degrees of freedom."""
        inside = design.sizes > 0
        sampling = design.variance / design.sizes[inside]
        design = replace(design, sizes=design.sizes[inside])
        noise = rng.standard_normal((draws, sampling.size))
        if design.seeds is None:
            noise *= np.sqrt(sampling)
            return cls(design, noise, sampling[None], _largest(noise, sampling[None]))
        within = np.minimum(np.nan_to_num(design.seeds.within[inside]), sampling)
        rest, shared = design.seeds.between + within, sampling - within
        noise *= np.sqrt(rest + shared)
        freedom = min(design.seeds.freedom, 1e9)
        known = rng.chisquare(freedom, (draws, 1)) / freedom
        stretched = np.sqrt(rest) / np.sqrt(rng.chisquare(freedom, (draws, 1)) / freedom)
        null = np.sqrt(shared) * rng.standard_normal(noise.shape) + stretched * rng.standard_normal(noise.shape)
        return cls(design, noise, shared + rest * known, _largest(null, (rest + shared)[None]))

    @property
    def room(self) -> float:
        """The largest gap that can be: a rate's distance to 0 or 1, or far beyond what noise does."""
        if self.design.binary:
            return max(self.design.rate, 1 - self.design.rate)
        return 20 * float(np.sqrt(self.variance.mean(axis=0).max()))

    def departing(self, group: int) -> Callable[[float], tuple[Floats, float]]:
        """Return what gives, for a gap of one group, the largest difference, (draws,), and by how much the test's
        own standard error grows with it.
        """
        design, others = self.design, np.delete(np.arange(self.noise.shape[1]), group)
        among = _largest(self.noise[:, others], self.variance[:, others])
        error = np.sqrt(self.variance[:, group, None] + self.variance[:, others])
        side = -1.0 if design.binary and design.rate > 0.5 else 1.0

        def largest(gap: float) -> tuple[Floats, float]:
            moved = float(np.clip(design.rate + side * gap, 0, 1))
            own = self.noise[:, group] * (np.sqrt(moved * (1 - moved) / design.variance) if design.binary else 1.0)
            pooled = design.rate + side * gap * design.sizes[group] / design.sizes.sum()
            stretch = float(np.sqrt(pooled * (1 - pooled) / design.variance)) if design.binary else 1.0
            apart = np.abs(side * gap + own[:, None] - self.noise[:, others]) / error
            return np.maximum(among, apart.max(axis=1)), stretch

        return largest


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


def _largest(values: Floats, variance: Floats) -> Floats:
    """Largest difference between two groups, (draws,), in standard errors; variance: (draws or 1, groups)."""
    top = np.zeros(len(values))
    for first in range(values.shape[1] - 1):
        error = np.sqrt(variance[:, first, None] + variance[:, first + 1 :])
        apart = np.abs(values[:, first, None] - values[:, first + 1 :]) / error
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
