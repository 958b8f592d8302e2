"""The commands around what is published: leaderboards, and what an installation is made of."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fairbench import files as whole_files
from fairbench.cli.options import json_option, listed, metrics, plugin_option, print_json, say, warn_of_broken
from fairbench.cli.results import PRIMARY, RANK, RANKINGS, also_option, planned_rows
from fairbench.errors import FairbenchError, one_line

if TYPE_CHECKING:
    from fairbench.publication.published import Publication
    from fairbench.publication.verdict import Verdict
    from fairbench.statistics.results import RankBy

PATIENTS = (
    "warning: {folder} holds every patient's answers, identifiers and groups, row by row: these are patient data,"
    " and whoever has the folder has them"
)
OTHERS = ("html", "tex", "csv")
LONGEST = 100  # characters of a name


def _name(ctx: click.Context, option: click.Parameter, name: str) -> str:
    """Take a name that files can have on any system, before anything is computed."""
    if not re.fullmatch(r"\w[\w.-]*", name) or len(name) > LONGEST:
        raise FairbenchError(f"--name {name:.{LONGEST}}: this is no name of a file", "use letters, digits and -_.")
    return name


def _publisher(ctx: click.Context, option: click.Parameter, publisher: str) -> str:
    """Take a line of text: it stands on every board, in files in UTF-8."""
    if not publisher.isprintable():
        raise FairbenchError(
            f"--by {publisher}: this is no line of text", "leave out control characters; use a terminal in UTF-8"
        )
    return publisher


existing = click.Path(path_type=Path, exists=True, dir_okay=False)
runs_option = click.option(
    "--runs", multiple=True, type=click.Path(path_type=Path), help="A folder of runs; repeatable."
)
name_option = click.option(
    "--name", required=True, callback=_name, metavar="NAME", help="What the files are called."
)
by_option = click.option(
    "--by", default="", callback=_publisher, metavar="WHO", help="Who publishes it, such as a laboratory."
)
out_option = click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default="leaderboards",
    show_default=True,
    help="Folder to write into.",
)


def add_to(cli: click.Group) -> None:
    """Give a command line these commands."""
    for command in (publish, verify, merge, diff, sbom):
        cli.add_command(command)


def other_formats(command: click.decorators.FC) -> click.decorators.FC:
    """Add the options for what is written beside NAME.md and NAME.json."""
    for kind, what in (("html", "a page"), ("tex", "tables for a paper"), ("csv", "a spreadsheet")):
        command = click.option(f"--{kind}", is_flag=True, help=f"Write also NAME.{kind}, {what}.")(command)
    return command


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@name_option
@out_option
@by_option
@click.option("--attr", "attributes", metavar="A,B", help="Evaluate these attributes (default: those trained for).")
@click.option("--measure", metavar="METRIC", help="Judge by this metric (default: what the dataset names).")
@click.option("--rank", "ranking", type=click.Choice(RANKINGS), default="dominance", show_default=True, help=RANK)
@click.option("--primary", metavar="A,B", help=PRIMARY)
@also_option
@click.option(
    "--min-cell",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    metavar="N",
    help="Withhold counts and values of groups smaller than N.",
)
@other_formats
@click.option("--cards", is_flag=True, help="Write also a model card for every adapter.")
@click.option("--croissant", is_flag=True, help="Write also a Croissant description of the files.")
@click.option("--with-predictions", is_flag=True, help="Copy every patient's answers beside it: PATIENT DATA.")
@plugin_option
def publish(
    runs: tuple[Path, ...],
    name: str,
    out: Path,
    by: str,
    attributes: str | None,
    measure: str | None,
    ranking: RankBy,
    primary: str | None,
    also: str | None,
    min_cell: int,
    html: bool,
    tex: bool,
    csv: bool,
    cards: bool,
    croissant: bool,
    with_predictions: bool,
    files: tuple[str, ...],
) -> None:
    """Publish the leaderboard of folders of runs: NAME.md, and NAME.json, which `verify` and `merge` read.

    Aggregates only: counts, intervals, comparisons, and what made them; no patient's row.
    """
    from fairbench.jobs.store import Store
    from fairbench.publication import cards as model_cards
    from fairbench.publication import croissant as description
    from fairbench.publication.publish import copy_predictions
    from fairbench.publication.publish import publish as published
    from fairbench.publication.published import Choices

    stores = [*map(Store, runs)]
    planned, beside = tuple(listed(primary or "")), tuple(listed(also or ""))
    choices = Choices(tuple(listed(attributes or "")), min_cell, measure, ranking, planned, beside)
    made = published(
        stores, name, choices, metrics(files), command=_command(), publisher=by, predictions=with_predictions
    )
    planned_rows(made.board, planned)
    wanted = [kind for kind, asked in zip(OTHERS, (html, tex, csv), strict=True) if asked]
    written = _write(made, out, name, wanted)
    if with_predictions:
        folder = out / f"{name}.predictions"
        copy_predictions(stores, made, folder)
        say(PATIENTS.format(folder=folder))
    if cards:
        say(f"wrote {model_cards.write(made, out / f'{name}.cards')} model cards under {out / f'{name}.cards'}")
    if croissant:
        path = out / f"{name}.croissant.json"
        whole_files.write(path, description.describe(made, written))
        say(f"wrote {path}")


def _command() -> str:
    """Return the command as typed; what is published names no folder of this machine."""
    words = ["fairbench"]
    for word in (word.encode(errors="replace").decode() for word in sys.argv[1:]):  # bytes that are no text
        option, equals, value = word.rpartition("=")
        words.append(f"{option}{equals}{Path(value).name if Path(value).is_absolute() else value}")
    return shlex.join(words)


def _write(publication: Publication, out: Path, name: str, others: Sequence[str]) -> list[Path]:
    """Write a publication's files; return their paths."""
    from fairbench import report
    from fairbench.leaderboard.details import published
    from fairbench.publication.published import text

    details = published(publication.board)
    texts = {out / f"{name}.json": text(publication)}
    texts |= {out / f"{name}.{kind}": report.render(publication.board, kind, details) for kind in ("md", *others)}
    for path, written in reversed(texts.items()):  # JSON last: where that is new, all are
        whole_files.write(path, written)
    say(f"wrote {', '.join(map(str, texts))}")
    for one in (one for table in publication.board.tables for one in table.excluded):
        say(f"note: {one.label}, seed {one.seed}, is in no row: {one.reason}")
    return [*texts]


