"""Run one job from its description to its record: the only training loop there is."""

from __future__ import annotations

import datetime
import errno
import json
import os
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

from fairbench import adapter, memory
from fairbench.backbone import Backbone, Batch
from fairbench.dataset import Dataset, rows
from fairbench.errors import FairbenchError
from fairbench.features import Prepared, Seen, cache_key, see_all
from fairbench.job import Job, Record, Stage
from fairbench.method import Method
from fairbench.plugins import Plugins, versions
from fairbench.predictions import Predictions
from fairbench.run import Rows, Run
from fairbench.store import ADAPTER, LOG, PREDICTIONS, Store

PACKAGES = ("fairbench", "torch", "transformers", "peft", "accelerate", "numpy", "pandas", "pillow")
EVALUATION_BATCH = 32
Report = Callable[[str, int, int, float | None], None]


@dataclass
class Worker:
    """One process that runs jobs one after another, keeping what they share: data, backbone, features.

    `roots` maps a dataset's name to its folder; `micro_batch` bounds how many examples are computed
    at once (default: the whole batch); `feature_bytes` bounds the memory of cached features;
    `report(phase, done, total, loss)` is called as work goes on.
    """

    store: Store
    plugins: Plugins
    roots: Mapping[str, Path]
    report: Report
    micro_batch: int | None = None
    feature_bytes: int = 8 << 30
    loaders: int = 0
    threads: int = 1
    _kept: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.set_num_threads(self.threads)
        self.accelerator = Accelerator(cpu=not torch.cuda.is_available())

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes."""
        return bool(self.accelerator.is_main_process)

    def run(self, job: Job) -> Record:
        """Run one job and save its record, also when it fails; only a full disk and Ctrl-C get through."""
        folder = self.store.prepare(job) if self.leads else self.store.folder(job)
        self.accelerator.wait_for_everyone()
        attempt = _Attempt(self, job, folder)
        try:
            attempt.go()
        except Exception as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise FairbenchError(
                    f"the disk that holds {self.store.root} is full; finished jobs are safe",
                    "make room and run the same command again",
                ) from error
            attempt.error = str(error) if isinstance(error, FairbenchError) else f"{type(error).__name__}: {error}"
            if not isinstance(error, FairbenchError):
                (folder / "traceback.txt").write_text(traceback.format_exc(), encoding="utf-8")
        record = attempt.record()
        if self.leads:
            self.store.save(record)
            self.plugins.manager.hook.fairbench_job_finished(record=record)
        self.accelerator.wait_for_everyone()
        return record

    def keep(self, kind: str, key: str, make: Callable[[], Any]) -> Any:
        """Return what the last job used when it is the same, else make it and let the old one go."""
        if kind not in self._kept or self._kept[kind][0] != key:
            self._kept.pop(kind, None)
            self._kept[kind] = (key, make())
        return self._kept[kind][1]


class _Attempt:
    """One try at one job: the phases in order, and what the record needs of them."""

    def __init__(self, worker: Worker, job: Job, folder: Path) -> None:
        self.worker, self.job, self.folder = worker, job, folder
        self.started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.seconds: dict[str, float] = {}
        self.warnings: list[str] = []
        self.facts: dict[str, Any] = {}
        self.error: str | None = None
        self.steps = 0
        self.micro_batch = min(worker.micro_batch or job.batch_size, job.batch_size)
        self.backbone: Backbone | None = None
        memory.reset_peak()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a phase and tell who watches."""
        self.worker.report(name, 0, 0, None)
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 3)

    def go(self) -> None:
        job, worker = self.job, self.worker
        method: Method = worker.plugins.make("method", job.method)
        with self.phase("load"):
            dataset, table = worker.keep("dataset", repr((job.dataset, str(worker.roots))), self._read)
            self.warnings += dataset.warnings
            precision = _precision(job, worker.accelerator)
            key = repr((job.backbone, job.dataset, precision))
            backbone = self.backbone = worker.keep("backbone", key, lambda: self._load(dataset, precision))
            backbone.reset(job.seed)
        with self.phase("features"):
            source = worker.keep("source", key, lambda: self._source(dataset, table, backbone, precision))
        self.facts["features"] = "cached" if isinstance(source, Seen) else "computed each time"
        splits = {split: np.flatnonzero(table["split"] == split) for split in ("train", "val", "test")}
        with self.phase("train"):
            run = self._run(method, dataset, table.iloc[splits["train"]])
            stages = method.plan(job.stages)
            self.facts |= {
                "baseline": method.baseline,
                "control": method.control,
                "adjusts with group": method.group_at_test,
            }
            self.facts["stages"] = [asdict(stage) for stage in stages]
            for number, stage in enumerate(stages):
                self._train(run, method, source, splits["train"], number, stage)
            self.facts |= run.noted()
            self.micro_batch = run.micro_batch
        with self.phase("predict"):
            frames = [self._predict(dataset, table, source, splits[split], split) for split in ("val", "test")]
            frames[1] = adjusted(method, frames[0], frames[1], tuple(dataset.attributes))
        if worker.leads:
            predictions = Predictions(
                pd.concat(frames, ignore_index=True), dataset.classes, tuple(dataset.attributes)
            )
            predictions.save(self.folder / PREDICTIONS)
            if self.steps:
                adapter.save(backbone, self.folder / ADAPTER)

    def _read(self) -> tuple[Dataset, pd.DataFrame]:
        dataset: Dataset = self.worker.plugins.make("dataset", self.job.dataset, self.worker.roots)
        table = rows(dataset)
        if dataset.fingerprint() != self.job.dataset.fingerprint:
            raise FairbenchError(f"the data of {dataset.name} changed since this job was planned", "run it again")
        return dataset, table

    def _load(self, dataset: Dataset, precision: torch.dtype) -> Backbone:
        backbone: Backbone = self.worker.plugins.make("backbone", self.job.backbone)
        return backbone.build(dataset.classes, dataset.words, precision, self.worker.accelerator.device)

    def _source(self, dataset: Dataset, table: pd.DataFrame, backbone: Backbone, precision: torch.dtype) -> Any:
        folder = self.worker.store.root / ".features" / cache_key(backbone, dataset, precision)
        prepared = Prepared(dataset, table, backbone)
        report = self.worker.report
        return see_all(
            backbone, prepared, folder, self.worker.feature_bytes, lambda i, n: report("features", i, n, None)
        )

    def _run(self, method: Method, dataset: Dataset, train: pd.DataFrame) -> Run:
        """Show the training rows to the method; its random numbers are its own."""
        job, device = self.job, self.worker.accelerator.device
        people = Predictions(train, dataset.classes, tuple(dataset.attributes))
        name = "+".join(job.attributes)
        group, groups = people.groups(name, job.unrecorded) if name else (np.zeros(len(train), int), ("everyone",))
        codes = {a: people.groups(a, "drop") for a in job.attributes}
        target = train["target"].map({c: i for i, c in enumerate(dataset.classes)}).to_numpy()
        run = Run(
            job=job,
            backbone=self.backbone,  # type: ignore[arg-type]
            train=Rows(
                target=torch.tensor(target),
                group=torch.tensor(group).long(),
                groups=groups,
                attributes={a: torch.tensor(code).long() for a, (code, _) in codes.items()},
                values={a: values for a, (_, values) in codes.items()},
                classes=dataset.classes,
            ),
            accelerator=self.worker.accelerator,
            micro_batch=self.micro_batch,
            generator=torch.Generator().manual_seed(_seed(job.seed, 1)),
            warn=self.warnings.append,
            facts=self.facts,
        )
        if name:
            self.facts["train groups"] = dict(zip(groups, run.train.counts.tolist(), strict=True))
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(_seed(job.seed, 2))
            method.setup(run)
        method.to(device)
        return run

    def _train(self, run: Run, method: Method, source: Any, train: Any, number: int, stage: Stage) -> None:
        """One stage: every method sees the same batches, drawn by the run's own generator."""
        accelerator, rows_ = self.worker.accelerator, run.train
        method_odds = method.draw(run)
        batches = order(len(train), stage.epochs, self.job, number, method_odds)
        shares = [
            np.array_split(np.arange(len(b)), accelerator.num_processes)[accelerator.process_index] for b in batches
        ]
        loader = self._loader(source, [train[b[s]].tolist() for b, s in zip(batches, shares, strict=True)])
        run.begin(stage, len(batches))
        run.backbone.train(True)
        log = (self.folder / LOG).open("a", encoding="utf-8") if self.worker.leads else None
        with log or nullcontext():
            for step, (chosen, share, examples) in enumerate(zip(batches, shares, loader, strict=True)):
                run.step = step
                index = torch.as_tensor(chosen)
                batch = Batch(
                    row=index.to(run.device),
                    target=rows_.target[index].to(run.device),
                    group=rows_.group[index].to(run.device),
                    attributes={a: code[index].to(run.device) for a, code in rows_.attributes.items()},
                    n_groups=len(rows_.groups),
                    examples=examples,
                    start=int(share[0]) if len(share) else 0,
                )
                method.step(run, batch)
                run.note(batch.notes)
                self.steps += 1
                self.worker.report("train", step + 1, len(batches), run.last_loss)
                if log and (step % 10 == 0 or step + 1 == len(batches)):
                    line = {"stage": stage.name, "step": step, "loss": run.last_loss, **batch.notes}
                    log.write(json.dumps(line) + "\n")
        run.backbone.train(False)

    def _loader(self, source: Any, batches: list[list[int]]) -> Any:
        workers = 0 if isinstance(source, Seen) else self.worker.loaders
        return DataLoader(source, batch_sampler=batches, collate_fn=list, num_workers=workers)

    def _predict(self, dataset: Dataset, table: pd.DataFrame, source: Any, where: Any, split: str) -> pd.DataFrame:
        """Return one split's predictions; each process computes its share."""
        backbone, accelerator = self.backbone, self.worker.accelerator
        assert backbone is not None
        scores = torch.zeros(len(where), len(dataset.classes), dtype=torch.float64, device=accelerator.device)
        shares = np.array_split(np.arange(len(where)), accelerator.num_processes)
        mine = shares[accelerator.process_index]
        pieces = [mine[i : i + EVALUATION_BATCH] for i in range(0, len(mine), EVALUATION_BATCH)]
        loader = self._loader(source, [where[piece].tolist() for piece in pieces])
        with torch.no_grad():
            for number, (piece, examples) in enumerate(zip(pieces, loader, strict=True)):
                inputs = {k: v.to(accelerator.device) for k, v in backbone.stack(examples).items()}
                unknown = torch.full((len(examples),), -1, device=accelerator.device)
                scores[torch.as_tensor(piece)] = backbone(inputs, unknown).scores.double()
                self.worker.report(f"predict {split}", number + 1, len(pieces), None)
        if accelerator.num_processes > 1:
            scores = accelerator.reduce(scores, "sum")
        return frame(dataset, table.iloc[where], scores.softmax(-1).cpu().numpy())

    def record(self) -> Record:
        backbone, accelerator = self.backbone, self.worker.accelerator
        trained = (
            sum(p.numel() for part in {p for s in self.job.stages for p in s.train} for p in backbone.part(part))
            if backbone
            else 0
        )
        return Record(
            job=self.job,
            started=self.started,
            seconds=self.seconds,
            steps=self.steps,
            peak_memory=memory.peak(accelerator.device),
            trainable_parameters=trained if self.steps or self.error else 0,
            total_parameters=sum(p.numel() for p in backbone.parameters()) if backbone else 0,
            device=memory.device_name(accelerator.device),
            processes=accelerator.num_processes,
            micro_batch=self.micro_batch,
            versions={**versions(PACKAGES), "git": _git()},
            facts=self.facts,
            warnings=tuple(dict.fromkeys(self.warnings)),
            error=self.error,
        )


