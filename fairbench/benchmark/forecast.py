"""How long a sweep will still take, from its jobs that have ended and those at work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from fairbench.benchmark.plan import Planned
from fairbench.benchmark.pull import Event
from fairbench.jobs.job import Job, Record
from fairbench.jobs.sweep import usual

ONCE = ("load", "features")  # phases that one job bears for those after it


class Forecast:
    """Hears every event of a sweep and guesses the seconds that are left.

    `open_` are the jobs to do, each with the name of its training (see `training.shared`) or None: of jobs with one
    training the first bears it. `again`: what is done to the jobs is not what their records tell of, as when
    finished ones are probed.
    """

    def __init__(
        self,
        open_: Iterable[tuple[Job, str | None]],
        again: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.open = {job.key: (job, training) for job, training in open_}
        self.again, self.clock, self.start = again, clock, clock()
        self.begun: dict[str, float] = {}
        self.borne: set[str] = set()
        self.spent = 0.0
        self.trained: dict[str, list[float]] = {}
        self.other: dict[str, list[float]] = {}

    @classmethod
    def of(cls, missing: Iterable[Job], planned: Planned) -> Forecast:
        """Foretell the missing jobs of a benchmark."""
        from fairbench.training.shared import training_of

        return cls((job, training_of(job, type(planned.methods[job.key]))) for job in missing)

    def hear(self, event: Event) -> None:
        """Take note of a job that is at work, or of how it ended."""
        if event.record is not None:
            self._end(event.record)
        elif event.job is not None and event.failure is not None:
            self.open.pop(event.job.key, None)
            self.begun.pop(event.job.key, None)
        elif event.job is not None and event.job.key in self.open:
            self.begun.setdefault(event.job.key, self.clock())

    def _end(self, record: Record) -> None:
        now = self.clock()
        begun = self.begun.pop(record.job.key, now)
        _, training = self.open.pop(record.job.key, (None, None))
        if record.failed:
            return
        seconds = {"again": now - begun} if self.again else dict(record.seconds)
        train = seconds.pop("train", 0.0)
        if not record.weights_of:
            self.trained.setdefault(record.job.method.name, []).append(train)
            self.spent += train
        self.spent += sum(seconds.values())
        each = sum(spent for phase, spent in seconds.items() if phase not in ONCE)
        self.other.setdefault(record.job.method.name, []).append(each)
        if training:
            self.borne.add(training)

    def left(self) -> float | None:
        """Guess from jobs of the same method, else of all, as many at once as so far; None before any has ended."""
        if not self.other:
            return None
        now, borne = self.clock(), set(self.borne)
        rest = []
        for key in sorted(self.open, key=lambda key: key not in self.begun):
            job, training = self.open[key]
            seconds = usual(self.other, job.method.name)
            if training is None or training not in borne:
                seconds += usual(self.trained, job.method.name)
            if training:
                borne.add(training)
            rest.append(max(0.0, seconds - (now - self.begun.get(key, now))))
        at_work = sum(now - since for since in self.begun.values())
        at_once = (self.spent + at_work) / max(now - self.start, 1e-9)
        return max([sum(rest) / max(at_once, 1.0), *rest], default=0.0)
