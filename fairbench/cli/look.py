"""The commands that show: `plot` draws a figure for a paper, `serve` shows a folder of runs as it fills."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fairbench.cli.options import listed, metrics, plugin_option, say
from fairbench.errors import FairbenchError
from fairbench.files import whole

if TYPE_CHECKING:
    from fairbench.leaderboard.board import Table
    from fairbench.leaderboard.details import TableDetails

FIGURES = ("pareto", "change", "groups", "seeds", "calibration", "loss")


def add_to(cli: click.Group) -> None:
    """Give a command line these commands."""
    for command in (plot, serve):
        cli.add_command(command)


@click.command()
@click.argument("runs", type=click.Path(path_type=Path))
@click.option("--kind", type=click.Choice(FIGURES), required=True, help="Which question the figure answers.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="F.png|.pdf|.svg",
    help="The file to write; its name says which kind of picture.",
)
@click.option("--attr", "attributes", metavar="A,B", help="Evaluate these attributes (default: those trained for).")
@click.option("--measure", metavar="METRIC", help="Judge by this metric (default: what the dataset names).")
@click.option("--table", "number", type=click.IntRange(1), help="Which table, where there are several.")
@plugin_option
def plot(
    runs: Path,
    kind: str,
    out: Path,
    attributes: str | None,
    measure: str | None,
    number: int | None,
    files: tuple[str, ...],
) -> None:
    """Draw a figure of a folder of runs, or of a published board's JSON, for a paper.

    \b
    pareto       score against each gap, with intervals and what chance gives
    change       what each method changed against the baseline, by group
    groups       each group's value with its interval
    seeds        each trained model as a point
    calibration  ROC curve and calibration of each group's scores (needs the runs)
    loss         the training losses (needs the runs)
    """
    from fairbench.report.charts import KINDS
    from fairbench.report.charts.static import picture

    table, details = _table(runs, listed(attributes or "") or None, measure, number, files)
    drawn = picture(KINDS[kind](table, details), table, out.suffix.lower())
    with whole(out) as part:
        part.write_bytes(drawn)
    say(f"wrote {out}")


@click.command()
@click.argument("runs", type=click.Path(path_type=Path))
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any that is free.")
@plugin_option
def serve(runs: Path, port: int, files: tuple[str, ...]) -> None:
    """Show a folder of runs in this machine's browser while it fills: what runs, losses, the board so far.

    Nobody else can connect. Ctrl-C ends it.
    """
    from fairbench.jobs.store import Store
    from fairbench.report.serve import Server

    with Server(Store(runs), port, metrics(files)) as server:
        try:
            click.echo(f"{server.address} shows {runs}; Ctrl-C ends it")
            server.serve_forever()
        except KeyboardInterrupt:
            say("ended")


def _table(
    runs: Path, attributes: list[str] | None, measure: str | None, number: int | None, files: tuple[str, ...]
) -> tuple[Table, TableDetails]:
    """Find the one table to draw, and what stands behind it, of which a file alone holds the seeds' values."""
    from fairbench.jobs.store import Store
    from fairbench.leaderboard.build import build
    from fairbench.leaderboard.details import details, published
    from fairbench.publication.published import read_board
    from fairbench.report.charts.heat import place

    if runs.is_file():
        if attributes or measure or files:
            raise FairbenchError(
                f"{runs} is a leaderboard as it was built", "give --attr, --measure and --plugin with its runs"
            )
        board = read_board(runs)
        drawn = published(board)
    else:
        store, measures = Store(runs), metrics(files)
        board = build(store, None, attributes, metrics=measures, measure=measure)
        drawn = details(store, board, measures)
    if number is None and len(board.tables) == 1:
        number = 1
    if number is None or number > len(board.tables):
        choice = "; ".join(f"{index} {place(table)}" for index, table in enumerate(board.tables, 1))
        if not choice:
            raise FairbenchError(f"{runs} has no table", "draw another board")
        said = f"{runs} has several tables" if number is None else f"{runs} has no table {number}"
        raise FairbenchError(said, f"choose one by --table: {choice}")
    return board.tables[number - 1], drawn[number - 1]
