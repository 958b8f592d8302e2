"""A benchmark: what is compared, as a TOML file and command-line choices, and the jobs that follow from it."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from fairbench.backbone import Backbone
from fairbench.dataset import Dataset
from fairbench.errors import FairbenchError
from fairbench.job import Choice, Job, Precision, Stage
from fairbench.plugins import Plugins
from fairbench.settings import Count, checked, suggest

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
    datasets: tuple[str, ...] = ()
    backbones: tuple[str, ...] = ()
    methods: tuple[Choice, ...] = ()
    attributes: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    baseline: bool = True
    batch_size: Count | None = None
    precision: Precision = "auto"
    unrecorded: str = "keep"
    select: str = "last"
    stages: tuple[Stage, ...] = ()
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


RUN_KEYS = ("batch_size", "precision", "unrecorded", "select")
_PLAIN = ("description", "datasets", "backbones", "attributes", "seeds", "baseline", *RUN_KEYS)


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
    return parse(data, path.stem, str(path))


def parse(data: Mapping[str, Any], name: str, where: str) -> Benchmark:
    """Build a benchmark from a TOML document, refusing unknown keys with the nearest one."""
    known = (*_PLAIN, "methods", "stages", "settings")
    for key in data:
        if key not in known:
            raise suggest(f"key of {where}", key, known)
    plain = checked(Benchmark, {key: data[key] for key in _PLAIN if key in data}, where)
    methods = tuple(_method(entry, where) for entry in data.get("methods", ()))
    stages = tuple(Stage.read(stage, f"{where}: stage") for stage in data.get("stages", ()))
    settings = data.get("settings", {})
    if not all(isinstance(value, Mapping) for value in settings.values()):
        raise FairbenchError(f"{where}: [settings] holds one table for each plugin", "write [settings.NAME]")
    return Benchmark(name=name, methods=methods, stages=stages, settings=settings, **plain)


def _method(entry: Any, where: str) -> Choice:
    if isinstance(entry, str):
        return Choice(entry)
    if isinstance(entry, Mapping) and isinstance(entry.get("name"), str):
        return Choice(entry["name"], {key: value for key, value in entry.items() if key != "name"})
    raise FairbenchError(f"{where}: a method is a name or a table with `name`, not {entry!r}")


def override(benchmark: Benchmark, assignments: Iterable[str], plugins: Plugins) -> Benchmark:
    """Apply `--set name.key=value`: of a plugin, of a stage by its name, or of `run` itself."""
    run: dict[str, Any] = {}
    stage_changes: dict[str, dict[str, Any]] = {}
    settings = {name: dict(values) for name, values in benchmark.settings.items()}
    known = {name for table in plugins.tables.values() for name in table}
    stage_names = {stage.name for stage in benchmark.stages} | {
        stage.name for name in benchmark.backbones for stage in plugins.find("backbone", name).recipe
    }
    for text in assignments:
        target, _, value = text.partition("=")
        name, _, key = target.rpartition(".")
        if not value or not name or not key:
            raise FairbenchError(
                f"--set {text}: expected name.parameter=value", "for instance --set fr.strength=0.1"
            )
        if name == "run":
            if key not in RUN_KEYS:
                raise suggest("setting of run", key, RUN_KEYS)
            run[key] = value
        elif name in stage_names:
            stage_changes.setdefault(name, {})[key] = value
        elif name in known:
            settings.setdefault(name, {})[key] = value
        else:
            raise suggest("plugin or stage", name, known | stage_names | {"run"})
    benchmark = replace(benchmark, settings=settings, **checked(Benchmark, run, "run"))
    if stage_changes:
        stages = benchmark.stages or _recipe(benchmark, plugins)
        changed = (_changed(stage, stage_changes.get(stage.name, {})) for stage in stages)
        benchmark = replace(benchmark, stages=tuple(changed))
    return benchmark


def _recipe(benchmark: Benchmark, plugins: Plugins) -> tuple[Stage, ...]:
    recipes = {plugins.find("backbone", name).recipe for name in benchmark.backbones}
    if len(recipes) > 1:
        raise FairbenchError(
            f"{', '.join(benchmark.backbones)} have different stages, so --set of a stage is ambiguous",
            "run one backbone at a time, or state [[stages]] in a benchmark file",
        )
    recipe: tuple[Stage, ...] = recipes.pop()
    return recipe


def _changed(stage: Stage, values: Mapping[str, Any]) -> Stage:
    return replace(stage, **checked(Stage, values, f"stage {stage.name}"))


@dataclass(frozen=True)
class Planned:
    """A benchmark's jobs, with what they are made of (nothing loaded yet)."""

    jobs: tuple[Job, ...]
    datasets: Mapping[str, Dataset]
    backbones: Mapping[str, Backbone]
    stages: Mapping[str, tuple[Stage, ...]]  # by job key, as the job's method plans them


