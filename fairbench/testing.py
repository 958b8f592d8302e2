"""The conformance kit: what every plugin must do, shown on toys in a few seconds a method.

from fairbench.testing import parametrize_method

@parametrize_method(MyMethod)
def test_my_method(check, method):
check(method)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from PIL import Image

from fairbench.backbone import Backbone
from fairbench.batch import Inputs, States
from fairbench.dataset import Dataset, rows
from fairbench.job import Stage
from fairbench.method import Method
from fairbench.toys import TOLERANCE, Outcome, ToyBackbone, ToyDataset, difference, toys, train

# ── checks of a method ───────────────────────────────────────────────────────────────────────────


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
    """Return how far exact batches may differ; blank images leave gradients that nearly vanish.

    AdamW divides a gradient by its own size, so there rounding shows in full; a wrong batch changes 1e-3.
    """
    return TOLERANCE if method.sees_images else 1e-5


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


# ── checks of a backbone and a dataset ───────────────────────────────────────────────────────────


def _ready(backbone: type[Backbone], **settings: Any) -> tuple[Backbone, list[Inputs]]:
    model = backbone(**settings).build(("no", "yes"), ("no", "yes"), torch.float32, torch.device("cpu"))
    generator = np.random.default_rng(0)
    pictures = [Image.fromarray(generator.integers(0, 255, (64, 96, 3), dtype=np.uint8)) for _ in range(3)]
    prompts = ["Is it?", "Is there any sign of disease in this image?", "Well?"]
    return model, [model.prepare(p, q) for p, q in zip(pictures, prompts, strict=True)]


def check_padding_changes_nothing(backbone: type[Backbone]) -> None:
    """Scores and pooled states are the same alone, in a batch, padded left or right."""
    model, examples = _ready(backbone)
    reads = States(depths=(0.0, 0.5, 1.0), tokens="text")
    unknown = torch.zeros(1, dtype=torch.long)
    with torch.no_grad():
        alone = [model(model.stack([example]), unknown, reads) for example in examples]
        sides: tuple[Literal["left", "right"], ...] = ("left", "right")
        for side in sides:
            model.padding_side = side
            together = model(model.stack(examples), unknown.repeat(len(examples)), reads)
            for i, one in enumerate(alone):
                assert torch.allclose(together.scores[i], one.scores[0], atol=1e-4), (
                    f"padding {side} changes scores"
                )
                assert torch.allclose(together.states[i], one.states[0], atol=1e-4), (
                    f"padding {side} changes states"
                )


def check_seeing_once_is_enough(backbone: type[Backbone]) -> None:
    """Cached features give what the image gives, and hold one row per image token."""
    model, examples = _ready(backbone)
    unknown = torch.zeros(len(examples), dtype=torch.long)
    inputs = model.stack(examples)
    with torch.no_grad():
        features = model.see(inputs)
        direct = model(inputs, unknown).scores
        for key in model.pixels:
            inputs.pop(key)
        cached = model({**inputs, "features": features}, unknown).scores
    assert len(features) == int((inputs["input_ids"] == model.image_token_id).sum())
    assert torch.equal(direct, cached)


def check_only_the_language_model_is_adapted(backbone: type[Backbone]) -> None:
    """LoRA sits in the language model and nowhere else, and everything else is frozen."""
    model, _ = _ready(backbone)
    inside = {id(p) for p in model.language_model.parameters()}
    lora = [p for name, p in model.named_parameters() if "lora_" in name]
    assert lora
    assert all(id(p) in inside for p in lora)
    trained = {id(p) for p in model.trainable().values()}
    assert all(p.requires_grad == (id(p) in trained) for p in model.parameters())


def check_reset_forgets(backbone: type[Backbone]) -> None:
    """`reset` makes a used model equal to a new one with the same seed, and seeds differ."""
    model, _ = _ready(backbone)
    model.reset(1)
    first = {name: p.detach().clone() for name, p in model.trainable().items()}
    with torch.no_grad():
        for parameter in model.trainable().values():
            parameter.add_(1.0)
    model.reset(1)
    assert all(torch.equal(p, first[name]) for name, p in model.trainable().items())
    model.reset(2)
    assert any(not torch.equal(p, first[name]) for name, p in model.trainable().items())


def check_words_read_the_vocabulary(backbone: type[Backbone]) -> None:
    """The readout `words` scores the classes' first tokens with no new parameters."""
    model, examples = _ready(backbone, readout="words")
    assert model.part("head") == []
    scores = model(model.stack(examples), torch.zeros(len(examples), dtype=torch.long)).scores
    assert scores.shape == (len(examples), 2)
    assert torch.isfinite(scores).all()


BACKBONE_CHECKS: tuple[Callable[[type[Backbone]], None], ...] = (
    check_padding_changes_nothing,
    check_seeing_once_is_enough,
    check_only_the_language_model_is_adapted,
    check_reset_forgets,
    check_words_read_the_vocabulary,
)


def check_rows_keep_the_contract(dataset: Dataset) -> None:
    """Its table passes every check of the core, twice with the same content."""
    pd.testing.assert_frame_equal(rows(dataset), rows(dataset))
    assert dataset.fingerprint() == dataset.fingerprint()


def check_images_are_rgb(dataset: Dataset) -> None:
    """Every split's first image opens as RGB."""
    for _, part in rows(dataset).groupby("split"):
        assert dataset.image(part.iloc[0].to_dict()).mode == "RGB"  # type: ignore[arg-type]


DATASET_CHECKS: tuple[Callable[[Dataset], None], ...] = (check_rows_keep_the_contract, check_images_are_rgb)


def _parametrize(checks: Sequence[Callable[..., None]], what: str, item: Any) -> Any:
    import pytest

    cases = [pytest.param(check, item, id=check.__name__) for check in checks]
    return pytest.mark.parametrize(("check", what), cases)


def parametrize_method(method: type[Method]) -> Any:
    """Run a test once for every check of a method; the test takes `check` and `method`."""
    return _parametrize(METHOD_CHECKS, "method", method)


def parametrize_backbone(backbone: type[Backbone]) -> Any:
    """Run a test once for every check of a backbone; the test takes `check` and `backbone`."""
    return _parametrize(BACKBONE_CHECKS, "backbone", backbone)


def parametrize_dataset(dataset: Dataset) -> Any:
    """Run a test once for every check of a dataset; the test takes `check` and `dataset`."""
    return _parametrize(DATASET_CHECKS, "dataset", dataset)


__all__ = [
    "Outcome",
    "ToyBackbone",
    "ToyDataset",
    "difference",
    "parametrize_backbone",
    "parametrize_dataset",
    "parametrize_method",
    "toys",
    "train",
]
