"""The Dataset contract: one table of rows, the images behind it, and what both are about."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Any, BinaryIO, ClassVar, Literal

import numpy as np
import pandas as pd
from PIL import Image

from fairbench.data.images import Unreadable, open_image, peek
from fairbench.data.inspection import Look, Stamp, Verdict, inspect, stamp
from fairbench.data.locations import cache_folder
from fairbench.data.splits import SPLITS, limited, split_clusters
from fairbench.errors import FairbenchError
from fairbench.predictions.classes import first_named
from fairbench.predictions.groups import UNRECORDED
from fairbench.settings import Configurable, Fraction, Range

__all__ = ["SPLITS", "Dataset", "ImageFolder", "columns", "digest", "faults", "open_image", "rows"]

# Columns of a predictions file, which an attribute's column stands beside.
TAKEN = {"id", "cluster", "split", "image", "target", "answer", "prompt", "reference", "text", "loss"}


class Dataset(Configurable):
    """Patients, their images, a question, its answer, and who they are.

    `table` returns one row per example with the columns `id` (unique string), `cluster` (patient or
    lesion: rows of one cluster are not independent and share a split), `split` (train, val, test),
    `image` (what `image` needs to find it), `target` (a class name) and one column per attribute:
    lower-case strings, missing when not recorded, never integer codes. The order of its rows is the
    order in which batches are drawn, so it must not depend on how the files happen to be sorted.

    A column `prompt`, where there is one, holds each row's own question in place of `prompt`. Where the
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
    folder: ClassVar[str] = ""  # whose folder it reads, where that is another dataset's
    published: ClassVar[Mapping[str, int]] = {}  # rows that the source states; keys as in docs/datasets.md
    example_settings: ClassVar[Mapping[str, str]] = {}  # those with which the folder of `example` is read

    max_new_tokens: ClassVar[int] = 32  # how much may be written, where the task is to generate

    limit: Annotated[int, Range(1)] | None = None
    prompt: str = ""

    root: ClassVar[Path | None] = None  # set on the instance, where needs_root

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.warnings: list[str] = []  # what the last reading found odd; ends up in every record
        self._known_rows: tuple[object, pd.DataFrame] | None = None

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
    def example(cls, folder: Path) -> None:
        """Write a small folder in exactly the format that `table` reads, with made-up people and images.

        Names, columns, codes and quirks are those of the real thing, so that a user sees what is expected
        and tests have something to read. Raises FairbenchError where a dataset needs no folder.
        """
        raise FairbenchError(f"{cls.name} needs no folder", "use it as it is")

    @abstractmethod
    def table(self) -> pd.DataFrame:
        """Read every row. Raises FairbenchError saying where to get what is missing."""

    @abstractmethod
    def image(self, row: Mapping[str, object]) -> Image.Image:
        """Open one row's image as RGB."""

    def stamp(self) -> object | None:
        """Return what stays equal as long as `table` would return the same; None (default): read it anew."""
        return None

    def fingerprint(self) -> str:
        """Hash everything that decides what a model would see, without reading every pixel."""
        return digest(rows(self), json.dumps(self.settings(), sort_keys=True), *self.classes, *self.words)

    split_clusters = staticmethod(split_clusters)


