"""Curves: how scores rank each group's patients, whether they can be believed, and how the training went."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import altair as alt

from fairbench.leaderboard.board import Table
from fairbench.leaderboard.details import Losses, TableDetails
from fairbench.report.charts.panel import Figure, Panel, Records, base, fixed
from fairbench.report.charts.theme import SERIES, Theme, mark
from fairbench.report.charts.words import CARRIED, group_names
from fairbench.report.format import plain

WINDOW = 5  # logged steps that a point of a loss curve is the mean of
SIDE = 300  # pixels that a square drawing is high
NOTE = (
    "Curves are means of the seeds on a grid; a group stands here with at least 20 test rows of each class. Left:"
    " further up is better. Right: on the line, a score means what it says; below it, the model claims too much."
    " Lines are 95 % intervals, each part of the scores holding as many rows."
)


def calibration(table: Table, details: TableDetails | None) -> Figure:
    """Draw each group's ROC curve and calibration, one method at a time."""
    known = details.rows if details else {}
    ranking: Records = []
    belief: Records = []
    named = dict(zip((group.name for group in table.groups), group_names(table), strict=True))
    for row in (*table.rows[:CARRIED], *table.controls):
        for one in known[row.label].curves if row.label in known else ():
            about = {"method": plain(row.label), "series": named[one.group]}
            ranking += [{**about, "x": round(x, 4), "y": round(y, 4)} for x, y in one.roc]
            for part in one.calibration:
                ends = {"x": part.score, "y": part.observed, "low": part.low, "high": part.high}
                belief.append(
                    {**about, **{key: round(100 * end, 2) for key, end in ends.items()}, "rows": part.rows}
                )
    panels = (
        Panel("ROC", ranking, lambda theme: _roc(theme, [*named.values()]), one=True, height=SIDE),
        Panel("Calibration", belief, lambda theme: _belief(theme, table, [*named.values()]), one=True, height=SIDE),
    )
    missing = "no predictions here have scores of two classes, or no group has enough rows"
    if details is None or not details.runs:
        missing = "curves of scores need the folder of runs"
    return Figure(
        "calibration", "Do scores mean the same in every group?", panels if ranking else (), NOTE, missing
    )


def losses(details: TableDetails | None) -> Figure:
    """Draw the training loss of every job."""
    curves: Sequence[Losses] = details.losses if details else ()
    records = [
        {"method": plain(one.label), "job": f"{plain(one.label)}, seed {one.seed}", "x": step, "y": round(loss, 4)}
        for one in curves
        for step, loss in _smooth(one.points)
    ]
    panel = Panel("Training loss", records, lambda theme: _losses(theme, records), height=280)
    note = (
        f"One line a job: the mean of the last {WINDOW} logged steps. Methods have losses of their own, so"
        " only lines of one colour compare."
    )
    title = "How did the training go?"
    return Figure(
        "loss",
        title,
        (panel,) if records else (),
        note,
        "no job here left losses" if details and details.runs else "losses need the folder of runs",
    )


def under_way() -> Figure:
    """Draw the training losses of jobs that run, whose records come later."""
    panel = Panel("Training loss", [], _running, height=200)
    return Figure("loss", "Training loss of the jobs at work", (panel,), "")


def _running(theme: Theme) -> alt.Chart:
    hue = alt.Color("method:N", scale=alt.Scale(range=[*SERIES]))
    x, y = alt.X("x:Q", title="Optimizer step"), alt.Y("y:Q", title="Training loss", scale=alt.Scale(zero=False))
    return base().mark_line(strokeWidth=1.6).encode(x, y, hue)


def _smooth(points: Sequence[tuple[int, float]]) -> Iterator[tuple[int, float]]:
    for place, (step, _) in enumerate(points):
        recent = [loss for _, loss in points[max(0, place - WINDOW + 1) : place + 1]]
        yield step, sum(recent) / len(recent)


def _hue(series: list[str]) -> alt.Color:
    colors = [mark(place)[0] for place in range(len(series))]
    return alt.Color("series:N", scale=alt.Scale(domain=series, range=colors), sort=series)


def _unit(field: str, title: str, top: float) -> dict[str, Any]:
    return {"shorthand": f"{field}:Q", "title": title, "scale": alt.Scale(domain=[0, top], nice=False)}


def _roc(theme: Theme, series: list[str]) -> alt.LayerChart:
    x, y = alt.X(**_unit("x", "False positive rate", 1)), alt.Y(**_unit("y", "True positive rate", 1))
    tip = [alt.Tooltip("series:N"), alt.Tooltip("x:Q", format=".2f"), alt.Tooltip("y:Q", format=".2f")]
    return alt.layer(
        _diagonal(theme, 1).encode(x="a:Q", x2="b", y="a:Q", y2="b"),
        base().mark_line(strokeWidth=1.8, interpolate="linear").encode(x, y, _hue(series), tooltip=tip),
    )


def _belief(theme: Theme, table: Table, series: list[str]) -> alt.LayerChart:
    positive = plain(table.classes[1]) if len(table.classes) == 2 else ""
    x = alt.X(**_unit("x", f"Mean score of {positive} (%)", 100))
    across = f"Truly {positive} (%)"
    y = alt.Y(**_unit("y", across, 100))
    shapes = [mark(place)[1] for place in range(len(series))]
    form = alt.Shape("series:N", scale=alt.Scale(domain=series, range=shapes), sort=series)
    tip = [alt.Tooltip("series:N"), alt.Tooltip("x:Q"), alt.Tooltip("y:Q"), alt.Tooltip("rows:Q")]
    hue = _hue(series)
    return alt.layer(
        _diagonal(theme, 100).encode(x="a:Q", x2="b", y="a:Q", y2="b"),
        base().mark_rule(opacity=0.5).encode(x, alt.Y("low:Q", title=across), alt.Y2("high"), hue),
        base().mark_line(strokeWidth=1.2, opacity=0.6).encode(x, y, hue),
        base().mark_point(filled=True, size=50, opacity=1).encode(x, y, hue, form, tooltip=tip),
    )


def _diagonal(theme: Theme, top: float) -> alt.Chart:
    return fixed({"a": 0, "b": top}).mark_rule(color=theme.quiet, strokeDash=[2, 3])


def _losses(theme: Theme, records: Records) -> alt.Chart:
    methods = list(dict.fromkeys(record["method"] for record in records))
    colors = [SERIES[place] if place < len(SERIES) else theme.quiet for place in range(len(methods))]
    hue = alt.Color("method:N", scale=alt.Scale(domain=methods, range=colors), sort=methods)
    x = alt.X("x:Q", title="Optimizer step")
    y = alt.Y("y:Q", title="Training loss", scale=alt.Scale(zero=False))
    tip = [alt.Tooltip("job:N"), alt.Tooltip("x:Q", title="step"), alt.Tooltip("y:Q", title="loss", format=".3f")]
    return base().mark_line(strokeWidth=1.6, opacity=0.85).encode(x, y, hue, detail="job:N", tooltip=tip)
