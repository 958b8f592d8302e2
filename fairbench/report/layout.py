"""What a leaderboard says and in which order, as headings, sentences and grids that every format can print."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fairbench.leaderboard.board import Board, Row, Table
from fairbench.leaderboard.flags import LEGEND
from fairbench.report.blocks import Block, Grid, Heading, Paragraph, Terms, grid
from fairbench.report.evidence_grids import against, chance, further, improvement, odds, probes, sources
from fairbench.report.format import (
    NOTHING,
    fraction,
    gibibytes,
    p_value,
    percent,
    plain,
    seconds,
    share,
    signed,
    whole,
    with_interval,
)

WIDE = 5  # groups beside each other in one grid


def lay_out(board: Board) -> list[Block]:
    """Lay a board out; all text from data is on one line and free of control characters."""
    blocks: list[Block] = [Heading(plain(board.title), 1)]
    for table in board.tables:
        blocks += _table(table)
    used = {flag.code for table in board.tables for row in (*table.rows, *table.controls) for flag in row.flags}
    blocks.append(Heading("How to read this", 2))
    judges = [measure for t in board.tables for measure in (t.measure, *(entry.measure for entry in t.further))]
    measures = {measure.title: measure.about for measure in judges if measure.about}
    read = any(row.probes for table in board.tables for row in (*table.rows, *table.controls))
    absent: set[str] = set() if read else {"Readable"}
    if board.tables and all(table.measure.about for table in board.tables):
        absent |= {"MaxAccGap", "ES-Acc"}  # nothing here is judged by accuracy
    reading = [entry for entry in _READING if entry[0] not in absent]
    blocks.append(Terms((*reading, *measures.items(), *((code, LEGEND[code]) for code in LEGEND if code in used))))
    blocks.append(Paragraph(f"Computed by fairbench {board.fairbench} from saved predictions."))
    return blocks


_READING = (
    (
        "Rank",
        "By MaxAccGap. A method ranks below another only if their paired comparison says so; 1-4 is a tie.",
    ),
    (
        "MaxAccGap",
        "Largest minus smallest group accuracy. EqOdds(max): the larger of the gaps in true and in false"
        " positive rate.",
    ),
    (
        "ES-Acc",
        "Accuracy / (1 + MaxAccGap in points), the reading called fairllava; others are not comparable.",
    ),
    ("[low, high]", "95 % interval, simultaneous over groups for gaps, so that it covers the true gap."),
    (
        "By chance",
        "What the same answers give when groups are shuffled over patients: mean and 95th percentile. p is the"
        " share of such worlds with a gap at least as large.",
    ),
    (
        "Between groups, corrected",
        "Standard deviation of the groups' accuracies less what sampling puts there: steadier than MaxAccGap, all"
        " groups counting alike. Negative: the groups differ less than sampling alone would make them.",
    ),
    (
        "Readable",
        "Balanced accuracy of a fresh linear reader of the attribute, fitted on the training split's pooled hidden"
        " states and tested on the test split's; guessing gives one over the number of values. What this reader"
        " cannot read another may; a model that hides an attribute need not be fair, nor one that shows it unfair.",
    ),
    (
        "p (Holm)",
        "Of the paired comparison with the baseline on the same patients and seeds, adjusted for the number of"
        " rows.",
    ),
)


def _table(table: Table) -> Iterable[Block]:
    place = f"{table.dataset} · {table.backbone} · {table.attribute}"
    if table.measure.about:
        place += f" · by {table.measure.title}"
    yield Heading(plain(place), 2)
    yield Paragraph(plain(" ".join(table.finding)), finding=True)
    if table.rows:
        yield _results(table)
        yield chance(table)
        if table.baseline:
            yield against(table)
            yield from improvement(table)
        yield sources(table)
        yield from further(table)
        yield from probes(table)
        yield from _by_group(table)
        yield _counts(table)
        yield _cost(table)
    yield from _flags(table)
    if table.rows:
        yield _controls(table)
    if table.side_effects:
        yield _side_effects(table)
    if table.excluded:
        yield _excluded(table)
    for note in (*table.notes, *_undefined(table), _trials(table), _data(table)):
        yield Paragraph(plain(note))


def _name(row: Row) -> str:
    return f"{row.label} (baseline)" if row.baseline else row.label


def _worst(row: Row) -> str:
    worst, seeds = row.worst_group, len(row.seeds)
    name = worst.group or NOTHING
    return name if worst.agreeing in (None, seeds) else f"{name} ({worst.agreeing} of {seeds} seeds)"


def _marks(row: Row) -> str:
    return "; ".join(dict.fromkeys(flag.code for flag in row.flags))


def _measured(table: Table) -> list[tuple[str, Callable[[Row], str]]]:
    """Return the columns of a row's measures; what no row of the table defines has none."""
    rows, title = (*table.rows, *table.controls), table.measure.title
    columns: list[tuple[str, Callable[[Row], str]]] = [(f"{title} (%)>", lambda row: percent(row.score.value))]
    if table.classes and any(row.auroc.value is not None or not table.measure.about for row in rows):
        columns.append(("AUROC>", lambda row: fraction(row.auroc.value)))
    columns.append((f"{table.measure.gap} (points)>", lambda row: percent(row.gap.value)))
    if odds(table):
        columns.append(("EqOdds(max) (points)>", lambda row: percent(row.eq_odds_max.value)))
    return columns


