"""From a folder of runs to a leaderboard: everything recomputed from predictions, no device needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fairbench import __version__
from fairbench.errors import FairbenchError
from fairbench.jobs.job import Job
from fairbench.jobs.store import Store
from fairbench.jobs.summary import Refused, Summary, place
from fairbench.leaderboard.board import Board, Excluded
from fairbench.leaderboard.collect import Finished, Runs, excluded, load
from fairbench.leaderboard.tables import Options, Wanted, read, table_of, tables
from fairbench.metrics.metric import Metric, registry
from fairbench.statistics.results import RankBy


def build(
    store: Store,
    keys: set[str] | None = None,
    attributes: Sequence[str] | None = None,
    title: str = "Leaderboard",
    min_cell: int = 0,
    metrics: Sequence[Metric] = (),
    measure: str | None = None,
    ranking: RankBy = "dominance",
    primary: Sequence[str] = (),
    also: Sequence[str] = (),
) -> Board:
    """Build the board of a folder of runs, or of the jobs in `keys`: a table per dataset × backbone × attribute.

    `attributes` default to those that methods were trained for, else to all of the dataset. `min_cell`
    withholds the counts and values of groups smaller than it. Tables are judged by `measure`, accuracy or one
    of `metrics` that scores rows (default: what the dataset names). `primary` names methods whose comparison with
    the baseline was planned: adjusted among themselves; `also` names metrics that stand beside. Raises
    FairbenchError when nothing has ended, or for a measure that cannot judge.
    """
    overview = store.overview()
    ended = [one for key, one in overview.ended.items() if keys is None or key in keys]
    refused = [one for one in (*overview.refused.values(), *overview.unclear) if keys is None or one.key in keys]
    if not ended:
        why = "".join(f"; {one}" for one in refused)
        raise FairbenchError(f"no job in {store.name} has ended yet{why}", f"see `fairbench status {store.name}`")
    outside = _outside(overview.begun, refused, keys)
    wanted = []
    for here in _by_place(ended):
        others = [(job, one) for job, one in outside if place(job) == here[0].place]
        for attribute in attributes or _attributes(store, here):
            # Where nobody was trained for it, everybody shows what became of it.
            mine = [one for one in here if _belongs(one.attributes, attribute)] or here
            theirs = tuple(one for job, one in others if _belongs(job.attributes, attribute))
            wanted.append(Wanted(attribute, tuple(one.key for one in mine), theirs))
    options = Options(registry(metrics), measure, ranking, min_cell, tuple(primary), also=tuple(also))
    made = tables(store, overview.ended, wanted, options)
    return Board(title, made, __version__, tuple(str(one) for one in refused if not one.job))


def gather(
    runs: Sequence[Runs],
    options: Options,
    keys: set[str] | None = None,
    attributes: Sequence[str] = (),
    title: str = "Leaderboard",
) -> Board:
    """Build one board of several folders, or of what is no folder of runs; arguments as in `build`.

    Of a job that ended in several of them, a table keeps the newest. Nothing is kept for the next time.
    """
    contents = [one.contents() for one in runs]
    loaded = [(r, load(one, r)) for one, c in zip(runs, contents, strict=True) for r in c.records]
    loaded = [(record, entry) for record, entry in loaded if keys is None or record.job.key in keys]
    refused = [one for c in contents for one in c.refused if keys is None or one.key in keys]
    if not loaded:
        raise FairbenchError(f"no job in {', '.join(one.name for one in runs)} has ended yet", "`fairbench status`")
    outside = _outside([job for c in contents for job in c.begun], refused, keys)
    made = []
    for where in sorted({place(record.job) for record, _ in loaded}):
        here = [(record, entry) for record, entry in loaded if place(record.job) == where]
        trained = sorted({"+".join(record.job.attributes) for record, _ in here if record.job.attributes})
        known = next((one.predictions.attributes for _, one in here if isinstance(one, Finished)), ())
        for attribute in attributes or trained or known or [""]:
            mine = [one for one in here if _belongs(one[0].job.attributes, attribute)] or here
            others = [one for job, one in outside if place(job) == where and _belongs(job.attributes, attribute)]
            wanted = Wanted(attribute, tuple(record.job.key for record, _ in mine), tuple(others))
            made.append(table_of(wanted, [record for record, _ in mine], [entry for _, entry in mine], options))
    return Board(title, tuple(made), __version__, tuple(str(one) for one in refused if not one.job))


def _outside(begun: Iterable[Job], refused: Iterable[Refused], keys: set[str] | None) -> list[tuple[Job, Excluded]]:
    """Say why jobs stand in no row: those under way, and those whose record cannot be believed."""
    mine = (job for job in begun if keys is None or job.key in keys)
    unfinished = [(job, excluded(job, "unfinished", "begun and not ended")) for job in mine]
    return unfinished + [(one.job, excluded(one.job, "refused", str(one))) for one in refused if one.job]


def _by_place(ended: Iterable[Summary]) -> list[list[Summary]]:
    """Put jobs of one dataset, backbone and policy together, places in their order."""
    places: dict[tuple[str, str, str, int], list[Summary]] = {}
    for one in ended:
        places.setdefault(one.place, []).append(one)
    return [places[name] for name in sorted(places)]


def _belongs(trained: tuple[str, ...], attribute: str) -> bool:
    """Whether a job stands in an attribute's table: it used none, or was trained for it, alone or among others."""
    return not trained or attribute in (*trained, "+".join(trained))


def _attributes(store: Store, here: Sequence[Summary]) -> list[str]:
    """List what methods were trained for; where none uses attributes, all attributes of the dataset."""
    trained = sorted({"+".join(one.attributes) for one in here if one.attributes})
    if trained:
        return trained
    for one in here:
        _, finished, _ = read(store, one.key)
        if isinstance(finished, Finished):
            return list(finished.predictions.attributes) or [""]
    return [""]
