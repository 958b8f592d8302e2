"""Where every method of one table stands: its changes against the baseline, its rank, its side effects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from fairbench.leaderboard.board import MeasuredRow, Row, SideEffect
from fairbench.leaderboard.flags import against_baseline, missing, not_learned
from fairbench.leaderboard.row import Contender, measured
from fairbench.leaderboard.seeds import Answers, contrast
from fairbench.metrics.metric import Metric
from fairbench.predictions.groups import Groups
from fairbench.statistics.paired import Comparison
from fairbench.statistics.ranking import Rank, holm, opposite, rank
from fairbench.statistics.results import ALPHA, Difference

SCREEN = 300  # draws that tell whether a comparison deserves more
PAIRED = ("gap", "score", "worst_group", "eq_odds_max")


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

    def changes(self) -> dict[str, dict[str, Difference]]:
        """Every contender minus the baseline, with Holm's p over the contenders, per measure."""
        if self.baseline is None:
            return {}
        base = self.baseline
        others = [label for label in self.contenders if label != base.label]
        table: dict[str, dict[str, Difference]] = {}
        for label in others:
            whole = self.against(label, base.label)
            table[label] = {
                "gap": whole.gap,
                "score": whole.accuracy,
                "worst_group": whole.worst_group,
            }
            if base.answers.odds:
                table[label]["eq_odds_max"] = self.against(label, base.label, odds=True).gap
        measures = [measure for measure in PAIRED if any(measure in row for row in table.values())]
        found: dict[str, dict[str, Difference]] = {label: {} for label in others}
        for measure in measures:
            adjusted = holm([table[label][measure].p for label in others])
            for label, p in zip(others, adjusted, strict=True):
                found[label][measure] = replace(table[label][measure], adjusted=p)
        return found

    def ranks(self) -> dict[str, Rank]:
        """Ranks by the gap: one method stands below another only if their paired comparison says so."""
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
            *against_baseline(row, base, moved),
            *missing(row, seeds),
            *row.flags,
        ]
        done.append(replace(row, rank=ranks[row.label].text, changes=moved, flags=tuple(flags)))
    return tuple(
        sorted(done, key=lambda row: (ranks[row.label].first, ranks[row.label].last, not row.baseline, row.label))
    )


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
        groups = Groups.of(touched[0].answers.predictions[0].table, attribute, policy)
        gaps = [_mean_gap(c.answers, groups) for c in touched]
        nothing = Difference(reason="no baseline in this table")
        changes = [
            contrast(c.answers, base.answers, groups, repeats=2_000).gap if base else nothing for c in touched
        ]
        adjusted = holm([entry.p for entry in changes])
        found += [
            SideEffect(c.label, attribute, gap, replace(entry, adjusted=p))
            for c, gap, entry, p in zip(touched, gaps, changes, adjusted, strict=True)
        ]
    return tuple(sorted(found, key=lambda entry: [c.label for c in trained].index(entry.label)))


def _mean_gap(answers: Answers, groups: Groups) -> float | None:
    values = answers.by_group(groups)
    if np.isfinite(values[0]).sum() < 2:
        return None
    return float((np.nanmax(values, axis=1) - np.nanmin(values, axis=1)).mean())


def further(contenders: Sequence[Contender], groups: Groups, metric: Metric) -> tuple[MeasuredRow, ...]:
    """Measure all rows by another metric that scores rows; Holm's p is over them."""
    judged = [(c.label, c.baseline, c.answers.by(metric)) for c in contenders]
    base = next((answers for _, baseline, answers in judged if baseline), None)
    changes = [
        contrast(answers, base, groups, repeats=2_000).gap if base and not baseline else None
        for _, baseline, answers in judged
    ]
    adjusted = iter(holm([entry.p for entry in changes if entry]))
    return tuple(
        MeasuredRow(
            label,
            answers.score(groups),
            answers.gap(groups),
            answers.equity_scaled(groups),
            replace(entry, adjusted=next(adjusted)) if entry else Difference(),
        )
        for (label, _, answers), entry in zip(judged, changes, strict=True)
    )
