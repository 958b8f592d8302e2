"""What the evidence looks like: beside chance, beside the baseline, and where its variance comes from."""

from __future__ import annotations

from collections.abc import Iterable

from fairbench.leaderboard.board import Table
from fairbench.report.blocks import Grid, Paragraph, grid
from fairbench.report.format import fraction, p_value, percent, plain, root, signed, with_interval
from fairbench.statistics.results import Difference


def odds(table: Table) -> bool:
    """Whether the table has columns of EqOdds: where classes are judged, which may be why it is undefined."""
    return any(row.eq_odds_max.value is not None for row in table.rows) or not table.measure.about


def chance(table: Table) -> Grid:
    """Set every gap beside what chance gives, and beside the corrected deviation between groups."""
    columns = ["Method"]
    names = (table.measure.gap, "EqOdds(max)") if odds(table) else (table.measure.gap,)
    for name in names:
        columns += [f"{name} (points)>", "By chance: mean>", "95th>", "p>"]
    columns.append("Between groups, corrected (points)>")
    rows = []
    for row in table.rows:
        cells = [row.label]
        for gap in (row.gap, row.eq_odds_max)[: len(names)]:
            cells += [with_interval(gap), percent(gap.floor_mean), percent(gap.floor_95), p_value(gap.p)]
        rows.append([*cells, percent(root(row.between_groups.value))])
    return grid("Is the gap more than chance gives?", columns, rows)


def against(table: Table) -> Grid:
    """List every method minus the baseline."""
    title = table.measure.title
    measures = (("gap", table.measure.gap), ("worst_group", f"Worst group {title}"), ("score", title))
    columns = ["Method"]
    for _, name in measures:
        columns += [f"{name} (points)>", "p (Holm)>"]
    rows = []
    for row in table.rows:
        if row.label == table.baseline:
            continue
        found = [row.changes.get(measure, Difference()) for measure, _ in measures]
        cells = [cell for change in found for cell in (signed(change), p_value(change.adjusted))]
        rows.append([row.label, *cells])
    return grid(f"Difference to {table.baseline}, on the same test rows", columns, rows)


def improvement(table: Table) -> Iterable[Paragraph]:
    """Say what cut of the baseline's gap would be found, and what was assumed for it."""
    found = table.improvement
    if found is None:
        return
    cut = found.cut
    what = f"The smallest improvement over {table.baseline} that this test set detects with 80 % power"
    if found.gap is None:
        yield Paragraph(plain(f"{what} is undefined: {cut.reason}."))
        return
    accuracy = table.measure.name == "accuracy"
    score = "accuracy" if accuracy else table.measure.title
    alike = "which method and baseline are both right or both wrong" if accuracy else "which both score alike"
    size = f"a cut of its gap by {percent(cut.value)} points" if cut.value is not None else cut.reason
    yield Paragraph(
        plain(
            f"{what}, whichever group holds the gap: {size}. For one trained model of each, taking as true what"
            f" was measured: {table.baseline}'s {score} of {percent(found.score)} % and gap of"
            f" {percent(found.gap)} points, and {percent(found.agreement)} % of rows (median of the methods) on"
            f" {alike}."
        )
    )


def sources(table: Table) -> Grid | Paragraph:
    """Split the gaps' variance between seeds and test rows; with one seed each there is nothing to split."""
    found = [(row, row.gap_variance) for row in table.rows if row.gap_variance]
    if all(parts.seed is None for _, parts in found):
        why = "; ".join(dict.fromkeys(parts.advice for _, parts in found)) or "no gap is defined"
        return Paragraph(plain(f"How much of a gap's variance is the seed's is undefined: {why}."))
    rows = [
        [
            row.label,
            str(parts.seeds),
            percent(root(parts.seed)),
            percent(root(parts.sample)),
            percent(parts.seed_share),
            parts.advice,
        ]
        for row, parts in found
    ]
    columns = (
        "Method",
        "Seeds>",
        "From the seed (points)>",
        "From the test set (points)>",
        "Seed's share of the variance (%)>",
        "Which to buy more of",
    )
    return grid(
        f"Why {table.measure.gap} would come out differently another time (standard deviations)", columns, rows
    )


def further(table: Table) -> Iterable[Grid]:
    """Set each further measure beside chance and beside the baseline."""
    for entry in table.further:
        title = entry.measure.title
        columns = ["Method", f"{title} (%)>", "Gap (points)>", "By chance: mean>", "95th>", "p>"]
        columns += [f"ES-{title} fairllava (%)>", "Gap's difference (points)>", "p (Holm)>"]
        rows = (
            (
                row.label,
                percent(row.score.value),
                with_interval(row.gap),
                percent(row.gap.floor_mean),
                percent(row.gap.floor_95),
                p_value(row.gap.p),
                percent(row.equity_scaled.value),
                signed(row.change),
                p_value(row.change.adjusted),
            )
            for row in entry.rows
        )
        yield grid(f"By {title}", columns, rows)


def probes(table: Table) -> Iterable[Grid]:
    """Say of each attribute how well a fresh reader tells it from the hidden states."""
    attributes = dict.fromkeys(r.attribute for row in (*table.rows, *table.controls) for r in row.probes)
    for attribute in attributes:
        found = [(row.label, r) for row in (*table.rows, *table.controls) for r in row.probes]
        rows = [
            (label, with_interval(r.balanced_accuracy), percent(r.chance), fraction(r.auroc), p_value(r.p), r.where)
            for label, r in found
            if r.attribute == attribute
        ]
        columns = ("Method", "Balanced accuracy (%)>", "Guessing>", "AUROC>", "p>", "Read from")
        yield grid(f"Can {attribute} still be read from the model?", columns, rows)
