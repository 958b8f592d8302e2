"""AUROC: how often a positive is scored above a negative."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from fairbench import Metric, Predictions, Undefined, hookimpl


def auroc(rows: Predictions) -> float:
    """Compute the binary AUROC, or for more classes the mean of one class against the rest."""
    positives = range(1, 2) if len(rows.classes) == 2 else range(len(rows.classes))
    return float(np.mean([_one_vs_rest(rows, index) for index in positives]))


def _one_vs_rest(rows: Predictions, index: int) -> float:
    is_class = rows.target == index
    n_class, n_rest = int(is_class.sum()), int((~is_class).sum())
    binary = len(rows.classes) == 2
    if not n_class:
        raise Undefined("no positives" if binary else f"no {rows.classes[index]}")
    if not n_rest:
        raise Undefined("no negatives" if binary else f"nothing but {rows.classes[index]}")
    ranks = _middle_ranks(rows.probability(index))
    return float((ranks[is_class].sum() - n_class * (n_class + 1) / 2) / (n_class * n_rest))


def _middle_ranks(scores: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Rank from 1; equal scores share the middle of their ranks."""
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[place]


@hookimpl
def fairbench_metrics() -> Iterable[Metric]:
    """Offer AUROC."""
    return [
        Metric(
            name="auroc",
            title="AUROC",
            formula="P(score of a positive > score of a negative), ties half; "
            "more than two classes: mean over classes, each against the rest",
            source="Hanley & McNeil 1982 (doi:10.1148/radiology.143.1.7063747)",
            over=auroc,
            scale="fraction",
            needs=("classes", "probabilities"),
            undefined="no positives or no negatives (of any class)",
        )
    ]
