"""The report on a dataset, for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fairbench.data.dataset import SPLITS
from fairbench.data.report import Counts, Report

SHOWN = 10


def render(report: Report, console: Console) -> None:
    """Print a report for people: tables of counts, then what is wrong, then what may be published."""
    console.print(Text(f"{report.title} ({report.name}): {report.rows:,} rows", style="bold"))
    for attribute, values in {"": {"everyone": report.counts}, **report.groups}.items():
        console.print(_table(attribute, values))
    if report.published:
        console.print(_comparison(report.published))
    lines = {
        "note": report.notes,
        "clusters": (", ".join(f"{split} {count:,}" for split, count in report.clusters.items()),),
        "words": (
            f"{column}: {count['least']:,} to {count['most']:,}, median {count['median']:,}"
            for column, count in report.lengths.items()
        ),
        "unreadable": _some(f"{relative}: {why}" for relative, why in report.unreadable.items()),
        **{
            f"refused by {backbone}": _some(f"{name}: {why}" for name, why in rows.items())
            for backbone, rows in report.refused.items()
        },
        "odd image": _some(f"{relative}: {why}" for relative, why in report.remarks.items()),
        "leaking": _some(f"cluster {name} in {', '.join(held)}" for name, held in report.leaking.items()),
        "duplicates": _some(" = ".join(item.ids) for item in report.duplicates)
        if report.duplicates is not None
        else ("not looked for: contents were not read",),
        "caution": report.cautions,
        "problem": report.problems,
        "fingerprint": (report.fingerprint or "none while there are problems",),
        "licence": (report.licence,),
        "publishable": (report.publishable,),
        "cite": (report.citation,),
        "home": (report.homepage,),
    }
    listing = Table.grid(padding=(0, 2))
    for kind, texts in lines.items():
        for text in texts:
            style = {"problem": "bold red", "caution": "yellow"}.get(kind, "")
            listing.add_row(Text(kind, style="dim"), Text(text, style=style))
    console.print(listing)


def _table(attribute: str, values: Mapping[str, Counts]) -> Table:
    table = Table()
    for name in (attribute, "split"):
        table.add_column(Text(name))
    for name in (*next(iter(values.values()))["train"], "rows"):
        table.add_column(Text(name), justify="right")
    for value, counts in values.items():
        for split, counted in counts.items():
            numbers = (f"{number:,}" for number in (*counted.values(), sum(counted.values())))
            table.add_row(Text(value if split == SPLITS[0] else ""), split, *numbers)
    return table


def _comparison(published: Mapping[str, Mapping[str, int]]) -> Table:
    table = Table()
    table.add_column("rows of")
    for name in ("published", "found", "difference"):
        table.add_column(name, justify="right")
    for key, count in published.items():
        difference = count["found"] - count["published"]
        numbers = (f"{count['published']:,}", f"{count['found']:,}", f"{difference:+,}" if difference else "0")
        table.add_row(Text(key), *numbers, style="yellow" if difference else "")
    return table


def _some(texts: Iterable[str]) -> tuple[str, ...]:
    listed = list(texts)
    more = [f"… and {len(listed) - SHOWN:,} more (--json lists all)"] if len(listed) > SHOWN else []
    return (f"{len(listed):,}", *listed[:SHOWN], *more) if listed else ("none",)
