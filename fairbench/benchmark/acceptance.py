"""Try out, before a benchmark runs, whether its backbones can take every row of a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from fairbench.benchmark.benchmark import Benchmark
from fairbench.jobs.job import Choice
from fairbench.plugins import Plugins

if TYPE_CHECKING:
    from fairbench.data.report import RowTrial


def trials(benchmark: Benchmark, plugins: Plugins) -> Mapping[str, RowTrial]:
    """Return for each backbone of a benchmark what says which rows it refuses: id → why.

    Its processor is loaded and not its weights, where it can be; raises FairbenchError where they are absent.
    """
    return {name: _trial(name, benchmark, plugins) for name in benchmark.backbone_names}


def _trial(name: str, benchmark: Benchmark, plugins: Plugins) -> RowTrial:
    from fairbench.training.acceptance import refused

    choice = Choice(name, benchmark.settings.get(name, {}))
    backbone = plugins.make("backbone", choice, benchmark.places)
    backbone.load_preprocessing()
    return lambda dataset, table: refused(dataset, table, backbone)
