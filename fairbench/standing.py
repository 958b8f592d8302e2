"""Where every method of one table stands: its measures, its changes against the baseline, its rank and flags."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from fairbench.answers import Answers, Groups, constant, contrast, estimate
from fairbench.comparison import Comparison, Difference
from fairbench.intervals import Floats
from fairbench.job import Record, Stage
from fairbench.ranking import Rank, holm, opposite, rank
from fairbench.sources import dispersion, parts
from fairbench.table import Change, Estimate, Flag, Row, SideEffect

ALPHA = 0.05
SCREEN = 300  # draws that tell whether a comparison deserves more
NOT_LEARNED = "has not learned"
PAIRED = ("max_acc_gap", "accuracy", "worst_group", "eq_odds_max")

# What a flag means, in one sentence. The keys are printed in the table, the sentences under it.
LEGEND = {
    NOT_LEARNED: "Its answers are not more accurate than always giving the commonest answer, or than the"
    " same training on blank images, beyond noise; its gap says nothing about fairness.",
    "levelling down": "Its gap is smaller than the baseline's because the best-off group lost more than the"
    " worst-off group gained.",
    "worst group worse": "Its worst group is less accurate than the baseline's worst group, beyond noise.",
    "stale": "It was made with another version of fairbench or of a plugin than the newest rows; run it again"
    " before comparing it.",
    "other recipe": "It was trained with other stages, batch size, precision or selection than the baseline, so"
    " a difference need not come from the method.",
    "† own stages": "The method changed the stages of training that the benchmark gives to all.",
    "‡ knows groups": "The method may know which group a test patient is in when it adjusts its answers.",
    "missing seeds": "Other rows have seeds that this row lacks; comparisons use only the seeds both have.",
    "partial": "A group had no rows to compute a rate from and is left out of the gap.",
}


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
        return bool(self.first.facts.get("baseline"))

    @property
    def control(self) -> str | None:
        """What this row guards against, if it is no contender."""
        return self.first.facts.get("control") or None


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
    worst, worst_name = answers.worst_group(groups)
    accuracy_gap, odds = answers.max_acc_gap(groups), answers.eq_odds_max(groups)
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
        accuracy=answers.accuracy(groups),
        auroc=answers.auroc(groups),
        max_acc_gap=accuracy_gap,
        eq_odds_max=odds,
        es_accuracy=answers.es_accuracy(groups),
        worst_group=worst,
        worst_name=worst_name,
        groups=tuple(estimate(rate) for rate in answers.group_accuracy(groups)),
        between_groups=dispersion(answers, groups),
        flags=tuple(_own_flags(contender, (accuracy_gap.coverage, odds.coverage))),
        gap_variance=parts(answers, groups),
        **_cost(contender.records),
    )


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


def _own_flags(contender: Contender, coverages: Iterable[tuple[int, int]]) -> Iterable[Flag]:
    facts, job = contender.first.facts, contender.first.job
    if not contender.control and "stages" in facts and facts["stages"] != [_plain(stage) for stage in job.stages]:
        yield Flag("† own stages")
    if facts.get("adjusts with group"):
        yield Flag("‡ knows groups")
    for used, present in coverages:
        if 0 < used < present:
            yield Flag("partial", f"a gap over {used} of {present} groups")
            break


class Standings:
    """The comparisons of one table, each made once and kept."""

    def __init__(self, contenders: Sequence[Contender], groups: Groups) -> None:
        self.contenders = {contender.label: contender for contender in contenders}
        self.groups = groups
        self.baseline = next((c for c in contenders if c.baseline), None)
        self._made: dict[tuple[str, str, bool], Comparison] = {}

    def against(self, label: str, other: str, odds: bool = False, repeats: int = 10_000) -> Comparison:
        """Compare one contender minus another."""
        key = (label, other, odds)
        if key not in self._made:
            a, b = self.contenders[label].answers, self.contenders[other].answers
            self._made[key] = contrast(a, b, self.groups, odds, repeats)
        return self._made[key]

    def changes(self) -> dict[str, dict[str, Change]]:
        """Every contender minus the baseline, with Holm's p over the contenders, per measure."""
        if self.baseline is None:
            return {}
        base = self.baseline
        others = [label for label in self.contenders if label != base.label]
        table: dict[str, dict[str, Difference]] = {}
        for label in others:
            whole = self.against(label, base.label)
            table[label] = {
                "max_acc_gap": whole.gap,
                "accuracy": whole.accuracy,
                "worst_group": whole.worst_group,
            }
            if base.answers.odds:
                table[label]["eq_odds_max"] = self.against(label, base.label, odds=True).gap
        measures = [measure for measure in PAIRED if any(measure in row for row in table.values())]
        found: dict[str, dict[str, Change]] = {label: {} for label in others}
        for measure in measures:
            adjusted = holm([table[label][measure].p for label in others])
            for label, p in zip(others, adjusted, strict=True):
                found[label][measure] = change(table[label][measure], p)
        return found

    def ranks(self) -> dict[str, Rank]:
        """Ranks by MaxAccGap: one method stands below another only if their paired comparison says so."""
        labels = [*self.contenders]
        number = len(labels) * (len(labels) - 1) // 2
        repeats = max(2_000, int(2 * number / ALPHA))  # so that Holm over all pairs can still find something
        pairs = {(a, b): self._pair(a, b, repeats) for a, b in combinations(labels, 2)}
        return {entry.name: entry for entry in rank(labels, pairs)}

    def _pair(self, a: str, b: str, repeats: int) -> Difference:
        """Compare two gaps, with few draws where these already show no difference (Besag and Clifford 1991)."""
        base = self.baseline.label if self.baseline else None
        if base == b:
            return self.against(a, b).gap
        if base == a:
            return opposite(self.against(b, a).gap)
        left, right = self.contenders[a].answers, self.contenders[b].answers
        quick = contrast(left, right, self.groups, repeats=SCREEN).gap
        if quick.p is None or quick.p > 4 * ALPHA:
            return quick
        return contrast(left, right, self.groups, repeats=repeats).gap


