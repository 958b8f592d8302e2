"""Check a published leaderboard by itself: whether it could be what it says, and agrees with itself."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict

from fairbench import __version__
from fairbench.jobs.conversion import departures
from fairbench.jobs.job import Record
from fairbench.jobs.store import PREDICTIONS
from fairbench.jobs.summary import place as place_of
from fairbench.leaderboard.board import Row, Table
from fairbench.leaderboard.flags import OF_RECORDS, record_flags
from fairbench.leaderboard.readjust import readjust
from fairbench.leaderboard.row import cost, probes, provenance, recipe
from fairbench.leaderboard.tables import trials_of
from fairbench.plugins import Plugins
from fairbench.publication.cells import check_changes, check_counts, check_row
from fairbench.publication.findings import ABSOLUTE, Finding, collected, compared, shown
from fairbench.publication.published import Publication
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
        findings += collected(where, "its rows are those of the jobs named", _rows(table, number, where, records))
        findings += collected(where, "it is about what its jobs are about", _about(table, where, records))
        findings += collected(where, "as many trials as jobs", _trials(table, where, records))
        if table.evidence is None or not table.rows:
            findings.append(Finding("unchecked", where, "no counts are attached: its numbers are their lab's word"))
            continue
        findings += _numbers(table, number, where, answers)
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


def _rows(table: Table, number: int, where: str, records: Mapping[str, list[Record]]) -> Iterator[Finding]:
    """A row is what its jobs' records say: method, settings, recipe, seeds, versions, cost, probes."""
    for row in (*table.rows, *table.controls):
        place = f"{where} · {row.label}"
        for key in row.keys:
            if key not in records:
                said = f"there is no job {key}: a job's key is the hash of what it is, and no job listed has this"
                yield Finding("differs", place, said, (number, row.label))
        if row.keys and set(row.keys) <= {*records}:
            yield from _recorded_as(row, [records[key] for key in row.keys], number, place)


def _recorded_as(row: Row, records: Sequence[list[Record]], number: int, place: str) -> Iterator[Finding]:
    """Compare a row with its records; of a job that several laboratories ran, one laboratory's must fit."""
    each = [[own[min(n, len(own) - 1)] for own in records] for n in range(max(map(len, records)))]
    differences = [[*compared(_said(row), _recorded(own), place, (number, row.label))] for own in each]
    if all(differences):
        yield from differences[0]
    if not row.label.startswith(each[0][0].job.method.label):
        yield Finding("differs", place, f"its jobs are of {each[0][0].job.method.label}", (number, row.label))


def _said(row: Row) -> dict[str, object]:
    return {
        "method": row.method,
        "settings": dict(row.settings),
        "recipe": dict(row.recipe),
        "versions": dict(row.versions),
        "attributes": list(row.attributes),
        "role": row.role,
        "stands_for": row.stands_for,
        "seeds": list(row.seeds),
        "trainable": row.trainable,
        "train_seconds": row.train_seconds,
        "peak_memory": row.peak_memory,
        "probes": [asdict(one) for one in row.probes],
        "flags of its making": [flag.code for flag in row.flags if flag.code in OF_RECORDS],
    }


def _recorded(records: Sequence[Record]) -> dict[str, object]:
    job = records[0].job
    return {
        "method": job.method.name,
        "settings": dict(job.method.settings),
        "recipe": recipe(records[0]),
        "versions": provenance(records[0]),
        "attributes": list(job.attributes),
        "role": records[0].role,
        "stands_for": records[0].stands_for,
        "seeds": [*dict.fromkeys(record.job.seed for record in records)],
        **cost(records),
        "probes": [asdict(one) for one in probes(records)],
        "flags of its making": [flag.code for flag in record_flags(records[0])],
    }


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


def _numbers(table: Table, number: int, where: str, answers: bool) -> list[Finding]:
    """Recompute all that the attached counts and comparisons determine."""
    assert table.evidence is not None
    rows = (*table.rows, *table.controls)
    missing = [row.label for row in rows if not table.evidence.counts.get(row.label)]
    findings = [Finding("unchecked", f"{where} · {label}", "no counts are attached") for label in missing]
    faults = [*check_counts(table, number, where)]
    if faults:
        return [*findings, *faults]
    findings.append(Finding("holds", where, "all rows and seeds count the same patients"))
    counted = [row for row in rows if row.label not in missing]
    findings += collected(
        where,
        "values follow from counts",
        (one for row in counted for one in check_row(table, row, number, f"{where} · {row.label}")),
    )
    findings += collected(where, "differences follow from counts", _changes(table, number, where))
    findings += collected(
        where, "ranks and adjusted p-values follow from all comparisons", _adjusted(table, number, where)
    )
    findings += collected(where, "the commonest answer is that of the patients", _constant(table, where))
    beyond = () if answers else _beyond_counts(table)
    findings += [Finding("unchecked", where, said) for said in (*beyond, BY_MODELS)]
    return findings


def _constant(table: Table, where: str) -> Iterator[Finding]:
    """What always giving the commonest answer scores follows from how many patients have it.

    An answer to each question scores at least as much as one class for all, and how much more, counts do not show.
    """
    assert table.evidence is not None
    answers = next((seeds[0].everyone.answers for seeds in table.evidence.counts.values() if seeds), None)
    if table.constant is None or answers is None or table.measure.name != "accuracy":
        return
    of_class = dict(zip(table.classes, map(sum, answers), strict=True))
    place, score = f"{where}: always “{table.constant.answer}”", table.constant.score
    if table.constant.one_class:
        yield from compared(score, of_class.get(table.constant.answer, 0) / table.rows_tested, place)
    elif score < max(of_class.values()) / table.rows_tested - ABSOLUTE:
        commonest = max(of_class, key=of_class.__getitem__)
        share = of_class[commonest] / table.rows_tested
        yield Finding("differs", place, f"published {score:.6g}, and always “{commonest}” is right for {share:.6g}")


def _changes(table: Table, number: int, where: str) -> Iterator[Finding]:
    """Differences are those of the two rows' counts, and those that the ranks rest on."""
    assert table.evidence is not None
    bases = {row.label: row for row in table.rows if row.role == "baseline"}
    pairs = {(one.a, one.b): dict(one.differences) for one in table.evidence.pairs}
    for row in table.rows:
        for label, base in bases.items():
            ranked = pairs.get((row.label, label))
            if ranked is None and (label, row.label) in pairs:
                ranked = {name: opposite(one) for name, one in pairs[label, row.label].items()}
            if row.label == label or not ranked or not row.changes:
                continue
            place = f"{where} · {row.label}"
            mine = {name: _bare(row.changes[name]) for name in ranked if name in row.changes}
            theirs = {name: _bare(ranked[name]) for name in mine}
            yield from compared(
                mine, theirs, f"{place}: differences, and those behind the ranks", (number, row.label)
            )
            if all(table.evidence.counts.get(one) for one in (row.label, label)):
                yield from check_changes(table, row, base, number, place)


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
    again = {row.label: row for row in readjust(table).rows}
    for row in table.rows:
        yield from compared(
            _by_rank(row), _by_rank(again[row.label]), f"{where} · {row.label}", (number, row.label)
        )


def _by_rank(row: Row) -> dict[str, object]:
    return {
        "rank": row.rank,
        "trade_offs": list(row.trade_offs),
        "flags": [flag.code for flag in row.flags],
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
