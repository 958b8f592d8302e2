"""The paired comparison of two predictions files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fairbench.leaderboard.answers import (
    NO_CLASSES,
    TWO_CLASSES,
    Answers,
    Kind,
    contrast,
    gap_contrast,
    interaction_with,
)
from fairbench.metrics.metric import ACCURACY, Metric
from fairbench.predictions.align import align
from fairbench.predictions.groups import Groups
from fairbench.predictions.predictions import Predictions
from fairbench.statistics.paired import later
from fairbench.statistics.ranking import opposite
from fairbench.statistics.results import Difference, Interaction

KEYS: dict[Kind, str] = {
    "score": "interaction",
    "standardised_gap": "standardised_interaction",
    "eq_odds_max": "eq_odds_interaction",
}
GAPS: dict[Kind, str] = {"standardised_gap": "standardised_acc_gap", "eq_odds_max": "eq_odds_max"}
UNDEFINED: dict[Kind, Difference] = {
    "standardised_gap": Difference(reason=NO_CLASSES),
    "eq_odds_max": Difference(reason=TWO_CLASSES),
}


@dataclass(frozen=True)
class AttributeComparison:
    """A minus B in every disparity of one attribute, by name, and who was moved against whom, by rates."""

    differences: Mapping[str, Difference]
    interactions: Mapping[str, Interaction]


@dataclass(frozen=True)
class PairedScores:
    """A minus B on the same `rows`: overall by metric, and attribute by attribute."""

    rows: int
    overall: Mapping[str, Difference]
    attributes: Mapping[str, AttributeComparison]
    notes: tuple[str, ...]


def compare_predictions(
    a: Predictions,
    b: Predictions,
    attributes: Sequence[str],
    policy: str = "keep",
    measure: Metric = ACCURACY,
) -> PairedScores:
    """Compare A minus B on the same rows, matched by id: accuracy, MaxAccGap as it is and at one class mix,
    EqOdds(max), worst group, ES-Acc, the distance to the optimum, and whether the groups were moved unequally.

    Judged by another `measure`, say `m`, the names are `m`, `m_gap`, `worst_m` and `es_m`, as in `score`. Raises
    FairbenchError when the two are not about the same rows, targets and groups.
    """
    left, right = align(a, b)
    first, second = Answers((0,), (left,), measure), Answers((0,), (right,), measure)
    overall = contrast(first, second, Groups.everyone(left.table)).accuracy
    notes: set[str] = set()
    compared = {}
    for attribute in attributes:
        groups = Groups.of(left.table, attribute, policy)
        whole = contrast(first, second, groups)
        notes |= {*whole.flags}
        interactions = {KEYS[kind]: _interaction(first, second, groups, kind) for kind in first.kinds}
        if measure is ACCURACY:
            differences = {
                "max_acc_gap": whole.gap,
                "worst_group": whole.worst_group,
                "es_accuracy": whole.equity_scaled,
                "dto": whole.distance,
            }
            for kind, name in GAPS.items():
                able = kind in first.kinds
                differences[name] = gap_contrast(first, second, groups, kind) if able else UNDEFINED[kind]
        else:
            differences = {
                f"{measure.name}_gap": whole.gap,
                f"worst_{measure.name}": whole.worst_group,
                f"es_{measure.name}": whole.equity_scaled,
                "dto": whole.distance,
            }
        compared[attribute] = AttributeComparison(differences, interactions)
    return PairedScores(len(a), {measure.name: overall}, compared, tuple(sorted(notes)))


def _interaction(a: Answers, b: Answers, groups: Groups, kind: Kind) -> Interaction:
    """Whom A moved against whom, of which B against A is the mirror image: both are of the same draws."""
    if not later([a.scores], [b.scores]):
        return interaction_with(a, b, groups, kind)
    other = interaction_with(b, a, groups, kind)
    return replace(other, contrasts=tuple(opposite(one) for one in other.contrasts))
