"""Fair mixup: the model's mean answer must not change on the way from one group to the other."""

import torch
from torch import Tensor

from fairbench import Batch, Count, Method, NonNegative, Run, hookimpl


class FairMixup(Method):
    """Blend images of two random groups, t · one + (1 − t) · the other, and penalise how much the mean score of the
    last class changes along t (Chuang & Mroueh 2021, arXiv 2103.06503, eq. 8: demographic parity). Where the paper
    differentiates by t at one random point, this adds up the changes between `points` + 1 random ones.
    """

    name = "fair-mixup"
    needs = ("classes",)
    plain_at = {"strength": 0.0}
    strength: NonNegative = 1.0
    points: Count = 1

    def setup(self, run: Run) -> None:
        """Know the members of each group that has training rows."""
        groups = range(len(run.train.groups))
        self.members = [rows for g in groups if len(rows := (run.train.group == g).nonzero().flatten())]

    def step(self, run: Run, batch: Batch) -> None:
        """Mean CE + strength · Σ |mean score at t_k − mean score at t_k−1|."""
        loss = run.forward(batch).loss.mean()
        if len(self.members) > 1 and self.strength:
            pair = torch.randperm(len(self.members), generator=run.generator)[:2].tolist()
            size = len(batch.row)
            one, other = (run.batch(self._some(self.members[group], size, run)) for group in pair)
            places = torch.rand(self.points + 1, generator=run.generator).sort().values
            means = [run.forward(one.mixed(other, t.expand(size))).scores.softmax(-1)[:, -1].mean() for t in places]
            loss = loss + self.strength * torch.stack(means).diff().abs().sum()
        run.descend(loss)

    def _some(self, members: Tensor, size: int, run: Run) -> Tensor:
        return members[torch.randint(len(members), (size,), generator=run.generator)]


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer the method."""
    return [FairMixup]
