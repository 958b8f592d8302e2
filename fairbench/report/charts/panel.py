"""What a chart is made of: figures that answer a question, of panels that each draw one set of records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import altair as alt

from fairbench.report.charts.theme import Theme

Records = list[dict[str, Any]]
WORDS = 100  # records that are read out
SOURCE = "source"  # the name by which a drawing finds its records, so that a page can show others


@dataclass(frozen=True)
class Panel:
    """One drawing. `draw` makes it in a theme; its data are `records`, those of a row by `method`.

    It is `height` pixels high, or `step` for each method that is shown. `one` is set where only one method can be
    shown at a time.
    """

    title: str
    records: Records
    draw: Callable[[Theme], alt.Chart | alt.LayerChart]
    height: int | None = None
    step: int | None = None
    one: bool = False

    def words(self) -> str:
        """Say what the drawing shows, for who cannot see it; of curves, what they are."""
        said = [
            f"{one['method']}{', ' + one['series'] if 'series' in one else ''}: {one['said']}"
            for one in self.records
            if "said" in one
        ]
        return "; ".join([self.title, *said[:WORDS]])

    def spec(self, theme: Theme, width: int | str, records: Records) -> dict[str, Any]:
        """Return the drawing as Vega-Lite with some of its records."""
        methods = len({record["method"] for record in records})
        chart = self.draw(theme).properties(width=width, height=self.height or (self.step or 0) * methods)
        chart = chart.properties(description=self.words())
        if width == "container":
            chart = chart.properties(autosize=alt.AutoSizeParams(type="fit-x", contains="padding"))
        spec: dict[str, Any] = chart.to_dict()
        return {**spec, "datasets": {**spec.get("datasets", {}), SOURCE: records}}


@dataclass(frozen=True)
class Figure:
    """A question, the drawings that answer it, what their marks mean, and without drawings what is missing."""

    kind: str
    title: str
    panels: tuple[Panel, ...]
    note: str
    missing: str = ""


def base() -> alt.Chart:
    """Start a layer on the panel's records."""
    return alt.Chart(alt.NamedData(SOURCE))


def fixed(*records: dict[str, Any]) -> alt.Chart:
    """Start a layer on records of its own."""
    return alt.Chart(alt.InlineData(values=[*records]))
