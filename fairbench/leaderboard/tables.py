"""Tables, each computed once from what it rests on, on all cores, and kept until something of that changes."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import fairbench
from fairbench.cache import Cache, code_of
from fairbench.errors import FairbenchError
from fairbench.jobs.conversion import departures, from_json
from fairbench.jobs.job import Record
from fairbench.jobs.store import Store
from fairbench.jobs.summary import Refused, Summary
from fairbench.leaderboard.board import Excluded, Table, Trials
from fairbench.leaderboard.collect import Finished, contenders, excluded, joined, load, same_patients
from fairbench.leaderboard.elsewhere import References, home, received, references
from fairbench.leaderboard.measure import judging_metric, unscored
from fairbench.leaderboard.remembered import remembering
from fairbench.leaderboard.suppression import withhold
from fairbench.leaderboard.table import fill
from fairbench.metrics.metric import Metric
from fairbench.processes import cores, spawning
from fairbench.statistics.results import RankBy

MADE_BY = ("jobs", "leaderboard", "metrics", "predictions", "statistics")  # whose code a table rests on
MADE_WITH = ("numpy", "pandas", "scipy", "scikit-learn", "statsmodels")
WORTH = 60  # jobs in the tables to compute that pay for starting other processes


@dataclass(frozen=True)
class Options:
    """How tables are made: judged by `measure` (default: what the dataset names), ranked by `ranking`, groups
    smaller than `min_cell` withheld; `primary` are methods whose comparison with the baseline was planned;
    `evidence` attaches what numbers can be recomputed from; `also` are metrics that stand beside.
    """

    metrics: Mapping[str, Metric]
    measure: str | None = None
    ranking: RankBy = "dominance"
    min_cell: int = 0
    primary: tuple[str, ...] = ()
    evidence: bool = False
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """A table to make: of an attribute, from the jobs with these keys; `outside` are jobs without a record."""

    attribute: str
    keys: tuple[str, ...]
    outside: tuple[Excluded, ...] = ()


def tables(
    store: Store, ended: Mapping[str, Summary], wanted: Sequence[Wanted], options: Options
) -> tuple[Table, ...]:
    """Make tables in their order; one that was made before is read, and is what making it again would give.

    It is kept by a hash of all that it rests on: the records, the predictions as they lie on disk, the options, and
    the code and libraries that compute it.
    """
    digests = store.digests({key for one in wanted for key in one.keys if ended[key].error is None})
    maker = _maker(options)
    names = [_name(one, ended, digests, maker) for one in wanted]
    cache = Cache()
    known = cache.read("table", [name for name in names if name])
    cache.touch("table", known)
    open_ = [place for place, name in enumerate(names) if name not in known]
    made: dict[int, Table] = {}
    for place, (table, records) in zip(open_, _computed(store, [wanted[i] for i in open_], options), strict=True):
        made[place] = table
        if names[place] and records == {key: ended[key].digest for key in wanted[place].keys}:
            cache.write("table", {names[place]: ("", json.dumps(departures(table)).encode())})
    return tuple(
        made[place] if place in made else from_json(Table, json.loads(known[name][1]))
        for place, name in enumerate(names)
    )


def _name(wanted: Wanted, ended: Mapping[str, Summary], digests: Mapping[str, str], maker: str) -> str:
    """Name a table by what it rests on; empty where predictions are damaged, so that it is looked at each time."""
    for key in wanted.keys:
        if ended[key].error is None and digests.get(key) != ended[key].predictions:
            return ""
    rests = [(key, ended[key].digest) for key in wanted.keys]
    return _hashed([maker, wanted.attribute, rests, [asdict(one) for one in wanted.outside]])


def _maker(options: Options) -> str:
    """Hash what turns records into tables: options, metrics and their code, fairbench's code, libraries."""
    metrics = [
        [{**vars(one), "each": "", "over": "", "made_with": one.versions()}, code_of(home(one)),
         os.environ.get(one.checkpoint)]
        for one in options.metrics.values()
    ]  # fmt: skip
    chosen = [options.measure, options.ranking, options.min_cell, options.primary, options.evidence, options.also]
    return _hashed([_own_code(), [(name, version(name)) for name in MADE_WITH], metrics, chosen])


