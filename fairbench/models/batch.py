"""What a method sees: the training rows, a batch of them, and what the model made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from fairbench.errors import FairbenchError

Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class States:
    """Which hidden states a method wants: pooled, per example, shape (B, len(depths), D).

    `depths` are shares of the decoder's depth (0 the embeddings, 1 the final normalised state), so
    that models of different depth agree; `tokens` names the positions to pool over, `last` being the one that
    the readout reads; `ends` False leaves out an example's first and last real one.
    """

    depths: tuple[float, ...] = (0.5,)
    tokens: Literal["image", "text", "all", "last"] = "image"
    pool: Literal["mean", "random-token"] = "mean"
    normalise: bool = False
    ends: bool = True


@dataclass
class Batch:
    """One effective batch, whole: whatever the micro-batch or the number of processes.

    `target` and `group` are (B,) integers, -1 where not recorded; `attributes` has one such tensor
    for each attribute; `row` is each example's position among the rows that the stage draws from.
    `examples` are the rows that this process computes, from position `start` on; with a `partner`, each image
    is blended with one of another batch. What a method puts into `notes` is averaged over the steps and kept
    in the record.
    """

    row: Tensor
    target: Tensor
    group: Tensor
    attributes: dict[str, Tensor]
    n_groups: int
    examples: Sequence[Mapping[str, Tensor]] = ()
    start: int = 0
    notes: dict[str, float] = field(default_factory=dict)
    partner: tuple[Batch, Tensor] | None = None

    def mixed(self, other: Batch, share: Tensor) -> Batch:
        """Return this batch with every image's features blended: share (B,) · its own + (1 − share) · the other's.

        Prompts, targets and groups stay this batch's. `other` is of the same length, as `run.batch` makes it.
        """
        if len(other.row) != len(self.row):
            raise FairbenchError(
                f"a batch of {len(self.row)} cannot be mixed with one of {len(other.row)}",
                "each example needs one partner: run.batch(rows) with as many rows",
            )
        return replace(self, partner=(other, share))

    def by_group(self, values: Tensor) -> Tensor:
        """Return the mean of (B,) `values` in each group, (n_groups,), NaN where the batch lacks it."""
        member = functional.one_hot(self.group.clamp_min(0), self.n_groups) * (self.group >= 0)[:, None]
        count = member.sum(0)
        means = (member.to(values.dtype).T @ values) / count.clamp_min(1)
        # Dividing by NaN instead would put NaN into the gradient of the groups that are there.
        return means.where(count > 0, torch.nan)

    def gap(self, values: Tensor) -> Tensor:
        """Return the largest group mean of (B,) `values` minus the smallest; 0 with fewer than two groups."""
        means = self.by_group(values)
        means = means[~means.isnan()]
        return means.max() - means.min() if len(means) > 1 else values.sum() * 0.0


@dataclass
class Outputs:
    """What a forward pass yields, per example and never averaged: shapes (B,), (B,), (B, C), (B, K, D).

    Where answers are written, `loss` and `p_true` are the means over the reference's tokens of their
    loss and of their probability (soft accuracy), and there are no class scores: (B, 0).
    """

    loss: Tensor
    p_true: Tensor
    scores: Tensor
    states: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that are there, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


By = Literal["group", "class", "group-class"]


@dataclass(frozen=True)
class Rows:
    """The training rows as a method may see them: who they are and what their answer is, no images.

    Tensors are (N,) integers, -1 where not recorded; `groups` names the values of `group`. `prompts` are
    each row's question; where answers are written, `references` are its answers, else there are none.
    """

    target: Tensor
    group: Tensor
    groups: tuple[str, ...]
    attributes: Mapping[str, Tensor]
    values: Mapping[str, tuple[str, ...]]
    classes: tuple[str, ...]
    prompts: tuple[str, ...] = ()
    references: tuple[str, ...] = ()

    @property
    def counts(self) -> Tensor:
        """Rows in each group, (n_groups,)."""
        return torch.bincount(self.group[self.group >= 0], minlength=len(self.groups))

    def cells(self, by: By) -> tuple[Tensor, tuple[str, ...]]:
        """Return each row's cell, (N,), -1 where not recorded, and the cells' names.

        Raises FairbenchError for cells of classes where answers are free text.
        """
        if by != "group" and not self.classes:
            raise FairbenchError(f"there are no classes to balance by {by}", "balance by group")
        if by == "group":
            return self.group, self.groups
        if by == "class":
            return self.target, self.classes
        known = (self.group >= 0) & (self.target >= 0)
        names = tuple(f"{group}×{label}" for group in self.groups for label in self.classes)
        return (self.group * len(self.classes) + self.target).where(known, -1), names

    def balance(self, by: By) -> Tensor:
        """Return (N,) weights of mean 1 that give every cell the same total; rows of no cell keep 1."""
        cell, _ = self.cells(by)
        known = cell >= 0
        weight = torch.ones(len(cell), dtype=torch.float64)
        _, index, count = torch.unique(cell[known], return_inverse=True, return_counts=True)
        weight[known] = known.sum() / (len(count) * count[index].double())
        return weight.float()


def last_position(mask: Tensor) -> Tensor:
    """Return where each row's last real token stands, (B,), whichever side is padded."""
    return (mask * torch.arange(mask.shape[1], device=mask.device)).argmax(1)


def last_token(hidden: Tensor, mask: Tensor) -> Tensor:
    """Return each row's hidden state at its last real token, (B, D)."""
    return hidden[torch.arange(len(hidden), device=hidden.device), last_position(mask)]


def text_positions(mask: Tensor) -> Tensor:
    """Return (B, T) positions that count real tokens only, so that padding shifts nothing."""
    return (mask.cumsum(1) - 1).clamp_min(0)
