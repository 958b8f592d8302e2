"""The same predictions in another project's convention, so that published tables can be compared.

Five projects print five incompatible "EqOdds"; here each is a row of a table under its project's name for
it, in its project's scale and direction. Where a rate has an empty denominator those projects print 1, 0 or
NaN; here the value is undefined and says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fairbench.metrics.disparity import EQUITY, Combine, Disparity, gap, gap_max, gap_mean, lowest
from fairbench.metrics.metric import ACCURACY, FPR, SELECTION_RATE, TPR, Floats, Metric, registry
from fairbench.predictions.predictions import Predictions
from fairbench.settings import suggest
from fairbench.statistics.results import Gap


@dataclass(frozen=True)
class Convention:
    """One project's way: its fixed numbers, those it computes of every metric, and which rows it looks at."""

    source: str
    fixed: tuple[Disparity, ...]
    of_metric: Callable[[Metric], tuple[Disparity, ...]] = lambda metric: ()
    two_groups: bool = False
    drop_rows: bool = False  # rows without a recorded attribute leave even the overall values


def _rule(name: str, formula: str, metrics: Sequence[Metric], combine: Combine, best: int = 0) -> Disparity:
    return Disparity(
        name=name,
        title=name,
        formula=formula,
        source="",
        metrics=tuple(metrics),
        combine=combine,
        higher_is_better=best == 1,
    )


def _percent(combine: Combine) -> Combine:
    return lambda groups, overall: 100 * combine(groups, overall)


def _from_one(combine: Combine) -> Combine:
    return lambda groups, overall: 1 - combine(groups, overall)


def _relative_deviation(groups: Sequence[Floats], overall: Sequence[Floats]) -> Floats:
    """Divide the groups' standard deviation (over groups, not rows) by the overall value."""
    known = np.isfinite(groups[0])
    count = np.maximum(known.sum(axis=-1), 1)
    values = np.where(known, groups[0], 0.0)
    apart = np.where(known, values - (values.sum(axis=-1) / count)[..., None], 0.0)
    spread = np.sqrt((apart**2).sum(axis=-1) / count)
    return _of_overall(np.where(np.isnan(gap(groups, overall)), np.nan, spread), overall)


def _relative_gap(groups: Sequence[Floats], overall: Sequence[Floats]) -> Floats:
    """Divide the gap by the overall value."""
    return _of_overall(gap(groups, overall), overall)


def _of_overall(number: Floats, overall: Sequence[Floats]) -> Floats:
    """Divide by the overall value; undefined where that is 0."""
    return number / np.where(overall[0] == 0, np.nan, overall[0])


def _fairclip(metric: Metric) -> tuple[Disparity, ...]:
    if not metric.higher_is_better or metric.high != 1:
        return ()
    return (
        _rule(f"ES-{metric.name}", EQUITY["fairclip"].formula, [metric], EQUITY["fairclip"].combine, best=1),
        _rule(f"{metric.name} std disparity", "std of groups / M", [metric], _relative_deviation),
        _rule(f"{metric.name} max disparity", "(largest − smallest group) / M", [metric], _relative_gap),
    )


def _fairllava(metric: Metric) -> tuple[Disparity, ...]:
    if not metric.higher_is_better or metric.high != 1:
        return ()
    return (
        _rule(f"Δ{metric.name}", "largest − smallest group, percentage points", [metric], _percent(gap)),
        *(
            _rule(
                f"ES-{metric.name}{suffix}",
                f"{EQUITY[preset].formula}, in percent",
                [metric],
                _percent(EQUITY[preset].combine),
                best=1,
            )
            for suffix, preset in (("", "fairllava"), (" (table)", "fairllava-table"))
        ),
    )


def _medfair(metric: Metric) -> tuple[Disparity, ...]:
    if not metric.higher_is_better:
        return ()
    return (
        _rule(f"{metric.name} gap", "largest − smallest group", [metric], gap),
        _rule(f"{metric.name} worst", "smallest group", [metric], lowest, best=1),
    )