@functools.cache
def _own_code() -> str:
    folder = Path(fairbench.__file__).parent
    files = [path for package in MADE_BY for path in sorted((folder / package).glob("*.py"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def _hashed(thing: object) -> str:
    return hashlib.sha256(json.dumps(thing, sort_keys=True).encode()).hexdigest()


def _computed(store: Store, wanted: Sequence[Wanted], options: Options) -> Iterator[tuple[Table, dict[str, str]]]:
    """Make tables in their order, in processes of their own where these are worth their start."""
    workers = min(cores(), len(wanted))
    metrics = references(options.metrics) if workers > 1 and sum(len(one.keys) for one in wanted) >= WORTH else None
    if metrics is None:
        for one in wanted:
            yield computed(store, one, options)
        return
    with spawning() as context:  # the pool starts a process when it is given a task
        pool = ProcessPoolExecutor(workers, context)
        plain = replace(options, metrics={})
        started = [pool.submit(_computed_elsewhere, store, one, plain, metrics) for one in wanted]
    with pool:
        try:
            for future in started:
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _computed_elsewhere(
    store: Store, wanted: Wanted, options: Options, metrics: References
) -> tuple[Table, dict[str, str]]:
    return computed(store, wanted, replace(options, metrics=received(metrics)))


def computed(store: Store, wanted: Wanted, options: Options) -> tuple[Table, dict[str, str]]:
    """Make one table; also return, by key, the SHA-256 of the records that it was made from."""
    entries, records, digests = [], [], {}
    for key in wanted.keys:
        record, entry, digests[key] = read(store, key)
        records.append(record)
        entries.append(entry)
    job = records[0].job
    with remembering(_hashed([_maker(options), job.dataset.label, job.backbone.label, wanted.attribute])):
        return table_of(wanted, records, entries, options), digests


def table_of(
    wanted: Wanted, records: Sequence[Record], entries: Sequence[Finished | Excluded], options: Options
) -> Table:
    """Make one table of the records and answers of its jobs, wherever these were read."""
    others = [*[one for one in entries if isinstance(one, Excluded)], *wanted.outside]
    whole, lacking = joined([one for one in entries if isinstance(one, Finished)])
    usable, refused = same_patients(whole)
    job = records[0].job
    empty = Table(
        dataset=job.dataset.label,
        backbone=job.backbone.label,
        attribute=wanted.attribute,
        unrecorded=job.unrecorded,
        folds=job.folds,
        trials=trials_of(records),
        excluded=_ordered([*others, *refused, *lacking]),
    )
    if not wanted.attribute or not usable:
        return empty
    judge = judging_metric(options.measure or usable[0].record.measure, options.metrics, usable[0].predictions)
    faults = [unscored(judge, one.predictions) for one in usable]
    unjudged = [excluded(one.job, "refused", why) for one, why in zip(usable, faults, strict=True) if why]
    scored = [one for one, why in zip(usable, faults, strict=True) if not why]
    rows, duplicates = contenders(scored, wanted.attribute, judge)
    listed = replace(empty, excluded=_ordered([*others, *refused, *lacking, *unjudged, *duplicates]))
    filled = fill(listed, rows, options.metrics, options.ranking, options.primary, options.evidence, options.also)
    return withhold(filled, options.min_cell) if options.min_cell else filled


def read(store: Store, key: str) -> tuple[Record, Finished | Excluded, str]:
    """Read the record and predictions of the job with this key; also return the record's SHA-256."""
    stored = store.stored(key)
    if isinstance(stored, Refused):
        raise FairbenchError(f"{stored}; it was sound a moment ago", "run the same command again")
    return stored[0], load(store, stored[0]), stored[1]


def _ordered(jobs: Iterable[Excluded]) -> tuple[Excluded, ...]:
    return tuple(sorted(jobs, key=lambda one: (one.label, one.seed, one.key)))


def trials_of(records: Sequence[Record]) -> Trials:
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
