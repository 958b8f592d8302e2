"""Methods against independent computations, and in the cases where they must be plain fine-tuning."""

import importlib.util
import itertools
import math
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from builders import sampled, scored
from fairbench_plugins.methods.fairclip_sinkhorn import divergence
from fairbench_plugins.methods.thresholds import Cuts
from scipy.optimize import linprog
from torch import nn
from torch.nn import functional

from fairbench import Batch, FairbenchError, Method, Outputs, Rows, Stage, States, plugins
from fairbench.testing.toys import STAGES, ToyDataset, difference, train
from fairbench.training.needs import require

METHODS = plugins.load(("method",)).tables["method"]


class OneSite(ToyDataset):
    """Everybody comes from one site."""

    name = "one-site"

    def table(self):
        return super().table().assign(site="a")


def some(group, n_groups=3, classes=2, seed=0):
    """A batch with these groups, and what a model might make of it."""
    generator = torch.Generator().manual_seed(seed)
    group, count = torch.tensor(group), len(group)
    loss = torch.rand(count, generator=generator, dtype=torch.float64) * 3
    out = Outputs(loss.requires_grad_(), (-loss).exp().detach().requires_grad_(), torch.zeros(count, classes))
    return Batch(torch.arange(count), torch.arange(count) % 2, group, {"site": group}, n_groups), out


UNTRAINED = {"endpoint", "demonstrations", "debiased-prompt"}  # what they reach is the model's, not training's


