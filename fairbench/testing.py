"""The conformance kit: what every plugin must do, and toys to show it on in under two seconds a method.

from fairbench.testing import parametrize_method

@parametrize_method(MyMethod)
def test_my_method(check, method):
    check(method)
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import pluggy
import torch
from PIL import Image
from torch import Tensor, nn

from fairbench import hookspecs
from fairbench import plugins as plugin_loader
from fairbench.adapter import load as load_adapter
from fairbench.backbone import Backbone, Inputs, States, text_positions
from fairbench.dataset import Dataset, rows
from fairbench.hookspecs import hookimpl
from fairbench.job import Choice, Job, Record, Stage
from fairbench.method import Method
from fairbench.metric import RATES, Metric
from fairbench.store import ADAPTER, PREDICTIONS, Store
from fairbench.tiny import tiny_tokenizer
from fairbench.worker import Worker

STAGES = (Stage(name="lora", train=("lora", "head"), epochs=1, lr=3e-3, warmup=2),)
TOLERANCE = 2e-6  # what summation order may change in an adapter after twelve float32 steps


class ToyDataset(Dataset):
    """Grey squares, bright or dark, from two sites of unequal size; some patients' site is not recorded."""

    name = "toy"
    title = "Toy"
    licence = "CC0"
    citation = "none"
    prompt: str = "Bright?"
    classes = ("dark", "bright")
    attributes = {"site": ("a", "b", "c"), "sex": ("female", "male")}
    rows_per_split: tuple[int, ...] = (96, 24, 48)

    def table(self) -> pd.DataFrame:
        """Draw the rows from a fixed seed."""
        generator = np.random.default_rng(7)
        split = np.repeat(["train", "val", "test"], self.rows_per_split)
        count = len(split)
        bright = generator.random(count) < 0.5
        level = np.clip(128 + np.where(bright, 40, -40) + generator.normal(0, 30, count), 0, 255).astype(int)
        site = generator.choice(np.array(["a", "b", "c", None]), count, p=[0.6, 0.25, 0.1, 0.05])
        return pd.DataFrame(
            {
                "id": [f"r{i:03d}" for i in range(count)],
                "cluster": [f"c{i:03d}" for i in range(count)],
                "split": split,
                "image": level,
                "target": np.where(bright, "bright", "dark"),
                "site": site,
                "sex": generator.choice(["female", "male"], count),
            }
        )

    def image(self, row: Any) -> Image.Image:
        """Paint one square."""
        return Image.new("RGB", (8, 8), (int(row["image"]),) * 3)


