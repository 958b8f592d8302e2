"""Where the rows of a table stand: each against the baseline, all against each other, and the ranks that follow.

Comparisons in the ranks' criteria form one family, whoever is compared: what a sentence says of a row and the
baseline is what their ranks say.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np

from fairbench.leaderboard.answers import Answers, Kind, SeedPriors, contrast, gap_contrast, interaction_with
from fairbench.leaderboard.board import MeasuredRow, SideEffect
from fairbench.leaderboard.measure import scores_every_row
from fairbench.leaderboard.row import Contender
from fairbench.metrics.jackknife import NO_TEST, Jackknife
from fairbench.metrics.metric import Metric
from fairbench.predictions.groups import Groups
from fairbench.predictions.predictions import Predictions
from fairbench.statistics.intervals import max_minus_min
from fairbench.statistics.ranking import DOMINANCE, Ranking, dominance, holm, opposite
from fairbench.statistics.results import ALPHA, Difference, Gap, Interaction, RankBy

SCREEN = 300  # draws that tell whether a comparison deserves more
CRITERIA: dict[RankBy, dict[str, bool]] = {
    "dominance": DOMINANCE,
    "gap": {"gap": False},
    "worst-group": {"worst_group": True},
    "score": {"score": True},
    "dto": {"distance": False},
    "dominance-odds": {**DOMINANCE, "eq_odds_max": False},
}
WORDS = {
    "score": "overall",
    "worst_group": "in the worst group",
    "gap": "in the gap",
    "eq_odds_max": "in EqOdds",
    "distance": "in the distance to the optimum",
}
Pairs = Mapping[tuple[str, str], Mapping[str, Difference]]


@dataclass(frozen=True)
class Standing:
    """One row's rank, what it trades off against others, and what it changed against the baseline."""

    rank: str = ""
    order: tuple[int, int] = (1, 1)
    trade_offs: tuple[str, ...] = ()
    changes: Mapping[str, Difference] = field(default_factory=dict)
    interactions: Mapping[str, Interaction] = field(default_factory=dict)


def standings(
    contenders: Sequence[Contender],
    groups: Groups,
    priors: Mapping[Kind, SeedPriors],
    ranking: RankBy = "dominance",
    primary: Collection[str] = (),
) -> tuple[dict[str, Standing], Pairs]:
    """Compare the rows of a table on the same patients, and rank them, by label; also return the comparisons.

    `priors` say how much training again moves a row; `primary` are the labels of rows whose comparison with the
    baseline is adjusted apart from all others.
    """
    base = next((c for c in contenders if c.role == "baseline"), None)
    criteria = criteria_of(ranking, bool(contenders and contenders[0].answers.odds))
    pairs = {
        (a.label, b.label): _compared(a, b, base, groups, criteria, priors) for a, b in combinations(contenders, 2)
    }
    planned = [(label, base.label) for label in primary] if base else []
    order = dominance([c.label for c in contenders], pairs, criteria, planned)
    ranks = {rank.name: rank for rank in order.ranks}
    trade_offs = trade_offs_of(order)
    changes = _changes(contenders, base, pairs, order, groups, priors)
    moved = _moved(contenders, base, groups, priors)
    placed = {
        c.label: Standing(
            rank=ranks[c.label].text,
            order=(ranks[c.label].first, ranks[c.label].last),
            trade_offs=tuple(trade_offs.get(c.label, ())),
            changes=changes.get(c.label, {}),
            interactions=moved.get(c.label, {}),
        )
        for c in contenders
    }
    return placed, pairs


def criteria_of(ranking: RankBy, odds: bool) -> dict[str, bool]:
    """Return what ranks go by, and whether more of it is better; EqOdds only where it is defined."""
    return {name: more for name, more in CRITERIA[ranking].items() if odds or name != "eq_odds_max"}


