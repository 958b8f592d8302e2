"""Trackers hear of a job step by step: TensorBoard, Weights & Biases, MLflow, a file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import ClassVar

from fairbench.jobs.job import Job


class Tracker:
    """Hears of one job while it trains: made when it begins, in the process that writes its record."""

    name: ClassVar[str]

    @classmethod
    def check(cls) -> None:
        """Raise FairbenchError where something is not installed; asked before anything runs."""

    def __init__(self, job: Job, folder: Path) -> None:
        """Begin; `folder` is one for all jobs of these runs, for trackers that write files."""
        raise NotImplementedError

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Hear of an optimizer step, counted over all stages: the loss, the stage's number, the method's notes."""
        raise NotImplementedError

    def close(self) -> None:
        """End, whether the job succeeded or not."""


class Trackers:
    """The trackers of one job; one that raises is left out from then on, with a warning, and the job goes on."""

    def __init__(self, kinds: Iterable[type[Tracker]], job: Job, folder: Path, warn: Callable[[str], None]) -> None:
        self.warn = warn
        self.open: list[Tracker] = []
        for kind in kinds:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                self.open.append(kind(job, folder))
            except Exception as error:
                warn(f"the tracker {kind.name} did not begin: {error}")

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Tell all of a step."""
        self._each(lambda tracker: tracker.log(values, step))

    def close(self) -> None:
        """End all."""
        self._each(lambda tracker: tracker.close())

    def _each(self, tell: Callable[[Tracker], None]) -> None:
        for tracker in list(self.open):
            try:
                tell(tracker)
            except Exception as error:
                self.open.remove(tracker)
                self.warn(f"the tracker {tracker.name} stopped: {error}")
