"""From a benchmark to its jobs: everything crossed, every name and setting checked first."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairbench.benchmark.benchmark import Benchmark
from fairbench.errors import FairbenchError, named
from fairbench.jobs.job import PARTS, Choice, Job, Precision, Stage
from fairbench.plugins import Plugins
from fairbench.settings import suggest
from fairbench.training import selection
from fairbench.training.needs import lacking, require

if TYPE_CHECKING:
    import pandas as pd

    from fairbench.data.dataset import Dataset
    from fairbench.models.backbone import Backbone
    from fairbench.training.method import Method

POLICIES = ("keep", "drop", "merge:GROUP")


@dataclass(frozen=True)
class Planned:
    """A benchmark's jobs, with what they are made of (nothing loaded yet)."""

    jobs: tuple[Job, ...]
    datasets: Mapping[str, Dataset]
    backbones: Mapping[str, Backbone]
    methods: Mapping[str, Method]  # by job key
    absent: tuple[FairbenchError, ...] = ()  # weights that a run would need

    def stages(self, job: Job) -> tuple[Stage, ...]:
        """Return the stages that a job's method plans; raises FairbenchError when it raises."""
        try:
            return tuple(self.methods[job.key].plan(job.stages))
        except (Exception, SystemExit) as error:
            raise FairbenchError(f"{job.method.label} raised in plan: {named(error)}") from error


@dataclass(frozen=True)
class Parts:
    """What a benchmark names, made and held against each other; no weights are read and no fingerprint is taken."""

    datasets: Mapping[str, Dataset]
    attributes: Mapping[str, Sequence[tuple[str, ...]]]  # by dataset
    backbones: Mapping[str, Backbone]
    crossed: Sequence[tuple[str, str, Choice, Method]]  # backbone, dataset, method


def parts(benchmark: Benchmark, plugins: Plugins, roots: Mapping[str, Path]) -> Parts:
    """Make what a benchmark names and check every name, setting and need. Raises FairbenchError."""
    _check(benchmark, plugins)
    methods = [
        (choice, plugins.make("method", choice, benchmark.places)) for choice in _methods(benchmark, plugins)
    ]
    known = {name for choice, _ in methods for name in (choice.name, choice.label)}
    for name in benchmark.primary:
        if name.partition(" for ")[0] not in known:  # a row of a method trained for other attributes
            raise suggest("method of this run (`primary`)", name, known)
    datasets = {name: make_dataset(name, benchmark, plugins, roots) for name in benchmark.datasets}
    attributes = {name: attributes_of(benchmark, dataset) for name, dataset in datasets.items()}
    backbones = {name: _backbone(name, benchmark, plugins) for name in benchmark.backbone_names}
    for backbone in backbones.values():
        for stage in benchmark.stages or backbone.recipe:
            _check_parts(stage)
    for name, dataset in datasets.items():
        if lacks := selection.lacking(benchmark.select, dataset, plugins):
            raise FairbenchError(
                f"select = {benchmark.select!r} needs {', '.join(lacks)}, which the answers to {name} do not have",
                'select by another metric ("best:METRIC"), or keep the last epoch (select = "last")',
            )
    asked = {choice.name for choice in benchmark.methods}
    crossed = []
    for backbone_name, dataset_name, (method, made) in itertools.product(backbones, datasets, methods):
        both = datasets[dataset_name], backbones[backbone_name]
        if made.role in ("control", "reference") and made.name not in asked and lacking(made.needs, *both):
            continue  # a control joins where it can
        require(made.name, made.needs, *both)
        crossed.append((backbone_name, dataset_name, method, made))
    return Parts(datasets, attributes, backbones, crossed)


def jobs(benchmark: Benchmark, plugins: Plugins, roots: Mapping[str, Path], planning: bool = False) -> Planned:
    """Cross everything, check every name and setting, and train attribute-free methods once.

    Raises FairbenchError before any device is touched. For a plan, weights may still be absent; the
    jobs' keys then are not those that a run will have.
    """
    from fairbench.data.dataset import rows
    from fairbench.data.splits import check_folds

    plugins.unkeyed.clear()
    made_of = parts(benchmark, plugins, roots)
    # Fingerprints come last: they read the data and the weights.
    absent: list[FairbenchError] = []
    chosen = {
        name: _choice("backbone", name, benchmark, plugins, _weights(backbone, absent))
        for name, backbone in made_of.backbones.items()
    }
    if absent and not planning:
        raise absent[0]
    data = {
        name: _choice("dataset", name, benchmark, plugins, dataset.fingerprint())
        for name, dataset in made_of.datasets.items()
    }
    # A benchmark's own stages need no count, and a table can take long to read.
    counts = {}
    for name, dataset in made_of.datasets.items():
        if benchmark.folds > 1 or not benchmark.stages:
            table = rows(dataset)
            counts[name] = row_counts(table)
            check_folds(table, benchmark.folds)
    planned: dict[str, Job] = {}
    makers: dict[str, Method] = {}
    for backbone_name, dataset_name, method, made in made_of.crossed:
        by_group = made.uses_attributes or selection.needs_groups(benchmark.select)
        ways = made_of.attributes[dataset_name] if by_group else [()]
        three = data[dataset_name], chosen[backbone_name], method
        backbone = made_of.backbones[backbone_name]
        stages = _stages(benchmark, backbone, counts.get(dataset_name, {}))
        for job in _each(benchmark, backbone, three, ways, stages):
            planned.setdefault(job.key, job)
            makers.setdefault(job.key, made)
    return Planned(tuple(planned.values()), made_of.datasets, made_of.backbones, makers, tuple(absent))


