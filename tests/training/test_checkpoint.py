"""A training that is interrupted goes on where it was: every bit of weights and predictions as if undisturbed."""

import random

import numpy as np
import pandas as pd
import pytest
import torch
from builders import sampled
from torch import nn

from fairbench import Method, Stage, Store, plugins
from fairbench.jobs.job import Choice, Job
from fairbench.jobs.worker_options import WorkerOptions
from fairbench.testing import ToyDataset, toy_plugins
from fairbench.training.resources import Stopped
from fairbench.training.worker import Worker

STAGES = (Stage("first", ("head",), 0.5, 3e-3, warmup=2), Stage("lora", ("lora", "head"), 1.5, 3e-3, warmup=2))


class Rich(Method):
    """It keeps one of everything: an opponent with an optimizer, buffers, plain values, its own random numbers."""

    name = "rich"

    def setup(self, run):
        self.opponent = nn.Sequential(nn.Dropout(0.2), nn.Linear(2, 3))
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("passing", torch.zeros(1), persistent=False)
        self.rows, self.last, self.table = set(), None, {"rows": np.zeros(2)}
        self.own = torch.Generator().manual_seed(1)

    def start_stage(self, run):
        self.odds = torch.rand(len(run.train.target)) + 0.1
        if run.stage.name == "lora":
            run.only(lambda name: "layers.1" in name or "head" in name)
        return self.odds

    def step(self, run, batch):
        out = run.forward(batch)
        scores = out.scores + 0.1 * torch.rand(1)
        group = batch.group.clamp(0, 2)
        guess = nn.functional.cross_entropy(self.opponent(scores), group)
        weight = 0.1 * torch.rand(1, generator=self.own) + 0.01 * len(self.rows) + self.mean.mean() + self.passing
        self.mean = 0.9 * self.mean + 0.1 * scores.detach().mean(0)
        self.passing += 0.01
        self.rows |= set(batch.row.tolist())
        self.table["rows"] = self.table["rows"] + 1
        self.last = (float(guess.detach()), self.table["rows"].sum())
        batch.notes["guess"] = self.last[0]
        run.descend(out.loss.mean() - (weight * guess).squeeze())
        run.descend(nn.functional.cross_entropy(self.opponent(scores.detach()), group), self.opponent)


class Opaque(Method):
    """It keeps what nobody could write down."""

    name = "opaque"

    def setup(self, run):
        self.things = iter(range(1000))

    def loss(self, out, batch):
        next(self.things)
        return out.loss.mean()


class Aliases(Method):
    """It has two names for one thing, which would be two things after it went on."""

    name = "aliases"
    of: str = "generator"

    def setup(self, run):
        self.reader = nn.Linear(2, 1)
        if self.of == "generator":
            self.own = run.generator
        elif self.of == "parameter":
            self.learn = [self.reader.weight]
        elif self.of == "part":
            self.row = self.reader.weight.detach()[0]
        elif self.of == "tensor":
            self.mean = torch.ones(2)
            self.kept = {"mean": self.mean}
        elif self.of == "list":
            self.rows = []
            self.kept = {"rows": self.rows}
        elif self.of == "graph":
            self.sum = self.reader.weight.sum()


class Counter:
    """It counts what it is asked."""

    def __init__(self):
        self.calls = 0

    def weigh(self):
        self.calls += 1
        return 1 + 0.01 * self.calls


def counting(kind):
    """Return a function that counts its calls in one of the places where a function can."""
    calls = 0

    def around():
        nonlocal calls
        calls += 1
        return 1 + 0.01 * calls

    def default(calls=[0]):  # noqa: B006
        calls[0] += 1
        return 1 + 0.01 * calls[0]

    def attribute():
        attribute.calls += 1
        return 1 + 0.01 * attribute.calls

    attribute.calls = 0
    return {"around": around, "default": default, "attribute": attribute, "bound": Counter().weigh}[kind]


class Remembers(Method):
    """A function of its own keeps something between its calls."""

    name = "remembers"
    kind: str = "around"

    def setup(self, run):
        self.weigh = counting(self.kind)
        self.scale = lambda loss: loss * (1 + run.progress) * (2 if self.training else 1)  # which keeps nothing

    def loss(self, out, batch):
        return self.scale(out.loss.mean()) * self.weigh()


class Leaf(Method):
    """It learns a tensor that is no parameter."""

    name = "leaf"

    def setup(self, run):
        self.theta = torch.zeros(2, requires_grad=True)

    def loss(self, out, batch):
        weight = self.theta.softmax(0)[batch.target]
        (slope,) = torch.autograd.grad((out.loss.detach() * weight).mean(), self.theta)
        self.theta = (self.theta + 0.5 * slope).detach().requires_grad_()
        return 2 * (out.loss * weight.detach()).mean()


METHODS = {
    **plugins.load(("method",)).tables["method"],
    "rich": Rich,
    "opaque": Opaque,
    "aliases": Aliases,
    "leaf": Leaf,
    "remembers": Remembers,
}
UNSAVEABLE = {"fairtune", "opaque", "aliases", "remembers"}  # optuna's study is no plain value
ELSEWHERE = {"adapter", "endpoint"}  # trained before or elsewhere, and not here


class Kill(BaseException):
    """What ends a process without a word."""


def a_job(method=Rich, select="last", settings=None):
    return Job(
        Choice("toy", fingerprint=ToyDataset().fingerprint()),
        Choice("toy-backbone", {"dropout": 0.3}),
        Choice(method.name, settings or {}),
        STAGES,
        ("site",) if method.uses_attributes else (),
        select=select,
    )


