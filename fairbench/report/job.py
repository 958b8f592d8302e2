"""One job on a terminal: bars with intervals, the gap beside chance, and who was told what."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from fairbench.jobs.job import Record
from fairbench.leaderboard.answers import Answers
from fairbench.leaderboard.measure import describe
from fairbench.metrics.metric import Metric
from fairbench.predictions.groups import Groups
from fairbench.predictions.predictions import Predictions
from fairbench.report.blocks import Grid
from fairbench.report.format import gibibytes, p_value, percent, plain, seconds, whole
from fairbench.report.terminal import grid
from fairbench.statistics.results import Gap

BAR = 50  # columns that 0 to 100 % take


def job(
    record: Record, predictions: Predictions, attributes: Sequence[str], judge: Metric, console: Console
) -> None:
    """Print a finished job, judged by a metric that scores rows."""
    _head(record, console)
    answers = Answers((record.job.seed,), (predictions,), judge)
    for attribute in attributes:
        groups = Groups.of(predictions.table, attribute, record.job.unrecorded)
        console.print(Padding(Text(plain(attribute), style="bold"), (1, 0, 0, 0)))
        _bars(answers, groups, console)
        _gaps(answers, groups, console)
        if "target" in predictions.table:
            _confusion(predictions, groups, console)
    for warning in record.warnings:
        console.print(Text(f"warning: {plain(warning)}", style="dim"))


def failure(record: Record, console: Console) -> None:
    """Print a failed job and why it failed."""
    _head(record, console)
    console.print(Padding(Text(f"failed: {plain(record.error or '')}", style="bold"), (1, 0, 0, 0)))


def _head(record: Record, console: Console) -> None:
    by = f" by job {plain(record.weights_of)}, whose weights it took" if record.weights_of else ""
    cost = [
        f"{record.steps:,} steps",
        f"{seconds(record.seconds.get('train'))} s training{by}",
        f"{gibibytes(record.peak_memory or None)} GiB at most",
        f"{record.trainable_parameters:,} of {record.total_parameters:,} parameters",
        plain(record.device),
    ]
    title = (plain(record.job.title), "bold")
    console.print(Padding(Text.assemble(title, "\n", ("; ".join(cost), "dim")), (1, 0, 0, 0)))


def _bars(answers: Answers, groups: Groups, console: Console) -> None:
    """Draw every group's score on a line from 0 to 100 %, its interval beside it."""
    rates = answers.group_scores(groups)
    width = max(len(plain(name)) for name in groups.names)
    overall = answers.score(groups).value or 0.0
    for name, rate in zip(groups.names, rates, strict=True):
        text = Text(f"  {plain(name):<{width}}  ")
        if rate.value is None or rate.interval is None:
            text.append(plain(rate.reason or "; ".join(rate.notes)), style="dim")
        else:
            text.append(_line(rate.value, rate.interval, overall))
            ends = f"[{percent(rate.low)}, {percent(rate.high)}]"
            text.append(f"  {percent(rate.value):>5} {ends:<14}")
            text.append(f" n = {rate.rows:,}", style="dim")
            text.append("".join(f"  {plain(note)}" for note in rate.notes), style="dim")
        console.print(text)
    axis = f"0{f'{answers.measure.title} (%), ●, 95 % interval ─, all rows │':^{BAR - 3}}100"
    console.print(Text(f"  {'':<{width}}  {axis}", style="dim"))


def _line(value: float, interval: tuple[float, float], overall: float) -> str:
    low, high = interval
    place = [round(x * BAR) for x in (low, value, high, overall)]
    cells = ["·" if 0 <= column <= BAR else " " for column in range(BAR + 1)]
    for column in range(place[0], place[2] + 1):
        cells[column] = "─"
    cells[place[3]] = "│"
    cells[place[1]] = "●"
    return "".join(cells)


def _gaps(answers: Answers, groups: Groups, console: Console) -> None:
    """Draw each gap as a bar against the mean and the 95th percentile of what chance gives."""
    gaps = {describe(answers.measure).gap: answers.gap(groups), "EqOdds(max)": answers.eq_odds_max(groups)}
    known = [x for gap in gaps.values() for x in (gap.value, gap.floor_95, gap.high) if x is not None]
    reach = max([*known, 0.01])
    console.print()
    for name, gap in gaps.items():
        text = Text(f"  {name:<12}")
        if gap.value is None:
            text.append(plain(gap.reason or "undefined"), style="dim")
        else:
            text.append(_gap_line(gap, reach))
            chance = f"chance {percent(gap.floor_mean)}, 95th percentile {percent(gap.floor_95)}"
            text.append(f"  {percent(gap.value)} points ({chance}), p {p_value(gap.p)}")
        console.print(text)
    console.print(Text(f"  {'':<12}█ the gap, ╎ chance on average, ┃ 95th percentile of chance", style="dim"))


def _gap_line(gap: Gap, reach: float) -> str:
    width = 30
    filled = round((gap.value or 0) / reach * width)
    cells = ["█" if column < filled else "·" for column in range(width + 1)]
    for x, mark in ((gap.floor_mean, "╎"), (gap.floor_95, "┃")):
        if x is not None:
            cells[round(x / reach * width)] = mark
    return "".join(cells)


def _confusion(predictions: Predictions, groups: Groups, console: Console) -> None:
    """Count who was told what, per group: a line per group and true class."""
    answers = [*range(len(predictions.classes)), *([-1] if (predictions.answer < 0).any() else [])]
    named = [f"answered {predictions.classes[a]}>" if a >= 0 else "no class named>" for a in answers]
    rows = []
    for place, group in enumerate(groups.names):
        inside = groups.codes == place
        for target, name in enumerate(predictions.classes):
            chosen = predictions.answer[inside & (predictions.target == target)]
            counts = [whole(int(np.count_nonzero(chosen == answer))) for answer in answers]
            rows.append((plain(group) if target == 0 else "", plain(name), whole(chosen.size), *counts))
    columns = ("Group", "Truly", "rows>", *map(plain, named))
    console.print(Padding(grid(Grid("", columns, tuple(rows)), console.width - 1), (1, 0, 0, 1)))
