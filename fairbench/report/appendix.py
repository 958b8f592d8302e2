"""What stands behind the rows of a table: groups, cost, controls, side effects, what is missing, and the data."""

from __future__ import annotations

from collections.abc import Iterable

from fairbench.leaderboard.board import Table
from fairbench.report.blocks import Grid, grid
from fairbench.report.format import (
    gibibytes,
    p_value,
    percent,
    seconds,
    share,
    signed,
    whole,
    with_interval,
)
from fairbench.report.lead import constant_cells, flags, measures, third_party

WIDE = 5  # groups beside each other in one grid


def by_group(table: Table) -> Iterable[Grid]:
    """Show every group's value by every method, at most WIDE groups beside each other."""
    parts = range(0, len(table.groups), WIDE)
    for start in parts:
        groups = table.groups[start : start + WIDE]
        columns = ["Method", *(f"{g.name} (n = {_count(g.n, table)})>" for g in groups)]
        rows = [
            [row.label, *(with_interval(value) for value in row.groups[start : start + WIDE])] for row in table.rows
        ]
        part = f", part {start // WIDE + 1} of {len(parts)}" if len(parts) > 1 else ""
        yield grid(f"{table.measure.heading} by group (%){part}", columns, rows)


def _count(n: int | None, table: Table) -> str:
    return "withheld" if n is None and table.min_cell else whole(n)


def counts(table: Table) -> Grid:
    """Count the test rows of every group, by class where there are two."""
    two = len(table.classes) == 2
    names = (f"{table.classes[1]} (positive)>", f"{table.classes[0]} (negative)>") if two else ()
    rows = [
        [g.name, _count(g.n, table), *((_count(n, table) for n in (g.positives, g.negatives)) if two else ())]
        for g in table.groups
    ]
    return grid("Groups in the test split (rows)", ["Group", "n>", *names], rows)


def cost(table: Table) -> Grid:
    """Say what one training took."""
    columns = ["Method", "Seeds", "Trainable (%)>", "Train time (s)>", "Peak memory (GiB)>"]
    rows = [
        [
            row.label,
            ", ".join(map(str, row.seeds)),
            share(row.trainable),
            seconds(row.train_seconds),
            gibibytes(row.peak_memory),
        ]
        for row in table.rows
    ]
    return grid("Cost of one training", columns, rows)


def origins(table: Table) -> Iterable[Grid]:
    """Say of a published table where every row comes from, what provides its method, and how far it was checked."""
    rows = [*table.rows, *table.controls]
    if any(row.trust or third_party(row) for row in rows):
        columns = ["Method", "Published by", "Method provided by", "Checked", "Jobs"]
        lines = [
            [row.label, row.origin, row.versions.get("method", ""), row.trust or "", " ".join(row.keys)]
            for row in rows
        ]
        yield grid("Where the rows come from", columns, lines)


def flag_details(table: Table) -> Iterable[Grid]:
    """Say what each flag is about, where it has more to say."""
    rows = [
        [row.label, flag.code, flag.detail]
        for row in (*table.rows, *table.controls)
        for flag in row.flags
        if flag.detail
    ]
    if rows:
        yield grid("Flags in detail", ["Method", "Flag", "Detail"], rows)


def controls(table: Table) -> Grid:
    """Show what a row must beat: the commonest answer, and every control that was trained."""
    columns = measures(table)
    written = constant_cells(table)
    answer = table.constant.answer if table.constant else ""
    rows = [[f"always “{answer}” (computed)", "", *(written.get(title, "") for title, _ in columns), ""]]
    for row in table.controls:
        named = f"{row.label} ({row.stands_for})" if row.stands_for not in ("", row.label) else row.label
        values = [with_interval(row.score), *(write(row) for _, write in columns[1:])]
        rows.append([named, str(len(row.seeds)), *values, flags(row)])
    titles = ["Control", "Seeds>", *(title for title, _ in columns), "Flags"]
    return grid("Controls: what a row must beat", titles, rows)


def side_effects(table: Table) -> Iterable[Grid]:
    """Show what methods did to the gaps of attributes that they were not trained for."""
    columns = (
        "Method",
        "Attribute",
        f"{table.measure.gap} (points)>",
        "Difference to baseline (points)>",
        "p (Holm)>",
    )
    rows = (
        (e.label, e.attribute, percent(e.gap), signed(e.change), p_value(e.change.adjusted))
        for e in table.side_effects
    )
    if table.side_effects:
        yield grid("Side effects: what it did to the gaps of other attributes", columns, rows)


def excluded(table: Table) -> Iterable[Grid]:
    """List the jobs that are not in the table, and why."""
    rows = ((a.label, str(a.seed), a.status, a.reason) for a in table.excluded)
    if table.excluded:
        yield grid("Not in this table", ("Method", "Seed>", "Status", "Reason"), rows)


def left_out(table: Table) -> Iterable[str]:
    """Say which jobs are in no row, where the table is read."""
    if table.excluded and table.rows:
        labels = list(dict.fromkeys(one.label for one in table.excluded))
        named = ", ".join(labels[:5]) + (f" and {len(labels) - 5} more" if len(labels) > 5 else "")
        jobs = "1 job is" if len(table.excluded) == 1 else f"{len(table.excluded):,} jobs are"
        yield f"{jobs} in no row ({named}): “Jobs and data” says why."


def undefined(table: Table) -> Iterable[str]:
    """Say why cells are empty, once per reason."""
    reasons: dict[str, set[str]] = {}
    for row in (*table.rows, *table.controls):
        cells = {
            "AUROC": row.auroc.reason if row.auroc.value is None else None,
            table.measure.gap: row.gap.reason if row.gap.value is None else None,
            "EqOdds(max)": row.eq_odds_max.reason if row.eq_odds_max.value is None else None,
            "worst group": row.worst_group.reason if row.worst_group.value is None else None,
            "between groups, corrected": row.between_groups.reason,
        }
        cells |= {
            group.name: value.reason
            for group, value in zip(table.groups, row.groups, strict=True)
            if value.value is None
        }
        cells |= {f"difference in {k}": c.reason for k, c in row.changes.items() if c.value is None}
        for name, reason in cells.items():
            if reason:
                reasons.setdefault(reason, set()).add(name)
    for reason, names in reasons.items():
        yield f"Undefined ({', '.join(sorted(names))}): {reason}."


def trials(table: Table) -> str:
    """Say how much was tried."""
    tried = table.trials
    if not tried.methods:
        return "No method was tried."
    beyond = tried.settings - tried.methods
    more = f", {beyond} of them beyond the first of their method" if beyond else ""
    return (
        f"Tried here: {_number(tried.methods, 'method')} in {_number(tried.settings, 'setting')}{more};"
        f" {_number(len(tried.seeds), 'seed')} ({', '.join(map(str, tried.seeds))});"
        f" {_number(tried.trainings, 'training')} in all. The best of many tries looks better than it is."
    )


def data(table: Table) -> str:
    """Say which rows the table is about."""
    clusters = "" if table.clusters == table.rows_tested else f" in {table.clusters:,} clusters"
    hidden = f" Groups smaller than {table.min_cell} are withheld." if table.min_cell else ""
    selection = ", ".join(sorted({str(row.recipe.get("select")) for row in table.rows})) or "none"
    tested = "Test split" if table.folds == 1 else f"Test splits of {table.folds} folds together"
    return (
        f"{tested}: {table.rows_tested:,} rows{clusters}; unrecorded {table.attribute}: {table.unrecorded};"
        f" model selection: {selection}; data {table.fingerprint or 'without a fingerprint'}.{hidden}"
    )


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
