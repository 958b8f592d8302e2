"""Whether the rows of a published table are those of the jobs that are named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

from fairbench.jobs.job import Record
from fairbench.leaderboard.board import Row, Table
from fairbench.leaderboard.collect import label_of, told_apart
from fairbench.leaderboard.flags import LEGEND, OF_ENTRIES, OF_RECORDS, entry_flags, record_flags
from fairbench.leaderboard.row import Entry, cost, probes, provenance, recipe
from fairbench.publication.findings import Finding, compared, shown
from fairbench.publication.published import Publication

ROLES = {"rows": ("contender", "baseline"), "controls": ("control", "reference")}


def check_rows(publication: Publication, number: int) -> Iterator[Finding]:
    """A row is what its jobs' records say: label, role, method, settings, recipe, seeds, versions, cost and probes.

    Its flags are, where records decide them, what these give.
    """
    table, records = publication.board.tables[number], publication.records
    entries: list[Entry] = []
    for part, roles in ROLES.items():
        for row in getattr(table, part):
            place, mine = f"{table.place} · {row.label}", (number, row.label)
            if row.role not in roles:
                yield Finding("differs", place, f"it stands among the {part}, and is a {row.role}", mine)
            for flag in row.flags:
                if flag.code not in LEGEND:
                    yield Finding("differs", place, f"no flag is called {shown(flag.code)}", mine)
            for key in row.keys:
                if key not in records:
                    said = (
                        f"there is no job {key}: a job's key is the hash of what it is, and no job listed has this"
                    )
                    yield Finding("differs", place, said, mine)
            if row.keys and set(row.keys) <= {*records}:
                yield from _recorded_as(row, [records[key] for key in row.keys], mine, place)
                entries.append(Entry(row.label, tuple(records[key][0] for key in row.keys)))
    labs = [part.publisher for part in publication.parts]
    for entry in entries:
        if not _called_right(entry, entries, table.attribute, labs):
            said = f"its jobs are of {label_of(entry.first.job, table.attribute)}"
            yield Finding("differs", f"{table.place} · {entry.label}", said, (number, entry.label))
    if not publication.parts:  # each part's rows were flagged beside its own
        yield from _flagged(table, entries, number)


def _called_right(entry: Entry, entries: Sequence[Entry], attribute: str, labs: Sequence[str]) -> bool:
    """Whether a row is called by its jobs' method, or, where another is called so, by what tells the two apart."""
    plain = label_of(entry.first.job, attribute)
    if entry.label == plain:
        return True
    if entry.label.endswith("'"):  # the same again
        bare = entry.label.removesuffix("'")
        other = any(one.label == bare for one in entries)
        return other and _called_right(Entry(bare, entry.records), entries, attribute, labs)
    for lab in labs:
        if entry.label.endswith(own := f" [{lab}]"):
            bare = entry.label.removesuffix(own)
            return bare == plain or _called_right(Entry(bare, entry.records), entries, attribute, ())
    others = [one for one in entries if one.label == plain]
    return any(entry.label == plain + told_apart(entry, other) for other in others)


def _flagged(table: Table, entries: Sequence[Entry], number: int) -> Iterator[Finding]:
    """Compare the flags that all records decide together with those that the rows bear."""
    again = entry_flags(entries)
    for row in (*table.rows, *table.controls):
        if row.label in again:
            mine, theirs = (
                [asdict(flag) for flag in flags if flag.code in OF_ENTRIES]
                for flags in (row.flags, again[row.label])
            )
            yield from compared(
                mine, theirs, f"{table.place} · {row.label}: flags of its making", (number, row.label)
            )


def _recorded_as(row: Row, records: Sequence[list[Record]], mine: tuple[int, str], place: str) -> Iterator[Finding]:
    """Compare a row with its records; of a job that several laboratories ran, one laboratory's must fit."""
    each = [[own[min(n, len(own) - 1)] for own in records] for n in range(max(map(len, records)))]
    differences = [[*compared(_said(row), _recorded(own), place, mine)] for own in each]
    if all(differences):
        yield from differences[0]


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
        "flags of its making": [asdict(flag) for flag in row.flags if flag.code in OF_RECORDS],
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
        "flags of its making": [asdict(flag) for flag in record_flags(records[0])],
    }


def check_excluded(table: Table, records: Mapping[str, list[Record]]) -> Iterator[Finding]:
    """Hold what is left out to its record: what failed is called so, and what ended well is named to the reader."""
    for one in table.excluded:
        place = f"{table.place} · {one.label}, seed {one.seed}, left out"
        if one.key not in records:
            if one.status == "failed":
                yield Finding("differs", place, f"there is no record of job {one.key}")
            continue
        record = records[one.key][0]
        told = {"label": one.label, "seed": one.seed}
        yield from compared(told, {"label": record.job.method.label, "seed": record.job.seed}, place)
        failed = any(own.failed for own in records[one.key])
        if (one.status == "failed") != failed:
            said = "failed" if failed else "ended well"
            yield Finding("differs", place, f"it is called {one.status}, and its record says that it {said}")
        elif not failed:
            yield Finding("unchecked", place, f"job {one.key} ended well and is in no row: {one.reason}")
