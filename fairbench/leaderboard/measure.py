"""What a table is judged by, and what else is measured beside it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from fairbench.errors import FairbenchError
from fairbench.leaderboard.board import Measure
from fairbench.metrics.metric import ACCURACY, Metric, Undefined, rows_of
from fairbench.predictions.predictions import Predictions
from fairbench.settings import suggest


def judging_metric(name: str, metrics: Mapping[str, Metric], *rows: Predictions) -> Metric:
    """Return the metric that a table is judged by; raises FairbenchError where it cannot score some rows."""
    if name not in metrics:
        raise suggest("metric", name, metrics)
    metric = metrics[name]
    if not _scores_rows(metric):
        able = [one.name for one in metrics.values() if _scores_rows(one) and "two classes" not in one.needs]
        raise FairbenchError(
            f"a table cannot be judged by {name}",
            f"it takes a metric that scores every row from 0 to 1, more being better: {', '.join(able)}",
        )
    for predictions in rows:
        if reason := unscored(metric, predictions):
            raise FairbenchError(
                f"a table cannot be judged by {name}: {reason}", "choose a metric that scores rows (--measure)"
            )
    return metric


def unscored(metric: Metric, predictions: Predictions) -> str | None:
    """Say why a metric does not score every one of these rows; None where it does."""
    try:
        lacking = int((~np.isfinite(metric.scores(predictions))).sum())
    except Undefined as reason:
        return str(reason)
    return f"it leaves {rows_of(lacking)} without a score" if lacking else None


def _scores_rows(metric: Metric) -> bool:
    return bool(metric.each is not None and metric.higher_is_better and (metric.low, metric.high) == (0.0, 1.0))


def further_metrics(
    judge: Metric, metrics: Mapping[str, Metric], rows: Sequence[Predictions], also: Collection[str] = ()
) -> tuple[list[Metric], dict[str, str]]:
    """Find what else to measure: what was asked for (`also`), and where answers are written all that scores rows.

    Also return, by name, why something could not be. Raises FairbenchError for an unknown name.
    """
    for name in also:
        if name not in metrics:
            raise suggest("metric", name, metrics)
    written = bool(rows) and "text" in rows[0].table
    able: list[Metric] = []
    missing: dict[str, str] = {}
    for metric in metrics.values():
        whole = _scores_rows(metric) and (metric is ACCURACY or "text" in metric.needs)
        fitting = written and whole and metric.listed_for(rows[0])
        if metric is judge or not (fitting or metric.name in also):
            continue
        faults = [unscored(metric, one) if fitting else metric.value(one).reason for one in rows]
        reason = next((said for said in faults if said), None)
        if reason is None:
            able.append(metric)
        else:
            missing[metric.name] = reason
    return able, missing


def scores_every_row(metric: Metric, rows: Sequence[Predictions]) -> bool:
    """Whether a metric is a mean over all of these rows, of fractions of which more is better."""
    return _scores_rows(metric) and all(unscored(metric, one) is None for one in rows)


def describe(metric: Metric) -> Measure:
    """Say how headings call a metric and its gap."""
    if metric is ACCURACY:
        return Measure()
    about = f"{metric.formula} ({metric.source})"
    return Measure(metric.name, metric.title, f"{metric.title} gap", about, metric.scale)
