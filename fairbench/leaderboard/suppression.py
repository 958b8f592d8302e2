"""Withhold small groups from a table that is going to be published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fairbench.leaderboard.board import Group, Row, Table
from fairbench.statistics.results import Estimate, Gap


def withhold(table: Table, minimum: int) -> Table:
    """Remove counts below `minimum`, and everything by which they could be worked out, from a table.

    A group with fewer rows loses its counts, its accuracies and its name as a worst group; a group with fewer
    positives or negatives loses both counts. When one group alone loses a count, the next smallest does too,
    or subtraction from the total would give it back.
    """
    small = _never_alone({g.name for g in table.groups if (g.n or 0) < minimum}, table.groups)
    unsplit = {g.name for g in table.groups if g.name in small or _smallest_class(g) < minimum}
    unsplit = _never_alone(unsplit, table.groups)
    groups = tuple(_without(g, g.name in small, g.name in unsplit) for g in table.groups)
    hidden = Estimate(reason=f"withheld: fewer than {minimum} rows")

    def without(row: Row) -> Row:
        shown = tuple(
            hidden if group.name in small else value for group, value in zip(table.groups, row.groups, strict=True)
        )
        if row.worst_group.group not in small:
            return replace(row, groups=shown)
        return replace(row, groups=shown, worst_group=Gap(reason=hidden.reason))

    return replace(
        table,
        groups=groups,
        rows=tuple(map(without, table.rows)),
        controls=tuple(map(without, table.controls)),
        notes=tuple(note for note in table.notes if not note.startswith("Too small")),
        min_cell=minimum,
    )


def _never_alone(names: set[str], groups: Sequence[Group]) -> set[str]:
    rest = [group for group in groups if group.name not in names]
    return names | {min(rest, key=lambda g: g.n or 0).name} if len(names) == 1 and rest else names


def _smallest_class(group: Group) -> int:
    return min((n for n in (group.positives, group.negatives) if n is not None), default=10**9)


def _without(group: Group, size: bool, classes: bool) -> Group:
    return Group(
        group.name,
        None if size else group.n,
        None if classes else group.positives,
        None if classes else group.negatives,
    )


def _published(table: Table, min_cell: int) -> Table:
    """Withhold small groups, and the variance between groups with them: it would help to work them out."""
    shown = withhold(table, min_cell)
    if all(group.n is not None for group in shown.groups):
        return shown
    hidden = Estimate(reason=f"withheld: a group has fewer than {min_cell} rows")
    rows, controls = (
        tuple(replace(row, between_groups=hidden) for row in part) for part in (shown.rows, shown.controls)
    )
    return replace(shown, rows=rows, controls=controls)