@click.command()
@click.argument("file", type=existing)
@runs_option
@click.option("--rerun", type=click.IntRange(0), default=0, metavar="N", help="Predict N random jobs again.")
@click.option("--retrain", type=click.IntRange(0), default=0, metavar="N", help="Train N random jobs again.")
@click.option("--draw", type=int, metavar="SEED", help="Which jobs are drawn (default: anew each time).")
@click.option("--data", multiple=True, metavar="NAME=PATH", help="Where a dataset or backbone lies; repeatable.")
@click.option("--parts", multiple=True, type=existing, help="A board that was merged into this one; repeatable.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write it with the levels found.")
@by_option
@plugin_option
@json_option
def verify(
    file: Path,
    runs: tuple[Path, ...],
    rerun: int,
    retrain: int,
    draw: int | None,
    data: tuple[str, ...],
    parts: tuple[Path, ...],
    out: Path | None,
    by: str,
    files: tuple[str, ...],
    as_json: bool,
) -> None:
    """Check a published leaderboard: say what differs, and what could not be checked.

    By itself, FILE is asked whether it agrees with itself. With --runs, every file is hashed and the board built
    anew; with --rerun, adapters answer again; with --retrain, jobs are trained again. The exit status is 1 if
    anything differs.
    """
    from fairbench import plugins as plugin_loader
    from fairbench import report
    from fairbench.publication.check import RENDERED, CheckRequest, verdict_on
    from fairbench.publication.published import read, text
    from fairbench.publication.verdict import attested

    if (rerun or retrain) and not runs:
        raise FairbenchError("--rerun and --retrain need the jobs' adapters", "name their folder with --runs")
    if data and not (rerun or retrain):
        raise FairbenchError("--data says where images lie, which --rerun and --retrain read", "add one of them")
    if by and not out:
        raise FairbenchError("--by says who checked, in the file that --out writes", "add --out FILE")
    publication = read(file)
    if parts and not publication.parts:
        raise FairbenchError(f"{file} was not merged of --parts", "leave them out, or name the merged board")
    plugins = plugin_loader.load(files=files)
    warn_of_broken(plugins)
    request = CheckRequest(file, runs, rerun, retrain, draw, data, parts)
    verdict = verdict_on(publication, request, plugins)
    _print_json(publication, verdict) if as_json else _print(publication, verdict)
    if verdict.differs:
        said = f"; {out} is not written" if out else ""
        say(f"{file} is not what it says: {len(verdict.differs)} differ{said}")
        click.get_current_context().exit(1)
    if out:
        seen = attested(publication, verdict, by)
        whole_files.write(out, text(seen))
        for beside in filter(Path.is_file, (out.with_suffix(f".{kind}") for kind in RENDERED)):
            report.write(seen.board, beside)
        say(f"wrote {out}")


