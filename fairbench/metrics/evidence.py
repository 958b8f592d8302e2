"""What scores are worth: an interval for every rate, and for every disparity what chance gives on these rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from fairbench.metrics.disparity import Disparity, rates
from fairbench.metrics.disparity import gap as max_gap
from fairbench.metrics.jackknife import NO_TEST, Jackknife
from fairbench.metrics.metric import Metric, Undefined
from fairbench.metrics.score import AttributeScores, RowScores, Scores, listed_disparities, listed_metrics, score
from fairbench.predictions.groups import UNRECORDED, Groups
from fairbench.predictions.predictions import Predictions
from fairbench.statistics.auroc import judge_auroc
from fairbench.statistics.equity import judge_equity_scaled
from fairbench.statistics.intervals import Auroc, auroc_limits, auroc_notes, delong, ends
from fairbench.statistics.permutation import WIDE, group_rates, judge
from fairbench.statistics.results import ALPHA, Estimate, Gap
from fairbench.statistics.standardised import standardised_gap

AUROC = "auroc"
AUROC_GAP = "auroc_gap"  # the one disparity of no row means that has a test of its own
GAP, STANDARDISED = "max_acc_gap", "standardised_acc_gap"
CASE_MIX = "case mix: the gap exceeds chance, but not with the same mix of classes in every group"
NOBODY = "the worst group are the rows whose value is not recorded, who are no group of people"
TOO_FEW = "too few clusters in a group to say what chance gives"


def score_with_evidence(
    predictions: Predictions,
    attributes: Sequence[str],
    metrics: Sequence[Metric] = (),
    policy: str = "keep",
    equity: str = "fairllava",
) -> Scores:
    """Score predictions as `score` does, with intervals, and with evidence for every disparity (see `Gap`).

    Where there are classes, `standardised_acc_gap` stands beside the gap. Every metric has an interval overall
    and in every group, one that is no mean over rows by the jackknife. Its disparities have no exact test, and a
    note says so; its gap has an interval.
    """
    plain = score(predictions, attributes, metrics, policy, equity)
    rules = listed_disparities(predictions, metrics, equity)
    listed = listed_metrics(predictions, metrics, {}).values()
    scored, whole = ([metric for metric in listed if bool(metric.each) is each] for each in (True, False))
    everyone = Groups.everyone(predictions.table)
    (overall,) = _with_intervals([plain.overall], predictions, everyone, scored)
    everybody = _jackknives(whole, plain.overall, predictions, everyone)
    overall = replace(
        overall, metrics={**overall.metrics, **{name: one.overall for name, one in everybody.items()}}
    )

    def tested(attribute: str, part: AttributeScores) -> AttributeScores:
        groups = Groups.of(predictions.table, attribute, policy)
        rows = _with_intervals([*part.groups.values()], predictions, groups, scored)
        moved = _jackknives(whole, plain.overall, predictions, groups)
        rows = [
            replace(row, metrics={**row.metrics, **{name: one.groups[place] for name, one in moved.items()}})
            for place, row in enumerate(rows)
        ]
        gaps = {
            name: _tested(rules[name], gap, predictions, groups, moved) for name, gap in part.disparities.items()
        }
        if "target" in predictions.table:
            gaps[STANDARDISED] = _standardised(predictions, groups)
            gaps[GAP] = _with_case_mix(gaps[GAP], gaps[STANDARDISED])
        return replace(part, groups=dict(zip(part.groups, rows, strict=True)), disparities=gaps)

    return replace(
        plain,
        overall=overall,
        attributes={attribute: tested(attribute, part) for attribute, part in plain.attributes.items()},
    )


def _jackknives(
    metrics: Iterable[Metric], overall: RowScores, predictions: Predictions, groups: Groups
) -> dict[str, Jackknife]:
    """Jackknife the metrics that are no means over rows, by name; AUROC of two classes has intervals of its own."""
    own = {AUROC} if predictions.has_probabilities and len(predictions.classes) == 2 else set()
    defined = [one for one in metrics if one.name not in own and overall.metrics[one.name].value is not None]
    return {metric.name: Jackknife.of(metric, [predictions], groups) for metric in defined}


def _with_case_mix(gap: Gap, standardised: Gap) -> Gap:
    """Say of a gap beyond chance that groups differ in their mix of classes, where that alone makes it."""
    if gap.p is None or standardised.p is None or gap.p > ALPHA or standardised.p <= ALPHA:
        return gap
    return replace(gap, notes=(*gap.notes, CASE_MIX))


def _standardised(predictions: Predictions, groups: Groups) -> Gap:
    """MaxAccGap with every group's accuracy at the pooled mix of classes, which prevalence alone cannot widen."""
    target = predictions.target.astype(np.int64)
    correct = (predictions.answer == predictions.target).astype(np.float64)
    return standardised_gap(correct, target, groups.codes, groups.cluster, names=groups.names)


