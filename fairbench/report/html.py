"""Blocks as HTML: what the page is made of, and by itself what a notebook shows (no script, no network)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files

from fairbench.leaderboard.board import Board
from fairbench.report.blocks import Block, Fold, Grid, Heading, Paragraph, Points
from fairbench.report.layout import lay_out


def render(board: Board) -> str:
    """Write the board's sentences and tables as a page without drawings or script, for a notebook."""
    return document(board.title, style(), fragment(lay_out(board)))


def document(title: str, css: str, body: str, head: str = "") -> str:
    """Put a page together."""
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n{head}'
        f"<title>{escape(title)}</title>\n<style>{css}</style>\n<body>\n{body}\n</body>\n</html>\n"
    )


def style() -> str:
    """Return the page's style sheet."""
    return files("fairbench.report").joinpath("page", "page.css").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Marks:
    """What a script needs to act on tables: the number of each method by its name, and the lines shown at first."""

    rows: Mapping[str, int] = field(default_factory=dict)
    most: int | None = None


NONE = Marks()
NAMING = ("Method", "Control")  # titles of the columns that name a row


def fragment(blocks: Iterable[Block], marks: Marks = NONE) -> str:
    """Write blocks; lines of a table that are about a method carry its number, lines beyond `most` are hidden."""
    return "\n".join(_block(block, marks) for block in blocks)


def _block(block: Block, marks: Marks) -> str:
    if isinstance(block, Heading):
        return f"<h{block.level}>{escape(block.text)}</h{block.level}>"
    if isinstance(block, Paragraph):
        kind = ' class="finding"' if block.finding else ""
        return f"<p{kind}>{escape(block.text)}</p>"
    if isinstance(block, Points):
        entries = "\n".join(f"<li>{escape(entry)}</li>" for entry in block.entries)
        return f'<ul class="points">\n{entries}\n</ul>'
    if isinstance(block, Grid):
        return grid(block, marks)
    if isinstance(block, Fold):
        inside = fragment(block.blocks, marks)
        return f"<details>\n<summary>{escape(block.title)}</summary>\n{inside}\n</details>"
    entries = "\n".join(f"<dt>{escape(term)}</dt><dd>{escape(meaning)}</dd>" for term, meaning in block.entries)
    return f"<dl>\n{entries}\n</dl>"


def grid(one: Grid, marks: Marks = NONE, below: int = 0, label: str = "") -> str:
    """Write a table, its last `below` lines as a foot; `label` names it where it has no caption."""
    place = next((one.titles.index(title) for title in NAMING if title in one.titles), None)
    body = len(one.rows) - below
    shown = body if marks.most is None else marks.most
    lines = [_line(one, row, place, marks, shown <= number < body) for number, row in enumerate(one.rows)]
    titles = "".join(f'<th scope="col"{_kind(one, place)}>{escape(t)}</th>' for place, t in enumerate(one.titles))
    caption = f"<caption>{escape(one.caption)}</caption>\n" if one.caption else ""
    foot = "<tfoot>\n" + "\n".join(lines[body:]) + "\n</tfoot>\n" if below else ""
    name = escape(one.caption or label)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{name}"><table>\n{caption}'
        f"<thead><tr>{titles}</tr></thead>\n<tbody>\n"
        + "\n".join(lines[:body])
        + f"\n</tbody>\n{foot}</table></div>"
    )


def _line(one: Grid, row: Sequence[str], method: int | None, marks: Marks, hidden: bool) -> str:
    cells = [f"<td{_kind(one, place)}>{escape(cell)}</td>" for place, cell in enumerate(row)]
    about = " hidden" if hidden else ""
    if method is not None:
        if row[method] in marks.rows:
            about += f' data-row="{marks.rows[row[method]]}"'
        cells[method] = f'<th scope="row" class="name">{escape(row[method])}</th>'
    return f"<tr{about}>{''.join(cells)}</tr>"


def _kind(one: Grid, place: int) -> str:
    return ' class="number"' if one.is_number(place) else ""
