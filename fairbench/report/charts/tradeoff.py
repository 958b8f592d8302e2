"""Accuracy against the gap: who is better, who only seems fairer, and what chance would give."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median
from typing import Any

import altair as alt

from fairbench.leaderboard.board import Row, Table
from fairbench.leaderboard.flags import learned
from fairbench.report.charts.panel import Figure, Panel, Records, base, fixed
from fairbench.report.charts.theme import BLUE, VERMILION, Theme
from fairbench.report.charts.words import CARRIED, MOST, measure, rounded
from fairbench.report.format import plain, with_interval
from fairbench.statistics.results import Gap

HEIGHT = 360
WIDTH = 400  # pixels that a panel is about wide
LINE = 14  # pixels that a name is high
LETTER = 6.6  # pixels that a letter is about wide
LIMIT = 190  # pixels after which a name is cut
BESIDE = 10  # pixels from a point to its name
ROOM = 0.3  # of the width that must lie left of the baseline for what is written there

SMALLER, LARGER, SAME, BASE, IDLE = (
    "smaller gap shown",
    "larger gap shown",
    "no difference shown",
    "baseline",
    "has not learned",
)
SHAPES = {SMALLER: "triangle-down", LARGER: "triangle-up", SAME: "circle", BASE: "diamond", IDLE: "cross"}
NOTE = (
    "Further left is fairer, further up is better; lines are 95 % intervals. Shaded: what chance gives when groups"
    " are shuffled over the same patients (up to the 95th percentile, median of the methods). Colour is for what"
    " a paired test shows after adjustment, and for nothing else. Where points crowd, some names are left out."
)
ORDER = (BASE, SMALLER, LARGER, SAME, IDLE)  # in which names are placed
Box = tuple[float, float, float, float]
Frame = tuple[tuple[float, float], tuple[float, float]]


def tradeoff(table: Table) -> Figure:
    """Draw every row's score against its gaps, with intervals, chance and the way of levelling down."""
    gaps = {"gap": table.measure.gap, "eq_odds_max": "EqOdds(max)"}
    panels = tuple(panel for field, title in gaps.items() for panel in _panel(table, field, title))
    return Figure("pareto", "Who is fairer, and at what price?", panels, NOTE, "no gap is defined in this table")


def _panel(table: Table, field: str, title: str) -> Iterable[Panel]:
    rows = [row for row in table.rows[:CARRIED] if None not in (row.score.value, getattr(row, field).value)]
    if not rows:
        return
    gaps: list[Gap] = [getattr(row, field) for row in rows]
    records = [_record(row, gap, field, table.baseline) for row, gap in zip(rows, gaps, strict=True)]
    floors = [gap.floor_95 for gap in gaps if gap.floor_95 is not None]
    chance = 100 * median(floors) if floors else None
    frame = _frame(records, chance or 0)
    _place_labels(records[:MOST], frame)
    origin = next((record for record in records if record["verdict"] == BASE), None)

    def draw(theme: Theme) -> alt.LayerChart:
        along = [f"{title} (points), n = {table.rows_tested:,} test rows"]
        if chance is not None:
            along.append(f"shaded: chance gives up to {chance:.1f}")
        across = f"{measure(table)} (%)"
        x = alt.X("x:Q", scale=alt.Scale(domain=frame[0], nice=False)).title(along)
        y = alt.Y("y:Q", scale=alt.Scale(domain=frame[1], nice=False, zero=False)).title(across)
        whisker = base().mark_rule(strokeWidth=1.2, opacity=0.45)
        present = {record["verdict"] for record in records}
        legend = alt.Legend(values=[verdict for verdict in SHAPES if verdict in present])
        hue = _color(theme, legend)
        names = [layer for side in ("right", "left") for layer in _names(side, x, across, theme)]
        return alt.layer(
            *_ground(frame, chance, origin, theme, x, y),
            whisker.encode(x=alt.X("low:Q").title(along), x2="high", y=y, color=hue),
            whisker.encode(x=x, y=alt.Y("bottom:Q").title(across), y2="top", color=hue),
            *names,
            _points(x, y, hue, legend),
        )

    yield Panel(f"{measure(table)} and {title}", records, draw, height=HEIGHT)


def _record(row: Row, gap: Gap, field: str, baseline: str | None) -> dict[str, Any]:
    change = row.changes.get(field)
    verdict = SAME
    if row.label == baseline:
        verdict = BASE
    elif not learned(row):
        verdict = IDLE
    elif change is not None and change.significant:
        verdict = SMALLER if (change.value or 0) < 0 else LARGER
    ends = {
        name: rounded(one.value if end is None else end)
        for one, names in ((gap, ("low", "high")), (row.score, ("bottom", "top")))
        for name, end in zip(names, (one.low, one.high), strict=True)
    }
    point = {"x": rounded(gap.value), "y": rounded(row.score.value)}
    known = {"method": plain(row.label), **point, **ends}
    said = f"{with_interval(row.score)} %, gap {with_interval(gap)} points, {verdict}"
    values = {"gap": with_interval(gap), "score": with_interval(row.score), "rank": row.rank, "said": said}
    return {**known, "verdict": verdict, **values}


