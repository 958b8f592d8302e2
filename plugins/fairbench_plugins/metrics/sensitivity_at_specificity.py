"""Sensitivity at a fixed specificity: the reading of a screening test."""

from collections.abc import Iterable

import numpy as np

from fairbench import Metric, Predictions, Undefined, hookimpl

SPECIFICITY = 0.9


def sensitivity(rows: Predictions) -> float:
    """Find the largest sensitivity whose threshold (score ≥ t) leaves specificity at 90 % or more."""
    positive = rows.target == 1
    if not positive.any():
        raise Undefined("no positives")
    if positive.all():
        raise Undefined("no negatives")
    scores = rows.probability(1)
    negatives = np.sort(scores[~positive])
    allowed = int(np.floor((1 - SPECIFICITY) * len(negatives) + 1e-9))  # false positives we may have
    return float((scores[positive] > negatives[-1 - allowed]).mean())


@hookimpl
def fairbench_metrics() -> Iterable[Metric]:
    """Offer the sensitivity at 90 % specificity."""
    return [
        Metric(
            name="sensitivity_at_90_specificity",
            title="Sensitivity at 90 % specificity",
            formula="largest TPR of any threshold whose FPR is at most 10 %, on the rows' own ROC curve "
            "(so each group has its own threshold)",
            source="Pepe 2003, The Statistical Evaluation of Medical Tests, ch. 4",
            over=sensitivity,
            needs=("classes", "two classes", "probabilities"),
            undefined="no positives or no negatives",
        )
    ]
