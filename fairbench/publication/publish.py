"""From folders of runs to a published leaderboard: aggregates and provenance, and on request the predictions."""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fairbench.errors import FairbenchError
from fairbench.files import whole
from fairbench.jobs.job import Record
from fairbench.jobs.store import PREDICTIONS, Store, digest
from fairbench.leaderboard.board import Board, Row, Trust
from fairbench.leaderboard.build import gather
from fairbench.leaderboard.collect import Runs
from fairbench.leaderboard.tables import Options
from fairbench.metrics.metric import Metric, registry
from fairbench.publication.published import Choices, Publication
from fairbench.publication.sharing import Shareable


def now() -> str:
    """Return the time, in UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def board_of(
    runs: Sequence[Runs],
    choices: Choices,
    metrics: Sequence[Metric],
    title: str,
    keys: set[str] | None = None,
) -> Board:
    """Build a board with its evidence, as `choices` say."""
    options = Options(
        registry(metrics),
        choices.measure,
        choices.ranking,
        choices.min_cell,
        choices.primary,
        evidence=True,
        also=choices.also,
    )
    return gather(runs, options, keys, choices.attributes, title)


def publish(
    stores: Sequence[Store],
    name: str,
    choices: Choices,
    metrics: Sequence[Metric] = (),
    *,
    command: str,
    publisher: str = "",
    predictions: bool = False,
) -> Publication:
    """Make a publication of folders of runs. Raises FairbenchError where there is nothing to publish."""
    runs = [Shareable(store) for store in stores]
    board = board_of(runs, choices, metrics, name)
    if not any(table.rows or table.controls for table in board.tables):
        reasons = {one.reason for table in board.tables for one in table.excluded}
        raise FairbenchError(
            f"no job of {', '.join(store.name for store in stores)} can be published: {'; '.join(sorted(reasons))}",
            "`fairbench leaderboard` on it shows what is there",
        )
    trust: Trust = "predictions attached" if predictions else "counts attached"
    return Publication(
        name=name,
        published=now(),
        publisher=publisher,
        command=command,
        choices=choices,
        board=each_row(board, lambda row: replace(row, origin=publisher, trust=trust)),
        jobs=tuple(sorted(records_of(runs).values(), key=lambda record: record.job.key)),
        predictions=predictions,
    )


def records_of(runs: Sequence[Runs]) -> Mapping[str, Record]:
    """Return the records of folders by their job's key; of two of one job the newest, as a board does."""
    newest: dict[str, Record] = {}
    for record in sorted((r for one in runs for r in one.contents().records), key=lambda r: r.started):
        newest[record.job.key] = record
    return newest


def each_row(board: Board, change: Callable[[Row], Row]) -> Board:
    """Change every row of a board, controls included."""
    tables = (
        replace(table, rows=tuple(map(change, table.rows)), controls=tuple(map(change, table.controls)))
        for table in board.tables
    )
    return replace(board, tables=tuple(tables))


def copy_predictions(stores: Sequence[Store], publication: Publication, folder: Path) -> None:
    """Copy every job's answers beside a publication, `KEY.parquet`: patients' rows, whole."""
    for record in publication.jobs:
        for store in stores:
            file = store.predictions_file(record.job)
            # Another folder may hold an older run of the same job.
            if not record.failed and file.is_file() and digest(file) == record.files.get(PREDICTIONS):
                with whole(folder / f"{record.job.key}.parquet") as part:
                    shutil.copyfile(file, part)
