"""A sweep as it goes: what is done, what runs and how far it is, what waits, and about how long it will take."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import mean

from fairbench.jobs.job import Job
from fairbench.jobs.store import JOB, RECORD, Store
from fairbench.jobs.summary import Overview, Summary


@dataclass(frozen=True)
class Running:
    """A job that a process is at work on, and for how long it has been, in seconds."""

    job: Job
    seconds: float


@dataclass(frozen=True)
class Sweep:
    """How far the jobs of a folder have come; `left` is a guess in seconds, None where nothing tells."""

    ended: tuple[Summary, ...]
    running: tuple[Running, ...]
    waiting: tuple[Job, ...]
    left: float | None

    @property
    def total(self) -> int:
        """All jobs that are known of."""
        return len(self.ended) + len(self.running) + len(self.waiting)


def sweep(store: Store) -> Sweep:
    """Look at a folder of runs: the jobs of the sweep started last, and all others that ended or were begun."""
    overview, planned = store.overview(), store.planned()
    running = tuple(_running(store, overview))
    elsewhere = {*overview.ended, *overview.refused, *(one.job.key for one in running)}
    waiting = {job.key: job for job in (*planned, *overview.begun) if job.key not in elsewhere}
    took = _durations(store, (job for job in planned if job.key in overview.ended))
    left = _left(took, running, tuple(waiting.values()))
    return Sweep(tuple(overview.ended.values()), running, tuple(waiting.values()), left)


def _running(store: Store, overview: Overview) -> Iterable[Running]:
    now = time.time()
    for job in overview.begun:
        with suppress(FileNotFoundError):  # it has just failed and been forgotten
            if store.held(job):
                yield Running(job, max(0.0, now - (store.folder(job) / JOB).stat().st_mtime))


def _durations(store: Store, jobs: Iterable[Job]) -> dict[str, list[float]]:
    """Say how long jobs took, by method: from their description to their record, as the files' times have it."""
    took: dict[str, list[float]] = {}
    for job in jobs:
        with suppress(FileNotFoundError):  # of results elsewhere, records alone are fetched
            begun, ended = ((store.folder(job) / name).stat().st_mtime for name in (JOB, RECORD))
            took.setdefault(job.method.name, []).append(max(0.0, ended - begun))
    return took


def _left(took: Mapping[str, Sequence[float]], running: Sequence[Running], waiting: Sequence[Job]) -> float | None:
    """Guess from how long jobs took, as many at once as now."""
    if not running:
        return None if waiting else 0.0
    if not took:
        return None
    rest = sum(usual(took, job.method.name) for job in waiting)
    rest += sum(max(0.0, usual(took, one.job.method.name) - one.seconds) for one in running)
    return rest / len(running)


def usual(seconds: Mapping[str, Sequence[float]], method: str) -> float:
    """Average the seconds that jobs of a method took, where some have ended, else of all; 0 where none has."""
    known = seconds[method] if method in seconds else [one for some in seconds.values() for one in some]
    return mean(known) if known else 0.0
