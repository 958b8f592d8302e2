"""A benchmark: what is compared, as a TOML file and command-line choices, and the jobs that follow from it."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import distribution
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fairbench.errors import FairbenchError
from fairbench.job import Choice, Job, Precision, Stage
from fairbench.plugins import Plugins
from fairbench.roots import located, places
from fairbench.selection import check as check_selection
from fairbench.selection import needs_groups
from fairbench.settings import Count, Range, checked, suggest

if TYPE_CHECKING:
    from fairbench.backbone import Backbone
    from fairbench.dataset import Dataset
    from fairbench.method import Method

Names = tuple[str, ...]
Seeds = tuple[Annotated[int, Range(0)], ...]
PARTS = ("lora", "head", "projector")
POLICIES = ("keep", "drop", "merge:GROUP")


@dataclass(frozen=True)
class Benchmark:
    """Datasets × backbones × methods × attributes × seeds, and how all of them are trained.

    A method is a name or a table with its hyper-parameters; an attribute may join several by `+`;
    empty `attributes` means each of the dataset's. `stages` and `batch_size` default to the
    backbone's own recipe, which then holds for every method alike.
    """

    name: str = "unnamed"
    description: str = ""
    datasets: Names = ()
    backbones: Names = ()
    methods: tuple[Choice, ...] = ()
    attributes: Names = ()
    seeds: Seeds = (0,)
    baseline: bool = True
    controls: bool = True
    probe: bool = False  # say how well attributes can be read from the trained models; changes no job
    batch_size: Count | None = None
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    unrecorded: str = "keep"
    select: str = "last"
    stages: tuple[Stage, ...] = ()
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def places(self) -> dict[str, Path]:
        """Where the folders of NAME:FOLDER backbones lie on this machine, by what those are called."""
        return places(self.backbones)

    @property
    def backbone_names(self) -> Names:
        """What the backbones are called, in results too: NAME, or NAME:its folder's own name."""
        return tuple(located(entry)[0] for entry in self.backbones)


RUN_KEYS = ("batch_size", "precision", "unrecorded", "select")
_PLAIN = ("description", "datasets", "backbones", "attributes", "seeds", "baseline", "controls", "probe", *RUN_KEYS)


def shelf() -> dict[str, Path]:
    """Return the bundled benchmarks by name: the checkout's own, or what an installed wheel carries."""
    checkout = Path(__file__).parent.parent
    if (checkout / "pyproject.toml").is_file():
        return {path.stem: path for path in sorted((checkout / "benchmarks").glob("*.toml"))}
    files = distribution("fairbench").files or []
    found = [file for file in files if file.match("share/fairbench/benchmarks/*.toml")]
    return {file.stem: Path(str(file.locate())) for file in sorted(found)}


def load(which: str) -> Benchmark:
    """Read a benchmark by the name of a bundled one or the path of a TOML file."""
    bundled = shelf()
    if which not in bundled and not which.endswith(".toml"):
        raise suggest("benchmark", which, bundled)
    path = bundled.get(which, Path(which))
    if not path.is_file():
        raise FairbenchError(f"there is no benchmark file {which}")
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FairbenchError(f"{path} is not TOML: {error}") from error
    except OSError as error:
        raise FairbenchError(f"cannot read {path}: {error.strerror}") from error
    return parse(data, path.stem, str(path))


def parse(data: Mapping[str, Any], name: str, where: str) -> Benchmark:
    """Build a benchmark from a TOML document, refusing unknown keys with the nearest one."""
    known = (*_PLAIN, "methods", "stages", "settings")
    for key in data:
        if key not in known:
            raise suggest(f"key of {where}", key, known)
    plain = checked(Benchmark, {key: data[key] for key in _PLAIN if key in data}, where)
    methods = tuple(_method(entry, where) for entry in _listed(data, "methods", where))
    stages = tuple(Stage.read(stage, f"{where}: stage") for stage in _listed(data, "stages", where))
    settings = data.get("settings", {})
    if not isinstance(settings, Mapping) or not all(isinstance(value, Mapping) for value in settings.values()):
        raise FairbenchError(f"{where}: [settings] holds one table for each plugin", "write [settings.NAME]")
    return Benchmark(name=name, methods=methods, stages=stages, settings=settings, **plain)


def _listed(data: Mapping[str, Any], key: str, where: str) -> list[Any]:
    value = data.get(key, [])
    if not isinstance(value, list):
        raise FairbenchError(f"{where}: {key} must be a list, not {value!r}", f"write {key} = [ … ]")
    return value


