"""What stands behind a board's rows and is drawn beside them: seeds, paired changes, curves of scores and losses.

It is read from the runs again, by the keys that rows name, so a board from a file has it wherever its runs lie.
Aggregates only, as in the board: a group that the board withholds has nothing here, and a curve stands on at
least MINIMUM rows of each class.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairbench.jobs.job import Job, Record
from fairbench.jobs.store import Store
from fairbench.leaderboard.answers import Answers, shared_seeds
from fairbench.leaderboard.board import Board, Row, SeedCounts, Table
from fairbench.leaderboard.collect import Finished, joined, load, same_patients
from fairbench.leaderboard.measure import judging_metric
from fairbench.metrics.metric import Metric, registry
from fairbench.predictions.groups import Groups
from fairbench.statistics.curves import Reliability, reliability, roc
from fairbench.statistics.intervals import MINIMUM, max_minus_min
from fairbench.statistics.paired import DRAWS, mean_difference
from fairbench.statistics.results import Difference

POINTS = 120  # of a loss curve that are kept; of more, each is the mean of several


@dataclass(frozen=True)
class SeedValue:
    """What one seed's model scored: the table's measure on all rows, and its gap; fractions."""

    seed: int
    score: float
    gap: float | None


@dataclass(frozen=True)
class GroupCurves:
    """How one group's scores rank its patients and how far they can be believed; seeds averaged.

    `roc` are (false positive rate, true positive rate) on an even grid; `n` are the group's rows.
    """

    group: str
    n: int
    roc: tuple[tuple[float, float], ...]
    calibration: tuple[Reliability, ...]


@dataclass(frozen=True)
class RowDetails:
    """One row's seeds; its change against the baseline in every group, paired; its groups' curves.

    `changes` follow the order of the table's groups and are empty for the baseline and controls.
    """

    seeds: tuple[SeedValue, ...] = ()
    changes: tuple[Difference, ...] = ()
    curves: tuple[GroupCurves, ...] = ()


@dataclass(frozen=True)
class Losses:
    """The training loss of one job: `points` are (step, loss), steps counted through all stages."""

    label: str
    seed: int
    points: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class TableDetails:
    """What stands behind one table, by the label of the row; `runs`: whether its runs were at hand."""

    rows: Mapping[str, RowDetails]
    losses: tuple[Losses, ...] = ()
    runs: bool = True


def details(store: Store, board: Board, metrics: Sequence[Metric] = ()) -> tuple[TableDetails, ...]:
    """Read what stands behind every table of a board; what its runs no longer hold is left out."""
    keys = {key for table in board.tables for row in (*table.rows, *table.controls) for key in row.keys}
    stored = {key: store.stored(key) for key in keys}
    records = {key: one[0] for key, one in stored.items() if isinstance(one, tuple)}
    known = registry(metrics)
    return tuple(_table(table, store, records, known) for table in board.tables)


def published(board: Board) -> tuple[TableDetails, ...]:
    """Say what the counts attached to a published board tell of every table: what each seed's model scored."""
    return tuple(
        TableDetails(
            {label: RowDetails(tuple(map(_counted, seeds))) for label, seeds in counts.items()}, runs=False
        )
        for counts in (table.evidence.counts if table.evidence else {} for table in board.tables)
    )


def _counted(one: SeedCounts) -> SeedValue:
    """Divide sums by rows; a gap is that of all groups, so there is none where one is withheld."""
    means = [cell.total / cell.n for cell in one.groups if cell and cell.n > 0]
    gap = max(means) - min(means) if all(one.groups) and len(means) > 1 else None
    return SeedValue(one.seed, one.everyone.total / max(one.everyone.n, 1), gap)


def loss_curve(store: Store, job: Job) -> tuple[tuple[int, float], ...]:
    """Read a job's training loss so far: (step, loss), steps counted through all stages, at most POINTS."""
    try:
        text = store.log_file(job).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ()
    points: list[tuple[int, float]] = []
    before, stage, last = 0, None, 0
    for line in text.splitlines():
        entry = _logged(line)
        if entry is None:
            continue
        if stage is not None and entry["stage"] != stage:
            before += last + 1
        stage, last = entry["stage"], entry["step"]
        points.append((before + last, entry["loss"]))
    return _thinned(points)


