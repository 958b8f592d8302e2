"""A row of a leaderboard: the records and answers of one method, what they measure, and where that stands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import numpy as np

from fairbench.jobs.job import READ, Record, Role, Stage
from fairbench.leaderboard.answers import NO_PRIORS, Answers, SeedPriors
from fairbench.leaderboard.board import Improvement, ProbeResult, Row
from fairbench.leaderboard.remembered import remembered
from fairbench.predictions.groups import Groups
from fairbench.statistics.moments import group_moments
from fairbench.statistics.permutation import designs
from fairbench.statistics.power import detectable_improvement
from fairbench.statistics.ranking import holm
from fairbench.statistics.resampling import tabulate
from fairbench.statistics.results import Estimate, Gap
from fairbench.statistics.variance import VarianceParts, between_group_variance, variance_parts


@dataclass(frozen=True)
class Entry:
    """The records of one row: one per seed and fold, by seed."""

    label: str
    records: tuple[Record, ...]

    @property
    def first(self) -> Record:
        """Return the record of the first seed, for what all seeds share."""
        return self.records[0]

    @property
    def role(self) -> Role:
        """Whether the row is a contender, the baseline that all are compared with, or a control."""
        return self.first.role

    @property
    def recipe(self) -> dict[str, Any]:
        """Return how its jobs were trained, apart from the method."""
        return recipe(self.first)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Return the seeds of its jobs, each once."""
        return tuple(dict.fromkeys(record.job.seed for record in self.records))


@dataclass(frozen=True)
class Contender(Entry):
    """The records of one row and the answers they left."""

    answers: Answers


def recipe(record: Record) -> dict[str, Any]:
    """Return how a job was trained, apart from the method: equal recipes may stand in one row."""
    job = record.job
    stages = [plain_stage(stage) for stage in job.stages]
    return {"stages": stages, "batch_size": job.batch_size, "precision": job.precision, "select": job.select}


def plain_stage(stage: Stage) -> dict[str, Any]:
    """Write a stage as JSON would hold it; steps that it need not last are not said."""
    said = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(stage).items()}
    return {key: value for key, value in said.items() if key != "min_steps" or value}


def provenance(record: Record) -> dict[str, str]:
    """Return what made a record: the providers of its parts, and fairbench itself."""
    job = record.job
    parts = {"dataset": job.dataset, "backbone": job.backbone, "method": job.method}
    return {
        **{kind: choice.version for kind, choice in parts.items()},
        "weights": job.backbone.fingerprint,
        "fairbench": record.versions.get("fairbench", ""),
    }


@dataclass(frozen=True)
class Measured:
    """What a row's answers give on their own: all that no other row is needed for."""

    score: Estimate
    auroc: Estimate
    gap: Gap
    standardised_gap: Gap
    eq_odds_max: Gap
    equity_scaled: Gap
    worst_group: Gap
    groups: tuple[Estimate, ...]
    between_groups: Estimate
    gap_variance: VarianceParts | None


@remembered(Measured)
def measure(
    answers: Answers,
    groups: Groups,
    score: SeedPriors = NO_PRIORS,
    standardised: SeedPriors = NO_PRIORS,
    odds: SeedPriors = NO_PRIORS,
) -> Measured:
    """Measure one row's answers; the priors are of the rows that it stands among, for each disparity."""
    gap = answers.gap(groups, score)
    return Measured(
        score=answers.score(groups),
        auroc=answers.auroc(groups),
        gap=gap,
        standardised_gap=answers.standardised_gap(groups, standardised),
        eq_odds_max=answers.eq_odds_max(groups, odds),
        equity_scaled=answers.equity_scaled(groups, gap, score),
        worst_group=answers.worst_group(groups),
        groups=answers.group_scores(groups),
        between_groups=between_group_variance([*answers.scores], groups.codes, groups.cluster),
        gap_variance=variance_parts([answers.scores], groups.codes, groups.cluster),
    )


