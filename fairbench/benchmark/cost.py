"""What a benchmark will cost: its jobs, their parameters, and estimates of time and memory."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

import pandas as pd
import psutil
import torch
from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fairbench.benchmark.plan import Planned, of_fold, row_counts
from fairbench.data.dataset import Dataset, rows
from fairbench.errors import FairbenchError
from fairbench.jobs.job import WARMUPS, Choice, Job, Stage
from fairbench.jobs.store import Store
from fairbench.jobs.summary import Overview, Summary
from fairbench.jobs.summary import kind as kind_of
from fairbench.jobs.worker_options import WorkerOptions
from fairbench.models.backbone import Backbone
from fairbench.training.rehearsal import Rehearsal, rehearse
from fairbench.training.selection import LAST
from fairbench.training.shared import training_of

UTILISATION = 0.5  # of the matrix-multiplication rate that a whole training step reaches, roughly
TRIED = 1 << 30  # bytes of weights up to which a plan loads a backbone and tries it out
WIDEST = 40  # characters of a name in the plan
PATIENCE = 10.0  # seconds that a step may take for that
BYTES_TRAINED = 16  # a float32 weight, its gradient and AdamW's two moments
# What a decoder layer keeps of each token for the backward pass, counted with torch's saved_tensors_hooks on Llama
# and Qwen2.5 decoders with LoRA on the attention: bytes in any number format, numbers of the width and the MLP's.
BYTES_KEPT, WIDTHS_KEPT, INNER_KEPT = 18, 7, 3

LISTED = 1_000  # jobs that are printed one by one


@dataclass(frozen=True)
class Size:
    """A backbone's parameters and the tokens of one example, from its configuration alone."""

    total: int
    language: int
    trained: int
    activations: float


Basis = Literal["finished jobs", "tried out", "arithmetic"]
TryOut = Callable[[Backbone, Dataset, pd.DataFrame, Job], Rehearsal]


@dataclass(frozen=True)
class Cost:
    """One job's estimate: seconds of one worker (None when it will not run), bytes, and what that rests on.

    `note` says why a backbone could not be tried out, `lasting` which stages last longer than
    their epochs, or hardly longer than their warm-up.
    """

    job: Job
    state: str
    steps: int
    trained: int
    seconds: float | None
    memory: float
    basis: Basis
    note: str = ""
    lasting: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rates:
    """Seconds of a step, of an answer and of looking at all images, and a worker's peak memory in bytes."""

    step: float
    answer: float
    looking: float
    memory: float
    basis: Basis
    note: str = ""


def estimate(
    planned: Planned, store: Store, retry_failed: bool = False, try_out: TryOut | None = rehearse
) -> list[Cost]:
    """Estimate every job that would run, from finished jobs of the same data and backbone in this folder.

    Without any, `try_out` tries a backbone of up to TRIED bytes on the data, in CPU time; a larger one, or each one
    where it is None, is left to arithmetic. The first job that would look at a dataset's images bears that, and of
    jobs that share a training the first.
    """
    overview = store.overview() if store.remote or store.root.is_dir() else Overview()
    finished: dict[str, list[Summary]] = {}
    for one in overview.ended.values():
        if one.rate is not None:
            finished.setdefault(one.kind, []).append(one)
    tables = {name: rows(data) for name, data in planned.datasets.items()}
    counts = {name: row_counts(table) for name, table in tables.items()}
    sizes: dict[str, Size] = {}
    rates: dict[str, Rates] = {}
    borne: set[str] = set()
    costs = []
    for job in planned.jobs:
        kind = repr((job.backbone, job.stages, job.dataset, job.batch_size, job.precision))
        if kind not in sizes:
            fresh = copy.deepcopy(planned.backbones[job.backbone.name])
            sizes[kind] = _size(planned, job)
            table, done = tables[job.dataset.name], finished.get(kind_of(job), [])
            known = _finished(done, table) if done else None
            rates[kind] = known or _rates(planned, job, sizes[kind], fresh, table, try_out)
        size, rate = sizes[kind], rates[kind]
        stages, failing = _stages(planned, job)
        count = of_fold(counts[job.dataset.name], job.folds)
        steps, answers, lasting = _work(job, stages, count)
        if stages:
            lasting += _hardly_trained(job, count.get("train", 0))
        state = _state(job, overview) or failing or "to run"
        training, seconds = training_of(job, type(planned.methods[job.key])), None
        if state in ("to run", failing) or (state == "failed" and retry_failed):
            learning = 0.0 if training in borne else rate.step * steps
            seconds = learning + rate.answer * answers + rate.looking
            rates[kind] = replace(rate, looking=0.0)
        if training and (seconds is not None or state == "done"):
            borne.add(training)
        trained = size.trained if steps else 0
        costs.append(Cost(job, state, steps, trained, seconds, rate.memory, rate.basis, rate.note, lasting))
    return costs


