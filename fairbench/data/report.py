"""Look a dataset over before it is used: who is in it, what is missing, what leaks, what may be published."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from fairbench.data.dataset import SPLITS, Dataset, columns, declared_table, faults, rows
from fairbench.data.image_folder import ImageFolder
from fairbench.errors import FairbenchError
from fairbench.predictions.groups import UNRECORDED

Counts = dict[str, dict[str, int]]  # split → class → rows
RowTrial = Callable[[Dataset, pd.DataFrame], dict[str, str]]  # which rows a backbone refuses: id → why
ALL = "all"  # the only class of a dataset whose targets are free text


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

    Counts are rows; `groups` is attribute → value → split → class, unrecorded values last. `published` is
    what the source says it holds beside what was found, `lengths` the words of questions and answers,
    `remarks` what is odd about images that can be read, `refused` (backbone → row → why) the rows that backbones
    cannot take. `duplicates` is None where files' contents were
    not compared.
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
    refused: Mapping[str, Mapping[str, str]]
    duplicates: tuple[Duplicate, ...] | None
    remarks: Mapping[str, str]
    published: Mapping[str, Mapping[str, int]]
    lengths: Mapping[str, Mapping[str, int]]
    problems: tuple[str, ...]
    cautions: tuple[str, ...]

    @property
    def usable(self) -> bool:
        """Whether fairbench would train and test on this dataset."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Return all of it, JSON-ready."""
        return {"usable": self.usable, **dataclasses.asdict(self)}


def check(dataset: Dataset, trials: Mapping[str, RowTrial] = {}) -> Report:
    """Read a dataset and report on it; a broken contract is reported, not raised.

    `trials` say of each backbone which rows it refuses, given dataset and table.

    Raises FairbenchError only where nothing can be counted: the folder, a file of it or a column is missing.
    """
    dataset = copy.copy(dataset)  # what is tolerated here must not be tolerated in the caller's
    tolerated = dataset.unreadable_share if isinstance(dataset, ImageFolder) else 0.0
    table, problems = _tolerantly(dataset)
    refused = {backbone: trial(dataset, table) for backbone, trial in trials.items()}
    few, many = _refusals(refused, len(table), tolerated)
    problems += many
    duplicates, remarks = _duplicates(dataset, table), _remarks(dataset, table)
    published, unclear = _published(dataset, table)
    groups = {attribute: _groups(dataset, table, attribute) for attribute in dataset.attributes}
    return Report(
        **{
            fact: getattr(dataset, fact)
            for fact in ("name", "title", "licence", "citation", "homepage", "publishable", "notes")
        },
        settings=dataset.settings(),
        fingerprint=None if problems else dataset.fingerprint(),
        rows=len(table),
        clusters={split: int(table["cluster"][table["split"] == split].nunique()) for split in SPLITS},
        counts=_count(dataset, table),
        groups=groups,
        missing={attribute: int(table[attribute].isna().sum()) for attribute in dataset.attributes},
        leaking=_leaking(table),
        unreadable=dataset.unreadable if isinstance(dataset, ImageFolder) else {},
        refused=refused,
        duplicates=duplicates,
        remarks=remarks,
        published=published,
        lengths=_lengths(table),
        problems=tuple(problems),
        cautions=(
            *dataset.warnings,
            *few,
            *unclear,
            *_differences(published),
            *_odd(remarks, len(table)),
            *_answers(dataset, table),
            *_shared(duplicates),
            *_absent(dataset, table),
            *_empty(groups),
        ),
    )


def _tolerantly(dataset: Dataset) -> tuple[pd.DataFrame, list[str]]:
    """Read the table however many images are damaged or rules are broken; return it with what is wrong."""
    dataset.warnings, dataset._known_rows = [], None
    tolerated = 1.0
    if isinstance(dataset, ImageFolder):
        tolerated, dataset.unreadable_share = dataset.unreadable_share, 1.0
    problems: list[FairbenchError] = []
    try:
        table = rows(dataset)
    except FairbenchError:
        dataset.warnings.clear()
        dataset._limited = False
        table = declared_table(dataset)
        problems = list(faults(dataset, table))
    if missing := [column for column in (*columns(dataset), *dataset.attributes) if column not in table]:
        raise next(problem for problem in problems if missing[0] in problem.message)
    said = [problem.message for problem in problems]
    if isinstance(dataset, ImageFolder):
        bad, total = dataset.unread
        share = bad / max(1, total)
        if share > tolerated:
            said.append(
                f"the images of {bad:,} rows cannot be read: {share:.2%}, more than the {tolerated:.2%} tolerated"
            )
    return table, said


def _refusals(
    refused: Mapping[str, Mapping[str, str]], count: int, tolerated: float
) -> tuple[list[str], list[str]]:
    """Say how many rows backbones refuse: those of whom a run would leave them out, and those that it stops at."""
    few, many = list[str](), list[str]()
    for backbone, rows_of in refused.items():
        share = len(rows_of) / max(1, count)
        said = f"{backbone} cannot take {len(rows_of):,} rows: {share:.2%}"
        if share > tolerated:
            many.append(f"{said}, more than the {tolerated:.2%} tolerated")
        elif rows_of:
            few.append(f"{said}; a run leaves them out")
    return few, many


def _count(dataset: Dataset, table: pd.DataFrame) -> Counts:
    target = table["target"] if dataset.classes else pd.Series(ALL, index=table.index)
    classes = dataset.classes or (ALL,)
    counts = table.groupby([table["split"], target]).size().to_dict()
    return {split: {name: int(counts.get((split, name), 0)) for name in classes} for split in SPLITS}


