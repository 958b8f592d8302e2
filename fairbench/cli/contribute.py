"""The commands for whoever writes a plugin: its first lines, and the conformance kit."""

from __future__ import annotations

import inspect
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fairbench.cli.options import console, json_option, plugin_option, print_json, say, warn_of_broken
from fairbench.errors import FairbenchError, named, visible
from fairbench.settings import suggest

if TYPE_CHECKING:
    from fairbench.plugins import Plugins

KINDS = ("method", "dataset", "backbone", "metric")


def add_to(cli: click.Group) -> None:
    """Give a command line these commands."""
    cli.add_command(new)
    cli.add_command(check)


@click.command()
@click.argument("kind", type=click.Choice([*KINDS, "benchmark"]))
@click.argument("name")
@click.option("--package", is_flag=True, help="A package with entry point, test and README, not a single file.")
@click.option("--into", type=click.Path(path_type=Path), default=".", help="Folder to write into (default: here).")
def new(kind: str, name: str, package: bool, into: Path) -> None:
    """Write the first lines of a plugin, which pass `fairbench check` as they stand."""
    from fairbench.cli import scaffold

    scaffold.check_name(name)
    if kind == "benchmark":
        if package:
            raise FairbenchError("a benchmark is one file", "leave out --package")
        from fairbench.benchmark.benchmark import bundled_benchmarks
        from fairbench.cli.options import DEFAULT

        paths = scaffold.write({f"{name}.toml": bundled_benchmarks()[DEFAULT].read_text(encoding="utf-8")}, into)
        then = f"fairbench plan {paths[0]}"
    else:
        from fairbench import plugins as plugin_loader

        offered = plugin_loader.load((kind,))
        if name in offered.tables[kind]:
            owner = offered.owners[kind, name]
            raise FairbenchError(f"there is a {kind} {name} already, of {owner}", "choose another name")
        paths = scaffold.write(scaffold.files(kind, name, package), into)
        then = f"fairbench check {paths[0]}"
    for path in paths:
        click.echo(f"written: {visible(str(path))}")
    click.echo(f"next: {visible(then)}")


@dataclass(frozen=True)
class Finding:
    """What one check says of one plugin: nothing where it is kept, else the accusation."""

    kind: str
    name: str
    check: str
    purpose: str
    fault: str | None


@click.command()
@click.argument("target", metavar="NAME|FILE")
@click.option("--data", "folders", multiple=True, metavar="NAME=PATH", help="Where a dataset lies; repeatable.")
@plugin_option
@json_option
def check(target: str, folders: tuple[str, ...], files: tuple[str, ...], as_json: bool) -> None:
    """Run the conformance kit on a plugin, by NAME or all that a FILE offers; each check says what it is for."""
    from fairbench import plugins as plugin_loader

    alone = target.endswith(".py") or os.sep in target
    plugins = plugin_loader.load(files=(*files, target) if alone else files)
    warn_of_broken(plugins)
    findings: list[Finding] = []
    for kind, name in _offered(plugins, Path(target)) if alone else _named(plugins, target):
        if not as_json:
            click.echo(f"{kind} {visible(name)}")
        for finding in _checked(plugins, kind, name, folders):
            findings.append(finding)
            if not as_json:
                _show(finding)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    faults = sum(finding.fault is not None for finding in findings)
    if faults:
        say(f"{faults} of {len(findings)} checks found a fault")
        click.get_current_context().exit(1)


def _named(plugins: Plugins, name: str) -> list[tuple[str, str]]:
    chosen = [(kind, name) for kind in KINDS if name in plugins.tables[kind]]
    if not chosen:
        known = {name for kind in KINDS for name in plugins.tables[kind]}
        error = suggest("method, dataset, backbone or metric", name, known)
        raise FairbenchError(error.message, f"{error.hint}; a file is checked by its path")
    return chosen


def _offered(plugins: Plugins, path: Path) -> list[tuple[str, str]]:
    """List what a file offers of the kinds that have checks; its owner opens with the file's name."""
    offered = [key for key, owner in plugins.owners.items() if owner.rpartition(" ")[0] == path.name]
    chosen = [key for key in offered if key[0] in KINDS]
    if not chosen:
        hooks = ", ".join(f"fairbench_{kind}s" for kind in KINDS)
        others = ", ".join(f"the {kind} {name}" for kind, name in sorted(offered))
        what = f"{others}, for which there are no checks" if others else "nothing to check"
        raise FairbenchError(f"{path} offers {what}", f"write one of the hooks {hooks} below @hookimpl")
    return sorted(chosen)


class NoExample(FairbenchError):
    """A dataset could not write its example, so that nothing of it can be checked."""


def _checked(plugins: Plugins, kind: str, name: str, folders: tuple[str, ...]) -> Iterator[Finding]:
    """Run a kind's checks on a plugin."""
    try:
        with _subject(plugins, kind, name, folders) as subject:
            yield from _findings(kind, name, subject)
    except NoExample as error:
        purpose = "It writes a small made-up folder in its own format, which the other checks read."
        yield Finding(kind, name, "example", purpose, error.message)


@contextmanager
def _subject(plugins: Plugins, kind: str, name: str, folders: tuple[str, ...]) -> Iterator[Any]:
    """Yield what the checks of a kind take: a class, a metric, or a dataset with its folder or its example's."""
    item = plugins.find(kind, name)
    if kind == "metric" and item.checkpoint and not os.environ.get(item.checkpoint):
        raise FairbenchError(f"metric {name} is measured by a model: set {item.checkpoint}", item.obtain)
    if kind != "dataset":
        yield item
        return
    from fairbench.data.locations import shared_roots
    from fairbench.jobs.job import Choice

    if item.folder is None or folders:
        yield plugins.make("dataset", Choice(name), shared_roots(folders, plugins.folders([name])))
        return
    from fairbench.data.dataset import guarded

    with tempfile.TemporaryDirectory() as folder:
        try:
            settings = guarded(item, "example", lambda: dict(item.example(Path(folder))))
        except (FairbenchError, OSError) as error:
            raise NoExample(str(error)) from error
        choice = Choice(name, settings)
        yield plugins.make("dataset", choice, {name: Path(folder)})


def _findings(kind: str, name: str, subject: Any) -> Iterator[Finding]:
    from fairbench import testing

    checks: dict[str, tuple[Callable[[Any], None], ...]] = {
        "method": testing.METHOD_CHECKS,
        "dataset": testing.DATASET_CHECKS,
        "backbone": testing.BACKBONE_CHECKS,
        "metric": testing.METRIC_CHECKS,
    }
    for one in checks[kind]:
        purpose = " ".join((inspect.getdoc(one) or "").split("\n\n")[0].split())
        label = one.__name__.removeprefix("check_").replace("_", " ")
        yield Finding(kind, name, label, purpose, _fault(one, subject))


def _fault(one: Callable[[Any], None], subject: Any) -> str | None:
    try:
        one(subject)
    except AssertionError as error:
        return " ".join(str(error).split()) or "the check says no more"
    except (Exception, SystemExit) as error:
        return named(error)
    return None


def _show(finding: Finding) -> None:
    from rich.text import Text

    out = console()
    mark = Text("  ok     ", "green") if finding.fault is None else Text("  FAULT  ", "bold red")
    out.print(mark + Text(f"{finding.check}: ", "bold") + Text(finding.purpose), soft_wrap=True)
    if finding.fault is not None:
        out.print(Text(f"         {finding.fault}"), soft_wrap=True)
