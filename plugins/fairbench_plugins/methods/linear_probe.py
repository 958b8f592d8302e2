"""Logistic regression on the backbone's own frozen image features."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fairbench import Method, Run, Stage, hookimpl

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # scikit-learn's C, of which the validation split's log loss chooses


class LinearProbe(Method):
    """Train nothing: regress the class on the mean and the largest of each image's frozen features. What does not
    beat this is limited by its training or its backbone, not by a method (Alain and Bengio, arXiv 1610.01644).
    """

    name = "linear-probe"
    uses_attributes = False
    role = "reference"
    stands_for = "logistic regression on the frozen image features"
    needs = ("classes",)

    def plan(self, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        """Train no part of the backbone."""
        return ()

    def adjust(self, run: Run, validation: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
        """Answer the test rows by the regression; it asks nothing but the images."""
        classes = range(len(run.train.classes))
        target, asked = run.train.target.numpy(), run.validation.target.numpy()
        train = run.image_features("train", range(len(target))).double().numpy()
        held_out = run.image_features("val", range(len(asked))).double().numpy()
        probes = [
            make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=1_000)).fit(train, target)
            for penalty in PENALTIES
        ]
        worth = [log_loss(asked, shares(probe, held_out, len(classes)), labels=list(classes)) for probe in probes]
        best = int(np.argmin(worth))
        run.facts["penalty"] = PENALTIES[best]
        share = shares(probes[best], run.image_features("test", range(len(test))).double().numpy(), len(classes))
        return test.assign(answer=share.argmax(1), **{f"p_{index}": share[:, index] for index in classes})


def shares(probe: LogisticRegression, features: np.ndarray, classes: int) -> np.ndarray:
    """Return each class's probability, (n, classes); 0 for a class that the training split lacks."""
    known = np.zeros((len(features), classes))
    known[:, probe.classes_] = probe.predict_proba(features)
    return known


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer the control."""
    return [LinearProbe]