def _with_intervals(
    scores: Sequence[RowScores], predictions: Predictions, groups: Groups, scored: Iterable[Metric]
) -> list[RowScores]:
    """Give every group's metrics their 95 % intervals."""
    bounded: list[dict[str, Estimate]] = [dict(one.metrics) for one in scores]
    for metric in scored:
        try:
            by_row = metric.scores(predictions)
        except Undefined:
            continue
        for own, rate in zip(bounded, group_rates(by_row, groups.codes, groups.cluster, groups.names), strict=True):
            notes = (*own[metric.name].notes, *(note for note in rate.notes if note == WIDE))
            own[metric.name] = replace(own[metric.name], low=rate.low, high=rate.high, notes=notes)
    if AUROC in bounded[0] and predictions.has_probabilities and len(predictions.classes) == 2:
        for place, own in enumerate(bounded):
            if one := _auroc(predictions, groups, place):
                low, high = ends(*auroc_limits(one, ALPHA))
                own[AUROC] = replace(own[AUROC], low=low, high=high, notes=(*own[AUROC].notes, *auroc_notes(one)))
    return [replace(one, metrics=own) for one, own in zip(scores, bounded, strict=True)]


def _auroc(predictions: Predictions, groups: Groups, place: int) -> Auroc | None:
    inside = groups.codes == place
    cluster = None if groups.cluster is None else groups.cluster[inside]
    return delong(predictions.target[inside] == 1, predictions.probability(1)[inside], cluster)


def _tested(
    rule: Disparity, gap: Gap, predictions: Predictions, groups: Groups, moved: Mapping[str, Jackknife]
) -> Gap:
    """Add to a disparity what its test says."""
    if gap.value is None:
        return gap
    if gap.group is not None and UNRECORDED in gap.group.split("×"):
        gap = replace(gap, notes=(*gap.notes, NOBODY))
    if rule.name == AUROC_GAP and len(predictions.classes) == 2:
        tested = judge_auroc(
            predictions.target.astype(np.int64),
            predictions.probability(1).astype(np.float64),
            groups.codes,
            groups.cluster,
            names=groups.names,
        )
    elif rule.preset is not None and rule.row_scored:
        (scored,) = rule.metrics
        combine, names = rule.combine, groups.names
        tested = judge_equity_scaled(scored.scores(predictions), groups.codes, combine, groups.cluster, names=names)
    elif rule.row_scored:
        scores, reduce = rates(rule, predictions)
        worse = not rule.higher_is_better
        tested = judge(scores, groups.codes, groups.cluster, reduce, names=groups.names, higher_is_worse=worse)
    elif rule.combine is max_gap and rule.metrics[0].name in moved:
        return moved[rule.metrics[0].name].gap(gap)
    else:
        return replace(gap, notes=(*gap.notes, NO_TEST))
    numbers = (tested.floor_mean, tested.floor_95, tested.p, tested.excess, tested.detectable)
    if not all(number is None or math.isfinite(number) for number in numbers):
        return replace(gap, notes=(*gap.notes, TOO_FEW))
    return replace(
        tested, value=gap.value, coverage=gap.coverage, group=gap.group, notes=(*gap.notes, *tested.notes)
    )
