"""FairCLIP's fairness loss: bring each group's distribution of scores to that of the batch."""

import math

import torch
from torch import Tensor

from fairbench import Batch, Method, NonNegative, Outputs, hookimpl

SHRINK = 0.95  # of the blur, from one iteration to the next: from 1 down to the one that was asked for


def transport(x: Tensor, y: Tensor, blur: float) -> Tensor:
    """Return the entropic cost of carrying the sample x (n,) to y (m,), at ½(x − y)² and ε = blur², by Sinkhorn's
    iterations in log space. Only the last is differentiated, which gives the cost's gradient under the plan.
    """

    def soften(other: Tensor, here: Tensor, there: Tensor, width: float) -> Tensor:
        kernel = (other - (here[:, None] - there) ** 2 / 2) / width**2
        return width**2 * (math.log(len(there)) - kernel.logsumexp(1))

    ends = x.detach(), y.detach()
    f, g = (end * 0 for end in ends)
    rounds = max(0, math.ceil(math.log(blur) / math.log(SHRINK)))
    for width in [*(SHRINK**k for k in range(rounds)), *[blur] * 20]:
        f = soften(g, *ends, width)
        g = soften(f, *ends[::-1], width)
    # Each of x and y is differentiated in its own half: in both, every gradient would count twice.
    return soften(g, x, ends[1], blur).mean() + soften(f, y, ends[0], blur).mean()


def wasserstein(x: Tensor, y: Tensor) -> Tensor:
    """Return half the squared Wasserstein distance of two samples on a line, (n,) and (m,): there the cheapest
    plan carries quantile to quantile (Santambrogio 2015, Optimal Transport for Applied Mathematicians, sec. 2.1).
    """
    n, m = len(x), len(y)
    steps = torch.arange(1, max(n, m) + 1, device=x.device)
    level = torch.cat([steps[:n] * m, steps[:m] * n]).sort().values  # in units of 1/(n·m), to be exact
    width = level.diff(prepend=level.new_zeros(1)).to(x) / (n * m)
    apart = x.sort().values[(level - 1) // m] - y.sort().values[(level - 1) // n]
    return (width * apart.square()).sum() / 2


def divergence(x: Tensor, y: Tensor, blur: float) -> Tensor:
    """Return the Sinkhorn divergence of two samples on a line, 0 when they are equal (Feydy et al. 2019,
    arXiv 1810.08278, eq. 3). Its limit for a blur of 0 has a closed form, and needs no iterations.
    """
    if blur == 0:
        return wasserstein(x, y)
    x, y = x.double().cpu(), y.double().cpu()  # costs are divided by blur², and small tensors are slow on a device
    return transport(x, y, blur) - transport(x, x, blur) / 2 - transport(y, y, blur) / 2


class FairCLIPSinkhorn(Method):
    """Add the Sinkhorn divergence between the batch's and each group's distribution of p(true answer):
    CE + strength · Σ_s S(batch, batch of s) (FairCLIP, arXiv 2403.19949, sec. 4). The authors' code divides the
    group's scores by their sum, but not the batch's; here both are the same scores, undivided.
    """

    name = "fairclip-sinkhorn"
    plain_at = {"strength": 0.0}
    strength: NonNegative = 1.0
    blur: NonNegative = 0.0

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        """Mean CE + strength · Σ_s S; patients whose group is not recorded are in the mean only."""
        known = batch.group[batch.group >= 0]
        groups = torch.unique(known).tolist()
        batch.notes["active"] = float(len(groups) > 1)
        if len(groups) < 2:
            return out.loss.mean()
        every = out.p_true[batch.group >= 0]
        apart = torch.stack([divergence(every, every[known == group], self.blur) for group in groups]).sum()
        return out.loss.mean() + self.strength * apart.to(out.loss)


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer the method."""
    return [FairCLIPSinkhorn]
