"""The conformance kit: what every plugin must do, shown on toys in a few seconds a plugin.

from fairbench.testing import parametrize_method

@parametrize_method(MyMethod)
def test_my_method(check, method):
    check(method)
"""

from fairbench.testing.backbones import BACKBONE_CHECKS
from fairbench.testing.datasets import DATASET_CHECKS
from fairbench.testing.kit import parametrize_backbone, parametrize_dataset, parametrize_method, parametrize_metric
from fairbench.testing.methods import METHOD_CHECKS
from fairbench.testing.metrics import METRIC_CHECKS, toy_predictions
from fairbench.testing.toys import (
    STAGES,
    TOLERANCE,
    Outcome,
    ToyBackbone,
    ToyDataset,
    difference,
    toy_plugins,
    train,
)

__all__ = [
    "BACKBONE_CHECKS",
    "DATASET_CHECKS",
    "METHOD_CHECKS",
    "METRIC_CHECKS",
    "STAGES",
    "TOLERANCE",
    "Outcome",
    "ToyBackbone",
    "ToyDataset",
    "difference",
    "parametrize_backbone",
    "parametrize_dataset",
    "parametrize_method",
    "parametrize_metric",
    "toy_plugins",
    "toy_predictions",
    "train",
]