def _check(benchmark: Benchmark, plugins: Plugins) -> None:
    """Refuse what is wrong in a benchmark whatever the data."""
    if benchmark.unrecorded not in POLICIES and not benchmark.unrecorded.startswith("merge:"):
        raise suggest("policy for unrecorded values", benchmark.unrecorded, POLICIES)
    selection.check(benchmark.select, plugins)
    for what in ("datasets", "backbones", "methods", "seeds"):
        if not getattr(benchmark, what):
            raise FairbenchError(f"benchmark {benchmark.name} names no {what}", f"give some with --{what}")
    _refuse_unused_settings(benchmark, plugins)


def _check_folds(benchmark: Benchmark, dataset: Dataset) -> None:
    if benchmark.folds == 2:
        raise FairbenchError("2 folds leave none to train on", "ask for 3 or more: one tests, one validates")
    if benchmark.folds > 1 and dataset.own_splits and not benchmark.redraw:
        raise FairbenchError(
            f"the splits of {dataset.name} come with its data, and folds would divide its rows anew",
            "results would be like nobody else's; --set run.redraw=true says that they may be",
        )


def _each(
    benchmark: Benchmark,
    backbone: Backbone,
    three: tuple[Choice, Choice, Choice],
    ways: Sequence[tuple[str, ...]],
    stages: tuple[Stage, ...],
) -> Iterable[Job]:
    """Yield the jobs of one dataset, backbone and method: each way of attributes, seed, fold."""
    for way, seed, fold in itertools.product(ways, benchmark.seeds, range(benchmark.folds)):
        yield Job(
            *three,
            stages=stages,
            attributes=way,
            seed=seed,
            batch_size=benchmark.batch_size or backbone.batch_size,
            precision=native_precision() if benchmark.precision == "auto" else benchmark.precision,
            unrecorded=benchmark.unrecorded,
            select=benchmark.select,
            folds=benchmark.folds,
            fold=fold,
        )


def _stages(benchmark: Benchmark, backbone: Backbone, counts: Mapping[str, int]) -> tuple[Stage, ...]:
    """Return a benchmark's own stages as they are, else the backbone's recipe, fitted to the number of rows."""
    if benchmark.stages:
        return benchmark.stages
    train = of_fold(counts, benchmark.folds).get("train", 0)
    batch_size = benchmark.batch_size or backbone.batch_size
    return tuple(stage.fitted(train, batch_size) for stage in backbone.recipe)


def row_counts(table: pd.DataFrame) -> dict[str, int]:
    """Return how many rows each split of a dataset's table has."""
    return {str(split): int(count) for split, count in table["split"].value_counts().items()}


def of_fold(counts: Mapping[str, int], folds: int) -> Mapping[str, int]:
    """Return how many rows each split has in one of `folds`, the same for each though a row may go over."""
    if folds == 1:
        return counts
    total = sum(counts.values())
    part = total // folds
    return {"train": total - 2 * part, "val": part, "test": part}


def _weights(backbone: Backbone, absent: list[FairbenchError]) -> str:
    try:
        return backbone.fingerprint()
    except FairbenchError as error:
        absent.append(error)
        return "absent"


def _check_parts(stage: Stage) -> None:
    if not stage.train or len({*stage.train}) < len(stage.train):
        said = "names a part twice" if stage.train else "trains nothing"
        raise FairbenchError(f"stage {stage.name} {said}", f"train = some of {', '.join(PARTS)}, each once")
    for part in (*stage.train, *stage.lr_scale):
        if part not in PARTS:
            raise suggest(f"part (stage {stage.name})", part, PARTS)
    if stage.split != "train":
        raise FairbenchError(
            f"stage {stage.name} draws from the validation split", "only a method may plan that; leave `split` out"
        )
    idle = set(stage.lr_scale) - set(stage.train)
    if idle:
        raise FairbenchError(
            f"stage {stage.name} scales the learning rate of {', '.join(sorted(idle))}, which it does not train",
            f"it trains {', '.join(stage.train)}",
        )


