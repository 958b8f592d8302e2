"""One process that runs jobs one after another, keeping what they share."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from fairbench.errors import FairbenchError
from fairbench.execute import Attempt
from fairbench.job import Job, Record
from fairbench.plugins import Plugins
from fairbench.readable import Probe
from fairbench.store import Store, says_full

Report = Callable[[str, int, int, float | None], None]


@dataclass
class Worker:
    """A device, the plugins and data on it, and a backbone that stays loaded from job to job.

    `roots` maps a dataset's name to its folder; `micro_batch` bounds how many examples are computed
    at once (default: the whole batch); `feature_bytes` bounds the memory of cached features;
    `loaders` are processes that read images when features are not cached; `report(phase, done,
    total, loss)` is called as work goes on. `probe`: what to read from every job's hidden states.
    """

    store: Store
    plugins: Plugins
    roots: Mapping[str, Path]
    report: Report
    micro_batch: int | None = None
    feature_bytes: int = 8 << 30
    loaders: int = 0
    threads: int = 1
    probe: Probe | None = None
    _kept: dict[str, tuple[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.set_num_threads(self.threads)
        self.accelerator = Accelerator(cpu=not torch.cuda.is_available())

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes."""
        return bool(self.accelerator.is_main_process)

    def run(self, job: Job) -> Record:
        """Run one job and save its record, also when it fails; only a full disk and Ctrl-C get through.

        Where several processes share the job an error ends them all, because the others would wait
        for ever for the one that failed; the same command then goes on with the next job.
        """
        folder = self.store.prepare(job) if self.leads else self.store.folder(job)
        self.accelerator.wait_for_everyone()
        attempt = Attempt(self, job, folder)
        failure: Exception | None = None
        try:
            attempt.go()
        except Exception as error:
            failure = error
            if says_full(error):
                raise self.store.full() from error
            attempt.error = str(error) if isinstance(error, FairbenchError) else f"{type(error).__name__}: {error}"
            if not isinstance(error, FairbenchError):
                with self.store.writing():
                    (folder / "traceback.txt").write_text(traceback.format_exc(), encoding="utf-8")
        record = attempt.record()
        if self.leads or failure:
            self.store.save(record)
            self.plugins.tell("fairbench_job_finished", record=record)
        if failure and self.accelerator.num_processes > 1:
            raise failure
        self.accelerator.wait_for_everyone()
        return record

    def probe_again(self, record: Record) -> Record:
        """Probe a finished job and save what was found in its record; raises what the probe raises."""
        assert self.probe is not None
        try:
            found = Attempt(self, record.job, self.store.folder(record.job)).again(record, self.probe)
        except FairbenchError as error:
            raise FairbenchError(f"cannot probe {record.job.title}: {error.message}", error.hint) from error
        if self.leads:
            self.store.save(found)
        self.accelerator.wait_for_everyone()
        return found

    def agree(self, value: Any) -> Any:
        """Return the leading process's value in every process that shares its jobs."""
        if self.accelerator.num_processes == 1:
            return value
        box = [value]
        broadcast_object_list(box)
        return box[0]

    def keep(self, kind: str, key: str, make: Callable[[], Any]) -> Any:
        """Return what the last job used when it is the same, else let it go and make the new one."""
        if kind not in self._kept or self._kept[kind][0] != key:
            self._kept.pop(kind, None)
            self._kept[kind] = (key, make())
        return self._kept[kind][1]

    def kept(self, kind: str) -> Any:
        """Return what the last job used."""
        return self._kept[kind][1]
