"""The kit for methods: each kind of fault is caught by the check that names it, and nobody is falsely accused."""

import itertools
import os
import time
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from builders import mutants
from torch import nn

from fairbench import Method, NonNegative
from fairbench.testing import methods as kit


class Base(Method):
    """A method for this test."""

    name = "mine"


class ReadsTestAnswers(Base):
    """Peek where the job keeps its table."""

    def adjust(self, run, validation, test):
        table = run.source._source.prepared.dataset.table()
        bright = table.set_index("id").loc[test["id"], "target"].eq("bright").to_numpy().astype(int)
        return test.assign(answer=bright, p_0=1.0 - bright, p_1=1.0 * bright)


class LearnsTestGroups(Base):
    """Let the share of test patients of site a scale the loss."""

    def setup(self, run):
        table = run.source._source.prepared.dataset.table()
        codes = table.query("split == 'test'")["site"].eq("a").to_numpy()
        self.scale = 1.0 + float((codes * np.arange(len(codes))).mean())

    def loss(self, out, batch):
        return (out.loss**self.scale).mean()


class ScalesFrozenWeights(Base):
    """Change what the next job inherits."""

    def end_stage(self, run):
        with torch.no_grad():
            run.backbone.language_model.embed_tokens.weight.mul_(1.01)


class AlwaysTheSameSeed(Base):
    """Draw from a generator of its own, seeded by a constant."""

    def setup(self, run):
        self.noise = torch.Generator().manual_seed(7)

    def loss(self, out, batch):
        return (out.loss * torch.rand(len(out.loss), generator=self.noise)).mean()


class AlwaysTheSameGlobalSeed(Base):
    """Seed everybody's random numbers by a constant."""

    def setup(self, run):
        torch.manual_seed(0)


class DrawsFromTheClock(Base):
    """Random numbers from the clock."""

    def loss(self, out, batch):
        return out.loss.mean() * (1 + time.perf_counter_ns() % 1000 / 1000)


class CountsCalls(Base):
    """State that outlasts the job."""

    calls = itertools.count()

    def loss(self, out, batch):
        return out.loss.mean() * (1 + 0.01 * next(self.calls))


NOTES = {"calls": 0}


class CountsElsewhere(Base):
    """State that `setup` makes anew and no checkpoint holds."""

    def setup(self, run):
        NOTES["calls"] = 0

    def loss(self, out, batch):
        NOTES["calls"] += 1
        return out.loss.mean() * (1 + 0.01 * NOTES["calls"])


class PeeksAtValidation(Base):
    """Weigh the loss by answers of the validation split."""

    def setup(self, run):
        self.scale = float((run.validation.target * torch.arange(len(run.validation.target))).float().mean())

    def loss(self, out, batch):
        return (out.loss ** (1 + 0.1 * self.scale)).mean()


class SeedsByHash(Base):
    """A weight of the loss that follows from how a string is hashed in this process."""

    def loss(self, out, batch):
        return (out.loss ** (1 + (hash("mine") % 9973) / 9973)).mean()


class RanksAsIfAlone(Base):
    """Only the rows that this process computed."""

    def step(self, run, batch):
        out = run.forward(batch)
        own = torch.arange(len(out.loss)) % max(1, int(os.environ.get("WORLD_SIZE", "1"))) == 0
        run.descend(out.loss[own].mean())


class FailsOnWords(Base):
    """It takes scores for granted and does not say that it needs them."""

    def loss(self, out, batch):
        return out.loss.mean() + 0 * out.scores.softmax(-1).amax()


class OverflowsInHalf(Base):
    """Numbers that bfloat16 cannot hold."""

    def setup(self, run):
        self.scale = float("nan") if run.backbone.dtype == torch.bfloat16 else 1.0

    def loss(self, out, batch):
        return out.loss.mean() * self.scale


class ThreeSteps(Base):
    """Three descents a batch."""

    def step(self, run, batch):
        for _ in range(3):
            run.descend(run.forward(batch).loss.mean())


class Contradicts(Base):
    """Answers that are the opposite of the probabilities."""

    def adjust(self, run, validation, test):
        return test.assign(answer=1 - test["answer"])


