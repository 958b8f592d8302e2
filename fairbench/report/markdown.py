"""A leaderboard as GitHub markdown."""

from __future__ import annotations

import html
import re

from fairbench.leaderboard.board import Board
from fairbench.report.blocks import Block, Fold, Grid, Heading, Paragraph, Points
from fairbench.report.format import plain
from fairbench.report.layout import lay_out

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~$&@!])")


def render(board: Board) -> str:
    """Write the board as markdown; the same board always gives the same text."""
    return "\n\n".join(_block(block) for block in lay_out(board)) + "\n"


def escape(text: str) -> str:
    """Make text from data stand in markdown as it is, on one line: no markup, no cell ends, no links, no HTML."""
    escaped = _SPECIAL.sub(r"\\\1", plain(text))
    return escaped.replace("://", ":&#8203;//").replace("www.", "www&#8203;.")


def _block(block: Block) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {escape(block.text)}"
    if isinstance(block, Paragraph):
        return f"**{escape(block.text)}**" if block.finding else _not_a_list(escape(block.text))
    if isinstance(block, Points):
        return "\n".join(f"- {escape(entry)}" for entry in block.entries)
    if isinstance(block, Grid):
        return f"**{escape(block.caption)}**\n\n{_grid(block)}" if block.caption else _grid(block)
    if isinstance(block, Fold):
        inside = "\n\n".join(map(_block, block.blocks))
        return f"<details>\n<summary>{html.escape(plain(block.title))}</summary>\n\n{inside}\n\n</details>"
    return "\n".join(f"- **{escape(term)}**: {escape(meaning)}" for term, meaning in block.entries)


def _not_a_list(text: str) -> str:
    """Keep a paragraph that opens like a list or a heading from becoming one."""
    return re.sub(r"^(\d+)([.)])|^([-+=])", lambda m: f"{m[1] or ''}\\{m[2] or m[3]}", text)


def _grid(grid: Grid) -> str:
    rule = ["---:" if grid.is_number(place) else ":---" for place in range(len(grid.columns))]
    lines = [list(map(escape, grid.titles)), rule, *(list(map(escape, row)) for row in grid.rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