def _logged(line: str) -> dict[str, Any] | None:
    """Read one line of a log; one that is being written, or whose loss is no number, is none."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    known = isinstance(entry, dict) and isinstance(entry.get("step"), int) and isinstance(entry.get("loss"), float)
    return entry if known and np.isfinite(entry["loss"]) and "stage" in entry else None


def _thinned(points: Sequence[tuple[int, float]]) -> tuple[tuple[int, float], ...]:
    parts = [part for part in np.array_split(np.arange(len(points)), min(POINTS, len(points) or 1)) if part.size]
    return tuple((points[part[-1]][0], float(np.mean([points[place][1] for place in part]))) for part in parts)


def _table(
    table: Table, store: Store, records: Mapping[str, Record], metrics: Mapping[str, Metric]
) -> TableDetails:
    rows = {row.label: row for row in (*table.rows, *table.controls)}
    own = {label: [records[key] for key in row.keys if key in records] for label, row in rows.items()}
    losses = tuple(
        Losses(label, record.job.seed, points)
        for label, mine in own.items()
        for record in mine
        if (points := loss_curve(store, record.job))
    )
    loaded = [load(store, record) for record in {r.job.key: r for mine in own.values() for r in mine}.values()]
    whole, _ = joined([one for one in loaded if isinstance(one, Finished)])
    usable, _ = same_patients(whole)
    if not usable:
        return TableDetails({}, losses)
    judge = judging_metric(table.measure.name, metrics, usable[0].predictions)
    aligned = {record.job.key: one for one in usable for record in one.records}
    answers = {label: _answers(row, aligned, judge) for label, row in rows.items()}
    groups = Groups.of(usable[0].predictions.table, table.attribute, table.unrecorded)
    base = answers.get(table.baseline or "")
    of_rows = {
        label: RowDetails(
            _seeds(one, groups),
            _changes(one, base, groups, table) if base and _compared(rows[label], table) else (),
            tuple(_curves(one, groups, table)),
        )
        for label, one in answers.items()
        if one is not None
    }
    return TableDetails(of_rows, losses)


def _compared(row: Row, table: Table) -> bool:
    return row.label != table.baseline and row in table.rows


def _answers(row: Row, aligned: Mapping[str, Finished], judge: Metric) -> Answers | None:
    """Gather the answers of a row; None where one of its jobs is missing, whose mean would be another."""
    if any(key not in aligned for key in row.keys):
        return None
    by_seed = {aligned[key].job.seed: aligned[key].predictions for key in row.keys}
    return Answers(tuple(sorted(by_seed)), tuple(by_seed[seed] for seed in sorted(by_seed)), judge)


def _seeds(answers: Answers, groups: Groups) -> tuple[SeedValue, ...]:
    gaps = max_minus_min(answers.by_group(groups))
    values = zip(answers.seeds, answers.scores.mean(axis=1), gaps, strict=True)
    return tuple(SeedValue(s, float(score), None if np.isnan(gap) else float(gap)) for s, score, gap in values)


def _changes(answers: Answers, base: Answers, groups: Groups, table: Table) -> tuple[Difference, ...]:
    """Compare this row with the baseline within each group, on the same patients and seeds."""
    pair = shared_seeds(answers, base)
    if pair is None:
        return ()
    changes = []
    for place, group in enumerate(table.groups):
        if group.n is None:
            changes.append(Difference(reason=f"withheld: fewer than {table.min_cell} rows"))
            continue
        inside = groups.codes == place
        cluster = None if groups.cluster is None else groups.cluster[inside]
        changes.append(mean_difference(pair[0].scores[:, inside], pair[1].scores[:, inside], cluster, DRAWS))
    return tuple(changes)


def _curves(answers: Answers, groups: Groups, table: Table) -> Iterable[GroupCurves]:
    """Draw each group's scores, where there are two classes and enough rows of both."""
    if len(table.classes) != 2 or not all(p.has_probabilities for p in answers.predictions):
        return
    least = max(MINIMUM, table.min_cell)
    target = answers.predictions[0].target.astype(np.int64)
    score = np.stack([p.probability(1) for p in answers.predictions]).astype(np.float64)
    for place, group in enumerate(table.groups):
        if min(group.positives or 0, group.negatives or 0) < least:
            continue
        inside = groups.codes == place
        false, true = roc(target[inside], score[:, inside])
        points = tuple(zip(map(float, false), map(float, true), strict=True))
        cluster = None if groups.cluster is None else groups.cluster[inside]
        yield GroupCurves(
            group.name, int(inside.sum()), points, reliability(target[inside], score[:, inside], cluster, least)
        )
