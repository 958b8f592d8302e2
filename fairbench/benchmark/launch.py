"""Where jobs run: here, in one process for each device, or in step on several processes that torchrun started.

Workers pull jobs by lease, so any number of them, on one machine or many with a shared folder, can
work on one benchmark: run the same command on each.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import click

from fairbench.benchmark.pull import STOPPED, Event, Setup, Watch, child, work
from fairbench.errors import FairbenchError
from fairbench.jobs.job import Job
from fairbench.jobs.store import Store
from fairbench.processes import cores, spawning

GRACE = 60.0  # seconds that workers have to leave a checkpoint
QUIET = 3.0  # seconds of it in which nothing is said


class Terminated(SystemExit):
    """The command was told to end by SIGTERM."""


def devices() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES would name them."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not visible:
        return [str(i) for i in range(torch.cuda.device_count())]
    named = [one.strip() for one in visible.split(",")]
    return list(itertools.takewhile(lambda one: not one.startswith("-"), named))  # CUDA sees none from -1 on


def default_workers(count: int) -> int:
    """Return how many workers serve `count` jobs: one for each GPU, or on a CPU one for each core."""
    return max(1, min(count, len(devices()) or cores()))


def together() -> bool:
    """Whether torchrun started this process as one of several that share each job."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def leads() -> bool:
    """Whether this process is the one that prints."""
    return os.environ.get("RANK", "0") == "0"


def launch(jobs: Sequence[Job], setup: Setup, workers: int, watch: Watch) -> None:
    """Run all jobs that have no record; return when every one has.

    Jobs that were begun before and did not end come last. Raises FairbenchError when a worker fails as a whole
    (disk full, no job under way); finished jobs are safe.
    """
    store = Store(setup.out)
    ordered = sorted(jobs, key=store.attempts)
    watch = _once(watch)
    if together():
        work(0, ordered, setup, watch)
        return
    with _ended_by_signal():
        _Workers(store, ordered, setup, watch).run(workers)
    left = store.missing(jobs, probe=setup.options.probe)
    if any(store.ended(job) is None for job in left):
        raise FairbenchError(f"{len(left)} jobs were not run; finished jobs are safe", "run the same command again")


@dataclass
class _Hand:
    """A worker's process, from the parent's side, and the job it is at."""

    number: int
    process: BaseProcess
    job: Job | None = None


class _Workers:
    """Workers in processes of their own, so that a job that kills its process ends neither sweep nor command."""

    def __init__(self, store: Store, jobs: Sequence[Job], setup: Setup, watch: Watch) -> None:
        self.store, self.jobs, self.setup, self.watch = store, jobs, setup, watch
        self.gpus = devices()
        self.hands: dict[Connection, _Hand] = {}
        self.everybody: list[BaseProcess] = []

    def run(self, workers: int) -> None:
        """Run until every worker has ended; whatever happens, leave no process behind."""
        try:
            for number in range(workers):
                self._start(number)
            while self.hands:
                for reader in wait([*self.hands]):
                    assert isinstance(reader, Connection)
                    self._listen(reader)
        finally:
            self._end()

    def _start(self, number: int) -> None:
        # A pipe each, not one queue: a worker that is killed while it writes must not block the others.
        gpu = self.gpus[number % len(self.gpus)] if self.gpus else None
        with spawning() as context:
            reader, writer = context.Pipe(duplex=False)
            process = context.Process(target=child, args=(number, self.jobs, self.setup, gpu, writer))
            process.start()
        writer.close()
        self.everybody.append(process)
        self.hands[reader] = _Hand(number, process)

    def _listen(self, reader: Connection) -> None:
        hand = self.hands[reader]
        try:
            event: Event = reader.recv()
        except (EOFError, ConnectionError):
            del self.hands[reader]
            reader.close()
            self._ended(hand)
            return
        if event.failure is not None and event.job is None:
            raise event.failure
        hand.job = None if event.record is not None or event.failure is not None else event.job
        if event.phase != "begin":
            self.watch(event)

    def _ended(self, hand: _Hand) -> None:
        """See why a worker ended; one that died of a job is replaced while there is work."""
        hand.process.join()
        if hand.process.exitcode == STOPPED:
            return  # someone told this worker to end, and its job left what it can go on from
        if hand.job is None:
            if hand.process.exitcode:
                raise FairbenchError(
                    f"worker {hand.number} {_cause(hand.process.exitcode)}; finished jobs are safe",
                    "run the same command again; if memory ran out, use fewer --workers",
                )
            return
        cause = _cause(hand.process.exitcode)
        if self.store.ended(hand.job) is not None:  # it died of the probe, which a next try would repeat
            self.watch(Event(hand.number, hand.job, failure=FairbenchError(f"the probe's process {cause}")))
            self.jobs = [job for job in self.jobs if job != hand.job]
        else:
            self.store.note_death(hand.job, cause)
            self.jobs = sorted(self.jobs, key=self.store.attempts)
        if self.store.missing(self.jobs, probe=self.setup.options.probe):
            self._start(hand.number)

    def _end(self) -> None:
        """Tell all workers to stop, which lets a training leave a checkpoint, and wait for them a while.

        Ctrl-C, were it again and again, ends the waiting and no more: who is interrupted leaves no process behind.
        """
        working = [process for process in self.everybody if process.is_alive()]
        for process in working:
            process.terminate()
        try:
            until = time.monotonic() + QUIET
            if _alive(working, until):
                wait = f"up to {GRACE:.0f} s for trainings to leave what they can go on from"
                click.echo(f"waiting {wait}; Ctrl-C does not wait", err=True)
                _alive(working, until + GRACE - QUIET)
        except KeyboardInterrupt:
            pass
        with _uninterrupted():
            for process in working:
                if process.is_alive():
                    process.kill()
                process.join()


def _alive(processes: Sequence[BaseProcess], until: float) -> list[BaseProcess]:
    """Wait for processes until then; return those that have not ended."""
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))
    return [process for process in processes if process.is_alive()]


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait for a moment."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _cause(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"was ended by signal {-exit_code} ({signal.Signals(-exit_code).name})"
    return f"ended with status {exit_code}"


@contextmanager
def _ended_by_signal() -> Iterator[None]:
    """Turn SIGTERM into an orderly end of this command: its workers are told, and waited for."""

    def end(*_: Any) -> None:
        raise Terminated(STOPPED)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _once(watch: Watch) -> Watch:
    """Tell of each finished job once, though every worker sees that it is finished."""
    seen: set[str] = set()

    def tell(event: Event) -> None:
        if event.record is not None:
            if event.record.job.key in seen:
                return
            seen.add(event.record.job.key)
        watch(event)

    return tell