def _method(entry: Any, where: str) -> Choice:
    if isinstance(entry, str):
        return Choice(entry)
    if isinstance(entry, Mapping) and isinstance(entry.get("name"), str):
        return Choice(entry["name"], {key: value for key, value in entry.items() if key != "name"})
    raise FairbenchError(f"{where}: a method is a name or a table with `name`, not {entry!r}")


@dataclass(frozen=True)
class Planned:
    """A benchmark's jobs, with what they are made of (nothing loaded yet)."""

    jobs: tuple[Job, ...]
    datasets: Mapping[str, Dataset]
    backbones: Mapping[str, Backbone]
    stages: Mapping[str, tuple[Stage, ...]]  # by job key, as the job's method plans them
    absent: tuple[FairbenchError, ...] = ()  # weights that a run would need


def jobs(benchmark: Benchmark, plugins: Plugins, roots: Mapping[str, Path], planning: bool = False) -> Planned:
    """Cross everything, check every name and setting, and train attribute-free methods once.

    Raises FairbenchError before any device is touched. For a plan, weights may still be absent; the
    jobs' keys then are not those that a run will have.
    """
    if benchmark.unrecorded not in POLICIES and not benchmark.unrecorded.startswith("merge:"):
        raise suggest("policy for unrecorded values", benchmark.unrecorded, POLICIES)
    check_selection(benchmark.select, plugins)
    for what in ("datasets", "backbones", "methods"):
        if not getattr(benchmark, what):
            raise FairbenchError(f"benchmark {benchmark.name} names no {what}", f"give some with --{what}")
    _refuse_unused_settings(benchmark, plugins)
    methods = [(choice, plugins.make("method", choice)) for choice in _methods(benchmark, plugins)]
    datasets = {name: _dataset(name, benchmark, plugins, roots) for name in benchmark.datasets}
    attributes = {name: _attributes(benchmark, dataset) for name, dataset in datasets.items()}
    backbones = {name: _backbone(name, benchmark, plugins) for name in benchmark.backbone_names}
    for backbone in backbones.values():
        for stage in benchmark.stages or backbone.recipe:
            _check_parts(stage)
    # Fingerprints come last: they read the data and the weights.
    absent: list[FairbenchError] = []
    chosen = {
        name: _choice("backbone", name, benchmark, plugins, _weights(backbone, absent))
        for name, backbone in backbones.items()
    }
    if absent and not planning:
        raise absent[0]
    data = {
        name: _choice("dataset", name, benchmark, plugins, dataset.fingerprint())
        for name, dataset in datasets.items()
    }
    found: dict[str, Job] = {}
    planned: dict[str, tuple[Stage, ...]] = {}
    crossed = itertools.product(backbones.items(), datasets, methods)
    for (backbone_name, backbone), dataset_name, (method, made) in crossed:
        stages = benchmark.stages or backbone.recipe
        ways = attributes[dataset_name] if made.uses_attributes or needs_groups(benchmark.select) else [()]
        for way, seed in itertools.product(ways, benchmark.seeds):
            job = Job(
                dataset=data[dataset_name],
                backbone=chosen[backbone_name],
                method=method,
                stages=stages,
                attributes=way,
                seed=seed,
                batch_size=benchmark.batch_size or backbone.batch_size,
                precision=native_precision() if benchmark.precision == "auto" else benchmark.precision,
                unrecorded=benchmark.unrecorded,
                select=benchmark.select,
            )
            found.setdefault(job.key, job)
            planned.setdefault(job.key, made.plan(stages))
    return Planned(tuple(found.values()), datasets, backbones, planned, tuple(absent))


def _weights(backbone: Backbone, absent: list[FairbenchError]) -> str:
    try:
        return backbone.fingerprint()
    except FairbenchError as error:
        absent.append(error)
        return "absent"


def _check_parts(stage: Stage) -> None:
    for part in (*stage.train, *stage.lr_scale):
        if part not in PARTS:
            raise suggest(f"part (stage {stage.name})", part, PARTS)
    idle = set(stage.lr_scale) - set(stage.train)
    if idle:
        raise FairbenchError(
            f"stage {stage.name} scales the learning rate of {', '.join(sorted(idle))}, which it does not train",
            f"it trains {', '.join(stage.train)}",
        )


def _refuse_unused_settings(benchmark: Benchmark, plugins: Plugins) -> None:
    used = {*benchmark.datasets, *benchmark.backbone_names, *(m.name for m in benchmark.methods)}
    used |= set(_joining(benchmark, plugins))
    for name in benchmark.settings:
        if name not in used:
            raise FairbenchError(
                f"`{name}` has settings but is not part of this run", f"part of it: {', '.join(sorted(used))}"
            )