def test_every_method_has_a_setting_in_which_it_must_help():
    """The table in docs/methods.md is made by a script, which a new method must be told to."""
    path = Path(__file__).parents[2] / "benchmarks" / "when_it_works.py"
    spec = importlib.util.spec_from_file_location("when_it_works", path)
    script = sys.modules["when_it_works"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    contenders = {name for name, method in METHODS.items() if method.role == "contender"}
    assert {case.method for case in script.CASES} == contenders - {"zero-shot", "adapter", *UNTRAINED}
    for case in script.CASES:
        METHODS[case.method](**case.settings)
        assert len(script.Cues(setting=case.setting).table()) == sum(script.Cues.rows_per_split)


# ── where they are plain fine-tuning ─────────────────────────────────────────────────────────────

PLAIN = [
    ("adversarial", {"strength": 0.0}, ToyDataset),
    ("adversarial", {}, OneSite),
    ("group-dro", {"balanced": False}, OneSite),
    ("loss-variance", {"strength": 0.0, "variance": "sample"}, ToyDataset),
    ("loss-variance", {}, OneSite),
    ("min-group", {}, OneSite),
    ("fairclip-sinkhorn", {"strength": 0.0}, ToyDataset),
    ("fairclip-sinkhorn", {}, OneSite),
    ("focal", {"gamma": 0.0}, ToyDataset),
    ("jtt", {"up_weight": 1.0}, ToyDataset),
    ("thresholds", {}, ToyDataset),
]


@pytest.mark.parametrize(("name", "settings", "dataset"), sampled(PLAIN, count=3))
def test_without_strength_or_groups_it_is_vanilla_to_the_last_bit(name, settings, dataset):
    stages = (Stage(epochs=0.7, lr=3e-3, warmup=2),)
    fixed = {"dataset": dataset, "stages": stages, "backbone_settings": {"dropout": 0.1}}
    assert difference(train(METHODS[name], settings, **fixed), train(METHODS["vanilla"], **fixed)) == 0


@pytest.mark.parametrize("name", ["group-dro", "min-group", "loss-variance", "fairclip-sinkhorn"])
def test_groups_that_are_alike_leave_the_mean(name):
    """Three groups of the same three patients: whatever is done about groups does nothing."""
    batch, out = some([0, 0, 0, 1, 1, 1, 2, 2, 2])
    for values in (out.loss, out.p_true):
        values.data = values.data[:3].repeat(3)
    method = made(name, batch)
    loss = method.loss(out, batch)
    assert loss.item() == pytest.approx(out.loss.mean().item(), rel=1e-7)


@pytest.mark.parametrize("name", ["group-dro", "min-group", "loss-variance", "fairclip-sinkhorn", "focal", "jtt"])
def test_tasks_without_classes_have_a_loss_too(name):
    batch, out = some([0, 1, 1, 2, -1], classes=0)
    made(name, batch).loss(out, batch).backward()
    assert out.loss.grad.isfinite().all()
    assert out.loss.grad.abs().sum() > 0


def made(name, batch, **settings):
    """A method that is set up on the batch as if it were all training rows."""
    method = METHODS[name](**settings)
    groups = tuple("abc"[: batch.n_groups])
    rows = Rows(batch.target, batch.group, groups, {}, {}, ("no", "yes"))
    method.plan(STAGES)
    method.setup(SimpleNamespace(train=rows, job=SimpleNamespace(batch_size=len(batch.row))))
    return method


# ── adversarial ──────────────────────────────────────────────────────────────────────────────────


class Reverse(torch.autograd.Function):
    """The reversal layer as the paper draws it."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.weight = weight
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return -ctx.weight * gradient, None


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_adversarial_moves_both_players_as_a_reversal_layer_does(kind):
    torch.manual_seed(0)
    weights = nn.Linear(5, 4).double()
    x = torch.randn(7, 5, dtype=torch.float64)
    site, sex = torch.tensor([0, 1, 2, -1, 1, 0, 2]), torch.tensor([0, 1, -1, -1, 1, 0, 1])
    batch = Batch(torch.arange(7), site, site, {"site": site, "sex": sex}, 3)
    moves = []

    class Fake(SimpleNamespace):
        def forward(self, batch, reads):
            assert reads == States((1.0,), "text", normalise=True)
            states = weights(x)
            return Outputs(states.square().sum(1), states[:, 0], states, states[:, None])

        def descend(self, loss, module=None, lr=None):
            players = [*weights.parameters(), *method.adversaries.parameters()]
            moves.append((torch.autograd.grad(loss, players, allow_unused=True, retain_graph=True), module, lr))

    method = METHODS["adversarial"](
        strength=0.7, adversary=kind, hidden=3, depth=1.0, tokens="text", adversary_lr=0.1, adversary_steps=1
    )
    values = {"site": ("a", "b", "c"), "sex": ("f", "m")}
    run = Fake(progress=0.3, backbone=SimpleNamespace(width=4), train=SimpleNamespace(values=values))
    method.setup(run)
    method.double()
    method.step(run, batch)

    states = weights(x)
    reversed_states = Reverse.apply(states, 0.7 * (2 / (1 + np.exp(-10 * 0.3)) - 1))
    first, second = method.adversaries
    leak = functional.cross_entropy(first(reversed_states)[site >= 0], site[site >= 0])
    leak = leak + functional.cross_entropy(second(reversed_states)[sex >= 0], sex[sex >= 0])
    ours, theirs = list(weights.parameters()), list(method.adversaries.parameters())
    wanted = torch.autograd.grad(states.square().sum(1).mean() + leak, [*ours, *theirs])
    (model, module, _), (adversary, player, lr) = moves
    assert (module, player, lr) == (None, method.adversaries, 0.1)
    assert all(torch.allclose(a, b) for a, b in zip(model[: len(ours)], wanted, strict=False))
    assert all(torch.allclose(a, b) for a, b in zip(adversary[len(ours) :], wanted[len(ours) :], strict=True))
    assert all(gradient is None for gradient in adversary[: len(ours)]), "the adversary's step moves the model"


def test_adversarial_does_something_and_says_how_its_adversaries_fare():
    plain, ours = train(METHODS["vanilla"]), train(METHODS["adversarial"], attributes=("site", "sex"))
    assert difference(plain, ours) > 1e-4
    assert set(ours.record.facts["notes"]) == {"site adversary loss", "sex adversary loss"}


# ── group-dro ────────────────────────────────────────────────────────────────────────────────────

DRO = [
    ({"step_size": 0.5}, "keep"),
    ({"step_size": 0.5, "adjustment": 3.0, "balanced": False}, "drop"),
    ({"step_size": 0.5, "by": "group-class"}, "drop"),
]


@pytest.mark.parametrize(("settings", "unrecorded"), DRO)
def test_group_dro_weighs_as_a_literal_loop_over_its_losses_does(settings, unrecorded):
    seen = []

    class Spy(METHODS["group-dro"]):
        """The same, telling what it saw."""

        def setup(self, run):
            super().setup(run)
            self.train_rows = run.train

        def loss(self, out, batch):
            loss = super().loss(out, batch)
            (gradient,) = torch.autograd.grad(loss, out.loss, retain_graph=True)
            seen.append((out.loss.tolist(), batch.group.tolist(), batch.target.tolist(), gradient.tolist()))
            seen_rows[:] = [self.train_rows]
            return loss

    seen_rows = []
    record = train(Spy, settings, unrecorded=unrecorded).record
    rows = seen_rows[0]
    by_class = settings.get("by") == "group-class"

    def cell(group, target):
        return (rows.groups[group], rows.classes[target] if by_class else None)

    members = [cell(g, t) for g, t in zip(rows.group.tolist(), rows.target.tolist(), strict=True) if g >= 0]
    q = {name: 1 / len(set(members)) for name in set(members)}
    for losses, groups, targets, gradient in seen:
        cells = [cell(g, t) if g >= 0 else None for g, t in zip(groups, targets, strict=True)]
        for name in q:
            own = [loss for loss, there in zip(losses, cells, strict=True) if there == name]
            bonus = settings.get("adjustment", 0.0) / math.sqrt(members.count(name))
            q[name] *= math.exp(settings["step_size"] * ((sum(own) / len(own) if own else 0.0) + bonus))
        total = sum(q.values())
        q = {name: weight / total for name, weight in q.items()}
        wanted = [0.0 if name is None else q[name] / cells.count(name) for name in cells]
        assert gradient == pytest.approx(wanted, rel=1e-5)
    noted = {f"q {group}×{label}" if label else f"q {group}": weight for (group, label), weight in q.items()}
    assert record.facts["notes"] == pytest.approx(noted, rel=1e-5)
    assert max(q.values()) - min(q.values()) > 0.01


def test_group_dro_draws_evenly_only_when_asked_and_knows_its_cells():
    rows = SimpleNamespace(train=SimpleNamespace(balance=lambda by: by))
    assert METHODS["group-dro"](by="group-class").start_stage(rows) == "group-class"
    assert METHODS["group-dro"](balanced=False).start_stage(rows) is None
    batch, _ = some([0, 1])
    written = Rows(batch.target, batch.group, ("a", "b"), {}, {}, ())
    with pytest.raises(FairbenchError, match="no classes to balance by group-class"):
        METHODS["group-dro"](by="group-class").setup(SimpleNamespace(train=written))


# ── losses with a closed form ────────────────────────────────────────────────────────────────────

GROUPS = [0, 2, 2, -1, 0, 0, 0, -1]


def means(out):
    loss = out.loss.detach().numpy()
    return loss, [loss[np.array(GROUPS) == g].mean() for g in (0, 2)]


@pytest.mark.parametrize(("kind", "ddof"), [("population", 0), ("sample", 1)])
def test_loss_variance_is_numpys(kind, ddof):
    batch, out = some(GROUPS)
    loss, groups = means(out)
    ours = made("loss-variance", batch, strength=0.7, variance=kind).loss(out, batch)
    assert ours.item() == pytest.approx(loss.mean() + 0.7 * np.var(groups, ddof=ddof))


def test_min_group_is_the_maximum_soft_or_not():
    batch, out = some(GROUPS)
    loss, groups = means(out)
    hard = made("min-group", batch).loss(out, batch)
    assert hard.item() == pytest.approx(max(groups))
    (gradient,) = torch.autograd.grad(hard, out.loss)
    assert (gradient[batch.group != int(2 * np.argmax(groups))] == 0).all()
    for temperature in (1e-3, 0.5, 1e4):
        soft = made("min-group", batch, temperature=temperature).loss(out, batch).item()
        if temperature == 0.5:
            assert soft == pytest.approx(0.5 * np.log(np.average(np.exp(np.array(groups) / 0.5), weights=[4, 2])))
        else:
            wanted = max(groups) if temperature < 1 else loss[np.array(GROUPS) >= 0].mean()
            assert soft == pytest.approx(wanted, abs=1e-3)
    nobody, out = some([-1, -1])
    made("min-group", nobody).loss(out, nobody).backward()
    assert (out.loss.grad == 0).all()


def remembered(name, means):
    """What each method adds to, or puts in the place of, the mean loss, from all groups' means."""
    return {
        "fr": max(means) - min(means),
        "hybrid": max(means) - min(means),
        "loss-variance": np.var(means),
        "min-group": max(means),
        "group-dro": np.mean(means),  # of step size 0, so that all groups weigh the same
    }[name]


@pytest.mark.parametrize("name", ["fr", "hybrid", "loss-variance", "min-group", "group-dro"])
def test_with_a_memory_groups_count_that_the_batch_lacks(name):
    everybody, _ = some([0, 0, 1, 1, 2, 2])
    settings = {"group-dro": {"step_size": 0.0, "balanced": False}, "min-group": {}}
    method = made(name, everybody, memory=50, **settings.get(name, {"strength": 1.0}))
    value = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9, 0.8], dtype=torch.float64)
    method.loss(Outputs(value, value, torch.zeros(6, 2)), everybody)
    few = Batch(*(whole[:3] for whole in (everybody.row, everybody.target, everybody.group)), {}, 3)
    seen = value[:3].clone().requires_grad_()
    ours = method.loss(Outputs(seen, seen, torch.zeros(3, 2)), few)
    means = [0.2, (0.98 * 1.2 + 0.5) / (0.98 * 2 + 1), 0.85]  # of the last there is nobody in the batch
    plain = 0 if name in ("min-group", "group-dro") else seen.mean().item()
    assert ours.item() == pytest.approx(plain + remembered(name, means), rel=1e-5)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_is_its_formula_and_bears_certainty(gamma):
    p = torch.tensor([0.1, 0.5, 0.9, 1.0], dtype=torch.float64, requires_grad=True)
    loss = METHODS["focal"](gamma=gamma).loss(Outputs(-p.log(), p, torch.zeros(4, 0)), None)
    values = p.detach().numpy()[:3]
    assert loss.item() == pytest.approx(np.sum((1 - values) ** gamma * -np.log(values)) / 4, abs=1e-6)
    loss.backward()
    slope = gamma * (1 - values) ** (gamma - 1) * np.log(values) - (1 - values) ** gamma / values
    assert p.grad[:3].numpy() == pytest.approx(slope / 4)
    assert p.grad.isfinite().all()