class SumsToMore(Base):
    """Probabilities that add up to one and a half."""

    def adjust(self, run, validation, test):
        return test.assign(p_0=(test["p_0"] + 1) / 2, p_1=(test["p_1"] + 1) / 2)


class FirstPatient(Base):
    """Only the first patient of a batch counts."""

    def loss(self, out, batch):
        return out.loss[0]


class FadesAlongTheBatch(Base):
    """Later patients count less."""

    def loss(self, out, batch):
        return (out.loss / torch.arange(1, len(out.loss) + 1)).mean()


class LastGroupForUnknown(Base):
    """Group −1 as an index takes the last group's weight."""

    def setup(self, run):
        self.register_buffer("weights", run.train.counts.sum() / run.train.counts)

    def loss(self, out, batch):
        return (self.weights[batch.group] * out.loss).mean()


class NeedsEveryGroup(Base):
    """A table with a row for each group of the dataset."""

    def adjust(self, run, validation, test):
        known = {name: i for i, name in enumerate(run.train.groups)}
        [known[site] for site in validation["site"].dropna()]
        return test


class NoDropout(Base):
    """Dropout is off."""

    def step(self, run, batch):
        run.backbone.train(False)
        super().step(run, batch)


class UnusedSetting(Base):
    """A setting that does nothing."""

    strength: NonNegative = 1.0


class StrengthAndCap(Base):
    """It claims to be plain at strength 0, has a setting called cap, and is not."""

    plain_at = {"strength": 0.0}
    strength: NonNegative = 0.5
    cap: NonNegative = 1.0

    def loss(self, out, batch):
        return out.loss.mean() * (1 + self.cap) + self.strength * out.p_true.mean()


class PerMicroBatch(Base):
    """A gap over what was computed at once, as gradient accumulation does it."""

    def step(self, run, batch):
        out = run.forward(batch)
        pieces = zip(out.loss.split(run.micro_batch), out.p_true.split(run.micro_batch), strict=True)
        run.descend(sum(loss.mean() + p.max() - p.min() for loss, p in pieces) / len(out.loss))


class DividesByAbsentGroups(Base):
    """NaN where the batch lacks a group."""

    def loss(self, out, batch):
        return batch.by_group(out.loss).mean()


class AssumesTwoClasses(Base):
    """Index 1 is the last class."""

    needs = ("classes",)

    def loss(self, out, batch):
        return nn.functional.binary_cross_entropy_with_logits(
            out.scores[:, 1] - out.scores[:, 0], batch.target.float() * 1.0
        ) + (float("nan") if batch.target.max() > 1 else 0.0)


class AssumesOneStage(Base):
    """State of the first stage's size."""

    def start_stage(self, run):
        if run.stage_number == 0:
            self.start = run.weights()

    def step(self, run, batch):
        super().step(run, batch)
        run.load(run.weights() - 0.001 * (run.weights() - self.start))


class Shouts(Base):
    """Its name is not lower case."""

    name = "MINE"


class Undocumented(Method):
    name = "mine"


Undocumented.__doc__ = None