def identity(contender: Contender) -> dict[str, Any]:
    """Say what a row is: its method, settings, jobs and what made them, as fields of a Row."""
    job = contender.first.job
    return {
        "label": contender.label,
        "method": job.method.name,
        "role": contender.role,
        "stands_for": contender.first.stands_for,
        "settings": job.method.settings,
        "recipe": contender.recipe,
        "attributes": job.attributes,
        "seeds": contender.answers.seeds,
        "keys": tuple(record.job.key for record in contender.records),
        "versions": provenance(contender.first),
    }


def cost(records: Sequence[Record]) -> dict[str, Any]:
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


def probes(records: Sequence[Record]) -> Iterable[ProbeResult]:
    """Average what the probes of all seeds read; where a seed has none, or of another layer, there is nothing."""
    by_seed: list[Mapping[str, Any]] = [record.readable or {} for record in records]
    for attribute in by_seed[0]:
        entries = [entry[attribute] for entry in by_seed if attribute in entry]
        where = {f"{entry['layer']} layer, {entry['tokens']} tokens" for entry in entries}
        if len(entries) < len(records) or len(where) > 1:
            continue
        reasons = [entry["reason"] for entry in entries if "reason" in entry]
        if reasons:
            yield ProbeResult(attribute, where.pop(), Estimate(reason=reasons[0]))
            continue
        mean = {key: float(np.mean([entry[key] for entry in entries])) for key in READ}
        value = Estimate(mean["value"], mean["low"], mean["high"])
        yield ProbeResult(attribute, where.pop(), value, mean["auroc"], mean["chance"], mean["p"])


def improvement(base: Answers, others: Sequence[Answers], groups: Groups) -> Improvement | None:
    """Smallest cut of the baseline's gap that is found with 80 % power, one trained model of each.

    It follows from what was measured: the baseline's score and gap, mean of its seeds, and the
    median over methods of the share of rows on which method and baseline score alike. None
    where no method shares a seed with the baseline.
    """
    agreements = [shared for other in others if (shared := agreement(base, other)) is not None]
    if not agreements:
        return None
    shared, gap = float(np.median(agreements)), base.plain_gap(groups)
    table = tabulate([base.scores[0]], groups.codes, groups.cluster, len(groups.names))
    score = float(base.scores[:, groups.codes >= 0].mean()) if (groups.codes >= 0).any() else None
    if gap is None or score is None:
        return Improvement(Estimate(reason="fewer than two groups have rows"), score, None, shared)
    cut = detectable_improvement(designs(group_moments(table))[0].sizes, score, shared, gap)
    return Improvement(cut, score, gap, shared)


def agreement(a: Answers, b: Answers) -> float | None:
    """Share of rows on which both are right or both wrong, mean of the seeds both have; None without one."""
    common = [seed for seed in a.seeds if seed in b.seeds]
    return float((a.only(common).scores == b.only(common).scores).mean()) if common else None


Judged = TypeVar("Judged", Measured, Row)


def with_adjusted(rows: Mapping[str, Judged]) -> dict[str, Judged]:
    """Adjust the p-values of the gaps for their number: MaxAccGap and EqOdds(max) of all rows are one family.

    The equity-scaled score is tested by the gap, so it is no test more.
    """
    p = holm([one.gap.p for one in rows.values()] + [one.eq_odds_max.p for one in rows.values()])
    return {
        label: disparities_adjusted(one, p[place], p[len(rows) + place])
        for place, (label, one) in enumerate(rows.items())
    }


def disparities_adjusted(row: Judged, gap: float | None, odds: float | None) -> Judged:
    """Write adjusted p-values beside a row's gaps; None where it is not tested."""
    return replace(
        row,
        gap=replace(row.gap, adjusted=gap),
        eq_odds_max=replace(row.eq_odds_max, adjusted=odds),
        equity_scaled=replace(row.equity_scaled, adjusted=gap),
    )
