"""The Dataset contract: one table of rows, the images behind it, and what both are about."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import pandas as pd
from PIL import Image

from fairbench.data.splits import SPLITS, folded, limited, split_clusters
from fairbench.errors import FairbenchError, raised
from fairbench.predictions.classes import first_named
from fairbench.predictions.groups import UNRECORDED
from fairbench.settings import Configurable, Range

__all__ = ["SPLITS", "Dataset", "columns", "declared_table", "digest", "faults", "guarded", "most_images", "rows"]

T = TypeVar("T")
# Columns of a predictions file, which an attribute's column stands beside.
TAKEN = {"id", "cluster", "split", "image", "target", "answer", "prompt", "reference", "text", "loss", "further"}


class Dataset(Configurable):
    """Patients, their images, a question, its answer, and who they are.

    `table` returns one row per example with the columns `id` (unique string), `cluster` (patient or
    lesion: rows of one cluster are not independent and share a split), `split` (train, val, test),
    `image` (what `image` needs to find it), `target` (a class name) and one column per attribute:
    lower-case strings, missing when not recorded, never integer codes. The order of its rows is the
    order in which batches are drawn, so it must not depend on how the files happen to be sorted.

    A column `further` holds the names of images that a model is shown after `image`, a tuple, empty where there are
    none. A column `prompt`, where there is one, holds each row's own question in place of `prompt`. Where the
    `task` is to `generate` it must be there, and `reference` holds the answer to learn. `classes` may
    then be empty (free text, no `target` column); otherwise `target` is the class that the reference
    names, and `parse` finds the one that a generated answer names.
    """

    title: ClassVar[str]
    licence: ClassVar[str]
    citation: ClassVar[str]
    homepage: ClassVar[str] = ""
    publishable: ClassVar[str] = "aggregate results only"
    task: ClassVar[Literal["classify", "generate"]] = "classify"
    measure: ClassVar[str] = "accuracy"  # the metric, scoring rows, that leaderboards judge by
    folder: ClassVar[str | None] = None  # the name that `--data NAME=PATH` calls its folder by; None: it reads none
    published: ClassVar[Mapping[str, int]] = {}  # rows that the source states; keys as in docs/datasets.md

    own_splits: ClassVar[bool] = False  # whether its splits come with the data, and are not drawn here

    max_new_tokens: ClassVar[int] = 32  # how much may be written, where the task is to generate

    limit: Annotated[int, Range(1)] | None = None
    prompt: str = ""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.warnings: list[str] = []  # what the last reading found odd; ends up in every record
        self._known_rows: tuple[object, pd.DataFrame] | None = None
        self.unseen = False  # whether the table alone is wanted: images are not looked at, and need not be there
        self._limited = False  # whether the reading under way has left rows out

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of their index; of two, the second is the positive one."""

    @property
    @abstractmethod
    def attributes(self) -> Mapping[str, tuple[str, ...]]:
        """Sensitive attributes with the values each can take."""

    @property
    def words(self) -> tuple[str, ...]:
        """What a model would answer for each class; their first tokens must differ (readout `words`)."""
        return self.classes

    def parse(self, text: str) -> int:
        """Return the class that a generated answer names first (the longer of two at one place), -1 for none."""
        return first_named(text, self.words)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the results must know: label map, bins, where the splits come from."""
        return ()

    @classmethod
    def example(cls, folder: Path) -> Mapping[str, str]:
        """Write a small folder in exactly the format that `table` reads, with made-up people and images.

        Returns the settings with which it is read. Names, columns, codes and quirks are those of the real thing, so
        that a user sees what is expected and tests have something to read. Raises FairbenchError where a dataset
        needs no folder, or has none made up.
        """
        if cls.folder is None:
            raise FairbenchError(f"{cls.name} needs no folder", "use it as it is")
        there = f": {cls.homepage}" if cls.homepage else ""
        raise FairbenchError(f"{cls.name} has no made-up folder", f"get the real one{there}")

    @abstractmethod
    def table(self) -> pd.DataFrame:
        """Read every row. Raises FairbenchError saying where to get what is missing."""

    @abstractmethod
    def image(self, row: Mapping[str, object]) -> Image.Image:
        """Open one row's image as RGB."""

    def pictures(self, row: Mapping[str, object]) -> tuple[Image.Image, ...]:
        """Open all that a model is shown of one row, in order: `image`, then what `further` names."""
        further: tuple[object, ...] = row.get("further", ())  # type: ignore[assignment]
        return (self.image(row), *(self.image({**row, "image": name}) for name in further))

    def stamp(self) -> object | None:
        """Return what stays equal as long as `table` would return the same; None (default): read it anew."""
        return None

    def fingerprint(self) -> str:
        """Hash everything that decides what a model would see, without reading every pixel."""
        return digest(rows(self), json.dumps(self.settings(), sort_keys=True), *self.classes, *self.words)

    def limited(self, table: pd.DataFrame) -> pd.DataFrame:
        """Keep about `limit` rows, once for each reading: whoever looks at images calls it before looking."""
        if self.limit is None or self._limited or self.limit >= len(table):
            return table
        self._limited = True
        return limited(table, self.limit, tuple(self.attributes))

    split_clusters = staticmethod(split_clusters)

    def divided(self, table: pd.DataFrame, folds: int, fold: int) -> pd.DataFrame:
        """Divide rows anew into the splits of one of `folds`, alike in classes and attributes (`folded`)."""
        by = [column for column in ("target", *self.attributes) if column in table]
        return table.assign(split=folded(table, folds, fold, by))