class ImageFolder(Dataset):
    """A dataset of image files under one root folder; `image` holds the path relative to it.

    `table` passes its rows through `readable`, which looks at every file once (`verify`: `decode`
    reads all pixels, `header` only the first bytes), leaves out those that cannot be read with a
    warning, and stops when their share exceeds `unreadable_share`.
    """

    needs_root: ClassVar[bool] = True

    verify: Literal["decode", "header"] = "decode"
    unreadable_share: Fraction = 0.01

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.verdicts: dict[str, Verdict] = {}  # relative path → what was found; filled by `readable`

    @property
    def unreadable(self) -> dict[str, str]:
        """Files that the last reading left out: relative path → why."""
        return {relative: verdict.fault for relative, verdict in self.verdicts.items() if verdict.fault}

    def path(self, relative: str) -> Path:
        """Return the file's path, refusing one that would leave the root (links in it are the user's own)."""
        parts = PurePosixPath(str(relative).replace("\\", "/"))
        outside = parts.is_absolute() or ".." in parts.parts or PureWindowsPath(str(relative)).drive
        if self.root is None or outside or not parts.parts or "\0" in str(relative):
            raise FairbenchError(f"{self.name}: image path {relative!r} is not inside the data folder")
        return self.root / parts

    def open(self, source: Path | BinaryIO) -> Image.Image:
        """Decode one file to RGB; files that are no ordinary images need their own. Raises Unreadable."""
        return open_image(source)

    def peek(self, path: Path) -> None:
        """Look at a file's first bytes only (`verify = "header"`); raises when they show it to be unreadable."""
        peek(path)

    def image(self, row: Mapping[str, object]) -> Image.Image:
        """Open one file as RGB; raises FairbenchError naming a file that cannot be read."""
        path = self.path(str(row["image"]))
        try:
            return self.open(path)
        except Unreadable as error:
            raise FairbenchError(f"{self.name}: cannot read image {path}: {error}") from error

    def readable(self, table: pd.DataFrame) -> pd.DataFrame:
        """Leave out the rows whose file cannot be read; raises FairbenchError when there are too many."""
        for relative in table["image"]:
            self.path(relative)
        assert self.root is not None  # path() has refused otherwise
        self.verdicts, trouble = inspect(
            self.root,
            table["image"],
            self.verify == "decode",
            cache_folder("inspected"),
            Look(self.name, self.open, self.peek),
        )
        if trouble:
            self.warnings.append(f"every file will be read again next time; cannot write to {trouble}")
        bad = table["image"].isin(list(self.unreadable))
        if not bad.any():
            return table
        first = "; ".join(f"{relative}: {why}" for relative, why in list(self.unreadable.items())[:5])
        more = "; …" if bad.sum() > 5 else ""
        found = f"{int(bad.sum()):,} of {len(table):,} images cannot be read ({first}{more})"
        if bad.mean() > self.unreadable_share:
            raise FairbenchError(
                f"{self.name}: {found}: more than the {self.unreadable_share:.2%} that are tolerated",
                f"`fairbench data check {self.name}` lists them; get them again"
                + (f" ({self.homepage})" if self.homepage else "")
                + f", or tolerate more with --set {self.name}.unreadable_share=…",
            )
        self.warnings.append(f"{found} and were left out")
        return table[~bad]

    def sources(self) -> Sequence[Path]:
        """Return the files beside the images that `table` reads."""
        return ()

    def stamp(self) -> object | None:
        """Change with the settings, the root, and the size or time of any file that was read."""
        files: list[Stamp | None] = [stamp(path) for path in self.sources()]
        files += [stamp(self.path(relative)) for relative in self.verdicts]
        return (str(self.root), json.dumps(self.settings(), sort_keys=True), files)

    def fingerprint(self) -> str:
        """Hash the table and the content of its files (by `header`: their sizes, and 256 files' content)."""
        table = rows(self)
        paths = [self.path(relative) for relative in table["image"]]
        contents = [self.verdicts[relative].content for relative in table["image"]]
        if self.verify == "header":
            contents = [str(path.stat().st_size) for path in paths]
            for index in np.unique(np.linspace(0, len(paths) - 1, 256).astype(int)):
                contents.append(hashlib.sha256(paths[index].read_bytes()).hexdigest())
        # How files are verified does not change what a model sees; `limit` shows in the table.
        settings = {k: v for k, v in self.settings().items() if k not in ImageFolder.fields() or k == "prompt"}
        return digest(table, json.dumps(settings, sort_keys=True), *self.classes, *self.words, *contents)


def columns(dataset: Dataset) -> tuple[str, ...]:
    """Return the columns that a dataset's table must have, its attributes aside."""
    asked = () if dataset.task == "classify" else ("prompt", "reference")
    return ("id", "cluster", "split", "image", *(("target",) if dataset.classes else ()), *asked)


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


def rows(dataset: Dataset) -> pd.DataFrame:
    """Read a dataset's table, check it against the contract, and apply `limit`.

    The table is kept on the dataset until its `stamp` changes. Raises FairbenchError for the first
    of the table's `faults`.
    """
    kept = dataset._known_rows
    if kept is None or kept[0] is None or kept[0] != dataset.stamp():
        dataset.warnings.clear()
        table = dataset.table().reset_index(drop=True)
        for fault in faults(dataset, table):
            raise fault
        if dataset.limit is not None and dataset.limit < len(table):
            table = limited(table, dataset.limit, tuple(dataset.attributes))
        for attribute in dataset.attributes:
            if table[attribute].isna().all():
                dataset.warnings.append(f"{attribute} is recorded for nobody")
        own = [column for column in ("prompt",) if column in table and column not in columns(dataset)]
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
        yield FairbenchError(f"{where} has no rows")
        return
    for column in columns(dataset):
        if count := int(table[column].isna().sum()):
            yield FairbenchError(f"{where}: {count:,} rows have no {column}")
    repeated = table["id"][table["id"].duplicated()]
    if len(repeated):
        yield FairbenchError(
            f"{where}: {repeated.nunique():,} ids stand in several rows, for instance {repeated.iloc[0]!r}"
        )
    known = {"split": SPLITS, **dataset.attributes}
    if "target" in columns(dataset):
        known["target"] = dataset.classes
    for column, values in known.items():
        odd = sorted({repr(value) for value in table[column].dropna().unique() if value not in values})
        if odd:
            yield FairbenchError(
                f"{where}: {column} has {', '.join(odd[:10])}, which is not among {', '.join(values)}"
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
