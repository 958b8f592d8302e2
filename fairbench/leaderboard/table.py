"""One table, from its rows: measured, compared, ranked and flagged, each once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from fairbench.leaderboard.answers import KINDS, Kind, SeedPriors, constant, priors_of
from fairbench.leaderboard.board import Constant, Flag, FurtherMeasure, Group, Row, Table
from fairbench.leaderboard.evidence import evidence_of
from fairbench.leaderboard.flags import (
    LEVELLING_DOWN,
    STALE,
    below_references,
    entry_flags,
    gap_flags,
    idle_flags,
    levelling_down,
    worst_group_worse,
)
from fairbench.leaderboard.measure import describe, further_metrics
from fairbench.leaderboard.row import Contender, cost, identity, improvement, measure, probes, with_adjusted
from fairbench.leaderboard.standings import Standing, measured_rows, side_effects, standings
from fairbench.metrics.metric import Metric
from fairbench.predictions.groups import Groups
from fairbench.predictions.predictions import Predictions
from fairbench.statistics.results import RankBy


def fill(
    empty: Table,
    everybody: Sequence[Contender],
    metrics: Mapping[str, Metric],
    ranking: RankBy = "dominance",
    primary: Collection[str] = (),
    evidence: bool = False,
    also: Collection[str] = (),
) -> Table:
    """Put the rows into a table, and what is said of all of them.

    `metrics` may stand beside; `primary` names the methods whose comparison with the baseline was planned;
    `evidence` attaches what the numbers can be recomputed from; `also` names metrics that are wanted beside.
    """
    methods = [c for c in everybody if c.first.ranked]
    controls = sorted((c for c in everybody if not c.first.ranked), key=lambda c: c.label, reverse=True)
    answers = everybody[0].answers
    predictions, judge = answers.predictions[0], answers.measure
    groups = Groups.of(predictions.table, empty.attribute, empty.unrecorded)
    planned = tuple(c.label for c in methods if {c.label, c.first.job.method.name} & {*primary})
    priors = priors_of([c.answers for c in methods], groups)
    placed, pairs = standings(methods, groups, priors, ranking, planned)
    methods.sort(key=lambda c: (*placed[c.label].order, c.role != "baseline", c.label))
    base = next((c for c in methods if c.role == "baseline"), None)
    others = [c.answers for c in methods if c is not base]
    able, missing = further_metrics(judge, metrics, [p for c in methods for p in c.answers.predictions], also)
    further = [FurtherMeasure(describe(metric), measured_rows(methods, groups, metric)) for metric in able]
    further += [FurtherMeasure(describe(metrics[name]), missing=why) for name, why in missing.items()]
    return replace(
        empty,
        fingerprint=everybody[0].first.job.dataset.fingerprint,
        rows_tested=len(predictions),
        clusters=int(np.unique(predictions.clusters()).size),
        classes=predictions.classes,
        groups=_groups(predictions, groups),
        constant=_constant(predictions, groups, judge),
        baseline=base.label if base else None,
        rows=tuple(_rows(methods, controls, groups, priors, placed)),
        controls=tuple(_rows(controls, methods, groups, priors, {})),
        side_effects=side_effects(methods, empty.unrecorded),
        improvement=improvement(base.answers, others, groups) if base else None,
        measure=describe(judge),
        further=tuple(further),
        ranked_by=ranking,
        primary=planned,
        evidence=evidence_of(everybody, groups, pairs) if evidence else None,
    )


def _rows(
    chosen: Sequence[Contender],
    others: Sequence[Contender],
    groups: Groups,
    priors: Mapping[Kind, SeedPriors],
    placed: Mapping[str, Standing],
) -> Iterable[Row]:
    """Make rows: measured, tested, flagged and placed. `others` are the controls of methods, and the reverse."""
    of_entries = entry_flags([*chosen, *others])
    contending = bool(placed)
    levelled = levelling_down({label: (s.changes, s.interactions) for label, s in placed.items() if s.changes})
    idle = {c.label: [*idle_flags(c, others, groups)] if contending else [] for c in chosen}
    below = below_references(chosen if contending else (), others, groups)
    measured = {c.label: measure(c.answers, groups, *(priors[kind] for kind in KINDS)) for c in chosen}
    tested = with_adjusted({label: one for label, one in measured.items() if contending and not idle[label]})
    for c in chosen:
        own, standing = {**measured, **tested}[c.label], placed.get(c.label, Standing())
        flags = [
            *(flag for flag in of_entries[c.label] if flag.code == STALE),
            *idle[c.label],
            *below.get(c.label, ()),
            *([Flag(LEVELLING_DOWN)] if c.label in levelled else ()),
            *([Flag("worst group worse")] if worst_group_worse(standing.changes) else ()),
            *gap_flags(own.gap, own.standardised_gap, own.worst_group, own.eq_odds_max),
            *(flag for flag in of_entries[c.label] if flag.code != STALE),
        ]
        yield Row(
            **identity(c),
            **vars(own),
            rank=standing.rank,
            trade_offs=standing.trade_offs,
            changes=standing.changes,
            interactions=standing.interactions,
            flags=tuple(flags),
            probes=tuple(probes(c.records)),
            **cost(c.records),
        )


def _groups(predictions: Predictions, groups: Groups) -> tuple[Group, ...]:
    two = len(predictions.classes) == 2
    counted = []
    for place, name in enumerate(groups.names):
        inside = groups.codes == place
        counts = [int((predictions.target[inside] == index).sum()) for index in (1, 0)] if two else [None, None]
        counted.append(Group(name, int(inside.sum()), *counts))
    return tuple(counted)


def _constant(predictions: Predictions, groups: Groups, judge: Metric) -> Constant:
    best = constant(predictions, judge)
    given = best.predictions[0].table
    column = "text" if "text" in given else "answer"
    answer, several = given[column].mode()[0], given[column].nunique() > 1
    named = str(answer) if column == "text" else predictions.classes[int(answer)]
    if several:
        named = "the commonest answer to each question"
    one_class = column == "answer" and not several
    return Constant(named, float(best.scores.mean()), best.plain_gap(groups), one_class)
