"""What the command line says over a benchmark: other lists to cross, and single settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from fairbench.benchmark.benchmark import RUN_KEYS, Benchmark, Names, Seeds
from fairbench.errors import FairbenchError
from fairbench.jobs.job import Choice, Stage
from fairbench.plugins import Plugins
from fairbench.settings import checked, convert, suggest

_LISTS = {
    "datasets": ("--datasets", Names),
    "backbones": ("--backbones", Names),
    "methods": ("--methods", Names),
    "attributes": ("--attr", Names),
    "seeds": ("--seeds", Seeds),
}


def narrow(benchmark: Benchmark, lists: Mapping[str, str | None]) -> Benchmark:
    """Put lists from the command line (strings, by commas) in place of the benchmark's own; None keeps those.

    What the benchmark says of plugins that are left out goes with them.
    """
    given: dict[str, Any] = {
        key: convert(value, _LISTS[key][1], _LISTS[key][0]) for key, value in lists.items() if value is not None
    }
    if not given:
        return benchmark
    before = _named(benchmark)
    if "methods" in given:
        given["methods"] = tuple(Choice(name) for name in given["methods"])
    if "datasets" in given:
        given.setdefault("attributes", ())  # another dataset has other attributes: each of its own
    benchmark = replace(benchmark, **given, description="")
    dropped = before - _named(benchmark)
    kept = {name: values for name, values in benchmark.settings.items() if name not in dropped}
    planned = benchmark.primary
    if "methods" in given:
        there = {method.name for method in benchmark.named_methods}
        planned = tuple(name for name in planned if name.partition(" for ")[0] in there)
    return replace(benchmark, settings=kept, primary=planned)


def _named(benchmark: Benchmark) -> set[str]:
    return {*benchmark.datasets, *benchmark.backbone_names, *(method.name for method in benchmark.named_methods)}


def override(benchmark: Benchmark, assignments: Iterable[str], plugins: Plugins) -> Benchmark:
    """Apply `--set name.key=value`: of a plugin, of a stage by its name, or of `run` itself."""
    run: dict[str, Any] = {}
    stage_changes: dict[str, dict[str, Any]] = {}
    settings = {name: dict(values) for name, values in benchmark.settings.items()}
    methods = list(benchmark.methods)
    tables = [table for kind, table in plugins.tables.items() if kind != "metric"]
    known = {name: item for table in tables for name, item in table.items()}
    known |= {name: plugins.find("backbone", name) for name in benchmark.backbone_names}
    stage_names = {stage.name for stage in benchmark.stages} | {
        stage.name for name in benchmark.backbone_names for stage in plugins.find("backbone", name).recipe
    }
    for text in assignments:
        target, _, value = text.partition("=")
        name, _, key = target.rpartition(".")
        if not value or not name or not key:
            raise FairbenchError(
                f"--set {text}: expected name.parameter=value", "for instance --set run.batch_size=16"
            )
        if name == "run":
            if key not in RUN_KEYS:
                raise suggest("setting of run", key, RUN_KEYS)
            run[key] = value
        elif name in stage_names:
            stage_changes.setdefault(name, {})[key] = value
        elif name in known:
            fields = known[name].fields()
            if key not in fields:
                raise suggest(f"setting of {name}", key, fields)
            settings.setdefault(name, {})[key] = convert(value, fields[key][0], target)
            methods = [_without(key, method) if method.name == name else method for method in methods]
        else:
            raise suggest("plugin or stage", name, {*known, *stage_names, "run"})
    benchmark = replace(benchmark, settings=settings, methods=tuple(methods), **checked(Benchmark, run, "run"))
    if stage_changes:
        stages = benchmark.stages or _recipe(benchmark, plugins)
        changed = (_changed(stage, stage_changes.get(stage.name, {})) for stage in stages)
        benchmark = replace(benchmark, stages=tuple(changed))
    return benchmark


def _without(key: str, method: Choice) -> Choice:
    return replace(method, settings={name: value for name, value in method.settings.items() if name != key})


def _recipe(benchmark: Benchmark, plugins: Plugins) -> tuple[Stage, ...]:
    recipes = [plugins.find("backbone", name).recipe for name in benchmark.backbone_names]
    if any(recipe != recipes[0] for recipe in recipes):
        raise FairbenchError(
            f"{', '.join(benchmark.backbone_names)} have different stages, so --set of a stage is ambiguous",
            "run one backbone at a time, or state [[stages]] in a benchmark file",
        )
    return tuple(recipes[0]) if recipes else ()


def _changed(stage: Stage, values: Mapping[str, Any]) -> Stage:
    return replace(stage, **checked(Stage, values, f"stage {stage.name}"))
