"""What Python and notebooks call: run, leaderboard, score and compare, with the results of the commands."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pandas as pd
from rich.console import Console

import fairbench.leaderboard
from fairbench import report
from fairbench.cli import options
from fairbench.cli import run as command
from fairbench.cli.results import planned_rows
from fairbench.errors import FairbenchError
from fairbench.jobs.store import Store
from fairbench.leaderboard.board import Board, RankBy
from fairbench.leaderboard.build import build, gather
from fairbench.leaderboard.compare import PairedScores, compare_predictions
from fairbench.leaderboard.measure import judging_metric
from fairbench.leaderboard.tables import Options
from fairbench.metrics.evidence import score_with_evidence
from fairbench.metrics.metric import Metric, registry
from fairbench.metrics.score import Scores
from fairbench.predictions.predictions import Predictions
from fairbench.predictions.read import predictions_of, read_predictions
from fairbench.publication.published import read_board
from fairbench.report import html
from fairbench.report import scores as printed

Json = dict[str, Any]
Names = str | Sequence[str]


@dataclass(frozen=True)
class Leaderboard:
    """A board of methods; `board` is all of it, a notebook shows its sentences and tables."""

    board: Board

    def to_pandas(self) -> pd.DataFrame:
        """Return a row for each method and table, with the columns of `--format csv`: fractions, NaN undefined."""
        return pd.read_csv(io.StringIO(report.render(self.board, "csv")), keep_default_na=False, na_values=[""])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write md, tex, html, csv, json or txt, as the name ends."""
        report.write(self.board, Path(path))

    def __str__(self) -> str:
        return report.render(self.board, "terminal")

    def _repr_html_(self) -> str:
        return html.render(self.board)


@dataclass(frozen=True)
class Result:
    """The outcome of `score` or `compare`: `result` itself, and `data` as `--json` writes it."""

    result: Scores | PairedScores
    data: Json
    print_to: Callable[[Console], None]

    def to_pandas(self) -> pd.DataFrame:
        """Return a row for each number: attribute, group, quantity, value, low, high, p, reason; NaN undefined."""
        return pd.DataFrame(_numbers(self.data), columns=list(_number({}, "", "", "")))

    def __str__(self) -> str:
        console = Console(file=io.StringIO(), width=120, highlight=False)
        self.print_to(console)
        return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]

    def _repr_html_(self) -> str:
        return self.to_pandas().to_html(index=False, na_rep="", float_format="{:.4f}".format, notebook=True)


def run(
    benchmark: str = options.DEFAULT,
    *,
    settings: Mapping[str, object] | None = None,
    data: Mapping[str, str | os.PathLike[str]] | None = None,
    out: str | os.PathLike[str] = "runs",
    **chosen: Any,
) -> Leaderboard:
    """Run what is missing of a benchmark, as `fairbench run` does, and return its leaderboard.

    `settings` are those of `--set` (`{"mine.strength": 2}`), `data` says where datasets lie, and every other
    option goes by its name: `methods=["mine", "theirs"]`, `seeds=[0, 1]`, `attr="race"`, `plugin=["mine.py"]`,
    `workers=2`, `no_controls=True`. Raises FairbenchError for wrong choices, and where no board was written; a job
    that fails is on the board.
    """
    words = [benchmark, "--out", os.fspath(out)]
    words += [word for key, value in (settings or {}).items() for word in ("--set", f"{key}={_joined(value)}")]
    words += [word for name, path in (data or {}).items() for word in ("--data", f"{name}={os.fspath(path)}")]
    for name, value in chosen.items():
        option = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words += [option] * value
        elif name in ("plugin", "track"):
            words += [word for each in _listed(value) for word in (option, each)]
        else:
            words += [option, _joined(value)]
    try:
        context = command.run.make_context("fairbench.run", words)
    except click.UsageError as error:
        raise FairbenchError(
            error.format_message(), "see help(fairbench.run), and `fairbench run --help`"
        ) from error
    if context.params["dry_run"]:
        raise FairbenchError("a dry run leaves no leaderboard", "`fairbench plan` prints the jobs")
    with context:
        written, _ = command.execute(**context.params)
    assert written is not None
    return Leaderboard(read_board(written))