class ToyBackbone(Backbone):
    """A two-layer Llama of width 16 behind a linear eye: every contract of a backbone, in milliseconds."""

    name = "toy-backbone"
    title = "Toy"
    rank = 4
    dropout = 0.0
    recipe: ClassVar[tuple[Stage, ...]] = STAGES
    fits: ClassVar[int] = 1_000_000  # examples that its pretended device can hold

    def construct(self) -> None:
        """Build eye and decoder."""
        from transformers import LlamaConfig, LlamaModel

        config = LlamaConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            vocab_size=258,
            bos_token_id=None,
            eos_token_id=None,
        )
        self.model = nn.ModuleDict({"decoder": LlamaModel(config), "eye": nn.Linear(192, 32)})
        self.image_token_id, self.pad_token_id = 257, 256

    def load(self, dtype: torch.dtype) -> None:
        """Draw the weights from a fixed seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.construct()
        self.model.to(dtype)
        self.tokenizer = tiny_tokenizer(["<image>"], "")

    def fingerprint(self) -> str:
        """Name the fixed weights."""
        return "toy-3"

    @property
    def language_model(self) -> nn.Module:
        """The decoder."""
        return self.model["decoder"]  # type: ignore[index, no-any-return]

    @property
    def tokens(self) -> int:
        """Two for the image, and a prompt."""
        return 10

    def tokenise(self, text: str) -> list[int]:
        """Return byte tokens."""
        return list(self.tokenizer.encode(text))

    def prepare(self, image: Image.Image, prompt: str) -> Inputs:
        """Two image tokens, then the prompt."""
        pixels = torch.from_numpy(np.asarray(image.resize((8, 8)), dtype=np.float32)).flatten()[None] / 255
        return {"input_ids": torch.tensor([257, 257, *self.tokenise(prompt)]), "pixel_values": pixels}

    def see(self, inputs: Inputs) -> Tensor:
        """Two features of the grey level."""
        return self.model["eye"](inputs["pixel_values"] - 0.5).reshape(-1, 16)  # type: ignore[index, no-any-return]

    def decode(self, inputs: Inputs, features: Tensor, every: bool) -> tuple[Tensor, ...]:
        """Run the decoder, pretending to run out of memory beyond `fits` examples."""
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        if len(ids) > self.fits and torch.is_grad_enabled():
            raise torch.OutOfMemoryError("pretended")
        embedded = self.language_model.get_input_embeddings()(ids)  # type: ignore[operator]
        embedded = embedded.masked_scatter((ids == 257)[..., None], features.to(embedded.dtype))
        out = self.language_model(
            inputs_embeds=embedded,
            attention_mask=mask,
            position_ids=text_positions(mask),
            output_hidden_states=every,
        )
        return tuple(out.hidden_states) if every else (out.last_hidden_state,)

    def vocabulary_scores(self, hidden: Tensor) -> Tensor:
        """Score tokens by their embeddings."""
        return hidden @ self.language_model.get_input_embeddings().weight.T  # type: ignore[operator, no-any-return]


class _Offer:
    """A plugin of the toys and whatever is under test."""

    def __init__(self, items: Sequence[type]) -> None:
        self.items = items

    @hookimpl
    def fairbench_datasets(self) -> list[type]:
        return [ToyDataset, *(item for item in self.items if issubclass(item, Dataset))]

    @hookimpl
    def fairbench_backbones(self) -> list[type]:
        return [ToyBackbone, *(item for item in self.items if issubclass(item, Backbone))]

    @hookimpl
    def fairbench_metrics(self) -> tuple[Metric, ...]:
        return RATES

    @hookimpl
    def fairbench_methods(self) -> list[type]:
        return [item for item in self.items if issubclass(item, Method)]


def toys(*items: type) -> plugin_loader.Plugins:
    """Return plugins holding the toys and `items`, whatever is installed."""
    manager = pluggy.PluginManager("fairbench")
    manager.add_hookspecs(hookspecs)
    manager.register(_Offer(items), "toys")
    return plugin_loader.Plugins(manager, plugin_loader.KINDS, {"toys": "toys 1"})


@dataclass(frozen=True)
class Outcome:
    """What a toy training left."""

    record: Record
    weights: dict[str, Tensor]
    predictions: pd.DataFrame


def train(
    method: type[Method],
    settings: dict[str, Any] | None = None,
    backbone: type[Backbone] = ToyBackbone,
    backbone_settings: dict[str, Any] | None = None,
    dataset: type[Dataset] = ToyDataset,
    dataset_settings: dict[str, Any] | None = None,
    attributes: tuple[str, ...] = ("site",),
    unrecorded: str = "keep",
    stages: tuple[Stage, ...] = STAGES,
    batch_size: int = 8,
    micro_batch: int | None = None,
    seed: int = 0,
    select: str = "last",
    features: bool = True,
    out: Path | None = None,
) -> Outcome:
    """Run one job on the toys (or the given classes) in `out` or a temporary folder; raises what the job raised.

    Several processes that torchrun started share one `out`.
    """
    loaded = toys(*{method, backbone, dataset} - {ToyBackbone, ToyDataset})
    with tempfile.TemporaryDirectory() if out is None else nullcontext(out) as folder:
        store = Store(folder)
        worker = Worker(store, loaded, {}, lambda *_: None, micro_batch, feature_bytes=(8 << 30) if features else 0)
        data = dataset(**(dataset_settings or {}))
        job = Job(
            dataset=Choice(dataset.name, dataset_settings or {}, fingerprint=data.fingerprint()),
            backbone=Choice(backbone.name, backbone_settings or {}),
            method=Choice(method.name, settings or {}),
            stages=stages,
            attributes=attributes if method.uses_attributes else (),
            seed=seed,
            batch_size=batch_size,
            unrecorded=unrecorded,
            select=select,
        )
        record = worker.run(job)
        if record.error:
            trace = store.folder(job) / "traceback.txt"
            raise AssertionError(trace.read_text() if trace.exists() else record.error)
        model: Backbone = worker.kept("backbone")
        weights = {name: p.detach().clone() for name, p in model.trainable().items()}
        frame = pd.read_parquet(store.folder(job) / PREDICTIONS)
        if (store.folder(job) / ADAPTER).exists():
            fresh: Backbone = loaded.make("backbone", job.backbone)
            fresh.build(data.classes, data.words, torch.float32, torch.device("cpu"))
            load_adapter(fresh, store.folder(job) / ADAPTER)
            for name, parameter in fresh.trainable().items():
                assert torch.equal(parameter, weights[name]), f"{name} does not survive saving and loading"
        return Outcome(record, weights, frame)


def difference(left: Outcome, right: Outcome) -> float:
    """Return the largest absolute difference between two trainings' weights."""
    return max((float((left.weights[n] - right.weights[n]).abs().max()) for n in left.weights), default=0.0)


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


def check_micro_batches_change_nothing(method: type[Method]) -> None:
    """Its weights are the same whether eight examples are computed at once, by two or one by one."""
    whole = train(method)
    for size in (1, 2, 3):
        assert difference(whole, train(method, micro_batch=size)) < TOLERANCE, f"micro-batch {size} differs"


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
    assert difference(outcome, train(method)) < TOLERANCE
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
