"""From a folder of runs to a leaderboard: everything recomputed from predictions, no device needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fairbench import __version__
from fairbench.errors import FairbenchError
from fairbench.jobs.store import Store
from fairbench.jobs.summary import Summary, place
from fairbench.leaderboard.board import Board
from fairbench.leaderboard.collect import Finished, excluded
from fairbench.leaderboard.tables import Options, Wanted, read, tables
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
) -> Board:
    """Build the board of a folder of runs, or of the jobs in `keys`: a table per dataset × backbone × attribute.

    `attributes` default to those that methods were trained for, else to all of the dataset. `min_cell`
    withholds the counts and values of groups smaller than it. Tables are judged by `measure`, accuracy or one
    of `metrics` that scores rows (default: what the dataset names). `primary` names methods whose comparison with
    the baseline was planned: adjusted among themselves. Raises FairbenchError when nothing has
    ended, or for a measure that cannot judge.
    """
    overview = store.overview()
    ended = [one for key, one in overview.ended.items() if keys is None or key in keys]
    refused = [one for one in (*overview.refused.values(), *overview.unclear) if keys is None or one.key in keys]
    if not ended:
        why = "".join(f"; {one}" for one in refused)
        raise FairbenchError(f"no job in {store.name} has ended yet{why}", f"see `fairbench status {store.name}`")
    outside = [(job, excluded(job, "unfinished", "begun and not ended")) for job in overview.begun]
    outside = [(job, one) for job, one in outside if keys is None or job.key in keys]
    outside += [(one.job, excluded(one.job, "refused", str(one))) for one in refused if one.job]
    wanted = []
    for here in _by_place(ended):
        others = [(job, one) for job, one in outside if place(job) == here[0].place]
        for attribute in attributes or _attributes(store, here):
            # Where nobody was trained for it, everybody shows what became of it.
            mine = [one for one in here if _belongs(one.attributes, attribute)] or here
            theirs = tuple(one for job, one in others if _belongs(job.attributes, attribute))
            wanted.append(Wanted(attribute, tuple(one.key for one in mine), theirs))
    options = Options(registry(metrics), measure, ranking, min_cell, tuple(primary))
    made = tables(store, overview.ended, wanted, options)
    return Board(title, made, __version__, tuple(str(one) for one in refused if not one.job))


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
