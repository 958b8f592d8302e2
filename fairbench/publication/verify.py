"""Check a published leaderboard by itself: whether it could be what it says, and agrees with itself."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from itertools import combinations

from fairbench import __version__
from fairbench.jobs.conversion import departures
from fairbench.jobs.job import Record
from fairbench.jobs.store import PREDICTIONS
from fairbench.jobs.summary import place as place_of
from fairbench.leaderboard.board import Row, Table
from fairbench.leaderboard.readjust import readjust
from fairbench.leaderboard.standings import criteria_of
from fairbench.leaderboard.tables import trials_of
from fairbench.metrics.metric import Metric
from fairbench.plugins import Plugins
from fairbench.publication.cells import Counts, check_changes, check_counts, check_further, check_row
from fairbench.publication.findings import ABSOLUTE, Finding, collected, compared, shown
from fairbench.publication.published import Publication
from fairbench.publication.rows import check_excluded, check_rows
from fairbench.statistics.ranking import opposite

CLOCKS = datetime.timedelta(days=1)  # by how much clocks may differ
BY_MODELS = "that the answers are those of the models: that needs the adapters (--runs with --rerun)"


def verify_file(publication: Publication, plugins: Plugins | None = None, answers: bool = False) -> list[Finding]:
    """Check all that a file alone can be asked; with `plugins`, also the code that it says is fairbench's own.

    `answers`: all answers are at hand, and another check builds the board of them, so nothing is said of what
    counts do not determine.
    """
    records = publication.records
    findings = collected("jobs", "every job is in a table, once, and no time is impossible", _jobs(publication))
    findings += collected("board", "it is of one name, and each table of its own data", _board(publication))
    for number, table in enumerate(publication.board.tables):
        where = table.place
        findings += collected(where, "its rows are those of the jobs named", check_rows(publication, number))
        findings += collected(where, "it is about what its jobs are about", _about(table, where, records))
        findings += collected(where, "it is made as the publication says", _made(publication, table, where))
        findings += collected(where, "as many trials as jobs", _trials(table, where, records))
        if table.evidence is None or not (table.rows or table.controls):
            findings.append(Finding("unchecked", where, "no counts are attached: its numbers are their lab's word"))
            continue
        metrics = plugins.tables["metric"] if plugins else {}
        findings += _numbers(table, number, where, answers, bool(publication.parts), metrics)
    if publication.board.refused:
        findings.append(Finding("unchecked", "board", "the records that it says could not be believed"))
    if plugins is not None:
        findings += collected("code", "what calls itself fairbench's own is", _own(publication.jobs, plugins))
    return findings


def _jobs(publication: Publication) -> Iterator[Finding]:
    """Every record has its place in a table, and a time that can be."""
    for key, same_job in publication.records.items():
        if len(same_job) > max(1, len(publication.parts)) or any(
            one in same_job[:n] for n, one in enumerate(same_job)
        ):
            yield Finding("differs", f"job {key}", "it is listed twice")
    used = {key for table in publication.board.tables for row in (*table.rows, *table.controls) for key in row.keys}
    listed = {one.key for table in publication.board.tables for one in table.excluded}
    for table in publication.board.tables:
        yield from check_excluded(table, publication.records)
    published = _time(publication.published)
    if published is None or published - datetime.datetime.now(datetime.UTC) > CLOCKS:
        yield Finding("differs", "published", f"{publication.published!r} is no time that has been")
    for record in publication.jobs:
        key, started = record.job.key, _time(record.started)
        where = f"job {key} ({record.job.title})"
        if key not in used | listed:
            yield Finding("differs", where, "it is in no table, though it was run")
        if started is None:
            yield Finding("differs", where, f"it began at {record.started!r}, which is no time")
        elif published is not None and started - published > CLOCKS:
            yield Finding("differs", where, f"it began at {record.started!r}, after the board was published")
        if not record.failed and not record.device:
            yield Finding("differs", where, "it does not say on which device it ran")
        if not record.failed and PREDICTIONS not in record.files:
            yield Finding("differs", where, "its record names no predictions")


def _board(publication: Publication) -> Iterator[Finding]:
    """Board and rows are of who published them under this name, and no two tables are about the same."""
    board = publication.board
    yield from compared(board.title, publication.name, "title, and the publication's name")
    about = [(t.place, t.unrecorded, t.folds) for t in board.tables if not t.apart]
    for twice, *_ in sorted({one for one in about if about.count(one) > 1}):
        yield Finding("differs", twice, "two tables are about it")
    for number, table in enumerate(board.tables if not publication.parts else ()):
        for row in (*table.rows, *table.controls):
            said = f"{table.place} · {row.label}: origin, and who publishes"
            yield from compared(row.origin, publication.publisher, said, (number, row.label))


def _time(text: str) -> datetime.datetime | None:
    try:
        time = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=datetime.UTC)


def _about(table: Table, where: str, records: Mapping[str, list[Record]]) -> Iterator[Finding]:
    """Data, backbone and baseline are those of the jobs; of several laboratories, of one of them."""
    keys = [key for row in (*table.rows, *table.controls) for key in row.keys]
    jobs = [record.job for key in keys for record in records.get(key, ())]
    names = ("dataset", "backbone", "unrecorded", "folds", "fingerprint")
    each = [dict(zip(names, (*place_of(job), job.dataset.fingerprint), strict=True)) for job in jobs]
    said = {name: getattr(table, name) for name in names}
    if each and said not in each:
        yield from compared(said, each[0], f"{where}: of the table, and of its jobs")
    baselines = [row.label for row in table.rows if row.role == "baseline"]
    if table.baseline not in baselines and (baselines or table.baseline):
        said_of = f"published {shown(table.baseline)}, and rows of that role are {shown(baselines)}"
        yield Finding("differs", f"{where}: baseline", said_of)


def _trials(table: Table, where: str, records: Mapping[str, list[Record]]) -> Iterator[Finding]:
    """As much was tried as the table says: a row or a seed that was dropped is missed here."""
    keys = [key for row in (*table.rows, *table.controls) for key in row.keys] + [one.key for one in table.excluded]
    here = [records[key][0] for key in dict.fromkeys(keys) if key in records]
    yield from compared(asdict(table.trials), asdict(trials_of(here)), f"{where}: trials, published and listed")


def _made(publication: Publication, table: Table, where: str) -> Iterator[Finding]:
    """A table was made as the publication's choices have it: measure, ranking, what is withheld.

    Of merged boards each part was made in its own way.
    """
    small = [group.name for group in table.groups if group.n is not None and group.n < table.min_cell]
    if small:
        said = f"{', '.join(small)} has fewer than {table.min_cell} rows, below which groups are withheld"
        yield Finding("differs", f"{where}: min_cell", said)
    if table.rows and not 1 <= table.clusters <= table.rows_tested:
        said = f"{table.clusters:,} clusters of {table.rows_tested:,} rows"
        yield Finding("differs", f"{where}: clusters", said)
    if publication.parts:
        return
    chosen = publication.choices
    told = {"min_cell": chosen.min_cell, "ranked_by": chosen.ranking, "measure": chosen.measure}
    mine = {"min_cell": table.min_cell, "ranked_by": table.ranked_by, "measure": table.measure.name}
    if chosen.measure is None:
        told.pop("measure")
    if table.rows:  # of a table without rows nothing was made
        yield from compared({name: mine[name] for name in told}, told, f"{where}, and the publication's choices")
    if chosen.attributes and table.attribute not in chosen.attributes:
        said = f"published {table.attribute}, and the choices are {shown(list(chosen.attributes))}"
        yield Finding("differs", f"{where}: attribute", said)
    planned = {row.label for row in table.rows if {row.label, row.method} & {*chosen.primary}}
    yield from compared(sorted(table.primary), sorted(planned), f"{where}: primary, and the publication's choices")
    lacking = {*chosen.also} - {one.measure.name for one in table.further} - {table.measure.name}
    if table.rows and lacking:
        said = f"{', '.join(sorted(lacking))} was to stand beside, and does not"
        yield Finding("differs", f"{where}: further measures", said)


def _numbers(
    table: Table, number: int, where: str, answers: bool, merged: bool, metrics: Mapping[str, Metric]
) -> list[Finding]:
    """Recompute all that the attached counts and comparisons determine."""
    assert table.evidence is not None
    rows = (*table.rows, *table.controls)
    missing = [row.label for row in rows if not table.evidence.counts.get(row.label)]
    findings = [Finding("unchecked", f"{where} · {label}", "no counts are attached") for label in missing]
    faults = [*check_counts(table, number, where)]
    if faults:
        return [*findings, *faults]
    findings.append(Finding("holds", where, "all rows and seeds count the same patients"))
    counts = Counts(table)
    counted = [row for row in rows if row.label not in missing]
    findings += collected(
        where,
        "values follow from counts",
        (one for row in counted for one in check_row(counts, row, number, f"{where} · {row.label}")),
    )
    findings += collected(where, "differences follow from counts", _changes(counts, number, where, merged))
    findings += collected(
        where, "ranks and adjusted p-values follow from all comparisons", _adjusted(table, number, where)
    )
    findings += collected(where, "the commonest answer is that of the patients", _constant(counts, where))
    findings += check_further(counts, metrics, number, where)
    if table.improvement is not None:
        findings += collected(
            where, "what an improvement would have to be rests on the baseline", _base(counts, where)
        )
    beyond = () if answers else _beyond_counts(table)
    findings += [Finding("unchecked", where, said) for said in (*beyond, BY_MODELS)]
    return findings


def _constant(counts: Counts, where: str) -> Iterator[Finding]:
    """What always giving the commonest answer scores follows from how many patients have it, and so does its gap.

    An answer to each question scores at least as much as one class for all, and how much more, counts do not show.
    """
    table, constant = counts.table, counts.table.constant
    answers = counts.of_everyone
    if constant is None or answers is None or table.measure.name != "accuracy":
        return
    of_class = dict(zip(table.classes, map(sum, answers), strict=True))
    place, score = f"{where}: always “{constant.answer}”", constant.score
    if constant.one_class:
        yield from compared(score, of_class.get(constant.answer, 0) / table.rows_tested, place)
        shares = counts.shares(constant.answer)
        if shares is not None:
            yield from compared(
                constant.gap, max(shares) - min(shares) if len(shares) > 1 else None, f"{place}: gap"
            )
    elif score < max(of_class.values()) / table.rows_tested - ABSOLUTE:
        commonest = max(of_class, key=of_class.__getitem__)
        share = of_class[commonest] / table.rows_tested
        yield Finding("differs", place, f"published {score:.6g}, and always “{commonest}” is right for {share:.6g}")


def _base(counts: Counts, where: str) -> Iterator[Finding]:
    """The score and gap that a cut is foretold from are the baseline's."""
    table = counts.table
    if table.improvement is None or table.baseline is None or not counts.of(table.baseline):
        return
    points = counts.points(table.baseline)
    mine = {name: points[key] for name, key in (("score", "in groups"), ("gap", "gap")) if key in points}
    told = {name: getattr(table.improvement, name) for name in mine}
    yield from compared(told, mine, f"{where}: improvement, and the baseline")