# ── fairclip-sinkhorn ────────────────────────────────────────────────────────────────────────────


def cheapest(x, y):
    """The cost of the cheapest plan, by linear programming."""
    n, m = len(x), len(y)
    leaves = np.kron(np.eye(n), np.ones(m))
    arrives = np.kron(np.ones(n), np.eye(m))
    cost = (x[:, None] - y) ** 2 / 2
    marginals = np.concatenate([np.full(n, 1 / n), np.full(m, 1 / m)])
    return linprog(cost.ravel(), A_eq=np.vstack([leaves, arrives]), b_eq=marginals).fun


def test_sinkhorn_is_the_optimal_plan_for_a_small_blur():
    generator = np.random.default_rng(0)
    for n, m in ((4, 4), (7, 3), (8, 1), (12, 5)):
        x, y = generator.random(n), generator.random(m) ** 2
        ours = divergence(torch.tensor(x), torch.tensor(y), 1e-3).item()
        assert ours == pytest.approx(cheapest(x, y), rel=0.01, abs=1e-5)
        assert divergence(torch.tensor(x), torch.tensor(y), 0).item() == pytest.approx(cheapest(x, y), rel=1e-9)


@pytest.mark.parametrize("blur", [0, 1e-3, 0.01, 0.3, 2.0])
def test_sinkhorn_is_symmetric_and_zero_for_equal_distributions(blur):
    x, y = torch.tensor([0.1, 0.4, 0.45, 0.9]), torch.tensor([0.5, 0.9])
    forth, back = divergence(x, y, blur).item(), divergence(y, x, blur).item()
    assert forth == pytest.approx(back, rel=1e-3)
    assert forth > 1e-3
    assert divergence(x, x.flip(0), blur).item() == pytest.approx(0, abs=1e-9)
    assert divergence(x, x.repeat(3), blur).item() == pytest.approx(0, abs=1e-9), "sizes are no difference"