def _changes(
    contenders: Sequence[Contender],
    base: Contender | None,
    pairs: Pairs,
    order: Ranking,
    groups: Groups,
    priors: Mapping[Kind, SeedPriors],
) -> dict[str, dict[str, Difference]]:
    """Every row minus the baseline: in what ranks rest on with the ranks' own p, in all else adjusted over rows."""
    if base is None:
        return {}
    others = [c for c in contenders if c is not base]
    each = {c.label: _from_pair(pairs, order, c.label, base.label) for c in others}
    counted = next(iter(order.adjusted.values()), {})
    names = [name for name in each[others[0].label] if name not in counted] if others else []
    more = {name: [each[c.label][name] for c in others] for name in names}
    if base.answers.odds and "eq_odds_max" not in counted:
        more["eq_odds_max"] = [
            gap_contrast(c.answers, base.answers, groups, "eq_odds_max", priors=priors["eq_odds_max"])
            for c in others
        ]
    for name, differences in more.items():
        for c, one in zip(others, adjusted(differences), strict=True):
            each[c.label][name] = one
    return each


def _moved(
    contenders: Sequence[Contender], base: Contender | None, groups: Groups, priors: Mapping[Kind, SeedPriors]
) -> dict[str, dict[str, Interaction]]:
    """Whom every row moved against whom, in the measure and in the rates of EqOdds; Holm's p is over the rows."""
    if base is None:
        return {}
    others = [c for c in contenders if c is not base]
    moved: dict[str, dict[str, Interaction]] = {c.label: {} for c in others}
    for kind in base.answers.kinds:
        each = [interaction_with(c.answers, base.answers, groups, kind, priors[kind]) for c in others]
        for c, one, p in zip(others, each, holm([one.p for one in each]), strict=True):
            moved[c.label][kind] = replace(one, adjusted=p)
    return moved


def _compared(
    a: Contender,
    b: Contender,
    base: Contender | None,
    groups: Groups,
    criteria: Collection[str],
    priors: Mapping[Kind, SeedPriors],
) -> dict[str, Difference]:
    """Compare two rows, with few draws where these already show no difference (Besag and Clifford 1991)."""
    if base not in (a, b):
        quick = _differences(a.answers, b.answers, groups, SCREEN, criteria, priors)
        if all(one.p is None or one.p > 4 * ALPHA for one in quick.values()):
            return quick
    return _differences(a.answers, b.answers, groups, 10_000, criteria, priors)


def _differences(
    a: Answers,
    b: Answers,
    groups: Groups,
    repeats: int,
    criteria: Collection[str],
    priors: Mapping[Kind, SeedPriors],
) -> dict[str, Difference]:
    whole = contrast(a, b, groups, repeats=repeats, priors=priors["score"])
    odds = None
    if "eq_odds_max" in criteria:
        odds = gap_contrast(a, b, groups, "eq_odds_max", repeats, priors["eq_odds_max"])
    return {
        **({"eq_odds_max": odds} if odds else {}),
        "score": whole.accuracy,
        "worst_group": whole.worst_group,
        "gap": whole.gap,
        "best_group": whole.best_group,
        "equity_scaled": whole.equity_scaled,
        **({"distance": whole.distance} if "distance" in criteria else {}),
    }


def _from_pair(pairs: Pairs, order: Ranking, label: str, other: str) -> dict[str, Difference]:
    """Return one row minus another, whichever way round they were compared, with the p that the ranks rest on."""
    pair = (label, other) if (label, other) in pairs else (other, label)
    p = order.adjusted[pair]
    each = {name: replace(one, adjusted=p.get(name)) for name, one in pairs[pair].items()}
    return each if pair == (label, other) else {name: opposite(one) for name, one in each.items()}


def trade_offs_of(order: Ranking) -> dict[str, list[str]]:
    """Say of each row whom it is better than in one respect and worse than in another."""
    said: dict[str, list[str]] = {}
    for a, b in sorted(order.trade_offs):
        for one, other in ((a, b), (b, a)):
            gained, lost = (
                " and ".join(WORDS[name] for name in WORDS if name in order.better[pair])
                for pair in ((one, other), (other, one))
            )
            said.setdefault(one, []).append(f"better than {other} {gained}, worse {lost}")
    return said


