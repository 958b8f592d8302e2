"""What `score`, `compare`, `status` and `probe` print on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from fairbench.metrics.metric import RATES as METRICS
from fairbench.report.blocks import Grid
from fairbench.report.format import NOTHING, fraction, p_value, percent, plain, whole
from fairbench.report.terminal import grid

Json = dict[str, Any]

# The rates worth a column, with their titles, and where answers are texts their row scores; the rest is in --json.
RATES = {"accuracy": "Acc (%)", "tpr": "TPR (%)", "fpr": "FPR (%)", "auroc": "AUROC"}
GAPS = {
    "max_acc_gap": "MaxAccGap",
    "eq_odds_max": "EqOdds(max)",
    "eq_odds_mean": "EqOdds(mean)",
    "eq_odds_ovr_max": "EqOdds(max, one-vs-rest)",
    "dp_difference": "Demographic parity",
    "auroc_gap": "AUROC gap",
    "worst_group": "Worst-group accuracy",
    "es_accuracy": "ES-Acc (fairllava)",
}


def scores(found: Json, name: str, console: Console) -> None:
    """Print `fairbench.leaderboard.files.judged`: groups, then gaps with their evidence."""
    counts = [f"{found['n']:,} rows"]
    if "positives" in found:
        negative, positive = found["classes"]
        counts += [f"{found['positives']:,} {positive} (positive)", f"{found['negatives']:,} {negative}"]
    if found.get("unparsed"):
        counts.append(f"{found['unparsed']:,} answers name no class and count as wrong")
    _title(console, name, ", ".join(counts))
    for attribute, part in found["attributes"].items():
        _heading(console, attribute)
        _groups(console, found, part)
        _gaps(console, part, _between(found, part))
        _notes(console, _reasons(found, part))


def _groups(console: Console, found: Json, part: Json) -> None:
    rates = {key: title for key, title in RATES.items() if found["overall"].get(key) is not None} | _texts(found)
    counted = "positives" in found
    columns = [
        "Group",
        "n>",
        *(("pos>", "neg>") if counted else ()),
        *(f"{t}>" for t in rates.values()),
    ]
    rows = []
    for name, group in [("all", found | found["overall"]), *part["groups"].items()]:
        sizes = [whole(group["n"]), *((whole(group["positives"]), whole(group["negatives"])) if counted else ())]
        rows.append([name, *sizes, *(_rate(group, key) for key in rates)])
    _table(console, "", columns, rows)


def _rate(group: Json, key: str) -> str:
    value = group.get(key)
    write = fraction if key == "auroc" else percent
    ends = group.get("ci", {}).get(key)
    if value is None or not ends:
        return write(value)
    return f"{write(value)} [{write(ends[0])}, {write(ends[1])}]"


def _texts(found: Json) -> dict[str, str]:
    """Return the titles of the scores of texts, which are not among the rates of any predictions."""
    if found["overall"].get("auroc") is not None:  # probabilities of classes, so no texts
        return {}
    rates = {metric.name for metric in METRICS}
    return {key: f"{key} (%)" for key in found["overall"].get("ci", {}) if key not in rates}


def _between(found: Json, part: Json) -> dict[str, str]:
    """Return which disparities to print, with their titles."""
    titles = {key: title for key, title in GAPS.items() if key in part}
    for key in _texts(found):
        own = {f"{key}_gap": f"{key} gap", f"worst_{key}": f"worst {key}", f"es_{key}": f"ES-{key} (fairllava)"}
        titles |= {name: title for name, title in own.items() if name in part}
    return titles


def _gaps(console: Console, part: Json, titles: dict[str, str]) -> None:
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
    rows = []
    for key, title in titles.items():
        one = part[key]
        ends = f" [{percent(one['ci'][0])}, {percent(one['ci'][1])}]" if one["ci"] else ""
        coverage = "{} of {} groups".format(*one["coverage"])
        rows.append(
            (
                f"{title}: {one['group']}" if "group" in one else title,
                percent(one["value"]) + ends,
                percent(one["floor_mean"]),
                percent(one["floor_95"]),
                p_value(one["p"]),
                percent(one["excess"]),
                percent(one["detectable"]),
                coverage,
            )
        )
    _table(console, "", columns, rows)


def _reasons(found: Json, part: Json) -> Iterable[str]:
    for key, title in GAPS.items():
        one = part.get(key, {})
        if one.get("reason"):
            yield f"{title}: {one['reason']}"
        yield from one.get("flags", ())
    for key, reason in found["overall"].get("undefined", {}).items():
        if key in RATES:
            yield f"{RATES[key].split(' ')[0]}: {reason}"
    unrecorded = part["unrecorded"]
    if unrecorded["rows"]:
        yield f"{unrecorded['rows']:,} rows are unrecorded: {unrecorded['policy']}"


def converted(found: Json, console: Console) -> None:
    """Print `fairbench.metrics.conventions.convert`: another project's numbers in its own scale."""
    _title(console, f"as {found['convention']}", found["source"])
    for attribute, rules in found["attributes"].items():
        _heading(console, attribute)
        rows = [
            (
                name,
                NOTHING if one["value"] is None else f"{one['value']:.4f}",
                one["formula"],
                one.get("reason", ""),
            )
            for name, one in rules.items()
        ]
        _table(console, "", ("Number", "Value>", "Formula", "Remark"), rows)


