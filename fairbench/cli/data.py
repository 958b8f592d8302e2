"""The commands that look at a dataset before anything is trained on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fairbench.cli.options import console, plugin_option, print_json, say, warn_of_broken, which_dataset
from fairbench.errors import FairbenchError

if TYPE_CHECKING:
    from fairbench.data.dataset import Dataset

LISTED = 2  # files of each folder
SPLITS = ("train", "val", "test")


def add_to(cli: click.Group) -> None:
    """Give a command line these commands."""
    group = cli.group("data", help="Look at datasets.")(lambda: None)
    for command in (check, sample, example):
        group.add_command(command)


@click.command()
@which_dataset
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(
    name: str, folders: tuple[str, ...], assignments: tuple[str, ...], files: tuple[str, ...], as_json: bool
) -> None:
    """Check a dataset: counts per split, class and group, missing values, unreadable files, leakage, licence."""
    from fairbench.data import report as checks
    from fairbench.report.dataset import render

    report = checks.check(_made(name, folders, assignments, files))
    if as_json:
        print_json(report.to_json())
    else:
        render(report, console())


@click.command()
@which_dataset
@click.option("--out", type=click.Path(path_type=Path), help="PNG to write (default: NAME-sample.png).")
@click.option("--rows", "count", type=click.IntRange(1, 600), default=24, show_default=True, help="How many rows.")
@click.option("--split", type=click.Choice(SPLITS), help="Only rows of one split.")
@click.option("--by", metavar="ATTRIBUTE", help="Line up as many rows of each of an attribute's values.")
def sample(
    name: str,
    folders: tuple[str, ...],
    assignments: tuple[str, ...],
    files: tuple[str, ...],
    out: Path | None,
    count: int,
    split: str | None,
    by: str | None,
) -> None:
    """Draw a contact sheet: pictures with their labels and groups, from as many of them as fit.

    It shows the data's own images, so it must not be published where the data may not be.
    """
    from fairbench.data import contact_sheet

    dataset = _made(name, folders, assignments, files)
    chosen = contact_sheet.sample(dataset, count, by, split)
    path = out or Path(f"{name}-sample.png")
    contact_sheet.write(contact_sheet.draw(dataset, chosen, by, split), path)
    click.echo(f"written: {path} ({len(chosen):,} rows)")
    for text in (contact_sheet.notice(dataset), *dataset.warnings):
        say(f"note: {text}")


@click.command()
@click.argument("name")
@click.argument("path", type=click.Path(path_type=Path))
@plugin_option
def example(name: str, path: Path, files: tuple[str, ...]) -> None:
    """Write a small made-up folder in exactly the format that dataset NAME reads."""
    import shlex

    from fairbench import plugins as plugin_loader

    plugins = plugin_loader.load(("dataset",), files)
    warn_of_broken(plugins)
    dataset = plugins.find("dataset", name)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FairbenchError(f"{path} is there already and is not an empty folder", "name a new folder")
    path.mkdir(parents=True, exist_ok=True)
    try:
        needed = dataset.example(path)
    except FairbenchError:
        path.rmdir()
        raise
    folders: dict[Path, list[Path]] = {}
    for file in sorted(file.relative_to(path) for file in path.rglob("*") if file.is_file()):
        folders.setdefault(file.parent, []).append(file)
    click.echo(f"written: {sum(map(len, folders.values())):,} files in {path}, all of it made up")
    for inside in folders.values():
        more = f"  … and {len(inside) - LISTED:,} more" if len(inside) > LISTED else ""
        click.echo(f"  {'  '.join(file.as_posix() for file in inside[:LISTED])}{more}")
    settings = [f"{name}.{key}={value}" for key, value in needed.items()]
    words = ["fairbench", "data", "check", name, "--data", f"{name}={path}"]
    words += [word for setting in settings for word in ("--set", setting)]
    click.echo(f"look at it: {shlex.join(words)}")


def _made(name: str, folders: Sequence[str], assignments: Sequence[str], files: Sequence[str]) -> Dataset:
    """Make a dataset as a run would, with its folder and settings."""
    from fairbench import plugins as plugin_loader
    from fairbench.benchmark.benchmark import Benchmark
    from fairbench.benchmark.overrides import override
    from fairbench.data.locations import shared_roots
    from fairbench.jobs.job import Choice

    plugins = plugin_loader.load(("dataset",), files)
    warn_of_broken(plugins)
    settings = override(Benchmark(datasets=(name,)), assignments, plugins).settings.get(name, {})
    dataset: Dataset = plugins.make(
        "dataset", Choice(name, settings), shared_roots(folders, plugins.folders([name]))
    )
    return dataset
