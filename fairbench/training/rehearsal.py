"""A step, an answer and a look at an image, tried out: what a worker will spend on one dataset and one backbone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd
import psutil
import torch

from fairbench.data.dataset import Dataset
from fairbench.jobs.job import Job
from fairbench.models.backbone import Backbone
from fairbench.training import device as memory
from fairbench.training.features import SEEN, Prepared, seen
from fairbench.training.predict import answering

ENOUGH = 1.0  # seconds, after which nothing is tried again
TIMES = 3
Clock = Callable[[], float]


@dataclass(frozen=True)
class Rehearsal:
    """Seconds of one training `step`, of one `answer`, and of opening, preparing and seeing one `image`.

    They are CPU seconds of one thread, which another program's work does not lengthen, or on a GPU seconds.
    `memory` is the peak of a worker, in bytes: resident in its process, or allocated on the GPU; `example` are the
    bytes of a row that has been seen.
    """

    step: float
    answer: float
    image: float
    memory: int
    example: int


def rehearse(
    backbone: Backbone, dataset: Dataset, table: pd.DataFrame, job: Job, clock: Clock | None = None
) -> Rehearsal:
    """Load a backbone that is not loaded yet, and try it on a dataset's first training rows, as a job would.

    Raises what a plugin raises, FairbenchError where weights or data are not there.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    clock = clock or (time.process_time if device.type == "cpu" else _gpu_clock)
    with _one_thread():
        before = psutil.Process().memory_info().rss
        memory.reset_peak()
        dtype = torch.bfloat16 if job.precision == "bfloat16" else torch.float32
        generates = dataset.task == "generate"
        backbone.build(dataset.classes, dataset.words, dtype, device, generates)
        first = table[table["split"] == "train"].head(min(SEEN, job.batch_size))
        prepared = Prepared(dataset, first, backbone)

        def look() -> list[dict[str, torch.Tensor]]:
            return seen(backbone, [prepared[index] for index in range(len(first))])

        image = _shortest(look, clock) / len(first)
        examples = look()
        batch = [examples[index] for index in np.resize(np.arange(len(examples)), job.batch_size)]
        step = _shortest(_stepping(backbone, batch, device), clock)
        backbone.train(False)
        answer = answering(backbone, dataset)
        with torch.no_grad():
            asked = _shortest(lambda: answer(batch), clock) / len(batch)
        peak = memory.peak(device) - (before if device.type == "cpu" else 0)
    return Rehearsal(step, asked, image, peak, sum(t.numel() * t.element_size() for t in examples[0].values()))


def _stepping(backbone: Backbone, batch: list[dict[str, torch.Tensor]], device: torch.device) -> Callable[[], None]:
    """Return what takes one step of plain fine-tuning."""
    parameters = list(backbone.trainable().values())
    optimizer = torch.optim.AdamW(parameters, lr=0.0)
    target = torch.zeros(len(batch), dtype=torch.long, device=device)
    backbone.train(True)

    def step() -> None:
        inputs = {key: value.to(device) for key, value in backbone.stack(batch).items()}
        backbone(inputs, target).loss.mean().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def _shortest(work: Callable[[], object], clock: Clock) -> float:
    """Return the seconds of some work that is done a few times, after a first time that warms up."""
    work()
    spent: list[float] = []
    while len(spent) < TIMES and sum(spent) < ENOUGH:
        start = clock()
        work()
        spent.append(clock() - start)
    return min(spent)


def _gpu_clock() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute as a worker does by default, whatever this process may use."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
