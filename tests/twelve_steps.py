"""Twelve optimizer steps of every method whose training is a loss, an order of rows, or both, beside steps that
share no code with it: `python benchmarks/method_equality.py` prints how far the losses and the weights are apart.

Each case is the method's equation written anew, over the whole batch at once, for `independent.Independent`, whose
loop, optimizer, clipping, warm-up and order of rows are its own. Methods with two players, mixing, averaging
search or post-processing are in tests/plugins/test_twelve_steps.py, test_invariance.py and test_fairtune.py.
"""

import math
from dataclasses import dataclass, field

import torch
from independent import Independent

from fairbench import plugins
from fairbench.testing.toys import STAGES, train

(STAGE,) = STAGES
BATCH = 8
ROWS = 96
SAME = 1e-5  # float32, summed in another order: up to 4e-6 was seen, by processor; a strength 1 % off: 4e-5 or more
LOSSES = 2e-4  # a loss moves by its slope times what thousands of weights are apart: up to 8e-5 was seen
MEASURED = []  # (what, steps, losses apart, weights apart) of every training that was repeated
METHODS = plugins.load(("method",)).tables["method"]


@dataclass
class Case:
    """A method, its settings, and what it descends: `loss(world, rows)`; `by` are the cells it draws evenly."""

    method: str
    loss: object
    settings: dict = field(default_factory=dict)
    by: str | None = None

    @property
    def label(self):
        told = ", ".join(f"{key}={value}" for key, value in self.settings.items())
        return f"{self.method}({told})" if told else self.method


class World:
    """The toy's training rows, and what a method may remember."""

    def __init__(self):
        self.alone, self.memory = Independent(), {}
        data = self.alone.splits["train"]
        self.target, self.group = data["target"], data["group"]

    def cells(self, by):
        return {"group": self.group, "class": self.target, "group-class": 2 * self.group + self.target}[by]

    def odds(self, by):
        cell = self.cells(by)
        return 1 / torch.bincount(cell)[cell].double()

    def forward(self, rows):
        """Cross-entropies and probabilities of the true classes, (B,)."""
        log_p = self.alone.forward("train", rows)[0].log_softmax(1)
        true = log_p[torch.arange(len(rows)), self.target[rows]]
        return -true, true.exp()


def plain(world, rows):
    return world.forward(rows)[0].mean()


def means(world, values, rows, memory, group=None, drawn=None):
    """The mean of each group in the batch, or the running one with an unbiased gradient; by group's number."""
    group = world.group if group is None else group
    number = int(group.max()) + 1
    mine = group[rows]
    if not memory:
        return {g: values[mine == g].mean() for g in range(number) if (mine == g).any()}
    share = (torch.bincount(group).double() / ROWS if drawn is None else drawn).float()
    keep, past = 1 - 1 / memory, world.memory.setdefault("means", [(0.0, 0.0)] * number)
    known = {}
    for g in range(number):
        total, count = past[g]
        total = keep * total + float(values[mine == g].detach().sum())
        count = keep * count + int((mine == g).sum())
        past[g] = total, count
        slope = values[mine == g].sum() / (len(rows) * share[g])
        if count:
            known[g] = total / count + slope - slope.detach()
    return known


def gap(world, p, rows, memory):
    parts = list(means(world, p, rows, memory).values())
    return torch.stack(parts).max() - torch.stack(parts).min() if len(parts) > 1 else 0.0


def fr(strength=0.5, memory=0):
    def loss(world, rows):
        ce, p = world.forward(rows)
        return ce.mean() + strength * gap(world, p, rows, memory)

    return loss


