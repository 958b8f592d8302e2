"""The commands that run a benchmark, or say what running it would take."""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fairbench.cli.options import (
    console,
    json_option,
    metrics,
    print_json,
    say,
    warn_of_broken,
    warn_of_metrics,
    what_to_run,
)
from fairbench.errors import FairbenchError

if TYPE_CHECKING:
    from fairbench.benchmark.benchmark import Benchmark
    from fairbench.benchmark.launcher import Launcher
    from fairbench.benchmark.plan import Planned
    from fairbench.benchmark.power_plan import Assumed
    from fairbench.benchmark.pull import Setup
    from fairbench.data.dataset import Dataset
    from fairbench.jobs.job import Job
    from fairbench.jobs.store import Store
    from fairbench.plugins import Plugins


WARNINGS = 10  # lines of what jobs have warned of, at most
ALONE = "--shard divides a backbone over the processes that share a job, and"
SEVERAL = "start several: by torchrun, or by a launcher that does (`fairbench list launchers`, docs/scale.md)"


class Finite(click.FloatRange):
    """A number in a range; not a number is in none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Refuse what is not finite."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


def add_to(cli: click.Group) -> None:
    """Give a command line these commands."""
    for command in (run, plan):
        cli.add_command(command)


@click.command()
@what_to_run
@click.option("--name", metavar="NAME", help="What this sweep is called (default: as the benchmark, or the next).")
@click.option("--dry-run", is_flag=True, help="Print the plan and stop (the same as `fairbench plan`).")
@click.option("--probe", is_flag=True, help="Also say how well attributes can be read from the trained models.")
@click.option("--retry-failed", is_flag=True, help="Run jobs again that ended in an error.")
@click.option(
    "--track",
    multiple=True,
    metavar="NAME",
    help="Tell this tracker of every step (`fairbench list trackers`); repeatable.",
)
@click.option("--workers", type=click.IntRange(1), help="Processes (default: one for each GPU, or each CPU core).")
@click.option("--micro-batch", type=click.IntRange(1), help="Examples computed at once (default: the whole batch).")
@click.option("--shard", is_flag=True, help="Divide a backbone's weights over the processes that share a job.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="CPU threads of a worker.")
@click.option("--loaders", type=click.IntRange(0), default=2, show_default=True, help="A worker's image readers.")
@click.option(
    "--checkpoint-every",
    type=Finite(0, 1e6),
    default=10.0,
    show_default=True,
    metavar="MINUTES",
    help="How often a training leaves what it can go on from.",
)
@click.option(
    "--feature-cache",
    type=Finite(0, 1e6),
    default=8.0,
    show_default=True,
    metavar="GIB",
    help="Memory for image features; more stay on disk.  [0: images are seen anew each time]",
)
@click.option(
    "--launcher",
    metavar="NAME",
    default="local",
    show_default=True,
    help="Who gets the jobs done: processes here, or a launcher (`fairbench list launchers`).",
)
@click.option("--launch", "launching", multiple=True, metavar="KEY=VALUE", help="A launcher's setting; repeatable.")
def run(**chosen: Any) -> None:
    """Run a benchmark (default: quickstart) and print its leaderboard; what is done already is not done again.

    BENCHMARK is a bundled name (`fairbench list benchmarks`) or a TOML file; the options override it.
    """
    _, well = execute(**chosen)
    if not well:
        click.get_current_context().exit(1)


def execute(
    name: str | None,
    dry_run: bool,
    probe: bool,
    retry_failed: bool,
    track: tuple[str, ...],
    launcher: str,
    launching: tuple[str, ...],
    workers: int | None,
    micro_batch: int | None,
    shard: bool,
    threads: int,
    loaders: int,
    checkpoint_every: float,
    feature_cache: float,
    **chosen: Any,
) -> tuple[Path | None, bool]:
    """Do what `fairbench run` does; return the board's file, None of a dry run, and whether all jobs ended well."""
    from fairbench.benchmark import launch, sweep
    from fairbench.benchmark.pull import Setup
    from fairbench.jobs.probe import Probe
    from fairbench.jobs.store import Store
    from fairbench.jobs.worker_options import WorkerOptions

    store = Store(chosen["out"])
    plugins, benchmark, planned, roots = _planned(dry_run, **chosen)
    for tracker in track:
        plugins.find("tracker", tracker).check()
    elsewhere = _launcher(plugins, launcher, launching, workers, shard)
    benchmark = replace(benchmark, probe=benchmark.probe or probe)
    reading = Probe() if benchmark.probe else None
    missing = store.missing(planned.jobs, retry_failed, reading)
    if dry_run:
        _print_plan(planned, store, benchmark.probe, retry_failed)
        return None, True
    benchmark = sweep.named(store, sweep.pinned(benchmark, planned), name)
    if launch.leads() and missing:
        _announce(benchmark, planned, missing, store)
    how = WorkerOptions(
        micro_batch, int(feature_cache * 2**30), loaders, threads, reading, track, 60 * checkpoint_every, shard
    )
    files = tuple(map(os.path.realpath, chosen["files"]))
    setup = Setup(store.address, roots, files, how, plugins.unkeyed)
    _do(missing, setup, planned, workers, elsewhere)
    _publish(store, {job.key for job in planned.jobs}, benchmark, chosen["files"], changed=bool(missing))
    _tell_warnings(store, missing)
    return store.sheet(benchmark.name, "json"), _well(store, planned)