def run(folder, job, ends_at=None, by=Kill, every=0.0):
    """Run a job in a new worker, which ends after some step; return its record, weights, predictions and steps."""
    torch.rand(3), np.random.rand(3)  # what came before in this process must not matter
    steps = []

    def report(phase, done, total, loss):
        if phase == "train" and done:
            steps.append(done)
            if len(steps) == ends_at:
                if by is Kill:
                    raise Kill
                worker.stop()

    worker = Worker(
        Store(folder), toy_plugins(*METHODS.values()), {}, report, WorkerOptions(checkpoint_every=every)
    )
    record = worker.run(job)
    assert record.error is None, Store(folder).traceback_file(job).read_text()
    weights = {name: p.detach().clone() for name, p in worker.kept("backbone").trainable().items()}
    return record, weights, pd.read_parquet(Store(folder).predictions_file(job)), steps


def same(left, right):
    return set(left) == set(right) and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.slow
@pytest.mark.parametrize("select", ["last", "best:accuracy"])
def test_ended_at_random_steps_a_training_goes_on_bit_by_bit(tmp_path, select):
    job = a_job(select=select)
    whole, weights, predictions, steps = run(tmp_path / "whole", job)
    assert len(steps) == 24
    moments = random.Random(0)
    for number in range(4):
        folder, done = tmp_path / f"{number}", 0
        for by in moments.sample((Kill, Stopped), k=2):
            moment = moments.randint(1, (24 - done) // 2)
            with pytest.raises(by):
                run(folder, job, moment, by)
            done += moment - (by is Kill)
        record, again, answers, rest = run(folder, job)
        assert len(rest) == 24 - done
        assert same(again, weights)
        pd.testing.assert_frame_equal(answers, predictions, check_exact=True)
        assert record.facts["went on at steps"][-1] == done
        assert {k: v for k, v in record.facts.items() if k != "went on at steps"} == whole.facts
        assert record.steps == 24
        assert Store(folder).log_file(job).read_text() == Store(tmp_path / "whole").log_file(job).read_text()
        assert not Store(folder).checkpoint_folder(job).exists()


@pytest.mark.slow
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path):
    job = a_job()
    _, weights, _, _ = run(tmp_path / "whole", job)
    for damage in (lambda content: content[:-7], lambda content: bytes(len(content)), lambda content: b""):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        with pytest.raises(Kill):
            run(folder, job, 15)
        _, newest = sorted(Store(folder).checkpoint_folder(job).iterdir())
        newest.write_bytes(damage(newest.read_bytes()))
        _, again, _, rest = run(folder, job)
        assert len(rest) == 24 - 13
        assert same(again, weights)
    with pytest.raises(Kill):
        run(tmp_path / "none", job, 15)
    for path in Store(tmp_path / "none").checkpoint_folder(job).iterdir():
        path.write_bytes(b"")
    _, again, _, rest = run(tmp_path / "none", job)
    assert len(rest) == 24
    assert same(again, weights)


def test_checkpoints_come_at_their_time_only(tmp_path):
    with pytest.raises(Kill):
        run(tmp_path, a_job(), 20, every=3600.0)
    assert not Store(tmp_path).checkpoint_folder(a_job()).exists()


def test_what_cannot_be_written_down_begins_anew_and_the_record_says_why(tmp_path):
    job = a_job(Opaque)
    with pytest.raises(Stopped):
        run(tmp_path, job, 15, Stopped)
    record, *_, steps = run(tmp_path, job)
    assert len(steps) == 24
    assert record.facts["begins anew when interrupted"] == "`things` (range_iterator)"


@pytest.mark.parametrize(
    ("of", "reason"),
    [
        ("generator", "`own` (the same as the run's generator)"),
        ("parameter", "`learn` (the same as `reader.weight`)"),
        ("part", "`row` (the same as `reader.weight`)"),
        ("tensor", "`kept` (the same as `mean`)"),
        ("list", "`kept` (the same as `rows`)"),
        ("graph", "`sum` (a tensor amid a computation)"),
    ],
)
def test_two_names_of_one_thing_begin_anew(tmp_path, of, reason):
    """Gone on with they would be two things, and the weights others: without a word."""
    record, *_ = run(tmp_path, a_job(Aliases, settings={"of": of}))
    assert record.facts["begins anew when interrupted"] == reason


@pytest.mark.parametrize("kind", sampled(["around", "default", "attribute", "bound"]))
def test_a_function_that_remembers_begins_anew(tmp_path, kind):
    job = a_job(Remembers, settings={"kind": kind})
    _, weights, *_ = run(tmp_path / "whole", job)
    with pytest.raises(Kill):
        run(tmp_path / "cut", job, 15)
    record, again, _, rest = run(tmp_path / "cut", job)
    assert same(again, weights)
    assert len(rest) == 24 if kind != "around" else len(rest) >= 23
    said = [record.facts.get("begins anew when interrupted"), *record.warnings]
    assert any("`weigh` (" in str(one) for one in said)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(METHODS) - UNSAVEABLE - ELSEWHERE - {"rich"}))
def test_every_bundled_method_goes_on_bit_by_bit(tmp_path, name):
    job = a_job(METHODS[name])
    whole, weights, predictions, steps = run(tmp_path / "whole", job)
    if not steps:
        pytest.skip("it trains nothing")
    with pytest.raises(Kill):
        run(tmp_path / "cut", job, random.Random(name).randint(2, len(steps)))
    record, again, answers, rest = run(tmp_path / "cut", job)
    assert len(rest) < len(steps)
    assert same(again, weights)
    pd.testing.assert_frame_equal(answers, predictions, check_exact=True)
    for one in (record, whole):
        one.facts.pop("went on at steps", None)
        one.facts["notes"].pop("reader seconds", None)  # the clock's
    assert record.facts == whole.facts