@pytest.mark.parametrize("blur", [0, 0.1])
def test_sinkhorns_gradient_is_its_slope(blur):
    x = torch.tensor([0.1, 0.4, 0.45, 0.9], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0.2, 0.7, 0.8], dtype=torch.float64)
    (gradient,) = torch.autograd.grad(divergence(x, y, blur), x)
    for i, step in enumerate(1e-5 * torch.eye(4, dtype=torch.float64)):
        slope = (divergence(x + step, y, blur) - divergence(x - step, y, blur)).item() / 2e-5
        assert gradient[i].item() == pytest.approx(slope, abs=1e-4)


def test_fairclip_adds_every_groups_distance_to_the_batch():
    batch, out = some(GROUPS)
    p, group = out.p_true.detach().numpy(), np.array(GROUPS)
    apart = sum(cheapest(p[group >= 0], p[group == g]) for g in (0, 2))
    for blur, rel in ((1e-3, 1e-3), (0.0, 1e-9)):
        ours = METHODS["fairclip-sinkhorn"](strength=2.0, blur=blur).loss(out, batch)
        assert ours.item() == pytest.approx(out.loss.mean().item() + 2 * apart, rel=rel)


# ── jtt ──────────────────────────────────────────────────────────────────────────────────────────


class Mirror(ToyDataset):
    """The test split shows the training images again, so that predictions tell what training got wrong;
    every fourth answer is mistaken, to have something to get wrong.
    """

    name = "mirror"

    def table(self):
        table = super().table()
        seen = table[table["split"] == "train"].copy()
        seen.loc[::4, "target"] = seen.loc[::4, "target"].map({"dark": "bright", "bright": "dark"})
        again = seen.assign(split="test", id="t" + seen["id"], cluster="t" + seen["cluster"])
        return pd.concat([seen, table[table["split"] == "val"], again], ignore_index=True)


