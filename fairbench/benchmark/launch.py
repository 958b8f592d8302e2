"""Where jobs run: here, in one process for each device, or in step on several processes that torchrun started.

Workers pull jobs by lease, so any number of them, on one machine or many with a shared folder, can
work on one benchmark: run the same command on each.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import click

from fairbench.errors import FairbenchError
from fairbench.jobs.job import Job, Record
from fairbench.jobs.probe import Probe, wants_probe
from fairbench.jobs.store import Store


@dataclass(frozen=True)
class Event:
    """Something a worker tells who watches: a phase of a job, its end (`record`), or its own failure."""

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
    """What a worker needs to know: where results go, where data lies, which plugin files, and its limits."""

    out: str
    roots: Mapping[str, Path]
    plugin_files: tuple[str, ...] = ()
    micro_batch: int | None = None
    feature_bytes: int = 8 << 30
    loaders: int = 0
    threads: int = 1
    probe: Probe | None = None
    track: tuple[str, ...] = ()


Watch = Callable[[Event], None]


def devices() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES would name them."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]


def default_workers(count: int) -> int:
    """Return how many workers serve `count` jobs: one for each GPU, or on a CPU one for each core."""
    return max(1, min(count, len(devices()) or cores()))


def cores() -> int:
    """Return how many CPU cores this process may use, which on a shared node is fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def together() -> bool:
    """Whether torchrun started this process as one of several that share each job."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def leads() -> bool:
    """Whether this process is the one that prints."""
    return os.environ.get("RANK", "0") == "0"


def launch(jobs: Sequence[Job], setup: Setup, workers: int, watch: Watch) -> None:
    """Run all jobs that have no record; return when every one has.

    Raises FairbenchError when a worker fails as a whole (disk full, killed); finished jobs are safe.
    """
    watch = _once(watch)
    if together() or workers == 1:
        _work(0, jobs, setup, watch)
        return
    context = multiprocessing.get_context("spawn")
    gpus = devices()
    processes, readers = [], []
    try:
        for number in range(workers):
            # A pipe each, not one queue: a worker that is killed while it writes must not block the others.
            reader, writer = context.Pipe(duplex=False)
            gpu = gpus[number % len(gpus)] if gpus else None
            process = context.Process(target=_child, args=(number, jobs, setup, gpu, writer))
            process.start()
            writer.close()
            processes.append(process)
            readers.append(reader)
        _listen(readers, watch)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
    left = Store(setup.out).missing(jobs, probe=setup.probe)
    if left:
        exits = ", ".join(_cause(number, process.exitcode) for number, process in enumerate(processes))
        raise FairbenchError(
            f"{len(left)} jobs were not run: {exits}; finished jobs are safe",
            "run the same command again; if memory ran out, use fewer --workers",
        )


def _listen(readers: list[Connection], watch: Watch) -> None:
    """Pass on what workers tell until each has closed its pipe, by ending or by being killed."""
    while readers:
        for reader in wait(readers):
            assert isinstance(reader, Connection)
            try:
                event: Event = reader.recv()
            except (EOFError, ConnectionError):
                readers.remove(reader)
                continue
            if event.failure is not None:
                raise event.failure
            watch(event)


def _cause(number: int, exit_code: int | None) -> str:
    how = f"was ended by signal {-exit_code}" if exit_code and exit_code < 0 else f"ended with status {exit_code}"
    return f"worker {number} {how}"


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


def _child(number: int, jobs: Sequence[Job], setup: Setup, gpu: str | None, events: Connection) -> None:
    """Run in a process of its own; Ctrl-C reaches the parent, which ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu

    def tell(event: Event) -> None:
        try:
            events.send(event)
        except OSError:  # nobody listens any more: the parent was killed, and this job is dropped
            raise SystemExit(1) from None

    try:
        _work(number, jobs, setup, tell)
    except FairbenchError as error:
        tell(Event(number, failure=error))


def _work(number: int, jobs: Sequence[Job], setup: Setup, watch: Watch) -> None:
    from fairbench import plugins
    from fairbench.training.worker import Worker

    store = Store(setup.out)
    current: list[Job] = []

    def report(phase: str, done: int, total: int, loss: float | None) -> None:
        watch(Event(number, current[-1], phase, done, total, loss))

    loaded = plugins.load(files=setup.plugin_files)
    known = set(loaded.broken)
    worker = Worker(
        store,
        loaded,
        setup.roots,
        report,
        setup.micro_batch,
        setup.feature_bytes,
        setup.loaders,
        setup.threads,
        setup.probe,
        setup.track,
    )
    waiting = worker.agree(list(jobs))
    while waiting:
        progressed = False
        for job in list(waiting):
            record = worker.agree(store.record(job))
            # Another worker, or another sweep on this folder, may have run it.
            if record is not None and not wants_probe(record, setup.probe):
                waiting.remove(job)
                watch(Event(number, job, record=record))
                continue
            current.append(job)
            record = _leased(store, worker, job)
            if record is not None:
                waiting.remove(job)
                watch(Event(number, job, record=record))
                progressed = True
        if waiting and not progressed:  # the rest is being run by others; take over what they drop
            time.sleep(1.0)
    for broken in dict.fromkeys(loaded.broken):
        if broken not in known:  # a tracker or notifier that raised
            click.echo(f"warning: plugin {broken.name} of {broken.source} raised {broken.reason}", err=True)


def _leased(store: Store, worker: Any, job: Job) -> Record | None:
    with store.lease(job) if worker.leads else nullcontext(False) as held:
        if not worker.agree(held):
            return None
        record: Record | None = worker.agree(store.record(job))
        if record is None:
            record = worker.run(job)
        elif wants_probe(record, worker.probe):
            record = worker.probe_again(record)
        return record
