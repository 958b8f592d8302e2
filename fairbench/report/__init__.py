"""A leaderboard as markdown, a page, csv, JSON or on a terminal, all from the one table model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from fairbench import files
from fairbench.errors import FairbenchError
from fairbench.leaderboard.board import Board
from fairbench.leaderboard.details import TableDetails
from fairbench.report import csv, json, latex, markdown, terminal
from fairbench.settings import suggest

Details = Sequence[TableDetails] | None


def _page(board: Board, details: Details = None) -> str:
    from fairbench.report import page  # altair takes a second to import

    return page.render(board, details)


FORMATS: dict[str, Callable[[Board, Details], str]] = {
    "md": lambda board, _: markdown.render(board),
    "html": _page,
    "csv": lambda board, _: csv.render(board),
    "json": lambda board, _: json.render(board),
    "tex": lambda board, _: latex.render(board),
    "terminal": lambda board, _: terminal.render(board),
}
SUFFIXES = {f".{name}": name for name in FORMATS if name != "terminal"} | {".htm": "html", ".txt": "terminal"}


def render(board: Board, format: str, details: Details = None) -> str:
    """Return a board in one of FORMATS, ending in a newline; raises FairbenchError for an unknown one.

    `details` is what the page draws beside the board, where its runs are at hand (see `leaderboard.details`).
    """
    if format not in FORMATS:
        raise suggest("format", format, FORMATS)
    return FORMATS[format](board, details)


def write(board: Board, path: str | Path, format: str | None = None, details: Details = None) -> None:
    """Write a board to a file; the format defaults to what the file's name ends in."""
    path = Path(path)
    chosen = format or format_of(path)
    files.write(path, render(board, chosen, details))


def format_of(path: Path) -> str:
    """Tell a format from the end of a file's name; raises FairbenchError where it says none."""
    chosen = SUFFIXES.get(path.suffix.lower())
    if chosen is None:
        raise FairbenchError(f"{path}: cannot tell the format from the name", f"say --format {'|'.join(FORMATS)}")
    return chosen
