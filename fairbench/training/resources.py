"""What the jobs of one process share: the store, plugins, data, a device, and what stays loaded from job to job."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from fairbench.jobs.job import Job
from fairbench.jobs.store import Store
from fairbench.jobs.worker_options import WorkerOptions
from fairbench.models import sharding
from fairbench.plugins import Plugins
from fairbench.training.device import keep_freed_memory

Report = Callable[[str, int, int, float | None], None]


class Stopped(BaseException):
    """The process was told to end: no failure of the job that it runs."""


@dataclass
class Resources:
    """A device, the plugins and data on it, and a backbone that stays loaded from job to job.

    `roots` maps a dataset's name to its folder; `report(phase, done, total, loss)` is called as work goes on;
    `job` is what runs now; `stopping` says that this process should end, and `checkpointing` that a training is
    under way which will see to it.
    """

    store: Store
    plugins: Plugins
    roots: Mapping[str, Path]
    report: Report
    options: WorkerOptions = field(default_factory=WorkerOptions)
    job: Job | None = None
    stopping: bool = False
    checkpointing: bool = False
    _kept: dict[str, tuple[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Else every tensor is filled before it is written to, which no result depends on.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.set_num_threads(self.options.threads)
        keep_freed_memory()
        self.accelerator = Accelerator(cpu=not torch.cuda.is_available())
        self.mesh = sharding.everyone(self.accelerator.device) if self.options.shard else None

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes."""
        return bool(self.accelerator.is_main_process)

    def agree(self, value: Any) -> Any:
        """Return the leading process's value in every process that shares its jobs."""
        if self.accelerator.num_processes == 1:
            return value
        box = [value]
        broadcast_object_list(box)
        return box[0]

    def union(self, values: Sequence[str]) -> list[str]:
        """Return in every process that shares a job what any of them has."""
        if self.accelerator.num_processes == 1:
            return list(values)
        return list(dict.fromkeys(gather_object(list(values))))

    def keep(self, kind: str, key: str, make: Callable[[], Any]) -> Any:
        """Return what the last job used when it is the same, else let it go and make the new one."""
        if kind not in self._kept or self._kept[kind][0] != key:
            self._kept.pop(kind, None)
            self._kept[kind] = (key, make())
        return self._kept[kind][1]

    def forget(self, *kinds: str) -> None:
        """Let go of what would stay loaded for the next job: of some kinds, or of everything."""
        gone = {kind: self._kept.pop(kind, None) for kind in kinds or tuple(self._kept)}
        if any(gone.values()):
            gc.collect()  # a backbone's parts refer to each other, so that only the collector lets them go

    def kept(self, kind: str) -> Any:
        """Return what the last job used."""
        return self._kept[kind][1]
