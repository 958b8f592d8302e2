"""Losses and weights after twelve optimizer steps, of every method, beside an independent implementation."""

import copy
import math

import pytest
import torch
from independent import Independent
from torch.nn import functional
from twelve_steps import CASES, METHODS, STAGE, repeat, same, trained

from fairbench.testing.toys import difference, train

ELSEWHERE = {  # in test_invariance.py and test_fairtune.py; below; or nothing is trained
    *("irm", "fishr", "coral", "lisa", "dfr", "swad", "distil", "eq-odds", "thresholds", "fairtune"),
    *("jtt", "adversarial", "min-mi"),
    *("zero-shot", "majority", "linear-probe", "adapter", "endpoint", "demonstrations", "debiased-prompt"),
    *("image-ablated", "label-shuffled"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_twelve_steps_are_those_of_an_independent_implementation(case):
    repeat(case)


def test_no_bundled_method_is_forgotten():
    assert {case.method for case in CASES} | ELSEWHERE == set(METHODS)


@pytest.mark.parametrize("using", ["draw", "weight"])
def test_jtt_trains_twice_and_weighs_what_came_out_wrong(using):
    ours = trained(METHODS["jtt"], {"using": using, "up_weight": 6.0, "share": 0.5})
    first, second = Independent(), Independent()
    target = first.splits["train"]["target"]

    def plain(alone, weights=None):
        def loss(rows, *_):
            ce = functional.cross_entropy(alone.forward("train", rows)[0], target[rows], reduction="none")
            return (ce if weights is None else weights[rows] * ce).mean()

        return loss

    first.train(plain(first), STAGE.share(0.5))
    with torch.no_grad():
        wrong = first.forward("train", torch.arange(96))[0].argmax(1) != target
    weights = torch.where(wrong, 6.0, 1.0)
    weights /= weights.mean()
    drawn = using == "draw"
    second.train(plain(second, None if drawn else weights), STAGE, number=2, odds=weights if drawn else None)
    assert 0 < wrong.sum() < 96
    same(f"jtt(using={using})", ours, second, first.losses)


def told(name, players, settings):
    """A training by fairbench, and its players as they began."""
    began = []

    class Told(METHODS[name]):
        """The same, telling its players."""

        def setup(self, run):
            super().setup(run)
            began.append(copy.deepcopy(getattr(self, players)))

    return trained(Told, settings), began[0]


def optimised(module):
    return list(module.parameters()), torch.optim.AdamW(module.parameters(), weight_decay=STAGE.weight_decay)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_both_players_of_adversarial_take_twelve_steps(kind):
    ours, (adversary,) = told(
        "adversarial", "adversaries", {"adversary": kind, "adversary_lr": 0.02, "adversary_steps": 2}
    )
    alone, state = Independent(), {}
    target, group = (alone.splits["train"][key] for key in ("target", "group"))
    parts, optimizer = optimised(adversary)

    def misread(states, rows):
        known = group[rows] < 3
        return functional.cross_entropy(adversary(states[known]), group[rows][known])

    def loss(rows, step, steps):
        states, scores = alone.pooled(rows, (alone.model.depth + 1) // 2)
        state["now"] = states.detach(), rows
        weight = 2 / (1 + math.exp(-10 * step / steps)) - 1
        return functional.cross_entropy(scores, target[rows]) - weight * misread(states, rows)

    def after():
        for _ in range(2):
            alone.descend(misread(*state["now"]), parts, optimizer, 0.02)

    alone.train(loss, STAGE, after=after)
    same(f"adversarial(adversary={kind})", ours, alone)
    assert difference(ours[0], train(METHODS["vanilla"])) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["alternating", "joint"])
def test_both_players_of_min_mi_take_twelve_steps(schedule):
    ours, ((reader,),) = told("min-mi", "panel", {"schedule": schedule, "reader_steps": 2, "strength": 2.0})
    alone, state = Independent(), {}
    target, group = (alone.splits["train"][key] for key in ("target", "group"))
    parts, optimizer = optimised(reader)

    def learn():
        states, value = state["now"]
        for _ in range(2):
            alone.descend(functional.cross_entropy(reader(states), value), parts, optimizer, 1e-2)

    def leak(states, value):
        q = reader(states).log_softmax(1)
        n = len(value)
        if len(set(value.tolist())) < 2:
            return 0.0
        own = sum(q[i, value[i]] for i in range(n)) / n
        others = sum(q[i, value[j]] for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
        return ((own - others) ** 2 + 1e-6) ** 0.5 - 1e-3  # the magnitude, smooth at 0

    def loss(rows, *_):
        states, scores = alone.pooled(rows, max(1, (alone.model.depth + 1) // 2))
        known = group[rows] < 3
        state["now"] = states[known].detach(), group[rows][known]
        if schedule == "alternating":
            learn()
        return functional.cross_entropy(scores, target[rows]) + 2.0 * leak(states[known], group[rows][known])

    alone.train(loss, STAGE, after=learn if schedule == "joint" else lambda: None)
    same(f"min-mi(schedule={schedule})", ours, alone)
    assert difference(ours[0], train(METHODS["vanilla"])) > 1e-4