def _groups(dataset: Dataset, table: pd.DataFrame, attribute: str) -> dict[str, Counts]:
    values = {value: table[table[attribute] == value] for value in dataset.attributes[attribute]}
    unknown = table[table[attribute].isna()]
    if len(unknown):
        values[UNRECORDED] = unknown
    return {value: _count(dataset, part) for value, part in values.items()}


def _leaking(table: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    splits = table.groupby("cluster")["split"].unique()
    return {str(name): tuple(sorted(held)) for name, held in splits.items() if len(held) > 1}


def _duplicates(dataset: Dataset, table: pd.DataFrame) -> tuple[Duplicate, ...] | None:
    if not isinstance(dataset, ImageFolder) or dataset.verify == "structure":
        return None
    if dataset.task == "generate":  # several questions about one image are no copies of it
        table = table.drop_duplicates(["image", "split", "cluster"])
    content = table["image"].map(lambda relative: dataset.verdicts[relative].content)
    repeated = table[content.duplicated(keep=False)].reindex(columns=["id", "split", "cluster", "target"])
    return tuple(
        Duplicate(tuple(part["id"]), *(tuple(sorted(set(part[c].dropna()))) for c in repeated.columns[1:]))
        for _, part in repeated.groupby(content)
    )


def _remarks(dataset: Dataset, table: pd.DataFrame) -> dict[str, str]:
    verdicts = dataset.verdicts if isinstance(dataset, ImageFolder) else {}
    remarks = {relative: verdicts[relative].remark for relative in table["image"] if relative in verdicts}
    return {relative: remark for relative, remark in remarks.items() if remark}


def _published(dataset: Dataset, table: pd.DataFrame) -> tuple[dict[str, dict[str, int]], list[str]]:
    """Return what the source publishes beside what was found, and the counts that could not be compared."""
    if dataset.published and dataset.limit is not None:
        return {}, ["published counts were not compared, because `limit` leaves rows out"]
    counts, unclear = dict[str, dict[str, int]](), list[str]()
    for key, number in dataset.published.items():
        meant = _meant(key, dataset, table)
        if meant is None:
            unclear.append(f"the published count of `{key}` was not compared: it names nothing that is here")
        else:
            counts[key] = {"published": number, "found": int(meant.sum())}
    return counts, unclear


def _meant(key: str, dataset: Dataset, table: pd.DataFrame) -> pd.Series[bool] | None:
    """Mark the rows that a key of `published` stands for; None for one that cannot be understood."""
    split, _, rest = key.partition(" ")
    split, what = (split, rest or ALL) if split in SPLITS else ("", key)
    rows_of_split = table["split"].eq(split) | (not split)
    attribute, _, value = what.partition("=")
    if what == ALL:
        return rows_of_split
    if what in dataset.classes:
        return rows_of_split & table["target"].eq(what)
    if value == UNRECORDED and attribute in dataset.attributes:
        return rows_of_split & table[attribute].isna()
    return rows_of_split & table[attribute].eq(value) if value in dataset.attributes.get(attribute, ()) else None


def _lengths(table: pd.DataFrame) -> dict[str, dict[str, int]]:
    written = {column: _words(table[column]) for column in ("prompt", "reference") if column in table}
    return {
        column: {"least": int(words.min()), "median": int(words.median()), "most": int(words.max())}
        for column, words in written.items()
    }


def _words(texts: pd.Series[Any]) -> pd.Series[int]:
    return texts.fillna("").map(lambda text: len(text.split()))


def _differences(published: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    for key, count in published.items():
        if count["published"] != count["found"]:
            yield f"{key}: {count['published']:,} rows are published, {count['found']:,} were found"


def _odd(remarks: Mapping[str, str], count: int) -> Iterator[str]:
    if remarks:
        first, why = next(iter(remarks.items()))
        yield f"{len(remarks):,} images of {count:,} rows show nothing, for instance {first}: {why}"


def _answers(dataset: Dataset, table: pd.DataFrame) -> Iterator[str]:
    if "reference" in table:
        words = _words(table["reference"])
        if empty := int((words == 0).sum()):
            yield f"{empty:,} references are empty: there is nothing to learn from them"
        if long := int((words > dataset.max_new_tokens).sum()):
            yield f"{long:,} references have more words than the {dataset.max_new_tokens} tokens to be written"


def _shared(duplicates: tuple[Duplicate, ...] | None) -> Iterator[str]:
    for what, several in (("splits", "splits"), ("clusters", "clusters"), ("classes", "targets")):
        across = [item for item in duplicates or () if len(getattr(item, several)) > 1]
        if across:
            example = " = ".join(across[0].ids)
            yield f"{len(across):,} images stand byte for byte in several {what}, for instance {example}"


def _absent(dataset: Dataset, table: pd.DataFrame) -> Iterator[str]:
    """Find the classes and groups of which a split has nobody."""
    known = {**({"target": dataset.classes} if dataset.classes else {}), **dataset.attributes}
    for column, values in known.items():
        for split in SPLITS:
            there = set(table[column][table["split"] == split].dropna())
            if lacking := [value for value in values if value not in there]:
                yield f"{split} has nobody with {column} {' or '.join(lacking)}"


def _empty(groups: Mapping[str, Mapping[str, Counts]]) -> Iterator[str]:
    for attribute, values in groups.items():
        for value, counts in values.items():
            empty = [name for name, count in counts["test"].items() if count == 0]
            if 0 < len(empty) < len(counts["test"]):  # a whole group that is absent is said above
                yield (
                    f"test has no {' and no '.join(empty)} with {attribute} {value}: "
                    "rates that need them are undefined"
                )