def change(found: Difference, adjusted: float | None) -> Change:
    """Write one difference as the table holds it."""
    return Change(found.difference, found.low, found.high, found.p, adjusted, found.reason)


def stand(
    contenders: Sequence[Contender], controls: Sequence[Contender], groups: Groups, seeds: Sequence[int]
) -> tuple[Row, ...]:
    """Measure all contenders of a table, compare them, and order them by rank, ties by name."""
    standings = Standings(contenders, groups)
    changes, ranks = standings.changes(), standings.ranks()
    rows = {c.label: measured(c, groups) for c in contenders}
    base = rows[standings.baseline.label] if standings.baseline else None
    done = []
    for contender in contenders:
        row = rows[contender.label]
        moved = changes.get(row.label, {})
        flags = [
            *not_learned(contender, controls, groups),
            *_against_baseline(row, base, moved),
            *missing(row, seeds),
            *row.flags,
        ]
        done.append(replace(row, rank=ranks[row.label].text, changes=moved, flags=tuple(flags)))
    return tuple(
        sorted(done, key=lambda row: (ranks[row.label].first, ranks[row.label].last, not row.baseline, row.label))
    )


def missing(row: Row, seeds: Sequence[int]) -> Iterable[Flag]:
    """Flag the seeds that others of the table have and this row lacks."""
    lacking = [seed for seed in seeds if seed not in row.seeds]
    if lacking:
        yield Flag("missing seeds", ", ".join(map(str, lacking)))


def not_learned(contender: Contender, controls: Sequence[Contender], groups: Groups) -> Iterable[Flag]:
    """Flag a row whose answers do not beat the constant answer, or a control's, beyond noise.

    A control that shares no seed with the row cannot be compared; `missing seeds` says so.
    """
    best = constant(contender.answers.predictions[0])
    rivals = {"always giving the commonest answer": best}
    rivals |= {f"the control {c.label}": c.answers for c in controls if not c.answers.constant}
    unbeaten = []
    for name, rival in rivals.items():
        found = contrast(contender.answers, rival, groups, repeats=2_000).accuracy
        if found.difference is None or found.p is None:
            continue
        if found.difference <= 0 or found.p > ALPHA:
            unbeaten.append(name)
    if unbeaten:
        auroc = contender.answers.auroc(groups)
        ranks_well = auroc.low is not None and auroc.low > 0.5
        note = "; its scores do rank patients better than chance" if ranks_well else ""
        yield Flag(NOT_LEARNED, f"no more accurate than {' and '.join(unbeaten)}{note}")


def _against_baseline(row: Row, base: Row | None, moved: Mapping[str, Change]) -> Iterable[Flag]:
    if base is None or row.label == base.label:
        return
    gap, worst = moved["max_acc_gap"], moved["worst_group"]
    if gap.difference is not None and gap.difference < 0:
        mine, theirs = _known(row.groups), _known(base.groups)
        best_lost, worst_gained = theirs.max() - mine.max(), mine.min() - theirs.min()
        if best_lost > max(0.0, worst_gained):
            sure = gap.adjusted is not None and gap.adjusted <= ALPHA
            yield Flag("levelling down", "" if sure else "the change is within noise")
    if worst.adjusted is not None and worst.adjusted <= ALPHA and (worst.difference or 0) < 0:
        yield Flag("worst group worse")
    if row.recipe != base.recipe:
        unlike = [key for key in row.recipe if row.recipe[key] != base.recipe.get(key)]
        yield Flag("other recipe", ", ".join(key.replace("_", " ") for key in unlike))


def _known(groups: Sequence[Estimate]) -> Floats:
    return np.array([group.value for group in groups if group.value is not None])


def side_effects(contenders: Sequence[Contender], policy: str) -> tuple[SideEffect, ...]:
    """What each method did to the gaps of attributes it was not trained for, against the baseline.

    Holm's p is over the methods, per attribute.
    """
    base = next((c for c in contenders if c.baseline), None)
    trained = [c for c in contenders if c.first.job.attributes]
    if not trained:
        return ()
    found: list[SideEffect] = []
    for attribute in trained[0].answers.predictions[0].attributes:
        touched = [c for c in trained if attribute not in c.first.job.attributes]
        if not touched:
            continue
        groups = Groups.of(touched[0].answers.predictions[0], attribute, policy)
        gaps = [_mean_gap(c.answers, groups) for c in touched]
        nothing = Difference(None, None, None, None, reason="no baseline in this table")
        changes = [
            contrast(c.answers, base.answers, groups, repeats=2_000).gap if base else nothing for c in touched
        ]
        adjusted = holm([entry.p for entry in changes])
        found += [
            SideEffect(c.label, attribute, gap, change(entry, p))
            for c, gap, entry, p in zip(touched, gaps, changes, adjusted, strict=True)
        ]
    return tuple(sorted(found, key=lambda entry: [c.label for c in trained].index(entry.label)))


def _mean_gap(answers: Answers, groups: Groups) -> float | None:
    values = answers.by_group(groups)
    if np.isfinite(values[0]).sum() < 2:
        return None
    return float((np.nanmax(values, axis=1) - np.nanmin(values, axis=1)).mean())
