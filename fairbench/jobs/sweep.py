"""A sweep as it goes: what is done, what runs and how far it is, what waits, and about how long it will take."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from fairbench.jobs.job import Job, Record
from fairbench.jobs.store import JOB, Contents, Store


@dataclass(frozen=True)
class Running:
    """A job that a process is at work on, and for how long it has been, in seconds."""

    job: Job
    seconds: float


@dataclass(frozen=True)
class Sweep:
    """How far the jobs of a folder have come; `left` is a guess in seconds, None where nothing tells."""

    ended: tuple[Record, ...]
    running: tuple[Running, ...]
    waiting: tuple[Job, ...]
    left: float | None

    @property
    def total(self) -> int:
        """All jobs that are known of."""
        return len(self.ended) + len(self.running) + len(self.waiting)


def sweep(store: Store) -> Sweep:
    """Look at a folder of runs: the jobs of the sweep started last, and all others that ended or were begun."""
    contents = store.contents()
    running = tuple(_running(store, contents))
    seen = {record.job.key for record in contents.records}
    seen |= {one.job.key for one in running} | {one.key for one in contents.refused}
    waiting = {job.key: job for job in (*store.planned(), *contents.begun) if job.key not in seen}
    left = _left(contents.records, running, tuple(waiting.values()))
    return Sweep(contents.records, running, tuple(waiting.values()), left)


def _running(store: Store, contents: Contents) -> list[Running]:
    now = time.time()
    held = [job for job in contents.begun if store.held(job)]
    return [Running(job, max(0.0, now - (store.folder(job) / JOB).stat().st_mtime)) for job in held]


def _left(ended: Sequence[Record], running: Sequence[Running], waiting: Sequence[Job]) -> float | None:
    """Guess from how long jobs of the same method took, else jobs of all methods, as many at once as now."""
    if not running:
        return None if waiting else 0.0
    took: dict[str, list[float]] = {}
    for record in ended:
        if not record.failed:
            took.setdefault(record.job.method.name, []).append(sum(record.seconds.values()))
    if not took:
        return None
    usual = mean(second for seconds in took.values() for second in seconds)
    expected = {name: mean(seconds) for name, seconds in took.items()}
    rest = sum(expected.get(job.method.name, usual) for job in waiting)
    rest += sum(max(0.0, expected.get(one.job.method.name, usual) - one.seconds) for one in running)
    return rest / len(running)
