"""A job's key: equal for the same experiment in any process, different for any other."""

import json
import subprocess
import sys
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairbench import FairbenchError
from fairbench.jobs.conversion import departures
from fairbench.jobs.job import SCHEMA, Choice, Job, Record, Stage

JOB = Job(
    dataset=Choice("ham", {"limit": 100}, "fairbench 1", "d1"),
    backbone=Choice("qwen", {"targets": ["q", "v"]}, "fairbench 1", "b1"),
    method=Choice("fr", {"strength": 0.1}, "fairbench 1"),
    stages=(Stage(epochs=1, lr_scale={"head": 3.0}), Stage(name="second", train=("head",))),
    attributes=("sex", "age"),
    seed=2,
)


def test_the_key_is_the_same_in_another_process():
    code = "import json, sys; from fairbench.jobs.job import Job; print(Job.from_json(json.load(sys.stdin)).key)"
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(JOB.to_json()), text=True, capture_output=True, check=True
    )
    assert done.stdout.strip() == JOB.key
    assert len(JOB.key) == 16


def test_a_job_survives_json():
    again = Job.from_json(json.loads(json.dumps(JOB.to_json())))
    assert again.key == JOB.key
    assert again.stages == JOB.stages
    assert again.title == "fr(strength=0.1) on sex+age · qwen · ham · seed 2"


def test_equal_content_has_an_equal_key():
    same = replace(
        JOB,
        dataset=Choice(**vars(JOB.dataset)),
        stages=(Stage(epochs=1.0, lr_scale={"head": 3}), JOB.stages[1]),
    )
    assert Job.from_json(same.to_json()).key == JOB.key


@pytest.mark.parametrize(
    "changed",
    [
        replace(JOB, method=replace(JOB.method, settings={"strength": 0.2})),
        replace(JOB, method=replace(JOB.method, version="fairbench 2")),
        replace(JOB, method=replace(JOB.method, name="gr")),
        replace(JOB, dataset=replace(JOB.dataset, fingerprint="d2")),
        replace(JOB, dataset=replace(JOB.dataset, settings={"limit": 100, "prompt": "Is it?"})),
        replace(JOB, backbone=replace(JOB.backbone, fingerprint="b2")),
        replace(JOB, backbone=replace(JOB.backbone, version="other 1")),
        replace(JOB, precision="bfloat16"),
        replace(JOB, stages=JOB.stages[:1]),
        replace(JOB, stages=(replace(JOB.stages[0], lr=1e-5), JOB.stages[1])),
        replace(JOB, stages=(replace(JOB.stages[0], lr_scale={"head": 2.0}), JOB.stages[1])),
        replace(JOB, stages=JOB.stages[::-1]),
        replace(JOB, attributes=("sex",)),
        replace(JOB, seed=3),
        replace(JOB, batch_size=16),
        replace(JOB, unrecorded="drop"),
        replace(JOB, select="best:accuracy"),
    ],
)
def test_whatever_could_change_predictions_changes_the_key(changed):
    assert changed.key != JOB.key


@dataclass(frozen=True)
class LaterStage(Stage):
    momentum: float = 0.9


@dataclass(frozen=True)
class LaterJob(Job):
    stages: tuple[LaterStage, ...]
    augment: tuple[str, ...] = ()


@dataclass(frozen=True)
class LaterRecord(Record):
    job: LaterJob
    stages: tuple[LaterStage, ...] | None = None
    energy: float = 0.0


def test_a_new_field_with_a_default_changes_no_key_and_reads_what_was_written_before():
    record = Record(JOB, "2026-01-01", stages=JOB.stages, role="control", stands_for="nothing", tried=2)
    later = LaterJob.from_json(json.loads(json.dumps(JOB.to_json())))
    assert later.key == JOB.key
    assert (later.stages[0].momentum, later.augment) == (0.9, ())
    again = LaterRecord.from_json(json.loads(json.dumps(record.to_json())))
    assert (again.job, again.energy, again.tried) == (later, 0.0, 2)
    assert again.stages == later.stages
    assert replace(later, augment=("flip",)).key != JOB.key
    assert replace(later, stages=(replace(later.stages[0], momentum=0.5), later.stages[1])).key != JOB.key


def test_a_default_has_not_changed_under_the_same_schema():
    """Keys leave defaults out: who changes one here must raise SCHEMA, or old results pass for new ones."""
    assert SCHEMA == 2
    stage = Stage("lora", ("lora", "head"), 3.0, 1e-4, {}, 100, "linear", 0.0, 1.0)
    nobody = Choice("", {}, "", "")
    job = Job(nobody, nobody, nobody, (stage,), (), 0, 8, "float32", "keep", "last")
    assert departures(job) == {kind: {"name": ""} for kind in ("dataset", "backbone", "method")} | {"stages": [{}]}


def test_an_edited_job_is_refused():
    edited = {**JOB.to_json(), "seed": 3}
    with pytest.raises(FairbenchError, match="does not match its own content"):
        Job.from_json(edited)


NAMES = st.sampled_from([*JOB.to_json(), "job", "name", "error"])
JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=6,
)


@given(JSON)
def test_what_is_no_job_or_record_is_refused_and_never_crashes(data):
    for kind in (Job, Record):
        with pytest.raises(FairbenchError):
            kind.from_json(data)
        with pytest.raises(FairbenchError):
            kind.from_json({**JOB.to_json(), "job": data, "stages": data})


def test_a_record_survives_json_and_what_is_not_a_number_is_null():
    record = Record(
        JOB, "2026-01-01", {"train": 1.5}, steps=3, facts={"active": float("nan"), "groups": {"f": 3}}, error="no"
    )
    again = Record.from_json(json.loads(json.dumps(record.to_json(), allow_nan=False)))
    assert again.failed
    assert again.job.key == JOB.key
    assert again.facts == {"active": None, "groups": {"f": 3}}
    assert replace(again, facts={}, job=JOB) == replace(record, facts={})


def test_a_stage_lasts_whole_epochs_until_it_has_its_steps():
    stage = Stage(epochs=3, min_steps=150)
    assert stage.lasting(490, 16) == 5  # 31 steps an epoch
    assert stage.lasting(7000, 16) == 3
    assert stage.lasting(10, 16) == 150
    assert Stage(epochs=2.5).lasting(10, 4) == 2.5
    assert Stage(epochs=0.5, min_steps=2).lasting(16, 4) == 0.5
    assert Stage(epochs=3, warmup=15).fitted(7000, 16) == Stage(epochs=3, warmup=15)
    assert Stage(epochs=3, warmup=15).fitted(490, 16) == Stage(epochs=3, warmup=15, min_steps=150)
    assert Stage(epochs=3, warmup=15).fitted(490, 16).lasting(490, 16) == 5
    assert Stage(epochs=3, warmup=15, min_steps=200).fitted(490, 16).min_steps == 200
    assert Stage(epochs=3, warmup=0).fitted(1, 16).min_steps == 0
    assert (stage.share(0.4).epochs, stage.share(0.4).min_steps) == (pytest.approx(1.2), 60)