def adjusted(differences: Sequence[Difference]) -> list[Difference]:
    """Give every difference the p that Holm adjusts for their number."""
    p = holm([one.p for one in differences])
    return [replace(one, adjusted=own) for one, own in zip(differences, p, strict=True)]


def side_effects(contenders: Sequence[Contender], policy: str) -> tuple[SideEffect, ...]:
    """What each method did to the gaps of attributes it was not trained for, against the baseline.

    Holm's p is over the methods and attributes.
    """
    base = next((c for c in contenders if c.role == "baseline"), None)
    trained = [c for c in contenders if c.first.job.attributes]
    if not trained:
        return ()
    touched: list[tuple[Contender, str, float | None]] = []
    changes: list[Difference] = []
    known = trained[0].answers.predictions[0]
    by_attribute = {attribute: Groups.of(known.table, attribute, policy) for attribute in known.attributes}
    every = [c.answers for c in contenders]
    priors = {attribute: SeedPriors.of(every, groups) for attribute, groups in by_attribute.items()}
    for c in trained:
        for attribute, groups in by_attribute.items():
            if attribute in c.first.job.attributes:
                continue
            touched.append((c, attribute, c.answers.plain_gap(groups)))
            nothing = Difference(reason="no baseline in this table")
            own = priors[attribute]
            changes.append(
                gap_contrast(c.answers, base.answers, groups, repeats=2_000, priors=own) if base else nothing
            )
    return tuple(
        SideEffect(c.label, attribute, gap, change)
        for (c, attribute, gap), change in zip(touched, adjusted(changes), strict=True)
    )


def measured_rows(contenders: Sequence[Contender], groups: Groups, metric: Metric) -> tuple[MeasuredRow, ...]:
    """Measure all rows by another metric; Holm's p is over them. What is no mean over all rows has no test."""
    if not scores_every_row(metric, [one for c in contenders for one in c.answers.predictions]):
        return tuple(_jackknifed(c, groups, metric) for c in contenders)
    answers = {c.label: c.answers.by(metric) for c in contenders}
    base = next((answers[c.label] for c in contenders if c.role == "baseline"), None)
    compared = [c.label for c in contenders if base is not None and c.role != "baseline"]
    priors = SeedPriors.of([*answers.values()], groups)
    gaps = [
        gap_contrast(answers[label], base, groups, repeats=2_000, priors=priors)
        for label in compared
        if base is not None
    ]
    changes = dict(zip(compared, adjusted(gaps), strict=True))
    return tuple(
        MeasuredRow(
            label,
            own.score(groups),
            own.gap(groups, priors),
            own.equity_scaled(groups, priors=priors),
            changes.get(label, Difference()),
        )
        for label, own in answers.items()
    )


def _jackknifed(contender: Contender, groups: Groups, metric: Metric) -> MeasuredRow:
    """Measure one row by a metric that is no mean over rows: the mean of its seeds, with intervals."""
    moved = Jackknife.of(metric, contender.answers.predictions, groups)
    gap = gap_of(metric, contender.answers.predictions, groups)
    judged = Gap(reason="fewer than two groups have a value") if gap is None else Gap(gap)
    return MeasuredRow(contender.label, moved.overall, moved.gap(judged), Gap(reason=NO_TEST))


def gap_of(metric: Metric, predictions: Sequence[Predictions], groups: Groups) -> float | None:
    """Return the largest minus the smallest group's value of a metric, mean of the seeds; None where undefined."""
    each = [[one.value for one in metric.by_group(own, groups.codes, len(groups.names))] for own in predictions]
    gap = float(max_minus_min(np.array(each, dtype=np.float64)).mean())
    return None if np.isnan(gap) else gap
