"""Check answers against the models: predict again with the stored adapters, or train again from the job's key."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fairbench.errors import FairbenchError
from fairbench.jobs.job import Job, Record
from fairbench.jobs.store import Store
from fairbench.jobs.worker_options import WorkerOptions
from fairbench.plugins import Plugins, versions
from fairbench.predictions.predictions import Predictions
from fairbench.publication.findings import Finding

if TYPE_CHECKING:
    from fairbench.training.worker import Worker

# By how much arithmetic may move a probability: on the same device and software, and elsewhere.
SAME, OTHER = 1e-4, {"float32": 0.01, "bfloat16": 0.05}
WRITTEN = 0.01  # share of written answers that may differ for the same reason


@dataclass(frozen=True)
class Again:
    """What predicting or training again needs: the folders with the jobs, plugins, and where data lie."""

    stores: Sequence[Store]
    plugins: Plugins
    roots: Mapping[str, Path]


def drawn(stores: Sequence[Store], records: Sequence[Record], count: int, seed: int | None) -> list[Record]:
    """Draw jobs of a publication that finished and are in these folders, at random: who checks chooses."""
    here = {record.job.key for store in stores for record in store.contents().records}
    able = [record for record in records if not record.failed and record.job.key in here]
    return random.Random(seed).sample(able, min(count, len(able)))


def predict_again(again: Again, records: Sequence[Record]) -> Iterator[Finding]:
    """Answer every job's test rows with its stored adapter, and compare with the answers it left.

    Data, images' features and the backbone are read once for all.
    """
    from fairbench.training.worker import Worker

    with tempfile.TemporaryDirectory() as folder:
        worker = Worker(Store(folder), again.plugins, again.roots, _quiet)
        for record in records:
            where = f"job {record.job.key} ({record.job.title}), predicted again"
            try:
                store = _store(again, record.job)
                answers, adjusts, close = _answer(again, worker, store, record)
                fault = unlike(store.predictions(record), answers, close)
            except FairbenchError as error:
                yield Finding("unchecked", where, error.message)
                continue
            if fault and adjusts:
                said = f"{fault}; its method may adjust answers by what it kept of training: only --retrain can say"
                yield Finding("unchecked", where, said)
            elif fault:
                yield Finding("differs", where, f"its adapter does not give its answers: {fault}")
            else:
                yield Finding("holds", where, "its adapter gives its answers")


def train_again(again: Again, records: Sequence[Record]) -> Iterator[Finding]:
    """Train every job anew from what its key stands for, in a folder that is thrown away, and compare answers."""
    from fairbench.training.worker import Worker

    for record in records:
        where = f"job {record.job.key} ({record.job.title}), trained again"
        with tempfile.TemporaryDirectory() as folder:
            store = Store(folder)
            try:
                worker = Worker(
                    store, again.plugins, again.roots, _quiet, WorkerOptions(record.micro_batch or None)
                )
                made = worker.run(_here(again, record.job))
                if made.error is not None:
                    raise FairbenchError(made.error)
                answers = _store(again, record.job).predictions(record)
                fault = unlike(answers, store.predictions(made), SAME)
            except FairbenchError as error:
                yield Finding("unchecked", where, error.message)
                continue
        if fault and (made.device, made.versions.get("torch")) != (record.device, record.versions.get("torch")):
            on = f"{made.device} with torch {made.versions.get('torch')}"
            yield Finding("unchecked", where, f"{fault}; this is {on}, and training elsewhere drifts apart")
        elif fault:
            yield Finding("differs", where, f"training it again does not give its answers: {fault}")
        else:
            yield Finding("holds", where, "training it again gives its answers")


def _answer(again: Again, worker: Worker, store: Store, record: Record) -> tuple[Predictions, bool, float]:
    """Return the answers, whether the method adjusts them, and how close they must come out on this machine."""
    from fairbench.training.device import device_name
    from fairbench.training.job_runner import JobRunner

    adapter = store.adapter(record) if record.steps else None
    runner = JobRunner(worker, _here(again, record.job))
    try:
        answers, adjusts = runner.answer_again(adapter)
    finally:
        if runner.changes():  # the next job is to find everything as it was loaded
            worker.forget()
    here = device_name(worker.accelerator.device), versions(["torch"])["torch"]
    same = here == (record.device, record.versions.get("torch"))
    return answers, adjusts, SAME if same else OTHER[record.job.precision]


def _here(again: Again, job: Job) -> Job:
    """Return the job if this machine can run it; raises FairbenchError naming what is missing or other."""
    for kind in ("dataset", "backbone", "method"):
        choice = getattr(job, kind)
        again.plugins.find(kind, choice.name)
        if again.plugins.version(kind, choice.name) != choice.version:
            raise FairbenchError(
                f"{kind} {choice.name} was {choice.version}, and here is {again.plugins.version(kind, choice.name)}"
            )
    return job


def _store(again: Again, job: Job) -> Store:
    for store in again.stores:
        if store.ended(job) is not None:
            return store
    raise FairbenchError("it is not in these runs")


def _quiet(phase: str, done: int, total: int, loss: float | None) -> None:
    """Tell nobody."""


def unlike(published: Predictions, again: Predictions, close: float) -> str:
    """Say how answers differ beyond what arithmetic explains, empty where they do not; rows matched by id.

    `close` bounds what arithmetic may do to a probability; an answer may be another only within it of a tie.
    """
    mine, theirs = (one.table.set_index("id").sort_index() for one in (published, again))
    if not mine.index.equals(theirs.index):
        return f"it has {len(mine):,} rows, and {len(theirs):,} or others come out"
    if "target" in mine and not mine["target"].equals(theirs["target"].astype(mine["target"].dtype)):
        return (
            f"{int((mine['target'].to_numpy() != theirs['target'].to_numpy()).sum()):,} targets are not the data's"
        )
    if "text" in mine:
        other = float((mine["text"] != theirs["text"]).mean())
        return f"{100 * other:.1f} % of the texts are others" if other > WRITTEN else ""
    columns = [f"p_{index}" for index in range(len(published.classes))]
    before, after = mine[columns].to_numpy(float), theirs[columns].to_numpy(float)
    moved = float(np.abs(before - after).max())
    given = mine["answer"].to_numpy()
    chosen = np.where(given >= 0, after[np.arange(len(given)), given], np.nan)
    other = (given != theirs["answer"].to_numpy()) & ~(after.max(axis=1) - chosen <= 2 * close)
    if other.any():
        return f"{int(other.sum()):,} of {len(given):,} answers are others"
    return f"a probability is another by {moved:.2g}" if moved > close else ""