def _changes(counts: Counts, number: int, where: str, merged: bool) -> Iterator[Finding]:
    """Differences are those of the rows' counts, every two rows were compared once, and ranks rest on the same."""
    table = counts.table
    assert table.evidence is not None
    yield from _compared(table, where, merged)
    pairs = {(one.a, one.b): dict(one.differences) for one in table.evidence.pairs}
    for (a, b), differences in pairs.items():
        yield from check_changes(counts, a, b, differences, f"{where} · {a}, {b}", (number, a))
    bases = [row.label for row in table.rows if row.role == "baseline"]
    names = {"eq_odds_max"} if len(table.classes) == 2 else set()
    for row in table.rows:
        place, mine = f"{where} · {row.label}", (number, row.label)
        ranked = None
        for base in bases:
            if (row.label, base) in pairs:
                ranked = pairs[row.label, base]
            elif (base, row.label) in pairs:
                ranked = {name: opposite(one) for name, one in pairs[base, row.label].items()}
            else:
                continue
            told = {name: _bare(row.changes[name]) for name in row.changes if name in ranked}
            theirs = {name: _bare(one) for name, one in ranked.items()}
            yield from compared(told, theirs, f"{place}: differences, and those behind the ranks", mine)
            yield from check_changes(counts, row.label, base, row.changes, f"{place}: minus {base}", mine)
        unknown = {*row.changes} - {*(ranked or {})} - (names if ranked else set())
        if row.label not in bases and unknown:
            said = (
                f"a difference in {', '.join(sorted(unknown))} to the baseline, with which it was not so compared"
            )
            yield Finding("differs", place, said, mine)


