"""Results as JSON: made here, once, from the types that carry them."""

from __future__ import annotations

import json
from typing import Any

from fairbench.leaderboard.board import Board
from fairbench.leaderboard.compare import PairedScores
from fairbench.metrics.conventions import Converted
from fairbench.metrics.score import RowScores, Scores
from fairbench.statistics.results import Difference, Estimate, Gap, Interaction

Json = dict[str, Any]


def render(board: Board) -> str:
    """Write the whole table model, from which every other format can be made again (`publication.read_board`)."""
    return json.dumps(board.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def scores(result: Scores) -> Json:
    """Write `n` and other counts, `classes`, `overall.<metric>`, and `attributes.<attribute>` with `unrecorded`,
    `groups.<group>` (counts and metrics) and every disparity.

    A number is `{value, ci}`, with a `reason` where it is undefined; a disparity is also `{coverage, floor_mean,
    floor_95, p, excess, detectable}`, with `group`, `preset` (of an equity-scaled metric) and `flags` where it
    has them. `made_with.<metric>` names the versions of libraries and models that a value depends on.
    """
    return {
        **result.overall.counts,
        **_per_class(result.overall),
        "classes": list(result.classes),
        "overall": {name: estimate(one) for name, one in result.overall.metrics.items()},
        "made_with": dict(result.made_with),
        "attributes": {
            attribute: {
                "unrecorded": {"policy": part.policy, "rows": part.unrecorded},
                "groups": {name: _group(group) for name, group in part.groups.items()},
                **{
                    name: gap(one) | ({"preset": result.equity} if name.startswith("es_") else {})
                    for name, one in part.disparities.items()
                },
            }
            for attribute, part in result.attributes.items()
        },
    }


def _group(group: RowScores) -> Json:
    return {**group.counts, **_per_class(group), **{name: estimate(one) for name, one in group.metrics.items()}}


def _per_class(group: RowScores) -> Json:
    return {"per_class": dict(group.per_class)} if group.per_class else {}


def converted(result: Converted) -> Json:
    """Write another project's numbers: `attributes.<attribute>.<name>.{formula, value, coverage, reason?}`."""
    return {
        "convention": result.convention,
        "source": result.source,
        "attributes": {
            attribute: {
                name: {"formula": formula, "value": one.value, **_said(one), "coverage": list(one.coverage or ())}
                for name, (formula, one) in numbers.items()
            }
            for attribute, numbers in result.attributes.items()
        },
    }


def paired(result: PairedScores) -> Json:
    """Write A minus B: `n`, `overall.<metric>` and per attribute every disparity and `dto`, the distance to the
    optimum (score 1, gap 0), each `{difference, ci, p}`.

    `interaction` (at one class mix: `standardised_interaction`; of TPR and FPR: `eq_odds_interaction`) is
    `{p, contrasts: [{groups, difference, ci, p, rate}]}`: the first group was moved by so much more than the
    second.
    """
    return {
        "n": result.rows,
        "overall": {name: difference(one) for name, one in result.overall.items()},
        "attributes": {
            attribute: {
                **{name: difference(one) for name, one in part.differences.items()},
                **{name: interaction(one) for name, one in part.interactions.items()},
            }
            for attribute, part in result.attributes.items()
        },
        "flags": list(result.notes),
    }


def estimate(one: Estimate) -> Json:
    """Write a number and its interval."""
    return {"value": one.value, "ci": _ends(one), **_said(one)}


def gap(one: Gap) -> Json:
    """Write a disparity with its evidence."""
    evidence = ("floor_mean", "floor_95", "p", "excess", "detectable")
    return {
        "value": one.value,
        "ci": _ends(one),
        **{name: getattr(one, name) for name in evidence},
        "coverage": list(one.coverage or ()),
        **({"group": one.group} if one.group else {}),
        **_said(one),
    }


def difference(one: Difference) -> Json:
    """Write a paired difference."""
    return {"difference": one.value, "ci": _ends(one), "p": one.p, **_said(one)}


def interaction(one: Interaction) -> Json:
    """Write who was moved against whom."""
    contrasts = [{"groups": [c.group, c.against], **difference(c), "rate": c.rate} for c in one.contrasts]
    return {"p": one.p, "contrasts": contrasts, **({"reason": one.reason} if one.reason else {})}


def _ends(one: Estimate) -> list[float] | None:
    return [*one.interval] if one.interval else None


def _said(one: Estimate) -> Json:
    return {
        **({"reason": one.reason} if one.reason else {}),
        **({"flags": list(one.notes)} if one.notes else {}),
    }
