"""Minimax group loss: descend the loss of the group that fares worst."""

import torch
from torch import Tensor

from fairbench import Batch, Method, NonNegative, Outputs, hookimpl


class MinGroup(Method):
    """Descend max_s L_s, the largest mean loss of the batch's groups (minimax group fairness: Martinez et al.
    2020, arXiv 2011.01821; Diana et al. 2021, arXiv 2011.03108). With a `temperature` τ the maximum is soft:
    τ · log Σ_s |B_s|/|B| · exp(L_s/τ) (tilted risk, Li et al. 2021, arXiv 2007.01162), the mean for large τ.
    """

    name = "min-group"
    temperature: NonNegative = 0.0

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        """Return the (soft) maximum of the group means; 0 when no patient's group is recorded."""
        batch.notes["active"] = float(batch.present() > 1)
        means = batch.by_group(out.loss)
        there = ~means.isnan()
        if not there.any():
            return out.loss.sum() * 0.0
        if self.temperature == 0:
            return means[there].max()
        count = torch.bincount(batch.group[batch.group >= 0], minlength=batch.n_groups)[there]
        share = count / count.sum()
        return self.temperature * (means[there] / self.temperature + share.log()).logsumexp(0)


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer the method."""
    return [MinGroup]
