"""A line for each method: what it changed for each group, how groups fare, what another seed gives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import altair as alt

from fairbench.leaderboard.board import QUANTITIES, Row, Table
from fairbench.leaderboard.details import TableDetails
from fairbench.report.charts.panel import Figure, Panel, Records, base, fixed
from fairbench.report.charts.theme import SERIES, Theme, mark
from fairbench.report.charts.words import CARRIED, group_names, measure, rounded
from fairbench.report.format import plain, with_interval
from fairbench.statistics.results import Estimate

ALL = "all patients"
DISPARITIES = {field: name for field, name in QUANTITIES.items() if field != "score"}


def change(table: Table, details: TableDetails | None) -> Figure:
    """Draw what each row changed against the baseline: for all patients, for each group, and in the gaps."""
    title = f"What changed against {plain(table.baseline or '')}, and for whom?"
    rows = [row for row in table.rows[:CARRIED] if row.changes]
    groups = [record for row in rows for record in _changed(row, table, details)]
    names = {**DISPARITIES, "gap": table.measure.gap}
    gaps = [
        _record(row, names[field], row.changes[field])
        for row in rows
        for field in DISPARITIES
        if field in row.changes and row.changes[field].value is not None
    ]
    n = f"n = {table.rows_tested:,} test rows"
    known = [name for name in names.values() if any(record["series"] == name for record in gaps)]
    panels = (
        _lines(
            measure(table),
            groups,
            [ALL, *group_names(table)],
            [f"Change in {plain(table.measure.noun)} (points)", n],
            0,
        ),
        _lines("Worst group and gaps", gaps, known, ["Change (points)", n], 0),
    )
    note = (
        "Method minus baseline on the same test rows and seeds, with 95 % intervals of each comparison alone; the"
        " tables below adjust for their number. Right of 0 is gained accuracy; of a gap, left of 0 is fairer."
    )
    if groups and not any("low" in record for record in groups if record["series"] != ALL):
        note += " Intervals of single groups need the runs, which this page was made without."
    missing = (
        "there is no baseline in this table" if table.baseline is None else "nothing is compared with the baseline"
    )
    return Figure("change", title, tuple(p for p in panels if p.records), note, missing)


def groups(table: Table) -> Figure:
    """Draw every group's value by every row, with its interval."""
    names = group_names(table)
    records = [
        _record(row, name, value)
        for row in table.rows[:CARRIED]
        for name, value in zip(names, row.groups, strict=True)
        if value.value is not None
    ]
    panel = _lines(f"{measure(table)} by {plain(table.attribute)}", records, names, [f"{measure(table)} (%)"], None)
    note = "Each group's value, mean of the seeds, with its 95 % interval."
    title = "How does each group fare?"
    return Figure("groups", title, (panel,) if records else (), note, "no group has a value in this table")


def seeds(table: Table, details: TableDetails | None) -> Figure:
    """Draw what each seed's model scores: the score, and the gap."""
    title = "What would training again change?"
    known = {label: one.seeds for label, one in (details.rows if details else {}).items()}
    rows = [row for row in table.rows[:CARRIED] if len(known.get(row.label, ())) > 1]
    panels = []
    for field, name in (("score", f"{measure(table)} (%)"), ("gap", f"{table.measure.gap} (points)")):
        records = [
            {"method": plain(row.label), "value": rounded(value), "seed": str(one.seed)}
            for row in rows
            for one in known[row.label]
            if (value := getattr(one, field)) is not None
        ]
        if records:
            panels.append(_dots(name, records))
    missing = "the values of single seeds need the folder of runs, or the counts of a published board"
    if known or (details and details.runs):
        missing = "every method has one seed here"
    note = f"Each circle is one trained model on the same n = {table.rows_tested:,} test rows, each bar their mean."
    return Figure("seeds", title, tuple(panels), note, missing)


