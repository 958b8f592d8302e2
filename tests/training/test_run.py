"""Exact batches, players, failures: what the training loop promises beyond the conformance kit."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from builders import sampled
from peft import PeftModel
from safetensors.torch import load_file
from torch import nn
from transformers import get_scheduler

from fairbench import Batch, Method, Stage, States, plugins
from fairbench.errors import FairbenchError
from fairbench.jobs.job import Choice, Job
from fairbench.models.batch import Rows
from fairbench.testing.toys import STAGES, TOLERANCE, ToyBackbone, ToyDataset, difference, toy_plugins, train
from fairbench.training.features import cache_key
from fairbench.training.run import rate_factor
from fairbench.training.sampling import batches_of, epoch_ends

METHODS = plugins.load(("method",)).tables["method"]
METHODS = {n: m for n, m in METHODS.items() if n not in ("adapter", "endpoint")}  # which ask a folder, a server

CHILD = """
import sys
from pathlib import Path
from safetensors.torch import save_file
from fairbench import plugins
from fairbench.testing import train
import os
out = Path(sys.argv[1])
table = plugins.load(("method",)).tables["method"]
for name in ("hybrid", "reweight"):
    weights = train(table[name], backbone_settings={"dropout": 0.1}, micro_batch=4, out=out).weights
    if os.environ["RANK"] == "0":
        save_file(weights, out / f"{name}.safetensors")
