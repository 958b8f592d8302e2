"""CORAL and MMD: the groups' hidden states are distributed alike."""

from itertools import combinations
from typing import Literal

import torch
from torch import Tensor

from fairbench import Batch, Fraction, Method, NonNegative, Run, States, hookimpl

WIDTHS = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)  # of the Gaussian kernels, per squared distance


def mean_and_covariance(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared difference of the means, and of the covariances, of samples (n, D) and (m, D)."""
    return (x.mean(0) - y.mean(0)).square().mean() + (x.T.cov() - y.T.cov()).square().mean()


def gaussian(x: Tensor, y: Tensor) -> Tensor:
    """Squared maximum mean discrepancy of samples (n, D) and (m, D) under a sum of Gaussian kernels, ≥ 0."""

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        squared = (a[:, None] - b).square().sum(-1)
        return torch.stack([(-width * squared).exp().mean() for width in WIDTHS]).sum()

    return kernel(x, x) + kernel(y, y) - 2 * kernel(x, y)


class CORAL(Method):
    """Add the distance between the pooled hidden states of every two groups in the batch, averaged over pairs:
    of means and covariances (deep CORAL: Sun & Saenko 2016, arXiv 1607.01719), or MMD with Gaussian kernels
    (Gretton et al. 2012; Li et al. 2018), as DomainBed joins them (arXiv 2007.01434).
    """

    name = "coral"
    plain_at = {"strength": 0.0}
    strength: NonNegative = 1.0
    distance: Literal["covariance", "mmd"] = "covariance"
    depth: Fraction = 1.0
    tokens: Literal["image", "text", "all", "last"] = "last"

    def step(self, run: Run, batch: Batch) -> None:
        """Mean CE + strength · mean distance over pairs of groups with two patients or more."""
        out = run.forward(batch, States((self.depth,), self.tokens))
        assert out.states is not None
        groups = [out.states[batch.group == group, 0] for group in range(batch.n_groups)]
        pairs = list(combinations([states for states in groups if len(states) > 1], 2))
        batch.notes["active"] = float(bool(pairs))
        apart = {"covariance": mean_and_covariance, "mmd": gaussian}[self.distance]
        total = sum((apart(*pair) for pair in pairs), out.loss.sum() * 0.0)
        run.descend(out.loss.mean() + self.strength * total / max(len(pairs), 1))


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer the method."""
    return [CORAL]
