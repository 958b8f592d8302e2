"""A leaderboard as one HTML file that draws, sorts and filters by itself and asks no network for anything.

Vega is embedded (0.9 MB) and runs its expressions by an interpreter, so that the policy in the head can forbid
every connection and every script but those that this module wrote, by their hashes.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

from fairbench.leaderboard.board import Board, Table
from fairbench.leaderboard.details import TableDetails
from fairbench.report import html
from fairbench.report.blocks import Block, Fold, Paragraph, Points
from fairbench.report.charts import KINDS
from fairbench.report.charts.curves import under_way
from fairbench.report.charts.heat import heat, place
from fairbench.report.charts.panel import Figure
from fairbench.report.charts.theme import SCREEN
from fairbench.report.charts.words import MOST
from fairbench.report.drawer import drawer
from fairbench.report.format import plain
from fairbench.report.layout import Section, closing, section

LINES = 200  # of a table that are shown at first
FIRST = 8  # findings that a reader sees at once
DRAWER = (
    '<dialog id="drawer" aria-labelledby="drawer-title"><header><h2 id="drawer-title"></h2>'
    '<button type="button" class="close">Close</button></header><div id="drawer-body"></div></dialog>'
)


def render(board: Board, details: Sequence[TableDetails] | None = None, live: str = "") -> str:
    """Write the page. `details` holds what stands behind each table, where its runs are at hand.

    `live` is the version that a server knows the page by, which then keeps it current: the page may connect to
    that server alone.
    """
    specs: list[dict[str, Any]] = []
    several = len(board.tables) > 1
    parts = [
        "<noscript><style>tr[hidden] { display: table-row; }</style></noscript>",
        '<a class="skip" href="#main">To the results</a>',
        f"<header><h1>{escape(plain(board.title))}</h1>{_contents(board) if several else ''}</header>",
        _live(live, specs) if live else "",
        '<main id="main">',
        _figure(heat(board), specs, "") if several else "",
    ]
    for number, table in enumerate(board.tables):
        parts.append(_table(number, table, details[number] if details else None, specs))
    parts += [
        "" if several else _figure(heat(board), specs, "0"),
        "</main>",
        f"<footer>{html.fragment(closing(board))}</footer>",
        DRAWER,
    ]
    data = {"config": SCREEN.config, "panels": specs, "most": MOST, "lines": LINES}
    drawers = [
        [{"name": plain(row.label), "parts": drawer(row, table)} for row in (*table.rows, *table.controls)]
        for table in board.tables
    ]
    parts += [_island("charts", data), _island("drawers", drawers)]
    scripts = [vega(), files("fairbench.report").joinpath("page", "page.js").read_text(encoding="utf-8")]
    if live:
        scripts.append(files("fairbench.report").joinpath("page", "live.js").read_text(encoding="utf-8"))
    parts += [f"<script>{script}</script>" for script in scripts]
    body = "\n".join(part for part in parts if part)
    return html.document(plain(board.title), html.style(), body, _policy(scripts, bool(live)))


@cache
def vega() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script, as vl-convert brings them."""
    import vl_convert

    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    if "</script" in script.lower():
        raise AssertionError("the script would end before its end")
    return script


def _policy(scripts: Iterable[str], live: bool) -> str:
    """Forbid all that the page does not need: foremost every connection."""
    hashes = " ".join(f"'sha256-{b64encode(hashlib.sha256(one.encode()).digest()).decode()}'" for one in scripts)
    allowed = f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'"
    allowed += "; form-action 'none'"
    allowed += "; connect-src 'self'" if live else ""
    return (
        f'<meta http-equiv="Content-Security-Policy" content="{allowed}">\n'
        '<meta name="referrer" content="no-referrer">\n<link rel="icon" href="data:,">\n'
    )


