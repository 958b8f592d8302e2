"""Ranks and sentences that say no more than the comparisons behind them: ties are ties."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from fairbench.leaderboard.board import Table
from fairbench.leaderboard.flags import NOT_LEARNED
from fairbench.statistics.permutation import MINIMUM
from fairbench.statistics.ranking import holm
from fairbench.statistics.results import ALPHA, Difference, Gap


def ties(baseline: str, comparisons: Mapping[tuple[str, str], Difference], what: str, alpha: float = ALPHA) -> str:
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
        difference = comparisons[method, baseline].value or 0.0
        more = "smaller" if difference < 0 else "larger"
        parts.append(f"{method} has a {more} {what} than {baseline} by {points(abs(difference))}")
    return "; ".join(parts) + "." if parts else f"Nothing was compared with {baseline}."


def finding(
    evidence: Mapping[str, Gap],
    attribute: str,
    rows: int,
    clusters: int | None = None,
    alpha: float = ALPHA,
) -> str:
    """One plain sentence for above a table: whose gap exceeds chance, and what size could have been seen.

    evidence: method -> the Gap of the same disparity on the same rows; p-values are Holm-adjusted over
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


MANY = 6  # names that a sentence can hold


def _finding(table: Table) -> Iterable[str]:
    """Say in words whose gap is more than chance, and who differs from the baseline."""
    gaps = {row.label: row.gap for row in table.rows}
    if gaps:
        yield finding(gaps, table.attribute, table.rows_tested, table.clusters)
    if table.baseline is None:
        yield "There is no baseline in this table, so nothing says what the methods changed."
        return
    changes = {row.label: row.changes["gap"] for row in table.rows if row.changes}
    if changes:
        pairs = {(label, table.baseline): change for label, change in changes.items()}
        tied = not any(change.significant for change in changes.values())
        if tied and len(changes) > MANY:
            yield (
                f"None of the other {len(changes)} rows is distinguishable from {table.baseline}"
                f" in {table.attribute} gap."
            )
        else:
            yield ties(table.baseline, pairs, f"{table.attribute} gap")
    idle = [row.label for row in table.rows if any(flag.code == NOT_LEARNED for flag in row.flags)]
    if idle:
        verb = "is" if len(idle) == 1 else "are"
        yield f"{listed(idle)} {verb} no better than answers that look at nothing."


def _notes(table: Table) -> Iterable[str]:
    seeds = max((len(row.seeds) for row in table.rows), default=1)
    if seeds > 1:
        yield "With several seeds, values are the mean over them; intervals and p-values are for that mean."
    else:
        yield "One seed each: a difference is one between two trained models, not yet between two methods."
    small = [
        f"{g.name} (n = {g.n}{f', {g.positives} + / {g.negatives} −' if g.positives is not None else ''})"
        for g in table.groups
        if min(n for n in (g.n, g.positives, g.negatives) if n is not None) < MINIMUM
    ]
    if small:
        yield f"Too small to say anything on their own (fewer than {MINIMUM} rows of a class): {', '.join(small)}."
