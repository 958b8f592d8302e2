"""Toys to show the contracts on: a dataset, a backbone, and a training that takes a tenth of a second."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pluggy
import torch
from PIL import Image
from torch import Tensor, nn

from fairbench import hookspecs
from fairbench import plugins as plugin_loader
from fairbench.data.dataset import Dataset
from fairbench.hookspecs import hookimpl
from fairbench.jobs.job import Choice, Job, Precision, Record, Stage
from fairbench.jobs.store import Store
from fairbench.jobs.worker_options import WorkerOptions
from fairbench.metrics.metric import RATES, Metric
from fairbench.models.adapter import load as load_adapter
from fairbench.models.backbone import Backbone
from fairbench.models.batch import Inputs
from fairbench.models.byte_tokenizer import tiny_tokenizer
from fairbench.training.method import Method
from fairbench.training.worker import Worker

STAGES = (Stage(name="lora", train=("lora", "head"), epochs=1, lr=3e-3, warmup=2),)
TOLERANCE = 2e-6  # what summation order may change in an adapter after twelve float32 steps


class ToyDataset(Dataset):
    """Grey squares, bright or dark, from two sites of unequal size; some patients' site is not recorded."""

    name = "toy"
    title = "Toy"
    licence = "CC0"
    citation = "none"
    prompt: str = "Bright?"
    classes: ClassVar[tuple[str, ...]] = ("dark", "bright")
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
    rank = 4
    dropout = 0.0
    takes_several = True
    recipe: ClassVar[tuple[Stage, ...]] = (replace(STAGES[0], warmup=1),)  # which is a tenth of the toy's one epoch
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
        self.image_token_id, self.pad_token_id, self.end_token_id = 257, 256, 256

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
        return self.model["decoder"]  # type: ignore[no-any-return]

    @property
    def tokens(self) -> int:
        """Two for the image, and a prompt."""
        return 10

    def tokenise(self, text: str) -> list[int]:
        """Return byte tokens."""
        return list(self.tokenizer.encode(text))

    def detokenise(self, ids: Sequence[int]) -> str:
        """Return the text of byte tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def prepare(self, image: Image.Image, prompt: str) -> Inputs:
        """Two image tokens, then the prompt."""
        return self.prepare_images([image], prompt)

    def prepare_images(self, images: Sequence[Image.Image], prompt: str) -> Inputs:
        """Two tokens of each image, then the prompt."""
        pixels = np.stack([np.asarray(image.resize((8, 8)), dtype=np.float32).flatten() for image in images])
        ids = torch.tensor([*[257, 257] * len(images), *self.tokenise(prompt)])
        return {"input_ids": ids, "pixel_values": torch.from_numpy(pixels) / 255}

    def encode(self, inputs: Inputs) -> Tensor:
        """Two features of the grey level."""
        eye = self.model["eye"]
        return eye((inputs["pixel_values"] - 0.5).to(eye.weight.dtype)).reshape(-1, 16)  # type: ignore[no-any-return]

    def embed(self, inputs: Inputs, features: Tensor) -> Tensor:
        """Place the features, pretending to run out of memory beyond `fits` examples."""
        ids = inputs["input_ids"]
        if len(ids) > self.fits and torch.is_grad_enabled():
            raise torch.OutOfMemoryError("pretended")
        embedded = self.language_model.get_input_embeddings()(ids)  # type: ignore[operator]
        return embedded.masked_scatter((ids == 257)[..., None], features.to(embedded.dtype))  # type: ignore[no-any-return]

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


def toy_plugins(*items: type) -> plugin_loader.Plugins:
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
    precision: Precision = "float32",
    features: bool = True,
    folds: int = 1,
    fold: int = 0,
    shard: bool = False,
    killed_at: int | None = None,
    out: Path | None = None,
) -> Outcome:
    """Run one job on the toys (or the given classes) in `out` or a temporary folder; raises what the job raised.

    Several processes that torchrun started share one `out`. `killed_at` is the step at which a worker that leaves
    a checkpoint after every step is killed; another one goes on.
    """
    loaded = toy_plugins(*{method, backbone, dataset} - {ToyBackbone, ToyDataset})
    given = dataset_settings or {}
    job = Job(
        dataset=Choice(dataset.name, given, fingerprint=dataset(**given).fingerprint()),
        backbone=Choice(backbone.name, backbone_settings or {}),
        method=Choice(method.name, settings or {}),
        stages=stages,
        attributes=attributes if method.uses_attributes else (),
        seed=seed,
        batch_size=batch_size,
        unrecorded=unrecorded,
        select=select,
        folds=folds,
        fold=fold,
        precision=precision,
    )
    with tempfile.TemporaryDirectory() if out is None else nullcontext(out) as folder:
        options = WorkerOptions(micro_batch, (8 << 30) if features else 0, shard=shard)
        if killed_at is not None:
            _kill(Store(folder), loaded, job, replace(options, checkpoint_every=0.0), killed_at)
        worker = Worker(Store(folder), loaded, {}, lambda *_: None, options)
        record = worker.run(job)
        return _outcome(worker, loaded, record)


class _Killed(BaseException):
    """What ends a process without a word."""


def _kill(store: Store, loaded: plugin_loader.Plugins, job: Job, options: WorkerOptions, step: int) -> None:
    """Run a job up to a step, of which no checkpoint is left any more; one with fewer steps runs to its end."""
    left = step

    def report(phase: str, done: int, total: int, loss: float | None) -> None:
        nonlocal left
        left -= phase == "train" and done > 0
        if not left:
            raise _Killed

    with suppress(_Killed):
        Worker(store, loaded, {}, report, options).run(job)


def _outcome(worker: Worker, loaded: plugin_loader.Plugins, record: Record) -> Outcome:
    """Read what a training left, and see that its adapter loads into a fresh backbone."""
    job, store = record.job, worker.store
    if record.error:
        trace = store.traceback_file(job)
        raise AssertionError(trace.read_text() if trace.exists() else record.error)
    model: Backbone = worker.kept("backbone")
    weights = {name: p.detach().clone() for name, p in model.trainable().items()}
    if store.adapter_folder(job).exists():
        data: Dataset = loaded.make("dataset", job.dataset)
        fresh: Backbone = loaded.make("backbone", job.backbone)
        fresh.build(data.classes, data.words, torch.float32, torch.device("cpu"), generates=data.task == "generate")
        load_adapter(fresh, store.adapter(record))
        for name, parameter in fresh.trainable().items():
            assert torch.equal(parameter, weights[name]), f"{name} does not survive saving and loading"
    return Outcome(record, weights, pd.read_parquet(store.predictions_file(job)))


def difference(left: Outcome, right: Outcome) -> float:
    """Return the largest absolute difference between two trainings' weights."""
    return max((float((left.weights[n] - right.weights[n]).abs().max()) for n in left.weights), default=0.0)
