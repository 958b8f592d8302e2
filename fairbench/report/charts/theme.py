"""How all drawings look: one quiet style, on paper in fixed colours and on the page in those of its style sheet.

Colours are those of Okabe and Ito 2008, told apart by the colour-blind too; shapes say the same again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"
SERIES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross")


def mark(place: int) -> tuple[str, str]:
    """Return the colour and the shape of a series by its place; 36 series are told apart."""
    turn = place // len(SERIES)
    return SERIES[place % len(SERIES)], SHAPES[(place + turn) % len(SHAPES)]


@dataclass(frozen=True)
class Theme:
    """The colours that are not data, and the font."""

    ink: str
    quiet: str
    line: str
    paper: str
    font: str

    @property
    def config(self) -> dict[str, Any]:
        """Vega-Lite's configuration."""
        axis = {
            "domain": False,
            "ticks": False,
            "grid": False,
            "labelColor": self.quiet,
            "labelFontSize": 12,
            "labelPadding": 6,
            "titleColor": self.quiet,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "titlePadding": 10,
        }
        return {
            "background": None if self is SCREEN else self.paper,
            "font": self.font,
            "view": {"stroke": None},
            "axis": axis,
            "axisX": {"grid": True, "gridColor": self.line, "tickCount": 6, "titleAnchor": "start"},
            "axisYQuantitative": {"grid": True, "gridColor": self.line, "tickCount": 6},
            "axisYBand": {"labelColor": self.ink, "labelLimit": 170},
            "axisYPoint": {"labelColor": self.ink, "labelLimit": 170},
            "legend": {
                "orient": "top",
                "title": None,
                "labelColor": self.ink,
                "labelFontSize": 12,
                "labelLimit": 260,
                "symbolSize": 70,
                "symbolOpacity": 1,
                "columnPadding": 16,
                "offset": 8,
                "padding": 0,
                "columns": 3,
            },
            "title": {
                "color": self.ink,
                "anchor": "start",
                "fontSize": 14,
                "subtitleColor": self.quiet,
                "offset": 12,
            },
            "text": {"color": self.ink, "fontSize": 12},
            "rule": {"color": self.quiet},
        }


PAPER = Theme("#1d1d1b", "#5c5c56", "#e4e4df", "#ffffff", "Liberation Sans, Arial, Helvetica, sans-serif")
SCREEN = Theme(
    "var(--ink)", "var(--quiet)", "var(--line)", "var(--paper)", 'system-ui, "Segoe UI", Roboto, sans-serif'
)