def _compared(table: Table, where: str, merged: bool) -> Iterator[Finding]:
    """All rows of one laboratory were compared with each other, once, in what ranks go by."""
    assert table.evidence is not None
    names = {*criteria_of(table.ranked_by, len(table.classes) == 2)}
    seen: set[frozenset[str]] = set()
    for one in table.evidence.pairs:
        both, place = frozenset((one.a, one.b)), f"{where} · {one.a}, {one.b}"
        if both in seen or len(both) < 2:
            yield Finding("differs", place, "they are compared twice" if len(both) > 1 else "compared with itself")
        seen.add(both)
        if missing := names - {*one.differences}:
            yield Finding("differs", place, f"they are not compared in {', '.join(sorted(missing))}")
    for a, b in combinations(table.rows, 2):
        if frozenset((a.label, b.label)) not in seen and (not merged or a.origin == b.origin):
            yield Finding(
                "differs", f"{where} · {a.label}, {b.label}", "they are not compared, and both are ranked"
            )
    for label in sorted({*table.evidence.counts} - {row.label for row in (*table.rows, *table.controls)}):
        yield Finding("differs", f"{where} · {label}", "counts are attached, and it is no row")


def _bare(difference: object) -> dict[str, object]:
    kept = departures(difference)
    return {name: kept.get(name) for name in ("value", "low", "high", "p", "exchange_p")}


