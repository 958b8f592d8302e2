"""Run one job from its description to its record: the only training loop there is."""

from __future__ import annotations

import datetime
import json
import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from fairbench.data.dataset import Dataset, most_images, rows
from fairbench.errors import FairbenchError, named
from fairbench.jobs.job import Job, Record, Stage
from fairbench.jobs.journal import Journal
from fairbench.jobs.probe import Probe
from fairbench.models import adapter
from fairbench.models.backbone import Backbone
from fairbench.models.batch import Rows, States
from fairbench.plugins import versions
from fairbench.predictions.groups import Groups
from fairbench.predictions.predictions import Predictions
from fairbench.statistics.probe import Floats
from fairbench.training import device as memory
from fairbench.training import selection
from fairbench.training.acceptance import accepted
from fairbench.training.checkpoint import Checkpoints, Place, Unsaveable
from fairbench.training.features import Encoded, Example, Examples, Prepared, Questions, cache_key, encode
from fairbench.training.isolation import Imprint, OfClasses
from fairbench.training.method import Method
from fairbench.training.needs import require
from fairbench.training.predict import BATCH, adjusted, frame, indices, predict
from fairbench.training.probe import pooled, probed, states_of
from fairbench.training.resources import Resources, Stopped
from fairbench.training.run import Run, Split
from fairbench.training.sampling import Indices, batches_of, epoch_ends
from fairbench.training.shared import Training, find, leave, training_of
from fairbench.training.tracker import Trackers

LOOKS = "looked at validation"  # a fact until the record counts it, because checkpoints keep facts
PACKAGES = ("fairbench", "torch", "transformers", "peft", "accelerate", "numpy", "pandas", "pillow")