def columns(dataset: Dataset) -> tuple[str, ...]:
    """Return the columns that a dataset's table must have, its attributes aside."""
    asked = () if dataset.task == "classify" else ("prompt", "reference")
    return ("id", "cluster", "split", "image", *(("target",) if dataset.classes else ()), *asked)


def most_images(dataset: Dataset) -> int:
    """Return how many images a row has at most."""
    table = rows(dataset)
    return 1 + int(table["further"].map(len).max()) if "further" in table else 1


def digest(table: pd.DataFrame, *extra: str) -> str:
    """Hash a table's content, in the order of its rows, and some strings to sixteen hexadecimal digits."""
    state = hashlib.sha256()

    def add(text: str | None) -> None:
        raw = b"" if text is None else text.encode()
        state.update(b"-;" if text is None else b"%d;" % len(raw) + raw)  # lengths keep fields apart

    for column in sorted(table.columns):
        add(column)
        for value in table[column]:
            add(None if pd.isna(value) else str(value))
    for text in extra:
        add(text)
    return state.hexdigest()[:16]


def guarded(dataset: Dataset | type[Dataset], what: str, ask: Callable[[], T]) -> T:
    """Ask a dataset for something; what its own code raises becomes a FairbenchError that says where.

    An OSError stays one: a file or a disk is at fault, and it names it.
    """
    try:
        return ask()
    except (FairbenchError, OSError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        said = f"dataset {dataset.name}: `{what}` raised {raised(error)}"
        raise FairbenchError(said, "`fairbench check` tries all that a dataset promises") from error


def declared_table(dataset: Dataset) -> pd.DataFrame:
    """Ask a dataset for all that it declares, and return its table as it gives it."""
    guarded(dataset, "classes", lambda: tuple(dataset.classes))
    guarded(dataset, "attributes", lambda: dict(dataset.attributes))
    return guarded(dataset, "table", dataset.table)


def rows(dataset: Dataset) -> pd.DataFrame:
    """Read a dataset's table, check it against the contract, and apply `limit`.

    The table is kept on the dataset until its `stamp` changes. Raises FairbenchError for the first
    of the table's `faults`.
    """
    kept = dataset._known_rows
    if kept is None or kept[0] is None or kept[0] != dataset.stamp():
        dataset.warnings.clear()
        dataset._limited = False
        table = declared_table(dataset).reset_index(drop=True)
        for fault in faults(dataset, table):
            raise fault
        table = dataset.limited(table)
        for attribute in dataset.attributes:
            if table[attribute].isna().all():
                dataset.warnings.append(f"{attribute} is recorded for nobody")
        own = [column for column in ("prompt", "further") if column in table and column not in columns(dataset)]
        table = table[[*columns(dataset), *own, *dataset.attributes]].reset_index(drop=True)
        kept = dataset._known_rows = (dataset.stamp(), table)
    return kept[1].copy()


def faults(dataset: Dataset, table: pd.DataFrame) -> Iterator[FairbenchError]:
    """Find how a table breaks the contract.

    That is: missing columns or values, repeated ids, unknown splits, classes or attribute values,
    clusters that sit in two splits, attributes that cannot be written beside results.
    """
    where = f"dataset {dataset.name}"
    yield from _misdeclared(dataset, where)
    missing = [column for column in (*columns(dataset), *dataset.attributes) if column not in table]
    if missing:
        yield FairbenchError(
            f"{where}: its table lacks {', '.join(missing)}", f"it has {', '.join(map(str, table.columns))}"
        )
        return
    if table.empty:
        yield FairbenchError(f"{where} has no rows", "look at the table, and at the settings that leave rows out")
        return
    for column in columns(dataset):
        if count := int(table[column].isna().sum()):
            yield FairbenchError(
                f"{where}: {count:,} rows have no {column}", "fill them in, or leave these rows out"
            )
    repeated = table["id"][table["id"].duplicated()]
    if len(repeated):
        yield FairbenchError(
            f"{where}: {repeated.nunique():,} ids stand in several rows, for instance {repeated.iloc[0]!r}",
            "one id for each image; a patient with several has one `cluster`",
        )
    known = {"split": SPLITS, **dataset.attributes}
    if "target" in columns(dataset):
        known["target"] = dataset.classes
    for column, values in known.items():
        odd = sorted({repr(value) for value in table[column].dropna().unique() if value not in values})
        if odd:
            yield FairbenchError(
                f"{where}: {column} has {', '.join(odd[:10])}, which is not among {', '.join(values)}",
                "correct the rows, or declare the value",
            )
    shared = table.groupby("cluster")["split"].nunique()
    if (shared > 1).any():
        yield FairbenchError(
            f"{where}: {int((shared > 1).sum()):,} clusters sit in more than one split, for instance "
            f"{shared.index[shared > 1][0]!r}",
            "the same patient or lesion would be trained on and tested on; split by cluster",
        )


def _misdeclared(dataset: Dataset, where: str) -> Iterator[FairbenchError]:
    """Find attributes whose name or values would clash with how results are written."""
    for attribute, values in dataset.attributes.items():
        if attribute in TAKEN or attribute.startswith("p_") or "+" in attribute:
            yield FairbenchError(f"{where}: an attribute cannot be called `{attribute}`", "rename it")
        for value in values:
            if not isinstance(value, str) or value != value.lower().strip() or value in ("", UNRECORDED):
                yield FairbenchError(
                    f"{where}: {attribute} cannot have the value {value!r}",
                    "values are lower-case words; what was not recorded is missing in the table",
                )
