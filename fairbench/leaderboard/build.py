"""From a folder of runs to a leaderboard: everything recomputed from predictions, no device needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from fairbench import __version__
from fairbench.errors import FairbenchError
from fairbench.jobs.job import Job
from fairbench.jobs.store import Store
from fairbench.leaderboard.board import Board, Constant, Excluded, Flag, FurtherMeasure, Group, Row, Table, Trials
from fairbench.leaderboard.collect import Entry, contenders, excluded_job, load, same_patients, stale_rows
from fairbench.leaderboard.compare import further, side_effects, stand
from fairbench.leaderboard.flags import missing
from fairbench.leaderboard.row import called, improvement, judge, measured, others
from fairbench.leaderboard.seeds import constant
from fairbench.leaderboard.sentences import _finding, _notes
from fairbench.leaderboard.suppression import _published
from fairbench.metrics.metric import ACCURACY, Metric
from fairbench.predictions.groups import Groups
from fairbench.predictions.predictions import Predictions


def build(
    store: Store,
    keys: set[str] | None = None,
    attributes: Sequence[str] | None = None,
    title: str = "Leaderboard",
    min_cell: int = 0,
    metrics: Sequence[Metric] = (ACCURACY,),
    measure: str | None = None,
) -> Board:
    """Build the board of a folder of runs, or of the jobs in `keys`: a table per dataset × backbone × attribute.

    `attributes` default to those that methods were trained for, else to all of the dataset. `min_cell`
    withholds the counts and values of groups smaller than it. Tables are judged by `measure`, one of
    `metrics` that scores rows (default: what the dataset names). Raises FairbenchError when nothing has
    ended, or for a measure that cannot judge.
    """
    contents = store.contents()
    records = [r for r in contents.records if keys is None or r.job.key in keys]
    refused = [r for r in contents.refused if keys is None or r.key in keys]
    if not records:
        why = "".join(f"; {one}" for one in refused)
        raise FairbenchError(f"no job in {store.name} has ended yet{why}", f"see `fairbench status {store.name}`")
    entries = [load(store, record) for record in records]
    outside = [
        (job, "unfinished", "begun and not ended") for job in contents.begun if keys is None or job.key in keys
    ]
    outside += [(one.job, "refused", str(one)) for one in refused if one.job]
    unknown = [f"{one}. It may belong to this table." for one in refused if not one.job]
    tables = []
    for place in dict.fromkeys(_place(entry.record.job) for entry in sorted(entries, key=_order)):
        here = [entry for entry in entries if _place(entry.record.job) == place]
        others = [one for one in outside if _place(one[0]) == place]
        for attribute in attributes or _attributes(here):
            table = _table(attribute, here, others, {m.name: m for m in (ACCURACY, *metrics)}, measure)
            tables.append(replace(table, notes=(*table.notes, *unknown)))
    board = Board(title, tuple(tables), __version__)
    return replace(board, tables=tuple(_published(table, min_cell) for table in tables)) if min_cell else board


def _place(job: Job) -> tuple[str, str, str]:
    return job.dataset.label, job.backbone.label, job.unrecorded


def _order(entry: Entry) -> tuple[str, str, str]:
    return _place(entry.record.job)


def _attributes(entries: Sequence[Entry]) -> list[str]:
    """List what methods were trained for; where none uses attributes, all attributes of the dataset."""
    trained = sorted({"+".join(e.record.job.attributes) for e in entries if e.record.job.attributes})
    known = next((e.predictions.attributes for e in entries if e.predictions), ())
    return trained or list(known) or [""]


def _table(
    attribute: str,
    entries: Sequence[Entry],
    outside: Sequence[tuple[Job, str, str]],
    metrics: Mapping[str, Metric],
    measure: str | None,
) -> Table:
    """One table, from the jobs that used no attribute and those trained for this one, alone or among others."""

    def belongs(job: Job) -> bool:
        return not job.attributes or attribute in (*job.attributes, "+".join(job.attributes))

    # Where nobody was trained for it, everybody shows what became of it.
    mine = [e for e in entries if belongs(e.record.job)] or list(entries)
    usable, refused = same_patients([e for e in mine if e.predictions is not None])
    found, duplicates = contenders(usable, attribute)
    excluded = [excluded_job(e.record.job, *e.excluded) for e in mine if e.excluded]
    excluded += [excluded_job(*one) for one in outside if belongs(one[0])]
    excluded += [*refused, *duplicates]
    job = mine[0].record.job
    if not attribute or not found:
        return _empty(attribute, job, usable, excluded, mine)
    predictions = usable[0].predictions
    assert predictions is not None
    chosen = judge(measure or usable[0].record.measure, metrics, predictions)
    found = [replace(c, answers=c.answers.by(chosen)) for c in found]
    methods, controls = [c for c in found if not c.control], [c for c in found if c.control]
    groups = Groups.of(predictions.table, attribute, job.unrecorded)
    able, unmeasured = others(chosen, metrics, predictions)
    seeds = sorted({seed for c in found for seed in c.answers.seeds})
    stale = stale_rows(found)
    flagged = {row.label: row for row in stand(methods, controls, groups, seeds)}
    rows = tuple(_marked(row, stale) for row in flagged.values())
    ordered = sorted(methods, key=lambda c: [*flagged].index(c.label))
    control_rows = [measured(c, groups) for c in controls]
    control_rows = [replace(row, flags=(*missing(row, seeds), *row.flags)) for row in control_rows]
    baseline = next((c for c in methods if c.baseline), None)
    others_answers = [c.answers for c in methods if c is not baseline]
    clusters = predictions.clusters()
    table = Table(
        dataset=job.dataset.label,
        backbone=job.backbone.label,
        attribute=attribute,
        unrecorded=job.unrecorded,
        fingerprint=usable[0].record.job.dataset.fingerprint,
        rows_tested=len(predictions),
        clusters=int(np.unique(clusters).size),
        classes=predictions.classes,
        groups=_groups(predictions, groups),
        constant=_constant(predictions, groups, chosen),
        baseline=baseline.label if baseline else None,
        finding=(),
        notes=(),
        rows=rows,
        controls=tuple(_marked(row, stale) for row in control_rows),
        excluded=tuple(sorted(excluded, key=lambda a: (a.label, a.seed, a.key))),
        side_effects=side_effects(ordered, job.unrecorded),
        trials=_trials(mine),
        improvement=improvement(baseline.answers, others_answers, groups) if baseline else None,
        measure=called(chosen),
        further=tuple(FurtherMeasure(called(metric), further(ordered, groups, metric)) for metric in able),
    )
    return replace(table, finding=tuple(_finding(table)), notes=(*_notes(table), *unmeasured))


def _empty(
    attribute: str, job: Job, usable: Sequence[Entry], excluded: Sequence[Excluded], mine: Sequence[Entry]
) -> Table:
    """Make a table without rows: every job failed, or the dataset records no attribute."""
    reason = "No job of this table finished." if not usable else "This dataset records no attribute."
    return Table(
        dataset=job.dataset.label,
        backbone=job.backbone.label,
        attribute=attribute,
        unrecorded=job.unrecorded,
        fingerprint=job.dataset.fingerprint,
        rows_tested=0,
        clusters=0,
        classes=(),
        groups=(),
        constant=Constant("", 0.0, None),
        baseline=None,
        finding=(reason,),
        notes=(),
        rows=(),
        controls=(),
        excluded=tuple(excluded),
        side_effects=(),
        trials=_trials(mine),
    )


def _marked(row: Row, stale: dict[str, Flag]) -> Row:
    return replace(row, flags=(stale[row.label], *row.flags)) if row.label in stale else row


def _groups(predictions: Predictions, groups: Groups) -> tuple[Group, ...]:
    two = len(predictions.classes) == 2
    counted = []
    for place, name in enumerate(groups.names):
        inside = groups.codes == place
        counts = [int((predictions.target[inside] == index).sum()) for index in (1, 0)] if two else [None, None]
        counted.append(Group(name, int(inside.sum()), *counts))
    return tuple(counted)


def _constant(predictions: Predictions, groups: Groups, judge: Metric) -> Constant:
    best = constant(predictions, judge)
    by_group = best.by_group(groups)[0]
    gap = float(np.nanmax(by_group) - np.nanmin(by_group)) if np.isfinite(by_group).sum() > 1 else None
    given = best.predictions[0].table
    answer = str(given["text"].mode()[0]) if "text" in given else predictions.classes[int(given["answer"].iloc[0])]
    if "text" in given and given["text"].nunique() > 1:
        answer += " and so on, by question"
    return Constant(answer, float(best.scores.mean()), gap)


def _trials(entries: Sequence[Entry]) -> Trials:
    """Count what was tried, also inside a method that searches (`tried` of its record) before its last training."""
    tried = [(e.record.job, e.record.tried) for e in entries if e.record.role != "control"]
    settings: dict[str, int] = {}
    for job, inside in tried:
        settings[job.method.label] = max(settings.get(job.method.label, 0), inside, 1)
    return Trials(
        methods=len({job.method.name for job, _ in tried}),
        settings=sum(settings.values()),
        seeds=tuple(sorted({job.seed for job, _ in tried})),
        trainings=sum(1 + inside for _, inside in tried),
    )
