"""Score predictions: overall, in every group, and between groups, as one JSON-ready dictionary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fairbench.metrics.disparity import Disparity, DisparityValue, disparities
from fairbench.metrics.metric import RATES, Metric, Value
from fairbench.predictions.predictions import IntArray, Predictions

Json = dict[str, Any]


def score(
    predictions: Predictions,
    attributes: Sequence[str],
    metrics: Sequence[Metric] = (),
    policy: str = "keep",
    equity: str = "fairllava",
) -> Json:
    """Compute the four rates, `metrics`, and every disparity, for each attribute.

    Metrics of classes are left out where there are none, metrics of text where there is none, and those that
    a model measures where it was not asked for (see `Metric.listed_for`).

    Returns `n`, counts, `classes`, `overall.<metric>` and `attributes.<attribute>` with `unrecorded` (policy
    and rows), `groups.<group>.{n, positives, negatives, unparsed, <metric>…}` and per disparity `{value,
    coverage, reason?, group?, preset?}`, where coverage is [groups used, groups present]. All values are
    fractions; an undefined one is null and its reason stands beside it under `undefined`. More than two
    classes have `per_class` counts, and TPR and FPR of each against the rest. `made_with.<metric>` names the
    versions of libraries and models that a value depends on. Raises FairbenchError for an
    unknown attribute or policy.
    """
    derived = disparities(metrics, predictions.classes, equity)
    rules = {name: rule for name, rule in derived.items() if rule.listed_for(predictions)}
    made_of = [metric for rule in rules.values() for metric in rule.metrics]
    offered = [metric for metric in (*RATES, *metrics) if metric.listed_for(predictions)]
    every = {metric.name: metric for metric in (*offered, *made_of)}
    overall = {name: metric.value(predictions) for name, metric in every.items()}

    def between(attribute: str) -> Json:
        codes, names = predictions.groups(attribute, policy)
        cells = {name: metric.by_group(predictions, codes, len(names)) for name, metric in every.items()}
        counts = _counts(predictions, codes, len(names))
        by_group = {
            group: {**counts[place], **_values({name: values[place] for name, values in cells.items()})}
            for place, group in enumerate(names)
        }
        found = {
            name: describe(
                rule,
                rule.between([cells[m.name] for m in rule.metrics], [overall[m.name] for m in rule.metrics], names),
            )
            for name, rule in rules.items()
        }
        unrecorded = {"policy": policy, "rows": int((~predictions.recorded(attribute)).sum())}
        return {"unrecorded": unrecorded, "groups": by_group, **found}

    return {
        **_counts(predictions, np.zeros(len(predictions), dtype=np.int32), 1)[0],
        "classes": list(predictions.classes),
        "overall": _values(overall),
        "made_with": {name: metric.versions() for name, metric in every.items() if metric.made_with},
        "attributes": {attribute: between(attribute) for attribute in attributes},
    }


def describe(rule: Disparity, found: DisparityValue) -> Json:
    """Write one disparity; the evidence about it (`ci`, `p`, `floor_95` …) is added to this same object."""
    optional = {"reason": found.reason, "group": found.group, "preset": rule.preset}
    return {
        "value": found.value,
        "coverage": list(found.coverage),
        **{key: value for key, value in optional.items() if value is not None},
    }


def _values(values: dict[str, Value]) -> Json:
    """Write values by name, and under `undefined` the reasons of those that have none."""
    reasons = {name: value.reason for name, value in values.items() if value.value is None}
    return {
        **{name: value.value for name, value in values.items()},
        **({"undefined": reasons} if reasons else {}),
    }


def _counts(predictions: Predictions, codes: IntArray, count: int) -> list[Json]:
    """Count rows, rows per class and unparsed answers in every group."""

    def per_group(chosen: npt.NDArray[np.bool_]) -> list[int]:
        counted: list[int] = np.bincount(codes[chosen], minlength=count).tolist()
        return counted

    inside = codes >= 0
    columns = {"n": per_group(inside)}
    if "target" not in predictions.table:
        return [{"n": n} for n in columns["n"]]
    of_class = [per_group(inside & (predictions.target == index)) for index in range(len(predictions.classes))]
    if len(of_class) == 2:
        columns |= {"positives": of_class[1], "negatives": of_class[0]}
    columns["unparsed"] = per_group(inside & (predictions.answer < 0))
    rows: list[Json] = [{key: column[place] for key, column in columns.items()} for place in range(count)]
    if len(of_class) > 2:
        for row, numbers in zip(rows, zip(*of_class, strict=True), strict=True):
            row["per_class"] = dict(zip(predictions.classes, numbers, strict=True))
    return rows
