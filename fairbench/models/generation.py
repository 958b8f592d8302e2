"""Write answers: greedy decoding of a batch that gives the same text as one example at a time."""

from __future__ import annotations

import math

import torch

from fairbench.models.backbone import Backbone
from fairbench.models.batch import Inputs


@torch.no_grad()
def generate(backbone: Backbone, inputs: Inputs, limit: int) -> list[str]:
    """Answer prompts that were stacked `prompt_only`, token by token up to the end token or `limit` tokens.

    Prompts are padded on the left and positions count real tokens only, so neither the size of a batch
    nor its longest member changes anybody's text. Image tokens are never written.
    """
    from transformers import DynamicCache

    cache, inputs = DynamicCache(), dict(inputs)
    features = backbone.features(inputs)
    start, end = inputs["input_ids"].shape[1], backbone.end_token_id
    going = torch.ones(len(inputs["input_ids"]), dtype=torch.bool, device=inputs["input_ids"].device)
    for _ in range(limit):
        with backbone.precision(going.device):
            hidden = backbone.decode(inputs, features, cache=cache)[-1]
            scores = backbone.vocabulary_scores(hidden[:, -1]).float()
        scores[:, backbone.image_token_id] = -math.inf
        token = scores.argmax(-1).where(going, end)
        inputs["input_ids"] = torch.cat([inputs["input_ids"], token[:, None]], 1)
        inputs["attention_mask"] = torch.cat([inputs["attention_mask"], going[:, None].long()], 1)
        going &= token != end
        if not going.any():
            break
    texts = []
    for ids in inputs["input_ids"][:, start:].tolist():
        texts.append(backbone.detokenise(ids[: ids.index(end)] if end in ids else ids).strip())
    return texts
