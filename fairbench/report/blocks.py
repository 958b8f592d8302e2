"""What every format can print: headings, sentences, terms, grids, and what is folded away."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fairbench.report.format import plain


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the board's title."""

    text: str
    level: int


@dataclass(frozen=True)
class Paragraph:
    """A sentence or two; `finding` sets it apart as what to take home."""

    text: str
    finding: bool = False


@dataclass(frozen=True)
class Points:
    """Sentences of equal weight, one to a line."""

    entries: tuple[str, ...]


@dataclass(frozen=True)
class Terms:
    """Terms and what each means."""

    entries: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Grid:
    """A captioned table; columns whose title ends in `>` hold numbers and stand right."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def titles(self) -> tuple[str, ...]:
        """The columns' titles as printed."""
        return tuple(column.removesuffix(">") for column in self.columns)

    def is_number(self, place: int) -> bool:
        """Whether a column holds numbers."""
        return self.columns[place].endswith(">")


@dataclass(frozen=True)
class Fold:
    """Blocks that a reader opens when the depth is wanted; a terminal shows them with `--full` only."""

    title: str
    blocks: tuple[Block, ...]


Block = Heading | Paragraph | Points | Terms | Grid | Fold


def grid(caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Grid:
    """Make a grid whose text is on one line and free of control characters."""
    return Grid(plain(caption), tuple(map(plain, columns)), tuple(tuple(map(plain, row)) for row in rows))
