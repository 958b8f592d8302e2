"""Calibration: whether a stated probability is how often it comes true."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from fairbench import Metric, Predictions, hookimpl

BINS = 15


def brier(rows: Predictions) -> npt.NDArray[np.float64]:
    """Score each row by half the squared distance of its probabilities from the truth, (n,) in [0, 1]."""
    squares = np.zeros(len(rows))
    for index in range(len(rows.classes)):
        squares += (rows.probability(index) - (rows.target == index)) ** 2
    return squares / 2


def ece(rows: Predictions) -> float:
    """Average |accuracy − confidence| over equal-width bins of the most probable class's probability."""
    confidence, likeliest = rows.probability(0).astype(np.float64), np.zeros(len(rows), dtype=np.int16)
    for index in range(1, len(rows.classes)):
        more = rows.probability(index) > confidence
        confidence = np.where(more, rows.probability(index), confidence)
        likeliest[more] = index
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    excess = np.bincount(bins, weights=confidence - (likeliest == rows.target), minlength=BINS)
    return float(np.abs(excess).sum() / len(rows))


@hookimpl
def fairbench_metrics() -> Iterable[Metric]:
    """Offer the Brier score and the expected calibration error."""
    return [
        Metric(
            name="brier",
            title="Brier score",
            formula="mean of Σ_c (p_c − [c is the target])² / 2; with two classes (p − y)²",
            source="Brier 1950, halved so that it is a fraction",
            each=brier,
            higher_is_better=False,
            scale="fraction",
            needs=("classes", "probabilities"),
        ),
        Metric(
            name="ece",
            title="Expected calibration error",
            formula=f"Σ_b n_b/n · |accuracy_b − confidence_b|, {BINS} equal bins of the largest probability",
            source="Guo et al. 2017 (arXiv 1706.04599), eq. 3; biased upwards in small groups",
            over=ece,
            smooth=False,
            higher_is_better=False,
            scale="fraction",
            needs=("classes", "probabilities"),
        ),
    ]
