"""What `score` and `compare` print on a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console

from fairbench.leaderboard.compare import PairedScores
from fairbench.metrics.conventions import Converted
from fairbench.metrics.metric import RATES
from fairbench.metrics.score import AttributeScores, RowScores, Scores
from fairbench.report.console import heading, notes, table, title
from fairbench.report.format import NOTHING, fraction, p_value, percent, signed, whole, with_interval
from fairbench.statistics.results import Difference, Estimate, Gap, Interaction

# The rates worth a column, with their titles, and where answers are texts their row scores; the rest is in --json.
SHOWN = {"accuracy": "Acc (%)", "tpr": "TPR (%)", "fpr": "FPR (%)", "auroc": "AUROC"}
GAPS = {
    "max_acc_gap": "MaxAccGap",
    "standardised_acc_gap": "MaxAccGap at one class mix",
    "eq_odds_max": "EqOdds(max)",
    "eq_odds_mean": "EqOdds(mean)",
    "eq_odds_ovr_max": "EqOdds(max, one-vs-rest)",
    "dp_difference": "Demographic parity",
    "auroc_gap": "AUROC gap",
    "worst_group": "Worst-group accuracy",
    "es_accuracy": "ES-Acc (fairllava)",
}


def scores(result: Scores, name: str, console: Console) -> None:
    """Print groups, then gaps with their evidence."""
    counts = result.overall.counts
    said = [f"{counts['n']:,} rows"]
    if "positives" in counts:
        negative, positive = result.classes
        said += [f"{counts['positives']:,} {positive} (positive)", f"{counts['negatives']:,} {negative}"]
    if counts.get("unparsed"):
        said.append(f"{counts['unparsed']:,} answers name no class and count as wrong")
    title(console, name, ", ".join(said))
    for attribute, part in result.attributes.items():
        heading(console, attribute)
        _groups(console, result, part)
        _gaps(console, result, part)
        notes(console, _remarks(result, part))


def _groups(console: Console, result: Scores, part: AttributeScores) -> None:
    metrics = result.overall.metrics
    columns = {key: text for key, text in SHOWN.items() if key in metrics and metrics[key].value is not None}
    columns |= {key: f"{key} (%)" for key in _text_metrics(result)}
    counted = ("positives", "negatives") if "positives" in result.overall.counts else ()
    titles = ["Group", "n>", *(("pos>", "neg>") if counted else ()), *(f"{text}>" for text in columns.values())]

    def line(name: str, group: RowScores) -> list[str]:
        sizes = [whole(group.counts[key]) for key in ("n", *counted)]
        return [name, *sizes, *(_rate(group.metrics[key], key) for key in columns)]

    rows = [line("all", result.overall), *(line(name, group) for name, group in part.groups.items())]
    table(console, titles, rows)


def _rate(estimate: Estimate, key: str) -> str:
    if key != "auroc":
        return with_interval(estimate)
    ends = f" [{fraction(estimate.low)}, {fraction(estimate.high)}]" if estimate.interval else ""
    return fraction(estimate.value) + ends


def _text_metrics(result: Scores) -> list[str]:
    """Return the metrics of texts that score rows, which are not among the rates of classes."""
    if "auroc" in result.overall.metrics and result.overall.metrics["auroc"].value is not None:
        return []  # probabilities of classes, so no texts
    rates = {metric.name for metric in RATES}
    return [key for key, one in result.overall.metrics.items() if one.interval and key not in rates]


def _gaps(console: Console, result: Scores, part: AttributeScores) -> None:
    titles = {key: text for key, text in GAPS.items() if key in part.disparities}
    for key in _text_metrics(result):
        own = {f"{key}_gap": f"{key} gap", f"worst_{key}": f"worst {key}", f"es_{key}": f"ES-{key} (fairllava)"}
        titles |= {name: text for name, text in own.items() if name in part.disparities}
    console.print()
    columns = (
        "Between groups (points or %)",
        "value [95 %]>",
        "chance: mean>",
        "worst 5 %>",
        "p>",
        "excess>",
        "detectable>",
        "over",
    )
    table(console, columns, [_gap_line(text, part.disparities[key]) for key, text in titles.items()])


def _gap_line(text: str, gap: Gap) -> list[str]:
    numbers = (gap.floor_mean, gap.floor_95)
    over = "{} of {} groups".format(*gap.coverage) if gap.coverage else ""
    return [
        f"{text}: {gap.group}" if gap.group else text,
        with_interval(gap),
        *map(percent, numbers),
        p_value(gap.p),
        percent(gap.excess),
        percent(gap.detectable),
        over,
    ]


def _remarks(result: Scores, part: AttributeScores) -> Iterable[str]:
    for key, text in GAPS.items():
        if key in part.disparities:
            gap = part.disparities[key]
            if gap.reason:
                yield f"{text}: {gap.reason}"
            yield from gap.notes
    for key, text in SHOWN.items():
        if key in result.overall.metrics and (reason := result.overall.metrics[key].reason):
            yield f"{text.split(' ')[0]}: {reason}"
    named = {"all": result.overall, **part.groups}
    wide = {name: one.metrics["auroc"].notes for name, one in named.items() if "auroc" in one.metrics}
    for note in dict.fromkeys(note for said in wide.values() for note in said):
        yield f"AUROC of {', '.join(name for name, said in wide.items() if note in said)}: {note}"
    if part.unrecorded:
        yield f"{part.unrecorded:,} rows are unrecorded: {part.policy}"


def converted(result: Converted, console: Console) -> None:
    """Print another project's numbers in its own scale."""
    title(console, f"as {result.convention}", result.source)
    for attribute, numbers in result.attributes.items():
        heading(console, attribute)
        rows = [
            (name, NOTHING if gap.value is None else f"{gap.value:.4f}", formula)
            for name, (formula, gap) in numbers.items()
        ]
        table(console, ("Number", "Value>", "Formula"), rows)
        reasons: dict[str, list[str]] = {}
        for name, (_, gap) in numbers.items():
            for said in (gap.reason,) if gap.reason else gap.notes:
                reasons.setdefault(said, []).append(name)
        notes(console, [f"{', '.join(names)}: {said}" for said, names in reasons.items()])


NAMES = GAPS | {"dto": "Distance to the optimum (DTO)"}


def comparison(result: PairedScores, a: str, b: str, console: Console) -> None:
    """Print A minus B in points, and who was moved against whom."""
    title(console, "A − B on the same rows", f"{result.rows:,} rows; A is {a}, B is {b}")
    rows = [(name, "all rows", *_difference(one)) for name, one in result.overall.items()]
    for attribute, part in result.attributes.items():
        rows += [(NAMES.get(key, key), attribute, *_difference(one)) for key, one in part.differences.items()]
    table(console, ("", "Between groups of", "A − B (points)>", "p>", "Remark"), rows)
    for attribute, part in result.attributes.items():
        moved = [line for one in part.interactions.values() for line in _moved(one)]
        if moved:
            heading(console, f"Whom A moved against whom, compared with B, by {attribute}")
            table(console, ("In", "Moved", "By (points)>", "Against", "p>"), moved)
    notes(console, result.notes)


def _difference(one: Difference) -> tuple[str, str, str]:
    return signed(one), p_value(one.p), one.reason or ""


def _moved(one: Interaction) -> Iterable[tuple[str, ...]]:
    for contrast in one.contrasts:
        yield contrast.rate, contrast.group, signed(contrast), contrast.against, p_value(contrast.p)
