"""The commands that need only saved predictions: they import nothing heavy before they run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

    from fairbench.metric import Metric
    from fairbench.plugins import Plugins
    from fairbench.predictions import Predictions

FORMATS = ("terminal", "md", "html", "csv", "json")
CONVENTIONS = ("fairclip", "fairllava", "medfair", "ffb", "fairlearn")
SPLITS = ("test", "val", "all")

_attributes = click.option(
    "--attr",
    "attributes",
    required=True,
    metavar="A,B",
    help="Attributes to compare groups of; join several by + for their intersections.",
)
_unrecorded = click.option(
    "--unrecorded",
    "policy",
    default="keep",
    show_default=True,
    metavar="keep|drop|merge:G",
    help="Rows whose attribute is not recorded: a group of their own, in no group, or part of group G.",
)
_positive = click.option("--positive", metavar="NAME", help="Which of two classes is the positive one.")
_split = click.option("--split", type=click.Choice(SPLITS), default="test", show_default=True)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, values as fractions.")


def add_to(cli: click.Group) -> None:
    """Give a command line these commands."""
    for command in (score, compare, leaderboard, show, status):
        cli.add_command(command)


@click.command()
@click.argument("predictions", type=click.Path(path_type=Path))
@_attributes
@_json
@click.option("--as", "convention", type=click.Choice(CONVENTIONS), help="Print another project's numbers.")
@_unrecorded
@_positive
@_split
def score(
    predictions: Path,
    attributes: str,
    as_json: bool,
    convention: str | None,
    policy: str,
    positive: str | None,
    split: str,
) -> None:
    """Score a predictions file (parquet or csv): every group, every gap, and what chance gives.

    Columns: `target` and `answer` (names or class indices), optionally `score` (probability of the positive)
    or `p_0`, `p_1` …, `id`, `cluster` (rows of one patient), `split`, and one column per attribute.
    """
    wanted = _listed(attributes)
    table = _read(predictions, wanted, split, positive)
    from fairbench.render import sheet

    if convention:
        from fairbench.conventions import convert

        found = convert(table, wanted, convention, metrics(), policy)
        _print(found) if as_json else sheet.converted(found, _console())
        return
    from fairbench.judged import judged

    found = judged(table, wanted, metrics(), policy)
    _print(found) if as_json else sheet.scores(found, str(predictions), _console())


@click.command()
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@_attributes
@_json
@_unrecorded
@_positive
@_split
@click.option("--measure", metavar="METRIC", default="accuracy", show_default=True, help="Judge by this metric.")
def compare(
    a: Path,
    b: Path,
    attributes: str,
    as_json: bool,
    policy: str,
    positive: str | None,
    split: str,
    measure: str,
) -> None:
    """Compare two predictions files on the same patients, matched by id: A minus B, with p-values."""
    from fairbench.judged import compared
    from fairbench.measure import judge
    from fairbench.metric import ACCURACY
    from fairbench.render import sheet

    wanted = _listed(attributes)
    first, second = (_read(path, wanted, split, positive) for path in (a, b))
    known = {metric.name: metric for metric in (ACCURACY, *metrics())}
    found = compared(first, second, wanted, policy, judge(measure, known, first))
    _print(found) if as_json else sheet.comparison(found, str(a), str(b), _console())


@click.command()
@click.argument("runs", type=click.Path(path_type=Path))
@click.option("--format", "format", type=click.Choice(FORMATS), help="Default: that of --out, else terminal.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write to a file instead.")
@click.option("--title", default="Leaderboard", show_default=True)
@click.option("--attr", "attributes", metavar="A,B", help="Evaluate these attributes (default: those trained for).")
@click.option("--measure", metavar="METRIC", help="Judge by this metric (default: what the dataset names).")
@click.option(
    "--min-cell",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Withhold counts and values of groups smaller than N, for publishing.",
)
def leaderboard(
    runs: Path,
    format: str | None,
    out: Path | None,
    title: str,
    attributes: str | None,
    measure: str | None,
    min_cell: int,
) -> None:
    """Compare all methods of a folder of runs, with evidence; recomputed from saved predictions."""
    from fairbench import render
    from fairbench.leaderboard import build
    from fairbench.store import Store

    chosen = _listed(attributes) if attributes else None
    board = build(Store(runs), None, chosen, title, min_cell, metrics(), measure)
    if out:
        render.write(board, out, format)
        click.echo(f"wrote {out}", err=True)
    elif format in (None, "terminal"):
        render.terminal.show(board, _console())
    else:
        click.echo(render.render(board, format), nl=False)


@click.command()
@click.argument("run_folder", type=click.Path(path_type=Path))
@click.option("--attr", "attributes", metavar="A,B", help="Default: what the job was trained for, else all.")
def show(run_folder: Path, attributes: str | None) -> None:
    """Show one job: every group's accuracy with its interval, the gap beside chance, the errors made."""
    from fairbench.measure import judge
    from fairbench.metric import ACCURACY
    from fairbench.predictions import Predictions
    from fairbench.render import portrait
    from fairbench.store import PREDICTIONS, RECORD, read_record

    record = read_record(run_folder / RECORD)
    if record.error is not None:
        portrait.failure(record, _console())
        return
    predictions = Predictions.read(run_folder / PREDICTIONS)
    chosen = _listed(attributes) if attributes else ["+".join(record.job.attributes)]
    wanted = [name for name in chosen if name] or list(predictions.attributes)
    known = {metric.name: metric for metric in (ACCURACY, *metrics())}
    measure = judge(str(record.facts.get("measure", ACCURACY.name)), known, predictions)
    portrait.job(record, predictions, wanted, measure, _console())


@click.command()
@click.argument("runs", type=click.Path(path_type=Path))
@_json
def status(runs: Path, as_json: bool) -> None:
    """Say which jobs of a folder are finished, failed (and why), under way or interrupted."""
    from fairbench.render import sheet
    from fairbench.states import states
    from fairbench.store import Store

    found = states(Store(runs))
    _print(found) if as_json else sheet.status(found, _console())


def _listed(text: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _read(path: Path, attributes: list[str], split: str, positive: str | None) -> Predictions:
    from fairbench.predictions import Predictions

    return Predictions.read(path, attributes, None if split == "all" else split, positive)


def metrics() -> list[Metric]:
    """Load the installed metrics, and say on stderr which could not be."""
    from fairbench.plugins import load

    plugins = load(("metric",))
    found = list(plugins.tables["metric"].values())
    warn_of_broken(plugins)
    return found


def warn_of_broken(plugins: Plugins) -> None:
    """Name on stderr the plugins that could not be loaded."""
    for broken in plugins.broken:
        click.echo(f"warning: plugin {broken.name} of {broken.source} is broken: {broken.reason}", err=True)


def _print(found: object) -> None:
    import json

    click.echo(json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False))


def _console() -> Console:
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=120)
