"""A row's numbers, recomputed from the counts that were published with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from fairbench.leaderboard.answers import Answers, shared_seeds
from fairbench.leaderboard.board import Cell, Row, SeedCounts, Table
from fairbench.leaderboard.row import measure
from fairbench.leaderboard.standings import gap_of
from fairbench.metrics.metric import ACCURACY, Metric
from fairbench.predictions.groups import Groups
from fairbench.predictions.predictions import UNPARSED, Predictions
from fairbench.publication.findings import Finding, compared, same, shown
from fairbench.statistics.intervals import Floats, max_minus_min
from fairbench.statistics.results import Difference
from fairbench.statistics.standardised import by_class

GIVEN = "given"
MOST = 20_000_000  # rows that are made up of counts at most
BETWEEN = ("in groups", "best_group", "distance")  # what only differences, or other numbers, are made of
BY_MEANS = Metric(
    name=GIVEN,
    title=GIVEN,
    formula="the group's mean, as published",
    source="",
    each=lambda rows: rows.table[GIVEN].to_numpy(),
)


@dataclass(frozen=True)
class Rebuilt:
    """Answers that add up to a row's counts: `whole` where no group is withheld, `split` where classes are known
    everywhere, `exact` where order and pairing of rows cannot matter, so that intervals are determined too.
    """

    answers: Answers
    groups: Groups
    whole: bool
    split: bool
    exact: bool


def rebuild(table: Table, seeds: tuple[SeedCounts, ...]) -> Rebuilt:
    """Make up rows, no patient's, whose counts are a row's."""
    cells = [cell for one in seeds for cell in one.groups]
    accuracy = table.measure.name == ACCURACY.name
    whole, split = all(cells), all(cell and cell.answers for cell in cells)
    frames = [_frame(one, table, split) for one in seeds]
    predictions = tuple(Predictions(frame, table.classes) for frame in frames)
    answers = Answers(tuple(one.seed for one in seeds), predictions, ACCURACY if accuracy and split else BY_MEANS)
    names = tuple(group.name for group in table.groups)
    groups = Groups(table.attribute, frames[0]["group"].to_numpy(dtype=np.int64), names, None)
    exact = whole and split and accuracy and len(seeds) == 1 and table.clusters == table.rows_tested
    return Rebuilt(answers, groups, whole, split, exact)


def _frame(one: SeedCounts, table: Table, split: bool) -> pd.DataFrame:
    """Rows of all groups in order, and what is left of all rows in none."""
    parts = [_rows(cell, place, table) for place, cell in enumerate(one.groups) if cell]
    known = [cell for cell in one.groups if cell]
    n, total = one.everyone.n - sum(c.n for c in known), one.everyone.total - sum(c.total for c in known)
    if n > 0:
        parts.append(_rows(Cell(n, total, 0.0, _left(one, known)), -1, table))
    whole = pd.concat(parts, ignore_index=True)
    return whole if split else whole[["group", GIVEN]]


def _left(one: SeedCounts, known: list[Cell]) -> tuple[tuple[int, ...], ...] | None:
    """Count the answers of the rows that are in no group shown."""
    if one.everyone.answers is None or not all(cell.answers for cell in known):
        return None
    left = np.array(one.everyone.answers) - sum(np.array(cell.answers) for cell in known)
    return tuple(tuple(map(int, row)) for row in left)


def _rows(cell: Cell, group: int, table: Table) -> pd.DataFrame:
    mean = cell.total / cell.n if cell.n else 0.0
    if cell.answers is None:
        return pd.DataFrame({"group": group, GIVEN: [mean] * cell.n})
    count = len(table.classes)
    target, answer = np.divmod(np.repeat(np.arange(count * (count + 1)), np.ravel(cell.answers)), count + 1)
    answer = np.where(answer == count, UNPARSED, answer)
    return pd.DataFrame({"target": target, "answer": answer, "group": group, GIVEN: mean})


def check_counts(table: Table, number: int, where: str) -> Iterator[Finding]:
    """Hold every row's counts to those of the patients: the same in all rows and seeds, and as the table says."""
    assert table.evidence is not None
    if table.rows_tested > MOST:
        said = f"{table.rows_tested:,} rows are more than the {MOST:,} that are counted again"
        yield Finding("unchecked", where, said)
        return
    published = [(g.n, g.positives, g.negatives) for g in table.groups]
    for label, seeds in table.evidence.counts.items():
        for one in seeds:
            place = f"{where} · {label} · seed {one.seed}"
            if fault := _impossible(one, table):
                yield Finding("differs", place, fault, (number, label))
                continue
            for group, (n, positives, negatives), cell in zip(table.groups, published, one.groups, strict=True):
                rows = None if cell is None else cell.n
                of_class = [sum(row) for row in cell.answers] if cell and cell.answers else [None, None]
                mine = (rows, *of_class[::-1]) if len(of_class) == 2 else (rows, positives, negatives)
                if mine != (n, positives, negatives):
                    told = (n, positives, negatives)
                    said = f"its counts are of {mine} rows (all, positive, negative), the table's of {told}"
                    yield Finding("differs", f"{place} · {group.name}", said, (number, label))


