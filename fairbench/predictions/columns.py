"""What the columns of a predictions file are for: each by its name."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from fairbench.errors import FairbenchError
from fairbench.predictions.classes import PROBABILITY, named_probability
from fairbench.predictions.missing import kept
from fairbench.settings import suggest

KEYS = ("id", "cluster")  # too many different values to be worth coding
CODED = ("split", "target", "answer")
FREE_TEXT = ("reference", "text")
NUMBERS = ("score", "loss")
ROLES = (*KEYS, *CODED, *FREE_TEXT, *NUMBERS)

Columns = list[str]


def role(column: str) -> str | None:
    """Return what a column of this name is, None for an attribute."""
    return column if column in ROLES or PROBABILITY.fullmatch(column) else None


@dataclass(frozen=True)
class ReadRequest:
    """What is to be read of a file, and how."""

    path: Path
    attributes: tuple[str, ...] | None
    keep: tuple[str, ...]

    @classmethod
    def of(cls, path: Path, attributes: Sequence[str] | None, keep: Collection[str]) -> ReadRequest:
        """Take joined attributes apart; raises FairbenchError for a word that cannot be kept."""
        parts = None if attributes is None else dict.fromkeys(p for a in attributes for p in a.split("+"))
        return cls(path, None if parts is None else tuple(parts), kept(keep))

    def choose(self, columns: Columns) -> tuple[Columns, Columns]:
        """Name the columns to read that have a role, and the attributes; refuse what is not there once."""
        self._refuse_misspelt(columns)
        # numbers of rows, as pandas writes them, have no name
        offered = [c for c in columns if c and role(c) is None]
        wanted = offered if self.attributes is None else list(self.attributes)
        text = set(FREE_TEXT) <= set(columns)
        graded = not text or "target" in columns or "answer" in columns
        for column in [*(("target", "answer") if graded else ()), *wanted]:
            if column not in columns:
                raise suggest(f"column of {self.path}", column, columns)
            if column in wanted and role(column):
                raise suggest(f"attribute of {self.path}", column, offered)
        roles = [c for c in columns if role(c) and (text or c not in (*FREE_TEXT, "loss"))]
        if not any(c == "score" or PROBABILITY.fullmatch(c) for c in columns):
            # perhaps of a class by its name
            roles += [c for c in offered if named_probability(c) is not None and c not in wanted]
        for column in (*roles, *wanted):
            if columns.count(column) > 1:
                raise FairbenchError(f"{self.path}: two columns are called `{column}`", "rename one of them")
            if column in wanted and "+" in column:
                raise FairbenchError(
                    f"{self.path}: the column `{column}` has a + in its name, which joins attributes", "rename it"
                )
        return roles, wanted

    def _refuse_misspelt(self, columns: Columns) -> None:
        """Refuse a column that lacks its role for its capitals or spaces alone: nobody would see it ignored."""
        plain = {c: c.strip().casefold() for c in columns if c not in (self.attributes or ())}
        meant = {c: name for c, name in plain.items() if role(name) and name not in columns}
        texts = set(FREE_TEXT) <= {*columns, *meant.values()}
        numbered = any(map(PROBABILITY.fullmatch, columns))
        for column, name in meant.items():
            idle = (name in (*FREE_TEXT, "loss") and not texts) or (name == "score" and numbered)
            if not idle:
                raise FairbenchError(
                    f"{self.path}: the column `{column}` would not be read as `{name}`",
                    f"call it `{name}` if it is that, and something else if it is not",
                )
