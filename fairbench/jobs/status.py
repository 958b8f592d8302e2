"""How far the jobs of a folder have come."""

from __future__ import annotations

from typing import Any

from fairbench.jobs.job import Job
from fairbench.jobs.store import Store

STATES = ("finished", "failed", "refused", "under way", "interrupted")


def states(store: Store) -> dict[str, Any]:
    """Return `{runs, counts: {state: n}, jobs: [{key, title, state, reason}]}`, all that ended or were begun.

    A job that was begun is under way while a process holds its lease, else interrupted.
    """
    contents = store.contents()
    jobs = [_entry(r.job, "failed" if r.failed else "finished", r.error or "") for r in contents.records]
    for one in contents.refused:
        jobs.append({"key": one.key, "title": str(one.path), "state": "refused", "reason": one.reason})
    for job in contents.begun:
        held = store.held(job)
        reason = "" if held else "its process ended; the same command runs it again"
        jobs.append(_entry(job, "under way" if held else "interrupted", reason))
    jobs.sort(key=lambda one: (STATES.index(one["state"]), one["title"]))
    counts = {state: sum(one["state"] == state for one in jobs) for state in STATES}
    return {"runs": store.name, "counts": counts, "jobs": jobs}


def _entry(job: Job, state: str, reason: str) -> dict[str, str]:
    return {"key": job.key, "title": job.title, "state": state, "reason": reason}