def _open(datasets: Sequence[Dataset]) -> None:
    """Open an image of each dataset while the workers start: what a dataset draws or unpacks once is then there.

    What fails here fails in a worker, too, which says so.
    """
    from fairbench.data.dataset import rows

    for dataset in datasets:
        with contextlib.suppress(Exception):
            dataset.image({str(name): value for name, value in rows(dataset).iloc[0].items()})


def _do(
    missing: Sequence[Job], setup: Setup, planned: Planned, workers: int | None, elsewhere: Launcher | None
) -> None:
    """Get the missing ones of the planned jobs done, here or elsewhere, and show how they come along."""
    from fairbench.benchmark import launch, progress
    from fairbench.benchmark import launcher as launchers
    from fairbench.benchmark.forecast import Forecast

    if not missing:
        return
    with progress.watch(len(planned.jobs), Forecast.of(missing, planned)) as watch:
        if elsewhere:
            launchers.launch(elsewhere, launchers.Work(tuple(missing), setup), watch)
        else:
            if not launch.together():
                threading.Thread(target=_open, args=(tuple(planned.datasets.values()),), daemon=True).start()
            launch.launch(missing, setup, workers or launch.default_workers(len(missing)), watch)


def _launcher(
    plugins: Plugins, name: str, settings: Sequence[str], workers: int | None, shard: bool
) -> Launcher | None:
    """Make the launcher that was asked for, None for processes of this machine; what is wrong is said now."""
    from fairbench.benchmark import launch

    if name == "local":
        if settings:
            raise FairbenchError(f"--launch {settings[0]}: processes here have no settings", "name a --launcher")
        if shard and not launch.together():
            raise FairbenchError(f"{ALONE} here is one", SEVERAL)
        return None
    kind = plugins.find("launcher", name)
    if workers is not None:
        raise FairbenchError("--workers is for processes here", f"say --launch KEY=VALUE (`fairbench list {name}`)")
    if launch.together():
        raise FairbenchError(f"--launcher {name} was started once for each device", "start it once, by itself")
    if shard and not kind.several:
        raise FairbenchError(f"{ALONE} --launcher {name} starts one for each", SEVERAL)
    pairs = [one.partition("=") for one in settings]
    for one, (_, equals, _) in zip(settings, pairs, strict=True):
        if not equals:
            raise FairbenchError(f"--launch {one} has no value", f"write {one}=VALUE")
    kind.check()
    made: Launcher = kind(**{key.strip(): value.strip() for key, _, value in pairs})
    return made


