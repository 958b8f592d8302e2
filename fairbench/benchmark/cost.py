"""What a benchmark will cost: its jobs, their parameters, and rough estimates of time and memory."""

from __future__ import annotations

import time
from dataclasses import dataclass

import psutil
import torch
from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fairbench.benchmark.plan import Planned
from fairbench.data.dataset import rows
from fairbench.errors import FairbenchError
from fairbench.jobs.job import Job, Stage
from fairbench.jobs.store import Store
from fairbench.jobs.summary import Overview
from fairbench.jobs.summary import kind as kind_of
from fairbench.models.backbone import Backbone

UTILISATION = 0.3  # of the matrix-multiplication rate that a whole training step reaches, roughly
BYTES_TRAINED = 16  # a float32 weight, its gradient and AdamW's two moments
BYTES_ACTIVATION = 34  # per token, layer and unit of width, at two bytes a number (arXiv 2205.05198, eq. 2)


@dataclass(frozen=True)
class Size:
    """A backbone's parameters and the tokens of one example, from its configuration alone."""

    total: int
    language: int
    trained: int
    activations: float


@dataclass(frozen=True)
class Cost:
    """One job's estimate: seconds (None when it will not run), bytes, and whether it was measured."""

    job: Job
    state: str
    steps: int
    trained: int
    seconds: float | None
    memory: float
    measured: bool


