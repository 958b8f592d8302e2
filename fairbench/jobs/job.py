"""Jobs and records: one training or inference to run, and what it leaves behind."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, Self, TypeVar

from fairbench.errors import FairbenchError
from fairbench.jobs.conversion import checksum, departures, from_json, to_json
from fairbench.settings import Count, NonNegative, Positive, Range, checked, convert

# What a key is made of. A key leaves defaults out, so a changed default needs another number here.
SCHEMA = 2

PARTS = ("lora", "head", "projector", "vision")  # of a backbone, which a stage may train
Decay = Literal["constant", "linear", "cosine"]
Precision = Literal["float32", "bfloat16"]
READ = ("value", "low", "high", "auroc", "chance", "p")  # what a probe reads of an attribute
Role = Literal["contender", "baseline", "control", "reference"]
WARMUPS = 10  # times its warm-up that a stage of a recipe lasts at least: in fewer steps, little is learned
Steps = Annotated[int, Range(0)]
LeastSteps = Annotated[int, Range(0, 1_000_000)]
Epochs = Annotated[float, Range(0, 100_000, above=True)]


@dataclass(frozen=True)
class Stage:
    """A stretch of training: which parts learn, for how long, how fast.

    It lasts `epochs`, or as many whole ones as give `min_steps` optimizer steps where those would be fewer: a few
    hundred rows train as long as they must. `lr` is AdamW's peak learning rate; `lr_scale` multiplies it for
    single parts; `warmup` counts
    optimizer steps of linear warm-up, after which `decay` takes the rate towards zero (or does not).
    `split` is where the rows come from; only a method's own plan may spend the validation split.
    """

    name: str = "lora"
    train: tuple[str, ...] = ("lora", "head")
    epochs: Epochs = 3.0
    lr: Positive = 1e-4
    lr_scale: dict[str, float] = field(default_factory=dict)
    warmup: Steps = 100
    decay: Decay = "linear"
    weight_decay: NonNegative = 0.0
    clip: Positive = 1.0
    split: Literal["train", "val"] = "train"
    min_steps: LeastSteps = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "lr", "weight_decay", "clip"):  # 3 and 3.0 are one stage, with one key
            object.__setattr__(self, name, float(getattr(self, name)))
        object.__setattr__(self, "lr_scale", {part: float(factor) for part, factor in self.lr_scale.items()})

    def lasting(self, rows: int, batch_size: int) -> float:
        """Return the epochs that it lasts on some rows."""
        steps = max(1, -(-rows // batch_size))
        enough = round(self.epochs * steps) >= self.min_steps
        return self.epochs if enough else float(-(-self.min_steps // steps))

    def steps(self, rows: int, batch_size: int) -> int:
        """Return the optimizer steps that it takes on some rows."""
        return max(1, round(self.lasting(rows, batch_size) * -(-rows // batch_size)))

    def fitted(self, rows: int, batch_size: int) -> Stage:
        """Return the same stage, lasting WARMUPS times its warm-up where so few rows would end it sooner."""
        least = WARMUPS * self.warmup
        return self if self.steps(rows, batch_size) >= least else replace(self, min_steps=least)

    def share(self, part: float) -> Stage:
        """Return the same stage, of which only a part lasts."""
        return replace(self, epochs=self.epochs * part, min_steps=round(self.min_steps * part))

    @classmethod
    def read(cls, values: Mapping[str, Any], where: str = "stage") -> Stage:
        """Build a stage from a TOML table or JSON object, refusing unknown keys and bad values."""
        if not isinstance(values, Mapping):
            raise FairbenchError(f"{where} must be a table, not {values!r}", "write [[stages]] above its keys")
        plain = {key: value for key, value in values.items() if key != "lr_scale"}
        scale = values.get("lr_scale", {})
        if not isinstance(scale, Mapping):
            raise FairbenchError(
                f"{where}.lr_scale must be a table of part = factor", "write lr_scale = {head = 10}"
            )
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
        """The name, with the settings that differ from the defaults: `name(strength=0.1)`.

        A setting `title` says it in fewer words; six digits of the others keep two of one title apart.
        """
        if title := self.settings.get("title"):
            others = {key: value for key, value in self.settings.items() if key != "title"}
            digest = hashlib.sha256(json.dumps(others, sort_keys=True, default=str).encode())
            return f"{title} ({self.name} {digest.hexdigest()[:6]})"
        chosen = ", ".join(f"{key}={value}" for key, value in sorted(self.settings.items()))
        return f"{self.name}({chosen})" if chosen else self.name


@dataclass(frozen=True)
class Job:
    """One training or one inference, described by everything that can change its predictions.

    `attributes` is empty for a method that does not use any: one training serves all attributes. Of several
    `folds` this is number `fold`, from 0: rows are divided anew, and each is tested in one of them.
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
    folds: Count = 1
    fold: Steps = 0

    @property
    def key(self) -> str:
        """Sixteen hexadecimal digits: equal keys mean the same experiment."""
        text = json.dumps({"schema": SCHEMA, **departures(self)}, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def title(self) -> str:
        """What a person calls this job."""
        on = f" on {'+'.join(self.attributes)}" if self.attributes else ""
        part = f", fold {self.fold + 1} of {self.folds}" if self.folds > 1 else ""
        return f"{self.method.label}{on} · {self.backbone.name} · {self.dataset.name} · seed {self.seed}{part}"

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready object from which `from_json` makes the same job."""
        return {"schema": SCHEMA, "key": self.key, **to_json(self)}

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Rebuild a job; raises FairbenchError when the object is not one or its key disagrees."""
        key, values = _opened(data)
        job = from_json(cls, values)
        return _agreeing(job, job, key)


@dataclass(frozen=True)
class Record:
    """What a job leaves beside its predictions: what row it is, how it went, what it cost, what it ran on.

    `role`, and for a control what it `stands_for`, say what row it is; `measure` names the metric that judges
    it; `stages` are those that its method trained (None when it failed before that was known);
    `adjusts_with_group`: its answers were adjusted knowing each test patient's group; `tried` counts the
    trainings inside the method before its last; `looks`, how often it asked how the validation split is answered
    while it trained. `weights_of` is the key of the job that trained the weights, where it was
    another, whose seconds of training then stand here. `readable` holds what a probe read, by attribute (None: not
    probed). `files` are the SHA-256 of what lies beside the record, by path.

    Times are seconds, memory is bytes, `error` is None for a job that finished. `facts` are free notes that
    nothing reads (group counts, share of active steps …); `versions` the software it ran on.
    """

    job: Job
    started: str
    seconds: Mapping[str, NonNegative] = field(default_factory=dict)
    steps: Steps = 0
    peak_memory: Steps = 0
    trainable_parameters: Steps = 0
    total_parameters: Steps = 0
    device: str = ""
    processes: int = 1
    micro_batch: Steps = 0
    role: Role = "contender"
    stands_for: str = ""
    measure: str = "accuracy"
    stages: tuple[Stage, ...] | None = None
    adjusts_with_group: bool = False
    tried: Steps = 0
    looks: Steps = 0
    weights_of: str = ""
    readable: Mapping[str, dict[str, Any]] | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    error: str | None = None

    def __post_init__(self) -> None:
        if self.steps and not self.failed and "train" not in self.seconds:
            raise ValueError("steps without the seconds that they took: `seconds` has no train")
        for attribute, one in (self.readable or {}).items():
            words = ("layer", "tokens", "reason") if "reason" in one else ("layer", "tokens")
            numbers = () if "reason" in one else READ
            fits = [isinstance(one.get(key), str) for key in words]
            fits += [isinstance(one.get(key), int | float) and one[key] is not True for key in numbers]
            if not all(fits):
                raise ValueError(
                    f"readable.{attribute} is not what a probe leaves: {', '.join((*words, *numbers))}"
                )

    @property
    def spends_validation(self) -> bool:
        """Whether it was also trained on the validation split."""
        return any(stage.split == "val" for stage in self.stages or ())

    @property
    def ranked(self) -> bool:
        """Whether the row is one that a leaderboard ranks, and no control or reference."""
        return self.role in ("contender", "baseline")

    @property
    def failed(self) -> bool:
        """Whether the job ended in an error."""
        return self.error is not None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready object from which `from_json` makes the same record."""
        written = {"schema": SCHEMA, "key": self.job.key, **to_json(self)}
        return {**written, "checksum": checksum(written)}

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Rebuild a record; raises FairbenchError when the object is not one or its job's key disagrees."""
        key, values = _opened(data)
        claimed = values.pop("checksum", None)
        record = from_json(cls, values)
        _agreeing(record, record.job, key)
        if claimed != checksum({name: value for name, value in data.items() if name != "checksum"}):
            raise FairbenchError("it does not match its own checksum: the file was edited or damaged")
        return record


T = TypeVar("T")


def _opened(data: Any) -> tuple[Any, dict[str, Any]]:
    """Split what was written into the key and the rest, refusing what another schema means."""
    if not isinstance(data, Mapping) or not {"schema", "key"} <= set(data):
        raise FairbenchError("it has no schema and key, so this version of fairbench did not write it")
    if data["schema"] != SCHEMA:
        raise FairbenchError(f"it is of schema {data['schema']!r}; this version of fairbench reads schema {SCHEMA}")
    return data["key"], {name: value for name, value in data.items() if name not in ("schema", "key")}


def _agreeing(thing: T, job: Job, key: Any) -> T:
    if job.key != key:
        raise FairbenchError(f"job {key} does not match its own content: the file was edited")
    return thing