ODDS = []  # what Spy draws by: no class may keep what the next job would find


class Spy(METHODS["jtt"]):
    """The same, telling what it draws by."""

    def start_stage(self, run):
        ODDS.append(super().start_stage(run))
        return ODDS[-1]


@pytest.mark.slow
@pytest.mark.parametrize("using", ["draw", "weight"])
def test_jtt_counts_what_a_short_plain_training_gets_wrong(using):
    ODDS.clear()
    settings = {"share": 0.25, "up_weight": 5.0, "using": using}
    stages = (Stage(epochs=0.8, lr=3e-3, warmup=2),)
    fixed = {"dataset": Mirror, "backbone_settings": {"dropout": 0.2}}
    ours = train(Spy, settings, stages=stages, **fixed)
    short = train(METHODS["vanilla"], stages=(Stage(epochs=0.2, lr=3e-3, warmup=2),), **fixed)
    shown = short.predictions.query("split == 'test'")
    wrong = (shown["answer"] != shown["target"]).to_numpy()
    assert 0.1 < wrong.mean() < 0.9
    assert ours.record.facts["notes"]["wrong"] == pytest.approx(wrong.mean())
    assert ours.record.steps == 2 + 12 + 10
    assert ODDS[:2] == [None, None]
    if using == "draw":
        weights = np.where(wrong, 5.0, 1.0)
        assert ODDS[2].numpy() == pytest.approx(weights / weights.mean())
    else:
        assert ODDS[2] is None
    assert difference(ours, train(METHODS["vanilla"], stages=stages, **fixed)) > 1e-3


def test_jtt_weighs_losses_by_row():
    batch, out = some([0, 1, 2, 0])
    method = made("jtt", batch, using="weight", up_weight=3.0)
    method.wrong[:] = torch.tensor([True, False, False, True])
    kept = []
    run = SimpleNamespace(stage_number=2, note=kept.append, restart=lambda: kept.append("restarted"))
    assert method.start_stage(run) is None
    assert kept == [{"wrong": 0.5}, "restarted"]
    wanted = np.mean(np.array([3, 1, 1, 3]) / 2 * out.loss.detach().numpy())
    assert method.loss(out, batch).item() == pytest.approx(wanted)


