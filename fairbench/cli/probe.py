"""The command that reads attributes from the hidden states of finished jobs."""

from __future__ import annotations

from pathlib import Path

import click

from fairbench.cli.options import console, plugin_option, say, warn_of_broken


def add_to(cli: click.Group) -> None:
    """Give a command line this command."""
    cli.add_command(probe)


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--layer",
    type=click.Choice(["first", "middle", "last"]),
    default="middle",
    show_default=True,
    help="Read the hidden states of this layer of the language model.",
)
@click.option(
    "--tokens",
    type=click.Choice(["image", "text", "all"]),
    default="image",
    show_default=True,
    help="Read the mean over these tokens.",
)
@click.option("--data", multiple=True, metavar="NAME=PATH", help="Where a dataset lies; repeatable.")
@click.option("--backbones", default="", help="Where backbones of the form NAME:FOLDER lie, separated by commas.")
@plugin_option
@click.option("--workers", type=click.IntRange(1), help="Processes (default: one for each GPU, or each CPU core).")
def probe(
    runs: tuple[Path, ...],
    layer: str,
    tokens: str,
    data: tuple[str, ...],
    backbones: str,
    files: tuple[str, ...],
    workers: int | None,
) -> None:
    """Say how well each attribute can be read from what the trained models compute; kept in their records.

    RUNS are folders of runs, or of single jobs. A linear probe learns from the training split's pooled
    hidden states and is tested on the test split's. Nothing is trained again.
    """
    from fairbench import plugins as plugin_loader
    from fairbench.benchmark import launch, progress
    from fairbench.benchmark.forecast import Forecast
    from fairbench.benchmark.pull import Setup
    from fairbench.data.locations import places, shared_roots
    from fairbench.jobs.probe import Probe
    from fairbench.jobs.store import Store, is_job
    from fairbench.jobs.worker_options import WorkerOptions
    from fairbench.report import probes

    plugins = plugin_loader.load(files=files)
    warn_of_broken(plugins)
    asked = Probe(layer, tokens)  # type: ignore[arg-type]
    plugin_files = tuple(str(Path(file).resolve()) for file in files)
    failing = False
    for folder in runs:
        alone = is_job(folder)
        store = Store(folder.parent if alone else folder)
        contents = store.contents()
        jobs = [r.job for r in contents.records if not r.failed and (not alone or r.job.key == folder.name)]
        for refused in contents.refused:
            say(f"warning: {refused}")
        missing = store.missing(jobs, probe=asked)
        names = {job.dataset.name for job in missing}
        roots = {**shared_roots(data, plugins.folders(sorted(names))), **places(backbones.split(","))}
        setup = Setup(store.address, roots, plugin_files, WorkerOptions(probe=asked))
        if missing:
            forecast = Forecast(((job, None) for job in missing), again=True)
            with progress.watch(len(jobs), forecast) as watch:
                launch.launch(missing, setup, workers or launch.default_workers(len(missing)), watch)
        failing = failing or bool(store.missing(jobs, probe=asked))
        done = [record for job in jobs if (record := store.record(job)) is not None]
        probes.show([(record.job.title, record.readable) for record in done if record.readable], console())
    if failing:
        click.get_current_context().exit(1)
