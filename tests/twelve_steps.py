"""Twelve optimizer steps of every method whose training is a loss, an order of rows, or both, beside steps that
share no code with it: `python tests/twelve_steps.py` prints how far the losses and the weights are apart.

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
SAME = 3e-7  # float32, summed in another order
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
    """The toy's training rows, what a method may remember, and the losses it descended."""

    def __init__(self):
        self.alone, self.losses, self.memory = Independent(), [], {}
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


def weighted(world, ce, rows, reading, by, normalise, cap=10.0):
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


def gr(reading="per-sample", by="group", normalise=True, strength=0.0):
    def loss(world, rows):
        ce, p = world.forward(rows)
        return weighted(world, ce, rows, reading, by, normalise) + (strength and strength * gap(world, p, rows, 0))

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


def sinkhorn(strength=1.0):
    """Half the squared distance of two samples on a line: each value repeated to make them equally many, sorted."""

    def loss(world, rows):
        ce, p = world.forward(rows)
        total = 0.0
        for g in set(world.group[rows].tolist()):
            own = p[world.group[rows] == g]
            many = math.lcm(len(p), len(own))
            left, right = (z.repeat_interleave(many // len(z)).sort().values for z in (p, own))
            total = total + ((left - right) ** 2).mean() / 2
        return ce.mean() + strength * total

    return loss


def _cases():
    yield Case("vanilla", plain)
    yield from (Case("resample", plain, {"by": by}, by) for by in ("group", "class", "group-class"))
    yield from (Case("reweight", reweight(by), {"by": by}) for by in ("group", "class", "group-class"))
    yield Case("focal", focal(2.0))
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
    told = {"by": "group-class", "step_size": 0.5, "adjustment": 2.0}
    yield Case("group-dro", group_dro("group-class", True, 2.0, 0.5), told, "group-class")
    yield Case("group-dro", group_dro(balanced=False, step_size=0.5), {"balanced": False, "step_size": 0.5})
    yield Case("fairclip-sinkhorn", sinkhorn())


CASES = tuple(_cases())


def apart(case):
    """The largest difference of a step's loss and of a weight after twelve steps from a training by fairbench."""
    world, told = World(), []

    class Told(METHODS[case.method]):
        """The same, telling its losses."""

        def loss(self, out, batch):
            loss = super().loss(out, batch)
            told.append(float(loss.detach()))
            return loss

    def loss(rows, *_):
        own = case.loss(world, rows)
        world.losses.append(float(own.detach()))
        return own

    world.alone.train(loss, STAGE, odds=None if case.by is None else world.odds(case.by))
    outcome = train(Told, case.settings)
    losses = max(abs(a - b) for a, b in zip(told, world.losses, strict=True))
    return len(told), losses, world.alone.difference(outcome)


if __name__ == "__main__":
    for one in CASES:
        count, losses, weights = apart(one)
        print(f"{one.label:60} {count} steps, losses {losses:.1e}, weights {weights:.1e}")
