"""From a folder of runs to a leaderboard: everything recomputed from predictions, no device needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from fairbench import __version__
from fairbench.errors import FairbenchError
from fairbench.jobs.job import Job, Record
from fairbench.jobs.store import Store
from fairbench.leaderboard.board import Board, Excluded, Ranking, Table, Trials
from fairbench.leaderboard.collect import Finished, contenders, excluded, joined, load, same_patients
from fairbench.leaderboard.measure import judging_metric
from fairbench.leaderboard.suppression import withhold
from fairbench.leaderboard.table import fill
from fairbench.metrics.metric import Metric, registry


@dataclass(frozen=True)
class Options:
    """How tables are made: judged by `measure` (default: what the dataset names), ranked by `ranking`, groups
    smaller than `min_cell` withheld; `primary` are methods whose comparison with the baseline was planned.
    """

    metrics: Mapping[str, Metric]
    measure: str | None = None
    ranking: Ranking = "dominance"
    min_cell: int = 0
    primary: tuple[str, ...] = ()


def build(
    store: Store,
    keys: set[str] | None = None,
    attributes: Sequence[str] | None = None,
    title: str = "Leaderboard",
    min_cell: int = 0,
    metrics: Sequence[Metric] = (),
    measure: str | None = None,
    ranking: Ranking = "dominance",
    primary: Sequence[str] = (),
) -> Board:
    """Build the board of a folder of runs, or of the jobs in `keys`: a table per dataset × backbone × attribute.

    `attributes` default to those that methods were trained for, else to all of the dataset. `min_cell`
    withholds the counts and values of groups smaller than it. Tables are judged by `measure`, accuracy or one
    of `metrics` that scores rows (default: what the dataset names). `primary` names methods whose comparison with
    the baseline was planned: adjusted among themselves. Raises FairbenchError when nothing has
    ended, or for a measure that cannot judge.
    """
    contents = store.contents()
    records = [r for r in contents.records if keys is None or r.job.key in keys]
    refused = [r for r in contents.refused if keys is None or r.key in keys]
    if not records:
        why = "".join(f"; {one}" for one in refused)
        raise FairbenchError(f"no job in {store.name} has ended yet{why}", f"see `fairbench status {store.name}`")
    loaded = [(record, load(store, record)) for record in records]
    outside = [(job, excluded(job, "unfinished", "begun and not ended")) for job in contents.begun]
    outside = [(job, one) for job, one in outside if keys is None or job.key in keys]
    outside += [(one.job, excluded(one.job, "refused", str(one))) for one in refused if one.job]
    options = Options(registry(metrics), measure, ranking, min_cell, tuple(primary))
    tables = []
    for place in sorted({_place(record.job) for record in records}):
        here = [(record, one) for record, one in loaded if _place(record.job) == place]
        others = [(job, one) for job, one in outside if _place(job) == place]
        for attribute in attributes or _attributes(here):
            tables.append(table(attribute, here, others, options))
    return Board(title, tuple(tables), __version__, tuple(str(one) for one in refused if not one.job))


Loaded = tuple[Record, Finished | Excluded]


def _place(job: Job) -> tuple[str, str, str, int]:
    return job.dataset.label, job.backbone.label, job.unrecorded, job.folds


def _attributes(entries: Sequence[Loaded]) -> list[str]:
    """List what methods were trained for; where none uses attributes, all attributes of the dataset."""
    trained = sorted({"+".join(r.job.attributes) for r, _ in entries if r.job.attributes})
    known = next((one.predictions.attributes for _, one in entries if isinstance(one, Finished)), ())
    return trained or list(known) or [""]


def table(
    attribute: str, entries: Sequence[Loaded], outside: Sequence[tuple[Job, Excluded]], options: Options
) -> Table:
    """One table, from the jobs that used no attribute and those trained for this one, alone or among others."""

    def belongs(job: Job) -> bool:
        return not job.attributes or attribute in (*job.attributes, "+".join(job.attributes))

    # Where nobody was trained for it, everybody shows what became of it.
    mine = [(record, one) for record, one in entries if belongs(record.job)] or list(entries)
    others = [one for _, one in mine if isinstance(one, Excluded)] + [one for job, one in outside if belongs(job)]
    whole, lacking = joined([one for _, one in mine if isinstance(one, Finished)])
    usable, refused = same_patients(whole)
    refused += lacking
    job = mine[0][0].job
    empty = Table(
        dataset=job.dataset.label,
        backbone=job.backbone.label,
        attribute=attribute,
        unrecorded=job.unrecorded,
        folds=job.folds,
        trials=_trials([record for record, _ in mine]),
        excluded=_ordered([*others, *refused]),
    )
    if not attribute or not usable:
        return empty
    judge = judging_metric(options.measure or usable[0].record.measure, options.metrics, usable[0].predictions)
    rows, duplicates = contenders(usable, attribute, judge)
    listed = replace(empty, excluded=_ordered([*others, *refused, *duplicates]))
    filled = fill(listed, rows, options.metrics, options.ranking, options.primary)
    return withhold(filled, options.min_cell) if options.min_cell else filled


def _ordered(excluded: Iterable[Excluded]) -> tuple[Excluded, ...]:
    return tuple(sorted(excluded, key=lambda one: (one.label, one.seed, one.key)))


def _trials(records: Sequence[Record]) -> Trials:
    """Count what was tried, also inside a method that searches (`tried` of its record) before its last training."""
    tried = [(record.job, record.tried) for record in records if record.ranked]
    settings: dict[str, int] = {}
    for job, inside in tried:
        settings[job.method.label] = max(settings.get(job.method.label, 0), inside, 1)
    return Trials(
        methods=len({job.method.name for job, _ in tried}),
        settings=sum(settings.values()),
        seeds=tuple(sorted({job.seed for job, _ in tried})),
        trainings=sum(1 + inside for _, inside in tried),
    )
