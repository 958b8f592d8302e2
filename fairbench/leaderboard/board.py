"""The leaderboard as data: what every renderer prints, and what its JSON holds.

Aggregates only, never a patient's row. Values are fractions, times seconds, memory bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from fairbench.errors import FairbenchError
from fairbench.jobs.conversion import departures, from_json
from fairbench.statistics.results import Difference, Estimate, Gap
from fairbench.statistics.variance import VarianceParts


@dataclass(frozen=True)
class Measure:
    """What a table is judged by: a metric that scores every row, and how headings call it and its gap."""

    name: str = "accuracy"
    title: str = "Acc"
    gap: str = "MaxAccGap"
    about: str = ""  # formula and source, where the table is not about accuracy


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
    """How well an attribute can be read from a row's hidden states, mean of its seeds; None with a reason.

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
    """Something a reader must know before trusting a row: a code of LEGEND, and what it is about."""

    code: str
    detail: str = ""


@dataclass(frozen=True)
class Group:
    """One group's counts in the test split; None where withheld because it is small."""

    name: str
    n: int | None
    positives: int | None = None
    negatives: int | None = None


@dataclass(frozen=True)
class Row:
    """One method with its settings, over its seeds. `groups` follows the order of the table's groups.

    `score`, `gap`, `worst_group`, `groups` and `between_groups` are of the table's measure; `gap_variance` is
    of one trained model's gap, None for no gap.
    """

    label: str
    method: str
    settings: Mapping[str, Any]
    recipe: Mapping[str, Any]
    attributes: tuple[str, ...]
    seeds: tuple[int, ...]
    keys: tuple[str, ...]
    versions: Mapping[str, str]
    baseline: bool
    control: str | None
    score: Estimate
    auroc: Estimate
    gap: Gap
    eq_odds_max: Gap
    equity_scaled: Estimate
    worst_group: Gap
    groups: tuple[Estimate, ...]
    between_groups: Estimate
    rank: str = ""
    changes: Mapping[str, Difference] = field(default_factory=dict)
    trainable: float | None = None
    train_seconds: float | None = None
    peak_memory: int | None = None
    flags: tuple[Flag, ...] = ()
    gap_variance: VarianceParts | None = None
    probes: tuple[ProbeResult, ...] = ()


@dataclass(frozen=True)
class Excluded:
    """A job that is not in the table, and why: `failed`, `unfinished`, `unreadable` or `refused`."""

    label: str
    seed: int
    key: str
    status: str
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
    """The commonest answer on the test rows, its score and its gap: what a row must beat."""

    answer: str
    score: float
    gap: float | None


@dataclass(frozen=True)
class MeasuredRow:
    """One row by a measure that the table is not judged by; `change` is its gap minus the baseline's."""

    label: str
    score: Estimate
    gap: Gap
    equity_scaled: Estimate
    change: Difference = field(default_factory=Difference)


@dataclass(frozen=True)
class FurtherMeasure:
    """All rows of a table by another measure."""

    measure: Measure
    rows: tuple[MeasuredRow, ...]


@dataclass(frozen=True)
class Table:
    """One dataset × backbone × evaluated attribute, judged by one measure; `further` holds what others say."""

    dataset: str
    backbone: str
    attribute: str
    unrecorded: str
    fingerprint: str
    rows_tested: int
    clusters: int
    classes: tuple[str, ...]
    groups: tuple[Group, ...]
    constant: Constant
    baseline: str | None
    finding: tuple[str, ...]
    notes: tuple[str, ...]
    rows: tuple[Row, ...]
    controls: tuple[Row, ...]
    excluded: tuple[Excluded, ...]
    side_effects: tuple[SideEffect, ...]
    trials: Trials
    improvement: Improvement | None = None
    min_cell: int = 0
    measure: Measure = Measure()
    further: tuple[FurtherMeasure, ...] = ()


@dataclass(frozen=True)
class Board:
    """A leaderboard: tables, and the version of fairbench that computed them."""

    title: str
    tables: tuple[Table, ...]
    fairbench: str

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready object from which `from_json` makes the same board."""
        plain: dict[str, Any] = json.loads(json.dumps(departures(self), allow_nan=False))
        return plain

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Rebuild a board; raises FairbenchError when the object is not one."""
        try:
            return from_json(cls, data)
        except FairbenchError as error:
            raise FairbenchError(
                f"this is not a leaderboard that this version wrote: {error.message}",
                "build it again from its runs",
            ) from error
