"""All tables at a glance: what each method did to the gap of each attribute of each dataset."""

from __future__ import annotations

import altair as alt

from fairbench.leaderboard.board import Board, Table
from fairbench.report.charts.panel import Figure, Panel, Records, base
from fairbench.report.charts.theme import BLUE, VERMILION, Theme
from fairbench.report.charts.words import CARRIED, rounded
from fairbench.report.format import plain, signed

NOTE = (
    "Change of the gap against the baseline, in points: blue is smaller, orange is larger, and a frame marks what a"
    " paired test shows after adjustment."
)


def heat(board: Board) -> Figure:
    """Draw method × (attribute, dataset, backbone): the change of the gap against the baseline."""
    records: Records = []
    for table in board.tables:
        for row in table.rows[:CARRIED]:
            moved = row.changes.get("gap")
            if moved is not None and moved.value is not None:
                shown = rounded(moved.value)
                records.append(
                    {
                        "method": plain(row.label),
                        "where": place(table),
                        "value": shown,
                        "size": abs(shown or 0),
                        "text": signed(moved).split(" ")[0],
                        "said": signed(moved),
                        "shown": moved.significant,
                    }
                )
    missing = "No method is compared with a baseline."
    panel = Panel("Change of the gap", records, lambda theme: _cells(theme, records), step=30)
    return Figure("heat", "All tables at a glance", (panel,) if records else (), NOTE, missing)


def place(table: Table) -> str:
    """Name a table shortly: attribute, dataset and backbone without their settings."""
    names = (table.attribute, table.dataset.partition("(")[0], table.backbone.partition("(")[0])
    measure = f" · {table.measure.title}" if table.measure.about else ""
    return plain(" · ".join(names) + measure)


def _cells(theme: Theme, records: Records) -> alt.LayerChart:
    columns = list(dict.fromkeys(record["where"] for record in records))
    methods = list(dict.fromkeys(record["method"] for record in records))
    most = max(record["size"] for record in records) or 1
    axis = alt.Axis(orient="top", labelAngle=-25 if len(columns) > 2 else 0, labelLimit=220, grid=False)
    x = alt.X("where:N", sort=columns, title=None, axis=axis)
    y = alt.Y("method:N", sort=methods, title=None)
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
