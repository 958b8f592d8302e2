"""What is there: plugins with their settings, benchmarks, versions, devices, disk."""

from __future__ import annotations

import inspect
import os
import platform
import shutil
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from fairbench import plugins as plugin_loader
from fairbench.cache import cache_folder
from fairbench.cli.options import console, print_json
from fairbench.data.locations import located
from fairbench.errors import FairbenchError
from fairbench.jobs.job import Choice
from fairbench.processes import cores
from fairbench.settings import REQUIRED, describe, suggest

Offer = dict[str, Any]

LISTED = (*(f"{kind}s" for kind in plugin_loader.KINDS), "benchmarks")

# What is worth knowing of one thing beside its docstring and its settings.
FACTS = {
    "dataset": ("title", "classes", "attributes", "task", "licence", "publishable", "citation", "homepage"),
    "backbone": ("checkpoint", "batch_size"),
    "method": ("role", "uses_attributes", "group_at_test", "needs"),
    "launcher": ("several",),
    "metric": ("low", "high", "higher_is_better", "scale", "needs", "checkpoint", "obtain", "source"),
}

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "numpy",
    "pandas",
    "scikit-learn",
    "pyarrow",
    "pluggy",
)


def show(asked: str | None, files: Sequence[str], as_json: bool) -> None:
    """Print one kind of thing on offer, or all, or one thing by its name; then which plugins are broken."""
    one = asked is not None and asked not in LISTED
    everything = asked is None or one
    kinds = tuple(kind for kind in plugin_loader.KINDS if everything or f"{kind}s" == asked)
    plugins = plugin_loader.load(kinds, files)
    offers = {f"{kind}s": _offers(kind, plugins) for kind in kinds}
    if asked in (None, "benchmarks") or one:
        offers["benchmarks"] = _benchmarks()
    if one:
        offers = _named(str(asked), offers)
    broken = [asdict(each) for each in plugins.broken]
    if as_json:
        print_json({**offers, "broken": broken})
        return
    out = console()
    for kind, entries in offers.items():
        for entry in entries if one else ():
            _describe(kind, entry, out)
        if not one:
            out.print(_table(kind, entries))
    _broken(plugins, out)


def _named(name: str, offers: Mapping[str, list[Offer]]) -> dict[str, list[Offer]]:
    """Keep what goes by a name; an unknown one is an error with the nearest."""
    chosen = {kind: [entry for entry in entries if entry["name"] == name] for kind, entries in offers.items()}
    if not any(chosen.values()):
        raise suggest("plugin, benchmark or kind of them", name, dict.fromkeys((*LISTED, *_names(offers))))
    return {kind: entries for kind, entries in chosen.items() if entries}


def _names(offers: Mapping[str, list[Offer]]) -> Iterator[str]:
    for entries in offers.values():
        yield from (entry["name"] for entry in entries)


def _offers(kind: str, plugins: plugin_loader.Plugins) -> list[Offer]:
    """Describe everything of a kind, JSON-ready, by name."""
    return [
        {
            "name": name,
            "what": _what(item).split("\n\n")[0].replace("\n", " "),
            "description": _what(item),
            "settings": _settings(item),
            "facts": _facts(kind, item),
            "from": plugins.version(kind, name),
        }
        for name, item in sorted(plugins.tables[kind].items())
    ]


def _what(item: Any) -> str:
    return (inspect.getdoc(item) or "") if inspect.isclass(item) else f"{item.title}: {item.formula}"


def _settings(item: Any) -> list[dict[str, str]]:
    if not hasattr(item, "fields"):
        return []
    return [
        {"name": key, "default": _default(default), "type": describe(kind)}
        for key, (kind, default) in item.fields().items()
    ]


def _default(value: Any) -> str:
    if value is REQUIRED:
        return "must be given"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _facts(kind: str, item: Any) -> dict[str, Any]:
    """Collect what a thing says of itself, leaving out what it leaves empty."""
    values = {fact: getattr(item, fact, None) for fact in FACTS.get(kind, ())}
    return {fact: _fact(value) for fact, value in values.items() if value is not None and value not in ("", ())}