def weighted(world, ce, rows, reading, by, normalise, cap):
    """Eq. 8 of arXiv 2512.03477 in each reading, cell by cell."""
    cell = world.cells(by)
    size = [int((cell == c).sum()) for c in range(int(cell.max()) + 1)]
    weight = [min(ROWS / n, cap) if n else 0.0 for n in size]
    if reading in ("per-sample", "equation"):
        each = [w * (ROWS / n if reading == "equation" and n else 1.0) for w, n in zip(weight, size, strict=True)]
        scale = sum(w * n for w, n in zip(each, size, strict=True)) / ROWS if normalise else 1.0
        return sum(each[int(cell[row])] * one for row, one in zip(rows, ce, strict=True)) / len(rows) / scale
    piece = 2 if reading == "micro-mean" else BATCH
    scale = sum(
        w * (1 - math.comb(ROWS - n, piece) / math.comb(ROWS, piece)) for w, n in zip(weight, size, strict=True)
    )
    totals = []
    for start in range(0, len(rows), piece):
        mine, values = cell[rows[start : start + piece]], ce[start : start + piece]
        totals.append(sum(weight[c] * values[mine == c].mean() for c in set(mine.tolist())))
    return sum(totals) / len(totals) / (scale if normalise else 1.0)


def gr(reading="per-sample", by="group", normalise=True, strength=0.0, memory=0, cap=10.0):
    def loss(world, rows):
        ce, p = world.forward(rows)
        own = weighted(world, ce, rows, reading, by, normalise, cap)
        return own + (strength and strength * gap(world, p, rows, memory))

    return loss


def reweight(by):
    def loss(world, rows):
        odds = world.odds(by).float()
        return (odds[rows] / odds.mean() * world.forward(rows)[0]).mean()

    return loss


def focal(gamma):
    def loss(world, rows):
        ce, p = world.forward(rows)
        return ((1 - p) ** gamma * ce).mean()

    return loss


def loss_variance(kind, memory=0, strength=1.0):
    def loss(world, rows):
        ce, _ = world.forward(rows)
        parts = list(means(world, ce, rows, memory).values())
        if len(parts) < 2:
            return ce.mean()
        middle = sum(parts) / len(parts)
        return ce.mean() + strength * sum((x - middle) ** 2 for x in parts) / (len(parts) - (kind == "sample"))

    return loss


def min_group(temperature=0.0, memory=0):
    def loss(world, rows):
        ce, _ = world.forward(rows)
        parts = means(world, ce, rows, memory)
        if not temperature:
            return torch.stack([*parts.values()]).max()
        counted = world.group if memory else world.group[rows]
        share = {g: float((counted == g).sum()) for g in parts}
        total = sum(share.values())
        return temperature * torch.log(sum(share[g] / total * torch.exp(x / temperature) for g, x in parts.items()))

    return loss


def group_dro(by="group", balanced=True, adjustment=0.0, step_size=0.01, memory=0):
    def loss(world, rows):
        cell = world.cells(by)
        size = torch.bincount(cell).double()
        q = world.memory.get("q", [1 / len(size)] * len(size))
        drawn = torch.full_like(size, 1 / len(size)) if balanced else size / ROWS
        losses = means(world, world.forward(rows)[0], rows, memory, cell, drawn)
        grown = [
            old
            * math.exp(
                step_size * (float(losses[g].detach() if g in losses else 0.0) + adjustment / math.sqrt(size[g]))
            )
            for g, old in enumerate(q)
        ]
        world.memory["q"] = q = [one / sum(grown) for one in grown]
        return sum(q[g] * one for g, one in losses.items())

    return loss


def entropic(x, y, blur):
    """Entropic transport at half the squared distance: the plan by scaling a kernel's rows and columns, then its
    value ⟨P, C⟩ + ε KL(P, uniform), whose slope is that of C under the plan.
    """
    cost = (x[:, None] - y) ** 2 / 2
    fixed, n, m = cost.detach(), len(x), len(y)
    kernel = torch.exp(-fixed / blur**2) / (n * m)
    left, right = torch.ones(n, dtype=x.dtype), torch.ones(m, dtype=x.dtype)
    for _ in range(2000):
        left = 1 / n / (kernel @ right)
        right = 1 / m / (kernel.T @ left)
    plan = left[:, None] * kernel * right
    return (plan * cost).sum() + blur**2 * (plan * torch.log(plan * n * m)).sum()