class JobRunner:
    """One try at one job: the phases in order, and what the record needs of them."""

    def __init__(self, resources: Resources, job: Job) -> None:
        self.resources, self.job, self.store = resources, job, resources.store
        self.device = resources.accelerator.device
        self.started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.seconds: dict[str, float] = {}
        self.warnings: list[str] = []
        self.facts: dict[str, Any] = {}
        self.described: dict[str, Any] = {}  # the record's fields that say what row this is
        self.error: str | None = None
        self.of_classes: OfClasses | None = None
        self.steps = 0
        self.trained = 0
        self.began = self.saved = time.monotonic()  # the training; its last checkpoint
        self.micro_batch = min(resources.options.micro_batch or job.batch_size, job.batch_size)
        memory.reset_peak()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a phase and tell who watches."""
        self.resources.report(name, 0, 0, None)
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 3)

    def ready(self) -> Method:
        """Load and look: what a job needs before it trains, and all that a probe needs."""
        job, resources = self.job, self.resources
        method: Method = resources.plugins.make("method", job.method, resources.roots)
        self.of_classes = OfClasses(type(method))
        with self.phase("load"):
            self.dataset, self.table = resources.keep(
                "dataset", repr((job.dataset, str(resources.roots))), self._read
            )
            self.warnings += self.dataset.warnings
            precision = torch.bfloat16 if job.precision == "bfloat16" else torch.float32
            key = repr((job.backbone, job.dataset, precision))
            self.backbone: Backbone = resources.keep("backbone", key, lambda: self._load(precision))
            self.imprint: Imprint = resources.keep("imprint", key, lambda: Imprint.of(self.backbone))
            require(method.name, method.needs, self.dataset, self.backbone)
            self.backbone.reset(job.seed)
            self.facts |= self.backbone.facts
            whole = self.table
            self.table, left_out = resources.keep(
                "accepted", key, lambda: accepted(self.dataset, whole, self.backbone)
            )
            self.warnings += left_out
            if job.folds > 1:  # divided before rows are left out: the same folds whatever the backbone
                split = self.dataset.divided(whole, job.folds, job.fold).set_index("id")["split"]
                self.table = self.table.assign(split=self.table["id"].map(split))
        with self.phase("features"):
            view = None if type(method).view is Method.view else method.view
            self.asks = (
                type(method).answer_questions is not Method.answer_questions
            )  # the backbone is asked nothing, so sees nothing
            source = Prepared(self.dataset, self.table, self.backbone, view)
            if not self.asks:
                shown = repr(job.method) if view else ""
                source = resources.keep("source", f"{key} {shown}", lambda: self._encoded(source, precision))
            self.source: Encoded | Prepared = source
            self.versions = source.versions() if isinstance(source, Encoded) else []
        self.where = {split: np.flatnonzero(self.table["split"] == split) for split in ("train", "val", "test")}
        return method

    def go(self) -> None:
        """Load, look, train, predict, adjust, save, and probe where that is asked."""
        job, resources, method = self.job, self.resources, self.ready()
        stages = method.plan(job.stages)
        if not self.asks:
            self.facts["features"] = "cached" if isinstance(self.source, Encoded) else "computed each time"
        self.described = {
            "role": method.role.removesuffix(" on request"),
            "stands_for": method.stands_for,
            "measure": self.dataset.measure,
            "adjusts_with_group": method.group_at_test,
            "stages": tuple(stages),
        }
        parts = {part for stage in stages for part in stage.train}
        self.trained = sum(p.numel() for part in parts for p in self.backbone.part(part))
        run = self._learn(method, tuple(stages))
        if job.attributes:
            self.facts["train groups"] = dict(zip(run.train.groups, run.train.counts.tolist(), strict=True))
        with self.phase("predict"):
            names = tuple(self.dataset.attributes)
            both = self._asked(method, run) if self.asks else self._answered(method, run)
        if resources.leads:
            answers = Predictions(both, self.dataset.classes, names, self.dataset.task)
            made_by = {"job": job.key, "started": self.started, "device": memory.device_name(self.device)}
            answers.save(self.store.predictions_file(job), made_by)
        if resources.options.probe:
            self.described["readable"] = {} if self.asks else self.read(resources.options.probe)

    def _learn(self, method: Method, stages: tuple[Stage, ...]) -> Run:
        """Train every stage, or take the weights of another job here that trained the same, and save them."""
        resources, store = self.resources, self.store
        alone = resources.accelerator.num_processes == 1
        name = training_of(self.job, type(method)) if alone else None
        maker = {**self._maker(), "micro-batch": str(self.micro_batch)}
        known, said = set(self.facts), len(self.warnings)
        if name:
            resources.report("wait for who trains the same", 0, 0, None)
        with store.training(name) if name else nullcontext():
            found = find(store, name, maker) if name else None
            run = self._taken(method, found) if found else self._trained(method, stages)
            if self.steps and resources.leads:
                adapter.save(self.backbone, store.adapter_folder(self.job))
            if name and self.steps and not found:
                facts = {key: value for key, value in self.facts.items() if key not in known}
                cost = self.steps, self.seconds["train"]
                with store.writing():
                    leave(store, name, Training(self.job, *cost, facts, tuple(self.warnings[said:]), maker))
        return run

    def _trained(self, method: Method, stages: tuple[Stage, ...]) -> Run:
        """Train every stage, from the beginning or from where an earlier attempt got to."""
        with self.phase("train"):
            run = self._run(method)
            # Selection asks the validation split, so it cannot choose among epochs that were trained on it.
            chosen = max((n for n, stage in enumerate(stages) if stage.split == "train"), default=-1)
            with self._tracked(), self._resumable(run, method):
                place, state = self._resumed(stages)
                for number in range(place.number, len(stages)):
                    self._train(run, method, stages[number], place, state, select=number == chosen)
                    place, state = Place(number + 1), None
        self.facts["notes"] = run.noted()
        self.described |= {"tried": run.tried, "looks": self.facts.pop(LOOKS, 0)}
        self.micro_batch = run.micro_batch
        return run

    def _taken(self, method: Method, training: Training) -> Run:
        """Take the weights of another job for those that this one would train, and say what they cost."""
        self.resources.report("train", 0, 0, None)
        run = self._run(method)
        adapter.load(self.backbone, self.store.adapter_folder(training.job))
        self.steps, self.seconds["train"] = training.steps, training.seconds
        self.warnings += training.warnings
        self.facts |= training.facts
        self.described["weights_of"] = training.job.key
        log = self.store.log_file(training.job)
        if log.exists():  # without it nothing is lost but a curve
            with self.store.writing():
                shutil.copyfile(log, self.store.log_file(self.job))
        return run

    def _answered(self, method: Method, run: Run) -> pd.DataFrame:
        """Let the backbone answer validation and test, and the method revise the test answers."""
        validation, test = self._predict("val"), self._predict("test")
        self._seed(run, 5)  # what is drawn from here on is the same whoever trained
        test = adjusted(method, run, validation, test, self.dataset)
        return pd.concat([validation, test], ignore_index=True)

    def _asked(self, method: Method, run: Run) -> pd.DataFrame:
        """Let the method answer the test rows in words."""
        if self.resources.accelerator.num_processes > 1:
            raise FairbenchError(f"{method.alias} asks another process", "run it without torchrun")
        texts = method.answer_questions(run)
        if texts is None or len(texts) != len(run.questions) or not all(isinstance(text, str) for text in texts):
            raise FairbenchError(
                f"{method.alias}.answer_questions must return a text for each of {len(run.questions)} rows"
            )
        return frame(self.dataset, self.table.iloc[self.where["test"]], None, texts)

    def again(self, record: Record, probe: Probe) -> Record:
        """Probe a job that has finished: the same weights, the same rows, and nothing else of it changes."""
        self.ready()
        if record.steps:
            adapter.load(self.backbone, self.store.adapter(record))
        return replace(record, readable=self.read(probe))

    def answer_again(self, adapter_folder: Path | None) -> tuple[Predictions, bool]:
        """Answer test rows again with stored weights (None: the job trained none), adjusted as the method does.

        Also return whether it adjusts them, which may rest on what it drew or kept while it trained. Raises
        FairbenchError for a method that asks a model elsewhere.
        """
        method = self.ready()
        if self.asks:
            raise FairbenchError(f"{method.alias} asks a model elsewhere, which may have changed")
        run = self._run(method)
        if adapter_folder is not None:
            adapter.load(self.backbone, adapter_folder)
        with self.phase("predict"):
            validation, test = self._predict("val"), self._predict("test")
            self._seed(run, 5)
            test = adjusted(method, run, validation, test, self.dataset)
        names, adjusts = tuple(self.dataset.attributes), type(method).adjust is not Method.adjust
        return Predictions(test, self.dataset.classes, names, self.dataset.task), adjusts

    def read(self, probe: Probe) -> dict[str, Any]:
        """Say how well each attribute can be read from the hidden states."""
        reads = states_of(probe, self.backbone.depth)
        with self.phase("probe"):
            hidden = {split: self._pooled(split, reads) for split in self.where}
            tables = {split: self.table.iloc[where] for split, where in self.where.items()}
            return probed(probe, hidden, tables, tuple(self.dataset.attributes))

    def _pooled(self, split: str, reads: States) -> Floats:
        where, report = self.where[split], self.resources.report
        return pooled(
            self.resources.accelerator,
            self.backbone,
            reads,
            len(where),
            lambda pieces: self._loader([where[piece].tolist() for piece in pieces]),
            lambda done, total: report(f"probe {split}", done, total, None),
            self._at_once(),
        )

    def _read(self) -> tuple[Dataset, pd.DataFrame]:
        dataset: Dataset = self.resources.plugins.make("dataset", self.job.dataset, self.resources.roots)
        table = rows(dataset)
        if dataset.fingerprint() != self.job.dataset.fingerprint:
            raise FairbenchError(f"the data of {dataset.name} changed since this job was planned", "run it again")
        return dataset, table

    def _load(self, precision: torch.dtype) -> Backbone:
        # The last backbone goes first, or both would be on the device; this is what rests on it.
        self.resources.forget("imprint", "accepted", "source")
        backbone: Backbone = self.resources.plugins.make("backbone", self.job.backbone, self.resources.roots)
        generates = self.dataset.task == "generate"
        backbone.mesh = self.resources.mesh
        backbone.build(self.dataset.classes, self.dataset.words, precision, self.device, generates)
        if (most := most_images(self.dataset)) > 1:
            backbone.try_images(most)
        return backbone

    def _encoded(self, prepared: Prepared, precision: torch.dtype) -> Encoded | Prepared:
        name = cache_key(self.job, self.backbone, precision, self._maker())
        report = self.resources.report
        return encode(
            self.backbone,
            prepared,
            self.store.features_folder(name),
            self.resources.options.feature_bytes,
            lambda done, total: report("features", done, total, None),
        )

    def _run(self, method: Method) -> Run:
        """Show the training rows to the method, and let it make what it needs under its own random numbers."""
        job = self.job
        run = Run(
            job=job,
            backbone=self.backbone,
            train=self._rows("train"),
            validation=self._rows("val"),
            source=Examples(self.source, self.where),
            accelerator=self.resources.accelerator,
            micro_batch=self.micro_batch,
            generator=torch.Generator(),
            warn=lambda text: self.warnings.append(str(text)),
            answers=self._told,
            questions=self._shown("test"),
            known=self._shown("train"),
            words=self.dataset.words,
            limit=self.dataset.max_new_tokens,
            journal=Journal(self.store.answers_file(job)),
            facts=self.facts,
        )
        self._seed(run, 1)
        method.setup(run)
        method.to(self.device)
        return run

    def _seed(self, run: Run, first: int) -> None:
        """Let what a method draws, from whichever source, not depend on what ran before."""
        own, of_torch, of_numpy, of_python = (_seed(self.job.seed, first + place) for place in range(4))
        run.generator.manual_seed(own)
        torch.manual_seed(of_torch)
        np.random.seed(of_numpy)
        random.seed(of_python)

    def _shown(self, split: str) -> Questions:
        """Return a split's rows as a model is shown them."""
        prepared = self.source.prepared if isinstance(self.source, Encoded) else self.source
        return Questions(prepared, self.where[split])

    def _rows(self, split: Split) -> Rows:
        """Say who the patients of a split are, as a method may know them."""
        job, classes = self.job, self.dataset.classes
        table = self.table.iloc[self.where[split]]
        name = "+".join(job.attributes)
        groups = Groups.of(table, name, job.unrecorded) if name else Groups.everyone(table)
        parts = {a: Groups.of(table, a, "drop") for a in job.attributes}
        return Rows(
            target=torch.tensor(indices(table, classes)),
            group=torch.tensor(groups.codes),
            groups=groups.names,
            attributes={a: torch.tensor(part.codes) for a, part in parts.items()},
            values={a: part.names for a, part in parts.items()},
            classes=classes,
            prompts=tuple(table["prompt"]) if "prompt" in table else (self.dataset.prompt,) * len(table),
            references=tuple(table["reference"]) if self.backbone.generates else (),
        )

    @contextmanager
    def _resumable(self, run: Run, method: Method) -> Iterator[None]:
        """While this job trains, let who ends the process wait for a checkpoint, where the method can have one."""
        self.checkpoints = Checkpoints(self.store, run, method)
        self.began = time.monotonic()
        obstacle = self.checkpoints.obstacle()
        if obstacle:
            self.facts["begins anew when interrupted"] = obstacle
        self.resources.checkpointing = not obstacle
        try:
            yield
        finally:
            self.resources.checkpointing = False

    def _resumed(self, stages: tuple[Stage, ...]) -> tuple[Place, Mapping[str, Any] | None]:
        """Return where an earlier attempt at this job got to and its state, else the beginning."""
        state = self.checkpoints.newest() if self.resources.checkpointing else None
        if state is not None:
            about = self.checkpoints.about(state)
            if about["made by"] == self._maker():
                place = self.checkpoints.restore(state, stages)
                self.steps, self.started = about["steps"], about["started"]
                self.warnings[:] = about["warnings"]
                self.seconds["train"] = about["seconds"]
                self.facts["went on at steps"] = [*about["went on"], self.steps]
                _truncate(self.store.log_file(self.job), about["log"])
                return place, state
        _truncate(self.store.log_file(self.job), 0)
        return Place(), None

    def _maker(self) -> dict[str, str]:
        """Say what may change the bits: software, and the kind of device."""
        return {**versions(PACKAGES), "device": memory.device_name(self.device)}

    def _checkpoint(self, place: Place) -> None:
        """Leave what another process can go on from, when it is time, or this one is told to end."""
        resources, now = self.resources, time.monotonic()
        if not resources.checkpointing or not (
            resources.stopping or now - self.saved >= resources.options.checkpoint_every
        ):
            return
        log = self.store.log_file(self.job)
        try:
            about = {
                "made by": self._maker(),
                "steps": self.steps,
                "started": self.started,
                "warnings": list(self.warnings),
                "seconds": self.seconds.get("train", 0.0) + now - self.began,
                "went on": self.facts.get("went on at steps", []),
                "log": log.stat().st_size if log.exists() else 0,
            }
            self.checkpoints.save(place, about)
        except (Unsaveable, OSError) as error:
            self.warnings.append(f"no checkpoint could be left: {error}")
        self.saved = time.monotonic()
        if resources.stopping:
            raise Stopped

    def _train(
        self, run: Run, method: Method, stage: Stage, place: Place, state: Mapping[str, Any] | None, select: bool
    ) -> None:
        """Train one stage, or the rest of it; of its epochs, keep the one that the job's rule chooses."""
        where = self.where[stage.split]
        if state is None:
            run.begin(stage)
            place.odds = method.start_stage(run)
        epochs = stage.lasting(len(where), self.job.batch_size)
        if epochs != stage.epochs:
            self.facts[f"epochs of {stage.name}"] = epochs
        batches = batches_of(len(where), epochs, self.job, place.number, place.odds)
        run.steps = len(batches)
        selects = select and self.job.select != selection.LAST
        ends = epoch_ends(len(where), self.job, len(batches)) if selects else ()
        shares = [run.share(len(batch)) for batch in batches]
        left = [where[batch[share]].tolist() for batch, share in zip(batches, shares, strict=True)][place.step :]
        loader = iter(self._loader(left))
        if state is not None:  # only now: the loader draws a number
            self.checkpoints.restore_randomness(state)
        self.saved = time.monotonic()
        for step, examples in enumerate(loader, place.step):
            self._step(run, method, step, batches[step], shares[step], examples)
            if step + 1 == len(batches):
                method.end_stage(run)
            if step + 1 in ends:
                place.epochs.append((self._answers("val"), self._weights()))
            place.step = step + 1
            self._checkpoint(place)
        self.backbone.train(False)
        self._choose(place)

    def _step(
        self, run: Run, method: Method, step: int, chosen: Indices, share: Indices, examples: list[Example]
    ) -> None:
        run.advance(step)
        batch = run.compose(torch.as_tensor(chosen), examples, int(share[0]) if len(share) else 0)
        if not self.backbone.language_model.training:
            self.backbone.train(True)
        method.step(run, batch)
        run.note(batch.notes)
        self.steps += 1
        self.resources.report("train", step + 1, run.steps, run.last_loss)
        if self.resources.leads and (step % 10 == 0 or step + 1 == run.steps):
            assert run.stage is not None
            line = {"stage": run.stage.name, "step": step, "loss": run.last_loss, **batch.notes}
            with self.store.log_file(self.job).open("a", encoding="utf-8") as log:
                log.write(json.dumps(line) + "\n")
        self.trackers.log({"loss": run.last_loss, "stage": run.stage_number, **batch.notes}, self.steps)

    def _choose(self, place: Place) -> None:
        """Take the weights of the epoch that the job's rule chooses, where there are several."""
        if not place.epochs:
            return
        answers = [predictions for predictions, _ in place.epochs]
        attribute = "+".join(self.job.attributes)
        best = selection.choose(self.job.select, answers, attribute, self.job.unrecorded, self.resources.plugins)
        self.facts["selected epoch"] = f"{best + 1} of {len(answers)} by {self.job.select}"
        with torch.no_grad():
            for name, parameter in self.backbone.trainable().items():
                parameter.copy_(place.epochs[best][1][name])

    @contextmanager
    def _tracked(self) -> Iterator[None]:
        """Tell trackers of this job while it trains."""
        resources = self.resources
        kinds = [resources.plugins.find("tracker", name) for name in resources.options.track if resources.leads]
        self.trackers = Trackers(kinds, self.job, self.store.trackers_folder, self.warnings.append)
        try:
            yield
        finally:
            self.trackers.close()

    def _told(self, split: Split) -> Predictions:
        """Answer a method that asks while it trains; the record says how often it asked about validation."""
        if split == "val":
            self.facts[LOOKS] = self.facts.get(LOOKS, 0) + 1
        return self._answers(split)

    def _answers(self, split: Split) -> Predictions:
        names = tuple(self.dataset.attributes)
        return Predictions(self._predict(split), self.dataset.classes, names, self.dataset.task)

    def _weights(self) -> dict[str, Tensor]:
        return {name: p.detach().cpu().clone() for name, p in self.backbone.trainable().items()}

    def _loader(self, batches: list[list[int]]) -> Any:
        workers = 0 if isinstance(self.source, Encoded) else self.resources.options.loaders
        return DataLoader(self.source, batch_sampler=batches, collate_fn=list, num_workers=workers)

    def _predict(self, split: str) -> pd.DataFrame:
        """Return one split's predictions; each process computes its share."""
        self.backbone.train(False)
        report = self.resources.report
        return predict(
            self.resources.accelerator,
            self.backbone,
            self.dataset,
            self.table.iloc[self.where[split]],
            lambda pieces: self._loader([self.where[split][piece].tolist() for piece in pieces]),
            lambda done, total: report(f"predict {split}", done, total, None),
            self._at_once(),
        )

    def _at_once(self) -> int:
        """Return how many rows are answered at once: a sharded backbone cannot take fewer when memory runs out."""
        return BATCH if self.resources.mesh is None else min(BATCH, self.micro_batch)

    def changes(self) -> list[str]:
        """Name what this job changed that the next one inherits: of the backbone, the examples, the method."""
        imprint: Imprint | None = getattr(self, "imprint", None)
        try:
            changed = imprint.changes(Imprint.of(self.backbone)) if imprint else []
        except Exception as error:  # a plugin's doing, which must not end the process
            changed = [f"the backbone, which cannot be looked at any more ({named(error)})"]
        source = getattr(self, "source", None)
        if isinstance(source, Encoded) and source.versions() != self.versions:
            changed.append("examples that are kept in memory")
        return changed + (self.of_classes.restore() if self.of_classes else [])

    def record(self) -> Record:
        """Describe how it went, whether it did or not."""
        backbone: Backbone | None = getattr(self, "backbone", None)
        return Record(
            job=self.job,
            started=self.started,
            seconds=self.seconds,
            steps=self.steps,
            peak_memory=memory.peak(self.device),
            trainable_parameters=self.trained,
            total_parameters=sum(p.numel() for p in backbone.parameters()) if backbone else 0,
            device=memory.device_name(self.device),
            processes=self.resources.accelerator.num_processes,
            micro_batch=self.micro_batch,
            versions={**versions(PACKAGES), "git": _git()},
            facts=self.facts,
            **self.described,
            warnings=tuple(dict.fromkeys(self.warnings)),
            error=self.error,
        )


def _truncate(log: Path, length: int) -> None:
    """Forget the losses of steps that are taken again."""
    if log.exists():
        os.truncate(log, length)


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _git() -> str:
    """Say which commit of fairbench this is, where it runs from a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "not a checkout"
