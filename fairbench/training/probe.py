"""Read attributes from a trained backbone's hidden states, with a reader that the training never met."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from torch import Tensor

from fairbench.jobs.probe import Probe
from fairbench.models.backbone import Backbone
from fairbench.models.batch import States
from fairbench.predictions.groups import Groups, clusters
from fairbench.statistics.probe import Floats, Split, read
from fairbench.training.predict import BATCH, Places, shares

Examples = Sequence[Mapping[str, Tensor]]


def states_of(probe: Probe, depth: int) -> States:
    """Return the pooled states that a probe reads, of a decoder with `depth` layers."""
    share = {"first": 1.5 / (depth + 1), "middle": 0.5, "last": 1.0}[probe.layer]
    return States((share,), probe.tokens)


def pooled(
    accelerator: Accelerator,
    backbone: Backbone,
    reads: States,
    count: int,
    load: Callable[[list[Places]], Iterable[Examples]],
    report: Callable[[int, int], None],
    size: int = BATCH,
) -> Floats:
    """Compute pooled states of `count` rows, (count, D), as the model sees them: before any answer.

    Each process computes its share. `load` yields the examples at some places; `report(done, total)` counts
    batches of `size` rows.
    """
    backbone.train(False)
    device = next(backbone.parameters()).device
    pieces, idle = shares(accelerator, backbone, count, size)
    whole = torch.zeros(count, backbone.width, device=device)
    with torch.no_grad(), backbone.precision(device):
        for number, (piece, examples) in enumerate(zip(pieces, load(pieces), strict=True)):
            stacked = backbone.stack(examples, prompt_only=backbone.generates)
            inputs = {key: value.to(device) for key, value in stacked.items()}
            hidden = backbone.decode(inputs, backbone.features(inputs), every=True)
            if number < len(pieces) - idle:
                whole[torch.as_tensor(piece)] = backbone.pooled(hidden, inputs, reads)[:, 0].float()
            report(number + 1, len(pieces))
    if accelerator.num_processes > 1:
        whole = accelerator.reduce(whole, "sum")
    return whole.cpu().numpy().astype(np.float64)


def probed(
    probe: Probe, states: Mapping[str, Floats], tables: Mapping[str, pd.DataFrame], attributes: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Read every attribute from the states of train, val and test; JSON-ready, see statistics.probe."""
    everyone = pd.concat([tables[split] for split in states])
    ends = np.cumsum([len(tables[split]) for split in states])[:-1]
    cluster = np.split(clusters(everyone), ends)
    result = {}
    for attribute in attributes:
        groups = Groups.of(everyone, attribute, "drop")
        parts = zip(states.values(), np.split(groups.codes, ends), cluster, strict=True)
        train, val, test = (Split(*part) for part in parts)
        result[attribute] = {**asdict(probe), **read(train, val, test, groups.names)}
    return result
