"""What `status` prints: how many jobs are in which state, and all that need attention."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from fairbench.report.console import table, title


def status(jobs: dict[str, Any], console: Console) -> None:
    """Print `fairbench.jobs.status.states`: how many jobs are in which state, and all that need attention."""
    counts = ", ".join(f"{n} {state}" for state, n in jobs["counts"].items() if n) or "no job yet"
    title(console, jobs["runs"], counts)
    rows = [(one["state"], one["title"], one["key"], one["reason"]) for one in jobs["jobs"]]
    if rows:
        table(console, ("State", "Job", "Key", "Reason"), rows)
