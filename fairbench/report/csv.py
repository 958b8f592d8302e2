"""A leaderboard as one flat csv: a line per row of every table, unrounded, for spreadsheets and scripts."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict
from typing import Any

from fairbench.leaderboard.board import Board, Excluded, Row, Table
from fairbench.report.format import plain
from fairbench.statistics.results import Estimate

ESTIMATES = ("score", "auroc", "gap", "standardised_gap", "eq_odds_max", "equity_scaled", "worst_group")
_DANGEROUS = ("=", "+", "-", "@")


def render(board: Board) -> str:
    """Write the board as csv. Fractions, seconds and bytes; empty is undefined; groups have columns `group:…`."""
    lines = [line for table in board.tables for line in _lines(table)]
    columns = dict.fromkeys(key for line in lines for key in line)
    file = io.StringIO()
    writer = csv.DictWriter(file, [*columns], restval="", lineterminator="\n")
    writer.writerow({column: escape(column) for column in columns})
    for line in lines:
        writer.writerow({key: escape(value) if isinstance(value, str) else value for key, value in line.items()})
    return file.getvalue()


def escape(text: str) -> str:
    """Keep text from data from becoming a formula in a spreadsheet."""
    text = plain(text)
    return f"'{text}" if text.startswith(_DANGEROUS) else text


def _lines(table: Table) -> list[dict[str, Any]]:
    place = {"dataset": table.dataset, "backbone": table.backbone, "attribute": table.attribute}
    place["measure"] = table.measure.name
    rows = [place | _row(row, table) for row in (*table.rows, *table.controls)]
    return rows + [place | _missing(entry) for entry in table.excluded]


def _row(row: Row, table: Table) -> dict[str, Any]:
    line: dict[str, Any] = {
        "method": row.label,
        "role": f"{row.role}: {row.stands_for}" if row.stands_for else row.role,
        "rank": row.rank.replace("-", " to "),
        "seeds": " ".join(map(str, row.seeds)),
    }
    for name in ESTIMATES:
        line |= _numbers(name, getattr(row, name))
    for measure, change in row.changes.items():
        line |= _numbers(f"vs_baseline.{measure}", change)
    for measure, moved in row.interactions.items():
        line |= {f"interaction.{measure}.p": moved.p, f"interaction.{measure}.adjusted": moved.adjusted}
    for group, value in zip(table.groups, row.groups, strict=True):
        line |= {f"group:{group.name}.n": group.n, f"group:{group.name}.{table.measure.name}": value.value}
    line |= _numbers("between_groups", row.between_groups)
    for one in row.probes:
        entry = asdict(one.balanced_accuracy) | {"auroc": one.auroc, "chance": one.chance, "p": one.p}
        line |= {f"probe:{one.attribute}.{key}": value for key, value in entry.items()}
    if row.gap_variance:
        line |= {f"gap_variance.{key}": value for key, value in asdict(row.gap_variance).items()}
    return line | {
        "trainable": row.trainable,
        "train_seconds": row.train_seconds,
        "peak_memory": row.peak_memory,
        "flags": "; ".join(f"{f.code} ({f.detail})" if f.detail else f.code for f in row.flags),
        "keys": " ".join(row.keys),
    }


def _numbers(name: str, estimate: Estimate) -> dict[str, Any]:
    """Write what a number has, under names that begin with its own."""
    values = asdict(estimate)
    values["coverage"] = " of ".join(map(str, values.get("coverage") or ()))
    values["notes"] = "; ".join(values["notes"])
    return {f"{name}.{key}": value for key, value in values.items() if value not in (None, "")}


def _missing(entry: Excluded) -> dict[str, Any]:
    return {
        "method": entry.label,
        "role": entry.status,
        "seeds": str(entry.seed),
        "flags": entry.reason,
        "keys": entry.key,
    }
