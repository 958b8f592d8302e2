"""The leaderboard as data: what every renderer prints, and what its JSON holds.

Aggregates only, never a patient's row. Values are fractions, times seconds, memory bytes. What no renderer could
compute is here, and no sentence: sentences are made from these data, after small groups are withheld.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from fairbench.errors import FairbenchError
from fairbench.jobs.conversion import departures, from_json
from fairbench.jobs.job import Role
from fairbench.statistics.results import Difference, Estimate, Gap, Interaction
from fairbench.statistics.results import RankBy as RankBy
from fairbench.statistics.variance import VarianceParts

Status = Literal["failed", "unfinished", "unreadable", "refused"]
# What rows are compared in, by the field of a row, and how it is called beside other words.
QUANTITIES = {"score": "score", "worst_group": "worst group", "gap": "gap", "eq_odds_max": "EqOdds(max)"}
# What every row is compared with the baseline in, whatever ranks go by.
COMPARED = ("score", "worst_group", "gap", "best_group", "equity_scaled")
# How far a row was checked, least first; docs/publishing.md says what each can and cannot show.
Trust = Literal["self-reported", "counts attached", "predictions attached", "re-predicted", "retrained"]


@dataclass(frozen=True)
class Measure:
    """What a table is judged by: a metric that scores every row, and how headings call it and its gap."""

    name: str = "accuracy"
    title: str = "Acc"
    gap: str = "MaxAccGap"
    about: str = ""  # formula and source, where the table is not about accuracy
    scale: str = "percent"  # how values are printed: percent, or as they are

    @property
    def noun(self) -> str:
        """What sentences call it."""
        return "accuracy" if self.name == "accuracy" else self.title

    @property
    def heading(self) -> str:
        """What it is called where a line opens with it."""
        return self.noun[:1].upper() + self.noun[1:]


@dataclass(frozen=True)
class Improvement:
    """The smallest `cut` of the baseline's gap that is found with 80 % power, and what it follows from.

    `score` and `gap` are the baseline's; `agreement` is the share of rows on which a method and the baseline
    score alike (are both right or both wrong), median of the methods.
    """

    cut: Estimate
    score: float | None
    gap: float | None
    agreement: float


@dataclass(frozen=True)
class ProbeResult:
    """How well an attribute can be read from a row's hidden states, mean of its seeds.

    `balanced_accuracy` with its 95 % interval, `auroc`, what guessing gives (`chance`), and p; `where` says
    which layer and tokens.
    """

    attribute: str
    where: str
    balanced_accuracy: Estimate
    auroc: float | None = None
    chance: float | None = None
    p: float | None = None


@dataclass(frozen=True)
class Flag:
    """Something a reader must know before trusting a row: a code of flags.LEGEND, and what it is about."""

    code: str
    detail: str = ""


@dataclass(frozen=True)
class Group:
    """One group's counts in the test split; None where withheld because it is small."""

    name: str
    n: int | None = None
    positives: int | None = None
    negatives: int | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method with its settings, over its seeds. `groups` follows the order of the table's groups.

    `score`, `gap`, `equity_scaled`, `worst_group`, `groups` and `between_groups` (variance of the groups'
    values, corrected for sampling) are of the table's measure; `standardised_gap` is its gap at the pooled mix
    of classes; `gap_variance` is of one trained model's gap, None for no gap. `changes` are this row minus the
    baseline, by the name of the field; `interactions` say who was moved against whom. `trade_offs` name the
    rows that this one is better than in one respect and worse than in another. `origin` names who published the
    row and `trust` how far it was checked, on a published board.
    """

    label: str
    method: str
    role: Role
    settings: Mapping[str, Any]
    recipe: Mapping[str, Any]
    attributes: tuple[str, ...]
    seeds: tuple[int, ...]
    keys: tuple[str, ...]
    versions: Mapping[str, str]
    score: Estimate
    auroc: Estimate
    gap: Gap
    eq_odds_max: Gap
    equity_scaled: Gap
    worst_group: Gap
    groups: tuple[Estimate, ...]
    between_groups: Estimate
    standardised_gap: Gap = field(default_factory=Gap)
    stands_for: str = ""
    rank: str = ""
    trade_offs: tuple[str, ...] = ()
    changes: Mapping[str, Difference] = field(default_factory=dict)
    interactions: Mapping[str, Interaction] = field(default_factory=dict)
    trainable: float | None = None
    train_seconds: float | None = None
    peak_memory: int | None = None
    flags: tuple[Flag, ...] = ()
    gap_variance: VarianceParts | None = None
    probes: tuple[ProbeResult, ...] = ()
    origin: str = ""
    trust: Trust | None = None


@dataclass(frozen=True)
class Excluded:
    """A job that is not in the table, and why."""

    label: str
    seed: int
    key: str
    status: Status
    reason: str


@dataclass(frozen=True)
class SideEffect:
    """What a method trained for one attribute did to another's gap, and against the baseline."""

    label: str
    attribute: str
    gap: float | None
    change: Difference


@dataclass(frozen=True)
class Trials:
    """How much was tried, so that a reader can discount the best of many."""

    methods: int
    settings: int
    seeds: tuple[int, ...]
    trainings: int


@dataclass(frozen=True)
class Constant:
    """The commonest answer on the test rows, its score and its gap: what a row must beat.

    `answer` is a class that all rows get; where it is not (`one_class`), it is a text, or the commonest of several
    answers, each to its question.
    """

    answer: str
    score: float
    gap: float | None
    one_class: bool = True