def comparison(found: Json, a: str, b: str, console: Console) -> None:
    """Print `fairbench.leaderboard.files.compared`: A minus B in points."""
    _title(console, "A − B on the same rows", f"{found['n']:,} rows; A is {a}, B is {b}")
    rows = [(name, "all rows", *_difference(one)) for name, one in found["overall"].items()]
    names = {"max_acc_gap": "MaxAccGap", "eq_odds_max": "EqOdds(max)", "worst_group": "worst-group accuracy"}
    for attribute, measures in found["attributes"].items():
        rows += [(names.get(key, key), attribute, *_difference(one)) for key, one in measures.items()]
    _table(console, "", ("", "Between groups of", "A − B (points)>", "95 %>", "p>", "Remark"), rows)
    _notes(console, found["flags"])


def _difference(one: Json) -> tuple[str, str, str, str]:
    ends = f"[{100 * one['ci'][0]:+.1f}, {100 * one['ci'][1]:+.1f}]" if one["ci"] else NOTHING
    value = NOTHING if one["difference"] is None else f"{100 * one['difference']:+.1f}"
    return value.replace("-", "−"), ends.replace("-", "−"), p_value(one["p"]), one.get("reason", "")


def status(found: Json, console: Console) -> None:
    """Print `fairbench.jobs.status.states`: how many jobs are in which state, and all that need attention."""
    counts = ", ".join(f"{n} {state}" for state, n in found["counts"].items() if n) or "no job yet"
    _title(console, found["runs"], counts)
    rows = [(one["state"], one["title"], one["key"], one["reason"]) for one in found["jobs"]]
    if rows:
        _table(console, "", ("State", "Job", "Key", "Reason"), rows)


def readable(found: Iterable[tuple[str, Mapping[str, Json]]], console: Console) -> None:
    """Print what the probes of several jobs found (`fairbench.statistics.probe.read`), attribute by attribute."""
    rows = []
    for title, attributes in found:
        for attribute, one in attributes.items():
            ends = "" if "reason" in one else f" [{percent(one['low'])}, {percent(one['high'])}]"
            value = plain(one["reason"]) if "reason" in one else percent(one["value"]) + ends
            cells = (percent(one.get("chance")), fraction(one.get("auroc")), p_value(one.get("p")))
            rows.append((title, attribute, value, *cells, f"{one['layer']}, {one['tokens']}"))
    columns = ("Job", "Attribute", "Balanced accuracy (%)>", "Guessing>", "AUROC>", "p>", "Layer, tokens")
    _table(console, "", columns, rows)


def _title(console: Console, title: str, rest: str) -> None:
    console.print(Padding(Text.assemble((plain(title), "bold"), "\n", (plain(rest), "dim")), (1, 0, 0, 0)))


def _heading(console: Console, text: str) -> None:
    console.print(Padding(Text(plain(text), style="bold"), (1, 0, 0, 0)))


def _table(console: Console, caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    cells = tuple(tuple(map(plain, row)) for row in rows)
    console.print(Padding(grid(Grid(caption, tuple(map(plain, columns)), cells), console.width - 1), (0, 0, 0, 1)))


def _notes(console: Console, notes: Iterable[str]) -> None:
    for note in dict.fromkeys(notes):
        console.print(Padding(Text(f"· {plain(note)}", style="dim"), (0, 1)))
