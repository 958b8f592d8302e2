"""Methods that only adjust answers share one training, and answer as those that trained their own."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import sampled
from rich.console import Console

from fairbench import Method
from fairbench.benchmark.progress import outcome
from fairbench.jobs.job import Choice, Job, Record, Stage
from fairbench.report.job import failure
from fairbench.testing.toys import difference, train
from fairbench.training.shared import TRAINING, plain


class Plain(Method):
    """It leaves everything as it is."""

    name = "plain-toy"
    uses_attributes = False


class Shuffling(Method):
    """It answers as it draws, from every source there is."""

    name = "shuffling"

    def adjust(self, run, validation, test):
        drawn = torch.rand(len(test), generator=run.generator) + torch.rand(len(test))
        return test.assign(answer=(drawn.numpy() + np.random.rand(len(test)) > 1.5).astype(int))


class Halving(Method):
    """It trains otherwise."""

    name = "halving"

    def loss(self, out, batch):
        return out.loss.mean() / 2


def left(outcome):
    """Return what a job's own folder of runs would hold of it, whoever trained."""
    record = outcome.record
    return record.steps, record.files["log.jsonl"], record.warnings, record.facts["train groups"]


def test_a_job_that_takes_weights_answers_as_one_that_trains_its_own(tmp_path):
    alone = train(Shuffling, out=tmp_path / "alone")
    first = train(Plain, out=tmp_path / "both")
    after = train(Shuffling, out=tmp_path / "both")
    assert (alone.record.weights_of, first.record.weights_of) == ("", "")
    assert after.record.weights_of == first.record.job.key
    assert after.predictions.equals(alone.predictions)
    assert difference(after, alone) == 0.0
    assert left(after) == left(alone)
    assert after.record.seconds["train"] == first.record.seconds["train"]


def test_what_a_training_cost_is_shown_and_not_spent_twice(capsys):
    job = Job(Choice("toy"), Choice("toy-backbone"), Choice("shuffling"), (Stage(),))
    record = Record(
        job, "2026-11-27T00:00:00+00:00", {"load": 2.0, "train": 600.0, "predict": 5.0}, weights_of="ab12"
    )
    assert outcome(record).endswith("done in 7 s")
    assert outcome(replace(record, weights_of="")).endswith("done in 10 min 07 s")
    failure(record, Console(width=200))
    assert "600 s training by job ab12, whose weights it took;" in capsys.readouterr().out


def test_the_other_attribute_has_the_same_training(tmp_path):
    first = train(Shuffling, out=tmp_path)
    other = train(Shuffling, attributes=("sex",), out=tmp_path)
    assert other.record.weights_of == first.record.job.key
    assert set(other.record.facts["train groups"]) == {"female", "male"}


@pytest.mark.parametrize(
    ("method", "changed"),
    sampled(
        [
            (Halving, {}),
            (Shuffling, {"seed": 1}),
            (Shuffling, {"batch_size": 4}),
            (Shuffling, {"select": "best:accuracy"}),
            (Shuffling, {"micro_batch": 2}),
            (Shuffling, {"folds": 3}),
            (Shuffling, {"dataset_settings": {"prompt": "Dark?"}}),
        ],
        count=2,
        ids=lambda case: f"{case[0].name} {case[1]}",
    ),
)
def test_what_trains_otherwise_trains(tmp_path, method, changed):
    train(Plain, out=tmp_path)
    assert train(method, out=tmp_path, **changed).record.weights_of == ""


def test_a_choice_that_looks_at_groups_is_each_jobs_own(tmp_path):
    for attributes in (("site",), ("sex",)):
        outcome = train(Shuffling, attributes=attributes, select="best:worst-group", out=tmp_path)
        assert outcome.record.weights_of == ""


