"""The order in which training rows come: the same for every method that draws evenly."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch

from fairbench.jobs.job import Job

Indices = npt.NDArray[np.int64]


def batches_of(count: int, epochs: float, job: Job, stage: int, odds: torch.Tensor | None) -> list[Indices]:
    """Return the row indices of every effective batch of a stage.

    Without `odds` each epoch is a permutation; with them it is `count` draws with replacement.
    """
    batches: list[Indices] = []
    for epoch in range(math.ceil(epochs)):
        generator = np.random.default_rng([job.seed, stage, epoch])
        if odds is None:
            order = generator.permutation(count)
        else:
            share = odds.double().cpu().numpy()
            order = generator.choice(count, count, p=share / share.sum())
        batches += [order[i : i + job.batch_size] for i in range(0, count, job.batch_size)]
    return batches[: max(1, round(epochs * -(-count // job.batch_size)))]


def epoch_ends(count: int, job: Job, batches: int) -> set[int]:
    """Return after how many batches each epoch ends, the last, maybe partial, one included."""
    per_epoch = -(-count // job.batch_size)
    return {*range(per_epoch, batches + 1, per_epoch), batches}
