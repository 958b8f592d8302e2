"""A leaderboard as one HTML page that needs nothing else: no script, no font, no network."""

from __future__ import annotations

from html import escape

from fairbench.leaderboard.board import Board
from fairbench.report.blocks import Block, Fold, Grid, Heading, Paragraph, Points
from fairbench.report.layout import lay_out

_STYLE = """
:root { color-scheme: light dark; --line: #d8d8d4; --quiet: #66665f; --ink: #1d1d1b; --paper: #fdfdfb;
  --tint: #f3f3ee; }
@media (prefers-color-scheme: dark) {
  :root { --line: #3a3a38; --quiet: #a5a59d; --ink: #ecece6; --paper: #191918; --tint: #242422; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 76rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 1.5rem; }
h2 { font-size: 1.2rem; margin: 3rem 0 .75rem; padding-top: 1rem; border-top: 1px solid var(--line); }
.finding { margin: 0 0 1.25rem; padding: .8rem 1rem; background: var(--tint); border-left: 3px solid currentColor;
  border-radius: 2px; font-size: 1.02rem; }
.scroll { overflow-x: auto; margin: 1.4rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .88rem; }
caption { text-align: left; font-weight: 600; padding: 0 .6rem .35rem 0; white-space: nowrap; }
th { font-weight: 500; color: var(--quiet); vertical-align: bottom; border-bottom: 1px solid var(--ink);
  max-width: 9rem; }
th, td { padding: .28rem 1rem .28rem 0; text-align: left; }
td { border-bottom: 1px solid var(--line); vertical-align: top; }
.number { text-align: right; }
td.number { white-space: nowrap; }
th.number { max-width: 7.5rem; }
tbody tr:hover { background: var(--tint); }
p, dl { color: var(--quiet); max-width: 60rem; margin: .35rem 0; font-size: .9rem; }
p.finding { color: inherit; max-width: none; }
ul { margin: .5rem 0; padding-left: 1.2rem; max-width: 64rem; }
li { margin: .15rem 0; }
details { margin: .9rem 0; border-top: 1px solid var(--line); padding-top: .6rem; }
summary { cursor: pointer; font-weight: 500; }
dt { color: var(--ink); font-weight: 500; float: left; clear: left; margin-right: .6em; }
dd { margin: 0 0 .3rem; }
"""


def render(board: Board) -> str:
    """Write the board as a page."""
    body = "\n".join(_block(block) for block in lay_out(board))
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(board.title)}</title>\n<style>{_STYLE}</style>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _block(block: Block) -> str:
    if isinstance(block, Heading):
        return f"<h{block.level}>{escape(block.text)}</h{block.level}>"
    if isinstance(block, Paragraph):
        kind = ' class="finding"' if block.finding else ""
        return f"<p{kind}>{escape(block.text)}</p>"
    if isinstance(block, Points):
        entries = "\n".join(f"<li>{escape(entry)}</li>" for entry in block.entries)
        return f"<ul>\n{entries}\n</ul>"
    if isinstance(block, Grid):
        return _grid(block)
    if isinstance(block, Fold):
        inside = "\n".join(map(_block, block.blocks))
        return f"<details>\n<summary>{escape(block.title)}</summary>\n{inside}\n</details>"
    entries = "\n".join(f"<dt>{escape(term)}</dt><dd>{escape(meaning)}</dd>" for term, meaning in block.entries)
    return f"<dl>\n{entries}\n</dl>"


def _grid(grid: Grid) -> str:
    def line(tag: str, cells: tuple[str, ...]) -> str:
        kinds = [' class="number"' if grid.is_number(place) else "" for place in range(len(cells))]
        return "".join(f"<{tag}{kind}>{escape(cell)}</{tag}>" for kind, cell in zip(kinds, cells, strict=True))

    rows = "\n".join(f"<tr>{line('td', row)}</tr>" for row in grid.rows)
    caption = f"<caption>{escape(grid.caption)}</caption>\n" if grid.caption else ""
    return (
        f'<div class="scroll"><table>\n{caption}'
        f"<thead><tr>{line('th', grid.titles)}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>"
    )
