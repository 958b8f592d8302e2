"""Ranks that say no more than the comparisons behind them: ties are ties."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fairbench.errors import FairbenchError
from fairbench.statistics.results import ALPHA, Difference


@dataclass(frozen=True)
class Rank:
    """The ranks a method may hold; `text` is "2" or "1-4"."""

    name: str
    first: int
    last: int

    @property
    def text(self) -> str:
        """The range as printed."""
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Adjust the p-values of a table for their number (Holm 1979); None stays None and is not counted."""
    known = sorted((value, index) for index, value in enumerate(p) if value is not None)
    adjusted: list[float | None] = [None] * len(p)
    running = 0.0
    for step, (value, index) in enumerate(known):
        running = max(running, min(1.0, (len(known) - step) * value))
        adjusted[index] = running
    return adjusted


def opposite(difference: Difference) -> Difference:
    """Turn A minus B into B minus A: the value and both ends change sign, and the ends change places."""
    ends = (difference.value, difference.high, difference.low)
    value, low, high = (None if x is None else -x for x in ends)
    return replace(difference, value=value, low=low, high=high)


def rank(
    names: Sequence[str],
    comparisons: Mapping[tuple[str, str], Difference],
    lower_is_better: bool = True,
    alpha: float = ALPHA,
) -> tuple[Rank, ...]:
    """Ranges of ranks: a method ranks below another only if the Holm-adjusted comparison says so.

    comparisons: (A, B) -> A minus B, each pair once, in either order. Raises FairbenchError if a pair is
    missing.
    """
    beaten, wins = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    pairs = []
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            if (a, b) not in comparisons and (b, a) not in comparisons:
                raise FairbenchError(f"{a} was never compared with {b}", "compare every pair before ranking")
            pairs.append((a, b) if (a, b) in comparisons else (b, a))
    for (a, b), p in zip(pairs, holm([comparisons[pair].p for pair in pairs]), strict=True):
        difference = comparisons[a, b].value
        if p is None or difference is None or p > alpha or difference == 0:
            continue
        better, worse = (a, b) if (difference < 0) == lower_is_better else (b, a)
        wins[better] += 1
        beaten[worse] += 1
    return tuple(Rank(name, 1 + beaten[name], len(names) - wins[name]) for name in names)