"""


class Plain(Method):
    """Plain fine-tuning."""

    name = "plain"


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path):
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    done = subprocess.run(
        [*command, str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name in ("hybrid", "reweight"):
        alone = train(METHODS[name], backbone_settings={"dropout": 0.1}, micro_batch=4)
        together = load_file(tmp_path / f"{name}.safetensors")
        assert max(float((together[n] - w).abs().max()) for n, w in alone.weights.items()) < TOLERANCE


class Reader(Method):
    """A reader of the group learns on detached states while the backbone unlearns what it reads."""

    name = "reader"
    pool = "mean"

    @property
    def reads(self):
        return States(depths=(0.5, 1.0), tokens="all", pool=self.pool)

    def setup(self, run):
        self.reader = nn.Linear(2 * run.backbone.width, len(run.train.groups))

    def step(self, run, batch):
        out = run.forward(batch, self.reads)
        known = batch.group.clamp_min(0)
        loss = nn.functional.cross_entropy(self.reader(out.states.detach().flatten(1)), known)
        run.descend(loss, self.reader, lr=1e-2)
        leak = nn.functional.cross_entropy(self.reader(out.states.flatten(1)), known)
        run.descend(out.loss.mean() - 0.1 * leak)


class RandomReader(Reader):
    """The same, reading one random token of each patient."""

    name = "random-reader"
    pool = "random-token"


@pytest.mark.parametrize("method", [Reader, RandomReader])
def test_losses_on_hidden_states_are_exact_too(method):
    whole = train(method)
    assert difference(whole, train(Plain)) > 1e-4
    assert difference(whole, train(method, micro_batch=2)) < TOLERANCE


def test_a_player_changes_no_other_weights():
    seen = {}

    class OnlyReader(Reader):
        """Train the reader alone."""

        name = "only-reader"

        def step(self, run, batch):
            seen.setdefault("before", self.reader.weight.detach().clone())
            states = run.forward(batch, self.reads).states.detach().flatten(1)
            run.descend(nn.functional.cross_entropy(self.reader(states), batch.group.clamp_min(0)), self.reader)
            seen["after"] = self.reader.weight.detach().clone()
            run._pending.clear()

    class Nothing(Method):
        """Train nothing."""

        name = "nothing"

        def plan(self, stages):
            return ()

    assert difference(train(OnlyReader), train(Nothing)) == 0
    assert not torch.equal(seen["before"], seen["after"])


def test_effective_batch_matters_so_exactness_is_not_vacuous():
    assert difference(train(METHODS["fr"], batch_size=8), train(METHODS["fr"], batch_size=4)) > 1e-3


def test_dropout_is_replayed_bit_for_bit():
    """A replay that drew other masks would make the gradient of another model."""
    settings = {"dropout": 0.5}
    replayed = train(Plain, backbone_settings=settings, micro_batch=4)

    class Small(ToyBackbone):
        """Force the graph to be dropped and the batch replayed by fours."""

        name = "small"
        fits = 4

    assert difference(replayed, train(Plain, backbone=Small, backbone_settings=settings, micro_batch=4)) == 0


def test_two_stages_and_words(tmp_path):
    stages = (Stage(name="head", train=("head",), epochs=0.5, lr=1e-2), *STAGES)
    outcome = train(Plain, stages=stages)
    assert outcome.record.steps == 6 + 12
    words = train(Plain, backbone_settings={"readout": "words"}, stages=(Stage(train=("lora",), epochs=1),))
    assert not any("head" in name for name in words.weights)


class NotFinite(Method):
    """Lose everything at the third step."""

    name = "not-finite"

    def loss(self, out, batch: Batch):
        return out.loss.mean() * (float("nan") if 16 in batch.row else 1.0)


class Unconnected(Method):
    """Forget the model."""

    name = "unconnected"

    def loss(self, out, batch):
        return out.loss.detach().mean()


def test_a_loss_that_is_not_finite_names_step_method_and_groups():
    with pytest.raises(
        AssertionError, match=r"loss of not-finite is nan at step \d+ of stage lora; groups in the batch"
    ):
        train(NotFinite)


def test_a_loss_that_reaches_no_weight_is_an_error():
    with pytest.raises(AssertionError, match="reaches no weight"):
        train(Unconnected)


def test_no_memory_for_one_example_is_an_error():
    class Tiny(ToyBackbone):
        """Hold nothing."""

        name = "tiny-memory"
        fits = 0

    with pytest.raises(AssertionError, match="one example at a time does not fit"):
        train(Plain, backbone=Tiny)


def test_features_change_nothing():
    with_cache, without = train(Plain), train(Plain, features=False)
    assert (with_cache.record.facts["features"], without.record.facts["features"]) == (
        "cached",
        "computed each time",
    )
    assert difference(with_cache, without) < TOLERANCE


@pytest.mark.parametrize(
    "damage",
    sampled([lambda whole: whole[:-9], lambda whole: bytes(len(whole)), lambda whole: whole[:-64] + bytes(64)]),
)
def test_damaged_features_are_computed_anew(tmp_path, damage):
    first = train(Plain, out=tmp_path)
    (chunk, *_) = whole = sorted(tmp_path.glob(".features/*/*.safetensors"))
    intact = chunk.read_bytes()
    chunk.write_bytes(damage(intact))
    again = train(Plain, seed=1, out=tmp_path)
    assert again.record.facts["features"] == "cached"
    assert sorted(tmp_path.glob(".features/*/*.safetensors")) == whole
    assert chunk.read_bytes() == intact
    assert difference(again, train(Plain, seed=1)) == 0
    assert first.record.facts == again.record.facts


def test_fr_says_how_often_its_term_was_active():
    small = train(METHODS["fr"], batch_size=1, stages=(Stage(epochs=0.2, lr=1e-3),))
    assert small.record.facts["notes"]["active"] == 0
    assert train(METHODS["fr"], batch_size=32).record.facts["notes"]["active"] == 1


def test_peft_itself_reads_the_adapter(tmp_path):
    outcome = train(Plain, out=tmp_path)
    folder = tmp_path / outcome.record.job.key / "adapter"
    adapted_layers = json.loads((folder / "adapter_config.json").read_text())["target_modules"]
    assert adapted_layers == sorted(adapted_layers)  # as a set they would stand in another order in every process
    base = ToyBackbone()
    base.load(torch.float32)
    adapted = PeftModel.from_pretrained(base.language_model, str(folder))
    ours = {n.split("decoder.")[-1]: w for n, w in outcome.weights.items() if "lora_" in n}
    theirs = dict(adapted.base_model.model.named_parameters())
    assert ours
    assert all(torch.equal(theirs[name], weight) for name, weight in ours.items())


def test_selection_keeps_the_best_validation_epoch():
    stages = (Stage(epochs=4, lr=3e-3, warmup=2),)
    for rule in ("best:accuracy", "best:worst-group", "dto"):
        outcome = train(Plain, stages=stages, select=rule)
        assert outcome.record.facts["selected epoch"].endswith(f"of 4 by {rule}")
    validation = outcome.predictions.query("split == 'val'")
    assert set(validation["site"].dropna()) <= {"a", "b", "c"}


@pytest.mark.slow
def test_no_code_path_reads_test_targets_before_the_last_step():
    """Scrambling every test target changes nothing but the targets that are written beside the predictions."""

    class Scrambled(ToyDataset):
        """The same patients, with other test answers."""

        name = "scrambled"

        def table(self):
            table = super().table()
            test = table["split"] == "test"
            table.loc[test, "target"] = table.loc[test, "target"].map({"dark": "bright", "bright": "dark"})
            return table

    stages = (Stage(epochs=2, lr=3e-3, warmup=2),)
    for name, method in METHODS.items():
        kwargs = {"stages": stages, "select": "best:accuracy" if name != "zero-shot" else "last"}
        first, second = train(method, **kwargs), train(method, dataset=Scrambled, **kwargs)
        assert difference(first, second) == 0, name
        assert first.predictions.drop(columns="target").equals(second.predictions.drop(columns="target")), name


def test_balance_gives_every_cell_the_same_total():
    rows = Rows(
        target=torch.tensor([0, 0, 0, 1, 1, 0]),
        group=torch.tensor([0, 0, 0, 0, 1, -1]),
        groups=("a", "b"),
        attributes={},
        values={},
        classes=("no", "yes"),
    )
    by_group = rows.balance("group")
    assert by_group[:4].sum() == pytest.approx(by_group[4].item())
    assert by_group[5] == 1
    assert rows.balance("class")[rows.target == 0].sum() == pytest.approx(3)
    cells = rows.balance("group-class")
    assert cells[:3].sum() == pytest.approx(cells[3].item())


def test_orders_are_complete_and_repeatable():
    job = train(METHODS["zero-shot"]).record.job
    batches = batches_of(20, 2.5, job, 0, None)
    assert len(batches) == 8
    assert sorted(row for batch in batches[:3] for row in batch) == list(range(20))
    assert all((a == b).all() for a, b in zip(batches, batches_of(20, 2.5, job, 0, None), strict=True))
    assert epoch_ends(20, job, 8) == {3, 6, 8}
    odds = torch.tensor([0.0] * 19 + [1.0])
    assert {row for batch in batches_of(20, 1, job, 0, odds) for row in batch} == {19}


def test_warm_up_and_decay():
    stage = Stage(warmup=4, decay="linear")
    assert [rate_factor(stage, step, 12) for step in (0, 3, 4, 8)] == pytest.approx([0.25, 1.0, 1.0, 0.5])
    assert rate_factor(Stage(warmup=0, decay="cosine"), 6, 12) == pytest.approx(0.5)


@pytest.mark.parametrize("decay", ["constant", "linear", "cosine"])
def test_the_rate_is_that_of_transformers_but_for_its_first_step_at_a_rate_of_zero(decay):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    name = "constant_with_warmup" if decay == "constant" else decay
    theirs = get_scheduler(name, optimizer, num_warmup_steps=4, num_training_steps=20)
    rates = [theirs.lr_lambdas[0](step) for step in range(20)]
    assert rates[0] == 0  # a batch from which nothing is learned
    warming, after = Stage(warmup=4, decay=decay), Stage(warmup=0, decay=decay)
    assert [rate_factor(warming, step, 20) for step in range(4)] == pytest.approx([*rates[1:4], 1.0])
    assert [rate_factor(after, step, 16) for step in range(16)] == pytest.approx(rates[4:])


def test_adjust_sees_neither_targets_nor_groups():
    seen = []

    class Peeks(Method):
        """Look at everything it is given."""

        name = "peeks"

        def adjust(self, run, validation, test):
            seen.append((set(validation), set(test)))
            return test

    class Loses(Peeks):
        """Lose a row."""

        name = "loses"

        def adjust(self, run, validation, test):
            return test.iloc[1:]

    class Invents(Peeks):
        """Answer with a class that is none."""

        name = "invents"

        def adjust(self, run, validation, test):
            return test.assign(answer=7)

    class Overshoots(Peeks):
        """Give more than certainty."""

        name = "overshoots"

        def adjust(self, run, validation, test):
            return test.assign(p_1=1.5)

    class Knows(Peeks):
        """Answer as the targets are, which it got hold of elsewhere, beside probabilities that know nothing."""

        name = "knows"

        def adjust(self, run, validation, test):
            table = ToyDataset().table().query("split == 'test'")
            return test.assign(answer=(table["target"] == "bright").astype(int).to_numpy(), p_0=0.5, p_1=0.5)

    class Cuts(Peeks):
        """Answer by another threshold, which is no fault."""

        name = "cuts"

        def adjust(self, run, validation, test):
            return test.assign(answer=(test["p_1"] > 0.3).astype(int))

    train(Cuts)
    for method, fault in ((Invents, "no class"), (Overshoots, "outside 0 to 1"), (Knows, "do not follow from its")):
        with pytest.raises(AssertionError, match=fault):
            train(method)
    train(Peeks)
    validation, test = seen[0]
    assert {"target", "site", "sex"} <= validation
    assert not {"target", "site", "sex"} & test
    with pytest.raises(AssertionError, match="must return the test rows"):
        train(Loses)


def test_majority_answers_the_training_majority():
    outcome = train(METHODS["majority"])
    test = outcome.predictions.query("split == 'test'")
    table = ToyDataset().table().query("split == 'train'")["target"].value_counts()
    assert test["answer"].unique().tolist() == [ToyDataset.classes.index(table.idxmax())]
    assert test["p_1"].iloc[0] == pytest.approx(table["bright"] / table.sum())


def test_image_ablated_has_not_seen_the_image():
    ablated = train(METHODS["image-ablated"]).predictions
    assert ablated["p_1"].nunique() == 1
    assert train(METHODS["vanilla"]).predictions["p_1"].nunique() > 10


def test_a_wrong_part_and_a_wrong_plugin_are_errors():
    with pytest.raises(AssertionError, match="trains the projector, which toy-backbone does not have"):
        train(Plain, stages=(Stage(train=("lora", "projector")),))
    with pytest.raises(AssertionError, match=r"nothing to train\nhint: name a part that this backbone has: lora$"):
        train(Plain, stages=(Stage(train=("head",)),), backbone_settings={"readout": "words"})
    with pytest.raises(FairbenchError, match="no part"):
        ToyBackbone().build(("a", "b"), ("a", "b"), torch.float32, torch.device("cpu")).part("loar")
    with pytest.raises(FairbenchError, match="did you mean `toy`"):
        toy_plugins().find("dataset", "toi")


def test_parameters_of_every_stage_are_counted_once():
    early = replace(STAGES[0], name="head", train=("head",))
    assert (
        train(Plain, stages=(early, *STAGES)).record.trainable_parameters
        == train(Plain).record.trainable_parameters
    )


class Dice(Plain):
    """Throw the process's own dice in every step."""

    name = "dice"

    def loss(self, out, batch):
        return out.loss.mean() * torch.rand(())


