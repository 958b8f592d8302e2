"""The control that reads a backbone's own features, against the same regression done by hand."""

import numpy as np
import pytest
import torch
from fairbench_plugins.methods.linear_probe import PENALTIES, LinearProbe
from scipy.optimize import minimize

from fairbench.data.dataset import rows
from fairbench.testing import ToyBackbone, ToyDataset, train


def features(dataset):
    """Mean and largest of every row's features, computed from the pixels."""
    backbone = ToyBackbone().build(dataset.classes, dataset.words, torch.float32, torch.device("cpu"))
    table = rows(dataset)
    with torch.no_grad():
        tokens = [
            backbone.encode(backbone.prepare(dataset.image(row), dataset.prompt)).numpy()
            for row in table.to_dict("records")
        ]
    return table, np.array([[*each.mean(0), *each.max(0)] for each in tokens], dtype=np.float64)


@pytest.mark.parametrize("cached", [True, False])
def test_it_is_the_regression_that_validation_prefers(cached):
    dataset = ToyDataset()
    table, values = features(dataset)
    target = (table["target"] == "bright").to_numpy()
    part = {split: (table["split"] == split).to_numpy() for split in ("train", "val", "test")}
    scaled = (values - values[part["train"]].mean(0)) / values[part["train"]].std(0)

    def fitted(penalty):
        x, y = scaled[part["train"]], target[part["train"]]

        def objective(w):
            z = x @ w[:-1] + w[-1]
            return penalty * np.sum(np.logaddexp(0, z) - y * z) + w[:-1] @ w[:-1] / 2

        w = minimize(objective, np.zeros(x.shape[1] + 1), method="BFGS", options={"gtol": 1e-7}).x
        return 1 / (1 + np.exp(-(scaled @ w[:-1] + w[-1])))

    probabilities = {penalty: fitted(penalty) for penalty in PENALTIES}
    loss = {
        penalty: -np.log(np.where(target, p, 1 - p)[part["val"]]).mean() for penalty, p in probabilities.items()
    }
    best = min(loss, key=loss.get)
    outcome = train(LinearProbe, features=cached)
    test = outcome.predictions[outcome.predictions["split"] == "test"]
    assert outcome.record.facts["penalty"] == best
    np.testing.assert_allclose(test["p_1"], probabilities[best][part["test"]], atol=1e-3)
    assert outcome.record.steps == 0
