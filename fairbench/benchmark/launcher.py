"""The Launcher contract: how jobs get to other machines. Which engines there are is a matter of plugins."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from fairbench.benchmark.pull import Event, ProcessWorker, Setup, Watch
from fairbench.errors import FairbenchError
from fairbench.jobs.conversion import from_json, read_json, to_json
from fairbench.jobs.job import Job, Record
from fairbench.jobs.store import Store, write_json
from fairbench.settings import Configurable

LOOK = 1.0  # seconds between two looks at which jobs have ended


@dataclass(frozen=True)
class Work:
    """Jobs, and what a process must know to do them; it can be sent to another process or machine."""

    jobs: tuple[Job, ...]
    setup: Setup

    @property
    def store(self) -> Store:
        """The folder of results, as this machine sees it."""
        return Store(self.setup.out)

    def left(self) -> list[Job]:
        """Return the jobs that have not ended, those that were begun before last."""
        store = self.store
        missing = store.missing(self.jobs, probe=self.setup.options.probe)
        return sorted(missing, key=store.attempts)

    def run(self, job: Job, tell: Watch = lambda event: None) -> None:
        """Do one job in this process, unless it has ended or somebody else is at it.

        What the job loads stays loaded for the next one that this process is given.
        """
        ProcessWorker.of(self.setup).run(job, tell)

    def died(self, job: Job, cause: str) -> None:
        """Write down that a process died of a job; of the second time the job has failed when it is run again."""
        self.store.note_death(job, cause)

    def command(self) -> list[str]:
        """Return the command that does what is left, on this machine or another that sees the folder of results.

        Any number of such commands may run at once: each takes jobs that nobody is at. Ended by SIGTERM, it leaves
        a checkpoint of the job under way.
        """
        data = {"jobs": [job.to_json() for job in self.jobs], "setup": to_json(self.setup)}
        name = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]
        folder = self.store.work_folder
        with self.store.writing():
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / f"{name}.json", data)
        return [sys.executable, "-m", "fairbench.benchmark.work", str(folder / f"{name}.json")]

    @classmethod
    def read(cls, path: Path) -> Work:
        """Read what `command` wrote."""
        data, _ = read_json(path)
        return cls(tuple(Job.from_json(one) for one in data["jobs"]), from_json(Setup, data["setup"]))

    def follow(self, watch: Watch, over: Callable[[], bool]) -> None:
        """Tell of jobs as they end, until all have or `over` says that nobody is at work any more."""
        waiting = list(self.jobs)
        while waiting:
            last = over()  # asked before looking, so that what ended just before is seen
            ended = {job.key: record for job, record in self._ended(waiting)}
            for record in ended.values():
                watch(Event(0, record.job, record=record))
            waiting = [job for job in waiting if job.key not in ended]
            if last:
                return
            time.sleep(LOOK)

    def _ended(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Record]]:
        for job in jobs:
            outcome = self.store.ended(job)
            if isinstance(outcome, Record):
                yield job, outcome


class Launcher(Configurable):
    """Gets jobs done by an engine that knows more than this machine: its settings are where and on what.

    Fault tolerance of a job is fairbench's (checkpoints, leases, records); a launcher's part is to start processes,
    to start them again when a machine is lost, and to return when no process works any more. `several`: whether it
    starts several processes that share each job, which `--shard` needs.
    """

    several: ClassVar[bool] = False

    @classmethod
    def check(cls) -> None:
        """Raise FairbenchError where something is not installed; asked before anything runs."""

    def launch(self, work: Work, watch: Watch) -> None:
        """Get the work done, telling `watch` what happens; what is left undone is said by who called."""
        raise NotImplementedError


def launch(launcher: Launcher, work: Work, watch: Watch) -> None:
    """Have a launcher do the work; raises FairbenchError when it leaves some of it undone."""
    launcher.launch(work, watch)
    left = [job for job in work.left() if work.store.ended(job) is None]
    if left:
        raise FairbenchError(
            f"{len(left)} jobs were not run, or {launcher.name} ran them where this machine does not see their "
            "results; finished jobs are safe",
            "give --out a folder that all machines share, or a URL; the same command runs what is left",
        )
