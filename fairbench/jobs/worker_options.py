"""How a process does its jobs: nothing here changes a result, so nothing here is part of a job's key."""

from __future__ import annotations

from dataclasses import dataclass

from fairbench.jobs.probe import Probe


@dataclass(frozen=True)
class WorkerOptions:
    """Limits of a process that runs jobs, and what it notes as it goes.

    `micro_batch` bounds how many examples are computed at once (default: the whole batch), `feature_bytes` the
    memory of cached features, beyond which they stay on disk (0: none are cached); `loaders` are processes that
    read images when features are not cached, `threads` those of torch. `probe`: what to read from every job's
    hidden states; `track`: names of trackers; `checkpoint_every`: seconds between checkpoints of a training.
    `shard` divides the backbone's frozen weights over the processes that share a job.
    """

    micro_batch: int | None = None
    feature_bytes: int = 8 << 30
    loaders: int = 0
    threads: int = 1
    probe: Probe | None = None
    track: tuple[str, ...] = ()
    checkpoint_every: float = 600.0
    shard: bool = False
