"""How well a linear probe tells an attribute from hidden states: what is asked, and the statistics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fairbench.statistics.moments import group_moments, limits_with_seeds
from fairbench.statistics.resampling import tabulate
from fairbench.statistics.results import ALPHA

MOST_TRAINED = 5_000  # rows that a reader learns from; more change its accuracy little
PENALTIES = (0.01, 0.1, 1.0, 10.0)  # scikit-learn's C, of which the validation split chooses
DRAWS = 1_000
LEAST = 2  # rows of a value, below which there is nothing to learn or to test

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Split:
    """One split's states (n, D), attribute codes (n,), -1 where not recorded, and clusters (n,)."""

    states: Floats
    codes: Codes
    cluster: Codes

    def recorded(self) -> Split:
        """Leave out the rows whose attribute is not recorded."""
        known = self.codes >= 0
        return Split(self.states[known], self.codes[known], self.cluster[known])


def read(train: Split, val: Split, test: Split, values: tuple[str, ...]) -> dict[str, Any]:
    """Fit a reader on `train` and test it: `value` is its balanced accuracy, with a 95 % interval, AUROC, chance
    and p.

    The reader is logistic regression on standardised states, all values weighing alike; its penalty is
    the one of PENALTIES with the best balanced accuracy on `val`. The interval adds up those of the values, of
    whole clusters (patients), which exchange their values for p, the share of such exchanges in which the same
    answers do as well. Fractions; a JSON-ready object, which says under `reason` why nothing could be read.
    """
    train, val, test = _evenly(train.recorded(), MOST_TRAINED), val.recorded(), test.recorded()
    about = {"values": list(values), "rows": [len(train.codes), len(test.codes)]}
    for name, split in (("train", train), ("test", test)):
        counts = np.bincount(split.codes, minlength=len(values))
        if len(values) < 2 or counts.min() < LEAST:
            scarce = ", ".join(value for value, n in zip(values, counts, strict=True) if n < LEAST)
            why = f"fewer than {LEAST} {name} rows are {scarce}" if len(values) > 1 else "it has one value"
            return {**about, "reason": why}
    reader = _fitted(train, val)
    probability = reader.predict_proba(test.states)
    answer = reader.classes_[probability.argmax(1)]
    accuracy, low, high = _balanced(test, answer, len(values))
    by_chance = _exchanged(test, answer, len(values), np.random.default_rng(0))
    return {
        **about,
        "value": accuracy,
        "low": low,
        "high": high,
        "auroc": _auroc(test.codes, probability),
        "chance": 1 / len(values),
        "p": float((1 + np.sum(by_chance >= accuracy - 1e-12)) / (1 + DRAWS)),
    }


def _evenly(split: Split, most: int) -> Split:
    """Keep at most so many rows, evenly spaced."""
    chosen = np.unique(np.linspace(0, len(split.codes) - 1, min(most, len(split.codes))).astype(int))
    return Split(split.states[chosen], split.codes[chosen], split.cluster[chosen])


def _fitted(train: Split, val: Split) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def fit(penalty: float) -> Any:
        learner = LogisticRegression(C=penalty, class_weight="balanced", max_iter=1_000)
        return make_pipeline(StandardScaler(), learner).fit(train.states, train.codes)

    readers = [fit(penalty) for penalty in PENALTIES]
    if np.unique(val.codes).size < 2:
        return readers[PENALTIES.index(1.0)]
    worth = [balanced_accuracy_score(val.codes, reader.predict(val.states)) for reader in readers]
    return readers[int(np.argmax(worth))]


def _auroc(codes: Codes, probability: Floats) -> float:
    """Mean AUROC of each value against the rest."""
    from sklearn.metrics import roc_auc_score

    indices = [1] if probability.shape[1] == 2 else range(probability.shape[1])
    return float(np.mean([roc_auc_score(codes == index, probability[:, index]) for index in indices]))


def _balanced(test: Split, answer: Codes, count: int) -> tuple[float, float, float]:
    """Balanced accuracy with its limits: the share that was read right of each value, which weigh alike."""
    right = (answer == test.codes).astype(float)
    rates = [np.where(test.codes == value, right, np.nan) for value in range(count)]
    _, cluster = np.unique(test.cluster, return_inverse=True)
    table = tabulate(rates, np.zeros(len(right), dtype=np.int64), cluster.ravel(), 1)
    mean, low, high = limits_with_seeds(group_moments(table), ALPHA, [1 / count] * count, ())
    return float(mean[0, 0]), float(low[0, 0]), float(high[0, 0])


def _exchanged(test: Split, answer: Codes, count: int, generator: np.random.Generator) -> Floats:
    """Balanced accuracies of the same answers when clusters exchange their values, (DRAWS,).

    A cluster's value is that of its first row; a patient has one race.
    """
    _, first, place = np.unique(test.cluster, return_index=True, return_inverse=True)
    answers = np.zeros((len(first), count))
    np.add.at(answers, (place, answer), 1)
    own = test.codes[first]
    accuracies = np.empty(DRAWS)
    for draw in range(DRAWS):
        member = np.eye(count)[generator.permutation(own)]
        with np.errstate(invalid="ignore"):
            accuracies[draw] = np.nanmean((member * answers).sum(0) / member.T.dot(answers.sum(1)))
    return accuracies
