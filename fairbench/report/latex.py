"""A leaderboard's tables for a paper: LaTeX with booktabs, one table of numbers for each table of the board."""

from __future__ import annotations

import re

from fairbench.leaderboard.board import Board, Table
from fairbench.leaderboard.sentences import finding
from fairbench.report.blocks import Grid
from fairbench.report.format import plain
from fairbench.report.lead import lead, legend

# What LaTeX reads as commands, and marks of the board that plain LaTeX has no letter for.
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{mark: f"\\{mark}" for mark in "&%$#_"},
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "≠": r"$\neq$",
    "⇄": r"$\rightleftarrows$",
    "−": r"$-$",
    "×": r"$\times$",
    "–": "--",
    "†": r"\textdagger{}",
    "‡": r"\textdaggerdbl{}",
    "§": r"\S{}",
    "·": r"$\cdot$",
    "“": "``",
    "”": "''",
}
_ESCAPED = re.compile("|".join(map(re.escape, _SPECIAL)))


def render(board: Board) -> str:
    """Write every table with rows as a `table` environment; its preamble needs `booktabs` and `amssymb`."""
    tables = [_table(table, number) for number, table in enumerate(board.tables, 1) if table.rows]
    head = (
        f"% {plain(board.title)}: written by fairbench {plain(board.fairbench)}; \\usepackage{{booktabs,amssymb}}"
    )
    return "\n\n".join([head, *tables]) + "\n"


def escape(text: str) -> str:
    """Make text from data stand in LaTeX as it is, whatever it holds."""
    return _ESCAPED.sub(lambda match: _SPECIAL[match[0]], plain(text))


def _table(table: Table, number: int) -> str:
    grid = lead(table)
    marks = " ".join(escape(block.text) for block in legend(table))
    place = f"{table.dataset}, {table.backbone}, by {table.attribute} (n = {table.rows_tested:,})"
    caption = f"{escape(place)}. {escape(finding(table)[0])} {marks}"
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering\small",
            f"\\caption{{{caption}}}",
            f"\\label{{tab:fairbench-{number}}}",
            _tabular(grid),
            r"\end{table}",
        ]
    )


def _tabular(grid: Grid) -> str:
    columns = "".join("r" if grid.is_number(place) else "l" for place in range(len(grid.columns)))
    lines = [" & ".join(map(escape, cells)) + r" \\" for cells in (grid.titles, *grid.rows)]
    rules = [r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"]
    return "\n".join([f"\\begin{{tabular}}{{{columns}}}", *rules, r"\end{tabular}"])
