"""Jobs and records: one training or inference to run, and what it leaves behind."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from fairbench.errors import FairbenchError
from fairbench.settings import Count, NonNegative, Positive, Range, checked, convert

Decay = Literal["constant", "linear", "cosine"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Stage:
    """A stretch of training: which parts learn, for how long, how fast.

    `lr` is AdamW's peak learning rate; `lr_scale` multiplies it for single parts; `warmup` counts
    optimizer steps of linear warm-up, after which `decay` takes the rate towards zero (or does not).
    `split` is where the rows come from; only a method's own plan may spend the validation split.
    """

    name: str = "lora"
    train: tuple[str, ...] = ("lora", "head")
    epochs: Positive = 3.0
    lr: Positive = 1e-4
    lr_scale: dict[str, float] = field(default_factory=dict)
    warmup: Annotated[int, Range(0)] = 100
    decay: Decay = "linear"
    weight_decay: NonNegative = 0.0
    clip: Positive = 1.0
    split: Literal["train", "val"] = "train"

    def __post_init__(self) -> None:
        for name in ("epochs", "lr", "weight_decay", "clip"):  # 3 and 3.0 are one stage, with one key
            object.__setattr__(self, name, float(getattr(self, name)))
        object.__setattr__(self, "lr_scale", {part: float(factor) for part, factor in self.lr_scale.items()})

    @classmethod
    def read(cls, values: Mapping[str, Any], where: str = "stage") -> Stage:
        """Build a stage from a TOML table or JSON object, refusing unknown keys and bad values."""
        if not isinstance(values, Mapping):
            raise FairbenchError(f"{where} must be a table, not {values!r}", "write [[stages]] above its keys")
        plain = {key: value for key, value in values.items() if key != "lr_scale"}
        scale = values.get("lr_scale", {})
        if not isinstance(scale, Mapping):
            raise FairbenchError(f"{where}.lr_scale must be a table of part = factor")
        scales = {part: convert(factor, NonNegative, f"{where}.lr_scale.{part}") for part, factor in scale.items()}
        return cls(**checked(cls, plain, where), lr_scale=scales)


@dataclass(frozen=True)
class Choice:
    """One plugin by name, with the settings that were chosen for it and the version that provides it."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    version: str = ""
    fingerprint: str = ""

    @property
    def label(self) -> str:
        """The name, with the settings that differ from the defaults: `name(strength=0.1)`."""
        chosen = ", ".join(f"{key}={value}" for key, value in sorted(self.settings.items()))
        return f"{self.name}({chosen})" if chosen else self.name


@dataclass(frozen=True)
class Job:
    """One training or one inference, described by everything that can change its predictions.

    `attributes` is empty for a method that does not use any: one training serves all attributes.
    Micro-batch and process count are not part of a job, because exact batches make them irrelevant.
    """

    dataset: Choice
    backbone: Choice
    method: Choice
    stages: tuple[Stage, ...]
    attributes: tuple[str, ...] = ()
    seed: int = 0
    batch_size: Count = 8
    precision: Precision = "float32"
    unrecorded: str = "keep"
    select: str = "last"

    @property
    def key(self) -> str:
        """Sixteen hexadecimal digits: equal keys mean the same experiment."""
        text = json.dumps(asdict(self), sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def title(self) -> str:
        """What a person calls this job."""
        on = f" on {'+'.join(self.attributes)}" if self.attributes else ""
        return f"{self.method.label}{on} · {self.backbone.name} · {self.dataset.name} · seed {self.seed}"

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready object from which `from_json` makes the same job."""
        return {"key": self.key, **json.loads(json.dumps(asdict(self)))}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Job:
        """Rebuild a job; raises FairbenchError when the object is not one or its key disagrees."""
        try:
            values = dict(data)
            key = values.pop("key")
            for name in ("dataset", "backbone", "method"):
                values[name] = Choice(**values[name])
            values["stages"] = tuple(Stage.read(stage) for stage in values["stages"])
            values["attributes"] = tuple(values["attributes"])
            job = cls(**values)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise FairbenchError(f"this is not a job that this version wrote: {error}") from error
        if job.key != key:
            raise FairbenchError(f"job {key} does not match its own content", "the file was edited; run it again")
        return job


@dataclass(frozen=True)
class Record:
    """What a job leaves beside its predictions: how it went, what it cost, what it ran on.

    Times are seconds, memory is bytes, `error` is None for a job that finished. `facts` holds what
    the run found out (group counts, share of active steps …); `versions` the software it ran on.
    """

    job: Job
    started: str
    seconds: Mapping[str, float] = field(default_factory=dict)
    steps: int = 0
    peak_memory: int = 0
    trainable_parameters: int = 0
    total_parameters: int = 0
    device: str = ""
    processes: int = 1
    micro_batch: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    error: str | None = None

    @property
    def failed(self) -> bool:
        """Whether the job ended in an error."""
        return self.error is not None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready object from which `from_json` makes the same record."""
        values = {key: getattr(self, key) for key in self.__dataclass_fields__ if key != "job"}
        # A fact that is not a number (a method may note one) is null in JSON, which has no NaN.
        plain = json.loads(json.dumps(values, default=str), parse_constant=lambda _: None)
        return {"job": self.job.to_json(), **plain}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Record:
        """Rebuild a record; raises FairbenchError when the object is not one."""
        try:
            values = {**data, "job": Job.from_json(data["job"]), "warnings": tuple(data.get("warnings", ()))}
            return cls(**values)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise FairbenchError(f"this is not a record that this version wrote: {error}") from error
