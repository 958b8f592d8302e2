"""What a table is judged by, and what else is measured beside it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fairbench.errors import FairbenchError
from fairbench.leaderboard.board import Measure
from fairbench.metrics.metric import ACCURACY, Metric, Undefined
from fairbench.predictions.predictions import Predictions
from fairbench.settings import suggest


def judging_metric(name: str, metrics: Mapping[str, Metric], predictions: Predictions) -> Metric:
    """Return the metric that a table is judged by; raises FairbenchError when it cannot judge these rows."""
    if name not in metrics:
        raise suggest("metric", name, metrics)
    metric = metrics[name]
    try:
        if _scores_rows(metric) and np.isfinite(metric.scores(predictions)).all():
            return metric
    except Undefined as reason:
        raise FairbenchError(
            f"a table cannot be judged by {name}: {reason}", "choose a metric that scores rows (--measure)"
        ) from reason
    able = [other.name for other in metrics.values() if _scores_rows(other) and "two classes" not in other.needs]
    raise FairbenchError(
        f"a table cannot be judged by {name}",
        f"it takes a metric that scores every row from 0 to 1, more being better: {', '.join(able)}",
    )


def _scores_rows(metric: Metric) -> bool:
    return bool(metric.each is not None and metric.higher_is_better and (metric.low, metric.high) == (0.0, 1.0))


def further_metrics(
    judge: Metric, metrics: Mapping[str, Metric], predictions: Predictions
) -> tuple[list[Metric], dict[str, str]]:
    """Find what else to measure where answers are written, and by title why something could not be."""
    if "text" not in predictions.table:
        return [], {}
    able, missing = [], {}
    for metric in metrics.values():
        whole = _scores_rows(metric) and (metric is ACCURACY or "text" in metric.needs)
        if metric is judge or not whole or not metric.listed_for(predictions):
            continue
        try:
            if np.isfinite(metric.scores(predictions)).all():
                able.append(metric)
        except Undefined as reason:
            missing[metric.name] = str(reason)
    return able, missing


def describe(metric: Metric) -> Measure:
    """Say how headings call a metric and its gap."""
    if metric is ACCURACY:
        return Measure()
    return Measure(metric.name, metric.title, f"{metric.title} gap", f"{metric.formula} ({metric.source})")
