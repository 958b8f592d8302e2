"""What is there: plugins with their settings, benchmarks, versions, devices, disk."""

from __future__ import annotations

import inspect
import os
import platform
import shutil
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fairbench import plugins as plugin_loader
from fairbench.benchmark.launch import cores
from fairbench.cli.options import console
from fairbench.data.locations import cache_folder, located
from fairbench.errors import FairbenchError
from fairbench.jobs.job import Choice
from fairbench.settings import describe

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


def show(kind: str | None, files: tuple[str, ...]) -> None:
    """Print one kind of plugin (or all), then what is broken."""
    out = console()
    kinds = plugin_loader.KINDS if kind is None else tuple(k for k in plugin_loader.KINDS if f"{k}s" == kind)
    plugins = plugin_loader.load(kinds, files)
    for each in kinds:
        out.print(_table(each, plugins))
    if kind in (None, "benchmarks"):
        out.print(_benchmarks())
    _broken(plugins, out)


def _table(kind: str, plugins: plugin_loader.Plugins) -> Table:
    table = Table(
        "name", "what", "settings", "from", title=f"{kind}s", title_justify="left", box=None, pad_edge=False
    )
    for name, item in sorted(plugins.tables[kind].items()):
        table.add_row(name, escape(_what(item)), escape(_settings(item)), escape(plugins.version(kind, name)))
    return table


def _what(item: Any) -> str:
    text = inspect.getdoc(item) if inspect.isclass(item) else f"{item.title}: {item.formula}"
    return (text or "").split("\n\n")[0].replace("\n", " ")


def _settings(item: Any) -> str:
    if not hasattr(item, "fields"):
        return ""
    fields = item.fields().items()
    return "\n".join(f"{key} = {_shown(default)} ({describe(kind)})" for key, (kind, default) in fields)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) and len(value) < 60 else f"{str(value)[:57]}"


def _benchmarks() -> Table:
    import tomllib

    from fairbench.benchmark.benchmark import shelf

    table = Table("name", "what", title="benchmarks", title_justify="left", box=None, pad_edge=False)
    for name, path in shelf().items():
        table.add_row(name, escape(tomllib.loads(path.read_text(encoding="utf-8")).get("description", "")))
    return table


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
