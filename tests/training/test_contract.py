"""What a method may ask of a run beyond losses: gradients, weights, mixing, prompts, answers, other rows, needs."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from independent import Independent
from safetensors.torch import load_file
from torch.nn import functional
from verbs import Everything, Plain

from fairbench import FairbenchError, Stage
from fairbench.testing.toys import STAGES, TOLERANCE, ToyBackbone, ToyDataset, difference, train

CHILD = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from safetensors.torch import save_file
from verbs import Everything
from fairbench.testing.toys import train
weights = train(Everything, batch_size=7, micro_batch=2, out=Path(sys.argv[1])).weights
if os.environ["RANK"] == "0":
    save_file(weights, Path(sys.argv[1]) / "weights.safetensors")
"""


@pytest.mark.slow
def test_every_verb_is_exact_over_micro_batches_and_processes(tmp_path):
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    here = str(Path(__file__).parent)
    done = subprocess.run(
        [*words, str(tmp_path), here],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(here).parent)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    whole = train(Everything, batch_size=7)
    assert difference(whole, train(Plain, batch_size=7)) > 1e-3
    assert difference(whole, train(Everything, batch_size=7, micro_batch=3)) < TOLERANCE
    together = load_file(tmp_path / "weights.safetensors")
    assert max(float((together[n] - w).abs().max()) for n, w in whole.weights.items()) < TOLERANCE


def test_plain_training_is_what_an_independent_loop_does():
    alone = Independent()
    target = alone.splits["train"]["target"]
    alone.train(lambda rows, *_: functional.cross_entropy(alone.forward("train", rows)[0], target[rows]), STAGES[0])
    assert alone.difference(train(Plain)) < 3e-7


def test_a_gradient_is_autograds_and_takes_no_step():
    seen = []

    class Asks(Plain):
        """Look at the first gradient."""

        name = "asks"

        def step(self, run, batch):
            out = run.forward(batch)
            before = run.weights()
            halves = [run.gradient(out.loss[part].sum() / 8) for part in (slice(0, 5), slice(5, 8))]
            seen.append((batch.row, halves[0], run.gradient(out.loss[:5].sum() / 8)))
            assert torch.equal(run.weights(), before)
            run.apply(halves[0] + halves[1])

    assert difference(train(Asks), train(Plain)) < TOLERANCE
    rows, gradient, again = seen[0]
    assert torch.equal(gradient, again)
    alone = Independent()
    parameters = [*alone.model.part("lora"), *alone.model.part("head")]
    loss = functional.cross_entropy(
        alone.forward("train", rows[:5])[0], alone.splits["train"]["target"][rows[:5]], reduction="sum"
    )
    wanted = torch.autograd.grad(loss / 8, parameters)
    assert torch.allclose(gradient, torch.cat([part.flatten() for part in wanted]), atol=1e-7)


def test_a_loss_from_before_a_change_of_weights_reaches_nothing():
    class Stale(Plain):
        """Move the weights between looking and learning."""

        name = "stale"

        def step(self, run, batch):
            out = run.forward(batch)
            run.load(run.weights() * 2)
            run.descend(out.loss.mean())

    with pytest.raises(AssertionError, match="reaches no weight"):
        train(Stale, micro_batch=3)


def test_mixing_blends_features_and_nothing_else():
    outs = {}

    class Mixes(Plain):
        """Blend the first batch with itself backwards."""

        name = "mixes"

        def step(self, run, batch):
            mixed = batch.mixed(run.batch(batch.row.flip(0)), torch.linspace(0, 1, len(batch.row)))
            outs.setdefault("first", (batch, run.forward(mixed)))
            run.descend(run.forward(batch).loss.mean())

    train(Mixes, micro_batch=3)
    batch, out = outs["first"]
    alone = Independent()
    own, theirs = (alone.features("train", rows) for rows in (batch.row, batch.row.flip(0)))
    share = torch.linspace(0, 1, len(batch.row))[:, None, None]
    scores, _ = alone.forward("train", batch.row, share * own + (1 - share) * theirs)
    assert torch.allclose(out.scores, scores, atol=1e-6)
    with pytest.raises(FairbenchError, match="a batch of 8 cannot be mixed with one of 3"):
        batch.mixed(replace(batch, row=batch.row[:3]), torch.ones(3))


