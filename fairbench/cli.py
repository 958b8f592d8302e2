"""The command line: it parses, calls one function, prints."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fairbench import __version__, commands, data_commands, probe_commands
from fairbench.errors import FairbenchError
from fairbench.settings import suggest

if TYPE_CHECKING:
    from fairbench.benchmark import Benchmark, Planned
    from fairbench.plugins import Plugins
    from fairbench.store import Store

DEFAULT = "quickstart"


class Group(click.Group):
    """A group whose errors are two lines on stderr: `error: …` and `hint: …`."""

    group_class = type

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run, turning expected failures into exit status 2 and Ctrl-C into 130."""
        kwargs["standalone_mode"] = False
        try:
            _add_plugin_commands(self)
            result = super().main(*args, **kwargs)
        except FairbenchError as error:
            click.echo(f"error: {error.message}", err=True)
            if error.hint:
                click.echo(f"hint: {error.hint}", err=True)
            sys.exit(2)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message())
            sys.exit(2)
        except click.ClickException as error:
            where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "fairbench"
            click.echo(f"error: {error.format_message()}\nhint: see `{where} --help`", err=True)
            sys.exit(2)
        except OSError as error:
            where = f": {error.filename}" if error.filename else ""
            click.echo(f"error: {error.strerror or error}{where}", err=True)
            sys.exit(2)
        except (click.Abort, KeyboardInterrupt):
            click.echo("interrupted", err=True)
            sys.exit(130)
        sys.exit(result if isinstance(result, int) else 0)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Meet an unknown command with the nearest."""
        if args and self.get_command(ctx, args[0]) is None:
            raise suggest("command", args[0], self.list_commands(ctx))
        return super().resolve_command(ctx, args)


def _add_plugin_commands(group: click.Group) -> None:
    """Let plugins add their commands; a broken one is named, and all else works."""
    from fairbench import plugins

    loaded = plugins.load(kinds=())
    loaded.tell("fairbench_commands", cli=group)
    commands.warn_of_broken(loaded)


@click.group("fairbench", cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fairbench")
def main() -> None:
    """Which debiasing method makes a medical vision-language model fairer, and is the difference real?

    Start with `fairbench run`: it needs no data, no download and no GPU.
    """


commands.add_to(main)
data_commands.add_to(main)
probe_commands.add_to(main)


def _choices(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say what to run; `run` and `plan` share them."""
    options = [
        click.argument("which", metavar="[BENCHMARK]", default=DEFAULT, required=False),
        click.option("--datasets", help="Datasets, separated by commas."),
        click.option("--backbones", help="Backbones, separated by commas."),
        click.option("--methods", help="Methods, separated by commas."),
        click.option("--attr", "attributes", help="Attributes: comma crosses, + joins (race+gender)."),
        click.option("--seeds", help="Seeds, such as 0,1,2."),
        click.option(
            "--set", "assignments", multiple=True, metavar="NAME.KEY=VALUE", help="A setting; repeatable."
        ),
        click.option("--data", multiple=True, metavar="NAME=PATH", help="Where a dataset lies; repeatable."),
        click.option("--out", default="runs", show_default=True, help="Folder of results; stays on this machine."),
        click.option("--no-baseline", is_flag=True, help="Do not add the baseline method."),
        click.option(
            "--no-controls", is_flag=True, help="Do not add the controls (rows that no contender may fail to beat)."
        ),
        click.option(
            "--plugin", "files", multiple=True, metavar="FILE", help="A plugin in a single file; repeatable."
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@main.command()
@_choices
@click.option("--dry-run", is_flag=True, help="Print the plan and stop (the same as `fairbench plan`).")
@click.option("--probe", is_flag=True, help="Also say how well attributes can be read from the trained models.")
@click.option("--retry-failed", is_flag=True, help="Run jobs again that ended in an error.")
@click.option("--workers", type=click.IntRange(1), help="Processes (default: one for each GPU, or each CPU core).")
@click.option("--micro-batch", type=click.IntRange(1), help="Examples computed at once (default: the whole batch).")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="CPU threads of a worker.")
@click.option("--loaders", type=click.IntRange(0), default=2, show_default=True, help="A worker's image readers.")
@click.option("--feature-cache", default=8.0, show_default=True, metavar="GIB", help="Memory for image features.")
def run(
    dry_run: bool,
    probe: bool,
    retry_failed: bool,
    workers: int | None,
    micro_batch: int | None,
    threads: int,
    loaders: int,
    feature_cache: float,
    **chosen: Any,
) -> None:
    """Run a benchmark (default: quickstart) and print its leaderboard; what is done already is not done again.

    BENCHMARK is a bundled name (`fairbench list benchmarks`) or a TOML file; the options override it.
    """
    from dataclasses import replace

    from fairbench import launch, progress
    from fairbench.readable import Probe
    from fairbench.store import Store

    _, benchmark, planned, roots = _planned(dry_run, **chosen)
    benchmark = replace(benchmark, probe=benchmark.probe or probe)
    reading = Probe() if benchmark.probe else None
    store = Store(chosen["out"])
    missing = store.missing(planned.jobs, retry_failed, reading)
    if dry_run:
        _print_plan(planned, store, retry_failed)
        return
    if launch.leads():
        for job in missing:
            store.forget_failure(job)
        _write_benchmark(benchmark, store)
    setup = launch.Setup(
        out=str(store.root),
        roots=roots,
        plugin_files=tuple(str(Path(file).resolve()) for file in chosen["files"]),
        micro_batch=micro_batch,
        feature_bytes=int(feature_cache * 2**30),
        loaders=loaders,
        threads=threads,
        probe=reading,
    )
    if missing:
        count = workers or launch.default_workers(len(missing))
        with progress.watch(len(planned.jobs), len(planned.jobs) - len(missing)) as watch:
            launch.launch(missing, setup, count, watch)
    if launch.leads():
        _publish(store, {job.key for job in planned.jobs}, benchmark)
    if store.missing(planned.jobs, retry_failed=True):
        click.echo("some jobs failed; --retry-failed runs them again", err=True)
        click.get_current_context().exit(1)


def _publish(store: Store, keys: set[str], benchmark: Benchmark) -> None:
    """Build the leaderboard from what is on disk, print it, and write it beside the results."""
    from fairbench import leaderboard, overview, render
    from fairbench.render import terminal

    name = benchmark.name
    asked = sorted({"+".join(map(str.strip, entry.split("+"))) for entry in benchmark.attributes})
    board = leaderboard.build(store, keys, asked or None, metrics=commands.metrics())
    with store.writing():
        for kind in ("md", "json"):
            render.write(board, store.root / f"{name}.{kind}", kind)
    terminal.show(board, overview.console())
    click.echo(f"written: {store.root / name}.md and .json (aggregates only); {name}.toml runs the same again")


@main.command()
@_choices
@click.option("--power", is_flag=True, help="Print what the test sets can show instead: detectable gaps.")
@click.option("--accuracy", default=0.8, show_default=True, help="Assumed accuracy, a fraction (--power).")
@click.option(
    "--agreement", default=0.85, show_default=True, help="Assumed share that two methods agree on (--power)."
)
@click.option("--gap", default=0.1, show_default=True, help="Assumed gap of the baseline, a fraction (--power).")
def plan(power: bool, accuracy: float, agreement: float, gap: float, **chosen: Any) -> None:
    """Print the jobs of a benchmark without running them: what is shared, what is done, what it costs."""
    from fairbench import foresight, overview
    from fairbench.store import Store

    assumed = foresight.Assumed(accuracy, agreement, gap)
    _, benchmark, planned, _ = _planned(True, **chosen)
    if power:
        attributes = {"+".join(job.attributes) for job in planned.jobs if job.attributes} or benchmark.attributes
        found = [
            foresight.foresee(dataset, attribute, benchmark.unrecorded, assumed)
            for dataset in planned.datasets.values()
            for attribute in sorted(attributes)
            if set(attribute.split("+")) <= set(dataset.attributes)
        ]
        foresight.show(found, assumed, overview.console())
        return
    _print_plan(planned, Store(chosen["out"]))


def _planned(
    planning: bool,
    which: str,
    assignments: Sequence[str],
    data: Sequence[str],
    out: str,
    no_baseline: bool,
    no_controls: bool,
    files: Sequence[str],
    **lists: str | None,
) -> tuple[Plugins, Benchmark, Planned, dict[str, Path]]:
    """Resolve the choices to jobs; every wrong name is an error here, before anything expensive starts."""
    from dataclasses import replace

    from fairbench import benchmark as benchmarks
    from fairbench import choices
    from fairbench import plugins as plugin_loader
    from fairbench.roots import shared_roots

    plugins = plugin_loader.load(files=files)
    commands.warn_of_broken(plugins)
    benchmark = choices.narrow(benchmarks.load(which), lists)
    benchmark = replace(
        benchmark,
        baseline=benchmark.baseline and not no_baseline,
        controls=benchmark.controls and not no_controls,
    )
    benchmark = choices.override(benchmark, assignments, plugins)
    found = {**shared_roots(data, plugins.folders(benchmark.datasets)), **benchmark.places}
    return plugins, benchmark, benchmarks.jobs(benchmark, plugins, found, planning), found


def _write_benchmark(benchmark: Benchmark, store: Store) -> None:
    from fairbench.benchmark import to_toml

    text = f"# written by fairbench {__version__}: `fairbench run` of this file runs the same jobs\n"
    with store.writing():
        store.root.mkdir(parents=True, exist_ok=True)
        (store.root / f"{benchmark.name}.toml").write_text(text + to_toml(benchmark), encoding="utf-8")


def _print_plan(planned: Planned, store: Store, retry_failed: bool = False) -> None:
    from fairbench import cost, overview

    cost.show(cost.estimate(planned, store, retry_failed), overview.console())
    for error in planned.absent:
        click.echo(f"note: to run this, {error.message}: {error.hint}", err=True)


@main.command("list")
@click.argument(
    "kind", type=click.Choice(["datasets", "backbones", "methods", "metrics", "benchmarks"]), required=False
)
@click.option("--plugin", "files", multiple=True, metavar="FILE", help="A plugin in a single file; repeatable.")
def list_(kind: str | None, files: tuple[str, ...]) -> None:
    """List what is on offer, with settings, and which plugins are broken."""
    from fairbench import overview

    overview.show(kind, files)


@main.command()
def doctor() -> None:
    """Print versions, devices, disk, and every plugin's health."""
    from fairbench import overview

    overview.doctor()