def test_jtt_starts_again_from_scratch():
    class Forgives(METHODS["jtt"]):
        """Find nothing wrong, so that the second training is plain."""

        def start_stage(self, run):
            self.wrong.zero_()
            return super().start_stage(run)

    class Waits(Method):
        """Let two stages go by, then train plainly: the same order of rows, the same dropout."""

        name = "waits"

        def plan(self, stages):
            return (*stages, *stages, *stages)

        def step(self, run, batch):
            if run.stage_number == 2:
                super().step(run, batch)

    fixed = {"backbone_settings": {"dropout": 0.2}}
    assert difference(train(Forgives, **fixed), train(Waits, **fixed)) == 0


def test_jtt_judges_written_answers_by_their_probability():
    batch, out = some([0, 1, 2, 0], classes=0, seed=1)
    method = made("jtt", batch)
    rows = SimpleNamespace(classes=())
    backbone = SimpleNamespace(train=lambda mode: None)
    method.step(SimpleNamespace(stage_number=1, train=rows, backbone=backbone, forward=lambda batch: out), batch)
    assert method.wrong.tolist() == (out.p_true < 0.5).tolist()
    assert 0 < method.wrong.sum() < 4


# ── thresholds ───────────────────────────────────────────────────────────────────────────────────


def ready(warnings=None, **settings):
    method = METHODS["thresholds"](**settings)
    job = SimpleNamespace(attributes=("race",), unrecorded="keep", dataset=SimpleNamespace(name="toy"))
    train_rows = SimpleNamespace(classes=("no", "yes"), references=())
    warn = ([] if warnings is None else warnings).append
    run = SimpleNamespace(job=job, train=train_rows, warn=warn, facts={})
    method.setup(run)
    return SimpleNamespace(run=run, adjust=partial(method.adjust, run))


def votes(sizes, seed):
    """Validation rows of groups with scores of differing quality, some of them equal."""
    frame = scored(sizes, seed, lean=0.3).rename(columns={"score": "p_1"})
    return frame.assign(p_0=1 - frame["p_1"])


def rates(frame, criterion):
    """A criterion's rate for each group, straight from the definition."""
    collected = {}
    for name, part in frame.groupby("race"):
        if criterion == "sensitivity":
            collected[name] = part.loc[part["target"] == 1, "answer"].mean()
        elif criterion == "positive-rate":
            collected[name] = part["answer"].mean()
        else:
            collected[name] = (part["answer"] == part["target"]).mean()
    return pd.Series(collected)


def everything(frame):
    """The frame under every combination of thresholds that there is."""
    names = sorted(set(frame["race"]))
    cuts = [[-1.0, *sorted(set(frame.loc[frame["race"] == name, "p_1"]))] for name in names]
    for chosen in itertools.product(*cuts):
        cut = frame["race"].map(dict(zip(names, chosen, strict=True)))
        yield frame.assign(answer=(frame["p_1"] > cut).astype(int))


@pytest.mark.parametrize("criterion", ["sensitivity", "positive-rate", "accuracy"])
@pytest.mark.parametrize(("seed", "cost"), sampled([(1, 0.1), (0, 0.0), (2, 1.0)]))
def test_thresholds_are_the_best_of_all_thresholds(criterion, seed, cost):
    frame = votes({"a": 8, "b": 7, "c": 5}, seed)
    method = ready(criterion=criterion, cost=cost, fewest=1)
    ours = method.adjust(frame, frame.drop(columns="target")).assign(target=frame["target"])
    assert ours["p_1"].equals(frame["p_1"])
    right = (frame["answer"] == frame["target"]).sum() - cost * len(frame) - 1e-9
    allowed = [other for other in everything(frame) if (other["answer"] == other["target"]).sum() >= right]
    gaps = [np.ptp(rates(other, criterion)) for other in allowed]
    assert np.ptp(rates(ours, criterion)) == pytest.approx(min(gaps))
    best = max(
        (o["answer"] == o["target"]).sum() for o, gap in zip(allowed, gaps, strict=True) if gap <= min(gaps) + 1e-9
    )
    assert (ours["answer"] == ours["target"]).sum() == best
    assert set(method.run.facts["thresholds"]) == {"a", "b", "c"}


