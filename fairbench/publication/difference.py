"""What moved between two boards, and whether by more than noise."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fairbench.leaderboard.board import QUANTITIES, Board, Row, Table
from fairbench.statistics.results import Estimate


@dataclass(frozen=True)
class Moved:
    """One thing that is otherwise in the new board; `beyond_noise` is None where that is no question of noise."""

    table: str
    row: str
    what: str
    old: str
    new: str
    beyond_noise: bool | None = None


def difference(old: Board, new: Board) -> list[Moved]:
    """List what moved from one board to the other: tables, rows, values, ranks and flags.

    A value has moved beyond noise where the two values are further apart than both intervals' half-widths allow,
    joined as for independent data. On the same patients this is cautious; the paired test needs the predictions.
    A row whose jobs are the same ones should not move at all.
    """
    before, after = _placed(old), _placed(new)
    moved: list[Moved] = []
    for place in dict.fromkeys([*before, *after]):
        if place not in after or place not in before:
            there = "there" if place in before else "not there"
            moved.append(Moved(place, "", "table", there, "there" if place in after else "not there"))
        else:
            moved += _tables(place, before[place], after[place])
    return moved


def _placed(board: Board) -> dict[str, Table]:
    """Return the tables by what they are about; several about the same by their number, too."""
    placed: dict[str, Table] = {}
    for table in board.tables:
        same = sum(other.place == table.place for other in placed.values())
        placed[f"{table.place} ({same + 1})" if same else table.place] = table
    return placed


def _tables(place: str, old: Table, new: Table) -> Iterator[Moved]:
    before, after = _about(old), _about(new)
    for what in before:
        if before[what] != after[what]:
            yield Moved(place, "", what, str(before[what]), str(after[what]))
    rows, others = ({row.label: row for row in (*table.rows, *table.controls)} for table in (old, new))
    for label in dict.fromkeys([*rows, *others]):
        if label not in others or label not in rows:
            there = "there" if label in rows else "not there"
            yield Moved(place, label, "row", there, "there" if label in others else "not there")
        else:
            yield from _rows(place, rows[label], others[label])


def _about(table: Table) -> dict[str, object]:
    """Say what a table's rows have in common: patients, what they are judged by, and what is withheld."""
    return {
        "data": table.fingerprint,
        "baseline": table.baseline,
        "test rows": f"{table.rows_tested:,} of {table.clusters:,} clusters",
        "classes": ", ".join(table.classes),
        "groups": ", ".join(f"{one.name} {'withheld' if one.n is None else f'{one.n:,}'}" for one in table.groups),
        "unrecorded values": table.unrecorded,
        "measure": table.measure.name,
        "ranked by": table.ranked_by,
        "groups withheld below": table.min_cell,
    }


def _rows(place: str, old: Row, new: Row) -> Iterator[Moved]:
    again = old.keys == new.keys
    if not again:
        yield Moved(place, old.label, "made by", _made(old, new), _made(new, old))
    values = {name: (getattr(old, key), getattr(new, key)) for key, name in QUANTITIES.items()}
    for name, (a, b) in values.items():
        if a.value != b.value:
            undefined = a.value is None or b.value is None
            beyond = None if undefined else True if again else apart(a, b)
            yield Moved(place, old.label, name, _points(a), _points(b), beyond)
    flags = [", ".join(flag.code for flag in row.flags) for row in (old, new)]
    for name, a, b in (("rank", old.rank, new.rank), ("flags", *flags), ("checked", old.trust, new.trust)):
        if a != b:
            yield Moved(place, old.label, name, a or "none", b or "none")


def apart(a: Estimate, b: Estimate) -> bool | None:
    """Whether two values differ by more than their intervals let them; None where one has none."""
    if a.value is None or b.value is None or a.interval is None or b.interval is None:
        return None
    (lower, (_, top)), (upper, (bottom, _)) = sorted([(a.value, a.interval), (b.value, b.interval)])
    return upper - lower > math.hypot(top - lower, upper - bottom)


def _points(one: Estimate) -> str:
    return one.reason or "undefined" if one.value is None else f"{100 * one.value:.1f}"


def _made(row: Row, other: Row) -> str:
    """Say what of a row's making is not the other's, or which jobs these are."""
    mine, theirs = ({**r.versions, **r.recipe, "seeds": r.seeds} for r in (row, other))
    unlike: Mapping[str, object] = {key: mine[key] for key in mine if mine[key] != theirs.get(key)}
    said = ", ".join(f"{key} {value}" for key, value in unlike.items())
    return (said or f"jobs {', '.join(row.keys)}")[:120]