def line(x, y):
    """Half the squared distance of two samples on a line: each value repeated to make them equally many, sorted."""
    many = math.lcm(len(x), len(y))
    left, right = (z.repeat_interleave(many // len(z)).sort().values for z in (x, y))
    return ((left - right) ** 2).mean() / 2


def sinkhorn(strength=1.0, blur=0.0):
    def distance(x, y):
        if not blur:
            return line(x, y)
        return entropic(x, y, blur) - entropic(x, x, blur) / 2 - entropic(y, y, blur) / 2

    def loss(world, rows):
        ce, p = world.forward(rows)
        parts = [p[world.group[rows] == g].double() for g in set(world.group[rows].tolist())]
        return ce.mean() + strength * sum(distance(p.double(), own) for own in parts).float()

    return loss


def _cases():
    yield Case("vanilla", plain)
    yield from (Case("resample", plain, {"by": by}, by) for by in ("group", "class", "group-class"))
    yield from (Case("reweight", reweight(by), {"by": by}) for by in ("group", "class", "group-class"))
    yield from (Case("focal", focal(gamma), {"gamma": gamma}) for gamma in (2.0, 0.5))
    for memory in (0, 5):
        told = {"memory": memory} if memory else {}
        yield Case("fr", fr(memory=memory), told)
        yield Case("loss-variance", loss_variance("population", memory), told)
        yield Case("min-group", min_group(memory=memory), told)
        yield Case("min-group", min_group(0.3, memory), {"temperature": 0.3, **told})
        yield Case("group-dro", group_dro(memory=memory), told, "group")
    yield Case("loss-variance", loss_variance("sample"), {"variance": "sample"})
    for reading in ("per-sample", "equation", "micro-mean", "group-mean"):
        told = {"reading": reading}
        yield Case("gr", gr(reading), told)
        yield Case("gr", gr(reading, "group-class"), {**told, "by": "group-class"})
        yield Case("gr", gr(reading, normalise=False), {**told, "normalise": False})
        yield Case("hybrid", gr(reading, strength=0.5), told)
    yield Case("gr", gr(cap=2.0), {"cap": 2.0})
    yield Case("hybrid", gr(by="group-class", strength=0.5), {"by": "group-class"})
    yield Case("hybrid", gr(normalise=False, strength=2.0), {"normalise": False, "strength": 2.0})
    yield Case("hybrid", gr(strength=0.5, memory=5), {"memory": 5})
    told = {"by": "group-class", "step_size": 0.5, "adjustment": 2.0}
    yield Case("group-dro", group_dro("group-class", True, 2.0, 0.5), told, "group-class")
    yield Case("group-dro", group_dro(balanced=False, step_size=0.5), {"balanced": False, "step_size": 0.5})
    yield Case("fairclip-sinkhorn", sinkhorn())
    yield Case("fairclip-sinkhorn", sinkhorn(blur=0.3), {"blur": 0.3})


CASES = tuple(_cases())


def trained(method, settings=None, **options):
    """A training by fairbench, and the loss of every step that descends one."""
    losses = []

    class Told(method):
        """The same, telling its losses."""

        def step(self, run, batch):
            before = run.last_loss
            super().step(run, batch)
            if run.last_loss != before:  # else it only looked
                losses.append(run.last_loss)

    return train(Told, settings, **options), losses


def same(label, ours, alone, earlier=()):
    """Assert that losses and weights are an independent training's, `earlier` losses first; note how far apart."""
    outcome, told = ours
    losses = max(abs(a - b) for a, b in zip(told, [*earlier, *alone.losses], strict=True))
    weights = alone.difference(outcome)
    MEASURED.append((label, len(told), losses, weights))
    assert losses < LOSSES
    assert weights < SAME


def repeat(case):
    """Train by fairbench and by the case's own equation, and assert that they are the same."""
    world = World()
    odds = None if case.by is None else world.odds(case.by)
    world.alone.train(lambda rows, *_: case.loss(world, rows), STAGE, odds=odds)
    same(case.label, trained(METHODS[case.method], case.settings), world.alone)