def _print(publication: Publication, verdict: Verdict) -> None:
    from fairbench.publication.verdict import levels

    titles = {"differs": "differs", "unchecked": "cannot be checked", "holds": "holds"}
    for state, title in titles.items():
        findings = [one for one in verdict.findings if one.state == state]
        click.echo(f"{title}: {len(findings)}")
        for one in findings:
            click.echo(f"  {one_line(f'{one.where}: {one.what}')}")
    click.echo("rows:")
    for number, row, trust in levels(publication, verdict):
        click.echo(f"  {one_line(f'{publication.board.tables[number].attribute} · {row.label}: {trust}')}")


def _print_json(publication: Publication, verdict: Verdict) -> None:
    from fairbench.publication.verdict import levels

    rows = [
        {"table": number, "row": row.label, "level": trust} for number, row, trust in levels(publication, verdict)
    ]
    print_json({"findings": [asdict(one) for one in verdict.findings], "rows": rows})


@click.command()
@click.argument("boards", nargs=-1, required=True, type=existing)
@name_option
@out_option
@by_option
@other_formats
def merge(boards: tuple[Path, ...], name: str, out: Path, by: str, html: bool, tex: bool, csv: bool) -> None:
    """Make one board of several published ones; no patient's row is needed.

    Rows about the same patients, backbone and recipe stand in one table, and every p-value is adjusted for all of
    them. What differs in any of these stands apart and says in what.
    """
    from fairbench.publication.merge import merge as merged
    from fairbench.publication.published import read

    parts = [read(path) for path in boards]
    made = merged(parts, name, _command(), by)
    wanted = [kind for kind, asked in zip(OTHERS, (html, tex, csv), strict=True) if asked]
    _write(made, out, name, wanted)
    for one in parts:
        if one.board.fairbench != made.board.fairbench:
            computed = f"computed by fairbench {one.board.fairbench}, not {made.board.fairbench} as this"
            say(f"note: the board of {one.publisher or one.name} was {computed}")
    for table in made.board.tables:
        if table.apart:
            say(f"note: {table.place} stands {table.apart}")


@click.command()
@click.argument("old", type=existing)
@click.argument("new", type=existing)
@json_option
def diff(old: Path, new: Path, as_json: bool) -> None:
    """Say what moved from one board to another, and whether beyond noise; OLD and NEW are JSON of either kind."""
    from fairbench.publication.difference import difference
    from fairbench.publication.published import read_board

    moved = difference(read_board(old), read_board(new))
    if as_json:
        print_json([asdict(one) for one in moved])
        return
    said = {True: " beyond noise", False: " within noise", None: ""}
    for one in moved:
        place = " · ".join(part for part in (one.table, one.row, one.what) if part)
        click.echo(one_line(f"{place}: {one.old} → {one.new}{said[one.beyond_noise]}"))
    if not moved:
        click.echo("nothing moved")


@click.command()
@click.option("--extras", default="", metavar="A,B", help="Count these extras of fairbench, where installed.")
@click.option("--licences", is_flag=True, help="Print a line for each distribution instead: version and licence.")
def sbom(extras: str, licences: bool) -> None:
    """Print what this installation is made of: a CycloneDX bill of materials, made from what is installed."""
    from fairbench.publication.bill import bill, installed, licence

    parts = installed(extras=listed(extras))
    if licences:
        for name, one in parts.items():
            click.echo(one_line(f"{name} {one.version}: {licence(one)}"))
    else:
        print_json(bill(parts))