def _fact(value: Any) -> Any:
    """Write a class attribute as JSON has it; what is worked out for each object is not known yet."""
    if isinstance(value, Mapping):
        return {str(key): _fact(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [_fact(each) for each in value]
    if isinstance(value, property):
        return "depends on the settings"
    return value if isinstance(value, str | int | float | bool) else str(value)


def _benchmarks() -> list[Offer]:
    from fairbench.benchmark.benchmark import bundled_benchmarks

    entries = []
    for name, path in bundled_benchmarks().items():
        text = path.read_text(encoding="utf-8")
        what = tomllib.loads(text).get("description", "")
        about = {"name": name, "what": what, "description": text, "from": str(path)}
        entries.append({**about, "settings": [], "facts": {}})
    return entries


def _table(kind: str, entries: Sequence[Offer]) -> Table:
    plugins = kind != "benchmarks"
    columns = ("name", "what", "settings", "from") if plugins else ("name", "what")
    table = Table(*columns, title=kind, title_justify="left", box=None, pad_edge=False)
    for entry in entries:
        settings = "\n".join(
            f"{one['name']} = {_short(one['default'])} ({one['type']})" for one in entry["settings"]
        )
        cells = (entry["name"], entry["what"], settings, entry["from"])
        table.add_row(*map(escape, cells[: len(columns)]))
    return table


def _short(text: str) -> str:
    return text if len(text) < 60 else f"{text[:57]}…"


def _describe(kind: str, entry: Offer, out: Console) -> None:
    """Print all that is known of one thing."""
    out.print(Text.assemble((entry["name"], "bold"), f", one of the {kind}, from {entry['from']}"), soft_wrap=True)
    out.print(Text(entry["description"]), soft_wrap=True)
    for name, value in entry["facts"].items():
        said = "; ".join(f"{k}: {v}" for k, v in value.items()) if isinstance(value, dict) else value
        said = ", ".join(map(str, said)) if isinstance(said, list) else str(said)
        out.print(Text(f"{name.replace('_', ' ')}: {said}"), soft_wrap=True)
    if entry["settings"]:
        table = Table("setting", "default", "type", box=None, pad_edge=False)
        for one in entry["settings"]:
            table.add_row(*map(escape, (one["name"], one["default"], one["type"])))
        out.print(table)
        out.print(f"give one with --set {entry['name']}.{entry['settings'][0]['name']}=VALUE", markup=False)


def _broken(plugins: plugin_loader.Plugins, out: Console) -> None:
    for broken in plugins.broken:
        out.print(f"broken: {broken.name} of {broken.source}: {broken.reason}", markup=False, soft_wrap=True)


def doctor() -> None:
    """Print what a bug report needs."""
    import psutil
    import torch

    out = console()
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_row("python", f"{platform.python_version()} on {platform.platform()}")
    for package, version in plugin_loader.versions(("fairbench", *PACKAGES)).items():
        table.add_row(package, version)
    for index in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(index).total_memory / 2**30
        table.add_row(f"gpu {index}", f"{torch.cuda.get_device_name(index)}, {memory:.0f} GiB")
    if not torch.cuda.device_count():
        table.add_row("gpu", "none: jobs run on the CPU")
    table.add_row("cpu", f"{cores()} cores to use of {os.cpu_count()}")
    memory = psutil.virtual_memory()
    table.add_row("memory", f"{memory.available / 2**30:.0f} GiB free of {memory.total / 2**30:.0f}")
    for what, path in (("working folder", Path.cwd()), ("cache", cache_folder())):
        there = next(p for p in (path, *path.parents) if p.exists())
        table.add_row(what, f"{path}, {shutil.disk_usage(there).free / 2**30:.0f} GiB free")
    plugins = plugin_loader.load()
    for kind in plugin_loader.KINDS:
        table.add_row(f"{kind}s", ", ".join(sorted(plugins.tables[kind])) or "none")
    out.print(table)
    _broken(plugins, out)
    out.print("no plugin is broken" if not plugins.broken else f"{len(plugins.broken)} plugins are broken")


def try_out(entry: str, assignments: tuple[str, ...], files: tuple[str, ...]) -> None:
    """Load a backbone as a job would, and say what it is, what it costs here, and whether it is transformers'."""
    import torch

    from fairbench.benchmark import cost
    from fairbench.benchmark.plan import native_precision

    name, folder = located(entry)
    settings = {}
    for text in assignments:
        target, _, value = text.partition("=")
        of, _, key = target.rpartition(".")
        if of != name:
            raise FairbenchError(f"--set {text}: expected {name}.KEY=VALUE", f"only {name} is tried out")
        settings[key] = value
    plugins = plugin_loader.load(("backbone",), files)
    backbone = plugins.make("backbone", Choice(name, settings), {name: folder} if folder else {})
    precision = native_precision()
    trial = cost.try_out(backbone, getattr(torch, precision))
    table = Table(box=None, pad_edge=False, show_header=False)
    for what, value in (
        ("backbone", name),
        *((key, str(value)) for key, value in backbone.facts.items()),
        ("precision", precision),
        ("parameters", f"{trial.parameters:,}, of which {trial.trained:,} can be trained"),
        ("LoRA", f"{', '.join(trial.adapted)} of {backbone.depth} layers"),
        ("tokens", f"{trial.tokens:,} for a picture of 512 × 512 and a question; {trial.image_tokens:,} are image"),
        ("loading", f"{trial.loading:.1f} s"),
        ("encoding", f"{trial.encoding:.2f} s a picture, once"),
        ("step", f"{trial.step:.2f} s for a batch of {trial.batch_size}, features cached"),
        (
            "memory",
            f"{trial.memory / 2**30:.1f} GiB {'on the GPU at most' if torch.cuda.is_available() else 'held'}",
        ),
    ):
        table.add_row(what, escape(value))
    console().print(table)
