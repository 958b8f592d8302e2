"""A leaderboard as markdown, html, csv, JSON or on a terminal, all from the one table model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fairbench.errors import FairbenchError
from fairbench.leaderboard.board import Board
from fairbench.report import csv, html, json, markdown, terminal
from fairbench.settings import suggest

FORMATS: dict[str, Callable[[Board], str]] = {
    "md": markdown.render,
    "html": html.render,
    "csv": csv.render,
    "json": json.render,
    "terminal": terminal.render,
}
SUFFIXES = {".md": "md", ".html": "html", ".htm": "html", ".csv": "csv", ".json": "json", ".txt": "terminal"}


def render(board: Board, format: str) -> str:
    """Return a board in one of FORMATS, ending in a newline; raises FairbenchError for an unknown one."""
    if format not in FORMATS:
        raise suggest("format", format, FORMATS)
    return FORMATS[format](board)


def write(board: Board, path: str | Path, format: str | None = None) -> None:
    """Write a board to a file; the format defaults to what the file's name ends in."""
    path = Path(path)
    chosen = format or SUFFIXES.get(path.suffix.lower())
    if chosen is None:
        raise FairbenchError(f"{path}: cannot tell the format from the name", f"say --format {'|'.join(FORMATS)}")
    text = render(board, chosen)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise FairbenchError(f"cannot write {path}: {error.strerror}", "choose another --out") from error
