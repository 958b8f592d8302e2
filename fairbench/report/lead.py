"""The table that leads: one line a method, each number with its verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fairbench.leaderboard.board import Row, Table
from fairbench.report.blocks import Grid, Paragraph, grid
from fairbench.report.format import NOTHING, fraction, percent, plain
from fairbench.statistics.results import ALPHA, Difference, Gap

BEYOND, UP, DOWN, UNEQUAL, TRADE_OFF = "!", "↑", "↓", "≠", "⇄"
MARKS = {
    BEYOND: "worse than chance gives on these patients",
    DOWN: "lower than the baseline's",
    UP: "higher than the baseline's",
    UNEQUAL: "against the baseline, some group was moved more than another",
    TRADE_OFF: "better than some other row in one respect and worse in another",
}

Column = tuple[str, Callable[[Row], str]]


def lead(table: Table) -> Grid:
    """Show every row's rank, score, disparities with their verdicts, worst group and flags."""
    columns = [
        ("Rank", rank),
        ("Method", name),
        *measures(table, marked=True),
        ("Worst group", worst),
        ("Flags", flags),
        *([("Checked", checked)] if any(row.trust for row in table.rows) else []),
    ]
    titles = [title for title, _ in columns]
    rows = [[write(row) for _, write in columns] for row in table.rows]
    return grid("", titles, [*rows, *_constant(table, titles)])


def legend(table: Table) -> Iterable[Paragraph]:
    """Say what the marks mean that the table shows."""
    last = 2 + len(measures(table))
    cells = [cell for line in lead(table).rows[: len(table.rows)] for cell in (line[0], *line[2:last])]
    used = [f"{mark} {meaning}" for mark, meaning in MARKS.items() if any(mark in cell.split() for cell in cells)]
    if used:
        yield Paragraph(f"{'; '.join(used)}. All are tested, and adjusted for the number of comparisons.")
    else:
        yield Paragraph(
            "No number is marked: none is shown to be worse than chance or to differ from the baseline."
        )


def measures(table: Table, marked: bool = False) -> list[Column]:
    """Return the columns of a row's measures; what no row of the table defines has none."""
    rows, title = (*table.rows, *table.controls), table.measure.title

    def write(value: float | None, *marks: str) -> str:
        return " ".join([percent(value), *(mark for mark in marks if mark and marked)])

    columns: list[Column] = [(f"{title} (%)>", lambda row: write(row.score.value, _direction(row, "score")))]
    if table.classes and any(row.auroc.value is not None or not table.measure.about for row in rows):
        columns.append(("AUROC>", lambda row: fraction(row.auroc.value)))
    columns.append(
        (
            f"{table.measure.gap} (points)>",
            lambda row: write(row.gap.value, _beyond(row.gap), _direction(row, "gap"), _unequal(row, "score")),
        )
    )
    if has_odds(table):
        columns.append(
            (
                "EqOdds(max) (points)>",
                lambda row: write(
                    row.eq_odds_max.value,
                    _beyond(row.eq_odds_max),
                    _direction(row, "eq_odds_max"),
                    _unequal(row, "eq_odds_max"),
                ),
            )
        )
    columns.append(
        (
            f"ES-{title} (%)>",
            lambda row: write(
                row.equity_scaled.value, _beyond(row.equity_scaled), _direction(row, "equity_scaled")
            ),
        )
    )
    return columns


def has_odds(table: Table) -> bool:
    """Whether the table has columns of EqOdds: where classes are judged, which may be why it is undefined."""
    return any(row.eq_odds_max.value is not None for row in table.rows) or not table.measure.about


def rank(row: Row) -> str:
    """Return a rank, marked where the row trades one respect off against another."""
    return f"{row.rank} {TRADE_OFF}" if row.trade_offs else row.rank


def name(row: Row) -> str:
    """Return a row's name, whether it is the baseline, and who made its method if that is not fairbench."""
    by = third_party(row)
    said = [*(["baseline"] if row.role == "baseline" else []), *([f"by {by}"] if by else [])]
    return f"{row.label} ({', '.join(said)})" if said else row.label


def third_party(row: Row) -> str:
    """Return which distribution or file, with its version, provides a row's method; empty for fairbench's own."""
    provider = row.versions.get("method", "").partition("+")[0]
    return "" if provider.partition(" ")[0] in ("", "fairbench") else provider


def worst(row: Row) -> str:
    """Name the worst group with its value, and how many seeds agree where they do not all."""
    group, seeds = row.worst_group, len(row.seeds)
    if group.value is None or group.group is None:
        return NOTHING
    agreeing = "" if group.agreeing in (None, seeds) else f", {group.agreeing} of {seeds} seeds"
    return f"{group.group} ({percent(group.value)}{agreeing})"


def checked(row: Row) -> str:
    """Say how far a published row was checked."""
    return row.trust or ""


def flags(row: Row) -> str:
    """Return the codes of a row's flags."""
    return "; ".join(dict.fromkeys(flag.code for flag in row.flags))


def _constant(table: Table, titles: list[str]) -> Iterable[list[str]]:
    """What answers that look at nothing would score, so that a gap can be read beside it."""
    cells = constant_cells(table)
    if table.constant and cells:
        yield [
            cells.get(title, f"always “{plain(table.constant.answer)}”" if title == "Method" else "")
            for title in titles
        ]


def constant_cells(table: Table) -> dict[str, str]:
    """The commonest answer's numbers, by the title of the column."""
    best = table.constant
    if best is None:
        return {}
    scaled = None if best.gap is None else best.score / (1 + 100 * best.gap)
    # What is undefined for every row, as where there is one group or one class, is so for this one.
    rows = (*table.rows, *table.controls)
    # An answer for each question is not one answer: its rates are not told.
    auroc = 0.5 if best.one_class and any(row.auroc.value is not None for row in rows) else None
    odds = 0.0 if best.one_class and any(row.eq_odds_max.value is not None for row in rows) else None
    return {
        f"{table.measure.title} (%)>": percent(best.score),
        "AUROC>": fraction(auroc),
        f"{table.measure.gap} (points)>": percent(best.gap),
        "EqOdds(max) (points)>": percent(odds),
        f"ES-{table.measure.title} (%)>": percent(scaled),
    }


def _beyond(gap: Gap) -> str:
    return BEYOND if gap.adjusted is not None and gap.adjusted <= ALPHA else ""


def _direction(row: Row, key: str) -> str:
    change = row.changes.get(key, Difference())
    if not change.significant or not change.value:
        return ""
    return UP if change.value > 0 else DOWN


def _unequal(row: Row, key: str) -> str:
    moved = row.interactions.get(key)
    return UNEQUAL if moved is not None and moved.significant else ""
