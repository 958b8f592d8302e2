"""What is read out of a decoder's hidden states: pooled vectors for methods, the loss of written answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from fairbench.models.batch import Inputs, States, last_position


def pool(hidden: Sequence[Tensor], inputs: Inputs, image_token_id: int, reads: States) -> Tensor:
    """Return (B, depths, D) from depth+1 states of (B, T, D), the embeddings first.

    A row without such tokens as are asked for is pooled over all its real ones.
    """
    real = inputs["attention_mask"].bool()
    image = (inputs["input_ids"] == image_token_id) & real
    last = functional.one_hot(last_position(inputs["attention_mask"]), real.shape[1]).bool()
    mask = {"image": image, "text": real & ~image, "all": real, "last": last}[reads.tokens]
    if not reads.ends:
        place = real.cumsum(1)
        mask = mask & (place > 1) & (place < place[:, -1:])
    mask = mask | (real & ~mask.any(1, keepdim=True))
    if reads.pool == "random-token":
        chosen = (inputs["token_draw"] * mask.sum(1)).long()
        mask = mask & (mask.cumsum(1) - 1 == chosen[:, None])
    weight = mask.float() / mask.sum(1, keepdim=True)
    picked = [hidden[min(math.floor(len(hidden) * depth), len(hidden) - 1)] for depth in reads.depths]
    states = torch.stack([torch.einsum("bt,btd->bd", weight, state.float()) for state in picked], 1)
    return functional.normalize(states, dim=-1) if reads.normalise else states


def answered(
    hidden: Tensor, inputs: Inputs, vocabulary_scores: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return each answer's mean loss and mean probability per token, (B,), and no class scores, (B, 0).

    Only the answers' positions reach the vocabulary, which is far wider than the hidden states.
    """
    mask = inputs["answer_mask"]
    row, place = mask.nonzero(as_tuple=True)
    scores = vocabulary_scores(hidden[row, place - 1]).float()
    log_p = scores.log_softmax(-1).gather(1, inputs["input_ids"][mask][:, None]).squeeze(1)
    empty, count = torch.zeros(mask.shape, device=hidden.device), mask.sum(1)
    loss = empty.masked_scatter(mask, -log_p).sum(1) / count
    p_true = empty.masked_scatter(mask, log_p.exp()).sum(1) / count
    return loss, p_true, hidden.new_zeros(len(mask), 0, dtype=torch.float32)
