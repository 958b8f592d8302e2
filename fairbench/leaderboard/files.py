"""Scores with their evidence, of one predictions file, and the paired comparison of two."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from fairbench.leaderboard.seeds import Answers, contrast
from fairbench.metrics.disparity import Disparity, disparities, rates
from fairbench.metrics.metric import ACCURACY, RATES, Metric, Undefined
from fairbench.metrics.score import Json, score
from fairbench.predictions.align import align
from fairbench.predictions.groups import Groups
from fairbench.predictions.predictions import Predictions
from fairbench.statistics.auroc import judge_auroc
from fairbench.statistics.intervals import auroc_limits, delong
from fairbench.statistics.permutation import group_rates, judge
from fairbench.statistics.results import ALPHA, Difference

AUROC_GAP = "auroc_gap"  # the one disparity of no row means that has a test of its own
NO_EVIDENCE = {
    "ci": None,
    "floor_mean": None,
    "floor_95": None,
    "p": None,
    "excess": None,
    "detectable": None,
}


def judged(
    predictions: Predictions,
    attributes: Sequence[str],
    metrics: Sequence[Metric] = (),
    policy: str = "keep",
    equity: str = "fairllava",
) -> Json:
    """Score predictions as `fairbench.metrics.score.score` does, and say what each disparity is worth.

    Adds `ci`, `floor_mean`, `floor_95`, `p`, `excess`, `detectable` (fractions, see `Gap`) and `flags`
    to every disparity, null where they cannot be computed, and `ci` with an interval per metric that scores
    rows, and of AUROC, to `overall` and to every group. A disparity of no mean over rows (of F1, say) has no
    exact test: `no_evidence` says so.
    """
    found = score(predictions, attributes, metrics, policy, equity)
    rules = disparities(metrics, predictions.classes, equity)
    everyone = Groups.everyone(predictions.table)
    scored = {
        metric.name: metric for metric in (*RATES, *metrics) if metric.each and metric.listed_for(predictions)
    }
    found["overall"]["ci"] = _intervals(predictions, everyone, scored.values())["everyone"]
    for attribute in attributes:
        groups = Groups.of(predictions.table, attribute, policy)
        part = found["attributes"][attribute]
        for name, intervals in _intervals(predictions, groups, scored.values()).items():
            part["groups"][name]["ci"] = intervals
        for name in part.keys() & rules.keys():
            part[name] |= _evidence(rules[name], predictions, groups, part[name]["value"])
    return found


def _intervals(predictions: Predictions, groups: Groups, scored: Iterable[Metric]) -> dict[str, Json]:
    """Give every group's 95 % intervals by metric that scores rows, and of AUROC: [low, high]."""
    found: dict[str, Json] = {name: {} for name in groups.names}
    for metric in scored:
        try:
            scores = metric.scores(predictions)
        except Undefined:
            continue
        rates = group_rates(scores, groups.codes, groups.cluster, groups.names)
        for name, rate in zip(groups.names, rates, strict=True):
            if rate.interval:
                found[name][metric.name] = [*rate.interval]
    if predictions.has_probabilities and len(predictions.classes) == 2:
        for place, name in enumerate(groups.names):
            inside = groups.codes == place
            cluster = None if groups.cluster is None else groups.cluster[inside]
            one = delong(predictions.target[inside] == 1, predictions.probability(1)[inside], cluster)
            ends = auroc_limits(one, ALPHA) if one else (np.nan, np.nan)
            if np.isfinite(ends).all():
                found[name]["auroc"] = list(ends)
    return found


def _evidence(rule: Disparity, predictions: Predictions, groups: Groups, value: float | None) -> Json:
    if value is None:
        return NO_EVIDENCE
    if rule.name == AUROC_GAP and len(predictions.classes) == 2:
        found = judge_auroc(
            predictions.target.astype(np.int64),
            predictions.probability(1).astype(np.float64),
            groups.codes,
            groups.cluster,
            names=groups.names,
        )
    elif rule.row_scored:
        scores, reduce = rates(rule, predictions)
        worse = not rule.higher_is_better
        found = judge(scores, groups.codes, groups.cluster, reduce, names=groups.names, higher_is_worse=worse)
    else:
        return {**NO_EVIDENCE, "no_evidence": "not a mean over rows: no exact test"}
    numbers = {key: getattr(found, key) for key in NO_EVIDENCE if key != "ci"}
    if not all(number is None or math.isfinite(number) for number in numbers.values()):
        return {**NO_EVIDENCE, "no_evidence": "too few clusters in a group to say what chance gives"}
    return {
        "ci": [*found.interval] if found.interval else None,
        **numbers,
        **({"flags": list(found.notes)} if found.notes else {}),
    }


def compared(
    a: Predictions,
    b: Predictions,
    attributes: Sequence[str],
    policy: str = "keep",
    measure: Metric = ACCURACY,
) -> Json:
    """Compare A minus B on the same rows, matched by id: accuracy, MaxAccGap, EqOdds(max), worst group.

    Returns `n`, `overall.accuracy` and `attributes.<attribute>.{max_acc_gap, eq_odds_max, worst_group}`, each
    `{difference, ci, p}` in fractions, null with a `reason` where undefined. Judged by another `measure`, say
    `m`, the keys are `overall.m` and `attributes.<attribute>.{m_gap, worst_m}`, as in `score`. Raises
    FairbenchError when the two are not about the same rows, targets and groups.
    """
    a, b = align(a, b)
    first, second = Answers((0,), (a,), measure), Answers((0,), (b,), measure)
    found: Json = {"n": len(a), "overall": {}, "attributes": {}, "flags": []}
    for attribute in attributes:
        groups = Groups.of(a.table, attribute, policy)
        result = contrast(first, second, groups)
        found["overall"][measure.name] = _difference(result.accuracy)
        found["flags"] = sorted({*found["flags"], *result.flags})
        if measure is not ACCURACY:
            gap, worst = _difference(result.gap), _difference(result.worst_group)
            found["attributes"][attribute] = {f"{measure.name}_gap": gap, f"worst_{measure.name}": worst}
            continue
        odds = (
            _difference(contrast(first, second, groups, odds=True).gap)
            if first.odds
            else _difference(Difference(reason="defined for two classes only"))
        )
        found["attributes"][attribute] = {
            "max_acc_gap": _difference(result.gap),
            "eq_odds_max": odds,
            "worst_group": _difference(result.worst_group),
        }
    return found


def _difference(found: Difference) -> Json:
    return {
        "difference": found.value,
        "ci": [*found.interval] if found.interval else None,
        "p": found.p,
        **({"reason": found.reason} if found.reason else {}),
    }
