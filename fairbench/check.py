"""Look a dataset over before it is used: who is in it, what is missing, what leaks, what may be published."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fairbench.dataset import SPLITS, Dataset, ImageFolder, columns, faults, rows
from fairbench.errors import FairbenchError
from fairbench.predictions import UNRECORDED

Counts = dict[str, dict[str, int]]  # split → class → rows
ALL = "all"  # the only class of a dataset whose targets are free text
SHOWN = 10


@dataclass(frozen=True)
class Duplicate:
    """Rows whose image files are the same, byte for byte."""

    ids: tuple[str, ...]
    splits: tuple[str, ...]
    clusters: tuple[str, ...]
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """What `check` found: `problems` keep the dataset from being used, `cautions` limit what it can show.

    Counts are rows; `groups` is attribute → value → split → class, unrecorded values last.
    `duplicates` is None where files' contents were not compared.
    """

    name: str
    title: str
    licence: str
    citation: str
    homepage: str
    publishable: str
    settings: Mapping[str, Any]
    notes: tuple[str, ...]
    fingerprint: str | None
    rows: int
    clusters: Mapping[str, int]
    counts: Counts
    groups: Mapping[str, Mapping[str, Counts]]
    missing: Mapping[str, int]
    leaking: Mapping[str, tuple[str, ...]]
    unreadable: Mapping[str, str]
    duplicates: tuple[Duplicate, ...] | None
    problems: tuple[str, ...]
    cautions: tuple[str, ...]

    @property
    def usable(self) -> bool:
        """Whether fairbench would train and test on this dataset."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Return all of it, JSON-ready."""
        return {"usable": self.usable, **dataclasses.asdict(self)}


def check(dataset: Dataset) -> Report:
    """Read a dataset and report on it; a broken contract is reported, not raised.

    Raises FairbenchError only where nothing can be counted: the folder, a file of it or a column is missing.
    """
    dataset = copy.copy(dataset)  # what is tolerated here must not be tolerated in the caller's
    dataset.warnings, dataset._known_rows = [], None
    tolerated = 1.0
    if isinstance(dataset, ImageFolder):
        tolerated, dataset.unreadable_share = dataset.unreadable_share, 1.0
    try:
        table, problems = rows(dataset), []
    except FairbenchError:
        dataset.warnings.clear()
        table = dataset.table()
        problems = list(faults(dataset, table))
    if missing := [column for column in (*columns(dataset), *dataset.attributes) if column not in table]:
        raise next(problem for problem in problems if missing[0] in problem.message)
    unreadable = dataset.unreadable if isinstance(dataset, ImageFolder) else {}
    found = [problem.message for problem in problems]
    share = len(unreadable) / max(1, len(getattr(dataset, "verdicts", ())))
    if share > tolerated:
        found.append(
            f"{len(unreadable):,} images cannot be read: {share:.2%}, more than the {tolerated:.2%} tolerated"
        )
    duplicates = _duplicates(dataset, table)
    groups = {attribute: _groups(dataset, table, attribute) for attribute in dataset.attributes}
    return Report(
        **{
            fact: getattr(dataset, fact)
            for fact in ("name", "title", "licence", "citation", "homepage", "publishable", "notes")
        },
        settings=dataset.settings(),
        fingerprint=None if found else dataset.fingerprint(),
        rows=len(table),
        clusters={split: int(table["cluster"][table["split"] == split].nunique()) for split in SPLITS},
        counts=_count(dataset, table),
        groups=groups,
        missing={attribute: int(table[attribute].isna().sum()) for attribute in dataset.attributes},
        leaking=_leaking(table),
        unreadable=unreadable,
        duplicates=duplicates,
        problems=tuple(found),
        cautions=(*dataset.warnings, *_cautions(duplicates, groups)),
    )


def _count(dataset: Dataset, table: pd.DataFrame) -> Counts:
    target = table["target"] if dataset.classes else pd.Series(ALL, index=table.index)
    classes = dataset.classes or (ALL,)
    found = table.groupby([table["split"], target]).size().to_dict()
    return {split: {name: int(found.get((split, name), 0)) for name in classes} for split in SPLITS}


def _groups(dataset: Dataset, table: pd.DataFrame, attribute: str) -> dict[str, Counts]:
    values = {value: table[table[attribute] == value] for value in dataset.attributes[attribute]}
    unknown = table[table[attribute].isna()]
    if len(unknown):
        values[UNRECORDED] = unknown
    return {value: _count(dataset, part) for value, part in values.items()}


def _leaking(table: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    splits = table.groupby("cluster")["split"].unique()
    return {str(name): tuple(sorted(found)) for name, found in splits.items() if len(found) > 1}


def _duplicates(dataset: Dataset, table: pd.DataFrame) -> tuple[Duplicate, ...] | None:
    if not isinstance(dataset, ImageFolder) or dataset.verify == "header":
        return None
    content = table["image"].map(lambda relative: dataset.verdicts[relative].content)
    repeated = table[content.duplicated(keep=False)]
    return tuple(
        Duplicate(tuple(part["id"]), *(tuple(sorted(set(part[c]))) for c in ("split", "cluster", "target")))
        for _, part in repeated.groupby(content)
    )


def _cautions(
    duplicates: tuple[Duplicate, ...] | None, groups: Mapping[str, Mapping[str, Counts]]
) -> Iterator[str]:
    for what, several in (("splits", "splits"), ("clusters", "clusters"), ("classes", "targets")):
        across = [item for item in duplicates or () if len(getattr(item, several)) > 1]
        if across:
            example = " = ".join(across[0].ids)
            yield f"{len(across):,} images stand byte for byte in several {what}, for instance {example}"
    for attribute, values in groups.items():
        for value, counts in values.items():
            empty = [name for name, count in counts["test"].items() if count == 0]
            if empty:
                yield (
                    f"test has no {' and no '.join(empty)} with {attribute} {value}: "
                    "rates that need them are undefined"
                )


def render(report: Report, console: Console) -> None:
    """Print a report for people: tables of counts, then what is wrong, then what may be published."""
    console.print(Text(f"{report.title} ({report.name}): {report.rows:,} rows", style="bold"))
    for attribute, values in {"": {"everyone": report.counts}, **report.groups}.items():
        console.print(_table(attribute, values))
    lines = {
        "note": report.notes,
        "clusters": (", ".join(f"{split} {count:,}" for split, count in report.clusters.items()),),
        "unreadable": _some(f"{relative}: {why}" for relative, why in report.unreadable.items()),
        "leaking": _some(f"cluster {name} in {', '.join(found)}" for name, found in report.leaking.items()),
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
        for split, found in counts.items():
            numbers = (f"{number:,}" for number in (*found.values(), sum(found.values())))
            table.add_row(Text(value if split == SPLITS[0] else ""), split, *numbers)
    return table


def _some(texts: Iterator[str]) -> tuple[str, ...]:
    listed = list(texts)
    more = [f"… and {len(listed) - SHOWN:,} more (--json lists all)"] if len(listed) > SHOWN else []
    return (f"{len(listed):,}", *listed[:SHOWN], *more) if listed else ("none",)
