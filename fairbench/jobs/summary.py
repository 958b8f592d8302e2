"""What `status`, `leaderboard` and `plan` must know of every job of a folder: a few fields of its record."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from fairbench.jobs.conversion import departures
from fairbench.jobs.job import Job, Record


@dataclass(frozen=True)
class Summary:
    """A finished or failed job: `digest` is its record's SHA-256, `predictions` that of its predictions file.

    `place` says which tables it may stand in (dataset, backbone, policy for unrecorded values, folds); `kind` is
    equal for jobs whose steps cost the same (data, backbone, batch size), `rate` the seconds that one took,
    `answering` those of all answers, and `memory` the peak in bytes.
    """

    key: str
    title: str
    error: str | None
    place: tuple[str, str, str, int]
    attributes: tuple[str, ...]
    digest: str
    predictions: str
    kind: str
    rate: float | None
    answering: float
    memory: int

    @classmethod
    def of(cls, record: Record, digest: str, predictions: str) -> Self:
        """Summarise a record whose bytes have this SHA-256."""
        job = record.job
        timed = record.steps and not record.failed
        return cls(
            job.key,
            job.title,
            record.error,
            place(job),
            job.attributes,
            digest,
            predictions,
            kind(job),
            record.seconds["train"] / record.steps if timed else None,
            record.seconds.get("predict", 0.0),
            record.peak_memory,
        )

    def to_bytes(self) -> bytes:
        """Write as JSON."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what `to_bytes` wrote."""
        values: dict[str, Any] = json.loads(data)
        return cls(**{**values, "place": tuple(values["place"]), "attributes": tuple(values["attributes"])})


@dataclass(frozen=True)
class Refused:
    """A record (or a begun job's description) that cannot be believed, why, and whose it is if that is known."""

    path: Path
    reason: str
    job: Job | None = None

    @property
    def key(self) -> str:
        """The key of the job whose folder this is."""
        return self.path.parent.name

    def __str__(self) -> str:
        return f"{self.path} is refused: {self.reason}"


@dataclass(frozen=True)
class Overview:
    """What a folder of runs holds, in the order of keys: by key what ended, and what could not be believed.

    `refused` are records, `unclear` the descriptions of jobs that were begun and have no record.
    """

    ended: Mapping[str, Summary] = field(default_factory=dict)
    begun: tuple[Job, ...] = ()
    refused: Mapping[str, Refused] = field(default_factory=dict)
    unclear: tuple[Refused, ...] = ()


def place(job: Job) -> tuple[str, str, str, int]:
    """Say which tables a job may stand in: dataset, backbone, policy for unrecorded values, folds."""
    return job.dataset.label, job.backbone.label, job.unrecorded, job.folds


def kind(job: Job) -> str:
    """Return what is equal for jobs whose steps cost the same: data, backbone and batch size."""
    parts = [job.dataset.name, departures(job.backbone), job.batch_size]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]