def test_what_a_method_draws_while_training_follows_from_its_job():
    torch.manual_seed(1)
    first = train(Dice)
    torch.manual_seed(2)
    assert difference(first, train(Dice)) == 0


class Warming(Plain):
    """Look at the first batches without learning from them."""

    name = "warming"

    def step(self, run, batch):
        out = run.forward(batch)
        run.note({"held": len(run._pending)})
        if run.step > 2:
            run.descend(out.loss.mean())


def test_forward_passes_that_were_never_descended_are_dropped():
    assert train(Warming, micro_batch=2).record.facts["notes"]["held"] == 1


def test_scores_are_computed_by_halves_when_memory_runs_out():
    class Small(ToyBackbone):
        """Holds five examples, also when it only predicts."""

        name = "small"

        def decode(self, inputs, features, every):
            if len(inputs["input_ids"]) > 5:
                raise torch.OutOfMemoryError("pretended")
            return super().decode(inputs, features, every)

    small, large = (train(Plain, backbone=kind, micro_batch=4) for kind in (Small, ToyBackbone))
    assert (small.predictions["p_1"] - large.predictions["p_1"]).abs().max() < TOLERANCE


def test_scores_that_are_not_finite_end_the_job():
    class Broken(ToyBackbone):
        """Trains well and predicts nothing."""

        name = "broken"

        def forward(self, inputs, target, reads=None):
            out = super().forward(inputs, target, reads)
            return out if torch.is_grad_enabled() else replace(out, scores=out.scores * torch.nan)

    with pytest.raises(AssertionError, match="scores on the val split are not finite"):
        train(Plain, backbone=Broken)


