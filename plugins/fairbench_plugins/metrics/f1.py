"""F1: of the positive class, and averaged over all classes."""

from collections.abc import Iterable

import numpy as np

from fairbench import Metric, Predictions, Undefined, hookimpl


def f1(rows: Predictions) -> float:
    """Compute F1 of the positive class; undefined without positives, where it could only be 0."""
    return _f1_of(rows, 1, "positives")


def macro_f1(rows: Predictions) -> float:
    """Average F1 over all classes; undefined when a class has no rows."""
    return float(np.mean([_f1_of(rows, index, name) for index, name in enumerate(rows.classes)]))


def _f1_of(rows: Predictions, index: int, name: str) -> float:
    of_class, as_class = rows.target == index, rows.answer == index
    if not of_class.any():
        raise Undefined(f"no {name}")
    return float(2 * (of_class & as_class).sum() / (of_class.sum() + as_class.sum()))


@hookimpl
def fairbench_metrics() -> Iterable[Metric]:
    """Offer F1 and macro-F1."""
    source = "van Rijsbergen 1979, Information Retrieval, ch. 7"
    return [
        Metric(
            name="f1",
            title="F1",
            formula="2 TP / (2 TP + FP + FN) of the positive class",
            source=source,
            over=f1,
            scale="fraction",
            needs=("classes", "two classes"),
            undefined="no positives",
        ),
        Metric(
            name="macro_f1",
            title="Macro-F1",
            formula="mean over classes of 2 TP / (2 TP + FP + FN)",
            source=source,
            over=macro_f1,
            scale="fraction",
            needs=("classes",),
            undefined="a class has no rows",
        ),
    ]
