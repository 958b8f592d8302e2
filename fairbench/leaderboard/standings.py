"""Where the rows of a table stand: each against the baseline, all against each other, and the ranks that follow.

Comparisons in the ranks' criteria form one family, whoever is compared: what a sentence says of a row and the
baseline is what their ranks say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np

from fairbench.leaderboard.answers import Answers, contrast, interaction_with
from fairbench.leaderboard.board import Interaction, MeasuredRow, Ranking, SideEffect
from fairbench.leaderboard.row import Contender
from fairbench.metrics.metric import Metric
from fairbench.predictions.groups import Groups
from fairbench.statistics.ranking import Rank, holm, opposite
from fairbench.statistics.results import ALPHA, Difference

SCREEN = 300  # draws that tell whether a comparison deserves more
SIGNS = {"score": 1, "worst_group": 1, "gap": -1}  # criteria of the ranks; -1 where less is better
CRITERIA: dict[Ranking, tuple[str, ...]] = {
    "dominance": ("score", "worst_group", "gap"),
    "gap": ("gap",),
    "worst-group": ("worst_group",),
    "score": ("score",),
}
WORDS = {"score": "overall", "worst_group": "in the worst group", "gap": "in the gap"}


@dataclass(frozen=True)
class Standing:
    """One row's rank, what it trades off against others, and what it changed against the baseline."""

    rank: str = ""
    order: tuple[int, int] = (1, 1)
    trade_offs: tuple[str, ...] = ()
    changes: Mapping[str, Difference] = field(default_factory=dict)
    interactions: Mapping[str, Interaction] = field(default_factory=dict)


def standings(
    contenders: Sequence[Contender], groups: Groups, ranking: Ranking = "dominance"
) -> dict[str, Standing]:
    """Compare the rows of a table on the same patients, and rank them; by label."""
    base = next((c for c in contenders if c.role == "baseline"), None)
    pairs = adjusted_pairs(contenders, base, groups)
    ranks, trade_offs = ranked([c.label for c in contenders], pairs, ranking)
    if ranking == "dto":
        ranks = by_distance(contenders, groups)
    changes = _changes(contenders, base, pairs, groups)
    moved = _moved(contenders, base, groups)
    return {
        c.label: Standing(
            rank=ranks[c.label].text,
            order=(ranks[c.label].first, ranks[c.label].last),
            trade_offs=trade_offs[c.label],
            changes=changes.get(c.label, {}),
            interactions=moved.get(c.label, {}),
        )
        for c in contenders
    }


Pairs = Mapping[tuple[str, str], Mapping[str, Difference]]


def _changes(
    contenders: Sequence[Contender], base: Contender | None, pairs: Pairs, groups: Groups
) -> dict[str, dict[str, Difference]]:
    """Every row minus the baseline: in the ranks' criteria with their p, in all else adjusted over the rows."""
    if base is None:
        return {}
    others = [c for c in contenders if c is not base]
    changes = {c.label: _oriented(pairs, c.label, base.label) for c in others}
    more = {name: [changes[c.label][name] for c in others] for name in ("best_group", "equity_scaled")}
    if base.answers.odds:
        more["eq_odds_max"] = [contrast(c.answers, base.answers, groups, odds=True).gap for c in others]
    for name, each in more.items():
        for c, one in zip(others, adjusted(each), strict=True):
            changes[c.label][name] = one
    return changes


def _moved(
    contenders: Sequence[Contender], base: Contender | None, groups: Groups
) -> dict[str, dict[str, Interaction]]:
    """Whom every row moved against whom, in the measure and in the rates of EqOdds; Holm's p is over the rows."""
    if base is None:
        return {}
    others = [c for c in contenders if c is not base]
    moved: dict[str, dict[str, Interaction]] = {c.label: {} for c in others}
    for name, odds in (("score", False), ("eq_odds_max", True)):
        if odds and not base.answers.odds:
            continue
        each = [interaction_with(c.answers, base.answers, groups, odds) for c in others]
        for c, one, p in zip(others, each, holm([one.p for one in each]), strict=True):
            moved[c.label][name] = replace(one, adjusted=p)
    return moved


def adjusted_pairs(contenders: Sequence[Contender], base: Contender | None, groups: Groups) -> Pairs:
    """Compare all pairs in all criteria, (A, B) -> criterion -> A minus B, with Holm's p over all of them."""
    found = {(a.label, b.label): _compared(a, b, base, groups) for a, b in combinations(contenders, 2)}
    flat = [(pair, name) for pair in found for name in SIGNS]
    p = holm([found[pair][name].p for pair, name in flat])
    for (pair, name), one in zip(flat, p, strict=True):
        found[pair][name] = replace(found[pair][name], adjusted=one)
    return found


