"""A leaderboard on a terminal: aligned, quiet, readable without colour in 120 columns."""

from __future__ import annotations

import io

from rich import box
from rich.cells import cell_len
from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from fairbench.leaderboard.board import Board
from fairbench.report.blocks import Block, Fold, Grid, Heading, Paragraph, Points
from fairbench.report.layout import HOW_TO_READ, lay_out

WIDTH = 120
NARROW = 8  # a column narrower than this would not be readable


def show(board: Board, console: Console, full: bool = False, explain: bool = False) -> None:
    """Print a board: what leads; with `full` all that is folded away, with `explain` how to read it."""
    folded: dict[str, None] = {}
    for block in lay_out(board):
        if isinstance(block, Fold) and not full and not (explain and block.title == HOW_TO_READ):
            folded[block.title] = None
            continue
        console.print(_block(block, console.width))
    if folded:
        more = f"`fairbench leaderboard RUNS --full` shows more: {'; '.join(folded)}."
        console.print(Padding(Text(more, style="dim"), (1, 2, 0, 2)))


def render(board: Board) -> str:
    """Return a board as plain text of WIDTH columns."""
    file = io.StringIO()
    show(board, Console(file=file, width=WIDTH, color_system=None, legacy_windows=False), full=True)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def _block(block: Block, width: int) -> Padding | Text | Group:
    if isinstance(block, Heading):
        return Padding(Text(block.text, style="bold underline" if block.level == 1 else "bold"), (1, 0, 0, 0))
    if isinstance(block, Paragraph):
        return Padding(Text(block.text, style="bold" if block.finding else "dim"), (1 if block.finding else 0, 2))
    if isinstance(block, Points):
        points = RichTable(box=None, show_header=False, padding=(0, 1, 0, 0))
        for entry in block.entries:
            points.add_row(Text("•"), Text(entry))
        return Padding(points, (0, 2))
    if isinstance(block, Grid):
        return Group(
            Padding(Text(block.caption, style="italic"), (1, 0, 0, 2)),
            Padding(grid(block, width - 1), (0, 0, 0, 1)),
        )
    if isinstance(block, Fold):
        title = Padding(Text(block.title, style="bold"), (1, 0, 0, 2))
        return Group(title, *(_block(inside, width) for inside in block.blocks))
    terms = RichTable(box=None, show_header=False, padding=(0, 2, 0, 0))
    terms.add_column(no_wrap=True)
    terms.add_column(style="dim")
    for term, meaning in block.entries:
        terms.add_row(Text(term), Text(meaning))
    return Padding(terms, (0, 2))


def grid(block: Grid, width: int) -> RichTable:
    """Lay a grid out in `width` columns of a terminal."""
    table = RichTable(
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="none"
    )
    widths = _widths(block, width)
    for place, title in enumerate(block.titles):
        right = block.is_number(place)
        table.add_column(Text(title), justify="right" if right else "left", width=widths[place], overflow="fold")
    for row in block.rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _widths(block: Grid, width: int) -> list[int]:
    """Give every column its longest word (numbers: its longest cell), and share out what is left."""
    room = width - 2 * (len(block.columns) - 1)
    wanted, needed = [], []
    for place, title in enumerate(block.titles):
        cells = [row[place] for row in block.rows]
        words = title.split() + (cells if block.is_number(place) else " ".join(cells).split())
        wanted.append(max(map(cell_len, [title, *cells]), default=1))
        needed.append(max(map(cell_len, words), default=1))
    widths = needed if sum(wanted) > room else wanted
    order = sorted(range(len(widths)), key=lambda place: (block.is_number(place), place))
    for place in order:
        widths[place] += min(wanted[place] - widths[place], max(0, room - sum(widths)))
    while sum(widths) > room and max(widths) > NARROW:
        widths[widths.index(max(widths))] -= 1
    return widths