@pytest.mark.parametrize("features", [True, False])
def test_other_prompts_are_read(features):
    outs = []

    class Asks(Plain):
        """Ask each patient of the first batch something else."""

        name = "asks"

        def step(self, run, batch):
            other = run.ask(batch, ["Dark?" for _ in batch.row])
            outs.append((batch.row, run.forward(batch).scores, run.forward(other).scores))
            run.descend(run.forward(run.ask(batch, ["Bright?" for _ in batch.row])).loss.mean())

    assert difference(train(Asks, features=features), train(Plain, features=features)) == 0
    rows, plain, other = outs[0]
    alone = Independent()
    data = ToyDataset()
    train_rows = data.table().query("split == 'train'").to_dict("records")
    examples = [alone.model.prepare(data.image(train_rows[row]), "Dark?") for row in rows.tolist()]
    inputs = alone.model.stack(examples)
    wanted = alone.model(inputs, torch.zeros(len(rows), dtype=torch.long)).scores
    assert torch.allclose(other, wanted, atol=1e-6)
    assert not torch.allclose(plain, other, atol=1e-3)


def test_answers_to_the_training_rows_are_in_their_order():
    kept = []

    class Looks(Plain):
        """Answer the training rows before training."""

        name = "looks"

        def start_stage(self, run):
            kept.append((run.answers("train"), run.train))

    train(Looks)
    (answers, rows) = kept[0]
    assert answers.target.tolist() == rows.target.tolist()
    alone = Independent()
    scores, _ = alone.forward("train", torch.arange(len(rows.target)))
    assert torch.allclose(
        torch.tensor(answers.table["p_1"].to_numpy()), scores.softmax(1)[:, 1].double(), atol=1e-6
    )


class Spends(Plain):
    """Train the head on the validation split afterwards."""

    name = "spends"

    def plan(self, stages):
        return (*stages, Stage("last layer", ("head",), epochs=2, lr=1e-2, warmup=0, split="val"))

    def start_stage(self, run):
        return run.rows.balance("group-class") if run.stage.split == "val" else None


def test_a_stage_may_draw_from_validation_and_the_record_says_so():
    ours = train(Spends, micro_batch=3)
    alone = Independent(splits=("train", "val"))

    def loss(split):
        target = alone.splits[split]["target"]
        return lambda rows, *_: functional.cross_entropy(alone.forward(split, rows)[0], target[rows])

    alone.train(loss("train"), STAGES[0])
    data = alone.splits["val"]
    cell = data["group"] * 2 + data["target"]
    odds = 1 / torch.bincount(cell)[cell].double()
    assert (data["group"] < 3).all(), "else unrecorded rows would keep the average odds"
    stage = Spends().plan(STAGES)[1]
    alone.train(loss("val"), stage, split="val", number=1, odds=odds)
    assert alone.difference(ours) < 3e-7
    assert ours.record.spends_validation
    assert not train(Plain).record.spends_validation


def test_selection_is_over_epochs_that_did_not_train_on_validation():
    stages = (Stage(epochs=3, lr=3e-3, warmup=2),)
    outcome = train(Spends, stages=stages, select="best:accuracy")
    assert outcome.record.facts["selected epoch"].endswith("of 3 by best:accuracy")


def test_what_end_stage_leaves_is_a_candidate_of_selection():
    class Spoils(Plain):
        """Throw the last epoch's weights away."""

        name = "spoils"

        def end_stage(self, run):
            run.load(run.weights() * 0)

    spoilt = train(Spoils)
    assert all((weight == 0).all() for weight in spoilt.weights.values())
    stages = (Stage(epochs=3, lr=3e-3, warmup=2),)
    ours, plain = (train(method, stages=stages, select="best:worst-group") for method in (Spoils, Plain))
    assert ours.record.facts["selected epoch"] != "3 of 3 by best:worst-group"
    if plain.record.facts["selected epoch"] == ours.record.facts["selected epoch"]:
        assert difference(ours, plain) == 0


class Three(ToyDataset):
    """A third answer that nobody gives."""

    name = "three"
    classes = ("dark", "bright", "grey")


@pytest.mark.parametrize(
    ("need", "fixed", "fault"),
    [
        ("two classes", {"dataset": Three}, "needs the scores of two classes, and three has 3 classes"),
        ("text", {}, "needs answers in words, and toy has 2 classes"),
        ("head", {"backbone_settings": {"readout": "words"}}, "needs a trained readout, and toy-backbone has none"),
    ],
)
def test_what_a_method_needs_is_checked_before_anything_trains(need, fixed, fault):
    class Needy(Plain):
        """Need something."""

        name = "needy"
        needs = (need,)

        def setup(self, run):
            raise AssertionError("too late")

    with pytest.raises(AssertionError, match=fault):
        train(Needy, **fixed)
    assert ToyBackbone().readout == "head"