def _compared(a: Contender, b: Contender, base: Contender | None, groups: Groups) -> dict[str, Difference]:
    """Compare two rows, with few draws where these already show no difference (Besag and Clifford 1991)."""
    if base not in (a, b):
        quick = _criteria(a.answers, b.answers, groups, SCREEN)
        if all(one.p is None or one.p > 4 * ALPHA for one in quick.values()):
            return quick
    return _criteria(a.answers, b.answers, groups, 10_000)


def _criteria(a: Answers, b: Answers, groups: Groups, repeats: int) -> dict[str, Difference]:
    whole = contrast(a, b, groups, repeats=repeats)
    return {
        "score": whole.accuracy,
        "worst_group": whole.worst_group,
        "gap": whole.gap,
        "best_group": whole.best_group,
        "equity_scaled": whole.equity_scaled,
    }


def _oriented(pairs: Pairs, label: str, other: str) -> dict[str, Difference]:
    """Return one row minus another, whichever way round they were compared."""
    if (label, other) in pairs:
        return dict(pairs[label, other])
    return {name: opposite(one) for name, one in pairs[other, label].items()}


def ranked(
    names: Sequence[str], pairs: Pairs, ranking: Ranking
) -> tuple[dict[str, Rank], dict[str, tuple[str, ...]]]:
    """Rank by dominance: A stands above B where some test finds A better and none finds B better.

    A row's ranks are those that all orders compatible with this leave it. A pair that is better in one and
    worse in another is a trade-off and not ordered.
    """
    above, below = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    trade_offs: dict[str, list[str]] = {name: [] for name in names}
    for (a, b), measured in pairs.items():
        signs = {name: SIGNS[name] for name in CRITERIA.get(ranking, ())}
        gains = {n: s * (measured[n].value or 0) for n, s in signs.items() if measured[n].significant}
        better, worse = ([n for n, gain in gains.items() if gain * sign > 0] for sign in (1, -1))
        if better and worse:
            trade_offs[a].append(_trade_off(better, worse, b))
            trade_offs[b].append(_trade_off(worse, better, a))
        elif better or worse:
            winner, loser = (a, b) if better else (b, a)
            below[winner] += 1
            above[loser] += 1
    ranks = {name: Rank(name, 1 + above[name], len(names) - below[name]) for name in names}
    return ranks, {name: tuple(found) for name, found in trade_offs.items()}


def _trade_off(better: Sequence[str], worse: Sequence[str], other: str) -> str:
    gained, lost = (" and ".join(WORDS[name] for name in names) for names in (better, worse))
    return f"better than {other} {gained}, worse {lost}"


def by_distance(contenders: Sequence[Contender], groups: Groups) -> dict[str, Rank]:
    """Rank by distance to the optimum (score 1, gap 0), point values without a test (Han et al. 2022)."""
    distance = {}
    for c in contenders:
        gap = c.answers.plain_gap(groups)
        distance[c.label] = np.inf if gap is None else float(np.hypot(1 - c.answers.scores.mean(), gap))
    order = sorted(distance.values())
    return {
        label: Rank(label, 1 + order.index(value), len(order) - order[::-1].index(value))
        for label, value in distance.items()
    }


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
    for c in trained:
        for attribute, groups in by_attribute.items():
            if attribute in c.first.job.attributes:
                continue
            touched.append((c, attribute, c.answers.plain_gap(groups)))
            nothing = Difference(reason="no baseline in this table")
            changes.append(contrast(c.answers, base.answers, groups, repeats=2_000).gap if base else nothing)
    return tuple(
        SideEffect(c.label, attribute, gap, change)
        for (c, attribute, gap), change in zip(touched, adjusted(changes), strict=True)
    )


def measured_rows(contenders: Sequence[Contender], groups: Groups, metric: Metric) -> tuple[MeasuredRow, ...]:
    """Measure all rows by another metric that scores rows; Holm's p is over them."""
    answers = {c.label: c.answers.by(metric) for c in contenders}
    base = next((answers[c.label] for c in contenders if c.role == "baseline"), None)
    compared = [c.label for c in contenders if base is not None and c.role != "baseline"]
    gaps = [contrast(answers[label], base, groups, repeats=2_000).gap for label in compared if base is not None]
    changes = dict(zip(compared, adjusted(gaps), strict=True))
    return tuple(
        MeasuredRow(
            label,
            own.score(groups),
            own.gap(groups),
            own.equity_scaled(groups),
            changes.get(label, Difference()),
        )
        for label, own in answers.items()
    )
