"""Numbers and names as drawings carry them: percent or points, rounded; text on one line."""

from __future__ import annotations

from fairbench.leaderboard.board import Table
from fairbench.report.format import plain, whole

MOST = 24  # methods that a drawing shows at once
CARRIED = 200  # methods whose data a page holds for its drawings


def rounded(fraction: float | None) -> float | None:
    """Turn a fraction into percent or points, to two digits."""
    return None if fraction is None else round(100 * fraction, 2)


def measure(table: Table) -> str:
    """Name what a table is judged by, as an axis does."""
    return plain(table.measure.heading)


def group_names(table: Table) -> list[str]:
    """Name every group with its rows: `black (n = 446)`."""
    return [f"{plain(g.name)} (n = {'withheld' if g.n is None else whole(g.n)})" for g in table.groups]