def _results(table: Table) -> Grid:
    title = table.measure.title
    read = {
        row.label: found.balanced_accuracy.value
        for row in table.rows
        for found in row.probes
        if found.attribute == table.attribute
    }
    columns: list[tuple[str, Callable[[Row], str]]] = [
        ("Rank", lambda row: row.rank),
        ("Method", _name),
        ("Seeds>", lambda row: str(len(row.seeds))),
        *_measured(table),
        (f"ES-{title} fairllava (%)>", lambda row: percent(row.equity_scaled.value)),
        ("Worst group", _worst),
        (f"Its {title} (%)>", lambda row: percent(row.worst_group.value)),
    ]
    if read:
        columns.append((f"Readable {table.attribute} (%)>", lambda row: percent(read.get(row.label))))
    columns.append(("Flags", _marks))
    rows = [[write(row) for _, write in columns] for row in table.rows]
    seeds = max(len(row.seeds) for row in table.rows)
    return grid("Results, mean over seeds" if seeds > 1 else "Results", [name for name, _ in columns], rows)


def _by_group(table: Table) -> Iterable[Grid]:
    parts = range(0, len(table.groups), WIDE)
    for start in parts:
        groups = table.groups[start : start + WIDE]
        columns = ["Method", *(f"{g.name} (n = {_count(g.n, table)})>" for g in groups)]
        rows = [
            [row.label, *(with_interval(value) for value in row.groups[start : start + WIDE])] for row in table.rows
        ]
        part = f", part {start // WIDE + 1} of {len(parts)}" if len(parts) > 1 else ""
        name = "Accuracy" if table.measure.name == "accuracy" else table.measure.title
        yield grid(f"{name} by group (%){part}", columns, rows)


def _count(n: int | None, table: Table) -> str:
    return "withheld" if n is None and table.min_cell else whole(n)


def _counts(table: Table) -> Grid:
    two = len(table.classes) == 2
    names = (f"{table.classes[1]} (positive)>", f"{table.classes[0]} (negative)>") if two else ()
    rows = [
        [g.name, _count(g.n, table), *((_count(n, table) for n in (g.positives, g.negatives)) if two else ())]
        for g in table.groups
    ]
    return grid("Groups in the test split (rows)", ["Group", "n>", *names], rows)


def _cost(table: Table) -> Grid:
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


def _flags(table: Table) -> Iterable[Grid]:
    rows = [
        [row.label, flag.code, flag.detail]
        for row in (*table.rows, *table.controls)
        for flag in row.flags
        if flag.detail
    ]
    if rows:
        yield grid("Flags in detail", ["Method", "Flag", "Detail"], rows)


def _controls(table: Table) -> Grid:
    measured = _measured(table)
    columns = ["Control", "Seeds>", *(title for title, _ in measured), "Flags"]
    best = table.constant
    written = {
        f"{table.measure.title} (%)>": percent(best.score),
        "AUROC>": fraction(0.5),
        f"{table.measure.gap} (points)>": percent(best.gap),
        "EqOdds(max) (points)>": percent(0.0 if len(table.classes) == 2 else None),
    }
    always = [f"always “{best.answer}” (computed)", "", *(written[title] for title, _ in measured), ""]
    rows = [
        [
            f"{row.label} ({row.control})" if row.control != row.label else row.label,
            str(len(row.seeds)),
            with_interval(row.score),
            *(write(row) for _, write in measured[1:]),
            _marks(row),
        ]
        for row in table.controls
    ]
    return grid("Controls: what a row must beat", columns, [always, *rows])


def _side_effects(table: Table) -> Grid:
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
    return grid("Side effects: what it did to the gaps of other attributes", columns, rows)


def _excluded(table: Table) -> Grid:
    rows = ((a.label, str(a.seed), a.status, a.reason) for a in table.excluded)
    return grid("Not in this table", ("Method", "Seed>", "Status", "Reason"), rows)


def _undefined(table: Table) -> Iterable[str]:
    """Say why cells are empty, once per reason."""
    reasons: dict[str, set[str]] = {}
    for row in (*table.rows, *table.controls):
        cells = {
            "AUROC": row.auroc.reason if row.auroc.value is None else None,
            table.measure.gap: row.gap.reason if row.gap.value is None else None,
            "EqOdds(max)": row.eq_odds_max.reason if row.eq_odds_max.value is None else None,
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


def _trials(table: Table) -> str:
    trials = table.trials
    beyond = trials.settings - trials.methods
    more = f", {beyond} of them beyond the first of their method" if beyond else ""
    return (
        f"Tried here: {_number(trials.methods, 'method')} in {_number(trials.settings, 'setting')}{more};"
        f" {_number(len(trials.seeds), 'seed')} ({', '.join(map(str, trials.seeds))});"
        f" {_number(trials.trainings, 'training')} in all. The best of many tries looks better than it is."
    )


def _data(table: Table) -> str:
    clusters = "" if table.clusters == table.rows_tested else f" in {table.clusters:,} clusters"
    hidden = f" Groups smaller than {table.min_cell} are withheld." if table.min_cell else ""
    selection = ", ".join(sorted({str(row.recipe.get("select")) for row in table.rows})) or "none"
    return (
        f"Test split: {table.rows_tested:,} rows{clusters}; unrecorded {table.attribute}: {table.unrecorded};"
        f" model selection: {selection}; data {table.fingerprint or 'without a fingerprint'}.{hidden}"
    )


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