MUTANTS = [
    (ReadsTestAnswers, kit.check_never_reads_the_test_split, "answers depend on test patients"),
    (LearnsTestGroups, kit.check_never_reads_the_test_split, "learns depends on test patients"),
    (ScalesFrozenWeights, kit.check_trains_and_predicts, "mine changed what other jobs inherit: the frozen"),
    (AlwaysTheSameSeed, kit.check_random_numbers_follow_the_seed, "seeds random numbers with 7"),
    (AlwaysTheSameGlobalSeed, kit.check_random_numbers_follow_the_seed, "seeds random numbers with"),
    (DrawsFromTheClock, kit.check_same_bits_twice, "learned other weights"),
    (CountsCalls, kit.check_same_bits_twice, "learned other weights"),
    (CountsElsewhere, kit.check_goes_on_after_a_kill, "killed and begun again it learned other weights"),
    (PeeksAtValidation, kit.check_does_not_choose_by_validation, "depends on the validation split"),
    (SeedsByHash, kit.check_other_processes_learn_the_same, "two processes learn other weights"),
    (RanksAsIfAlone, kit.check_other_processes_learn_the_same, "two processes learn other weights"),
    (FailsOnWords, kit.check_bears_other_tasks, "amax"),
    (OverflowsInHalf, kit.check_bears_other_tasks, "the loss of mine is nan"),
    (ThreeSteps, kit.check_takes_one_step_a_batch, "more than once for a batch"),
    (Contradicts, kit.check_trains_and_predicts, "answers contradict probabilities"),
    (SumsToMore, kit.check_trains_and_predicts, "do not add up to one"),
    (FirstPatient, kit.check_order_in_the_batch_changes_nothing, "order of patients"),
    (FadesAlongTheBatch, kit.check_order_in_the_batch_changes_nothing, "order of patients"),
    (LastGroupForUnknown, kit.check_order_in_the_batch_changes_nothing, "order of groups' names"),
    (NeedsEveryGroup, kit.check_bears_absent_groups, "KeyError: 'c'"),
    (NoDropout, kit.check_keeps_dropout, "dropout makes no difference"),
    (UnusedSetting, kit.check_uses_every_setting, "nothing reads its setting strength"),
    (StrengthAndCap, kit.check_is_plain_where_it_says_so, "not plain fine-tuning there"),
    (PerMicroBatch, kit.check_micro_batches_change_nothing, "change weights by"),
    (PerMicroBatch, kit.check_survives_small_memory, "changed what it learned"),
    (DividesByAbsentGroups, kit.check_bears_absent_groups, "the loss of mine is nan"),
    (AssumesTwoClasses, kit.check_bears_other_tasks, "the loss of mine is nan"),
    (AssumesOneStage, kit.check_bears_other_tasks, "must match the size"),
    (Shouts, kit.check_says_what_it_does, "lower case"),
    (Undocumented, kit.check_says_what_it_does, "docstring"),
]


@pytest.mark.parametrize(("method", "check", "fault"), mutants(MUTANTS))
def test_a_fault_is_named(method, check, fault):
    with pytest.raises(AssertionError, match=fault):
        check(method)


class KeepsTheBestOfMany(Base):
    """Several sets of weights, of which the validation split chooses one, as the record then says."""

    def end_stage(self, run):
        start, tries = run.weights(), []
        for scale in (-3.0, 1.0, 3.0):
            run.load(scale * start)
            answers = run.answers("val").table
            tries.append(((answers["answer"] != answers["target"]).mean(), scale))
        run.load(min(tries)[1] * start)


class Faster(Base):
    """Ten times the learning rate."""

    def plan(self, stages):
        return tuple(replace(stage, lr=10 * stage.lr) for stage in stages)


class DrawsByTheJob(Base):
    """Random numbers of the job's own, and a generator seeded from them."""

    by: Literal["torch", "numpy"] = "torch"

    def loss(self, out, batch):
        noise = torch.rand(()) if self.by == "torch" else float(np.random.rand())
        return out.loss.mean() * (0.5 + noise)

    def setup(self, run):
        self.own = np.random.default_rng([run.job.seed, 3])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "check"),
    [
        (KeepsTheBestOfMany, kit.check_does_not_choose_by_validation),
        (Faster, kit.check_micro_batches_change_nothing),
        (Faster, kit.check_survives_small_memory),
        (DrawsByTheJob, kit.check_random_numbers_follow_the_seed),
        (DrawsByTheJob, kit.check_same_bits_twice),
    ],
    ids=lambda item: item.__name__,
)
def test_nobody_is_falsely_accused(method, check):
    check(method)


def test_a_record_says_how_often_the_validation_split_was_looked_at():
    assert kit.trained(KeepsTheBestOfMany).record.looks == 3
    assert kit.trained(Faster).record.looks == 0


def test_every_check_of_a_method_is_proven():
    proven = {check for _, check, _ in MUTANTS}
    unproven = {check.__name__ for check in kit.METHOD_CHECKS if check not in proven}
    assert unproven == {"check_bears_unrecorded_groups"}, "proven below"


def test_patients_of_no_group_must_be_borne():
    class Strict(Base):
        """Every patient has a group."""

        def loss(self, out, batch):
            return out.loss.mean() * (1.0 if (batch.group >= 0).all() else float("nan"))

    with pytest.raises(AssertionError, match="the loss of mine is nan"):
        kit.check_bears_unrecorded_groups(Strict)
