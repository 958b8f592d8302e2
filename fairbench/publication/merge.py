"""One board of several laboratories' published boards: no patient's row is needed, and every test is counted."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fairbench import __version__
from fairbench.errors import FairbenchError
from fairbench.jobs.job import Record
from fairbench.leaderboard.board import Board, Evidence, FurtherMeasure, Row, SeedCounts, Table
from fairbench.leaderboard.readjust import readjust
from fairbench.leaderboard.standings import adjusted
from fairbench.leaderboard.suppression import withhold
from fairbench.leaderboard.tables import trials_of
from fairbench.publication.publish import now
from fairbench.publication.published import Part, Publication, text

COUNTS = ("n", "positives", "negatives")


@dataclass(frozen=True)
class Share:
    """One table of one laboratory, on its way into a merged one."""

    lab: str
    table: Table


def merge(publications: Sequence[Publication], name: str, command: str, publisher: str = "") -> Publication:
    """Merge published boards. Tables about the same patients, backbone and recipe become one; others stand apart
    and say why. Raises FairbenchError for fewer than two boards, two of one publisher's name, or no counts.
    """
    labs = _labs(publications)
    filled = [Share(lab, one) for lab, own in labs.items() for one in own.board.tables if one.rows or one.controls]
    shares = sorted(filled, key=lambda share: not share.table.rows)  # controls alone join the rows they are about
    for share in shares:
        if share.table.evidence is None:
            raise FairbenchError(
                f"the board of {share.lab} has no counts attached", "publish it anew with `fairbench publish`"
            )
    jobs: list[Record] = []
    for record in (record for one in labs.values() for record in one.jobs):
        if record not in jobs:
            jobs.append(record)
    records = {record.job.key: record for record in reversed(jobs)}
    tables = [_joined(group, records) for group in _grouped(shares)]
    return Publication(
        name=name,
        published=now(),
        publisher=publisher,
        command=command,
        choices=replace(publications[0].choices, min_cell=max(one.choices.min_cell for one in publications)),
        board=Board(
            name, tuple(tables), __version__, tuple(said for one in publications for said in one.board.refused)
        ),
        jobs=tuple(sorted(jobs, key=lambda record: (record.job.key, record.started))),
        parts=tuple(
            Part(one.name, lab, hashlib.sha256(text(one).encode()).hexdigest()) for lab, one in labs.items()
        ),
    )


def _labs(publications: Sequence[Publication]) -> dict[str, Publication]:
    """Return the publications by who published them, or by their names."""
    if len(publications) < 2:
        raise FairbenchError(
            "a merge takes at least two published boards", "fairbench merge A.json B.json --name N"
        )
    labs: dict[str, Publication] = {}
    seen: set[str] = set()
    for one in publications:
        lab = one.publisher or one.name
        mine = {lab, *(part.publisher for part in one.parts)}
        if twice := sorted(mine & seen):
            raise FairbenchError(
                f"two of the boards are of {twice[0]}",
                "publish them with different --by, or together in one `publish`; merge a merged board's parts",
            )
        seen |= mine
        labs[lab] = one
    return labs


def identity(table: Table) -> dict[str, Any]:
    """Return what must be equal for rows to stand in one table: the patients, and how the baseline was trained."""
    rows = (*table.rows, *table.controls)
    base = next((row for row in rows if row.label == table.baseline), rows[0])
    return {
        "data fingerprint": table.fingerprint,
        "test rows": table.rows_tested,
        "clusters": table.clusters,
        "classes": table.classes,
        "groups": tuple(group.name for group in table.groups),
        "unrecorded values": table.unrecorded,
        "measure": table.measure.name,
        "ranking": table.ranked_by,
        "baseline": base.method if table.rows else None,  # controls alone have none
        "weights of the backbone": base.versions.get("weights"),
        "code of the dataset": base.versions.get("dataset"),
        **{key.replace("_", " "): value for key, value in base.recipe.items()},
    }


def _unlike(a: Table, b: Table) -> dict[str, tuple[Any, Any]]:
    """Return what keeps two tables apart, of both; the lack of a baseline does not."""
    one, other = identity(a), identity(b)
    both = {key: (one.get(key), other.get(key)) for key in dict.fromkeys([*one, *other])}
    unlike = {key: pair for key, pair in both.items() if pair[0] != pair[1]}
    return {key: pair for key, pair in unlike.items() if key != "baseline" or None not in pair}


def _grouped(shares: Sequence[Share]) -> list[list[Share]]:
    """Put tables together that are about the same; of one place, those that are not say what they differ in."""
    groups: list[list[Share]] = []
    for share in shares:
        same_place = [group for group in groups if _place(group[0].table) == _place(share.table)]
        home = next((group for group in same_place if not _unlike(group[0].table, share.table)), None)
        home = home if home and _same_counts(home[0].table, share.table) else None
        if home is not None:
            home.append(share)
            continue
        apart = "; ".join(_difference(share, group[0]) for group in same_place)
        groups.append([replace(share, table=replace(share.table, apart=apart))])
    return groups


def _place(table: Table) -> tuple[str, str, str]:
    return table.dataset.partition("(")[0], table.backbone.partition("(")[0], table.attribute


def _same_counts(a: Table, b: Table) -> bool:
    """Whether two tables count the same patients, as far as neither withholds them."""
    pairs = zip(a.groups, b.groups, strict=True)
    both = ((getattr(x, key), getattr(y, key)) for x, y in pairs for key in COUNTS)
    return all(x == y for x, y in both if x is not None and y is not None)


def _difference(share: Share, other: Share) -> str:
    unlike = _unlike(share.table, other.table)
    said = [f"{key} ({_short(mine)}, there {_short(theirs)})" for key, (mine, theirs) in unlike.items()]
    return (
        f"apart from the table of {other.lab}: {share.lab}'s has another {', '.join(said) or 'number of patients'}"
    )


def _short(value: Any) -> str:
    written = str(value)
    return written if len(written) <= 40 else f"{written[:37]}…"


def _joined(shares: Sequence[Share], records: Mapping[str, Record]) -> Table:
    """Join tables about the same patients: their rows side by side, every p adjusted for all of them."""
    least = max(share.table.min_cell for share in shares)
    named = _renamed([Share(s.lab, _withheld(s.table, least)) for s in shares])
    tables = [share.table for share in named]
    rows, controls = (
        [row for share in named for row in getattr(share.table, part)] for part in ("rows", "controls")
    )
    attached = [table.evidence for table in tables if table.evidence]
    pairs = {frozenset((pair.a, pair.b)): pair for one in reversed(attached) for pair in one.pairs}
    evidence = Evidence(
        {label: seeds for one in attached for label, seeds in one.counts.items()}, tuple(pairs.values())
    )
    excluded = tuple(dict.fromkeys(one for table in tables for one in table.excluded))
    keys = [key for row in (*rows, *controls) for key in row.keys] + [one.key for one in excluded]
    effects = [effect for table in tables for effect in table.side_effects]
    changes = adjusted([effect.change for effect in effects])
    whole = replace(
        tables[0],
        baseline=next((row.label for row in rows if row.role == "baseline"), None),
        rows=tuple(rows),
        controls=tuple(controls),
        evidence=evidence,
        excluded=excluded,
        trials=trials_of([records[key] for key in dict.fromkeys(keys) if key in records]),
        side_effects=tuple(replace(e, change=c) for e, c in zip(effects, changes, strict=True)),
        further=_further(tables),
        primary=tuple(dict.fromkeys(label for table in tables for label in table.primary)),
    )
    return readjust(whole)


def _withheld(table: Table, least: int) -> Table:
    return withhold(table, least) if least > table.min_cell else table


def _renamed(shares: Sequence[Share]) -> list[Share]:
    """Give every row a label of its own. One that several laboratories ran with the same answers stands once, and
    is theirs together.
    """
    taken: dict[str, tuple[tuple[str, ...], tuple[SeedCounts, ...]]] = {}
    sources: dict[str, list[str]] = {}
    named: list[tuple[Share, dict[str, str], set[str]]] = []
    for share in shares:
        labels: dict[str, str] = {}
        own: set[str] = set()
        for row in (*share.table.rows, *share.table.controls):
            counts = share.table.evidence.counts.get(row.label, ()) if share.table.evidence else ()
            equal = next((label for label, one in taken.items() if one == (row.keys, counts)), None)
            if equal is None:
                label = _free(row.label, share.lab, taken)
                taken[label], sources[label] = (row.keys, counts), [row.origin or share.lab]
                labels[row.label] = label
                own.add(row.label)
            else:
                labels[row.label] = equal
                sources[equal].append(row.origin or share.lab)
        named.append((share, labels, own))
    origins = {label: ", ".join(dict.fromkeys(labs)) for label, labs in sources.items()}
    return [Share(one.lab, _relabelled(one.table, labels, own, origins)) for one, labels, own in named]


def _free(label: str, lab: str, taken: Mapping[str, object]) -> str:
    """Return a label that is not taken, by adding whose row it is."""
    wanted = label if label not in taken else f"{label} [{lab}]"
    while wanted in taken:
        wanted += "'"
    return wanted


def _relabelled(table: Table, labels: Mapping[str, str], own: set[str], origins: Mapping[str, str]) -> Table:
    """Call rows by their new labels wherever they are named, and keep those that are this table's own."""

    def kept(rows: Sequence[Row]) -> tuple[Row, ...]:
        mine = (replace(row, label=labels[row.label]) for row in rows if row.label in own)
        return tuple(replace(row, origin=origins[row.label]) for row in mine)

    assert table.evidence is not None
    counts = {labels[label]: seeds for label, seeds in table.evidence.counts.items() if label in labels}
    pairs = tuple(
        replace(pair, a=labels[pair.a], b=labels[pair.b])
        for pair in table.evidence.pairs
        if pair.a in labels and pair.b in labels
    )
    return replace(
        table,
        rows=kept(table.rows),
        controls=kept(table.controls),
        evidence=Evidence(counts, pairs),
        side_effects=tuple(replace(one, label=labels[one.label]) for one in table.side_effects if one.label in own),
        further=tuple(
            replace(one, rows=tuple(replace(r, label=labels[r.label]) for r in one.rows if r.label in own))
            for one in table.further
        ),
        primary=tuple(labels[label] for label in table.primary if label in labels),
    )


def _further(tables: Sequence[Table]) -> tuple[FurtherMeasure, ...]:
    """Join what other measures say, each adjusted over all rows."""
    joined: dict[str, FurtherMeasure] = {}
    for one in (one for table in tables for one in table.further):
        before = joined.setdefault(one.measure.name, replace(one, rows=()))
        joined[one.measure.name] = replace(
            before, rows=(*before.rows, *one.rows), missing=before.missing or one.missing
        )
    for name, one in joined.items():
        compared = [row for row in one.rows if row.change.value is not None]
        changes = dict(zip((r.label for r in compared), adjusted([r.change for r in compared]), strict=True))
        rows = tuple(replace(row, change=changes.get(row.label, row.change)) for row in one.rows)
        joined[name] = replace(one, rows=rows)
    return tuple(joined.values())