def _impossible(one: SeedCounts, table: Table) -> str:
    """Say what no answers could add up to, before rows are made of it; empty where all is possible."""
    if one.everyone.n != table.rows_tested or len(one.groups) != len(table.groups):
        here = f"{one.everyone.n:,} rows in {len(one.groups)} groups"
        return f"it counts {here}, the table {table.rows_tested:,} in {len(table.groups)}"
    count, known = len(table.classes), [cell for cell in one.groups if cell]
    for cell in (one.everyone, *known):
        if cell.n < 0 or not -1e-6 <= cell.total <= cell.n + 1e-6:
            return f"scores that add up to {shown(cell.total)} over {cell.n:,} rows"
        if not cell.total**2 / max(cell.n, 1) - 1e-6 <= cell.squares <= cell.total + 1e-6:
            return f"squares that add up to {shown(cell.squares)}, of scores that add up to {shown(cell.total)}"
        if cell.answers is not None:
            flat = [number for row in cell.answers for number in row]
            if len(cell.answers) != count or any(len(row) != count + 1 for row in cell.answers) or min(flat) < 0:
                return "its answers are no counts by class and answer"
            if sum(flat) != cell.n:
                return f"answers that add up to {sum(flat):,} over {cell.n:,} rows"
            right = sum(cell.answers[index][index] for index in range(count))
            if table.measure.name == ACCURACY.name and not (same(right, cell.total) and same(right, cell.squares)):
                return f"{right:,} right answers, and scores that add up to {shown(cell.total)}"
    if sum(cell.n for cell in known) > one.everyone.n or min(np.ravel(_left(one, known) or 0)) < 0:
        return "its groups hold more rows than there are"
    return ""


class Counts:
    """A table's rows, rebuilt from their counts, each once; what counts do not give is None or not there."""

    def __init__(self, table: Table) -> None:
        assert table.evidence is not None
        self.table, self.attached = table, table.evidence.counts
        self.rebuilt: dict[str, Rebuilt] = {}
        self.known: dict[tuple[str, tuple[int, ...]], dict[str, Any]] = {}

    def of(self, label: str) -> Rebuilt | None:
        """Return the answers of a row made up from its counts."""
        if label not in self.rebuilt and self.attached.get(label):
            self.rebuilt[label] = rebuild(self.table, self.attached[label])
        return self.rebuilt.get(label)

    def points(self, label: str, answers: Answers | None = None) -> dict[str, Any]:
        """Return all values that a row's counts give, of all its seeds or of these answers' alone."""
        one = self.of(label)
        assert one is not None
        answers = answers or one.answers
        if (label, answers.seeds) not in self.known:
            self.known[label, answers.seeds] = _points(replace(one, answers=answers))
        return self.known[label, answers.seeds]

    @property
    def of_everyone(self) -> tuple[tuple[int, ...], ...] | None:
        """Return how many of all rows are of each class, by answer, as some row counts them."""
        return next((seeds[0].everyone.answers for seeds in self.attached.values() if seeds), None)

    def shares(self, name: str) -> list[float] | None:
        """Return which share of each group's rows is of a class, None where a group is withheld."""
        cells = next((seeds[0].groups for seeds in self.attached.values() if seeds), ())
        if name not in self.table.classes or not all(cell and cell.answers for cell in cells):
            return None
        place = self.table.classes.index(name)
        return [sum(cell.answers[place]) / cell.n for cell in cells if cell and cell.answers and cell.n]


def check_row(counts: Counts, row: Row, number: int, where: str) -> Iterator[Finding]:
    """Recompute what a row's counts determine: all values; of one seed without clusters also intervals and p."""
    seeds = counts.attached.get(row.label, ())
    if tuple(one.seed for one in seeds) != row.seeds:
        said = f"it has seeds {shown([*row.seeds])}, and counts of seeds {shown([one.seed for one in seeds])}"
        yield Finding("differs", where, said, (number, row.label))
        return
    rebuilt = counts.of(row.label)
    assert rebuilt is not None
    mine = asdict(row)
    points = {name: one for name, one in counts.points(row.label).items() if name not in BETWEEN}
    yield from compared(_values(mine, points), points, where, (number, row.label))
    if rebuilt.exact:
        again = _unadjusted(asdict(measure(rebuilt.answers, rebuilt.groups)))
        yield from compared({name: _unadjusted(mine)[name] for name in again}, again, where, (number, row.label))