def _work(job: Job, stages: Sequence[Stage], count: Mapping[str, int]) -> tuple[int, int, tuple[str, ...]]:
    """Return how many steps a job takes and how many answers it gives, those between its epochs included, and say
    which of its stages last longer than their epochs.
    """
    lasting = [stage.lasting(count.get(stage.split, 0), job.batch_size) for stage in stages]
    longer = tuple(
        f"{stage.name} lasts {epochs:g} epochs of the {count.get(stage.split, 0):,} {stage.split} rows of "
        f"{job.dataset.name}, not {stage.epochs:g}, to take {stage.min_steps} steps (min_steps)"
        for stage, epochs in zip(stages, lasting, strict=True)
        if epochs != stage.epochs
    )
    steps = sum(stage.steps(count.get(stage.split, 0), job.batch_size) for stage in stages)
    between = 0 if job.select == LAST else round(lasting[-1]) if stages else 0
    return steps, count.get("test", 0) + count.get("val", 0) * (1 + between), longer


def _hardly_trained(job: Job, train: int) -> tuple[str, ...]:
    """Say which stages spend a good part of their steps on warming up, as a benchmark's own may on few rows."""
    said = []
    for stage in job.stages:
        steps = stage.steps(train, job.batch_size)
        if train and 2 * steps < WARMUPS * stage.warmup:
            said.append(
                f"{stage.name} of {job.backbone.name} takes {steps} steps on the {train:,} train rows of "
                f"{job.dataset.name}, {min(stage.warmup, steps)} of them warming up: it may hardly learn; "
                f"--set {stage.name}.min_steps={WARMUPS * stage.warmup} trains all methods for longer"
            )
    return tuple(said)


def _rates(
    planned: Planned,
    job: Job,
    size: Size,
    fresh: Backbone,
    table: pd.DataFrame,
    try_out: TryOut | None,
) -> Rates:
    """Return what a job's parts cost: tried out, where that is quick and can be done, else by arithmetic."""
    dtype = torch.bfloat16 if job.precision == "bfloat16" else torch.float32
    width = torch.finfo(dtype).bits / 8
    frozen = size.total * fresh.weight_bytes(width)
    step = 4 * size.language * size.activations * job.batch_size / _flops(dtype)
    base, note = 0 if torch.cuda.is_available() else _base(), ""
    if try_out and frozen <= TRIED and step <= PATIENCE:
        try:
            tried = try_out(fresh, planned.datasets[job.dataset.name], table, job)
        except Exception as error:  # whatever a plugin raises, a plan goes on without trying it
            note = f"{job.backbone.label} could not be tried out on {job.dataset.label}: {error}"
        else:
            held = min(tried.example * len(table), WorkerOptions().feature_bytes) if base else 0
            looking = tried.image * len(table)
            return Rates(tried.step, tried.answer, looking, base + tried.memory + held, "tried out")
    kept = activation_bytes(planned.backbones[job.backbone.name], job, size, width)
    memory = frozen + size.trained * BYTES_TRAINED + kept
    return Rates(step, step / job.batch_size / 2, 0.0, base + memory, "arithmetic", note)


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


def _size(planned: Planned, job: Job) -> Size:
    backbone, data = planned.backbones[job.backbone.name], planned.datasets[job.dataset.name]
    classes, generates = data.classes, data.task == "generate"
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


