"""The commands that look at a dataset before anything is trained on it."""

from __future__ import annotations

import click

from fairbench.commands import warn_of_broken


def add_to(cli: click.Group) -> None:
    """Give a command line these commands."""
    group = cli.group("data", help="Look at datasets.")(lambda: None)
    group.add_command(check)


@click.command()
@click.argument("name")
@click.option("--data", "folders", multiple=True, metavar="NAME=PATH", help="Where a dataset lies.")
@click.option("--set", "assignments", multiple=True, metavar="NAME.KEY=VALUE", help="A setting; repeatable.")
@click.option("--plugin", "files", multiple=True, metavar="FILE", help="A plugin in a single file; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(
    name: str, folders: tuple[str, ...], assignments: tuple[str, ...], files: tuple[str, ...], as_json: bool
) -> None:
    """Check a dataset: counts per split, class and group, missing values, unreadable files, leakage, licence."""
    import json

    from fairbench import check as checks
    from fairbench import overview
    from fairbench import plugins as plugin_loader
    from fairbench.benchmark import Benchmark
    from fairbench.choices import override
    from fairbench.job import Choice
    from fairbench.roots import roots

    plugins = plugin_loader.load(("dataset",), files)
    warn_of_broken(plugins)
    needs = [name] if plugins.find("dataset", name).needs_root else []
    settings = override(Benchmark(datasets=(name,)), assignments, plugins).settings.get(name, {})
    report = checks.check(plugins.make("dataset", Choice(name, settings), roots(folders, needs)))
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=1, ensure_ascii=False))
    else:
        checks.render(report, overview.console())
