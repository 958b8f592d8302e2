"""Methods of invariance, averaging, distillation and post-processing against independent computations.

Each training is repeated by `independent.Independent`, whose loop, losses and gradients share no code with the
method: twelve optimizer steps must leave the same weights.
"""

import numpy as np
import pandas as pd
import pytest
import torch
from fairbench_plugins.methods.eq_odds import mixtures
from fairbench_plugins.methods.swad import valley
from fairlearn.postprocessing import ThresholdOptimizer
from independent import Independent
from sklearn.base import BaseEstimator, ClassifierMixin
from torch.nn import functional
from twelve_steps import METHODS, STAGE, same, trained

from fairbench import Stage
from fairbench.testing.toys import ToyDataset, difference, train


def cross_entropy(alone, rows, split="train"):
    scores, _ = alone.forward(split, rows)
    return functional.cross_entropy(scores, alone.splits[split]["target"][rows])


def members(alone, rows):
    """The positions in a batch of each group's patients, those of no recorded site last; of two or more."""
    group = alone.splits["train"]["group"][rows]
    every = [(group == g).nonzero().flatten() for g in range(4)]
    return {g: own for g, own in enumerate(every) if len(own) > 1}


@pytest.mark.parametrize("strength", [0.5, 20.0])
def test_irm_is_the_slope_that_autograd_finds(strength):
    alone = Independent()

    def loss(rows, step, steps):
        scores, _ = alone.forward("train", rows)
        target = alone.splits["train"]["target"][rows]
        squares = []
        for own in members(alone, rows).values():
            slopes = []
            for i in own:
                scale = torch.ones((), requires_grad=True)
                risk = functional.cross_entropy(scores[i : i + 1] * scale, target[i : i + 1])
                slopes.append(torch.autograd.grad(risk, scale, create_graph=True)[0])
            pairs = [a * b for j, a in enumerate(slopes) for k, b in enumerate(slopes) if j != k]
            squares.append(sum(pairs) / len(pairs))
        weight = strength if step / steps >= 0.25 else min(strength, 1.0)
        penalty = sum(squares) / len(squares) if squares else 0.0
        return functional.cross_entropy(scores, target) + weight * penalty

    alone.train(loss, STAGE)
    ours = trained(METHODS["irm"], {"strength": strength})
    same(f"irm(strength={strength})", ours, alone)
    assert difference(ours[0], train(METHODS["vanilla"])) > 1e-4


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_fishr_is_the_variance_of_autograds_gradients(ema):
    alone, past = Independent(), {}

    def loss(rows, *_):
        scores, states = alone.forward("train", rows)
        target = alone.splits["train"]["target"][rows]
        head = [alone.model.head.weight, alone.model.head.bias]
        means = []
        for group, own in members(alone, rows).items():
            gradients = []
            for i in own:
                logits = functional.linear(states[i], *head)
                risk = functional.cross_entropy(logits[None], target[i : i + 1])
                parts = torch.autograd.grad(risk, head, create_graph=True)
                gradients.append(torch.cat([parts[0], parts[1][:, None]], 1).flatten())
            stacked = torch.stack(gradients)
            now = ((stacked - stacked.mean(0)) ** 2).mean(0)
            means.append(ema * past[group] + (1 - ema) * now if group in past else now)
            past[group] = means[-1].detach()
        middle = sum(means) / max(len(means), 1)
        spread = sum(((v - middle) ** 2).sum() for v in means) / len(means) if len(means) > 1 else 0.0
        return functional.cross_entropy(scores, target) + 5.0 * spread

    alone.train(loss, STAGE)
    ours = trained(METHODS["fishr"], {"ema": ema, "strength": 5.0})
    same(f"fishr(ema={ema})", ours, alone)
    assert difference(ours[0], train(METHODS["vanilla"])) > 1e-4


def far(x, y, kind):
    """The distance of two samples, by numpy's formulas in torch's loops."""
    if kind == "covariance":
        centred = [z - z.mean(0) for z in (x, y)]
        first, second = (z.T @ z / (len(z) - 1) for z in centred)
        return ((x.mean(0) - y.mean(0)) ** 2).mean() + ((first - second) ** 2).mean()

    def kernel(a, b):
        return sum(torch.exp(-width * ((a - b) ** 2).sum()) for width in np.logspace(-3, 3, 7))

    def mean(a, b):
        return sum(kernel(p, q) for p in a for q in b) / (len(a) * len(b))

    return mean(x, x) + mean(y, y) - 2 * mean(x, y)


