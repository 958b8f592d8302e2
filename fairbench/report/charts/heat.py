"""All tables at a glance: what each method did to the gap of each attribute of each dataset."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import altair as alt

from fairbench.leaderboard.board import Board, Table
from fairbench.report.charts.panel import Figure, Panel, Records, base
from fairbench.report.charts.theme import BLUE, VERMILION, Theme
from fairbench.report.charts.words import CARRIED, rounded
from fairbench.report.format import plain, signed
from fairbench.statistics.results import Difference

FULL = 8.0  # points at which a colour is at least strongest, so that small changes stay pale
NOTE = (
    "Change of the gap against the baseline, in points: blue is smaller, orange is larger, and a frame marks what a"
    " paired test shows after adjustment. A method may have been trained for another attribute than the column's."
)


def heat(board: Board) -> Figure:
    """Draw method × (attribute, dataset, backbone): the change of the gap against the baseline.

    What a method did to attributes that it was not trained for stands beside what it was trained for.
    """
    alone = len({(table.dataset, table.backbone, table.measure) for table in board.tables}) == 1
    cells: dict[tuple[str, str], dict[str, Any]] = {}
    for table in board.tables:
        names = {row.label for row in table.rows[:CARRIED]}
        moved = [(row.label, table.attribute, row.changes.get("gap")) for row in table.rows[:CARRIED]]
        moved += [(one.label, one.attribute, one.change) for one in table.side_effects if one.label in names]
        for label, attribute, change in moved:
            if change is not None and change.value is not None:
                where = plain(attribute) if alone else place(replace(table, attribute=attribute))
                cells.setdefault((label, where), _cell(label, where, change))
    records = [*cells.values()]
    panel = Panel("Change of the gap", records, lambda theme: _cells(theme, records), step=30)
    missing = "no method is compared with a baseline"
    return Figure("heat", "Every attribute at a glance", (panel,) if records else (), NOTE, missing)


def _cell(label: str, where: str, change: Difference) -> dict[str, Any]:
    value = rounded(change.value) or 0.0
    about = {"method": plain(label), "where": where, "value": value, "size": abs(value), "series": where}
    return {**about, "text": signed(change).split(" ")[0], "said": signed(change), "shown": change.significant}


def place(table: Table) -> str:
    """Name a table shortly: attribute, dataset and backbone without their settings."""
    names = (table.attribute, table.dataset.partition("(")[0], table.backbone.partition("(")[0])
    measure = f" · {table.measure.title}" if table.measure.about else ""
    return plain(" · ".join(names) + measure)


def _cells(theme: Theme, records: Records) -> alt.LayerChart:
    columns = list(dict.fromkeys(record["where"] for record in records))
    methods = list(dict.fromkeys(record["method"] for record in records))
    most = max(FULL, *(record["size"] for record in records))
    axis = alt.Axis(
        orient="top",
        labelAngle=-25 if max(map(len, columns)) > 60 / len(columns) else 0,
        labelLimit=220,
        grid=False,
    )
    gaps = alt.Scale(paddingInner=0.04)
    x = alt.X("where:N", sort=columns, title=None, axis=axis, scale=gaps)
    y = alt.Y("method:N", sort=methods, title=None, scale=alt.Scale(paddingInner=0.12))
    strength = alt.Opacity("size:Q", scale=alt.Scale(domain=[0, most], range=[0.06, 0.75]), legend=None)
    tip = [
        alt.Tooltip("method:N"),
        alt.Tooltip("where:N", title="table"),
        alt.Tooltip("said:N", title="change (points)"),
    ]
    hue = alt.condition("datum.value <= 0", alt.value(BLUE), alt.value(VERMILION))
    cell = base().mark_rect(cornerRadius=3).encode(x, y, color=hue, opacity=strength, tooltip=tip)
    frame = (
        base()
        .transform_filter("datum.shown")
        .mark_rect(filled=False, stroke=theme.ink, strokeWidth=1.6, cornerRadius=3)
    )
    return alt.layer(cell, frame.encode(x, y), base().mark_text().encode(x, y, text="text:N"))
