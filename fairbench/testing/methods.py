"""What every method must do: checks whose names are accusations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from fairbench.jobs.job import Stage
from fairbench.testing.toys import TOLERANCE, ToyBackbone, difference, train
from fairbench.training.method import Method


class Plain(Method):
    """Plain fine-tuning, to compare with."""

    name = "plain-for-comparison"


def check_says_what_it_does(method: type[Method]) -> None:
    """It has a name, a docstring, and defaults that its own settings accept."""
    assert method.name == method.name.lower(), "a name is lower case"
    assert method.__doc__, "a method's docstring is its idea and its source"
    assert method(**method().settings()).settings() == method().settings()


def check_trains_and_predicts(method: type[Method]) -> None:
    """It leaves a probability for every class of every row, that adds up to one."""
    frame = train(method).predictions
    assert set(frame["split"]) == {"val", "test"}
    assert np.allclose(frame[["p_0", "p_1"]].sum(axis=1), 1)


def check_same_bits_twice(method: type[Method]) -> None:
    """The same job gives the same weights and predictions, to the last bit."""
    settings = {"dropout": 0.1}
    first, second = (train(method, backbone_settings=settings, micro_batch=4) for _ in range(2))
    assert difference(first, second) == 0
    pd.testing.assert_frame_equal(first.predictions, second.predictions)


def tolerance(method: type[Method]) -> float:
    """Return how far exact batches may differ; images that a method made alike leave gradients that nearly vanish.

    AdamW divides a gradient by its own size, so there rounding shows in full; a wrong batch changes 1e-3.
    """
    return TOLERANCE if method.view is Method.view else 1e-5


def check_micro_batches_change_nothing(method: type[Method]) -> None:
    """Its weights are the same whether eight examples are computed at once, by two or one by one."""
    whole = train(method)
    for size in (1, 2, 3):
        assert difference(whole, train(method, micro_batch=size)) < tolerance(method), f"micro-batch {size} differs"


def check_bears_unrecorded_groups(method: type[Method]) -> None:
    """It trains when some, or nearly all, patients' group is not recorded."""
    train(method, unrecorded="drop")
    train(method, attributes=("site", "sex"), unrecorded="drop", batch_size=2)


def check_bears_absent_groups(method: type[Method]) -> None:
    """It trains when batches are too small to hold every group."""
    train(method, batch_size=1, stages=(Stage(epochs=0.3, lr=1e-3, warmup=0),))


def check_strength_zero_is_vanilla(method: type[Method]) -> None:
    """With `strength` 0 its data order, dropout and weights are plain fine-tuning's, to the last bit."""
    if "strength" in method.fields() and not ({"cap", "by"} & set(method.fields())):
        settings = {"dropout": 0.1}
        ours = train(method, {"strength": 0.0}, backbone_settings=settings)
        assert difference(ours, train(Plain, backbone_settings=settings)) == 0


def check_survives_small_memory(method: type[Method]) -> None:
    """When the device runs out of memory the micro-batch is halved, and nothing else changes."""

    class Small(ToyBackbone):
        name = "small-for-comparison"
        fits = 2

    outcome = train(method, backbone=Small)
    assert difference(outcome, train(method)) < tolerance(method)
    if outcome.record.steps:
        assert outcome.record.micro_batch == 2
        assert any("micro-batch halved" in warning for warning in outcome.record.warnings)


METHOD_CHECKS: tuple[Callable[[type[Method]], None], ...] = (
    check_says_what_it_does,
    check_trains_and_predicts,
    check_same_bits_twice,
    check_micro_batches_change_nothing,
    check_bears_unrecorded_groups,
    check_bears_absent_groups,
    check_strength_zero_is_vanilla,
    check_survives_small_memory,
)
