"""Ranks that say no more than the comparisons behind them: ties are ties, and a trade-off is no order.

One family of tests serves the ranks and every sentence about the same table, so that they cannot contradict
each other. Adding a row adds comparisons and so makes every adjusted p larger or leaves it; a benchmark may
name its primary comparisons, which then are a family of their own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TypeVar

import numpy as np

from fairbench.errors import FairbenchError
from fairbench.statistics.results import ALPHA, Difference

Pair = tuple[str, str]
D = TypeVar("D", bound=Difference)

# What one method can be better in than another, and whether more is better.
DOMINANCE = {"score": True, "worst_group": True, "gap": False}


@dataclass(frozen=True)
class Rank:
    """The ranks a method may hold (`text` is "2" or "1-4"), and its tier: 1 where nobody stands above."""

    name: str
    first: int
    last: int
    tier: int = 1

    @property
    def text(self) -> str:
        """The range as printed."""
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


@dataclass(frozen=True)
class Ranking:
    """Ranks in the order of the names, and what they rest on.

    adjusted: (A, B) -> measure -> p, Holm over the family; better: (A, B) -> measures in which A is better, both
    ways round; above: (upper, lower); trade_offs: pairs that are each better in something.
    """

    ranks: tuple[Rank, ...]
    adjusted: Mapping[Pair, Mapping[str, float | None]]
    better: Mapping[Pair, frozenset[str]]
    above: frozenset[Pair]
    trade_offs: frozenset[Pair]


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Adjust the p-values of a table for their number (Holm 1979); None stays None and is not counted.

    statsmodels' multipletests says the same, but collects Python's garbage at every call: four fifths of the
    time of a board.
    """
    known = sorted((value, place) for place, value in enumerate(p) if value is not None)
    adjusted: list[float | None] = [None] * len(p)
    values = np.array([value for value, _ in known]) * np.arange(len(known), 0, -1)
    for (_, place), value in zip(known, np.minimum(np.maximum.accumulate(values), 1).tolist(), strict=True):
        adjusted[place] = value
    return adjusted


def opposite(difference: D) -> D:
    """Turn A minus B into B minus A: the value and both ends change sign, and the ends change places."""
    ends = (difference.value, difference.high, difference.low)
    value, low, high = (None if x is None else 0.0 - x for x in ends)  # 0 stays 0, not -0
    return replace(difference, value=value, low=low, high=high)


def rank(
    names: Sequence[str],
    comparisons: Mapping[Pair, Difference],
    lower_is_better: bool = True,
    alpha: float = ALPHA,
) -> tuple[Rank, ...]:
    """Ranks by one number: a method ranks below another only if the Holm-adjusted comparison says so.

    comparisons: (A, B) -> A minus B, each pair once, in either order. Raises FairbenchError if a pair is
    missing.
    """
    tests = {pair: {"number": difference} for pair, difference in comparisons.items()}
    return dominance(names, tests, {"number": not lower_is_better}, alpha=alpha).ranks


def dominance(
    names: Sequence[str],
    comparisons: Mapping[Pair, Mapping[str, Difference]],
    measures: Mapping[str, bool] = DOMINANCE,
    primary: Collection[Pair] = (),
    alpha: float = ALPHA,
) -> Ranking:
    """Rank by dominance: B stands above A where B is better in a measure and A is better in none.

    comparisons: (A, B) -> measure -> A minus B, each pair once, in either order; measures: those that count,
    and whether more is better. Better means a Holm-adjusted p of at most alpha over all pairs and measures;
    with `primary` pairs, over those and over the others apart. A pair that is better in one and worse in
    another is a trade-off and not ordered. Tiers peel off who has nobody above; where methods stand above each
    other in a circle, they share one. Raises FairbenchError if a pair is missing.
    """
    pairs = [_found(pair, comparisons) for pair in combinations(names, 2)]
    first = {pair for pair in pairs if pair in primary or pair[::-1] in primary}
    adjusted: dict[Pair, dict[str, float | None]] = {pair: {} for pair in pairs}
    for family in ([p for p in pairs if p in first], [p for p in pairs if p not in first]):
        tests = [(pair, measure) for pair in family for measure in measures if measure in comparisons[pair]]
        for (pair, measure), p in zip(tests, holm([comparisons[a][m].p for a, m in tests]), strict=True):
            adjusted[pair][measure] = p
    better: dict[Pair, frozenset[str]] = {}
    for pair in pairs:
        wins = {True: set(), False: set()}  # type: dict[bool, set[str]]
        for measure, p in adjusted[pair].items():
            value = comparisons[pair][measure].value
            if p is not None and value and p <= alpha:
                wins[(value > 0) == measures[measure]].add(measure)
        better[pair], better[pair[::-1]] = frozenset(wins[True]), frozenset(wins[False])
    above = frozenset(pair for pair, wins in better.items() if wins and not better[pair[::-1]])
    trade_offs = frozenset(pair for pair in pairs if better[pair] and better[pair[::-1]])
    return Ranking(_ranks(names, above), adjusted, better, above, trade_offs)


def _found(pair: Pair, comparisons: Mapping[Pair, object]) -> Pair:
    """Return the order in which a pair was compared."""
    a, b = pair
    if pair not in comparisons and (b, a) not in comparisons:
        raise FairbenchError(f"{a} was never compared with {b}", "compare every pair before ranking")
    return pair if pair in comparisons else (b, a)


def _ranks(names: Sequence[str], above: Collection[Pair]) -> tuple[Rank, ...]:
    """Ranges of ranks from who stands above whom, and tiers."""
    tiers: dict[str, int] = {}
    left = list(names)
    while left:
        free = [name for name in left if not any((other, name) in above for other in left)] or left
        tiers |= dict.fromkeys(free, 1 + max(tiers.values(), default=0))
        left = [name for name in left if name not in tiers]
    lower, higher = ([pair[place] for pair in above] for place in (1, 0))
    return tuple(Rank(name, 1 + lower.count(name), len(names) - higher.count(name), tiers[name]) for name in names)