CONVENTIONS = {
    "fairlearn": Convention(
        "fairlearn 0.15, fairlearn/metrics/_fairness_metrics.py",
        (
            _rule("demographic_parity_difference", "gap of selection rates", [SELECTION_RATE], gap),
            _rule("equalized_odds_difference", "larger of the TPR and FPR gaps", [TPR, FPR], gap_max),
            _rule("equalized_odds_difference(agg=mean)", "mean of the TPR and FPR gaps", [TPR, FPR], gap_mean),
            _rule("equal_opportunity_difference", "TPR gap", [TPR], gap),
            _rule("accuracy_score_difference", "gap of accuracies", [ACCURACY], gap),
            _rule("accuracy_score_group_min", "smallest group accuracy", [ACCURACY], lowest, best=1),
        ),
    ),
    "fairclip": Convention(
        "FairCLIP/src/modules.py; rows without the attribute are left out of everything",
        (
            _rule("DPD", "gap of selection rates", [SELECTION_RATE], gap),
            _rule("DEOdds", "larger of the TPR and FPR gaps", [TPR, FPR], gap_max),
        ),
        of_metric=_fairclip,
        drop_rows=True,
    ),
    "fairllava": Convention(
        "FairLLaVA scripts/eval_ham_fairness.py, and summarize_gap_es.py (table); percent",
        (),
        of_metric=_fairllava,
    ),
    "medfair": Convention(
        "MEDFAIR utils/evaluation.py, at the answers given (MEDFAIR re-tunes its threshold on the test set); "
        "1 is best; EqOpp1 looks at label 0 and EqOpp0 at label 1, as coded",
        (
            _rule("EqOdd", "1 − (|ΔFPR| + |ΔTPR|) / 2", [TPR, FPR], _from_one(gap_mean), best=1),
            _rule("DP", "1 − |ΔSelection rate|", [SELECTION_RATE], _from_one(gap), best=1),
            _rule("EqOpp0", "1 − |ΔTPR|", [TPR], _from_one(gap), best=1),
            _rule("EqOpp1", "1 − |ΔFPR|", [FPR], _from_one(gap), best=1),
        ),
        of_metric=_medfair,
        two_groups=True,
    ),
    "ffb": Convention(
        "FFB src/metrics.py; percent",
        (
            _rule("dp", "100 |ΔSelection rate|", [SELECTION_RATE], _percent(gap)),
            _rule("eopp", "100 |ΔTPR|", [TPR], _percent(gap)),
            _rule(
                "eodd",
                "100 (|ΔTPR| + |ΔFPR|): a sum, up to 200",
                [TPR, FPR],
                lambda groups, overall: 200 * gap_mean(groups, overall),
            ),
        ),
        two_groups=True,
    ),
}


@dataclass(frozen=True)
class Converted:
    """A project's numbers in its own scale: attribute -> its name for a number -> (formula, value)."""

    convention: str
    source: str
    attributes: Mapping[str, Mapping[str, tuple[str, Gap]]]


def convert(
    predictions: Predictions,
    attributes: Sequence[str],
    convention: str,
    metrics: Sequence[Metric] = (),
    policy: str = "keep",
) -> Converted:
    """Compute what another project would print of answers of this kind.

    Raises FairbenchError for an unknown convention or attribute.
    """
    if convention not in CONVENTIONS:
        raise suggest("convention", convention, CONVENTIONS)
    way = CONVENTIONS[convention]
    listed = [metric for metric in registry(metrics).values() if metric.listed_for(predictions)]
    rules = (*way.fixed, *(rule for metric in listed for rule in way.of_metric(metric)))
    return Converted(
        convention,
        way.source,
        {attribute: _measured(predictions, attribute, policy, way, rules) for attribute in attributes},
    )


def _measured(
    predictions: Predictions, attribute: str, policy: str, way: Convention, rules: Sequence[Disparity]
) -> dict[str, tuple[str, Gap]]:
    if way.drop_rows:
        predictions = predictions.take(predictions.recorded(attribute))
    groups = len(predictions.groups(attribute, policy)[1])
    gaps = {rule.name: rule.measure(predictions, attribute, policy) for rule in rules}
    if way.two_groups and groups > 2:
        why = f"defined for two groups, and there are {groups}"
        gaps |= {rule.name: replace(gaps[rule.name], value=None, reason=why) for rule in way.fixed}
    return {rule.name: (rule.formula, gaps[rule.name]) for rule in rules}
