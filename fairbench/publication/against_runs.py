"""Check a published leaderboard against the folders of runs that it was built from, or the answers beside it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from fairbench.errors import FairbenchError
from fairbench.jobs.conversion import departures, to_json
from fairbench.jobs.job import Record
from fairbench.jobs.store import Store
from fairbench.jobs.summary import place
from fairbench.leaderboard.board import Board, Row
from fairbench.leaderboard.collect import Runs
from fairbench.metrics.metric import Metric
from fairbench.predictions.predictions import maker
from fairbench.publication.findings import Finding, collected, compared
from fairbench.publication.publish import board_of, each_row, records_of
from fairbench.publication.published import Publication
from fairbench.publication.sharing import Shareable

# What a row's own answers give, whatever rows stand beside it.
OWN = ("score", "auroc", "gap", "standardised_gap", "eq_odds_max", "equity_scaled", "worst_group", "groups")


def verify_runs(publication: Publication, stores: Sequence[Store], metrics: Sequence[Metric] = ()) -> list[Finding]:
    """Check every record and file, and rebuild the board from the predictions."""
    published = publication.records
    runs = [Shareable(store) for store in stores]
    findings = collected("records", "each is as published", _records(published, runs))
    findings += collected("files", "each is the one that its record names", _files(published, stores))
    findings += collected("runs", "no job was left out of the board", _left_out(publication, runs))
    return findings + rebuilt(publication, runs, metrics)


def _records(published: Mapping[str, list[Record]], runs: Sequence[Shareable]) -> Iterator[Finding]:
    """Compare every published record with the one on disk."""
    here = records_of(runs)
    refused = {one.key: one for run in runs for one in run.store.contents().refused}
    for key, same_job in published.items():
        where = f"job {key} ({same_job[0].job.title})"
        if key in refused:
            yield Finding("differs", where, f"its record is refused: {refused[key].reason}")
        elif key not in here:
            yield Finding("unchecked", where, "it is not in these runs")
        else:
            differences = [[*compared(to_json(record), to_json(here[key]), where)] for record in same_job]
            yield from differences[0] if all(differences) else ()


def _files(published: Mapping[str, list[Record]], stores: Sequence[Store]) -> Iterator[Finding]:
    """Hash all that records name, and ask every predictions file who made it.

    Who shares answers may keep the adapters, which are larger by far: that is said, and is no difference.
    """
    kept_back = []
    for store in stores:
        for record in store.contents().records:
            if record.failed or record.job.key not in published:
                continue
            where = f"job {record.job.key} ({record.job.title})"
            adapters = store.has_adapter(record)
            if not adapters:
                kept_back.append(record.job.title)
            try:
                store.check_files(record, adapters)
            except FairbenchError as error:
                yield Finding("differs", where, error.message)
                continue
            made_by = maker(store.predictions_file(record.job))
            if not made_by:
                yield Finding("unchecked", where, "its predictions do not say which job made them")
            mine = {"job": record.job.key, "started": record.started, "device": record.device}
            said = f"{where}: its record, and what its predictions say of themselves"
            yield from compared({key: mine.get(key) for key in made_by}, made_by, said)
    if kept_back:
        more = f" and {len(kept_back) - 1} more" if len(kept_back) > 1 else ""
        said = f"the adapters of {kept_back[0]}{more}: they are not in these runs"
        yield Finding("unchecked", "files", said)


def _left_out(publication: Publication, runs: Sequence[Shareable]) -> Iterator[Finding]:
    """Find the jobs that ended in these runs and are not published, though they belong beside those that are."""
    published = {record.job.key for record in publication.jobs}
    places = {place(record.job)[:3] for record in publication.jobs}  # in however many folds
    for key, record in records_of(runs).items():
        job = record.job
        if key not in published and place(job)[:3] in places:
            yield Finding(
                "differs", f"job {key} ({job.title})", "it was run on the same data, and is not published"
            )


def rebuilt(publication: Publication, runs: Sequence[Runs], metrics: Sequence[Metric]) -> list[Finding]:
    """Build the board anew from the answers, and compare every cell; of a merged board, each row's own."""
    published = {record.job.key for record in publication.jobs}
    here = published & set(records_of(runs))
    if not here:
        return [Finding("unchecked", "board", "none of its jobs is here")]
    where = "board, rebuilt from the predictions"
    if here == published and not publication.parts:
        again = board_of(runs, publication.choices, metrics, publication.board.title, published)
        return collected(where, "every cell is the same", _boards(publication.board, again))
    again = board_of(runs, publication.choices, metrics, publication.board.title, here)
    return collected(where, "what each row's answers give is the same", _own_cells(publication, again, here))


def _boards(published: Board, again: Board) -> Iterator[Finding]:
    for number, table in enumerate(published.tables):
        where = table.place
        if number >= len(again.tables) or again.tables[number].place != where:
            yield Finding("differs", where, "these runs give no such table here")
            continue
        plain = each_row(
            Board("", (table, again.tables[number]), ""), lambda row: replace(row, origin="", trust=None)
        )
        mine, theirs = (departures(one) for one in plain.tables)
        labels = [row["label"] for row in (*mine.get("rows", ()), *mine.get("controls", ()))]
        for label in labels:
            row = f"{where} · {label}"
            yield from compared(_of_row(mine, label), _of_row(theirs, label), row, (number, label))
        yield from compared(_rest(mine), _rest(theirs), where)
    if len(again.tables) > len(published.tables):
        yield Finding(
            "differs",
            "board",
            f"{len(again.tables)} tables follow from these runs, {len(published.tables)} are published",
        )


def _of_row(table: dict[str, Any], label: str) -> dict[str, Any]:
    rows = [row for row in (*table.get("rows", ()), *table.get("controls", ())) if row["label"] == label]
    counts = table.get("evidence", {}).get("counts", {}).get(label)
    return {**(rows[0] if rows else {}), "counts": counts}


def _rest(table: dict[str, Any]) -> dict[str, Any]:
    """All but the rows themselves: their order, who is excluded, counts of patients, further measures."""
    rest = {key: value for key, value in table.items() if key not in ("rows", "controls", "evidence")}
    rest["order of rows"] = [row["label"] for row in table.get("rows", ())]
    rest["controls"] = [row["label"] for row in table.get("controls", ())]
    return rest | {"pairs": table.get("evidence", {}).get("pairs")}


def _own_cells(publication: Publication, again: Board, here: Collection[str]) -> Iterator[Finding]:
    """Compare what a row's own answers give, for the rows whose jobs are all here."""
    rebuilt_rows = {
        (table.place, row.keys): row for table in again.tables for row in (*table.rows, *table.controls)
    }
    for number, table in enumerate(publication.board.tables):
        for row in (*table.rows, *table.controls):
            if not set(row.keys) <= set(here):
                continue
            where, mine = f"{table.place} · {row.label}", (number, row.label)
            other = rebuilt_rows.get((table.place, row.keys))
            if other is None:
                yield Finding("differs", where, "these runs give no such row", mine)
            else:
                yield from compared(_own(row), _own(other), where, mine)


def _own(row: Row) -> dict[str, Any]:
    numbers = {name: asdict(row)[name] for name in OWN}
    for one in numbers.values():
        if isinstance(one, dict):
            one.pop("adjusted", None)
    return numbers
