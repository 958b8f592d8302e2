"""Who is in which group, and whose rows belong together: read from a table, with or without answers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from fairbench.errors import FairbenchError
from fairbench.predictions.content import content_of
from fairbench.settings import suggest

UNRECORDED = "unrecorded"
MOST_GROUPS = 1000

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Groups:
    """Who is in which group: codes (n,), -1 = in none; names; and clusters (n,), None if none has two rows."""

    attribute: str
    codes: Ints
    names: tuple[str, ...]
    cluster: Ints | None

    @classmethod
    def of(cls, table: pd.DataFrame, attribute: str, policy: str = "keep") -> Groups:
        """Look up the groups of one attribute, or of several joined by + (named like black×female).

        `policy` for missing values: `keep` (a group of its own, "unrecorded"), `drop` (in no group), or
        `merge:NAME` (into the group NAME). Groups are those present, by name, unrecorded ones last. A value
        that holds × itself stands in quotes in a joined name. Raises FairbenchError for an unknown attribute,
        policy or group, or for more than 1,000 groups.
        """
        columns = _columns(table, attribute)
        codes, names = _cross(columns)
        if policy != "keep":
            codes, names = _without_unrecorded(codes, names, _recorded(columns), attribute, policy)
        return cls(attribute, codes, names, _shared(clusters(table)))

    @cached_property
    def content(self) -> str:
        """A hash of all that is in it."""
        return content_of([self.attribute, self.names], [self.codes, self.cluster])

    @classmethod
    def everyone(cls, table: pd.DataFrame) -> Groups:
        """Put all rows into one group."""
        return cls("", np.zeros(len(table), dtype=np.int64), ("everyone",), _shared(clusters(table)))


def recorded(table: pd.DataFrame, attribute: str) -> npt.NDArray[np.bool_]:
    """Say of every row whether the attribute (every one of several joined by +) is recorded, (n,)."""
    return _recorded(_columns(table, attribute))


def clusters(table: pd.DataFrame) -> Ints:
    """Say which cluster each row belongs to, (n,), codes from 0; every row its own where none is known."""
    if "cluster" not in table:
        return np.arange(len(table), dtype=np.int64)
    return pd.factorize(table["cluster"])[0].astype(np.int64)


def _shared(cluster: Ints) -> Ints | None:
    return None if cluster.max(initial=-1) + 1 == cluster.size else cluster  # codes from 0, none left out


def _columns(table: pd.DataFrame, joined: str) -> list[pd.Series[Any]]:
    parts = joined.split("+")
    if len(set(parts)) < len(parts):
        raise FairbenchError(f"attribute `{joined}` names the same attribute twice", "name each once")
    return [_column(table, part) for part in parts]


def _column(table: pd.DataFrame, name: str) -> pd.Series[Any]:
    if name not in table:
        raise suggest("column of this table", name, map(str, table.columns))
    column = table[name]
    if not isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype("category")
    column = column.cat.remove_unused_categories()
    _few_enough(len(column.cat.categories), name)
    return column


def _recorded(columns: list[pd.Series[Any]]) -> npt.NDArray[np.bool_]:
    known: npt.NDArray[np.bool_] = np.ones(len(columns[0]), dtype=np.bool_)
    for column in columns:
        known &= column.cat.codes.to_numpy() >= 0
    return known


def _cross(columns: list[pd.Series[Any]]) -> tuple[Ints, tuple[str, ...]]:
    """Group codes of the combinations of values that occur."""
    codes: Ints = np.zeros(len(columns[0]), dtype=np.int64)
    names: tuple[str, ...] = ("",)
    spell = _quoted if len(columns) > 1 else str
    for column in columns:
        values = [*map(spell, column.cat.categories), UNRECORDED]
        order = [*sorted(set(values) - {UNRECORDED}), UNRECORDED]
        place = np.array([order.index(value) for value in values], dtype=np.int64)
        codes = codes * len(order) + place[column.cat.codes.to_numpy()]  # code -1 is the last: unrecorded
        names = tuple(f"{left}×{right}" if left else right for left in names for right in order)
        codes, names = _compact(codes, names)
        _few_enough(len(names), "an intersection")
    return codes, names


def _quoted(value: Any) -> str:
    """Spell a value for a joined name so that a×b beside c is not a beside b×c."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if "×" in text or text.startswith('"') else text


def _without_unrecorded(
    codes: Ints, names: tuple[str, ...], whole: npt.NDArray[np.bool_], attribute: str, policy: str
) -> tuple[Ints, tuple[str, ...]]:
    if policy != "drop" and not policy.startswith("merge:"):
        raise FairbenchError(
            f"no policy for unrecorded values is called `{policy}`", "use keep, drop or merge:GROUP"
        )
    codes, names = _compact(np.where(whole, codes, -1), names)
    if policy == "drop":
        return codes, names
    into = policy.removeprefix("merge:")
    if into not in names:
        raise suggest(f"group of {attribute} (to merge unrecorded values into)", into, names)
    return np.where(whole, codes, names.index(into)), names


def _few_enough(count: int, attribute: str) -> None:
    if count > MOST_GROUPS:
        raise FairbenchError(
            f"`{attribute}` makes {count:,} groups, more than the {MOST_GROUPS:,} that can be compared",
            "bin a continuous attribute (such as age) into a few named groups first",
        )


def _compact(codes: Ints, names: tuple[str, ...]) -> tuple[Ints, tuple[str, ...]]:
    """Leave out the groups without rows."""
    used = np.bincount(codes[codes >= 0], minlength=len(names)) > 0
    renumbered = np.append(np.cumsum(used) - 1, -1)  # code -1 stays -1
    return renumbered[codes], tuple(name for name, there in zip(names, used, strict=True) if there)
