"""What a probe reads from a job's hidden states, and whether a record already holds it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from fairbench.jobs.job import Record

Layer = Literal["first", "middle", "last"]
Tokens = Literal["image", "text", "all"]


@dataclass(frozen=True)
class Probe:
    """Which hidden states to read: the mean over some tokens of the first, middle or last layer."""

    layer: Layer = "middle"
    tokens: Tokens = "image"


def wants_probe(record: Record, probe: Probe | None) -> bool:
    """Whether a finished job still lacks what this probe asks."""
    if probe is None or record.failed:
        return False
    probed = record.readable
    return probed is None or any({**entry, **asdict(probe)} != entry for entry in probed.values())
