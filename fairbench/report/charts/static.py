"""A figure as a file for a paper: png, pdf or svg, made by vl-convert without a browser or a network."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import vl_convert

from fairbench.errors import FairbenchError
from fairbench.leaderboard.board import Table
from fairbench.report.charts.heat import place
from fairbench.report.charts.panel import Figure, Panel, Records
from fairbench.report.charts.theme import PAPER
from fairbench.report.charts.words import MOST

WIDTH = 330  # pixels of a panel, 72 an inch
LETTERS = 90  # in a line of the title
ONES = 6  # methods that a drawing of one method is repeated for
PIXELS = 3.0  # of a png for each pixel of the drawing: 216 an inch
WRITERS: dict[str, Callable[[dict[str, Any]], bytes | str]] = {
    ".png": lambda spec: vl_convert.vegalite_to_png(spec, scale=PIXELS),
    ".pdf": vl_convert.vegalite_to_pdf,
    ".svg": vl_convert.vegalite_to_svg,
}


def picture(figure: Figure, table: Table, suffix: str) -> bytes:
    """Draw a figure with its title and what it stands on; raises FairbenchError where there is nothing to draw."""
    if suffix not in WRITERS:
        raise FairbenchError(
            f"cannot draw a file that ends in {suffix or 'nothing'}", "--out takes .png, .pdf or .svg"
        )
    if not figure.panels:
        raise FairbenchError(f"there is nothing to draw: {figure.missing}", "choose another --kind")
    drawn = WRITERS[suffix](composed(figure, table))
    return drawn.encode() if isinstance(drawn, str) else drawn


def composed(figure: Figure, table: Table) -> dict[str, Any]:
    """Put a figure's panels beside each other as one Vega-Lite drawing on paper."""
    parts = list(_parts(figure.panels))
    datasets: dict[str, Records] = {}
    for number, part in enumerate(parts):
        for name in [*part.get("datasets", {})]:
            datasets[f"{name}-{number}"] = part["datasets"][name]
        part.pop("datasets", None)
        _rename(part, number)
        part.pop("config", None)
        part.pop("$schema", None)
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "title": {
            "text": textwrap.wrap(figure.title, LETTERS),
            "subtitle": f"{place(table)}, n = {table.rows_tested:,} test rows",
        },
        "concat": parts,
        "columns": len(figure.panels) if len(parts) > 1 else 1,
        "spacing": 28,
        "resolve": {"scale": dict.fromkeys(("color", "shape", "yOffset", "opacity"), "independent")},
        "datasets": datasets,
        "config": PAPER.config,
    }


def _parts(panels: Sequence[Panel]) -> Iterator[dict[str, Any]]:
    """Make the drawings of panels; those that show one method at a time are repeated for each."""
    methods = list(dict.fromkeys(record["method"] for panel in panels for record in panel.records))
    if not any(panel.one for panel in panels):
        for panel in panels:
            yield panel.spec(PAPER, WIDTH, [one for one in panel.records if one["method"] in methods[:MOST]])
        return
    for method in methods[:ONES]:
        for panel in panels:
            spec = panel.spec(PAPER, WIDTH, [one for one in panel.records if one["method"] == method])
            yield {**spec, "title": {"text": f"{method}: {panel.title}", "fontSize": 12}}


def _rename(spec: Any, number: int) -> None:
    """Let a drawing among several find its own records."""
    if isinstance(spec, dict):
        data = spec.get("data")
        if isinstance(data, dict) and "name" in data:
            data["name"] = f"{data['name']}-{number}"
        for value in spec.values():
            _rename(value, number)
    elif isinstance(spec, list):
        for value in spec:
            _rename(value, number)
