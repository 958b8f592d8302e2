"""Balanced accuracy: every class counts the same, however rare."""

from collections.abc import Iterable

import numpy as np

from fairbench import Metric, Predictions, Undefined, hookimpl


def balanced_accuracy(rows: Predictions) -> float:
    """Average the recall of all classes; undefined when a class has no rows."""
    count = len(rows.classes)
    of_class = np.bincount(rows.target, minlength=count)
    if not of_class.all():
        raise Undefined(f"no {rows.classes[int(of_class.argmin())]}")
    right = np.bincount(rows.target[rows.answer == rows.target], minlength=count)
    return float((right / of_class).mean())


@hookimpl
def fairbench_metrics() -> Iterable[Metric]:
    """Offer balanced accuracy."""
    return [
        Metric(
            name="balanced_accuracy",
            title="Balanced accuracy",
            formula="mean over classes of the share of a class's rows answered with it",
            source="Brodersen et al. 2010 (doi:10.1109/ICPR.2010.764)",
            over=balanced_accuracy,
            needs=("classes",),
            undefined="a class has no rows",
        )
    ]