def test_features_are_seen_again_by_another_version_of_a_plugin():
    backbone = ToyBackbone()
    keys = set()
    for versions in (("a 1", "b 1"), ("a 2", "b 1"), ("a 1", "b 2"), ("a 1", "b 1")):
        parts = [
            Choice(name, version=version) for name, version in zip(("toy", "toy-backbone"), versions, strict=True)
        ]
        keys.add(cache_key(Job(*parts, Choice("plain"), STAGES), backbone, torch.float32, {}))
    assert len(keys) == 3


def test_features_of_other_software_are_not_taken(tmp_path, monkeypatch):
    train(Plain, out=tmp_path)
    monkeypatch.setattr("fairbench.training.job_runner.versions", lambda _: {"pillow": "another"})
    train(Plain, out=tmp_path, seed=1)
    assert len([*tmp_path.glob(".features/*")]) == 2


def test_records_say_what_it_cost(tmp_path: Path):
    record = train(Plain, out=tmp_path).record
    # rank 4 on two layers of q, o (16→16) and k, v (16→8), and a head of 16 weights and a bias for each class
    assert record.trainable_parameters == 2 * 4 * (2 * (16 + 16) + 2 * (16 + 8)) + 2 * 17
    assert record.peak_memory > 1e7
    assert set(record.seconds) == {"load", "features", "train", "predict"}
    assert "torch" in record.versions


