"""Ranks and sentences that say no more than the comparisons behind them: ties are ties."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fairbench.comparison import Difference
from fairbench.errors import FairbenchError
from fairbench.evidence import Evidence


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


def opposite(found: Difference) -> Difference:
    """Turn A minus B into B minus A: the value and both ends change sign, and the ends change places."""
    value, low, high = (None if x is None else -x for x in (found.difference, found.high, found.low))
    return replace(found, difference=value, low=low, high=high)


def rank(
    names: Sequence[str],
    comparisons: Mapping[tuple[str, str], Difference],
    lower_is_better: bool = True,
    alpha: float = 0.05,
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
        difference = comparisons[a, b].difference
        if p is None or difference is None or p > alpha or difference == 0:
            continue
        better, worse = (a, b) if (difference < 0) == lower_is_better else (b, a)
        wins[better] += 1
        beaten[worse] += 1
    return tuple(Rank(name, 1 + beaten[name], len(names) - wins[name]) for name in names)


def ties(baseline: str, comparisons: Mapping[tuple[str, str], Difference], what: str, alpha: float = 0.05) -> str:
    """One sentence: which methods are indistinguishable from the baseline, and which are not.

    comparisons: (method, baseline) -> method minus baseline; Holm-adjusted here. what: "ethnicity gap".
    """
    others = [method for method, other in comparisons if other == baseline]
    adjusted = holm([comparisons[method, baseline].p for method in others])
    told = {method: p is not None and p <= alpha for method, p in zip(others, adjusted, strict=True)}
    tied = [method for method, apart in told.items() if not apart]
    apart = [method for method, is_apart in told.items() if is_apart]
    parts = []
    if tied:
        verb = "is" if len(tied) == 1 else "are"
        parts.append(f"{listed(tied)} {verb} indistinguishable from {baseline} in {what}")
    for method in apart:
        difference = comparisons[method, baseline].difference or 0.0
        more = "smaller" if difference < 0 else "larger"
        parts.append(f"{method} has a {more} {what} than {baseline} by {points(abs(difference))}")
    return "; ".join(parts) + "." if parts else f"Nothing was compared with {baseline}."


def finding(
    evidence: Mapping[str, Evidence],
    attribute: str,
    rows: int,
    clusters: int | None = None,
    alpha: float = 0.05,
) -> str:
    """One plain sentence for above a table: whose gap exceeds chance, and what size could have been seen.

    evidence: method -> Evidence of the same disparity on the same rows; p-values are Holm-adjusted over
    methods. Rows are called patients unless `clusters`, if given, are fewer.
    """
    adjusted = holm([entry.p for entry in evidence.values()])
    beyond = [name for name, p in zip(evidence, adjusted, strict=True) if p is not None and p <= alpha]
    sizes = [entry.detectable for entry in evidence.values() if entry.detectable is not None]
    known = sum(p is not None for p in adjusted)
    alone = clusters is None or clusters == rows
    on = f"on {rows:,} patients" if alone else f"on {rows:,} test rows in {clusters:,} clusters"
    if known == 0:
        reasons = sorted({entry.reason for entry in evidence.values() if entry.reason})
        return f"No {attribute} gap is defined {on}: {'; '.join(reasons) or 'nothing was evaluated'}."
    if beyond:
        gap, verb = ("gap", "exceeds") if len(beyond) == 1 else ("gaps", "exceed")
        text = f"The {attribute} {gap} of {listed(beyond)} {verb} what chance gives {on}"
    else:
        text = f"No method's {attribute} gap exceeds what chance gives {on}"
    if len(sizes) < known:
        return f"{text}; some group is too small for any gap it holds to be found reliably."
    size = points(float(np.median(sizes)))
    return f"{text}; the smallest detectable difference, whichever group holds it, is {size}."


def listed(names: Sequence[str]) -> str:
    """Join names as prose: a, b and c."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def points(fraction: float) -> str:
    """Print a fraction in percentage points."""
    return f"{100 * fraction:.1f} points"
