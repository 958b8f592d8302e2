"""Where jobs run: here, in one process for each device, or in step on several processes that torchrun started.

Workers pull jobs by lease, so any number of them, on one machine or many with a shared folder, can
work on one benchmark: run the same command on each.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairbench.errors import FairbenchError
from fairbench.job import Job, Record
from fairbench.store import Store


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


Watch = Callable[[Event], None]


def devices() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES would name them."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]


def default_workers(count: int) -> int:
    """Return how many workers serve `count` jobs: one for each GPU, or on a CPU one for each core."""
    return max(1, min(count, len(devices()) or os.cpu_count() or 1))


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
    if together() or workers == 1:
        _work(0, jobs, setup, watch)
        return
    context = multiprocessing.get_context("spawn")
    events: Any = context.Queue()
    gpus = devices()
    processes = [
        context.Process(target=_child, args=(i, jobs, setup, gpus[i % len(gpus)] if gpus else None, events))
        for i in range(workers)
    ]
    for process in processes:
        process.start()
    try:
        _listen(processes, events, watch)
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
        for process in processes:
            process.join()


def _listen(processes: Sequence[Any], events: Any, watch: Watch) -> None:
    while True:
        alive = [process for process in processes if process.is_alive()]
        try:
            event: Event = events.get(timeout=0.5)
        except queue.Empty:
            if not alive:
                break
            continue
        if event.failure is not None:
            raise event.failure
        watch(event)
    for number, process in enumerate(processes):
        if process.exitcode:
            cause = f"signal {-process.exitcode}" if process.exitcode < 0 else f"exit status {process.exitcode}"
            raise FairbenchError(
                f"worker {number} ended by {cause}; finished jobs are safe",
                "run the same command again; if memory ran out, use fewer --workers",
            )


def _child(number: int, jobs: Sequence[Job], setup: Setup, gpu: str | None, events: Any) -> None:
    """Run in a process of its own; Ctrl-C reaches the parent, which ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    try:
        _work(number, jobs, setup, events.put)
    except FairbenchError as error:
        events.put(Event(number, failure=error))


def _work(number: int, jobs: Sequence[Job], setup: Setup, watch: Watch) -> None:
    from fairbench import plugins
    from fairbench.execute import Worker

    store = Store(setup.out)
    current: list[Job] = []

    def report(phase: str, done: int, total: int, loss: float | None) -> None:
        watch(Event(number, current[-1], phase, done, total, loss))

    worker = Worker(
        store,
        plugins.load(files=setup.plugin_files),
        setup.roots,
        report,
        setup.micro_batch,
        setup.feature_bytes,
        setup.loaders,
        setup.threads,
    )
    waiting = list(jobs)
    while waiting:
        progressed = False
        for job in list(waiting):
            if store.record(job) is not None and not together():
                waiting.remove(job)
                continue
            current.append(job)
            record = worker.run(job) if together() else _leased(store, worker, job)
            if record is not None:
                waiting.remove(job)
                watch(Event(number, job, record=record))
                progressed = True
        if waiting and not progressed:  # the rest is being run by others; take over what they drop
            time.sleep(1.0)


def _leased(store: Store, worker: Any, job: Job) -> Record | None:
    with store.lease(job) as held:
        if held and store.record(job) is None:
            record: Record = worker.run(job)
            return record
    return None
