"""Run a test once for every check of a plugin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fairbench.data.dataset import Dataset
from fairbench.metrics.metric import Metric
from fairbench.models.backbone import Backbone
from fairbench.testing.backbones import BACKBONE_CHECKS
from fairbench.testing.datasets import DATASET_CHECKS
from fairbench.testing.methods import METHOD_CHECKS
from fairbench.testing.metrics import METRIC_CHECKS
from fairbench.training.method import Method


def _parametrize(checks: Sequence[Callable[..., None]], what: str, item: Any) -> Any:
    import pytest

    cases = [pytest.param(check, item, id=check.__name__) for check in checks]
    return pytest.mark.parametrize(("check", what), cases)


def parametrize_method(method: type[Method]) -> Any:
    """Run a test once for every check of a method; the test takes `check` and `method`."""
    return _parametrize(METHOD_CHECKS, "method", method)


def parametrize_backbone(backbone: type[Backbone]) -> Any:
    """Run a test once for every check of a backbone; the test takes `check` and `backbone`."""
    return _parametrize(BACKBONE_CHECKS, "backbone", backbone)


def parametrize_dataset(dataset: Dataset) -> Any:
    """Run a test once for every check of a dataset; the test takes `check` and `dataset`."""
    return _parametrize(DATASET_CHECKS, "dataset", dataset)


def parametrize_metric(metric: Metric) -> Any:
    """Run a test once for every check of a metric; the test takes `check` and `metric`."""
    return _parametrize(METRIC_CHECKS, "metric", metric)
