"""Balancing groups in a loss: weights by inverse frequency, and group means that outlast a batch.

Both stand for expectations over the training rows. A ratio within a batch, such as the mean of a group
that may be absent, is not an unbiased estimate of one; docs/methods.md says by how much.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from fairbench.models.batch import Batch, By, Rows

Reading = Literal["per-sample", "equation", "micro-mean", "group-mean"]
MICRO = 2  # the glaucoma paper's micro-batch (arXiv 2512.03477, section 4.3)


class InverseFrequency(nn.Module):
    """Weigh the rows of cell c (a group, or a group × class) by w_c = min(N / N_c, cap), counted on the
    training rows (arXiv 2512.03477, eq. 8).

    `per-sample` multiplies each row's loss by w_c. `equation` multiplies it by w_c · N/N_c, whose expectation
    is eq. 8's Σ_c w_c · E[loss in c]. `group-mean` takes the means over the batch's own members of c in
    eq. 8, `micro-mean` those of every two rows, then the mean over such pairs. `normalise` divides by the
    average of the loss where every row's is 1. Rows of no cell count as the average row per sample, else not.
    """

    weight: Tensor  # (cells + 1,), rows of no cell last
    cell: Tensor  # (N,), the cell of every training row, -1 for none

    def __init__(self, train: Rows, by: By, cap: float, reading: Reading, normalise: bool, batch_size: int) -> None:
        super().__init__()
        cell, names = train.cells(by)
        count = torch.bincount(cell[cell >= 0], minlength=len(names)).double()
        weight = (count.sum() / count).clamp(max=cap).where(count > 0, 0.0)
        if reading == "equation":
            weight = (weight * len(cell) / count).where(count > 0, 0.0)
        average = (weight * count).sum() / count.sum() if reading == "per-sample" else weight.new_zeros(())
        weight = torch.cat([weight, average[None]])
        self.size = min({"micro-mean": MICRO, "group-mean": batch_size}.get(reading, 1), len(cell))
        if normalise:
            rows = torch.cat([count, (cell < 0).sum()[None]])
            absent = torch.ones_like(rows)  # the odds that none of `size` different rows is of the cell
            for drawn in range(self.size):
                absent = absent * (len(cell) - rows - drawn).clamp_min(0) / (len(cell) - drawn)
            weight = weight / (weight * (1 - absent)).sum()
        self.register_buffer("weight", weight.float())
        self.register_buffer("cell", cell)

    def multipliers(self, row: Tensor) -> Tensor:
        """Return what the loss of each of these training rows, a batch (B,), is multiplied by before the mean."""
        cell = self.cell[row]
        piece = torch.arange(len(row), device=row.device) // self.size
        alike = (cell[:, None] == cell) & (piece[:, None] == piece)
        # Their weight over the mean of its kind in the piece; pieces, the last maybe smaller, count alike.
        return self.weight[cell] / alike.sum(1) * (len(row) / (piece[-1] + 1))

    def forward(self, losses: Tensor, batch: Batch) -> Tensor:
        """Return the weighted loss of a batch from its (B,) losses."""
        return (self.multipliers(batch.row).to(losses) * losses).mean()


class GroupMeans(nn.Module):
    """The mean of a value in each group, (n_groups,), NaN where it is not known.

    With `memory` 0 it is the mean over the batch's members. Above, its value is the mean over about the last
    `memory` batches, and its gradient Σ_i (member of s) · value_i / (B · odds_s), whose expectation is the
    gradient of the group's mean over the training rows, whichever groups a batch happens to hold. `odds`
    (n_groups,) are those that a drawn row is of each group.
    """

    total: Tensor
    count: Tensor
    odds: Tensor

    def __init__(self, odds: Tensor, memory: int) -> None:
        super().__init__()
        self.memory = memory
        self.register_buffer("odds", odds.float())
        self.register_buffer("total", torch.zeros_like(self.odds))
        self.register_buffer("count", torch.zeros_like(self.odds))

    def forward(self, values: Tensor, batch: Batch) -> Tensor:
        """Return the means of (B,) `values`; with a memory, after adding this batch to it."""
        if not self.memory:
            return batch.by_group(values)
        member = functional.one_hot(batch.group.clamp_min(0), batch.n_groups) * (batch.group >= 0)[:, None]
        keep = 1 - 1 / self.memory
        self.total = keep * self.total + values.detach().float() @ member.float()
        self.count = keep * self.count + member.sum(0)
        # The odds of a group without training rows are 0, and 0/0 would put NaN into every gradient.
        unbiased = (values @ member.to(values)) / (len(values) * self.odds.clamp_min(1e-9))
        return (self.total / self.count).to(values) + (unbiased - unbiased.detach())