def _island(name: str, data: object) -> str:
    """Write data into the page so that nothing in it can end the element or open another."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f'<script type="application/json" id="{name}">{text}</script>'


def _live(version: str, specs: list[dict[str, Any]]) -> str:
    """Frame what a server tells of a sweep."""
    lists = "".join(
        f'<div class="{name}" hidden><h3>{title}</h3><ul></ul></div>'
        for name, title in (("running", "At work"), ("failed", "Failed"))
    )
    return (
        f'<section id="live" data-version="{escape(version)}" aria-label="The sweep">'
        '<p class="finding now" role="status">Looking…</p><progress class="bar" aria-label="Jobs that have ended">'
        f'</progress><button type="button" class="fresh more" hidden>Show the new results</button>'
        f'<p class="problem"></p>{lists}{_figure(under_way(), specs, "live")}'
        '<details class="waiting" hidden><summary>Waiting</summary><ul></ul></details></section>'
    )


def _contents(board: Board) -> str:
    entries = "".join(
        f'<li><a href="#table-{number}">{escape(place(table))}</a></li>'
        for number, table in enumerate(board.tables)
    )
    return f'<nav aria-label="Tables"><ul>{entries}</ul></nav>'


def _table(number: int, table: Table, details: TableDetails | None, specs: list[dict[str, Any]]) -> str:
    laid = section(table)
    rows = {plain(row.label): place for place, row in enumerate((*table.rows, *table.controls))}
    rows |= {plain(f"{row.label} ({row.stands_for})"): rows[plain(row.label)] for row in table.controls}
    marks = html.Marks(rows, LINES)
    drawn = {kind: draw(table, details) for kind, draw in KINDS.items()} if table.rows else {}
    figures = {kind: _figure(figure, specs, str(number)) for kind, figure in drawn.items()}
    absent = [f"“{figure.title}” ({figure.missing})" for figure in drawn.values() if not figure.panels]
    parts = [
        f'<section class="table" id="table-{number}" data-table="{number}" aria-labelledby="title-{number}">',
        _heading(number, table, laid),
        f'<p class="finding">{escape(laid.conclusion)}</p>',
        html.fragment(_points(laid)),
        figures.pop("pareto", ""),
        _lead(number, table, laid, rows),
        html.fragment(laid.remarks, marks),
        *figures.values(),
        html.fragment([Paragraph(f"Not drawn: {'; '.join(absent)}.")]) if absent else "",
        html.fragment(laid.folds, marks),
        "</section>",
    ]
    return "\n".join(part for part in parts if part)


def _points(laid: Section) -> list[Block]:
    """List what a table says; what is beyond a screen is folded away."""
    first, rest = laid.points[:FIRST], laid.points[FIRST:]
    blocks: list[Block] = [Points(first)] if first else []
    return [*blocks, Fold(f"{len(rest):,} more findings", (Points(rest),))] if rest else blocks


def _heading(number: int, table: Table, laid: Section) -> str:
    """Name a table shortly, and under it all that it is about."""
    counts = {"test row": table.rows_tested, "group": len(table.groups), "method": len(table.rows)}
    counts["seed"] = len(table.trials.seeds)
    about = [f"{count:,} {noun}{'' if count == 1 else 's'}" for noun, count in counts.items()]
    return (
        f'<h2 id="title-{number}">{escape(place(table))}</h2>\n'
        f'<p class="about">{escape(" · ".join(about))}<br><span class="settings">{escape(laid.place)}</span></p>'
    )


def _lead(number: int, table: Table, laid: Section, rows: Mapping[str, int]) -> str:
    if laid.lead is None:
        return ""
    named = {**rows, **{f"{label} (baseline)": place for label, place in rows.items()}}
    below = len(laid.lead.rows) - len(table.rows)
    return (
        f'<div class="filter"><label for="filter-{number}">Filter methods</label>'
        f'<input type="search" id="filter-{number}" autocomplete="off" spellcheck="false">'
        f'<output for="filter-{number}" role="status"></output></div>\n'
        + html.grid(laid.lead, html.Marks(named, LINES), below, "Methods by rank").replace(
            "<table>", '<table class="lead">', 1
        )
    )


def _figure(figure: Figure, specs: list[dict[str, Any]], table: str) -> str:
    """Write a figure's frame; its drawings are data, which the script draws when they come near."""
    if not figure.panels:
        return ""
    frames, choice = [], ""
    methods = list(dict.fromkeys(record["method"] for panel in figure.panels for record in panel.records))
    name = f"figure-{len(specs)}"
    for panel in figure.panels:
        spec = panel.spec(SCREEN, "container", [])
        spec = {key: value for key, value in spec.items() if key not in ("config", "$schema")}
        data = {"spec": spec, "records": panel.records, "one": panel.one, "step": panel.step, "table": table}
        frames.append(f'<div class="panel" data-panel="{len(specs)}"></div>')
        specs.append(data)
    if any(panel.one for panel in figure.panels):
        options = "".join(f"<option>{escape(method)}</option>" for method in methods)
        choice = f'<label class="choice">Method <select>{options}</select></label>'
    return (
        f'<figure class="{figure.kind}" aria-labelledby="{name}"><h3 id="{name}">{escape(figure.title)}</h3>'
        f'{choice}<div class="panels">{"".join(frames)}</div>'
        f"<figcaption>{escape(figure.note)}</figcaption></figure>"
    )
