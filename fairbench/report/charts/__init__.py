"""Every drawing of a board, defined once: for the page, for `fairbench plot` and for the README.

Vega-Lite, written through altair. See docs/architecture.md for why.
"""

from __future__ import annotations

from collections.abc import Callable

from fairbench.leaderboard.board import Table
from fairbench.leaderboard.details import TableDetails
from fairbench.report.charts.curves import calibration, losses
from fairbench.report.charts.panel import Figure
from fairbench.report.charts.rows import change, groups, seeds
from fairbench.report.charts.tradeoff import tradeoff

KINDS: dict[str, Callable[[Table, TableDetails | None], Figure]] = {
    "pareto": lambda table, _: tradeoff(table),
    "change": change,
    "groups": lambda table, _: groups(table),
    "seeds": seeds,
    "calibration": calibration,
    "loss": lambda _, details: losses(details),
}
