"""Metrics in other processes: sent by where they are offered, since functions that functions make do not travel."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from fairbench.metrics.metric import Metric

HOOK = "fairbench_metrics"  # what a plugin's module offers metrics by

References = tuple[tuple[str, str], ...]  # module and name


def references(metrics: Mapping[str, Metric]) -> References | None:
    """Say where each metric is offered; None if another process would not find every one of them there.

    Not found there are those of a single file (`--plugin`) and of the calling script, known in this process only.
    """
    sent = tuple((home(metric), metric.name) for metric in metrics.values())
    try:
        there = received(sent)
        known = all(module != "__main__" and importlib.util.find_spec(module) for module, _ in sent)
    except Exception:  # whatever a module raises that is imported again
        return None
    return sent if known and all(_about(there[name]) == _about(one) for name, one in metrics.items()) else None


def received(sent: References) -> dict[str, Metric]:
    """Return the metrics by name; raises KeyError where one is not offered."""
    offered = {module: {one.name: one for one in _offered(module)} for module, _ in sent}
    return {name: offered[module][name] for module, name in sent}


def home(metric: Metric) -> str:
    """Name the module whose function a metric is computed by."""
    return str(getattr(metric.each or metric.over, "__module__", ""))


def _offered(module: str) -> Iterable[Metric]:
    home = importlib.import_module(module)
    things = getattr(home, HOOK)() if hasattr(home, HOOK) else vars(home).values()
    return [one for one in things if isinstance(one, Metric)]


def _about(metric: Metric) -> tuple[Any, ...]:
    """All that a metric says of itself, and which functions compute it, by name."""
    functions = (metric.each, metric.over, metric.made_with)
    names = [getattr(one, "__qualname__", None) for one in functions]
    return replace(metric, each=None, over=len, made_with=None), *names
