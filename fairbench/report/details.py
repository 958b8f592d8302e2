"""What the evidence looks like: beside chance, beside the baseline, and where its variance comes from."""

from __future__ import annotations

from collections.abc import Iterable

from fairbench.leaderboard.board import Table
from fairbench.report.blocks import Grid, Paragraph, grid
from fairbench.report.format import fraction, p_value, percent, plain, root, signed, with_interval
from fairbench.report.lead import has_odds
from fairbench.statistics.results import Difference


def chance(table: Table) -> Grid:
    """Set every gap beside what chance gives, and beside the corrected deviation between groups."""
    columns = ["Method"]
    names = (table.measure.gap, "EqOdds(max)") if has_odds(table) else (table.measure.gap,)
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


def more_chance(table: Table) -> Iterable[Grid]:
    """Set the standardised gap and the equity-scaled measure beside what chance gives."""
    columns = ["Method"]
    scaled = f"ES-{table.measure.title} fairllava (%)>"
    same_mix = any(row.standardised_gap.value is not None for row in table.rows)
    for name in ([f"{table.measure.gap} at one class mix (points)>"] if same_mix else []) + [scaled]:
        columns += [name, "By chance: mean>", "worst 5 %>", "p>"]
    rows = []
    for row in table.rows:
        cells = [row.label]
        for gap in ([row.standardised_gap] if same_mix else []) + [row.equity_scaled]:
            cells += [with_interval(gap), percent(gap.floor_mean), percent(gap.floor_95), p_value(gap.p)]
        rows.append(cells)
    if any(row.equity_scaled.p is not None for row in table.rows):
        yield grid("The same of other summaries", columns, rows)


def against(table: Table) -> Iterable[Grid]:
    """List every method minus the baseline."""
    title = table.measure.title
    names = {
        "score": title,
        "worst_group": f"Worst group {title}",
        "gap": table.measure.gap,
        "eq_odds_max": "EqOdds(max)",
        "equity_scaled": f"ES-{title}",
    }
    others = [row for row in table.rows if row.label != table.baseline]
    shown = {key: name for key, name in names.items() if any(key in row.changes for row in others)}
    columns = ["Method", *(cell for name in shown.values() for cell in (f"{name} (points)>", "p (Holm)>"))]
    rows = []
    for row in others:
        changes = [row.changes.get(key, Difference()) for key in shown]
        rows.append([row.label, *(cell for one in changes for cell in (signed(one), p_value(one.adjusted)))])
    yield grid(f"Difference to {table.baseline}, on the same test rows", columns, rows)


def moved(table: Table) -> Iterable[Grid]:
    """List who was moved against whom."""
    rows = []
    for row in table.rows:
        for interaction in row.interactions.values():
            for one in interaction.contrasts:
                p = p_value(interaction.adjusted)
                rows.append([row.label, one.rate, one.group, signed(one), one.against, p])
    if rows:
        columns = ["Method", "In", "Moved", "By (points)>", "Against", "p (Holm) of the method>"]
        yield grid(f"Who was moved against whom, compared with {table.baseline}", columns, rows)


def trade_offs(table: Table) -> Iterable[Grid]:
    """List the pairs that no order tells apart because each is better in one respect."""
    rows = [[row.label, one] for row in table.rows for one in row.trade_offs]
    if rows:
        yield grid("Trade-offs, which the ranks leave open", ["Method", "Is"], rows)


def improvement(table: Table) -> Iterable[Paragraph]:
    """Say what cut of the baseline's gap would be found, and what was assumed for it."""
    smallest = table.improvement
    if smallest is None:
        return
    cut = smallest.cut
    what = f"The smallest improvement over {table.baseline} that this test set detects with 80 % power"
    if smallest.gap is None:
        yield Paragraph(plain(f"{what} is undefined: {cut.reason}."))
        return
    accuracy = table.measure.name == "accuracy"
    alike = "which method and baseline are both right or both wrong" if accuracy else "which both score alike"
    size = f"a cut of its gap by {percent(cut.value)} points" if cut.value is not None else cut.reason
    yield Paragraph(
        plain(
            f"{what}, whichever group holds the gap: {size}. For one trained model of each, taking as true what"
            f" was measured: {table.baseline}'s {table.measure.noun} of {percent(smallest.score)} % where the group"
            f" is recorded and gap of"
            f" {percent(smallest.gap)} points, and {percent(smallest.agreement)} % of rows (median of the methods)"
            f" on {alike}."
        )
    )


def sources(table: Table) -> Grid | Paragraph:
    """Split the gaps' variance between seeds and test rows; with one seed each there is nothing to split."""
    split = [(row, row.gap_variance) for row in table.rows if row.gap_variance]
    if all(parts.seed is None for _, parts in split):
        why = "; ".join(dict.fromkeys(parts.advice for _, parts in split)) or "no gap is defined"
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
        for row, parts in split
    ]
    columns = (
        "Method",
        "Seeds>",
        "From the seed (points)>",
        "From the test set (points)>",
        "Seed's share of the variance (%)>",
        "What would narrow it",
    )
    return grid(
        f"Why {table.measure.gap} would come out differently another time (standard deviations)", columns, rows
    )


def further(table: Table) -> Iterable[Grid]:
    """Set each further measure beside chance and beside the baseline."""
    for entry in table.further:
        if entry.missing:
            continue
        title, shown = entry.measure.title, percent if entry.measure.scale == "percent" else fraction
        unit, points = (" (%)", " (points)") if shown is percent else ("", "")
        columns = ["Method", f"{title}{unit}>", f"Gap{points}>", "By chance: mean>", "95th>", "p>"]
        columns += [f"ES-{title} fairllava (%)>", f"Gap's difference{points}>", "p (Holm)>"]
        rows = (
            (
                row.label,
                # Where a test says how sure the gap is, the score's interval would only widen the table.
                with_interval(row.score, shown) if row.gap.p is None else shown(row.score.value),
                with_interval(row.gap, shown),
                shown(row.gap.floor_mean),
                shown(row.gap.floor_95),
                p_value(row.gap.p),
                percent(row.equity_scaled.value),
                signed(row.change),
                p_value(row.change.adjusted),
            )
            for row in entry.rows
        )
        yield grid(f"By {title}", columns, rows)


def probes(table: Table) -> Iterable[Grid]:
    """Say of each attribute how well a linear probe tells it from the hidden states."""
    attributes = dict.fromkeys(r.attribute for row in (*table.rows, *table.controls) for r in row.probes)
    for attribute in attributes:
        read = [(row.label, r) for row in (*table.rows, *table.controls) for r in row.probes]
        rows = [
            (label, with_interval(r.balanced_accuracy), percent(r.chance), fraction(r.auroc), p_value(r.p), r.where)
            for label, r in read
            if r.attribute == attribute
        ]
        columns = ("Method", "Balanced accuracy (%)>", "Chance>", "AUROC>", "p>", "Read from")
        yield grid(f"Can {attribute} still be read from the model?", columns, rows)