def _tell_warnings(store: Store, jobs: Sequence[Job]) -> None:
    """Say what the jobs that ran have warned of, each warning once; their records keep them all."""
    told: dict[str, list[str]] = {}
    for record in filter(None, map(store.record, jobs)):
        for text in record.warnings:
            told.setdefault(text, []).append(record.job.key)
    for text, keys in [*told.items()][:WARNINGS]:
        many = f"{len(keys)} jobs, first " if len(keys) > 1 else ""
        say(f"warning: {text} ({many}{store.name}/{keys[0]})")
    if len(told) > WARNINGS:
        say(f"and {len(told) - WARNINGS} other warnings: `fairbench show {store.name}/KEY` has them")


def _well(store: Store, planned: Planned) -> bool:
    """Name what did not come to a good end, and return whether all did."""
    from fairbench.jobs.store import ASIDE

    refused = store.refused(planned.jobs)
    for one in refused:
        say(f"error: {one}\nhint: {ASIDE}")
    failed = store.missing(planned.jobs, retry_failed=True)
    if failed:
        say("some jobs failed; --retry-failed runs them again")
    return not failed and not refused


def _publish(store: Store, keys: set[str], benchmark: Benchmark, files: Sequence[str], changed: bool) -> None:
    """Build the leaderboard from what is on disk, print it, and write it beside the results.

    Where nothing was run, as in a folder that cannot be written to, printing is enough.
    """
    from fairbench import report
    from fairbench.benchmark import launch, sweep
    from fairbench.leaderboard import build as leaderboard
    from fairbench.report import terminal

    if not launch.leads():
        return
    name = benchmark.name
    asked = sorted({"+".join(map(str.strip, entry.split("+"))) for entry in benchmark.attributes})
    rank, planned, offered = benchmark.rank, benchmark.primary, metrics(files)
    board = leaderboard.build(store, keys, asked or None, metrics=offered, ranking=rank, primary=planned)
    warn_of_metrics({one.measure.name: one.missing for table in board.tables for one in table.further})
    terminal.show(board, console())
    try:
        with store.writing():
            sweep.write(store, benchmark)
            for kind in ("md", "json"):
                report.write(board, store.sheet(name, kind), kind)
    except FairbenchError as error:
        if changed:
            raise
        say(f"not written: {error.message}")
        return
    store.send_sheets(name)
    written = f"{store.name}/{name}"
    click.echo(f"written: {written}.md and .json (aggregates only); {name}.toml runs the same again")


@click.command()
@what_to_run
@click.option("--power", is_flag=True, help="Print what the test sets can show instead: detectable gaps.")
@click.option("--accuracy", default=0.8, show_default=True, help="Assumed accuracy, a fraction (--power).")
@click.option(
    "--agreement", default=0.85, show_default=True, help="Assumed share that two methods agree on (--power)."
)
@click.option("--gap", default=0.1, show_default=True, help="Assumed gap of the baseline, a fraction (--power).")
@json_option
def plan(power: bool, accuracy: float, agreement: float, gap: float, as_json: bool, **chosen: Any) -> None:
    """Print the jobs of a benchmark without running them: what is shared, what is done, what it costs."""
    from fairbench.benchmark import power_plan as foresight
    from fairbench.jobs.store import Store

    store = Store(chosen["out"])
    if power:
        _foresee(foresight.Assumed(accuracy, agreement, gap), as_json, **chosen)
        return
    context = click.get_current_context()
    for name in ("accuracy", "agreement", "gap"):
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise FairbenchError(f"--{name} is assumed of what test sets can show", "add --power")
    _, benchmark, planned, _ = _planned(True, **chosen)
    _print_plan(planned, store, benchmark.probe, as_json=as_json)