def test_folds_test_every_patient_once_and_train_on_none_of_those(tmp_path):
    seen = {}

    class Watched(METHODS["vanilla"]):
        name = "watched"

        def setup(self, run):
            seen[run.job.fold] = (len(run.train.target), len(run.validation.target), run.train.target.sum().item())

    jobs = [train(Watched, folds=3, fold=fold, out=tmp_path) for fold in range(3)]
    tested = [set(job.predictions.query("split == 'test'")["id"]) for job in jobs]
    data = ToyDataset().table()
    assert sum(map(len, tested)) == len(set().union(*tested)) == len(data)
    bright = dict(zip(data["id"], data["target"] == "bright", strict=True))
    for fold, job in enumerate(jobs):
        others = set(bright) - set(job.predictions["id"])
        assert seen[fold] == (len(others), 56, sum(bright[name] for name in others))
    assert len({job.record.job.key for job in jobs}) == 3


def test_few_rows_are_trained_on_for_as_many_steps_as_a_stage_asks():
    short, long = (train(METHODS["vanilla"], stages=(replace(STAGES[0], min_steps=n),)) for n in (0, 30))
    assert (short.record.steps, long.record.steps) == (12, 36)
    assert long.record.facts["epochs of lora"] == 3
    (told,) = long.record.stages
    assert told.epochs == 1, "the plan is everybody's: only the data are fewer"
