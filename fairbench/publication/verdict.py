"""What a check comes to: whether anything differs, and how far each row can be trusted."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import get_args

from fairbench import __version__
from fairbench.leaderboard.board import Row, Trust
from fairbench.publication.findings import Finding
from fairbench.publication.publish import now
from fairbench.publication.published import Check, Publication

LEVELS: tuple[Trust, ...] = get_args(Trust)


@dataclass(frozen=True)
class Verdict:
    """All findings, and the jobs whose answers were read, predicted again and trained again (keys)."""

    findings: tuple[Finding, ...]
    read: frozenset[str] = frozenset()
    predicted: frozenset[str] = frozenset()
    retrained: frozenset[str] = frozenset()

    @property
    def differs(self) -> tuple[Finding, ...]:
        """What differs."""
        return tuple(one for one in self.findings if one.state == "differs")


def level(publication: Publication, table: int, row: Row, verdict: Verdict) -> Trust:
    """Return how far this check went with a row; of several seeds, the furthest that any of its jobs was taken."""
    evidence = publication.board.tables[table].evidence
    if any(one.row == (table, row.label) for one in verdict.differs):
        return "self-reported"
    if set(row.keys) & verdict.retrained:
        return "retrained"
    if set(row.keys) & verdict.predicted:
        return "re-predicted"
    if set(row.keys) <= verdict.read:
        return "predictions attached"
    return "counts attached" if evidence and row.label in evidence.counts else "self-reported"


def levels(publication: Publication, verdict: Verdict) -> list[tuple[int, Row, Trust]]:
    """Return every row with its table's number and its level."""
    return [
        (number, row, level(publication, number, row, verdict))
        for number, table in enumerate(publication.board.tables)
        for row in (*table.rows, *table.controls)
    ]


def claims(publication: Publication, verdict: Verdict) -> list[Finding]:
    """Say which rows claim more than this check could see."""
    return [
        Finding("unchecked", f"row {row.label}", f"it is said to be {row.trust}; this check saw it {seen}")
        for _, row, seen in levels(publication, verdict)
        if row.trust and LEVELS.index(row.trust) > LEVELS.index(seen)
    ]


def attested(publication: Publication, verdict: Verdict, by: str) -> Publication:
    """Return the publication with the levels that this check established, and the check on record."""
    seen = {(number, row.label): trust for number, row, trust in levels(publication, verdict)}

    def trusted(number: int, rows: Sequence[Row]) -> tuple[Row, ...]:
        return tuple(replace(row, trust=seen[number, row.label]) for row in rows)

    tables = tuple(
        replace(table, rows=trusted(number, table.rows), controls=trusted(number, table.controls))
        for number, table in enumerate(publication.board.tables)
    )
    check = Check(by, now(), __version__, len(verdict.predicted), len(verdict.retrained))
    board = replace(publication.board, tables=tables)
    return replace(publication, board=board, checks=(*publication.checks, check))


def jobs_that_hold(findings: Collection[Finding], keys: Collection[str]) -> frozenset[str]:
    """Return the keys of the jobs about which something holds, and nothing differs."""
    said = {state: [one.where for one in findings if one.state == state] for state in ("holds", "differs")}
    good = {key for key in keys if any(where.startswith(f"job {key} ") for where in said["holds"])}
    return frozenset(key for key in good if not any(where.startswith(f"job {key} ") for where in said["differs"]))
