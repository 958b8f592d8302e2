"""The plugin contract: hooks, most of which return what they offer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    import click

    from fairbench.benchmark.launcher import Launcher
    from fairbench.data.dataset import Dataset
    from fairbench.jobs.job import Record
    from fairbench.metrics.metric import Metric
    from fairbench.models.backbone import Backbone
    from fairbench.training.method import Method
    from fairbench.training.tracker import Tracker

hookspec = pluggy.HookspecMarker("fairbench")
hookimpl = pluggy.HookimplMarker("fairbench")


@hookspec
def fairbench_datasets() -> Iterable[type[Dataset]]:  # type: ignore[empty-body]
    """Offer datasets."""


@hookspec
def fairbench_backbones() -> Iterable[type[Backbone]]:  # type: ignore[empty-body]
    """Offer backbones."""


@hookspec
def fairbench_methods() -> Iterable[type[Method]]:  # type: ignore[empty-body]
    """Offer debiasing methods."""


@hookspec
def fairbench_metrics() -> Iterable[Metric]:  # type: ignore[empty-body]
    """Offer metrics."""


@hookspec
def fairbench_trackers() -> Iterable[type[Tracker]]:  # type: ignore[empty-body]
    """Offer trackers, which hear of every step of a job where `--track NAME` asks for them."""


@hookspec
def fairbench_launchers() -> Iterable[type[Launcher]]:  # type: ignore[empty-body]
    """Offer launchers, one of which gets the jobs done where `--launcher NAME` asks for it."""


@hookspec
def fairbench_commands(cli: click.Group) -> None:
    """Add commands to the command line."""


@hookspec
def fairbench_job_finished(record: Record) -> None:
    """Hear of every finished or failed job, after its record is on disk (notifiers)."""