def _frame(records: Records, chance: float) -> Frame:
    """Span all intervals with some room: to the right for names, above and below for what is written there."""
    high = max([chance, *(record["high"] for record in records)])
    bottom, top = (pick(record[key] for record in records) for pick, key in ((min, "bottom"), (max, "top")))
    room = max(top - bottom, 1.0)
    return (0.0, 1.04 * high + 0.1), (bottom - 0.12 * room, top + 0.12 * room)


def _place_labels(records: Records, frame: Frame) -> None:
    """Write each name beside its point where there is room, the baseline's and what is shown to differ first.

    A name that would cover another or a point is left out; tooltip and table have it. Widths are estimates: a
    page's panel is as wide as its column.
    """
    (_, right), (bottom, top) = frame
    spots = {r["method"]: (WIDTH * r["x"] / right, HEIGHT * (top - r["y"]) / (top - bottom)) for r in records}
    covered = [(x - 5, y - 5, x + 5, y + 5) for x, y in spots.values()]
    for record in sorted(records, key=lambda one: ORDER.index(one["verdict"])):
        x, y = spots[record["method"]]
        width = min(LIMIT, LETTER * len(record["method"]))
        for side, down in ((side, down) for down in (0, -LINE, LINE) for side in ("right", "left")):
            left = x + BESIDE if side == "right" else x - BESIDE - width
            box = (left, y + down - LINE / 2, left + width, y + down + LINE / 2)
            if left >= 0 and left + width <= WIDTH and not any(_meet(box, other) for other in covered):
                covered.append(box)
                record |= {"side": side, "label": round(top - (y + down) / HEIGHT * (top - bottom), 3)}
                break


def _meet(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _ground(
    frame: Frame, chance: float | None, origin: dict[str, Any] | None, theme: Theme, x: alt.X, y: alt.Y
) -> list[alt.Chart]:
    """Draw what lies behind the points: chance, the baseline's place, and where levelling down leads."""
    (_, right), (bottom, top) = frame
    quiet = {"color": theme.quiet, "fontSize": 11}
    layers = []
    if chance:
        band = fixed({"x": 0, "to": round(min(chance, right), 2)}).mark_rect(color=theme.quiet, opacity=0.13)
        layers.append(band.encode(x=x, x2="to:Q"))
    if origin is not None:
        here = {"x": origin["x"], "y": origin["y"]}
        lost = fixed({**here, "left": 0, "bottom": bottom}).mark_rect(color=VERMILION, opacity=0.06)
        layers.append(lost.encode(x=x, x2="left:Q", y=y, y2="bottom:Q"))
        dotted = fixed(here).mark_rule(strokeDash=[2, 3], opacity=0.8)
        layers += [dotted.encode(x=x), dotted.encode(y=y)]
        if here["x"] > ROOM * right:
            for text, end, side, down in (
                ("fairer and better", top, "top", 6),
                ("levelling down", bottom, "bottom", -6),
            ):
                corner = fixed({"x": here["x"], "y": end, "text": text})
                said = corner.mark_text(align="right", baseline=side, dx=-22, dy=down, **quiet)
                way = corner.mark_point(
                    filled=True,
                    color=theme.quiet,
                    opacity=1,
                    shape="arrow",
                    angle=315 if down > 0 else 225,
                    size=110,
                    xOffset=-11,
                    yOffset=2 * down,
                )
                layers += [said.encode(x=x, y=y, text="text:N"), way.encode(x=x, y=y)]
    return layers


def _names(side: str, x: alt.X, across: str, theme: Theme) -> list[alt.Chart]:
    """Write the names on one side of their points, over a halo that parts them from lines."""
    there = (
        base()
        .transform_filter(alt.datum.side == side)
        .encode(x=x, y=alt.Y("label:Q").title(across), text="method:N")
    )
    align, dx = ("left", BESIDE) if side == "right" else ("right", -BESIDE)
    halo = there.mark_text(
        align=align, dx=dx, limit=LIMIT, stroke=theme.paper, strokeWidth=4, strokeJoin="round", opacity=0.85
    )
    return [halo, there.mark_text(align=align, dx=dx, limit=LIMIT)]


def _color(theme: Theme, legend: alt.Legend) -> alt.Color:
    colors = {SMALLER: BLUE, LARGER: VERMILION, SAME: theme.quiet, BASE: theme.ink, IDLE: theme.quiet}
    scale = alt.Scale(domain=[*colors], range=[*colors.values()])
    return alt.Color("verdict:N", scale=scale, legend=legend)


def _points(x: alt.X, y: alt.Y, hue: alt.Color, legend: alt.Legend) -> alt.Chart:
    shape = alt.Shape("verdict:N", scale=alt.Scale(domain=[*SHAPES], range=[*SHAPES.values()]), legend=legend)
    tip = [
        alt.Tooltip("method:N", title="method"),
        alt.Tooltip("rank:N", title="rank"),
        alt.Tooltip("score:N", title="score (%)"),
        alt.Tooltip("gap:N", title="gap (points)"),
        alt.Tooltip("verdict:N", title="shown"),
    ]
    return base().mark_point(filled=True, size=110, opacity=1).encode(x, y, hue, shape, tooltip=tip)