def order(count: int, epochs: float, job: Job, stage: int, odds: torch.Tensor | None) -> list[Any]:
    """Return the row indices of every batch of a stage; the same for all methods that draw evenly."""
    per_epoch = -(-count // job.batch_size)
    batches: list[Any] = []
    for epoch in range(int(np.ceil(epochs))):
        generator = np.random.default_rng([job.seed, stage, epoch])
        if odds is None:
            rows_ = generator.permutation(count)
        else:
            share = odds.double().cpu().numpy()
            rows_ = generator.choice(count, count, p=share / share.sum())
        batches += [rows_[i : i + job.batch_size] for i in range(0, count, job.batch_size)]
    return batches[: max(1, round(epochs * per_epoch))]


def frame(dataset: Dataset, table: pd.DataFrame, probabilities: Any) -> pd.DataFrame:
    """Put predictions beside who they are about."""
    result = table[["id", "cluster", "split"]].reset_index(drop=True)
    result["target"] = table["target"].map({c: i for i, c in enumerate(dataset.classes)}).to_numpy()
    result["answer"] = probabilities.argmax(1)
    for index in range(len(dataset.classes)):
        result[f"p_{index}"] = probabilities[:, index]
    for attribute in dataset.attributes:
        result[attribute] = table[attribute].to_numpy()
    return result


def adjusted(
    method: Method, validation: pd.DataFrame, test: pd.DataFrame, attributes: tuple[str, ...]
) -> pd.DataFrame:
    """Let a method revise the test predictions without seeing the targets (nor, mostly, the groups)."""
    hidden = ["target", *(() if method.group_at_test else attributes)]
    revised = method.adjust(validation.copy(), test.drop(columns=hidden))
    if list(revised["id"]) != list(test["id"]):
        raise FairbenchError(f"{method.name}.adjust must return the test rows it was given, in their order")
    return revised.assign(**{column: test[column].to_numpy() for column in hidden})[list(test.columns)]


def _precision(job: Job, accelerator: Accelerator) -> torch.dtype:
    if job.precision != "auto":
        return torch.bfloat16 if job.precision == "bfloat16" else torch.float32
    on_gpu = accelerator.device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.bfloat16 if on_gpu else torch.float32


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _git() -> str:
    """Say which commit of fairbench this is, where it runs from a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "not a checkout"