def leaderboard(
    runs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    attributes: Names | None = None,
    *,
    measure: str | None = None,
    rank: RankBy = "dominance",
    primary: Names = (),
    also: Names = (),
    min_cell: int = 0,
    title: str = "Leaderboard",
    plugin: Sequence[str] = (),
) -> Leaderboard:
    """Compare all methods of one or more folders of runs, as `fairbench leaderboard` does.

    `rank` is what ranks go by, `primary` names the methods whose comparison with the baseline was planned, `also`
    metrics that stand beside. Raises FairbenchError for names of nothing, and where no job has ended.
    """
    asked = _listed(attributes) if attributes else None
    metrics = options.metrics(plugin)
    planned, beside = _listed(primary), _listed(also)
    if isinstance(runs, str | os.PathLike):
        board = build(Store(Path(runs)), None, asked, title, min_cell, metrics, measure, rank, planned, beside)
    else:
        chosen = Options(registry(metrics), measure, rank, min_cell, tuple(planned), also=tuple(beside))
        board = gather([Store(Path(one)) for one in runs], chosen, None, asked or (), title)
    planned_rows(board, planned)
    return Leaderboard(board)


def score(
    predictions: object,
    attributes: Names,
    *,
    unrecorded: str = "keep",
    split: str = "test",
    positive: str | None = None,
    classes: Sequence[str] | None = None,
    keep: Collection[str] = (),
    metrics: Iterable[Metric] | None = None,
) -> Result:
    """Score predictions, as `fairbench score` does: a file, a frame of pandas or polars, or a mapping of arrays.

    Columns and options are those of the command; `metrics` default to all that are installed. Raises
    FairbenchError for predictions that cannot be trusted.
    """
    wanted = _listed(attributes)
    table = _predictions(predictions, wanted, split, positive, classes, keep)
    result = score_with_evidence(table, wanted, _metrics(metrics), unrecorded)
    title = str(predictions) if isinstance(predictions, str | os.PathLike) else "predictions"
    return Result(result, report.json.scores(result), lambda console: printed.scores(result, title, console))


def compare(
    a: object,
    b: object,
    attributes: Names,
    *,
    unrecorded: str = "keep",
    split: str = "test",
    positive: str | None = None,
    classes: Sequence[str] | None = None,
    keep: Collection[str] = (),
    measure: str = "accuracy",
    metrics: Iterable[Metric] | None = None,
) -> Result:
    """Compare two tables of predictions on the same patients, as `fairbench compare` does: A minus B."""
    wanted = _listed(attributes)
    first, second = (_predictions(each, wanted, split, positive, classes, keep) for each in (a, b))
    judge = judging_metric(measure, registry(_metrics(metrics)), first, second)
    result = compare_predictions(first, second, wanted, unrecorded, judge)
    return Result(result, report.json.paired(result), lambda console: printed.comparison(result, "A", "B", console))


def _predictions(
    data: object,
    attributes: list[str],
    split: str,
    positive: str | None,
    classes: Sequence[str] | None,
    keep: Collection[str],
) -> Predictions:
    chosen = None if split == "all" else split
    if isinstance(data, Predictions):
        if classes or keep:
            raise FairbenchError("classes and keep are for tables that are still to be read", "leave them out")
        data = data.of_split(chosen)
        return data if positive is None else data.with_positive(positive)
    if isinstance(data, str | os.PathLike):
        return read_predictions(data, attributes, chosen, positive, classes, keep)
    return predictions_of(data, attributes, chosen, positive, classes, keep)


def _metrics(given: Iterable[Metric] | None) -> list[Metric]:
    return options.metrics() if given is None else list(given)


def _listed(names: Names) -> list[str]:
    return options.listed(names) if isinstance(names, str) else list(names)


def _joined(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _numbers(data: Json) -> Iterator[Json]:
    """List every number of what `--json` writes, with where it stands."""
    for name, one in data["overall"].items():
        yield _number(one, "", "all", name)
    for attribute, part in data["attributes"].items():
        for group, values in part.get("groups", {}).items():
            for name, one in values.items():
                if isinstance(one, dict) and "ci" in one:
                    yield _number(one, attribute, group, name)
        for name, one in part.items():
            if isinstance(one, dict) and "ci" in one:
                yield _number(one, attribute, "", name)


def _number(one: Json, attribute: str, group: str, quantity: str) -> Json:
    low, high = one.get("ci") or (None, None)
    value = one.get("value", one.get("difference"))
    about = {"attribute": attribute, "group": group, "quantity": quantity}
    return {**about, "value": value, "low": low, "high": high, "p": one.get("p"), "reason": one.get("reason")}


class _Answering(ModuleType):
    """The package `fairbench.leaderboard`, which has the function's name, answers when it is called."""

    def __call__(self, *arguments: Any, **named: Any) -> Leaderboard:
        return leaderboard(*arguments, **named)


sys.modules[fairbench.leaderboard.__name__].__class__ = _Answering