def _foresee(assumed: Assumed, as_json: bool, **chosen: Any) -> None:
    """Print what test sets can show, from their tables alone: no image need be there yet."""
    from fairbench.benchmark import power_plan as foresight
    from fairbench.benchmark.plan import attributes_of, make_dataset

    plugins, benchmark, roots = _resolved(**chosen)
    tests = []
    for name in benchmark.datasets:
        dataset = make_dataset(name, benchmark, plugins, roots)
        dataset.unseen = True
        for attributes in attributes_of(benchmark, dataset):
            tests.append(
                foresight.foresee(dataset, "+".join(attributes), benchmark.unrecorded, assumed, benchmark.folds)
            )
    if as_json:
        print_json({"assumed": asdict(assumed), "tests": [asdict(one) for one in tests]})
    else:
        foresight.show(tests, assumed, console())


def _planned(planning: bool, **chosen: Any) -> tuple[Plugins, Benchmark, Planned, dict[str, Path]]:
    """Resolve the choices to jobs; every wrong name is an error here, before anything expensive starts."""
    from fairbench.benchmark.plan import jobs
    from fairbench.benchmark.sweep import check_fingerprints

    plugins, benchmark, roots = _resolved(**chosen)
    planned = jobs(benchmark, plugins, roots, planning)
    for other in check_fingerprints(benchmark, planned):
        say(f"note: {other}")
    return plugins, benchmark, planned, roots


def _resolved(
    which: str,
    assignments: Sequence[str],
    data: Sequence[str],
    out: str,
    no_baseline: bool,
    no_controls: bool,
    folds: int | None,
    files: Sequence[str],
    **lists: str | None,
) -> tuple[Plugins, Benchmark, dict[str, Path]]:
    """Return the plugins, the benchmark as the command line has it, and where its data and weights lie."""
    from fairbench import plugins as plugin_loader
    from fairbench.benchmark import benchmark as benchmarks
    from fairbench.benchmark import overrides as choices
    from fairbench.benchmark.sweep import check_providers
    from fairbench.data.locations import shared_roots

    here = os.getcwd()
    plugins = plugin_loader.load(files=files)
    os.chdir(here)  # wherever a plugin went, paths on the command line mean what they meant
    warn_of_broken(plugins)
    benchmark = choices.narrow(benchmarks.load(which), lists)
    benchmark = replace(
        benchmark,
        baseline=benchmark.baseline and not no_baseline,
        controls=benchmark.controls and not no_controls,
    )
    for other in check_providers(benchmark, plugins):
        say(f"note: {other}")
    given = assignments if folds is None else [f"run.folds={folds}", *assignments]
    benchmark = choices.override(benchmark, given, plugins)
    places = {**shared_roots(data, plugins.folders(benchmark.datasets)), **benchmark.places}
    roots = {name: folder.absolute() for name, folder in places.items()}
    return plugins, benchmark, roots


def _announce(benchmark: Benchmark, planned: Planned, missing: Sequence[Job], store: Store) -> None:
    """Write down what is going to run: the sweep, to run it again, and its jobs, for who watches; the missing
    ones that failed have not run.
    """
    from fairbench.benchmark import sweep

    if store.remote:
        say(f"note: predictions, a row for each patient, go to {store.name}")
    for job in missing:
        store.forget_failure(job)
    sweep.write(store, benchmark)
    store.announce(planned.jobs)


def _print_plan(
    planned: Planned, store: Store, probing: bool, retry_failed: bool = False, as_json: bool = False
) -> None:
    from fairbench.benchmark import cost

    costs = cost.estimate(planned, store, retry_failed)
    if as_json:
        print_json([{**asdict(one), "job": one.job.to_json()} for one in costs])
    else:
        cost.show(costs, console())
    if probing:
        say("note: times are without the probe, which may take longer than a small training")
    for refused in store.refused(planned.jobs):
        say(f"note: {refused}")
    for error in planned.absent:
        say(f"note: to run this, {error.message}: {error.hint}")
