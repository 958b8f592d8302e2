"""A row of a leaderboard before it is compared: the records and answers of one method, and what they measure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fairbench.errors import FairbenchError
from fairbench.jobs.job import Record, Stage
from fairbench.leaderboard.board import Flag, Improvement, Measure, ProbeResult, Row
from fairbench.leaderboard.seeds import Answers
from fairbench.metrics.metric import ACCURACY, Metric, Undefined
from fairbench.predictions.groups import Groups
from fairbench.predictions.predictions import Predictions
from fairbench.settings import suggest
from fairbench.statistics.moments import group_moments
from fairbench.statistics.permutation import design
from fairbench.statistics.power import detectable_improvement
from fairbench.statistics.resampling import tabulate
from fairbench.statistics.results import Estimate
from fairbench.statistics.variance import VarianceParts, between_group_variance, variance_parts

NUMBERS = ("value", "low", "high", "auroc", "chance", "p")


@dataclass(frozen=True)
class Contender:
    """The records of one row (one per seed, by seed) and the answers they left."""

    label: str
    records: tuple[Record, ...]
    answers: Answers

    @property
    def first(self) -> Record:
        """Return the record of the first seed, for what all seeds share."""
        return self.records[0]

    @property
    def baseline(self) -> bool:
        """Whether everything else is measured against this."""
        return self.first.role == "baseline"

    @property
    def control(self) -> str | None:
        """What this row guards against, if it is no contender."""
        return self.first.stands_for if self.first.role == "control" else None


def recipe(record: Record) -> dict[str, Any]:
    """Return how a job was trained, apart from the method: equal recipes may stand in one row."""
    job = record.job
    stages = [_plain(stage) for stage in job.stages]
    return {"stages": stages, "batch_size": job.batch_size, "precision": job.precision, "select": job.select}


def _plain(stage: Stage) -> dict[str, Any]:
    """Write a stage as JSON would hold it, so that it can be compared with one read back."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(stage).items()}


def provenance(record: Record) -> dict[str, str]:
    """Return what made a record: the providers of its parts, and fairbench itself."""
    job = record.job
    parts = {"dataset": job.dataset, "backbone": job.backbone, "method": job.method}
    return {
        **{kind: choice.version for kind, choice in parts.items()},
        "weights": job.backbone.fingerprint,
        "fairbench": record.versions.get("fairbench", ""),
    }


def measured(contender: Contender, groups: Groups) -> Row:
    """Measure one contender on its own: everything but rank, changes and the flags that need neighbours."""
    answers, first = contender.answers, contender.first
    gap, odds = answers.gap(groups), answers.eq_odds_max(groups)
    return Row(
        label=contender.label,
        method=first.job.method.name,
        settings=first.job.method.settings,
        recipe=recipe(first),
        attributes=first.job.attributes,
        seeds=answers.seeds,
        keys=tuple(record.job.key for record in contender.records),
        versions=provenance(first),
        baseline=contender.baseline,
        control=contender.control,
        score=answers.score(groups),
        auroc=answers.auroc(groups),
        gap=gap,
        eq_odds_max=odds,
        equity_scaled=answers.equity_scaled(groups),
        worst_group=answers.worst_group(groups),
        groups=answers.group_scores(groups),
        between_groups=between_groups(answers, groups),
        flags=tuple(own_flags(contender, (gap.coverage or (0, 0), odds.coverage or (0, 0)))),
        gap_variance=parts(answers, groups),
        probes=tuple(_probes(contender.records)),
        **_cost(contender.records),
    )


def _probes(records: Sequence[Record]) -> Iterable[ProbeResult]:
    """Average what the probes of all seeds found; where a seed has none, or of another layer, there is nothing."""
    found: list[Mapping[str, Any]] = [record.readable or {} for record in records]
    for attribute in found[0]:
        entries = [entry[attribute] for entry in found if attribute in entry]
        where = {f"{entry['layer']} layer, {entry['tokens']} tokens" for entry in entries}
        if len(entries) < len(records) or len(where) > 1:
            continue
        reasons = [entry["reason"] for entry in entries if "reason" in entry]
        if reasons:
            yield ProbeResult(attribute, where.pop(), Estimate(reason=reasons[0]))
            continue
        mean = {key: float(np.mean([entry[key] for entry in entries])) for key in NUMBERS}
        value = Estimate(mean["value"], mean["low"], mean["high"])
        yield ProbeResult(attribute, where.pop(), value, mean["auroc"], mean["chance"], mean["p"])


