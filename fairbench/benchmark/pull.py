"""One process of a sweep: it pulls jobs by lease until none is left, and tells what it does.

Any number of such processes, on one machine or many with a shared folder, can work on one benchmark.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import click

from fairbench.errors import FairbenchError
from fairbench.jobs.job import Job, Record
from fairbench.jobs.probe import wants_probe
from fairbench.jobs.store import DEATHS, Store
from fairbench.jobs.summary import Refused
from fairbench.jobs.worker_options import WorkerOptions

if TYPE_CHECKING:
    from fairbench.training.worker import Worker


@dataclass(frozen=True)
class Event:
    """Something a worker tells who watches: a phase of a job, its end (`record`), or a `failure` without a record.

    With a job it is a failure of that job's probe; without one it is the worker's own.
    """

    worker: int
    job: Job | None = None
    phase: str = ""
    done: int = 0
    total: int = 0
    loss: float | None = None
    record: Record | None = None
    failure: FairbenchError | None = None


@dataclass(frozen=True)
class Setup:
    """What a worker needs to know: where results go, where data lies, which plugin files, how it works, and the
    settings that no job holds because they change no result.
    """

    out: str
    roots: Mapping[str, Path]
    plugin_files: tuple[str, ...] = ()
    options: WorkerOptions = field(default_factory=WorkerOptions)
    unkeyed: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


Watch = Callable[[Event], None]
WAITING = "wait for other processes, which run what is left"  # a phase
STOPPED = 128 + signal.SIGTERM  # the status of a worker that was told to end


def child(number: int, jobs: Sequence[Job], setup: Setup, gpu: str | None, events: Connection) -> None:
    """Work in a process of its own; Ctrl-C reaches the parent, which ends its workers by SIGTERM."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    own = os.getpid()

    def tell(event: Event) -> None:
        if os.getpid() != own:  # a plugin forked, and its child came back here: the work is not its
            os._exit(1)
        try:
            events.send(event)
        except OSError:  # nobody listens any more: the parent was killed
            os.kill(own, signal.SIGTERM)

    from fairbench.training.resources import Stopped

    status = 0
    try:
        work(number, jobs, setup, tell)
    except FairbenchError as error:
        tell(Event(number, failure=error))
    except Stopped:
        status = STOPPED
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os._exit(status)  # no thread or hook of a plugin may keep a process that is at its end


class ProcessWorker:
    """A process's worker that outlives one call, so that what a job loads is there for the next."""

    _here: ClassVar[ProcessWorker | None] = None

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.worker = _worker(0, setup, lambda event: self.tell(event))

    @classmethod
    def of(cls, setup: Setup) -> ProcessWorker:
        """Return this process's own, made anew where it is set up otherwise."""
        if cls._here is None or cls._here.setup != setup:
            cls._here = None  # what it holds goes first
            cls._here = cls(setup)
        return cls._here

    def run(self, job: Job, tell: Watch) -> None:
        """Run a job unless it has ended."""
        self.tell = tell
        work(0, [job], self.setup, tell, self.worker)


def work(number: int, jobs: Sequence[Job], setup: Setup, watch: Watch, worker: Worker | None = None) -> None:
    """Run all jobs that have no record and that no one else runs; return when every one has ended."""
    worker = worker or _worker(number, setup, watch)
    known = set(worker.plugins.broken)
    waiting, told = worker.agree(list(jobs)), False
    while waiting:
        progressed = False
        for job in list(waiting):
            ended = worker.agree(worker.store.ended(job))
            # Another worker, or another sweep on this folder, may have run it.
            if isinstance(ended, Refused) or (ended is not None and not wants_probe(ended, setup.options.probe)):
                waiting.remove(job)
                if isinstance(ended, Record):
                    watch(Event(number, job, record=ended))
                continue
            if ended is None and _trained_elsewhere(worker, job):
                continue  # it would wait for that training, while others can be run
            try:
                record = _leased(worker, job, partial(watch, Event(number, job, "begin")))
            except FairbenchError as error:
                if ended is None:
                    raise
                waiting.remove(job)
                watch(Event(number, job, failure=error))
                continue
            if record is not None:
                waiting.remove(job)
                watch(Event(number, job, record=record))
                progressed = True
        if waiting and not progressed:  # the rest is being run by others; take over what they drop
            if not told:
                watch(Event(number, waiting[0], WAITING))
            told = True
            time.sleep(1.0)
    for broken in dict.fromkeys(worker.plugins.broken):
        if broken not in known:  # a tracker or notifier that raised
            click.echo(f"warning: plugin {broken.name} of {broken.source} raised {broken.reason}", err=True)


def _trained_elsewhere(worker: Worker, job: Job) -> bool:
    """Whether another process is at the training that a job takes its weights from."""
    from fairbench.training.shared import training_of

    if worker.accelerator.num_processes > 1:  # these train each job of their own
        return False
    method = worker.plugins.tables["method"].get(job.method.name)
    name = training_of(job, method) if method else None
    return name is not None and worker.store.training_held(name)


def _worker(number: int, setup: Setup, watch: Watch) -> Worker:
    from fairbench import plugins
    from fairbench.training.worker import Worker

    def report(phase: str, done: int, total: int, loss: float | None) -> None:
        watch(Event(number, worker.job, phase, done, total, loss))

    loaded = plugins.load(files=setup.plugin_files)
    loaded.unkeyed.update(setup.unkeyed)
    worker = Worker(Store(setup.out), loaded, setup.roots, report, setup.options)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, worker.stop)
    return worker


def _leased(worker: Worker, job: Job, begin: Callable[[], None]) -> Record | None:
    """Do what a job lacks, if nobody else is at it; return its record, or None for now."""
    store = worker.store
    with store.lease(job) if worker.leads else nullcontext(False) as held:
        if not worker.agree(held):
            return None
        ended, deaths = worker.agree((store.ended(job), store.deaths(job)))
        if isinstance(ended, Refused):
            return None
        if ended is None and len(deaths) >= DEATHS:
            return worker.give_up(job, deaths)
        begin()
        if ended is None:
            return worker.run(job)
        return worker.probe_again(ended) if wants_probe(ended, worker.options.probe) else ended
