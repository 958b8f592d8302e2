"""What a benchmark's test sets can show, before anything is trained on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fairbench.data.dataset import Dataset, rows
from fairbench.predictions.groups import Groups, clusters
from fairbench.settings import Fraction, convert
from fairbench.statistics.permutation import judge
from fairbench.statistics.power import (
    detectable_accuracy,
    detectable_gap,
    detectable_improvement,
    detectable_interaction,
)


@dataclass(frozen=True)
class Foresight:
    """One dataset and attribute: fractions; None where no size would be found, with the reason."""

    dataset: str
    attribute: str
    groups: tuple[tuple[str, int], ...]
    rows: int
    clusters: int
    floor_mean: float | None
    floor_95: float | None
    gap: float | None
    interaction: float | None
    improvement: float | None
    accuracy: float
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Assumed:
    """What must be assumed before training; fractions.

    `accuracy` of the methods, `agreement` the share of patients on whom two methods are both right or both
    wrong, `gap` the baseline's true accuracy gap. Raises FairbenchError outside 0 to 1.
    """

    accuracy: float
    agreement: float
    gap: float

    def __post_init__(self) -> None:
        for name in ("accuracy", "agreement", "gap"):
            convert(getattr(self, name), Fraction, f"--{name}")


def foresee(dataset: Dataset, attribute: str, policy: str, assumed: Assumed, folds: int = 1) -> Foresight:
    """Say what the test split can detect of `attribute`; of several folds, what all rows can.

    Rows of one cluster are counted as one, which is the cautious reading when their answers always agree.
    """
    table = rows(dataset)
    test = table if folds > 1 else table[table["split"] == "test"]
    groups, unit_of = Groups.of(test, attribute, policy), clusters(test)
    codes, names = groups.codes, groups.names
    known = codes >= 0
    group, unit = codes[known], unit_of[known]
    sizes = [len(np.unique(unit_of[codes == code])) for code in range(len(names))]
    right = (np.random.default_rng(0).random(unit_of.max() + 1) < assumed.accuracy).astype(float)[unit_of]
    floor = judge([right[known]], group, unit) if len(names) > 1 else None
    gap = detectable_gap(sizes, assumed.accuracy)
    moved = detectable_interaction(sizes, assumed.agreement)
    better = detectable_improvement(sizes, assumed.accuracy, assumed.agreement, assumed.gap)
    return Foresight(
        dataset=dataset.name,
        attribute=attribute,
        groups=tuple((name, int((codes == code).sum())) for code, name in enumerate(names)),
        rows=len(test),
        clusters=len(np.unique(unit_of)),
        floor_mean=floor.floor_mean if floor else None,
        floor_95=floor.floor_95 if floor else None,
        gap=gap.value,
        interaction=moved.value,
        improvement=better.value,
        accuracy=detectable_accuracy(len(np.unique(unit_of)), assumed.agreement),
        reasons=tuple(reason for reason in dict.fromkeys((gap.reason, moved.reason, better.reason)) if reason),
    )


def show(each: list[Foresight], assumed: Assumed, console: Console) -> None:
    """Print the table, and what it assumes."""
    table = Table(box=None, pad_edge=False)
    for column in ("dataset", "attribute", "test groups (n)"):
        table.add_column(column, overflow="fold")
    for column in (
        "gap by chance alone, mean / 95 % (points)",
        "smallest gap found (points)",
        "smallest move of one group against another found (points)",
        "smallest cut of the baseline's gap found (points)",
        "smallest accuracy difference found (points)",
    ):
        table.add_column(column, justify="right")
    for item in each:
        groups = ", ".join(f"{name} {count}" for name, count in item.groups)
        chance = f"{_points(item.floor_mean)} / {_points(item.floor_95)}"
        sizes = (item.gap, item.interaction, item.improvement, item.accuracy)
        shown = (chance, *map(_points, sizes))
        table.add_row(escape(item.dataset), escape(item.attribute), escape(groups), *shown)
    console.print(table)
    for item in each:
        for reason in item.reasons:
            console.print(f"{item.dataset}, {item.attribute}: {reason}", markup=False, highlight=False)
    console.print(
        "Found means with 80 % power at the 5 % level by the tests that a leaderboard prints, not adjusted for "
        "the number of methods, whichever group holds the difference. Assumed: accuracy "
        f"{100 * assumed.accuracy:g} %, two methods agree on {100 * assumed.agreement:g} % of patients, the "
        f"baseline's gap is {100 * assumed.gap:g} points (--accuracy, --agreement, --gap). "
        "Rows of one patient or lesion count once.",
        highlight=False,
    )


def _points(fraction: float | None) -> str:
    return "none" if fraction is None else f"{100 * fraction:.1f}"