def _damage_weights(folder: Path) -> None:
    (weights,) = folder.glob("*/adapter/adapter_model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-8] + bytes(8))


def _lose_weights(folder: Path) -> None:
    (weights,) = folder.glob("*/adapter/head.safetensors")
    weights.unlink()


def _garble_note(folder: Path) -> None:
    (note,) = folder.glob(".trainings/*.json")
    note.write_text(note.read_text()[:-9])


def _name_other_software(folder: Path) -> None:
    (note,) = folder.glob(".trainings/*.json")
    said = json.loads(note.read_text())
    said["made_by"]["torch"] = "1.0"
    note.write_text(json.dumps(said))


def _name_no_files(folder: Path) -> None:
    (note,) = folder.glob(".trainings/*.json")
    note.write_text(json.dumps({**json.loads(note.read_text()), "files": {}}))


def _edit_a_number(folder: Path) -> None:
    (note,) = folder.glob(".trainings/*.json")
    note.write_text(json.dumps({**json.loads(note.read_text()), "steps": 0}))


@pytest.mark.parametrize(
    "damage",
    sampled(
        [_edit_a_number, _damage_weights, _lose_weights, _garble_note, _name_other_software, _name_no_files],
        count=2,
    ),
)
def test_what_cannot_be_believed_costs_a_training_and_no_more(tmp_path, damage):
    alone = train(Shuffling, out=tmp_path / "alone")
    train(Plain, out=tmp_path / "both")
    damage(tmp_path / "both")
    after = train(Shuffling, out=tmp_path / "both")
    assert after.record.weights_of == ""
    assert after.predictions.equals(alone.predictions)


@pytest.mark.slow
def test_a_note_about_another_training_is_not_believed(tmp_path):
    """Two notes whose names were exchanged: each is whole, and of the other seed."""
    for seed in (0, 1):
        train(Plain, out=tmp_path, seed=seed)
    one, other = sorted((tmp_path / ".trainings").glob("*.json"))
    texts = one.read_text(), other.read_text()
    one.write_text(texts[1])
    other.write_text(texts[0])
    for seed in (0, 1):
        assert train(Shuffling, out=tmp_path, seed=seed).record.weights_of == ""


def test_a_lost_log_costs_nothing(tmp_path):
    first = train(Plain, out=tmp_path)
    (tmp_path / first.record.job.key / "log.jsonl").unlink()
    assert train(Shuffling, out=tmp_path).record.weights_of == first.record.job.key


def test_whatever_a_method_does_before_its_answers_makes_it_its_own():
    assert plain(Plain)
    assert plain(Shuffling)
    for verb in TRAINING:
        assert not plain(type("Own", (Plain,), {verb: lambda *_: None}))
    verbs = {name for name, value in vars(Method).items() if callable(value) and not name.startswith("_")}
    assert verbs - {"adjust", "fingerprint"} == set(TRAINING), "a new verb: does it come before the answers?"


@pytest.mark.slow
def test_workers_that_want_one_training_at_once_wait_for_it(tmp_path):
    """Two methods by two attributes are four jobs; two processes begin two of them together."""
    toys = Path(__file__).parents[1] / "toys.py"
    words = ["quickstart", "--datasets", "toy", "--backbones", "toy-backbone", "--plugin", str(toys)]
    words += ["--methods", "thresholds,eq-odds", "--attr", "site,sex", "--no-baseline", "--no-controls"]
    words += ["--set", "lora.epochs=4", "--workers", "2", "--out", str(tmp_path)]
    command = [sys.executable, "-m", "fairbench", "run", *words]
    environ = {**os.environ, "PYTHONPATH": str(toys.parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environ)
    assert done.returncode == 0, done.stderr
    records = {path.parent.name: json.loads(path.read_text()) for path in tmp_path.glob("*/record.json")}
    whose = {key: record["weights_of"] for key, record in records.items()}
    (own,) = (key for key, taken in whose.items() if not taken)
    assert len(whose) == 4
    assert all(taken == own for key, taken in whose.items() if key != own)
    assert done.stderr.count("[4/4]") == 1
    assert len({record["files"]["adapter/adapter_model.safetensors"] for record in records.values()}) == 1