def _cost(records: Sequence[Record]) -> dict[str, Any]:
    """Average what a training cost over its seeds; memory is the largest."""
    first = records[0]
    times = [r.seconds["train"] for r in records if "train" in r.seconds]
    peaks = [r.peak_memory for r in records if r.peak_memory]
    total = first.total_parameters
    return {
        "trainable": first.trainable_parameters / total if total else None,
        "train_seconds": float(np.mean(times)) if times else None,
        "peak_memory": max(peaks, default=None),
    }


def own_flags(contender: Contender, coverages: Iterable[tuple[int, int]]) -> Iterable[Flag]:
    """Flag what a row shows on its own: other stages, known groups, groups without rows."""
    record = contender.first
    if record.role != "control" and record.stages not in (None, record.job.stages):
        yield Flag("† own stages")
    if record.adjusts_with_group:
        yield Flag("‡ knows groups")
    if record.spends_validation:
        yield Flag("§ validation rows")
    for used, present in coverages:
        if 0 < used < present:
            yield Flag("partial", f"a gap over {used} of {present} groups")
            break


def judge(name: str, metrics: Mapping[str, Metric], predictions: Predictions) -> Metric:
    """Return the metric that a table is judged by; raises FairbenchError when it cannot judge these rows."""
    if name not in metrics:
        raise suggest("metric", name, metrics)
    metric = metrics[name]
    if not _scores_rows(metric):
        raise FairbenchError(
            f"a table cannot be judged by {name}",
            "it takes a metric that scores every row from 0 to 1, more being better: "
            + ", ".join(other.name for other in metrics.values() if _scores_rows(other)),
        )
    try:
        metric.scores(predictions)
    except Undefined as reason:
        raise FairbenchError(f"a table cannot be judged by {name}: {reason}") from reason
    return metric


def _scores_rows(metric: Metric) -> bool:
    return bool(metric.each is not None and metric.higher_is_better and (metric.low, metric.high) == (0.0, 1.0))


def others(
    chosen: Metric, metrics: Mapping[str, Metric], predictions: Predictions
) -> tuple[list[Metric], list[str]]:
    """Find what else to measure where answers are written, and say what could not be."""
    if "text" not in predictions.table:
        return [], []
    able, unable = [], []
    for metric in metrics.values():
        whole = _scores_rows(metric) and (metric is ACCURACY or "text" in metric.needs)
        if metric is chosen or not whole or not metric.listed_for(predictions):
            continue
        try:
            if np.isfinite(metric.scores(predictions)).all():
                able.append(metric)
        except Undefined as reason:
            unable.append(f"{metric.title} is not measured: {reason}.")
    return able, unable


def called(metric: Metric) -> Measure:
    """Say how headings call a metric and its gap."""
    if metric is ACCURACY:
        return Measure()
    return Measure(metric.name, metric.title, f"{metric.title} gap", f"{metric.formula} ({metric.source})")


def between_groups(answers: Answers, groups: Groups) -> Estimate:
    """Bias-corrected variance of the measure between groups, in squared fractions, mean of the seeds."""
    return between_group_variance([*answers.scores], groups.codes, groups.cluster)


def parts(answers: Answers, groups: Groups) -> VarianceParts | None:
    """Split the variance of the gap between training again and other test rows; None for no gap."""
    return variance_parts([answers.scores], groups.codes, groups.cluster)


def improvement(base: Answers, others: Sequence[Answers], groups: Groups) -> Improvement | None:
    """Smallest cut of the baseline's gap that is found with 80 % power, one trained model of each.

    It follows from what was measured: the baseline's score and gap, mean of its seeds, and the
    median over methods of the share of rows on which method and baseline score alike. None
    where no method shares a seed with the baseline.
    """
    agreements = [shared for other in others if (shared := agreement(base, other)) is not None]
    if not agreements:
        return None
    shared, gap = float(np.median(agreements)), base.gap(groups)
    table = tabulate([base.scores[0]], groups.codes, groups.cluster, len(groups.names))
    score = float(base.scores[:, groups.codes >= 0].mean()) if (groups.codes >= 0).any() else None
    if gap.value is None or score is None:
        return Improvement(Estimate(reason=gap.reason), score, None, shared)
    cut = detectable_improvement(design(group_moments(table))[0], score, shared, gap.value)
    return Improvement(cut, score, gap.value, shared)


def agreement(a: Answers, b: Answers) -> float | None:
    """Share of rows on which both are right or both wrong, mean of the seeds both have; None without one."""
    common = [seed for seed in a.seeds if seed in b.seeds]
    return float((a.only(common).scores == b.only(common).scores).mean()) if common else None
