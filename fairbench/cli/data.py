"""The commands that look at a dataset before anything is trained on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fairbench.cli.options import console, listed, plugin_option, print_json, say, warn_of_broken, which_dataset
from fairbench.errors import FairbenchError

if TYPE_CHECKING:
    from fairbench.data.dataset import Dataset
    from fairbench.data.report import RowTrial

LISTED = 2  # files of each folder
SPLITS = ("train", "val", "test")


def add_to(cli: click.Group) -> None:
    """Give a command line these commands."""
    group = cli.group("data", help="Look at datasets.")(lambda: None)
    for command in (check, sample, example):
        group.add_command(command)


@click.command()
@which_dataset
@click.option("--backbones", help="Also try whether these backbones, separated by commas, can take every row.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(
    name: str,
    folders: tuple[str, ...],
    assignments: tuple[str, ...],
    files: tuple[str, ...],
    backbones: str | None,
    as_json: bool,
) -> None:
    """Check a dataset: counts per split, class and group, missing values, unreadable files, leakage, licence.

    WHICH is a dataset, or a benchmark file, whose datasets are read as it says. The status is 1 where a problem is
    found.
    """
    from fairbench.data import report as checks
    from fairbench.report.dataset import render

    datasets, trials = _made(name, folders, assignments, files, listed(backbones or ""))
    reports = [checks.check(dataset, trials) for dataset in datasets]
    if as_json:
        data = [report.to_json() for report in reports]
        print_json(data[0] if len(data) == 1 else data)
    for report in () if as_json else reports:
        render(report, console())
    if not all(report.usable for report in reports):
        click.get_current_context().exit(1)


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

    WHICH is a dataset, or a benchmark file with one. The sheet shows the data's own images, so it must not be
    published where the data may not be.
    """
    from fairbench.data import contact_sheet

    (dataset, *more), _ = _made(name, folders, assignments, files)
    if more:
        names = ", ".join(item.name for item in (dataset, *more))
        raise FairbenchError(f"{name} has several datasets: {names}", "name one of them, with its --set")
    chosen = contact_sheet.sample(dataset, count, by, split)
    path = out or Path(f"{dataset.name}-sample.png")
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
    import shutil

    from fairbench import plugins as plugin_loader
    from fairbench.data.dataset import guarded

    plugins = plugin_loader.load(("dataset",), files)
    warn_of_broken(plugins)
    dataset = plugins.find("dataset", name)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FairbenchError(f"{path} is there already and is not an empty folder", "name a new folder")
    path.mkdir(parents=True, exist_ok=True)
    try:
        needed = guarded(dataset, "example", lambda: dict(dataset.example(path)))
    except BaseException:  # the folder was empty: what is in it is half an example
        shutil.rmtree(path, ignore_errors=True)
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


def _made(
    which: str,
    folders: Sequence[str],
    assignments: Sequence[str],
    files: Sequence[str],
    backbones: Sequence[str] = (),
) -> tuple[list[Dataset], Mapping[str, RowTrial]]:
    """Make a dataset, or those of a benchmark file, as a run would, and what tries out backbones on their rows."""
    from dataclasses import replace

    from fairbench import plugins as plugin_loader
    from fairbench.benchmark import benchmark as benchmarks
    from fairbench.benchmark.overrides import override
    from fairbench.data.locations import shared_roots
    from fairbench.jobs.job import Choice

    of_file = which.endswith(".toml")
    kinds = plugin_loader.KINDS if of_file else ("dataset", "backbone") if backbones else ("dataset",)
    plugins = plugin_loader.load(kinds, files)
    warn_of_broken(plugins)
    benchmark = benchmarks.load(which) if of_file else benchmarks.Benchmark(datasets=(which,))
    if backbones or not of_file:
        benchmark = replace(benchmark, backbones=tuple(backbones))
    benchmark = override(benchmark, assignments, plugins)
    roots = shared_roots(folders, plugins.folders(benchmark.datasets))
    made: list[Dataset] = []
    if benchmark.methods and benchmark.backbones:
        from fairbench.benchmark.plan import parts

        made += parts(benchmark, plugins, roots).datasets.values()  # refuses what a plan would
    for name in () if made else benchmark.datasets:
        made.append(plugins.make("dataset", Choice(name, benchmark.settings.get(name, {})), roots))
        if of_file:
            from fairbench.benchmark.plan import attributes_of

            attributes_of(benchmark, made[-1])
    if not made:
        raise FairbenchError(f"{which} names no datasets", "give some with `datasets = [ … ]`")
    if not backbones:
        return made, {}
    from fairbench.benchmark.acceptance import trials

    return made, trials(benchmark, plugins)
