"""Accuracy, TPR, FPR and selection rate: the rates that disparities are made of."""

from collections.abc import Iterable

from fairbench import RATES, Metric, hookimpl


@hookimpl
def fairbench_metrics() -> Iterable[Metric]:
    """Offer the core's own rates."""
    return RATES
