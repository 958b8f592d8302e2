"""What a plan says of time and memory, against a clock that is known and against jobs that are run."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from itertools import count
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from fairbench import Method, plugins
from fairbench.benchmark import plan
from fairbench.benchmark.benchmark import Benchmark
from fairbench.benchmark.cost import Size, activation_bytes, estimate
from fairbench.errors import FairbenchError
from fairbench.jobs.job import Choice, Stage
from fairbench.jobs.store import Store
from fairbench.testing.toys import toy_plugins
from fairbench.training.rehearsal import rehearse
from fairbench.training.worker import Worker

ROWS = 96 + 24 + 48


class Plain(Method):
    """Plain fine-tuning."""

    name = "plain"
    role = "baseline"


class Other(Plain):
    """The same under another name."""

    name = "other"
    role = "contender"

    def loss(self, out, batch):
        return out.loss.mean()


class Adjusting(Plain):
    name = "adjusting"
    role = "contender"


PLUGINS = toy_plugins(Plain, Other, Adjusting)
TOY = Benchmark(
    name="toy",
    datasets=("toy",),
    backbones=("toy-backbone",),
    methods=(Choice("other"),),
    attributes=("site",),
    batch_size=8,
    stages=(Stage(name="lora", train=("lora", "head"), epochs=2, lr=3e-3),),
)


def planned():
    return plan.jobs(TOY, PLUGINS, {})


def test_a_plan_counts_steps_answers_and_images_by_the_clock(tmp_path):
    """Whatever is timed takes one second: a step, a batch of 8 answers, a look at 8 images."""
    ticks = count()
    first, second = estimate(
        planned(), Store(tmp_path), try_out=partial(rehearse, clock=lambda: float(next(ticks)))
    )
    assert (first.basis, first.steps) == ("tried out", 24)
    assert second.seconds == pytest.approx(24 + (24 + 48) / 8)
    assert first.seconds == pytest.approx(second.seconds + ROWS / 8)


class OnBoth(Plain):
    """A second stage on the validation split."""

    name = "on-both"
    role = "contender"

    def plan(self, stages):
        return (*stages, Stage(name="late", train=("head",), split="val"))


def test_steps_of_a_stage_are_those_of_its_own_split(tmp_path):
    plugins = toy_plugins(Plain, OnBoth)
    jobs = plan.jobs(replace(TOY, methods=(Choice("on-both"),), baseline=False), plugins, {})
    (cost,) = estimate(jobs, Store(tmp_path), try_out=None)
    assert cost.steps == 24 + 9
    assert Worker(Store(tmp_path), plugins, {}, lambda *_: None).run(jobs.jobs[0]).steps == 33


def test_of_jobs_that_share_a_training_the_first_bears_it(tmp_path):
    jobs = plan.jobs(replace(TOY, methods=(Choice("adjusting"),)), PLUGINS, {})
    ticks = count()
    first, second = estimate(jobs, Store(tmp_path), try_out=partial(rehearse, clock=lambda: float(next(ticks))))
    answering = (24 + 48) / 8
    assert (first.seconds, second.seconds) == pytest.approx((24 + answering + ROWS / 8, answering))
    Worker(Store(tmp_path), PLUGINS, {}, lambda *_: None).run(jobs.jobs[0])
    _, left = estimate(jobs, Store(tmp_path), try_out=None)
    assert left.seconds < 0.5 * left.steps * Store(tmp_path).overview().ended[jobs.jobs[0].key].rate


def test_a_backbone_that_cannot_be_tried_out_is_left_to_arithmetic(tmp_path):
    def fails(*_):
        raise FairbenchError("no such picture")

    for cost in estimate(planned(), Store(tmp_path), try_out=fails):
        assert cost.basis == "arithmetic"
        assert cost.seconds > 0
        assert "no such picture" in cost.note


def test_finished_jobs_say_what_the_next_ones_take(tmp_path):
    (job, _) = planned().jobs
    record = Worker(Store(tmp_path), PLUGINS, {}, lambda *_: None).run(job)
    done, open_ = estimate(planned(), Store(tmp_path), try_out=None)
    assert (done.state, done.seconds, open_.basis) == ("done", None, "finished jobs")
    assert open_.seconds == pytest.approx(record.seconds["train"] + record.seconds["predict"])
    assert open_.memory == record.peak_memory


@pytest.mark.parametrize("name", ["tiny-llava", "tiny-qwen2.5-vl"])
def test_activations_are_what_autograd_keeps(name):
    """Counted storage by storage; weights are no activations."""
    backbone = plugins.load(("backbone",)).tables["backbone"][name]()
    backbone.build(("no", "yes"), ("no", "yes"), torch.float32, torch.device("cpu"))
    example = backbone.prepare(Image.new("RGB", (112, 112)), "Is it?")
    inputs = backbone.stack([example] * 8)
    weights = {p.untyped_storage().data_ptr() for p in backbone.parameters()}
    kept, held = {}, []

    def keep(tensor):
        held.append(tensor)  # or another would come to lie in its place
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    backbone.train(True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        backbone(inputs, torch.zeros(8, dtype=torch.long)).loss.sum()
    job = SimpleNamespace(batch_size=8)
    said = activation_bytes(backbone, job, Size(0, 0, 0, len(example["input_ids"])), 4)
    assert said == pytest.approx(sum(size for place, size in kept.items() if place not in weights), rel=0.3)


@pytest.mark.slow
def test_memory_is_right_within_30_percent(tmp_path):
    """A worker's peak, as the system counts it, beside what another process planned before."""
    words = ["--methods", "vanilla", "--no-controls", "--attr", "race", "--out", str(tmp_path)]
    for setting in ("train_size=320", "val_size=40", "test_size=200"):
        words += ["--set", f"fundus-sim.{setting}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def fairbench(*more):
        command = [sys.executable, "-m", "fairbench", *more]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout

    (said,) = json.loads(fairbench("plan", *words, "--json"))
    fairbench("run", *words, "--workers", "1")
    (record,) = Store(tmp_path).contents().records
    assert said["memory"] == pytest.approx(record.peak_memory, rel=0.3)
