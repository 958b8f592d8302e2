"""What `status` prints: how many jobs are in which state, and all that need attention."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from fairbench.report.console import table, title

LISTED = 200  # finished jobs that a person may still want to see each of


def status(jobs: dict[str, Any], console: Console) -> None:
    """Print `fairbench.jobs.status.states`: how many jobs are in which state, and all that need attention."""
    counts = ", ".join(f"{n} {state}" for state, n in jobs["counts"].items() if n) or "no job yet"
    title(console, jobs["runs"], counts)
    listed = [one for one in jobs["jobs"] if one["state"] != "finished" or jobs["counts"]["finished"] <= LISTED]
    if listed:
        rows = [(one["state"], one["title"], one["key"], one["reason"]) for one in listed]
        table(console, ("State", "Job", "Key", "Reason"), rows)
    if len(listed) < len(jobs["jobs"]):
        console.print("The finished jobs are many and not listed; --json lists them.", highlight=False)