@pytest.mark.parametrize("kind", ["covariance", "mmd"])
def test_coral_brings_the_heads_states_together(kind):
    alone = Independent()

    def loss(rows, *_):
        scores, states = alone.forward("train", rows)
        parts = [states[own] for own in members(alone, rows).values()]
        pairs = [far(x, y, kind) for i, x in enumerate(parts) for y in parts[i + 1 :]]
        return functional.cross_entropy(scores, alone.splits["train"]["target"][rows]) + 0.7 * (
            sum(pairs) / len(pairs) if pairs else 0.0
        )

    alone.train(loss, STAGE)
    ours = trained(METHODS["coral"], {"distance": kind, "strength": 0.7})
    same(f"coral(distance={kind})", ours, alone)
    assert difference(ours[0], train(METHODS["vanilla"])) > 1e-4


@pytest.mark.parametrize("within", [0.0, 1.0])
def test_lisa_mixes_within_a_class_or_a_group(within):
    drawn = []

    class Told(METHODS["lisa"]):
        """The same, telling partners and shares."""

        def step(self, run, batch):
            class Spy:
                def __getattr__(self, name):
                    return getattr(run, name)

                def batch(self, rows):
                    drawn.append([batch.row, rows])
                    return run.batch(rows)

                def forward(self, mixed):
                    drawn[-1].append(mixed.partner[1])
                    return run.forward(mixed)

            super().step(Spy(), batch)

    ours = trained(Told, {"within_class": within}, micro_batch=3)
    alone = Independent()
    data, steps = alone.splits["train"], iter(drawn)
    seen = []

    def loss(rows, *_):
        own, partner, share = next(steps)
        assert torch.equal(own, rows)
        mixes = share < 1
        seen.append(mixes.float().mean().item())
        same, other = ("target", "group") if within else ("group", "target")
        assert (data[same][rows] == data[same][partner])[mixes].all()
        assert (data[other][rows] != data[other][partner])[mixes].all()
        weight = share[:, None, None]
        blend = weight * alone.features("train", rows) + (1 - weight) * alone.features("train", partner)
        scores, _ = alone.forward("train", rows, blend)
        log_p = scores.log_softmax(1)
        index = torch.arange(len(rows))
        mine, theirs = (-log_p[index, data["target"][some]] for some in (rows, partner))
        return (share * mine + (1 - share) * theirs).mean()

    alone.train(loss, STAGE)
    same(f"lisa(within_class={within})", ours, alone)
    assert np.mean(seen) > 0.9, "nearly everybody has a partner"
    shares = torch.cat([share for *_, share in drawn])
    assert shares[shares < 1].var().item() == pytest.approx(1 / 20, rel=0.4), "Beta(2, 2)"


def test_dfr_trains_the_readout_again_on_balanced_validation_rows():
    ours = trained(METHODS["dfr"], {"epochs": 4.0}, micro_batch=3)
    alone = Independent(splits=("train", "val"))
    alone.train(lambda rows, *_: cross_entropy(alone, rows), STAGE)
    with torch.no_grad():
        for parameter in alone.model.part("head"):
            parameter.zero_()
    data = alone.splits["val"]
    cell = data["group"] * 2 + data["target"]
    odds = 1 / torch.bincount(cell)[cell].double()
    last = Stage("last layer", ("head",), 4.0, 1e-2, warmup=0, weight_decay=0.01, split="val")
    alone.train(lambda rows, *_: cross_entropy(alone, rows, "val"), last, "val", number=1, odds=odds)
    same("dfr", ours, alone)
    plain = train(METHODS["vanilla"], micro_batch=3).weights
    assert all(torch.equal(plain[name], weight) == ("head" not in name) for name, weight in ours[0].weights.items())


def test_swad_averages_the_steps_in_the_valley():
    ours = trained(METHODS["swad"], {"evaluations": 6})
    alone = Independent(splits=("train", "val"))
    parameters = [*alone.model.part("lora"), *alone.model.part("head")]
    steps, losses = [], []

    def after():
        steps.append([p.detach().clone() for p in parameters])
        if len(steps) % 2 == 0:
            with torch.no_grad():
                losses.append(cross_entropy(alone, torch.arange(24), "val").item())

    alone.train(lambda rows, *_: cross_entropy(alone, rows), STAGE, after=after)
    ((first, last, looks),) = ours[0].record.facts["averaged"]
    assert looks == 6
    assert (first - 1, last - 1) == valley(losses, 3, 6, 1.2)
    with torch.no_grad():
        for place, parameter in enumerate(parameters):
            parameter.copy_(torch.stack([step[place] for step in steps[2 * first - 2 : 2 * last]]).mean(0))
    same("swad", ours, alone)
    assert last > first, "else nothing is averaged here"


@pytest.mark.parametrize(
    ("losses", "wanted"),
    [
        ([3, 2, 1, 1.1, 1.2, 1.1, 1.15], (2, 6)),  # settles, never rises
        ([3, 1, 1.1, 1.05, 2, 2, 2, 2], (1, 3)),  # rises for good after the fourth look
        ([3, 1, 1.1, 1.05, 2, 1.0, 2, 2], (1, 5)),  # a rise that passes ends nothing
        ([5, 4, 3, 2, 1], (4, 4)),  # still falling
        ([1.0], (0, 0)),
    ],
)
def test_the_valley_is_where_algorithm_one_finds_it(losses, wanted):
    assert valley(losses, patience=3, overfit=2, tolerance=1.2) == wanted


