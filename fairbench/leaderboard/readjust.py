"""Adjust and rank a table's rows anew from what is attached to it: for a merged board, and to check any board."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, Literal

from fairbench.leaderboard.board import Flag, Row, Table
from fairbench.leaderboard.flags import (
    BELOW,
    CASE_MIX,
    LEVELLING_DOWN,
    NOT_LEARNED,
    ONE_ANSWER,
    STALE,
    UNRECORDED_WORST,
    gap_flags,
    learned,
    levelling_down,
    worst_group_worse,
)
from fairbench.leaderboard.row import disparities_adjusted, with_adjusted
from fairbench.leaderboard.standings import criteria_of, trade_offs_of
from fairbench.statistics.ranking import Ranking as Order
from fairbench.statistics.ranking import dominance, holm
from fairbench.statistics.results import Difference

FIRST = (STALE, NOT_LEARNED, ONE_ANSWER, BELOW)  # flags that come before those which follow from adjusted p-values
ADJUSTED = (LEVELLING_DOWN, "worst group worse", CASE_MIX, UNRECORDED_WORST, "partial")


def readjust(table: Table) -> Table:
    """Adjust every p-value for the number of rows that the table holds, and rank and flag them by that.

    Rows that were never compared with each other, being of different laboratories, are no test and no order.
    Raises FairbenchError for a table without `evidence`.
    """
    order = _order(table)
    counted = criteria_of(table.ranked_by, _has_odds(table))
    bases = {row.label for row in table.rows if row.role == "baseline"}
    rows = [replace(row, changes=_from_pairs(row, order, counted, bases)) for row in table.rows]
    rows = _disparities(_each_kind(_each_kind(rows, "changes", counted), "interactions"))
    ranks = {rank.name: rank for rank in order.ranks}
    trade_offs = trade_offs_of(order)
    levelled = levelling_down({row.label: (row.changes, row.interactions) for row in rows if row.changes})
    rows = [
        replace(
            row,
            rank=ranks[row.label].text,
            trade_offs=tuple(trade_offs.get(row.label, ())),
            flags=_flags(row, row.label in levelled),
        )
        for row in rows
    ]
    rows.sort(key=lambda r: (ranks[r.label].first, ranks[r.label].last, r.label != table.baseline, r.label))
    return replace(table, rows=tuple(rows))


def _has_odds(table: Table) -> bool:
    return len(table.classes) == 2


def _order(table: Table) -> Order:
    """Rank by the comparisons that were made; with those that were planned as a family of their own."""
    pairs = table.evidence.pairs if table.evidence else ()
    compared: dict[tuple[str, str], Mapping[str, Difference]] = {(one.a, one.b): one.differences for one in pairs}
    labels = [row.label for row in table.rows]
    for a, b in combinations(labels, 2):
        if (b, a) not in compared:
            compared.setdefault((a, b), {})
    bases = [row.label for row in table.rows if row.role == "baseline"]
    planned = [(label, base) for label in table.primary for base in bases]
    return dominance(labels, compared, criteria_of(table.ranked_by, _has_odds(table)), planned)


def _from_pairs(row: Row, order: Order, counted: Mapping[str, bool], bases: set[str]) -> dict[str, Difference]:
    """Take the p that the ranks rest on: of the comparison with the baseline, in what is counted there."""
    changes = dict(row.changes)
    for pair, adjusted in order.adjusted.items():
        other = pair[1] if pair[0] == row.label else pair[0]
        if row.label in pair and other in bases:
            mine = {name: p for name, p in adjusted.items() if name in counted and name in changes}
            changes |= {name: replace(changes[name], adjusted=p) for name, p in mine.items()}
    return changes


def _each_kind(
    rows: Sequence[Row], field: Literal["changes", "interactions"], given: Collection[str] = ()
) -> list[Row]:
    """Adjust each kind of change or interaction over the rows, but those that are `given`: ranks go by them."""
    done: dict[str, dict[str, Any]] = {row.label: dict(getattr(row, field)) for row in rows}
    for kind in dict.fromkeys(kind for values in done.values() for kind in values if kind not in given):
        mine = [values for values in done.values() if kind in values]
        for values, p in zip(mine, holm([values[kind].p for values in mine]), strict=True):
            values[kind] = replace(values[kind], adjusted=p)
    changed: Callable[..., Row] = replace
    return [changed(row, **{field: done[row.label]}) for row in rows]


def _disparities(rows: Sequence[Row]) -> list[Row]:
    """Adjust the gaps of the rows that have learned."""
    tested = with_adjusted({row.label: row for row in rows if learned(row)})
    return [tested.get(row.label) or disparities_adjusted(row, None, None) for row in rows]


def _flags(row: Row, levelled: bool) -> tuple[Flag, ...]:
    """Let the flags that follow from p-values follow from the new ones, in their place among the others."""
    return (
        *(flag for flag in row.flags if flag.code in FIRST),
        *([Flag(LEVELLING_DOWN)] if levelled else ()),
        *([Flag("worst group worse")] if worst_group_worse(row.changes) else ()),
        *gap_flags(row.gap, row.standardised_gap, row.worst_group, row.eq_odds_max),
        *(flag for flag in row.flags if flag.code not in (*FIRST, *ADJUSTED)),
    )
