"""Which epoch's weights to keep: a rule that sees the validation split and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fairbench.errors import FairbenchError
from fairbench.plugins import Plugins
from fairbench.predictions.predictions import Predictions
from fairbench.settings import suggest

if TYPE_CHECKING:
    from fairbench.data.dataset import Dataset

LAST, WORST, DISTANCE = "last", "best:worst-group", "dto"


def needs_groups(rule: str) -> bool:
    """Whether the rule looks at groups, so that even an attribute-free method is selected for each attribute."""
    return rule in (WORST, DISTANCE)


def check(rule: str, plugins: Plugins) -> None:
    """Refuse a rule that does not exist, naming those that do."""
    ordered = [name for name, metric in plugins.tables["metric"].items() if metric.higher_is_better is not None]
    known = [LAST, WORST, DISTANCE, *(f"best:{name}" for name in ordered)]
    if rule not in known:
        raise suggest("selection rule", rule, known)


def lacking(rule: str, dataset: Dataset, plugins: Plugins) -> list[str]:
    """Return which of the `needs` of a rule's metric the answers to a dataset cannot meet."""
    if rule == LAST:
        return []
    needs = ("classes",) if needs_groups(rule) else plugins.find("metric", rule.removeprefix("best:")).needs
    text, count = dataset.task == "generate", len(dataset.classes)
    has = {"classes": count > 0, "two classes": count == 2, "probabilities": not text, "text": text}
    return [need for need in needs if not has[need]]


def choose(rule: str, epochs: Sequence[Predictions], attribute: str, policy: str, plugins: Plugins) -> int:
    """Return the index of the epoch to keep, given each epoch's validation predictions.

    `best:METRIC` takes the best overall value, `best:worst-group` the best lowest group accuracy,
    `dto` the point (best group's, worst group's accuracy) nearest to the best of each over all epochs
    (MEDFAIR, arXiv 2210.01725, section 4.3). Of equals the earliest wins.
    """
    if rule in (WORST, DISTANCE):
        accuracy = [_group_accuracies(predictions, attribute, policy) for predictions in epochs]
        if rule == WORST:
            return int(np.argmax([values.min() for values in accuracy]))
        points = np.array([(values.max(), values.min()) for values in accuracy])
        return int(np.argmin(np.linalg.norm(points.max(axis=0) - points, axis=1)))
    metric = plugins.find("metric", rule.removeprefix("best:"))
    values = [value for predictions in epochs if (value := metric.value(predictions).value) is not None]
    if len(values) < len(epochs):
        raise FairbenchError(
            f"selection by {metric.name} is not possible: it is undefined on the validation split",
            'select by another metric, or keep the last epoch (select = "last")',
        )
    sign = 1.0 if metric.higher_is_better else -1.0
    return int(np.argmax([sign * value for value in values]))


def _group_accuracies(predictions: Predictions, attribute: str, policy: str) -> np.ndarray:
    codes, names = predictions.groups(attribute, policy)
    right = predictions.target == predictions.answer
    return np.array([right[codes == code].mean() for code in range(len(names))])
