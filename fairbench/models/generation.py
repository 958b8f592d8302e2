"""Greedy decoding of a batch that gives the same text as one example at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from fairbench.models.batch import Inputs
from fairbench.models.sharding import anywhere


@torch.no_grad()
def greedy(backbone: Any, inputs: Inputs, limit: int) -> list[list[int]]:
    """Let a Backbone answer prompts stacked `prompt_only`, token by token up to an end token or `limit` tokens.

    Prompts are padded on the left and positions count real tokens only, so neither the size of a batch
    nor its longest member changes anybody's answer. Image tokens are never written.
    """
    from transformers import DynamicCache

    cache, inputs = DynamicCache(), dict(inputs)
    features = backbone.features(inputs)
    start, ids = inputs["input_ids"].shape[1], inputs["input_ids"]
    ends = torch.tensor(sorted(backbone.end_token_ids), device=ids.device)
    going = torch.ones(len(ids), dtype=torch.bool, device=ids.device)
    for _ in range(limit):
        with backbone.precision(going.device):
            hidden = backbone.decode(inputs, features, cache=cache)[-1]
            scores = backbone.vocabulary_scores(hidden[:, -1]).float()
        scores[:, backbone.image_token_id] = -math.inf
        token = scores.argmax(-1).where(going, ends[0])
        inputs["input_ids"] = torch.cat([inputs["input_ids"], token[:, None]], 1)
        inputs["attention_mask"] = torch.cat([inputs["attention_mask"], going[:, None].long()], 1)
        going &= ~torch.isin(token, ends)
        if not anywhere(backbone.mesh, going):
            break
    written: list[list[int]] = inputs["input_ids"][:, start:].tolist()
    return written


def before_end(ids: Sequence[int], ends: Iterable[int]) -> list[int]:
    """Return what stands before the first end token, or everything where there is none."""
    stops = set(ends)
    return list(ids[: next((place for place, token in enumerate(ids) if token in stops), len(ids))])