@dataclass(frozen=True)
class MeasuredRow:
    """One row by a measure that the table is not judged by; `change` is its gap minus the baseline's."""

    label: str
    score: Estimate
    gap: Gap
    equity_scaled: Gap
    change: Difference = field(default_factory=Difference)


@dataclass(frozen=True)
class FurtherMeasure:
    """All rows of a table by another measure; `missing` says why there are none."""

    measure: Measure
    rows: tuple[MeasuredRow, ...] = ()
    missing: str | None = None


@dataclass(frozen=True)
class Cell:
    """What one seed's answers add up to in one group: rows, the sum of their scores, and of the scores squared.

    `answers` counts rows by class (down) and answer (across; the last column counts answers that name no
    class); None where there are no classes, or where they are too few to be shown.
    """

    n: int
    total: float
    squares: float
    answers: tuple[tuple[int, ...], ...] | None = None


@dataclass(frozen=True)
class SeedCounts:
    """One seed's cells: all rows together, and every group in the table's order, None where withheld."""

    seed: int
    everyone: Cell
    groups: tuple[Cell | None, ...]


@dataclass(frozen=True)
class Pair:
    """Row A minus row B in what ranks go by, with p before any adjustment."""

    a: str
    b: str
    differences: Mapping[str, Difference]


@dataclass(frozen=True)
class Evidence:
    """What a table's numbers can be recomputed from without patients' rows: every row's counts, by label, and
    all comparisons that the ranks rest on.
    """

    counts: Mapping[str, tuple[SeedCounts, ...]]
    pairs: tuple[Pair, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Table:
    """One dataset × backbone × evaluated attribute, judged by one measure; `further` holds what others say.

    Of several `folds`, every row was tested once, by a model that was trained on none of its cluster.

    `primary` are the rows whose comparison with the baseline was planned: a family of p-values of its own.
    `min_cell` is the size below which groups were withheld. Without rows, `excluded` says why. `evidence` is
    there when it was asked for, to be published; `apart` says why a merged board shows these rows by themselves.
    """

    dataset: str
    backbone: str
    attribute: str
    unrecorded: str
    trials: Trials
    folds: int = 1
    excluded: tuple[Excluded, ...] = ()
    fingerprint: str = ""
    rows_tested: int = 0
    clusters: int = 0
    classes: tuple[str, ...] = ()
    groups: tuple[Group, ...] = ()
    constant: Constant | None = None
    baseline: str | None = None
    rows: tuple[Row, ...] = ()
    controls: tuple[Row, ...] = ()
    side_effects: tuple[SideEffect, ...] = ()
    improvement: Improvement | None = None
    min_cell: int = 0
    measure: Measure = field(default_factory=Measure)
    further: tuple[FurtherMeasure, ...] = ()
    ranked_by: RankBy = "dominance"
    primary: tuple[str, ...] = ()
    evidence: Evidence | None = None
    apart: str = ""

    @property
    def place(self) -> str:
        """What the table is about, as headings and messages name it."""
        return f"{self.dataset} · {self.backbone} · {self.attribute}"


@dataclass(frozen=True)
class Board:
    """A leaderboard: tables, and the version of fairbench that computed them.

    `refused` are records that could not be believed, each with its reason; they may belong to any table.
    """

    title: str
    tables: tuple[Table, ...]
    fairbench: str
    refused: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise FairbenchError where rows do not fit their table, so that no reader need ask again."""
        for number, table in enumerate(self.tables):
            labels: set[str] = set()
            names = [group.name for group in table.groups]
            if len({*names}) < len(names):
                twice = next(name for name in names if names.count(name) > 1)
                where = f"board.tables[{number}], group {twice}"
                raise FairbenchError(f"{where}: two groups are called so", "give each its own name")
            for row in (*table.rows, *table.controls):
                where = f"board.tables[{number}], row {row.label}"
                if row.label in labels:
                    raise FairbenchError(f"{where}: two rows of the table are called so", "give each its own label")
                if len(row.groups) != len(table.groups):
                    said = f"it has values of {len(row.groups)} groups, and the table has {len(table.groups)}"
                    raise FairbenchError(f"{where}: {said}", "give a value for each group, undefined with a reason")
                stages = row.recipe.get("stages", [])
                if not (isinstance(stages, list) and all(isinstance(s, dict) and "name" in s for s in stages)):
                    said = f"recipe.stages is {stages!r:.60}, not the stages of a training"
                    raise FairbenchError(f"{where}: {said}", "list them, each an object with its name")
                lacking = {*COMPARED} - {*row.changes} if row.changes else set()
                if lacking or (row.changes and "score" not in row.interactions):
                    absent = ", ".join(sorted(lacking)) or "whom it moved"
                    said = f"it is compared with the baseline, and not in {absent}"
                    raise FairbenchError(f"{where}: {said}", "a difference that is undefined says why")
                labels.add(row.label)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready object, without what equals its default, from which `from_json` makes the board."""
        plain: dict[str, Any] = json.loads(json.dumps(departures(self), allow_nan=False))
        return plain

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Rebuild a board; raises FairbenchError, naming the place, when the object is not one."""
        try:
            board = from_json(cls, data)
            board.check()
            return board
        except FairbenchError as error:
            raise FairbenchError(
                f"this is not a leaderboard that this version wrote: {error.message}",
                "build it again from its runs",
            ) from error
