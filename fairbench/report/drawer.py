"""All that is known of one row, for who looks behind its numbers: sentences, values, settings, provenance."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from fairbench.leaderboard.board import QUANTITIES, Row, Table
from fairbench.leaderboard.flags import LEGEND
from fairbench.report.format import (
    NOTHING,
    fraction,
    gibibytes,
    p_value,
    plain,
    seconds,
    share,
    signed,
    with_interval,
)
from fairbench.statistics.results import Difference, Gap

Terms = list[tuple[str, str]]
ROLES = {
    "contender": "a method that is ranked",
    "baseline": "the baseline that all are compared with",
    "control": "a control: what a row must beat",
    "reference": "a reference: what the same data can give",
}


def drawer(row: Row, table: Table) -> list[tuple[str, Terms]]:
    """Return titled parts of (term, meaning), all text on one line."""
    parts = {
        "What to know": _flags(row),
        "Values": _values(row, table),
        f"Against {table.baseline}": _changes(row, table),
        "Settings": [(key, _written(value)) for key, value in row.settings.items()]
        or [("", "all at their defaults")],
        "Training": [*_recipe(row), *_cost(row)],
        "Provenance": _provenance(row, table),
    }
    return [
        (plain(title), [(plain(term), plain(text)) for term, text in terms])
        for title, terms in parts.items()
        if terms
    ]


def _flags(row: Row) -> Terms:
    stands = f" ({row.stands_for})" if row.stands_for else ""
    known = [("Role", f"{ROLES.get(row.role, row.role)}{stands}")]
    if row.rank:
        known.append(("Rank", row.rank))
    known += [("Trade-off", one) for one in row.trade_offs]
    for flag in row.flags:
        detail = f" Here: {flag.detail}." if flag.detail else ""
        known.append((flag.code, f"{LEGEND.get(flag.code, '')}{detail}"))
    return known


def _values(row: Row, table: Table) -> Terms:
    group = f" in {row.worst_group.group}" if row.worst_group.group else ""
    values = [
        (f"{table.measure.title} (%)", with_interval(row.score)),
        ("AUROC", fraction(row.auroc.value)),
        (f"{table.measure.gap} (points)", _gap(row.gap)),
        ("EqOdds(max) (points)", _gap(row.eq_odds_max)),
        ("At one class mix (points)", _gap(row.standardised_gap)),
        ("Worst group (%)", with_interval(row.worst_group) + group),
    ]
    values += [(g.name, with_interval(value)) for g, value in zip(table.groups, row.groups, strict=True)]
    return [(term, text) for term, text in values if text != NOTHING]


def _gap(gap: Gap) -> str:
    if gap.value is None:
        return NOTHING
    chance = "" if gap.floor_95 is None else f"; chance gives up to {100 * gap.floor_95:.1f}"
    return f"{with_interval(gap)}{chance}{_p(gap.p, gap.adjusted)}"


def _changes(row: Row, table: Table) -> Terms:
    names = QUANTITIES | {"score": table.measure.title, "gap": table.measure.gap}
    moved: Mapping[str, Difference] = row.changes
    known = [(f"{names[key]} (points)", moved[key]) for key in QUANTITIES if key in moved]
    return [(name, f"{signed(one)}{_p(one.p, one.adjusted)}") for name, one in known if one.value is not None]


def _p(p: float | None, adjusted: float | None) -> str:
    if adjusted is not None:
        return f"; p {p_value(adjusted)} (Holm)"
    return "" if p is None else f"; p {p_value(p)}"


def _recipe(row: Row) -> Iterable[tuple[str, str]]:
    for key, value in row.recipe.items():
        if key == "stages":
            for stage in value:
                rest = ", ".join(
                    f"{k.replace('_', ' ')} {_written(v)}"
                    for k, v in stage.items()
                    if k != "name" and v not in ({}, [], None)
                )
                yield f"Stage {stage['name']}", rest
        else:
            yield key.replace("_", " ").capitalize(), _written(value)


def _cost(row: Row) -> Terms:
    known = [
        ("Trained weights (%)", share(row.trainable)),
        ("Time (s)", seconds(row.train_seconds)),
        ("Peak memory (GiB)", gibibytes(row.peak_memory)),
    ]
    return [(term, text) for term, text in known if text != NOTHING]


def _provenance(row: Row, table: Table) -> Terms:
    known = [
        (f"{kind.capitalize()} from" if kind != "weights" else "Weights", v) for kind, v in row.versions.items()
    ]
    return [
        *((term.replace("Fairbench from", "fairbench"), version) for term, version in known if version),
        ("Data", table.fingerprint),
        ("Trained for", ", ".join(row.attributes) or "no attribute"),
        ("Seeds", ", ".join(map(str, row.seeds))),
        ("Jobs", ", ".join(row.keys)),
    ]


def _written(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "+".join(map(_written, value)) or "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