def _adjusted(table: Table, number: int, where: str) -> Iterator[Finding]:
    """Adjust and rank anew by the comparisons attached; one that lacks was dropped, or its row was."""
    assert table.evidence is not None
    labels = {row.label for row in table.rows}
    for one in table.evidence.pairs:
        for name, difference in one.differences.items():
            if not 0 <= (difference.p or 0) <= 1:
                yield Finding("differs", f"{where} · {one.a}, {one.b}: {name}", f"p is {shown(difference.p)}")
        for label in sorted({one.a, one.b} - labels):
            yield Finding(
                "differs", where, f"{label} was compared with {', '.join({one.a, one.b} - {label})}, and is no row"
            )
            return
    again = readjust(table)
    yield from compared([row.label for row in table.rows], [row.label for row in again.rows], f"{where}: order")
    by_label = {row.label: row for row in again.rows}
    for row in table.rows:
        place = f"{where} · {row.label}"
        yield from compared(_by_rank(row), _by_rank(by_label[row.label]), place, (number, row.label))


def _by_rank(row: Row) -> dict[str, object]:
    return {
        "rank": row.rank,
        "trade_offs": list(row.trade_offs),
        "flags": [asdict(flag) for flag in row.flags],
        "changes": {name: one.adjusted for name, one in row.changes.items()},
        "interactions": {name: one.adjusted for name, one in row.interactions.items()},
        "adjusted": [row.gap.adjusted, row.eq_odds_max.adjusted, row.equity_scaled.adjusted],
    }


def _beyond_counts(table: Table) -> Iterator[str]:
    """Say what counts do not determine, so that nobody takes silence for a check."""
    assert table.evidence is not None
    several = any(len(row.seeds) > 1 for row in (*table.rows, *table.controls))
    if several or table.clusters != table.rows_tested or table.measure.name != "accuracy":
        yield "intervals and p-values of rows: they need the predictions (--runs)"
    if any(cell is None for seeds in table.evidence.counts.values() for one in seeds for cell in one.groups):
        yield "gaps and worst groups: small groups are withheld, so they need the predictions (--runs)"
    if table.constant and not table.constant.one_class:
        yield "what the commonest answers score: each question has its own, so it needs the predictions (--runs)"
    yield "AUROC, side effects, contrasts, and p-values of differences: they need the predictions (--runs)"
    yield "whether a row has learned, or is below a reference: that needs the predictions (--runs)"
    if table.improvement is not None:
        yield "how alike rows and baseline answer, and the cut that follows: that needs the predictions (--runs)"


def _own(records: Iterable[Record], plugins: Plugins) -> Iterator[Finding]:
    """Compare code that says it is this version's own with this version's own."""
    seen: dict[tuple[str, str], str] = {}
    for record in records:
        for kind in ("dataset", "backbone", "method"):
            choice = getattr(record.job, kind)
            seen[kind, choice.name] = choice.version
    for (kind, name), claimed in seen.items():
        provider, _, code = claimed.partition("+")
        where = f"{kind} {name}"
        if provider != f"fairbench {__version__}" or not code:
            by = "third party: " if not provider.startswith("fairbench ") else ""
            yield Finding(
                "unchecked",
                where,
                f"its code ({by}{claimed or 'unknown'}) is not that of fairbench {__version__}, which is here",
            )
        elif name.partition(":")[0] not in plugins.tables[kind]:
            yield Finding("differs", where, f"fairbench {__version__} has no such {kind}")
        elif plugins.version(kind, name) != claimed:
            said = f"published {claimed}, here {plugins.version(kind, name)}"
            yield Finding("differs", where, f"it is said to be fairbench's own and has other code: {said}")
