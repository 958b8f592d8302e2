"""Group DRO: weigh groups by how badly they have fared so far."""

from dataclasses import replace
from typing import Annotated, Literal

import torch
from torch import Tensor

from fairbench import Batch, GroupMeans, Method, NonNegative, Outputs, Range, Run, hookimpl


class GroupDRO(Method):
    """Descend Σ_g q_g · L_g, where q_g grows by exp(step_size · L_g) and is normalised in every step
    (Sagawa et al. 2020, arXiv 1911.08731, algorithm 1); `adjustment` C adds C/√n_g to the L_g that q sees
    (their eq. 5). With a `memory` a cell's loss is that of about so many batches together. The record notes
    the q of the last step.
    """

    name = "group-dro"
    step_size: NonNegative = 0.01
    adjustment: NonNegative = 0.0
    balanced: bool = True
    by: Literal["group", "group-class"] = "group"
    memory: Annotated[int, Range(0)] = 0

    @property
    def needs(self) -> tuple[str, ...]:
        """Classes, where cells are made of them."""
        return () if self.by == "group" else ("classes",)

    def setup(self, run: Run) -> None:
        """Start from equal weights for all cells that have training rows."""
        cell, self.names = run.train.cells(self.by)
        count = torch.bincount(cell[cell >= 0], minlength=len(self.names))
        even = (count > 0) / (count > 0).sum()
        drawn = even * count.sum() if self.balanced else count
        self.means = GroupMeans(drawn / len(cell), self.memory)
        self.register_buffer("cell", cell)
        self.register_buffer("q", even)
        self.register_buffer("bonus", self.adjustment / count.clamp_min(1).sqrt())

    def start_stage(self, run: Run) -> Tensor | None:
        """Draw all cells equally often, as algorithm 1 does, or each row once an epoch."""
        return run.train.balance(self.by) if self.balanced else None

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        """Σ_g q_g · L_g; a cell that is not known, without a memory one that the batch lacks, has the loss 0."""
        cells = replace(batch, group=self.cell[batch.row], n_groups=len(self.names))
        losses = self.means(out.loss, cells).nan_to_num(0.0)
        grown = self.q * (self.step_size * (losses.detach() + self.bonus)).exp()
        self.q = grown / grown.sum()
        return self.q @ losses

    def step(self, run: Run, batch: Batch) -> None:
        """Note the weights when the stage ends."""
        super().step(run, batch)
        if run.step + 1 == run.steps:
            batch.notes |= {f"q {name}": q for name, q in zip(self.names, self.q.tolist(), strict=True)}


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer the method."""
    return [GroupDRO]