def _changed(row: Row, table: Table, details: TableDetails | None) -> Iterable[dict[str, Any]]:
    """Say what a row changed; without the runs, the groups' differences have no intervals."""
    if "score" in row.changes and row.changes["score"].value is not None:
        yield _record(row, ALL, row.changes["score"])
    paired: Sequence[Estimate] = details.rows[row.label].changes if details and row.label in details.rows else ()
    baseline = next((one for one in table.rows if one.label == table.baseline), None)
    if not paired and baseline is not None:
        paired = [
            Estimate(None if None in (a.value, b.value) else (a.value or 0) - (b.value or 0))
            for a, b in zip(row.groups, baseline.groups, strict=True)
        ]
    for name, one in zip(group_names(table), paired, strict=bool(paired)):
        if one.value is not None:
            yield _record(row, name, one)


def _record(row: Row, series: str, one: Estimate) -> dict[str, Any]:
    record = {"method": plain(row.label), "series": series, "value": rounded(one.value), "said": with_interval(one)}
    if one.interval:
        record |= {"low": rounded(one.low), "high": rounded(one.high)}
    return record


def _lines(title: str, records: Records, series: list[str], axis: list[str], rule: float | None) -> Panel:
    """Draw a band for each method with a dot and its interval for each series."""
    order = list(dict.fromkeys(record["method"] for record in records))

    def draw(theme: Theme) -> alt.LayerChart:
        colors, shapes = _series(series, theme)
        hue = alt.Color("series:N", scale=alt.Scale(domain=series, range=colors)).sort(series)
        form = alt.Shape("series:N", scale=alt.Scale(domain=series, range=shapes)).sort(series)
        y = alt.Y("method:N", sort=order, title=None, scale=alt.Scale(paddingInner=0.25, paddingOuter=0.1))
        aside = alt.YOffset("series:N", sort=series, scale=alt.Scale(domain=series))
        # Right-aligned: names stand left of the drawing, so that a long title has room there on a phone.
        along = alt.Axis(title=axis, titleAnchor="end", titleAlign="right")
        x = alt.X("value:Q", scale=alt.Scale(zero=rule is not None, nice=True), axis=along)
        tip = [
            alt.Tooltip("method:N", title="method"),
            alt.Tooltip("series:N", title="of"),
            alt.Tooltip("said:N", title="value"),
        ]
        own = base().transform_filter("isValid(datum.low)")
        layers = [
            own.mark_rule(strokeWidth=1.6).encode(alt.X("low:Q", axis=along), alt.X2("high"), y, aside, hue),
            base().mark_point(filled=True, size=58, opacity=1).encode(x, y, aside, hue, form, tooltip=tip),
        ]
        if rule is not None:
            layers.insert(0, fixed({"x": rule}).mark_rule(color=theme.quiet).encode(x="x:Q"))
        return alt.layer(*layers)

    return Panel(title, records, draw, step=11 * len(series) + 12)


def _series(series: list[str], theme: Theme) -> tuple[list[str], list[str]]:
    """Give each series a colour and a shape; all patients together are in ink."""
    rest = [name for name in series if name != ALL]
    marks = {name: mark(place) for place, name in enumerate(rest)} | {ALL: (theme.ink, "diamond")}
    return [marks[name][0] for name in series], [marks[name][1] for name in series]


def _dots(axis: str, records: Records) -> Panel:
    """Draw each method's seeds on a line, and their mean."""
    order = list(dict.fromkeys(record["method"] for record in records))

    def draw(theme: Theme) -> alt.LayerChart:
        y = alt.Y("method:N", sort=order, title=None)
        x = alt.X("value:Q", scale=alt.Scale(zero=False, nice=True)).title(axis)
        tip = [alt.Tooltip("method:N"), alt.Tooltip("seed:N"), alt.Tooltip("value:Q", format=".1f")]
        points = base().mark_point(filled=False, size=70, strokeWidth=1.6, color=SERIES[0], opacity=0.9)
        average = base().mark_tick(thickness=2.5, size=20, color=theme.ink)
        return alt.layer(
            average.encode(x=alt.X("mean(value):Q", title=axis), y=y), points.encode(x=x, y=y, tooltip=tip)
        )

    return Panel(axis, records, draw, step=30)