def _refuse_unused_settings(benchmark: Benchmark, plugins: Plugins) -> None:
    used = {*benchmark.datasets, *benchmark.backbone_names, *(m.name for m in benchmark.named_methods)}
    used |= set(_joining(benchmark, plugins))
    for name in benchmark.settings:
        if name not in used:
            raise FairbenchError(
                f"`{name}` has settings but is not part of this run", f"part of it: {', '.join(sorted(used))}"
            )


def _choice(kind: str, name: str, benchmark: Benchmark, plugins: Plugins, fingerprint: str = "") -> Choice:
    return _checked(kind, Choice(name, benchmark.settings.get(name, {})), plugins, fingerprint)


def _checked(kind: str, choice: Choice, plugins: Plugins, fingerprint: str = "") -> Choice:
    """Check a plugin's settings by making it, and keep those that differ from its defaults.

    Those that stand in no job's key go to `plugins.unkeyed`.
    """
    item = plugins.find(kind, choice.name)
    in_force = item(**choice.settings).settings()
    departing = {key: in_force[key] for key in choice.settings if in_force[key] != _default(item, key)}
    unkeyed = {key: departing.pop(key) for key in item.unkeyed if key in departing}
    checked = Choice(choice.name, departing, plugins.version(kind, choice.name), fingerprint)
    if plugins.unkeyed.setdefault(checked.label, unkeyed) != unkeyed:
        raise FairbenchError(
            f"{checked.label} stands twice, with {plugins.unkeyed[checked.label]} and {unkeyed}",
            "these settings change no result, so both are one row: leave one out",
        )
    return checked


def _default(item: Any, key: str) -> Any:
    value = item.fields()[key][1]
    return list(value) if isinstance(value, tuple) else value


def make_dataset(name: str, benchmark: Benchmark, plugins: Plugins, roots: Mapping[str, Path]) -> Dataset:
    """Make a dataset as a benchmark sets it."""
    dataset: Dataset = plugins.make("dataset", Choice(name, benchmark.settings.get(name, {})), roots)
    return dataset


def _backbone(name: str, benchmark: Benchmark, plugins: Plugins) -> Backbone:
    choice = Choice(name, benchmark.settings.get(name, {}))
    backbone: Backbone = plugins.make("backbone", choice, benchmark.places)
    return backbone


def _methods(benchmark: Benchmark, plugins: Plugins) -> list[Choice]:
    """Return the methods with their settings; baseline and controls join unless there or unwanted.

    Controls join last: most train nothing, so they fill the time that some worker waits for the others.
    """
    chosen = [Choice(m.name, {**benchmark.settings.get(m.name, {}), **m.settings}) for m in benchmark.named_methods]
    there = {choice.name for choice in chosen}
    joining = [name for name in _joining(benchmark, plugins) if name not in there]
    joined = {name: Choice(name, benchmark.settings.get(name, {})) for name in joining}
    first = [joined.pop(name) for name in joining if plugins.tables["method"][name].role == "baseline"]
    chosen = [*first, *chosen, *joined.values()]
    return [_checked("method", choice, plugins, _weights_of(choice, benchmark, plugins)) for choice in chosen]


def _weights_of(choice: Choice, benchmark: Benchmark, plugins: Plugins) -> str:
    """Return the fingerprint of the folder that a method names, empty for one that names none."""
    if not plugins.find("method", choice.name).takes_folder:
        return ""
    made: Method = plugins.make("method", choice, benchmark.places)
    return made.fingerprint()


def _joining(benchmark: Benchmark, plugins: Plugins) -> list[str]:
    joins = {"baseline": benchmark.baseline, "control": benchmark.controls, "reference": benchmark.controls}
    return [name for name, method in plugins.tables["method"].items() if joins.get(method.role, False)]


def attributes_of(benchmark: Benchmark, dataset: Dataset) -> Sequence[tuple[str, ...]]:
    """Return what a benchmark compares on a dataset, joined attributes together; raises for unknown ones, and for
    folds of a dataset whose splits are not to be drawn anew.
    """
    _check_folds(benchmark, dataset)
    from fairbench.data.dataset import guarded

    guarded(dataset, "classes", lambda: tuple(dataset.classes))
    known = guarded(dataset, "attributes", lambda: tuple(dataset.attributes))
    wanted = benchmark.attributes or known
    split = [tuple(name.strip() for name in entry.split("+")) for entry in wanted]
    for attribute in (name for entry in split for name in entry):
        if attribute not in known:
            raise suggest(f"attribute of {dataset.name}", attribute, known)
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


def native_precision() -> Precision:
    """Return the number format that a job gets when the benchmark leaves it to this machine's device."""
    import torch

    return "bfloat16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "float32"
