"""Minimax group loss: descend the loss of the group that fares worst."""

from typing import Annotated

import torch
from torch import Tensor

from fairbench import Batch, GroupMeans, Method, NonNegative, Outputs, Range, Run, hookimpl


class MinGroup(Method):
    """Descend max_s L_s, the largest mean loss of the batch's groups (minimax group fairness: Martinez et al.
    2020, arXiv 2011.01821; Diana et al. 2021, arXiv 2011.03108). With a `temperature` τ the maximum is soft:
    τ · log Σ_s |B_s|/|B| · exp(L_s/τ) (tilted risk, Li et al. 2021, arXiv 2007.01162), the mean for large τ.
    With a `memory` the losses are those of about so many batches together, and so are the shares.
    """

    name = "min-group"
    temperature: NonNegative = 0.0
    memory: Annotated[int, Range(0)] = 0

    def setup(self, run: Run) -> None:
        """Count the groups."""
        self.means = GroupMeans(run.train.counts / len(run.train.group), self.memory)

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        """Return the (soft) maximum of the group means; 0 when no patient's group is recorded."""
        means = self.means(out.loss, batch)
        known = ~means.isnan()
        batch.notes["active"] = float(known.sum() > 1)
        if not known.any():
            return out.loss.sum() * 0.0
        if self.temperature == 0:
            return means[known].max()
        if self.memory:
            count = self.means.odds[known]
        else:
            count = torch.bincount(batch.group[batch.group >= 0], minlength=batch.n_groups)[known]
        share = count / count.sum()
        return self.temperature * (means[known] / self.temperature + share.log()).logsumexp(0)


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer the method."""
    return [MinGroup]