def jobs(benchmark: Benchmark, plugins: Plugins, roots: Mapping[str, Path]) -> Planned:
    """Cross everything, check every name and setting, and train attribute-free methods once.

    Raises FairbenchError before any device is touched.
    """
    if benchmark.unrecorded not in POLICIES and not benchmark.unrecorded.startswith("merge:"):
        raise suggest("policy for unrecorded values", benchmark.unrecorded, POLICIES)
    for what in ("datasets", "backbones", "methods"):
        if not getattr(benchmark, what):
            raise FairbenchError(f"benchmark {benchmark.name} names no {what}", f"give some with --{what}")
    _refuse_unused_settings(benchmark, plugins)
    datasets = {name: _dataset(name, benchmark, plugins, roots) for name in benchmark.datasets}
    dataset_choices = {
        name: _choice("dataset", name, benchmark, plugins, dataset.fingerprint())
        for name, dataset in datasets.items()
    }
    found: dict[str, Job] = {}
    planned: dict[str, tuple[Stage, ...]] = {}
    backbones: dict[str, Backbone] = {}
    for name in benchmark.backbones:
        backbone = backbones[name] = plugins.make("backbone", _choice("backbone", name, benchmark, plugins))
        chosen = _choice("backbone", name, benchmark, plugins, backbone.fingerprint())
        stages = benchmark.stages or backbone.recipe
        for stage in stages:
            for part in stage.train:
                if part not in PARTS:
                    raise suggest(f"part (stage {stage.name})", part, PARTS)
        for dataset_name, dataset in datasets.items():
            for method in _methods(benchmark, plugins):
                made = plugins.make("method", method)
                for attributes in _attributes(benchmark, dataset) if made.uses_attributes else [()]:
                    for seed in benchmark.seeds:
                        job = Job(
                            dataset=dataset_choices[dataset_name],
                            backbone=chosen,
                            method=method,
                            stages=stages,
                            attributes=attributes,
                            seed=seed,
                            batch_size=benchmark.batch_size or backbone.batch_size,
                            precision=benchmark.precision,
                            unrecorded=benchmark.unrecorded,
                            select=benchmark.select,
                        )
                        found.setdefault(job.key, job)
                        planned.setdefault(job.key, made.plan(stages))
    return Planned(tuple(found.values()), datasets, backbones, planned)


def _refuse_unused_settings(benchmark: Benchmark, plugins: Plugins) -> None:
    used = {*benchmark.datasets, *benchmark.backbones, *(m.name for m in benchmark.methods)}
    used |= set(_baselines(plugins)) if benchmark.baseline else set()
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
    changed = {key: in_force[key] for key in choice.settings if in_force[key] != _default(item, key)}
    return Choice(choice.name, changed, plugins.version(kind, choice.name), fingerprint)


def _default(item: Any, key: str) -> Any:
    value = item.fields()[key][1]
    return list(value) if isinstance(value, tuple) else value


def _dataset(name: str, benchmark: Benchmark, plugins: Plugins, roots: Mapping[str, Path]) -> Dataset:
    dataset: Dataset = plugins.make("dataset", Choice(name, benchmark.settings.get(name, {})), roots)
    return dataset


def _methods(benchmark: Benchmark, plugins: Plugins) -> list[Choice]:
    """Return the methods with their settings; a baseline joins unless it is there or unwanted."""
    chosen = [Choice(m.name, {**benchmark.settings.get(m.name, {}), **m.settings}) for m in benchmark.methods]
    absent = [name for name in _baselines(plugins) if name not in {m.name for m in chosen}]
    if benchmark.baseline:
        chosen = [*(Choice(name, benchmark.settings.get(name, {})) for name in absent), *chosen]
    return [_checked("method", choice, plugins) for choice in chosen]


def _baselines(plugins: Plugins) -> list[str]:
    return [name for name, method in plugins.tables["method"].items() if method.baseline]


def _attributes(benchmark: Benchmark, dataset: Dataset) -> Sequence[tuple[str, ...]]:
    wanted = benchmark.attributes or tuple(dataset.attributes)
    split = [tuple(entry.split("+")) for entry in wanted]
    for attribute in (name for entry in split for name in entry):
        if attribute not in dataset.attributes:
            raise suggest(f"attribute of {dataset.name}", attribute, dataset.attributes)
    return split


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
        return {key: _plain(item) for key, item in value.items() if item is not None}
    return value