def estimate(planned: Planned, store: Store, retry_failed: bool = False) -> list[Cost]:
    """Estimate every job that would run: from finished jobs of the same data and backbone, else from arithmetic."""
    overview = store.overview() if store.root.is_dir() else Overview()
    rates = _measured_rates(overview)
    counts = {name: rows(data)["split"].value_counts().to_dict() for name, data in planned.datasets.items()}
    sizes: dict[str, Size] = {}
    speed: dict[torch.dtype, float] = {}
    costs = []
    for job in planned.jobs:
        kind = repr((job.backbone, job.stages, job.dataset.name))
        if kind not in sizes:
            data = planned.datasets[job.dataset.name]
            generates = data.task == "generate"
            sizes[kind] = _size(planned.backbones[job.backbone.name], job, data.classes, generates)
        size = sizes[kind]
        count = counts[job.dataset.name]
        if job.folds > 1:
            part = sum(count.values()) // job.folds
            count = {"train": sum(count.values()) - 2 * part, "val": part, "test": part}
        stages, failing = _stages(planned, job)
        epochs = sum(stage.epochs for stage in stages)
        steps = round(epochs * -(-count.get("train", 0) // job.batch_size))
        dtype = torch.bfloat16 if job.precision == "bfloat16" else torch.float32
        rate = rates.get(kind_of(job))
        measured = rate is not None
        if rate is None:
            speed.setdefault(dtype, _flops(dtype))
            rate = 4 * size.language * size.activations * job.batch_size / speed[dtype]
        evaluated = (count.get("val", 0) + count.get("test", 0)) / job.batch_size / 2
        state = _state(job, overview) or failing or "to run"
        width = 2 if dtype == torch.bfloat16 else 4
        frozen = size.total * planned.backbones[job.backbone.name].weight_bytes(width)
        memory = frozen + size.trained * BYTES_TRAINED + _activation_bytes(planned, job, size) * width / 2
        runs = state in ("to run", failing) or (state == "failed" and retry_failed)
        seconds = rate * (steps + evaluated) if runs else None
        costs.append(Cost(job, state, steps, size.trained if steps else 0, seconds, memory, measured))
    return costs


def _stages(planned: Planned, job: Job) -> tuple[tuple[Stage, ...], str]:
    """Return what a job's method plans, or why it will fail."""
    try:
        return planned.stages(job), ""
    except FairbenchError as error:
        return (), f"to run, will fail: {error.message}"


def _state(job: Job, overview: Overview) -> str:
    if job.key in overview.refused:
        return "refused"
    ended = overview.ended.get(job.key)
    return "" if ended is None else "done" if ended.error is None else "failed"


def _size(backbone: Backbone, job: Job, classes: tuple[str, ...], generates: bool) -> Size:
    readout = backbone.readout
    with torch.device("meta"):
        backbone.construct()
        total = sum(p.numel() for p in backbone.parameters())
        backbone.readout = "head"  # the readout `words` would need the tokenizer, and adds nothing
        backbone.attach(classes, classes, generates)
    backbone.readout = readout
    parts = {part for stage in job.stages for part in stage.train} - ({"head"} if readout == "words" else set())
    trained = sum(p.numel() for part in parts for p in backbone.part(part))
    language = sum(p.numel() for n, p in backbone.language_model.named_parameters() if "embed_tokens" not in n)
    return Size(total, language, trained, float(backbone.tokens))


def _activation_bytes(planned: Planned, job: Job, size: Size) -> float:
    backbone = planned.backbones[job.backbone.name]
    return BYTES_ACTIVATION * size.activations * job.batch_size * backbone.width * backbone.depth


def _measured_rates(overview: Overview) -> dict[str, float]:
    """Return seconds per step of finished jobs, mean of those with the same data, backbone and batch size."""
    rates: dict[str, list[float]] = {}
    for one in overview.ended.values():
        if one.rate is not None:
            rates.setdefault(one.kind, []).append(one.rate)
    return {kind: sum(each) / len(each) for kind, each in rates.items()}


def _flops(dtype: torch.dtype) -> float:
    """Measure this device's useful rate with a quarter-second of matrix multiplication."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    side = 4096 if device == "cuda" else 512
    matrix = torch.randn(side, side, device=device, dtype=dtype)
    (matrix @ matrix).sum().item()
    start, repeats = time.perf_counter(), 0
    while time.perf_counter() - start < 0.25:
        (matrix @ matrix).sum().item()
        repeats += 1
    return UTILISATION * repeats * 2 * side**3 / (time.perf_counter() - start)


@dataclass(frozen=True)
class Trial:
    """What one backbone did on this machine: seconds, bytes and counts of one picture and one training step."""

    parameters: int
    trained: int
    adapted: tuple[str, ...]  # the names of the layers that get LoRA
    image_tokens: int
    tokens: int
    loading: float
    encoding: float
    step: float
    batch_size: int
    memory: int


def try_out(backbone: Backbone, dtype: torch.dtype, size: tuple[int, int] = (512, 512)) -> Trial:
    """Load a backbone, look at a grey picture of `size`, and take one step's gradient of a batch of it.

    `memory` is the peak allocated on a GPU, else what this process holds afterwards.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    start = time.perf_counter()
    backbone.build(("no", "yes"), ("no", "yes"), dtype, device)
    loading = time.perf_counter() - start
    example = backbone.prepare(Image.new("RGB", size, (128, 128, 128)), "Is there any sign of disease?")
    start = time.perf_counter()
    with torch.no_grad():
        features = backbone.encode({key: value.to(device) for key, value in backbone.stack([example]).items()})
    encoding = _since(start)
    kept = {key: value for key, value in example.items() if key not in backbone.encoder_inputs}
    batch = backbone.stack([{**kept, "features": features.cpu()}] * backbone.batch_size)
    backbone.train(True)
    start = time.perf_counter()
    target = torch.zeros(backbone.batch_size, dtype=torch.long, device=device)
    backbone({key: value.to(device) for key, value in batch.items()}, target).loss.mean().backward()
    lora = [name for name, _ in backbone.language_model.named_modules() if name.endswith(".lora_A")]
    return Trial(
        parameters=sum(p.numel() for p in backbone.parameters()),
        trained=sum(p.numel() for p in backbone.trainable().values()),
        adapted=tuple(sorted({name.split(".")[-2] for name in lora})),
        image_tokens=int((example["input_ids"] == backbone.image_token_id).sum()),
        tokens=len(example["input_ids"]),
        loading=loading,
        encoding=encoding,
        step=_since(start),
        batch_size=backbone.batch_size,
        memory=int(torch.cuda.max_memory_allocated())
        if device.type == "cuda"
        else psutil.Process().memory_info().rss,
    )


def _since(start: float) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def show(costs: list[Cost], console: Console) -> None:
    """Print the plan."""
    table = Table(box=None, pad_edge=False)
    for name in ("job", "method", "attributes", "seed", "dataset", "backbone"):
        table.add_column(name, overflow="fold")
    for name in ("steps", "trainable", "memory (GiB)", "time (min)", "state"):
        table.add_column(name, justify="right")
    for cost in costs:
        job = cost.job
        attributes = "+".join(job.attributes) or "all (shared)"
        minutes = "" if cost.seconds is None else f"{'' if cost.measured else '≈ '}{cost.seconds / 60:.1f}"
        figures = (
            f"{cost.steps:,}",
            f"{cost.trained:,}",
            f"≈ {cost.memory / 2**30:.1f}",
            minutes,
            cost.state,
        )
        names = (
            job.key[:8],
            job.method.label,
            attributes,
            str(job.seed),
            job.dataset.label,
            job.backbone.label,
        )
        table.add_row(*(escape(name) for name in names), *figures)
    console.print(table)
    open_ = [cost.seconds for cost in costs if cost.seconds is not None]
    console.print(
        f"{len(costs)} jobs, {len(open_)} to run, about {sum(open_) / 60:.0f} minutes on one worker. "
        "Memory, and times marked ≈, are rough arithmetic; the other times come from finished jobs in this folder. "
        "Looking at each image once comes on top.",
        highlight=False,
    )
