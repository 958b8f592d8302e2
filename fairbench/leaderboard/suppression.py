"""Withhold small groups from a table that is going to be published: one function over its data.

No sentence is looked at, because none is there: sentences are made of what this leaves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

from fairbench.leaderboard.board import Cell, Evidence, Group, Row, Table
from fairbench.leaderboard.flags import UNRECORDED_WORST
from fairbench.statistics.results import Estimate, Gap, Interaction


def withhold(table: Table, minimum: int) -> Table:
    """Remove counts below `minimum`, and what they could be worked out by, from a table.

    A group with fewer rows loses its counts, its values, its name as a worst group and its part in who was moved
    against whom; a group with fewer positives or negatives loses both counts. When one group alone loses a
    count, the next smallest does too, or subtraction from the total would give it back. Notes beside a
    disparity name groups and their rows and go. The disparities themselves stay, they are what a board is about:
    where a withheld group is at an end of one, its share of right answers (not its size) follows from the others'.
    """
    small = _never_alone({g.name for g in table.groups if (g.n or 0) < minimum}, table.groups)
    unsplit = {g.name for g in table.groups if g.name in small or _smallest_class(g) < minimum}
    unsplit = _never_alone(unsplit, table.groups)
    groups = tuple(_without(g, g.name in small, g.name in unsplit) for g in table.groups)
    names = [group.name for group in table.groups]
    rows, controls = (
        tuple(_row(row, names, small, bool(unsplit), minimum) for row in part)
        for part in (table.rows, table.controls)
    )
    further = tuple(
        replace(
            one,
            rows=tuple(
                replace(row, gap=_noteless(row.gap), equity_scaled=_noteless(row.equity_scaled)) for row in one.rows
            ),
        )
        for one in table.further
    )
    evidence = table.evidence and _counts(table.evidence, names, small, unsplit)
    return replace(
        table,
        groups=groups,
        rows=rows,
        controls=controls,
        further=further,
        min_cell=minimum,
        evidence=evidence,
    )


def _counts(evidence: Evidence, names: Sequence[str], small: set[str], unsplit: set[str]) -> Evidence:
    """Withhold small groups' cells, and the classes of those whose classes are withheld."""

    def cell(name: str, one: Cell | None) -> Cell | None:
        if one is None or name in small:
            return None
        return replace(one, answers=None) if name in unsplit else one

    return replace(
        evidence,
        counts={
            label: tuple(replace(seed, groups=tuple(map(cell, names, seed.groups))) for seed in seeds)
            for label, seeds in evidence.counts.items()
        },
    )


def _row(row: Row, names: Sequence[str], small: AbstractSet[str], any_withheld: bool, minimum: int) -> Row:
    reason = f"withheld: fewer than {minimum} rows"
    values = tuple(
        Estimate(reason=reason) if name in small else value for name, value in zip(names, row.groups, strict=True)
    )
    worst, flags = row.worst_group, row.flags
    if worst.group in small:
        worst, flags = Gap(reason=reason), tuple(flag for flag in flags if flag.code != UNRECORDED_WORST)
    if not any_withheld:
        return replace(row, groups=values, worst_group=worst, flags=flags)
    # With every other group's value, the variance between groups would give back the one withheld.
    between = Estimate(reason=f"withheld: a group has fewer than {minimum} rows") if small else row.between_groups
    return replace(
        row,
        groups=values,
        flags=flags,
        worst_group=_noteless(worst),
        between_groups=between,
        gap=_noteless(row.gap),
        standardised_gap=_noteless(row.standardised_gap),
        eq_odds_max=_noteless(row.eq_odds_max),
        equity_scaled=_noteless(row.equity_scaled),
        interactions=_without_groups(row.interactions, small),
    )


def _noteless(gap: Gap) -> Gap:
    return replace(gap, notes=())


def _without_groups(interactions: Mapping[str, Interaction], small: AbstractSet[str]) -> dict[str, Interaction]:
    return {
        name: replace(one, contrasts=tuple(c for c in one.contrasts if not {c.group, c.against} & small))
        for name, one in interactions.items()
    }


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