def _choice(kind: str, name: str, benchmark: Benchmark, plugins: Plugins, fingerprint: str = "") -> Choice:
    return _checked(kind, Choice(name, benchmark.settings.get(name, {})), plugins, fingerprint)


def _checked(kind: str, choice: Choice, plugins: Plugins, fingerprint: str = "") -> Choice:
    """Check a plugin's settings by making it, and keep those that differ from its defaults."""
    item = plugins.find(kind, choice.name)
    in_force = item(**choice.settings).settings()
    fleeting = getattr(item, "fleeting", ())
    kept = [key for key in choice.settings if key not in fleeting]
    changed = {key: in_force[key] for key in kept if in_force[key] != _default(item, key)}
    return Choice(choice.name, changed, plugins.version(kind, choice.name), fingerprint)


def _default(item: Any, key: str) -> Any:
    value = item.fields()[key][1]
    return list(value) if isinstance(value, tuple) else value


def _dataset(name: str, benchmark: Benchmark, plugins: Plugins, roots: Mapping[str, Path]) -> Dataset:
    dataset: Dataset = plugins.make("dataset", Choice(name, benchmark.settings.get(name, {})), roots)
    return dataset


def _backbone(name: str, benchmark: Benchmark, plugins: Plugins) -> Backbone:
    choice = Choice(name, benchmark.settings.get(name, {}))
    backbone: Backbone = plugins.make("backbone", choice, benchmark.places)
    return backbone


def _methods(benchmark: Benchmark, plugins: Plugins) -> list[Choice]:
    """Return the methods with their settings; baseline and controls join unless there or unwanted."""
    chosen = [Choice(m.name, {**benchmark.settings.get(m.name, {}), **m.settings}) for m in benchmark.methods]
    there = {choice.name for choice in chosen}
    joining = [name for name in _joining(benchmark, plugins) if name not in there]
    chosen = [*(Choice(name, benchmark.settings.get(name, {})) for name in joining), *chosen]
    return [_checked("method", choice, plugins) for choice in chosen]


def _joining(benchmark: Benchmark, plugins: Plugins) -> list[str]:
    def joins(method: type[Method]) -> bool:
        control = bool(method.control) and not method.optional
        return (method.baseline and benchmark.baseline) or (control and benchmark.controls)

    return [name for name, method in plugins.tables["method"].items() if joins(method)]


def _attributes(benchmark: Benchmark, dataset: Dataset) -> Sequence[tuple[str, ...]]:
    wanted = benchmark.attributes or tuple(dataset.attributes)
    split = [tuple(name.strip() for name in entry.split("+")) for entry in wanted]
    for attribute in (name for entry in split for name in entry):
        if attribute not in dataset.attributes:
            raise suggest(f"attribute of {dataset.name}", attribute, dataset.attributes)
    for entry in split:
        if len(set(entry)) < len(entry):
            raise FairbenchError(f"attributes {'+'.join(entry)} name one twice", "name each once")
        _refuse_unknown_merge(benchmark.unrecorded, entry, dataset)
    return split


def _refuse_unknown_merge(policy: str, attributes: tuple[str, ...], dataset: Dataset) -> None:
    if policy.startswith("merge:"):
        groups = ["×".join(values) for values in itertools.product(*(dataset.attributes[a] for a in attributes))]
        if policy.removeprefix("merge:") not in groups:
            raise suggest(f"group of {'+'.join(attributes)}", policy.removeprefix("merge:"), groups)


def to_toml(benchmark: Benchmark) -> str:
    """Write a benchmark as the TOML that reproduces it."""
    import tomli_w

    data: dict[str, Any] = {key: getattr(benchmark, key) for key in _PLAIN}
    data["methods"] = [{"name": m.name, **m.settings} if m.settings else m.name for m in benchmark.methods]
    data["stages"] = [{k: v for k, v in vars(stage).items() if v != {}} for stage in benchmark.stages]
    data["settings"] = {name: dict(values) for name, values in benchmark.settings.items() if values}
    return tomli_w.dumps({key: _plain(value) for key, value in data.items() if value not in (None, (), [], {}, "")})


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return "none" if value is None else value  # TOML has no null; `convert` reads the word


def native_precision() -> Precision:
    """Return the number format that a job gets when the benchmark leaves it to this machine's device."""
    import torch

    return "bfloat16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "float32"
