"""What a leaderboard says and in which order: first what is found, then what stands behind it, folded away."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fairbench.leaderboard.board import Board, Table
from fairbench.leaderboard.flags import LEGEND
from fairbench.leaderboard.sentences import finding, notes
from fairbench.report import appendix, details
from fairbench.report.blocks import Block, Fold, Grid, Heading, Paragraph, Points, Terms
from fairbench.report.format import plain
from fairbench.report.lead import lead, legend

ONE_TEST = "a method stands above another only if their paired comparison says so; 1-4 is a tie."
RANKINGS = {
    "dominance": "By dominance: a method stands above another where the paired tests find it better in accuracy, in"
    " the worst group or in MaxAccGap, and worse in none. All pairs are tested, and p-values adjusted for all of"
    " them; 1-4 is a tie.",
    "dominance-odds": "By dominance in accuracy, worst group, MaxAccGap and EqOdds(max): a method stands above"
    " another where the paired tests find it better in one of them and worse in none; 1-4 is a tie.",
    "gap": f"By MaxAccGap alone: {ONE_TEST}",
    "worst-group": f"By the worst group's score alone: {ONE_TEST}",
    "score": f"By the score alone: {ONE_TEST}",
    "dto": f"By distance to the optimum, √((1 − score)² + MaxAccGap²): {ONE_TEST}",
}
HOW_TO_READ = "How to read this"
TRUST = {
    "self-reported": "Nothing is attached that its numbers follow from.",
    "counts attached": "Its values were recomputed from counts of answers; that these are the model's is its lab's"
    " word.",
    "predictions attached": "Its values, intervals and p-values were recomputed from every answer; that these are"
    " the model's is its lab's word.",
    "re-predicted": "At least one of its models was loaded and gave its answers again.",
    "retrained": "At least one of its jobs was trained again from nothing and gave its answers.",
}
TERMS = (
    (
        "MaxAccGap",
        "Largest minus smallest group accuracy. EqOdds(max): the larger of the gaps in true and in false"
        " positive rate.",
    ),
    (
        "ES-Acc",
        "Accuracy / (1 + MaxAccGap in points), the reading called fairllava; others are not comparable. It falls"
        " steeply in the first points of a gap, so that on few patients it is mostly noise: a fair method of 80 %"
        " can show anything from 9 to 41.",
    ),
    (
        "[low, high]",
        "95 % interval of this number alone, simultaneous over groups for gaps, so that it covers the true gap. p"
        " (Holm) is adjusted for the other rows, too, so an interval may leave out 0 where p shows nothing.",
    ),
    (
        "By chance",
        "What the same answers give when groups are shuffled over patients: mean and 95th percentile. p is the"
        " share of such draws in which some two groups are as many standard errors apart: a small gap of large"
        " groups may be clear, and a large one of small groups nothing.",
    ),
    (
        "MaxAccGap at one class mix",
        "The gap if every group had the same share of ill patients as all together: how well groups are told apart,"
        " without how ill they are.",
    ),
    (
        "Between groups, corrected",
        "Standard deviation of the groups' accuracies less what sampling puts there: steadier than MaxAccGap, all"
        " groups counting alike. Negative: the groups differ less than sampling alone would make them.",
    ),
    (
        "Moved against",
        "How much more one group's patients gained than another's, method minus baseline on the same patients, with"
        " an interval for all pairs of groups together. It finds effects that a difference of two gaps is too"
        " coarse to see, and is another question: groups can move while the gap stays as wide.",
    ),
    (
        "Readable",
        "Balanced accuracy of a linear probe of the attribute, fitted afresh on the training split's pooled hidden"
        " states and tested on the test split's; chance gives one over the number of values. What this probe"
        " cannot read another may; a model that hides an attribute need not be fair, nor one that shows it unfair.",
    ),
    (
        "p (Holm)",
        "Of the paired comparison with the baseline on the same patients and seeds, adjusted for the number of"
        " comparisons; for accuracy, worst group and MaxAccGap these are all pairs of rows, as in the ranks.",
    ),
)


def lay_out(board: Board) -> list[Block]:
    """Lay a board out; all text from data is on one line and free of control characters."""
    blocks: list[Block] = [Heading(plain(board.title), 1)]
    for table in board.tables:
        blocks += _table(table)
    return [*blocks, *closing(board)]


def closing(board: Board) -> Iterable[Block]:
    """Say what could not be read, what the words mean, and what computed it all."""
    yield from (Paragraph(plain(f"{one}. It may belong to a table above.")) for one in board.refused)
    yield Fold(HOW_TO_READ, (Terms(tuple(_terms(board))),))
    yield Paragraph(f"Computed by fairbench {plain(board.fairbench)} from saved predictions.")


def _terms(board: Board) -> Iterable[tuple[str, str]]:
    """Explain what the tables show, and no more."""
    rows = [row for table in board.tables for row in (*table.rows, *table.controls)]
    for ranking in dict.fromkeys(table.ranked_by for table in board.tables):
        yield "Rank", RANKINGS[ranking]
    absent: set[str] = set() if any(row.probes for row in rows) else {"Readable"}
    if board.tables and all(table.measure.about for table in board.tables):
        absent |= {"MaxAccGap", "ES-Acc"}  # nothing here is judged by accuracy
    if not any(row.standardised_gap.value is not None for row in rows):
        absent.add("MaxAccGap at one class mix")
    if not any(row.interactions for row in rows):
        absent.add("Moved against")
    yield from (entry for entry in TERMS if entry[0] not in absent)
    judges = [measure for t in board.tables for measure in (t.measure, *(one.measure for one in t.further))]
    yield from {plain(measure.title): plain(measure.about) for measure in judges if measure.about}.items()
    levels = {row.trust for row in rows}
    yield from ((f"Checked: {level}", meaning) for level, meaning in TRUST.items() if level in levels)
    used = {flag.code for row in rows for flag in row.flags}
    yield from ((code, meaning) for code, meaning in LEGEND.items() if code in used)


@dataclass(frozen=True)
class Section:
    """One table, laid out: where it is about, what it says, the leading grid, remarks, and what is folded away."""

    place: str
    conclusion: str
    points: tuple[str, ...]
    lead: Grid | None
    remarks: tuple[Block, ...]
    folds: tuple[Fold, ...]


def section(table: Table) -> Section:
    """Lay one table out."""
    place = table.place
    if table.measure.about:
        place += f" · by {table.measure.title}"
    conclusion, *rest = map(plain, finding(table))
    remarks: list[Block] = [Paragraph(plain(f"These rows stand {table.apart}."))] if table.apart else []
    remarks += legend(table) if table.rows else appendix.excluded(table)
    said = (*notes(table), *appendix.undefined(table), *appendix.left_out(table))
    remarks += [Paragraph(plain(note)) for note in said]
    return Section(
        plain(place),
        conclusion,
        tuple(rest),
        lead(table) if table.rows else None,
        tuple(remarks),
        tuple(Fold(title, tuple(blocks)) for title, blocks in _folded(table).items() if blocks),
    )


def _table(table: Table) -> Iterable[Block]:
    laid = section(table)
    yield Heading(laid.place, 2)
    yield Paragraph(laid.conclusion, finding=True)
    if laid.points:
        yield Points(laid.points)
    if laid.lead:
        yield laid.lead
    yield from laid.remarks
    yield from laid.folds


def _folded(table: Table) -> dict[str, list[Block]]:
    """What stands behind a table, by the question that it answers."""
    about: list[Block] = [Paragraph(plain(text)) for text in (appendix.trials(table), appendix.data(table))]
    if not table.rows:
        shown: list[Block] = [appendix.controls(table)] if table.controls else []
        return {"Controls and side effects": shown, "Jobs and data": about}
    against = [*details.against(table), *details.moved(table)] if table.baseline else []
    return {
        "Is it more than chance?": [details.chance(table), *details.more_chance(table), details.sources(table)],
        "What changed against the baseline?": [*against, *details.trade_offs(table), *details.improvement(table)],
        "Groups": [*appendix.by_group(table), appendix.counts(table)],
        "Other measures": [*details.further(table), *details.probes(table)],
        "Controls and side effects": [appendix.controls(table), *appendix.side_effects(table)],
        "Jobs and data": [
            appendix.cost(table),
            *appendix.origins(table),
            *appendix.flag_details(table),
            *appendix.excluded(table),
            *about,
        ],
    }
