"""One training for all methods that only adjust answers: what it left, where the next job finds it.

Such methods train what plain fine-tuning trains, whatever their settings and attributes, to the last bit. The first
in a folder of runs leaves a note there, under a hash of what the training rests on; the others take its weights
where these are still what the note says. A note that misleads costs a training, never a result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fairbench.errors import FairbenchError
from fairbench.jobs.conversion import checksum, from_json, read_json, to_json
from fairbench.jobs.job import Choice, Job
from fairbench.jobs.store import Store, digest, write_json
from fairbench.training.method import Method
from fairbench.training.selection import needs_groups

# What a method may do before its answers are adjusted; one that does none of it trains plainly.
TRAINING = ("view", "plan", "setup", "start_stage", "loss", "step", "end_stage", "answer_questions")


@dataclass(frozen=True)
class Training:
    """What a training left: the job whose folder has its weights, its steps and seconds, its notes and warnings for
    the record, the software and device that made it, and the SHA-256 of its files.
    """

    job: Job
    steps: int
    seconds: float
    facts: Mapping[str, Any]
    warnings: tuple[str, ...]
    made_by: Mapping[str, str]
    files: Mapping[str, str] = field(default_factory=dict)


def plain(method: type[Method]) -> bool:
    """Whether a method trains as plain fine-tuning does, and so has the weights of every other that does."""
    return all(getattr(method, verb) is getattr(Method, verb) for verb in TRAINING)


def training_of(job: Job, method: type[Method]) -> str | None:
    """Return what is equal for jobs that train the same weights, or None for one that trains its own."""
    return None if not plain(method) or needs_groups(job.select) else _name(job)


def _name(job: Job) -> str:
    return replace(job, method=Choice("plain"), attributes=(), unrecorded="").key


def leave(store: Store, name: str, training: Training) -> None:
    """Say whose the weights of a training are, and what is in their files, once these are there."""
    folder = store.adapter_folder(training.job)
    sealed = replace(training, files={file.name: digest(file) for file in sorted(folder.iterdir())})
    store.training_file(name).parent.mkdir(parents=True, exist_ok=True)
    written = to_json(sealed)
    write_json(store.training_file(name), {**written, "checksum": checksum(written)})


def find(store: Store, name: str, made_by: Mapping[str, str]) -> Training | None:
    """Return a training by the same software on the same device whose weights are here, whole; or None.

    A note or weights that cannot be believed are as good as none.
    """
    try:
        written = dict(read_json(store.training_file(name))[0])
        if written.pop("checksum", None) != checksum(written):
            return None
        training = from_json(Training, written)
        folder = store.adapter_folder(training.job)
        whole = all(digest(folder / Path(file).name) == sealed for file, sealed in training.files.items())
    except (FairbenchError, OSError, TypeError, ValueError):
        return None
    mine = _name(training.job) == name and training.made_by == dict(made_by)
    return training if whole and training.files and mine else None
