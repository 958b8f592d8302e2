"""What the reports on a terminal are made of: a title, a heading, a table, remarks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from fairbench.report.blocks import Grid
from fairbench.report.format import plain
from fairbench.report.terminal import grid


def title(console: Console, name: str, rest: str) -> None:
    """Print a name, and what it is about under it."""
    console.print(Padding(Text.assemble((plain(name), "bold"), "\n", (plain(rest), "dim")), (1, 0, 0, 0)))


def heading(console: Console, text: str) -> None:
    """Print a heading."""
    console.print(Padding(Text(plain(text), style="bold"), (1, 0, 0, 0)))


def table(console: Console, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; titles that end in `>` stand over numbers."""
    cells = tuple(tuple(map(plain, row)) for row in rows)
    console.print(Padding(grid(Grid("", tuple(map(plain, columns)), cells), console.width - 1), (0, 0, 0, 1)))


def notes(console: Console, remarks: Iterable[str]) -> None:
    """Print remarks, each once."""
    for note in dict.fromkeys(remarks):
        console.print(Padding(Text(f"· {plain(note)}", style="dim"), (0, 1)))