def activation_bytes(backbone: Backbone, job: Job, size: Size, width: float) -> float:
    """Return what a step keeps for its backward pass, with a number of `width` bytes."""
    inner = getattr(backbone.language_model.config, "intermediate_size", 4 * backbone.width)
    layer = (BYTES_KEPT + WIDTHS_KEPT * width) * backbone.width + INNER_KEPT * width * inner
    whole = backbone.depth * (width * backbone.width if backbone.checkpointing else layer)
    return size.activations * job.batch_size * (whole + layer * backbone.checkpointing)


def _finished(alike: Sequence[Summary], table: pd.DataFrame) -> Rates:
    """Return what finished jobs with the same data, backbone and batch size took."""
    answers = max(1, int(table["split"].isin(["val", "test"]).sum()))
    step = fmean(one.rate for one in alike if one.rate is not None)
    answer = fmean(one.answering for one in alike) / answers
    return Rates(step, answer, 0.0, max(one.memory for one in alike), "finished jobs")


def _base() -> int:
    """Return the bytes that this process, which has loaded what a worker loads, holds before any backbone."""
    global _held
    _held = _held or psutil.Process().memory_info().rss
    return _held


_held = 0


def _flops(dtype: torch.dtype) -> float:
    """Measure this device's useful rate with some matrix multiplication, on a CPU in CPU time and on one thread."""
    gpu = torch.cuda.is_available()
    side, clock = (4096, time.perf_counter) if gpu else (512, time.process_time)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    matrix = torch.randn(side, side, device="cuda" if gpu else "cpu", dtype=dtype)
    (matrix @ matrix).sum().item()
    start, repeats = clock(), 0
    while clock() - start < 0.1:
        (matrix @ matrix).sum().item()
        repeats += 1
    torch.set_num_threads(threads)
    return UTILISATION * repeats * 2 * side**3 / (clock() - start)


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


def _short(choice: Choice) -> str:
    """Return a label for a narrow column: many settings are counted rather than written."""
    few = len(choice.label) <= WIDEST
    return choice.label if few else f"{choice.name} ({len(choice.settings)} settings)"


def show(costs: list[Cost], console: Console) -> None:
    """Print the plan; of many jobs, those that differ by their seed alone in one line."""
    table = Table(box=None, pad_edge=False)
    for name in ("job", "method", "attributes", "seed", "dataset", "backbone"):
        table.add_column(name, overflow="fold")
    for name in ("steps", "trainable", "memory (GiB)", "time (min)", "state"):
        table.add_column(name, justify="right")
    together: dict[object, list[Cost]] = {}
    for place, cost in enumerate(costs):
        job = cost.job
        alike = (job.dataset, job.backbone, job.method, job.attributes, job.fold, cost.steps, cost.state)
        together.setdefault(repr(alike) if len(costs) > LISTED else place, []).append(cost)
    for some in together.values():
        table.add_row(*_line(some))
    console.print(table)
    open_ = [cost.seconds for cost in costs if cost.seconds is not None]
    count = "1 job" if len(costs) == 1 else f"{len(costs)} jobs"
    console.print(
        f"{count}, {len(open_)} to run, about {_span(sum(open_))} on one worker. Times and "
        "memory are those of finished jobs in this folder, else of a step and an answer tried out here; what is "
        "marked ≈ is rough arithmetic.",
        highlight=False,
    )
    notes = [note for cost in costs for note in (cost.note, *cost.lasting) if note]
    for note in dict.fromkeys(notes):
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)


def _line(some: Sequence[Cost]) -> tuple[str, ...]:
    """Write one job as a line, or several that differ by their seed alone: their first key and longest time."""
    cost, job = some[0], some[0].job
    rough = "≈ " if cost.basis == "arithmetic" else ""
    times = [one.seconds for one in some if one.seconds is not None]
    seed = str(job.seed) if len(some) == 1 else f"{job.seed} and {len(some) - 1:,} more"
    if job.folds > 1:
        seed += f", fold {job.fold + 1}/{job.folds}"
    names = (
        job.key[:8],
        job.method.label,
        "+".join(job.attributes) or "all (shared)",
        seed,
        _short(job.dataset),
        _short(job.backbone),
    )
    figures = (
        f"{cost.steps:,}",
        f"{cost.trained:,}",
        f"{rough}{cost.memory / 2**30:.1f}",
        f"{rough}{max(times) / 60:.1f}" if times else "",
        cost.state,
    )
    return (*(escape(name) for name in names), *figures)


def _span(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:,} min"
