"""Disparities: how far apart groups are, as tables of rules over metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from fairbench.errors import FairbenchError
from fairbench.metrics.metric import (
    FPR,
    SELECTION_RATE,
    TPR,
    Floats,
    Metric,
    Undefined,
    answered,
    registry,
    rows_of,
)
from fairbench.predictions.predictions import Predictions
from fairbench.settings import suggest
from fairbench.statistics.intervals import max_minus_min
from fairbench.statistics.results import Estimate, Gap

# Takes, per metric, the values of the groups (..., G) with NaN where undefined, and the overall
# values (...), and give the disparity (...): one table of groups, or any number of resampled ones at once.
Combine = Callable[[Sequence[Floats], Sequence[Floats]], Floats]
Reduce = Callable[[Floats, Floats], Floats]


@dataclass(frozen=True, kw_only=True)
class Disparity:
    """A rule that turns the groups' values of one or more metrics into one number.

    Groups where a metric is undefined are left out of it; with fewer than two left, the disparity is
    undefined. Values are fractions. `preset` names the convention where several go by the same name.
    """

    name: str
    title: str
    formula: str
    source: str
    metrics: tuple[Metric, ...]
    combine: Combine
    higher_is_better: bool = False
    names_group: bool = False
    preset: str | None = None

    @property
    def row_scored(self) -> bool:
        """Whether it is made of means over rows, which evidence can test exactly."""
        return all(metric.each for metric in self.metrics)

    def listed_for(self, predictions: Predictions) -> bool:
        """Whether a report on these rows lists it: it lists all the metrics that it is made of."""
        return all(metric.listed_for(predictions) for metric in self.metrics)

    def measure(self, predictions: Predictions, attribute: str, policy: str = "keep") -> Gap:
        """Compute the disparity between the groups of an attribute."""
        codes, names = predictions.groups(attribute, policy)
        cells = [metric.by_group(predictions, codes, len(names)) for metric in self.metrics]
        return self.between(cells, [metric.value(predictions) for metric in self.metrics], names)

    def between(
        self, cells: Sequence[Sequence[Estimate]], overall: Sequence[Estimate], names: Sequence[str]
    ) -> Gap:
        """Compute the disparity from its metrics' values per group and overall, in the order of `metrics`.

        `coverage` counts the groups that entered every one of its metrics; where some did not, a note (or, of
        an undefined disparity, the reason) says which and why.
        """
        groups = [as_floats(values) for values in cells]
        left_out = {
            name: value.reason or ""
            for values in reversed(cells)
            for name, value in zip(names, values, strict=True)
            if value.value is None
        }
        coverage = (len(names) - len(left_out), len(names))
        reasons = [f"{name} ({reason})" for name, reason in left_out.items()]
        listed = ", ".join(reasons[:5]) + (f" and {len(reasons) - 5} more" if len(reasons) > 5 else "")
        value = float(self.combine(groups, list(as_floats(overall))))
        if np.isnan(value):
            if len(names) < 2:
                reason = f"only one group: {names[0]}" if names else "no groups"
            elif coverage[0] < 2:
                reason = f"fewer than two groups with a value: {listed}"
            else:
                reason = "it divides by an overall value that is 0 or undefined"
            return Gap(reason=reason, coverage=coverage)
        worst = names[int(np.flatnonzero(groups[0] == value)[0])] if self.names_group else None
        return Gap(value, notes=(f"left out: {listed}",) if listed else (), coverage=coverage, group=worst)


def rates(disparity: Disparity, predictions: Predictions) -> tuple[list[Floats], str | Reduce]:
    """Give the row scores a disparity is made of, and how group means of them become the disparity.

    Scores are (n,) per metric, NaN where a row does not enter. The reduction is `max` or `mean` (of the
    metrics' gaps), `worst` (group), or a function of group means and sizes, both (draws, metrics, groups),
    giving (draws,); the overall value in an equity-scaled metric stays that of these predictions, as it does
    when groups are permuted. Raises Undefined where the metrics do, FairbenchError when one is no mean.
    """
    if not disparity.row_scored:
        raise FairbenchError(f"disparity `{disparity.name}` is not made of means over rows")
    scores = [metric.scores(predictions) for metric in disparity.metrics]
    for metric, score in zip(disparity.metrics, scores, strict=True):
        if np.isnan(score).all():
            raise Undefined(f"{metric.undefined} among {rows_of(len(predictions))}")
    if disparity.combine in REDUCTIONS:
        return scores, REDUCTIONS[disparity.combine]
    overall = [np.asarray(np.nanmean(score)) for score in scores]
    return scores, lambda means, sizes: disparity.combine(list(np.moveaxis(means, 1, 0)), overall)


def as_floats(values: Sequence[Estimate]) -> Floats:
    """Turn values into an array, (len,), NaN where undefined."""
    return np.array([np.nan if value.value is None else value.value for value in values])


def _among_two(groups: Floats, number: Floats) -> Floats:
    """Keep the number only where at least two groups have a value."""
    return np.where(np.isfinite(groups).sum(axis=-1) >= 2, number, np.nan)


def _deviations(groups: Floats, overall: Floats) -> Floats:
    return _among_two(groups, np.nansum(np.abs(groups - np.asarray(overall)[..., None]), axis=-1))


def _mean(groups: Floats) -> Floats:
    """Average the groups without their sizes; a group without a value does not count."""
    count = np.isfinite(groups).sum(axis=-1)
    return _among_two(groups, np.nansum(groups, axis=-1) / np.maximum(count, 1))


def gap(groups: Sequence[Floats], overall: Sequence[Floats]) -> Floats:
    """Take the largest minus the smallest group value."""
    return max_minus_min(groups[0])


def gap_max(groups: Sequence[Floats], overall: Sequence[Floats]) -> Floats:
    """Take the largest of the metrics' gaps; undefined when any is, for the largest could be that one."""
    return reduce(np.maximum, map(max_minus_min, groups))


def gap_mean(groups: Sequence[Floats], overall: Sequence[Floats]) -> Floats:
    """Average the metrics' gaps; undefined when any is."""
    return reduce(np.add, map(max_minus_min, groups)) / len(groups)


def lowest(groups: Sequence[Floats], overall: Sequence[Floats]) -> Floats:
    """Take the smallest group value."""
    return _among_two(groups[0], np.fmin.reduce(groups[0], axis=-1, initial=np.inf))


def highest(groups: Sequence[Floats], overall: Sequence[Floats]) -> Floats:
    """Take the largest group value."""
    return _among_two(groups[0], np.fmax.reduce(groups[0], axis=-1, initial=-np.inf))


# What evidence calls these rules, whose intervals and power it knows.
REDUCTIONS: dict[Combine, str] = {gap: "max", gap_max: "max", gap_mean: "mean", lowest: "worst"}


@dataclass(frozen=True)
class Equity:
    """One reading of ES-M = M / (1 + ΔM); they share a name in the literature and nothing else."""

    combine: Combine
    formula: str
    source: str


EQUITY = {
    "fairllava": Equity(
        lambda groups, overall: overall[0] / (1 + 100 * max_minus_min(groups[0])),
        "M / (1 + ΔM): M over all rows, ΔM = largest − smallest group in percentage points",
        "FairLLaVA, arXiv 2603.26008, as its HAM10000 evaluation computes it",
    ),
    "fairllava-table": Equity(
        lambda groups, overall: _mean(groups[0]) / (1 + 100 * max_minus_min(groups[0])),
        "M / (1 + ΔM): M the unweighted mean of groups, ΔM = largest − smallest group in percentage points",
        "FairLLaVA, arXiv 2603.26008, as its report tables compute it",
    ),
    "fairclip": Equity(
        lambda groups, overall: overall[0] / (1 + _deviations(groups[0], overall[0])),
        "M / (1 + Σ|M_g − M|): M over all rows, deviations summed over groups as fractions",
        "FairCLIP, arXiv 2403.19949; Harvard-GF, arXiv 2306.09264",
    ),
}

# Gaps and worst groups that the literature calls by a name of their own.
KNOWN_AS = {
    "accuracy_gap": ("max_acc_gap", "MaxAccGap", "arXiv 2512.03477, eq. 1"),
    "selection_rate_gap": ("dp_difference", "Demographic parity difference", SELECTION_RATE.source),
    "worst_accuracy": ("worst_group", "Worst-group accuracy", "Sagawa et al. 2020 (arXiv 1911.08731)"),
}

EQ_ODDS = (
    Disparity(
        name="eq_odds_max",
        title="EqOdds(max)",
        formula="the larger of the TPR gap and the FPR gap; undefined when either is",
        source="Agarwal et al. 2018 (arXiv 1803.02453), as fairlearn computes it",
        metrics=(TPR, FPR),
        combine=gap_max,
    ),
    Disparity(
        name="eq_odds_mean",
        title="EqOdds(mean)",
        formula="(TPR gap + FPR gap) / 2; undefined when either is",
        source="fairlearn's equalized_odds_difference(agg='mean'); absolute, so gaps never cancel",
        metrics=(TPR, FPR),
        combine=gap_mean,
    ),
)


def disparities(
    metrics: Iterable[Metric] = (), classes: Sequence[str] = ("0", "1"), equity: str = "fairllava"
) -> dict[str, Disparity]:
    """List every disparity of the four rates and of `metrics`, by name, in the order they are printed.

    `equity` chooses what ES-M means, see EQUITY. Raises FairbenchError for an unknown one.
    """
    if equity not in EQUITY:
        raise suggest("equity-scaled preset", equity, EQUITY)
    table = [rule for metric in registry(metrics).values() for rule in _derived(metric, equity)]
    table += [*EQ_ODDS, _eq_odds_one_vs_rest(classes)] if len(classes) > 2 else EQ_ODDS
    return {rule.name: rule for rule in table}


def _derived(metric: Metric, equity: str) -> list[Disparity]:
    """Derive what every metric has: a gap, a worst group if one value is better, ES-M if 1 is the best."""
    derived = [_rule(f"{metric.name}_gap", f"{metric.title} gap", "largest − smallest group", metric, gap)]
    if metric.higher_is_better is not None:
        worst, which = (lowest, "smallest") if metric.higher_is_better else (highest, "largest")
        derived.append(
            _rule(f"worst_{metric.name}", f"Worst-group {metric.title}", f"{which} group", metric, worst)
        )
    if metric.higher_is_better and (metric.low, metric.high) == (0, 1):
        reading = EQUITY[equity]
        derived.append(
            Disparity(
                name=f"es_{metric.name}",
                title=f"ES-{metric.title} ({equity})",
                formula=reading.formula,
                source=reading.source,
                metrics=(metric,),
                combine=reading.combine,
                higher_is_better=True,
                preset=equity,
            )
        )
    return derived


def _rule(name: str, title: str, formula: str, metric: Metric, combine: Combine) -> Disparity:
    name, title, source = KNOWN_AS.get(name, (name, title, metric.source))
    return Disparity(
        name=name,
        title=title,
        formula=f"{formula} by {metric.title}",
        source=source,
        metrics=(metric,),
        combine=combine,
        higher_is_better=combine is lowest,
        names_group=combine is not gap,
    )


def _eq_odds_one_vs_rest(classes: Sequence[str]) -> Disparity:
    """Compare every class with the rest: the binary definition, over all classes."""
    sides = [
        Metric(
            name=f"{rate.name}_{name}",
            title=f"{rate.title} of {name}",
            formula=rate.formula,
            source=rate.source,
            each=answered(index, of_class=rate is TPR),
            needs=("classes",),
            undefined=f"no {name}" if rate is TPR else f"nothing but {name}",
        )
        for index, name in enumerate(classes)
        for rate in (TPR, FPR)
    ]
    return Disparity(
        name="eq_odds_ovr_max",
        title="EqOdds(max, one-vs-rest)",
        formula="the largest TPR or FPR gap of any class against the rest; undefined when any is",
        source="the binary definition applied to each class in turn",
        metrics=tuple(sides),
        combine=gap_max,
    )