def test_distil_learns_the_balanced_teachers_doubts():
    ours = trained(METHODS["distil"], {"share": 0.6, "temperature": 3.0, "by": "group"}, micro_batch=3)
    alone = Independent()
    data = alone.splits["train"]
    odds = 1 / torch.bincount(data["group"])[data["group"]].double()
    alone.train(lambda rows, *_: cross_entropy(alone, rows), STAGE, odds=odds)
    with torch.no_grad():
        teacher = (alone.forward("train", torch.arange(96))[0] / 3).softmax(1)
    student = Independent()

    def loss(rows, *_):
        scores, _ = student.forward("train", rows)
        model = (scores / 3).softmax(1)
        kl = (teacher[rows] * (teacher[rows] / model).log()).sum(1).mean()
        return 0.4 * functional.cross_entropy(scores, data["target"][rows]) + 0.6 * 9 * kl

    student.train(loss, STAGE, number=1)
    same("distil", ours, student, alone.losses)
    plain = train(METHODS["distil"], {"share": 0.0})
    assert difference(plain, train(METHODS["vanilla"])) == 0


# ── eq-odds ──────────────────────────────────────────────────────────────────────────────────────


class Scores(ClassifierMixin, BaseEstimator):
    """A classifier that is given its scores."""

    def fit(self, x, y):
        self.fitted_ = True
        self.classes_ = np.array([0, 1])
        return self

    def predict_proba(self, x):
        p = np.asarray(x)[:, 0]
        return np.stack([1 - p, p], 1)


def people(seed, sizes=(120, 60, 40)):
    generator = np.random.default_rng(seed)
    group = np.repeat(np.arange(len(sizes)), sizes)
    target = generator.random(len(group)) < np.array([0.3, 0.5, 0.6])[group]
    lean = np.array([0.0, 0.1, -0.15])[group]
    return group, target, np.round(np.clip(generator.normal(0.4 + 0.25 * target + lean, 0.2), 0, 1), 2)


def expected(chosen, p, positive):
    """Each group's true and false positive rate and wrong rows, when thresholds are drawn by their odds."""
    rates = []
    for (cuts, odds), values, true in zip(chosen, p, positive, strict=True):
        answer = (values[:, None] > cuts) @ odds
        rates.append((answer[true].mean(), answer[~true].mean(), (1 - answer[true]).sum() + answer[~true].sum()))
    return np.array(rates)


@pytest.mark.parametrize("seed", range(4))
def test_equalised_odds_cost_what_fairlearn_finds(seed):
    group, target, p = people(seed)
    split = [p[group == g] for g in range(3)], [target[group == g] for g in range(3)]
    rates = expected(mixtures(*split), *split)
    assert np.ptp(rates[:, 0]) < 1e-9
    assert np.ptp(rates[:, 1]) < 1e-9
    theirs = ThresholdOptimizer(
        estimator=Scores().fit(p, target),
        constraints="equalized_odds",
        prefit=True,
        predict_method="predict_proba",
        grid_size=20_000,
    ).fit(p[:, None], target.astype(int), sensitive_features=group)
    answer = theirs._pmf_predict(p[:, None], sensitive_features=group)[:, 1]
    wrong = (1 - answer[target]).sum() + answer[~target].sum()
    assert rates[:, 2].sum() == pytest.approx(wrong, abs=0.05)


def test_eq_odds_moves_answers_only_and_says_by_which_thresholds():
    class Larger(ToyDataset):
        """Enough validation rows."""

        name = "larger"
        rows_per_split = (96, 400, 400)

    ours, plain = (train(METHODS[name], dataset=Larger) for name in ("eq-odds", "vanilla"))
    left, right = (outcome.predictions.drop(columns="answer") for outcome in (ours, plain))
    pd.testing.assert_frame_equal(left, right)
    chosen = ours.record.facts["thresholds"]
    assert len(chosen) >= 2
    test = ours.predictions.query("split == 'test'")
    for name, shares in chosen.items():
        assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
        own = test[test["site"].fillna("not recorded") == name]
        wanted = sum(odds * (own["p_1"] > float(cut)).mean() for cut, odds in shares.items())
        assert own["answer"].mean() == pytest.approx(wanted, abs=4 / np.sqrt(len(own)))
    small = train(METHODS["eq-odds"], {"fewest": 300}, dataset=Larger)
    assert small.predictions["answer"].equals(plain.predictions["answer"])
    assert any("too few" in warning for warning in small.record.warnings)
