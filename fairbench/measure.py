"""What a table may be judged by, and what else to measure where answers are written."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fairbench.errors import FairbenchError
from fairbench.metric import ACCURACY, Metric, Undefined
from fairbench.predictions import Predictions
from fairbench.settings import suggest
from fairbench.table import Measure


def judge(name: str, metrics: Mapping[str, Metric], predictions: Predictions) -> Metric:
    """Return the metric that a table is judged by; raises FairbenchError when it cannot judge these rows."""
    if name not in metrics:
        raise suggest("metric", name, metrics)
    metric = metrics[name]
    if not _scores_rows(metric):
        raise FairbenchError(
            f"a table cannot be judged by {name}",
            "it takes a metric that scores every row from 0 to 1, more being better: "
            + ", ".join(other.name for other in metrics.values() if _scores_rows(other)),
        )
    try:
        metric.scores(predictions)
    except Undefined as reason:
        raise FairbenchError(f"a table cannot be judged by {name}: {reason}") from reason
    return metric


def _scores_rows(metric: Metric) -> bool:
    return bool(metric.each is not None and metric.higher_is_better and (metric.low, metric.high) == (0.0, 1.0))


def others(
    chosen: Metric, metrics: Mapping[str, Metric], predictions: Predictions
) -> tuple[list[Metric], list[str]]:
    """Find what else to measure where answers are written, and say what could not be."""
    if "text" not in predictions.table:
        return [], []
    able, unable = [], []
    for metric in metrics.values():
        whole = _scores_rows(metric) and (metric is ACCURACY or "text" in metric.needs)
        if metric is chosen or not whole or not metric.concerns(predictions):
            continue
        try:
            if np.isfinite(metric.scores(predictions)).all():
                able.append(metric)
        except Undefined as reason:
            unable.append(f"{metric.title} is not measured: {reason}.")
    return able, unable


def called(metric: Metric) -> Measure:
    """Say how headings call a metric and its gap."""
    if metric is ACCURACY:
        return Measure()
    return Measure(metric.name, metric.title, f"{metric.title} gap", f"{metric.formula} ({metric.source})")
