"""How far the jobs of a folder have come."""

from __future__ import annotations

import json
from typing import Any

from fairbench.errors import FairbenchError
from fairbench.jobs.job import Job
from fairbench.jobs.store import JOB, RECORD, Store

STATES = ("finished", "failed", "under way", "interrupted")


def states(store: Store) -> dict[str, Any]:
    """Return `{runs, counts: {state: n}, jobs: [{key, title, state, reason}]}`, all that ended or were begun.

    A job that was begun is under way while a process holds its lease, else interrupted.
    """
    records = store.records()
    jobs = [_entry(r.job, "failed" if r.failed else "finished", r.error or "") for r in records]
    for job in unfinished(store):
        held = _held(store, job)
        reason = "" if held else "its process ended; the same command runs it again"
        jobs.append(_entry(job, "under way" if held else "interrupted", reason))
    jobs.sort(key=lambda one: (STATES.index(one["state"]), one["title"]))
    counts = {state: sum(one["state"] == state for one in jobs) for state in STATES}
    return {"runs": str(store.root), "counts": counts, "jobs": jobs}


def _entry(job: Job, state: str, reason: str) -> dict[str, str]:
    return {"key": job.key, "title": job.title, "state": state, "reason": reason}


def _held(store: Store, job: Job) -> bool:
    """Whether a process is at work on the job; looks without leaving a lock file behind."""
    if not (store.root / ".leases" / f"{job.key}.lock").exists():
        return False
    with store.lease(job) as mine:
        return not mine


def unfinished(store: Store) -> list[Job]:
    """Return the jobs that were begun and have no record: under way, or interrupted."""
    folders = sorted(path.parent for path in store.root.glob(f"*/{JOB}"))
    begun = [folder for folder in folders if not (folder / RECORD).exists()]
    jobs = []
    for folder in begun:
        try:
            jobs.append(Job.from_json(json.loads((folder / JOB).read_text(encoding="utf-8"))))
        except (OSError, ValueError) as error:
            raise FairbenchError(f"cannot read {folder / JOB}: {error}", f"delete {folder}") from error
    return jobs