def _unadjusted(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out AUROC, what depends on other rows, and the notes, which small groups take away."""
    out = ("adjusted", "notes")
    return {
        name: {key: value for key, value in one.items() if key not in out} if isinstance(one, dict) else one
        for name, one in numbers.items()
        if name != "auroc"
    }


def _values(row: Mapping[str, Any], points: Mapping[str, Any]) -> dict[str, Any]:
    """Take a row's published values of what counts give."""
    values: dict[str, Any] = {name: row[name]["value"] for name in points if name != "groups"}
    return values | {"groups": {place: row["groups"][int(place)]["value"] for place in points["groups"]}}


def check_changes(
    counts: Counts, a: str, b: str, differences: Mapping[str, Difference], where: str, row: tuple[int, str]
) -> Iterator[Finding]:
    """Recompute every difference of two rows, A minus B, as one of their counts."""
    first, second = counts.of(a), counts.of(b)
    pair = shared_seeds(first.answers, second.answers) if first and second else None
    if pair is None:
        return
    mine, theirs = (counts.points(label, answers) for label, answers in zip((a, b), pair, strict=True))
    names = [
        name for name in mine if name in differences and name in theirs and None not in (mine[name], theirs[name])
    ]
    again = {name: mine[name] - theirs[name] for name in names}
    yield from compared({name: differences[name].value for name in names}, again, where, row)


def check_further(counts: Counts, metrics: Mapping[str, Metric], number: int, where: str) -> Iterator[Finding]:
    """Recompute what other measures say, where counts of answers determine it, and say where they do not."""
    labels = {row.label for row in (*counts.table.rows, *counts.table.controls)}
    for further in counts.table.further:
        metric, place = metrics.get(further.measure.name), f"{where}: {further.measure.title}"
        beyond = metric is None
        for row in further.rows:
            if row.label not in labels:
                yield Finding("differs", f"{place} · {row.label}", "it is no row of the table")
            again = _by_metric(metric, counts.of(row.label)) if metric else {}
            beyond = beyond or len(again) < 2
            told = {"score": row.score.value, "gap": row.gap.value}
            told = {name: told[name] for name in again}
            yield from compared(told, again, f"{place} · {row.label}", (number, row.label))
        if beyond and further.rows:
            yield Finding("unchecked", place, "counts do not determine it all: it needs the predictions (--runs)")


def _by_metric(metric: Metric, rebuilt: Rebuilt | None) -> dict[str, float]:
    """Compute a metric of answers that add up to the counts, mean of the seeds, as far as these determine it."""
    if rebuilt is None or not rebuilt.split or rebuilt.answers.measure is not ACCURACY:
        return {}
    every = rebuilt.answers.predictions
    values = [metric.value(one).value for one in every]
    if None in values:
        return {}
    found = {"score": float(np.mean([value for value in values if value is not None]))}
    gap = gap_of(metric, every, rebuilt.groups) if rebuilt.whole else None
    return found if gap is None else {**found, "gap": gap}


def _points(rebuilt: Rebuilt) -> dict[str, Any]:
    """Compute what counts determine, mean of the seeds: scores, and what groups differ in if none is withheld."""
    answers, groups = rebuilt.answers, rebuilt.groups
    by_group = _by_group(answers.scores, groups)
    shown_groups = {
        str(place): _number(one) for place, one in enumerate(by_group.mean(axis=0)) if not np.isnan(one)
    }
    points: dict[str, Any] = {"score": float(answers.scores.mean()), "groups": shown_groups}
    if not rebuilt.whole or np.isfinite(by_group[0]).sum() < 2:
        return points
    gap = max_minus_min(by_group)
    points |= {
        "in groups": _number(answers.scores[:, groups.codes >= 0].mean()),
        "gap": _number(gap.mean()),
        "worst_group": _number(np.nanmin(by_group, axis=1).mean()),
        "best_group": _number(np.nanmax(by_group, axis=1).mean()),
        "distance": _number(np.hypot(1 - answers.scores.mean(axis=1), gap).mean()),
        "equity_scaled": _number((answers.scores.mean(axis=1) / (1 + 100 * gap)).mean()),
    }
    if rebuilt.split and answers.odds:
        odds = np.stack([max_minus_min(_by_group(rate, groups)) for rate in answers.odds])
        points["eq_odds_max"] = _number(odds.max(axis=0).mean())
    if rebuilt.split:
        rates, shares = by_class(answers.scores, answers.predictions[0].target.astype(np.int64), groups.codes)
        mixed = sum(share * _by_group(rate, groups) for rate, share in zip(rates, shares, strict=True))
        points["standardised_gap"] = _number(max_minus_min(np.asarray(mixed)).mean())
    return points


def _by_group(scores: Floats, groups: Groups) -> Floats:
    """Average the scores that are no NaN in every group, (seeds, groups), NaN where there are none."""
    means = [[row[groups.codes == place] for place in range(len(groups.names))] for row in scores]
    return np.array([[np.nanmean(one) if np.isfinite(one).any() else np.nan for one in row] for row in means])


def _number(value: Any) -> float | None:
    """Return a number, None where it is none."""
    return None if np.isnan(value) else float(value)
