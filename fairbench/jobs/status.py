"""How far the jobs of a folder have come."""

from __future__ import annotations

from typing import Any

from fairbench.jobs.store import ASIDE, PREDICTIONS, Store
from fairbench.jobs.summary import Summary

STATES = ("finished", "failed", "refused", "under way", "interrupted")


def states(store: Store) -> dict[str, Any]:
    """Return `{runs, counts: {state: n}, jobs: [{key, title, state, reason}]}`, all that ended or were begun.

    A job that was begun is under way while a process holds its lease, else interrupted. One that finished and
    whose predictions are gone is refused; whether those that are there are its own is for `leaderboard` to say.
    """
    overview = store.overview()
    jobs = [_ended(store, one) for one in overview.ended.values()]
    for refused in (*overview.refused.values(), *overview.unclear):
        jobs.append(_entry(refused.key, str(refused.path), "refused", refused.reason))
    for job in overview.begun:
        held = store.held(job)
        reason = "" if held else "its process ended; the same command runs it again"
        jobs.append(_entry(job.key, job.title, "under way" if held else "interrupted", reason))
    jobs.sort(key=lambda one: (STATES.index(one["state"]), one["title"]))
    counts = {state: sum(one["state"] == state for one in jobs) for state in STATES}
    return {"runs": store.name, "counts": counts, "jobs": jobs}


def _ended(store: Store, one: Summary) -> dict[str, str]:
    if one.error is not None:
        return _entry(one.key, one.title, "failed", one.error)
    if not store.has_predictions(one.key):
        return _entry(one.key, one.title, "refused", f"its {PREDICTIONS} is gone; {ASIDE}")
    return _entry(one.key, one.title, "finished", "")


def _entry(key: str, title: str, state: str, reason: str) -> dict[str, str]:
    return {"key": key, "title": title, "state": state, "reason": reason}
