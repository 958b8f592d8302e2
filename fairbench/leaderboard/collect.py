"""From records to the rows of a table: same patients, seeds of one method together, old versions marked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import pandas as pd

from fairbench.errors import FairbenchError
from fairbench.jobs.job import Job, Record
from fairbench.jobs.store import Contents
from fairbench.leaderboard.answers import Answers
from fairbench.leaderboard.board import Excluded, Status
from fairbench.leaderboard.row import Contender, Entry, provenance, recipe
from fairbench.metrics.metric import ACCURACY, Metric
from fairbench.predictions.align import align
from fairbench.predictions.predictions import Predictions

NEWER = "a newer job did the same"  # a reason


class Runs(Protocol):
    """What a board is built from: a folder of runs, or whatever else has records and their predictions."""

    @property
    def name(self) -> str:
        """What it is called."""

    def contents(self) -> Contents:
        """Return the records, and what else is there."""

    def predictions(self, record: Record) -> Predictions:
        """Return the test predictions of a record."""


@dataclass(frozen=True, eq=False)
class Finished:
    """A record with its predictions; of several folds the last one's record, and the answers of all `parts`."""

    record: Record
    predictions: Predictions
    parts: tuple[Record, ...] = ()

    @property
    def records(self) -> tuple[Record, ...]:
        """Return the records of all folds, in their order."""
        return self.parts or (self.record,)

    @property
    def job(self) -> Job:
        """Return the job."""
        return self.record.job


def load(runs: Runs, record: Record) -> Finished | Excluded:
    """Read the predictions of a record, or say why there are none."""
    if record.error is not None:
        return excluded(record.job, "failed", record.error)
    try:
        predictions = runs.predictions(record)
    except FairbenchError as error:
        return excluded(record.job, "unreadable", error.message)
    if not {"target", "text"} & set(predictions.table):
        return excluded(record.job, "unreadable", "its predictions have neither target classes nor text")
    return Finished(record, predictions)


def joined(entries: Sequence[Finished]) -> tuple[list[Finished], list[Excluded]]:
    """Join the folds of one training to one set of answers, in which every row is tested once.

    Of a job that ended in several folders the newest is taken. Where a fold is not there (yet), none is.
    """
    newest: dict[str, Finished] = {}
    whole, left_out = list[Finished](), list[Excluded]()
    for entry in sorted(entries, key=lambda e: e.record.started):
        if older := newest.pop(entry.job.key, None):
            left_out.append(excluded(older.job, "refused", NEWER))
        newest[entry.job.key] = entry
    together: dict[str, list[Finished]] = {}
    for entry in sorted(newest.values(), key=lambda e: e.job.fold):
        together.setdefault(replace(entry.job, fold=0).key, []).append(entry)
    for folds in together.values():
        there, count = [entry.job.fold for entry in folds], folds[0].job.folds
        if count == 1:
            whole += folds
        elif there == [*range(count)]:
            last = max(folds, key=lambda e: e.record.started)
            tables = [entry.predictions.table for entry in folds]
            # Columns of few values are coded, each fold's by its own.
            table = pd.concat([one.astype(dict.fromkeys(one.select_dtypes("category"), object)) for one in tables])
            predictions = replace(last.predictions, table=table.reset_index(drop=True))
            whole.append(Finished(last.record, predictions, tuple(entry.record for entry in folds)))
        else:
            lacking = ", ".join(str(number + 1) for number in range(count) if number not in there)
            reason = f"of {count} folds there is no {lacking}"
            left_out += [excluded(entry.job, "unfinished", reason) for entry in folds]
    return whole, left_out


def excluded(job: Job, status: Status, reason: str) -> Excluded:
    """Describe a job that is not in the table."""
    return Excluded(job.method.label, job.seed, job.key, status, reason)


def same_patients(entries: Sequence[Finished]) -> tuple[list[Finished], list[Excluded]]:
    """Keep the records of the newest data, their rows in one order; refuse the others."""
    if not entries:
        return [], []
    reference = max(entries, key=lambda entry: entry.record.started)
    data = reference.job.dataset
    kept, refused = [], []
    for entry in entries:
        try:
            if entry.job.dataset.fingerprint != data.fingerprint:
                raise FairbenchError("its data are not those of the newest row (another fingerprint)")
            _, ordered = align(reference.predictions, entry.predictions, ("the newest row", "this one"))
            kept.append(replace(entry, predictions=ordered))
        except FairbenchError as error:
            refused.append(excluded(entry.job, "refused", f"stale: {error.message}"))
    return kept, refused


def contenders(
    entries: Iterable[Finished], attribute: str, measure: Metric = ACCURACY
) -> tuple[list[Contender], list[Excluded]]:
    """Join the seeds of one method, settings, recipe and versions to a row; of duplicates keep the newest.

    A row of a method that was trained for other attributes beside this one says so.
    """
    together: dict[str, dict[int, Finished]] = {}
    duplicates = []
    for entry in sorted(entries, key=lambda e: e.record.started):
        record, job = entry.record, entry.job
        identity = json.dumps([job.method.label, job.attributes, recipe(record), provenance(record)])
        older = together.setdefault(identity, {}).get(job.seed)
        if older:
            duplicates.append(excluded(older.job, "refused", NEWER))
        together[identity][job.seed] = entry
    rows = []
    for seeds in together.values():
        ordered = [seeds[seed] for seed in sorted(seeds)]
        answers = Answers(tuple(sorted(seeds)), tuple(e.predictions for e in ordered), measure)
        label = label_of(ordered[0].job, attribute)
        rows.append(Contender(label, tuple(record for e in ordered for record in e.records), answers))
    rows.sort(key=lambda c: max(r.started for r in c.records), reverse=True)  # the newest bear the plain label
    return _named(rows), duplicates


def label_of(job: Job, attribute: str) -> str:
    """Return what a row of a table by this attribute is called, unless another is called so."""
    trained = "+".join(job.attributes)
    return job.method.label if trained in ("", attribute) else f"{job.method.label} for {trained}"


def told_apart(mine: Entry, newest: Entry) -> str:
    """Return what is added to a row's label where a newer row bears it: what the older was made with."""
    made, theirs = ({**one.recipe, **provenance(one.first)} for one in (mine, newest))
    unlike = [key for key in made if made[key] != theirs[key]]
    shown = [f"{key} {made[key]}" if isinstance(made[key], str | int) else f"other {key}" for key in unlike]
    return f" [{', '.join(shown)}]".replace("_", " ")


def _named(contenders: Sequence[Contender]) -> list[Contender]:
    """Tell rows of one label apart by what the older were made with; the first bears the plain label."""
    named: dict[str, Contender] = {}
    plain: dict[str, Contender] = {}
    for contender in contenders:
        newest = plain.setdefault(contender.label, contender)
        label = contender.label
        if newest is not contender:
            label += told_apart(contender, newest)
        while label in named:
            label += "'"
        named[label] = replace(contender, label=label)
    return list(named.values())
