"""The commands that need only saved predictions: they import nothing heavy before they run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fairbench.cli.options import (
    attributes_option,
    console,
    explain_option,
    how_to_read,
    json_option,
    listed,
    metrics,
    named_attributes,
    plugin_option,
    print_json,
    read,
    say,
    unrecorded_option,
    warn_of_metrics,
)
from fairbench.errors import FairbenchError, visible
from fairbench.settings import suggest

if TYPE_CHECKING:
    from fairbench.leaderboard.board import Board, RankBy
    from fairbench.leaderboard.details import TableDetails
    from fairbench.metrics.metric import Metric

    Given = tuple[str | None, RankBy, int, tuple[str, ...], tuple[str, ...]]

FORMATS = ("terminal", "md", "html", "csv", "json", "tex")
RANKINGS = ("dominance", "dominance-odds", "gap", "worst-group", "score", "dto")
RANK = "What ranks go by: score, worst group and gap (and EqOdds) together, or one number."
PRIMARY = "Methods whose comparison with the baseline was planned: adjusted apart from all others."
CONVENTIONS = ("fairclip", "fairllava", "medfair", "ffb", "fairlearn")


also_option = click.option("--also", metavar="A,B", help="Show these metrics beside, means over rows or not.")


def add_to(cli: click.Group) -> None:
    """Give a command line these commands."""
    for command in (score, compare, leaderboard, show, status):
        cli.add_command(command)


def _refuse_idle(asked: Mapping[str, bool], instead: Mapping[str, object]) -> None:
    """Raise FairbenchError where options about the tables on a terminal meet one that prints something else."""
    for option in (option for option, given in asked.items() if given):
        for other in (other for other, given in instead.items() if given):
            raise FairbenchError(
                f"{option} adds to the tables on a terminal, and does nothing beside {other}",
                "leave out one of them",
            )


@click.command()
@click.argument("predictions", type=click.Path(path_type=Path))
@attributes_option
@json_option
@click.option("--as", "convention", type=click.Choice(CONVENTIONS), help="Print another project's numbers.")
@unrecorded_option
@explain_option
@how_to_read
@plugin_option
def score(
    predictions: Path,
    attributes: str,
    as_json: bool,
    convention: str | None,
    policy: str,
    explain: bool,
    files: tuple[str, ...],
    **how: Any,
) -> None:
    """Score a predictions file (parquet or csv): every group, every gap, and what chance gives.

    Columns: `target` and `answer` (names or class indices), optionally `score` (probability of the positive,
    whichever that is) or `p_0`, `p_1` …, `id`, `cluster` (rows of one patient), `split`, and one per attribute.
    """
    _refuse_idle({"--explain": explain}, {"--as": convention, "--json": as_json})
    wanted = named_attributes(attributes)
    table = read(predictions, wanted, **how)
    from fairbench.report import explain as explained
    from fairbench.report import json, scores

    if convention:
        from fairbench.metrics.conventions import convert

        numbers = convert(table, wanted, convention, metrics(files), policy)
        print_json(json.converted(numbers)) if as_json else scores.converted(numbers, console())
        return
    from fairbench.metrics.evidence import score_with_evidence

    result = score_with_evidence(table, wanted, metrics(files), policy)
    warn_of_metrics({name: value.reason for name, value in result.overall.metrics.items()})
    print_json(json.scores(result)) if as_json else scores.scores(result, str(predictions), console())
    if explain:
        explained.score(console())


@click.command()
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@attributes_option
@json_option
@unrecorded_option
@explain_option
@how_to_read
@plugin_option
@click.option("--measure", metavar="METRIC", default="accuracy", show_default=True, help="Judge by this metric.")
def compare(
    a: Path,
    b: Path,
    attributes: str,
    as_json: bool,
    policy: str,
    explain: bool,
    measure: str,
    files: tuple[str, ...],
    **how: Any,
) -> None:
    """Compare two predictions files on the same patients, matched by id: A minus B, with p-values."""
    from fairbench.leaderboard.compare import compare_predictions
    from fairbench.leaderboard.measure import judging_metric
    from fairbench.metrics.metric import registry
    from fairbench.report import explain as explained
    from fairbench.report import json, scores

    _refuse_idle({"--explain": explain}, {"--json": as_json})
    wanted = named_attributes(attributes)
    first, second = (read(path, wanted, **how) for path in (a, b))
    judge = judging_metric(measure, registry(metrics(files)), first, second)
    result = compare_predictions(first, second, wanted, policy, judge)
    print_json(json.paired(result)) if as_json else scores.comparison(result, str(a), str(b), console())
    if explain:
        explained.compare(console())


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--format", "format", type=click.Choice(FORMATS), help="Default: that of --out, else terminal.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write to a file instead.")
@click.option("--title", default="Leaderboard", show_default=True, help="What stands above it.")
@click.option("--attr", "attributes", metavar="A,B", help="Evaluate these attributes (default: those trained for).")
@click.option("--measure", metavar="METRIC", help="Judge by this metric (default: what the dataset names).")
@click.option("--rank", "ranking", type=click.Choice(RANKINGS), default="dominance", show_default=True, help=RANK)
@click.option("--primary", metavar="A,B", help=PRIMARY)
@also_option
@click.option("--full", is_flag=True, help="On a terminal, show also what is folded away elsewhere.")
@explain_option
@click.option(
    "--min-cell",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Withhold counts and values of groups smaller than N, for publishing.",
)
@plugin_option
def leaderboard(
    runs: tuple[Path, ...],
    format: str | None,
    out: Path | None,
    title: str,
    attributes: str | None,
    measure: str | None,
    ranking: RankBy,
    primary: str | None,
    also: str | None,
    full: bool,
    explain: bool,
    min_cell: int,
    files: tuple[str, ...],
) -> None:
    """Compare all methods of one or more folders of runs, with evidence; recomputed from saved predictions.

    RUNS may be one published board instead, NAME.json, which is shown as it was built.
    """
    from fairbench import report
    from fairbench.leaderboard.details import published

    kind = format or (report.format_of(out) if out else "terminal")
    elsewhere = {"--out": out, f"--format {kind}": kind != "terminal"}
    _refuse_idle({"--full": full, "--explain": explain}, elsewhere)
    if len(runs) == 1 and runs[0].is_file():
        board = _published(runs[0])
        drawn: Sequence[TableDetails] | None = published(board)
    else:
        given = (measure, ranking, min_cell, tuple(listed(primary or "")), tuple(listed(also or "")))
        board, drawn = _built(runs, title, listed(attributes or ""), given, metrics(files), kind == "html")
        planned_rows(board, listed(primary or ""))
    warn_of_metrics({one.measure.name: one.missing for table in board.tables for one in table.further})
    if out:
        report.write(board, out, kind, drawn)
        say(f"wrote {out}")
    elif kind == "terminal":
        report.terminal.show(board, console(), full, explain)
    else:
        click.echo(visible(report.render(board, kind, drawn)), nl=False)


BUILDING = {
    "title": "--title",
    "attributes": "--attr",
    "measure": "--measure",
    "ranking": "--rank",
    "primary": "--primary",
    "also": "--also",
    "min_cell": "--min-cell",
    "files": "--plugin",
}


def planned_rows(board: Board, primary: Sequence[str]) -> None:
    """Raise FairbenchError for a planned comparison of what is in no table, not even as a job that failed."""
    rows = {name for table in board.tables for row in table.rows for name in (row.label, row.method)}
    known = rows | {one.label for table in board.tables for one in table.excluded}
    for name in primary:
        if name not in known:
            raise suggest("row or method (of --primary)", name, known)


def _published(path: Path) -> Board:
    """Read a published board; nothing of it is built anew."""
    from fairbench.publication.published import read_board

    context, typed = click.get_current_context(), click.core.ParameterSource.COMMANDLINE
    given = [option for name, option in BUILDING.items() if context.get_parameter_source(name) is typed]
    if given:
        raise FairbenchError(f"{path} is a leaderboard as it was built", f"give {', '.join(given)} with its runs")
    return read_board(path)


def _built(
    runs: Sequence[Path], title: str, attributes: list[str], given: Given, known: list[Metric], draw: bool
) -> tuple[Board, Sequence[TableDetails] | None]:
    """Build a board of folders of runs, and of one folder what stands behind it, to be drawn."""
    from fairbench.jobs.store import Store
    from fairbench.leaderboard.build import build, gather
    from fairbench.leaderboard.details import details
    from fairbench.leaderboard.tables import Options
    from fairbench.metrics.metric import registry

    stores, (measure, ranking, min_cell, planned, beside) = [*map(Store, runs)], given
    if len(stores) > 1:
        options = Options(registry(known), measure, ranking, min_cell, planned, also=beside)
        return gather(stores, options, None, attributes, title), None
    asked = attributes or None
    board = build(stores[0], None, asked, title, min_cell, known, measure, ranking, planned, beside)
    return board, details(stores[0], board, known) if draw else None


@click.command()
@click.argument("run_folder", type=click.Path(path_type=Path))
@click.option("--attr", "attributes", metavar="A,B", help="Default: what the job was trained for, else all.")
@plugin_option
@json_option
def show(run_folder: Path, attributes: str | None, files: tuple[str, ...], as_json: bool) -> None:
    """Show one job: every group's accuracy with its interval, the gap beside chance, the errors made."""
    from fairbench.jobs.store import job_at
    from fairbench.leaderboard.measure import judging_metric
    from fairbench.metrics.metric import registry
    from fairbench.report import job

    store, record = job_at(run_folder)
    if record.error is not None:
        print_json({"record": record.to_json()}) if as_json else job.failure(record, console())
        return
    predictions = store.predictions(record)
    chosen = listed(attributes) if attributes else ["+".join(record.job.attributes)]
    wanted = [name for name in chosen if name] or list(predictions.attributes)
    if as_json:
        from fairbench.metrics.evidence import score_with_evidence
        from fairbench.report import json

        result = score_with_evidence(predictions, wanted, metrics(files), record.job.unrecorded)
        warn_of_metrics({name: value.reason for name, value in result.overall.metrics.items()})
        print_json({"record": record.to_json(), "scores": json.scores(result)})
        return
    judge = judging_metric(record.measure, registry(metrics(files)), predictions)
    job.job(record, predictions, wanted, judge, console())


@click.command()
@click.argument("runs", type=click.Path(path_type=Path))
@json_option
def status(runs: Path, as_json: bool) -> None:
    """Say which jobs of a folder are finished, failed or refused (and why), under way or interrupted."""
    from fairbench.jobs.status import states
    from fairbench.jobs.store import Store
    from fairbench.report import status as report

    jobs = states(Store(runs))
    print_json(jobs) if as_json else report.status(jobs, console())
