"""Score predictions: overall, in every group, and between groups; values only (see `metrics.evidence` for more)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fairbench.metrics.disparity import Disparity, disparities
from fairbench.metrics.metric import Metric, registry
from fairbench.predictions.predictions import IntArray, Predictions
from fairbench.statistics.results import Estimate, Gap


@dataclass(frozen=True)
class RowScores:
    """What is said of one set of rows: `counts` (n, and where there are classes positives, negatives or
    `per_class`, unparsed), and every metric by name.
    """

    counts: Mapping[str, int]
    metrics: Mapping[str, Estimate]
    per_class: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class AttributeScores:
    """One attribute: `unrecorded` rows and the policy for them, every group by name, every disparity by name."""

    policy: str
    unrecorded: int
    groups: Mapping[str, RowScores]
    disparities: Mapping[str, Gap]


@dataclass(frozen=True)
class Scores:
    """Everything about one table of predictions.

    `made_with` names, by metric, the versions of libraries and models that a value depends on; `equity` the
    reading of ES-M.
    """

    classes: tuple[str, ...]
    overall: RowScores
    attributes: Mapping[str, AttributeScores]
    made_with: Mapping[str, str]
    equity: str


def score(
    predictions: Predictions,
    attributes: Sequence[str],
    metrics: Sequence[Metric] = (),
    policy: str = "keep",
    equity: str = "fairllava",
) -> Scores:
    """Compute the four rates, `metrics`, and every disparity, for each attribute; fractions.

    Metrics of classes are left out where there are none, metrics of text where there is none, and those that
    a model measures where it was not asked for (see `Metric.listed_for`). More than two classes have counts per
    class, and TPR and FPR of each against the rest. Raises FairbenchError for an unknown attribute or policy.
    """
    rules = listed_disparities(predictions, metrics, equity)
    every = listed_metrics(predictions, metrics, rules)
    overall = {name: metric.value(predictions) for name, metric in every.items()}
    everyone = np.zeros(len(predictions), dtype=np.int32)

    def between(attribute: str) -> AttributeScores:
        codes, names = predictions.groups(attribute, policy)
        cells = {name: metric.by_group(predictions, codes, len(names)) for name, metric in every.items()}
        by_group = [{name: values[place] for name, values in cells.items()} for place in range(len(names))]
        gaps = {
            name: rule.between(
                [cells[m.name] for m in rule.metrics], [overall[m.name] for m in rule.metrics], names
            )
            for name, rule in rules.items()
        }
        counted = _counted(predictions, codes, by_group)
        unrecorded = int((~predictions.recorded(attribute)).sum())
        return AttributeScores(policy, unrecorded, dict(zip(names, counted, strict=True)), gaps)

    return Scores(
        classes=predictions.classes,
        overall=_counted(predictions, everyone, [overall])[0],
        attributes={attribute: between(attribute) for attribute in attributes},
        made_with={name: metric.versions() for name, metric in every.items() if metric.made_with},
        equity=equity,
    )


def listed_disparities(
    predictions: Predictions, metrics: Sequence[Metric], equity: str = "fairllava"
) -> dict[str, Disparity]:
    """Return the disparities that a report on these predictions lists, by name."""
    derived = disparities(metrics, predictions.classes, equity)
    return {name: rule for name, rule in derived.items() if rule.listed_for(predictions)}


def listed_metrics(
    predictions: Predictions, metrics: Sequence[Metric], rules: Mapping[str, Disparity]
) -> dict[str, Metric]:
    """Return the metrics that a report on these predictions lists, with those that its disparities are made of."""
    offered = {name: metric for name, metric in registry(metrics).items() if metric.listed_for(predictions)}
    return offered | {metric.name: metric for rule in rules.values() for metric in rule.metrics}


def _counted(
    predictions: Predictions, codes: IntArray, values: Sequence[Mapping[str, Estimate]]
) -> list[RowScores]:
    """Join every group's values with its rows, rows per class and unparsed answers."""

    def per_group(chosen: npt.NDArray[np.bool_]) -> list[int]:
        counted: list[int] = np.bincount(codes[chosen], minlength=len(values)).tolist()
        return counted

    inside = codes >= 0
    columns, of_class = {"n": per_group(inside)}, []
    if "target" in predictions.table:
        indices = range(len(predictions.classes))
        of_class = [per_group(inside & (predictions.target == index)) for index in indices]
        if len(of_class) == 2:
            columns |= {"positives": of_class[1], "negatives": of_class[0]}
        columns["unparsed"] = per_group(inside & (predictions.answer < 0))
    several = dict(zip(predictions.classes, of_class, strict=False)) if len(of_class) > 2 else {}
    return [
        RowScores(
            {key: column[place] for key, column in columns.items()},
            metrics,
            {name: column[place] for name, column in several.items()},
        )
        for place, metrics in enumerate(values)
    ]