def test_thresholds_fit_between_neighbouring_numbers():
    first = 0.6
    for _ in range(2):
        second = np.nextafter(first, 1)
        assert Cuts(np.array([first, second]), np.array([False, True]), "accuracy").right.max() == 2
        first = second


def test_thresholds_for_the_worst_group():
    frame = votes({"a": 8, "b": 7, "c": 5}, 3)
    ours = ready(criterion="worst-group", fewest=1).adjust(frame, frame.drop(columns="target"))
    worst = rates(ours.assign(target=frame["target"]), "accuracy").min()
    assert worst == pytest.approx(max(rates(other, "accuracy").min() for other in everything(frame)))
    assert worst > rates(frame, "accuracy").min()


def test_thresholds_of_groups_that_are_alike_agree_and_stay_where_nothing_is_wrong():
    one = votes({"a": 30}, 0)
    frame = pd.concat([one, one.assign(race="b")], ignore_index=True)
    method = ready(cost=0.0, fewest=5)
    ours = method.adjust(frame, frame.drop(columns="target"))
    assert len(set(method.run.facts["thresholds"].values())) == 1
    best = max(((one["p_1"] > cut) == one["target"]).mean() for cut in (-1, *one["p_1"]))
    assert (ours["answer"][:30] == one["target"]).mean() == pytest.approx(best)
    clear = frame.assign(p_1=frame["target"] * 0.2 + 0.35, answer=frame["target"])
    method.adjust(clear, clear.drop(columns="target"))
    assert method.run.facts["thresholds"] == {"a": 0.5, "b": 0.5}


def test_small_and_unknown_groups_keep_the_overall_threshold():
    validation = votes({"a": 60, "b": 60, "c": 6}, 5)
    test = votes({"a": 40, "b": 40, "c": 40, "d": 10}, 6).drop(columns="target")
    warnings = []
    method = ready(warnings, fewest=20, cost=0.2)
    ours = method.adjust(validation, test)
    (warning,) = warnings
    assert "c has" in warning
    assert "positive validation rows, too few" in warning
    moved = ours["answer"] != test["answer"]
    assert set(test.loc[moved, "race"]) <= {"a", "b"}
    assert moved.any()
    for name, cut in method.run.facts["thresholds"].items():
        own = test["race"] == name
        assert (ours.loc[own, "answer"] == (test.loc[own, "p_1"] > cut)).all()
    alone = votes({"a": 60, "c": 3}, 5)
    assert ready(warnings).adjust(alone, test)["answer"].equals(test["answer"])
    assert "fewer than two groups" in warnings[-1]


def test_thresholds_train_plainly_and_move_answers_only():
    settings = {"criterion": "positive-rate", "cost": 0.5, "fewest": 3}
    ours, plain = train(METHODS["thresholds"], settings), train(METHODS["vanilla"])
    left, right = (outcome.predictions.drop(columns="answer") for outcome in (ours, plain))
    pd.testing.assert_frame_equal(left, right)
    changed = ours.predictions["answer"] != plain.predictions["answer"]
    assert set(ours.predictions.loc[changed, "split"]) == {"test"}
    assert ours.record.adjusts_with_group
    assert set(ours.record.facts["thresholds"]) >= {"a", "b"}


def test_thresholds_refuse_tasks_without_two_classes():
    class Three(ToyDataset):
        """A third answer that nobody gives."""

        name = "three"
        classes = ("dark", "bright", "grey")

    with pytest.raises(AssertionError, match="two classes, and three has 3 classes"):
        train(METHODS["thresholds"], dataset=Three)
    vqa = SimpleNamespace(name="vqa", task="generate", classes=("no", "yes"))
    any_model = SimpleNamespace(name="any", readout="head", takes_several=True)
    with pytest.raises(FairbenchError, match="vqa has answers in words"):
        require("thresholds", METHODS["thresholds"].needs, vqa, any_model)


def test_cells_of_classes_need_classes():
    for name in ("resample", "reweight", "group-dro"):
        assert [METHODS[name](by=by).needs for by in ("group", "group-class")] == [(), ("classes",)]
