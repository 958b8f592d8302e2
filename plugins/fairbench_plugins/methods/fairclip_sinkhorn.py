"""FairCLIP's fairness loss: bring each group's distribution of scores to that of the batch."""

import math

import torch
from torch import Tensor

from fairbench import Batch, Method, NonNegative, Outputs, Positive, hookimpl

SHRINK = 0.8  # by how much the blur shrinks from one iteration to the next, from 1 down to the one asked for


def transport(x: Tensor, y: Tensor, blur: float) -> Tensor:
    """Return the entropic cost of carrying sample x (n,) to y (m,) at ½(x − y)² and ε = blur², by Sinkhorn's
    iterations in log space. The gradient is that of the last iteration, which is the plan's.
    """
    cost = (x[:, None] - y) ** 2 / 2

    def soften(other: Tensor, cost: Tensor, epsilon: float) -> Tensor:
        return epsilon * (math.log(len(other)) - ((other - cost) / epsilon).logsumexp(1))

    fixed, f, g = cost.detach(), x.detach() * 0, y.detach() * 0
    rounds = max(1, math.ceil(math.log(blur) / math.log(SHRINK)))
    for width in [*(max(blur, SHRINK**k) for k in range(rounds)), *[blur] * 20]:
        moved = soften(g, fixed, width**2), soften(f, fixed.T, width**2)
        f, g = (f + moved[0]) / 2, (g + moved[1]) / 2
    return soften(g, cost, blur**2).mean() + soften(f, cost.T, blur**2).mean()


def divergence(x: Tensor, y: Tensor, blur: float) -> Tensor:
    """Return the Sinkhorn divergence of two samples on a line, 0 when they are equal (Feydy et al. 2019,
    arXiv 1810.08278, eq. 3). For a small blur it is half the squared Wasserstein distance.
    """
    x, y = x.double(), y.double()  # costs are divided by blur²
    return transport(x, y, blur) - transport(x, x, blur) / 2 - transport(y, y, blur) / 2


class FairCLIPSinkhorn(Method):
    """Add the Sinkhorn divergence between the batch's and each group's distribution of p(true answer):
    CE + strength · Σ_s S(batch, batch of s) (FairCLIP, arXiv 2403.19949, sec. 4). The authors' code divides the
    group's scores by their sum, but not the batch's; here both are the same scores, undivided.
    """

    name = "fairclip-sinkhorn"
    strength: NonNegative = 1.0
    blur: Positive = 0.01

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        """Mean CE + strength · Σ_s S; patients whose group is not recorded are in the mean only."""
        known = batch.group[batch.group >= 0]
        groups = torch.unique(known).tolist()
        batch.notes["active"] = float(len(groups) > 1)
        if len(groups) < 2:
            return out.loss.mean()
        every = out.p_true[batch.group >= 0]
        apart = torch.stack([divergence(every, every[known == group], self.blur) for group in groups]).sum()
        return out.loss.mean() + self.strength * apart.to(out.loss.dtype)


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer the method."""
    return [FairCLIPSinkhorn]
