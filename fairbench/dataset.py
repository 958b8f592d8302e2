"""The Dataset contract: one table of rows, the images behind it, and what both are about."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pandas as pd
from PIL import Image, ImageFile

from fairbench.errors import FairbenchError
from fairbench.settings import Configurable, Fraction, Range

SPLITS = ("train", "val", "test")
# A 16-bit chest radiograph has some 12 million pixels; ten times that is a decompression bomb.
MAX_PIXELS = 120_000_000


class Dataset(Configurable):
    """Patients, their images, a question, its answer, and who they are.

    `table` returns one row per example with the columns `id` (unique string), `cluster` (patient or
    lesion: rows of one cluster are not independent and share a split), `split` (train, val, test),
    `image` (what `image` needs to find it), `target` (a class name) and one column per attribute:
    lower-case strings, missing when not recorded, never integer codes.
    """

    title: ClassVar[str]
    licence: ClassVar[str]
    citation: ClassVar[str]
    homepage: ClassVar[str] = ""
    publishable: ClassVar[str] = "aggregate results only"
    task: ClassVar[Literal["classify", "generate"]] = "classify"
    needs_root: ClassVar[bool] = False

    limit: Annotated[int, Range(1)] | None = None
    prompt: str

    root: ClassVar[Path | None] = None  # set on the instance, where needs_root

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.warnings: list[str] = []  # what `table` found odd; ends up in every record

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

    @abstractmethod
    def table(self) -> pd.DataFrame:
        """Read every row. Raises FairbenchError saying where to get what is missing."""

    @abstractmethod
    def image(self, row: Mapping[str, object]) -> Image.Image:
        """Open one row's image as RGB."""

    def fingerprint(self) -> str:
        """Hash everything that decides what a model would see, without reading every pixel."""
        return digest(rows(self), json.dumps(self.settings(), sort_keys=True), self.prompt, *self.classes)


class ImageFolder(Dataset):
    """A dataset of image files under one root folder; `image` holds the path relative to it.

    Every file is opened once when the dataset is first read (`verify`): `decode` reads all pixels,
    `header` only the file's first bytes. Unreadable files are left out with a warning, and the run
    stops when their share exceeds `unreadable_share`.
    """

    needs_root: ClassVar[bool] = True

    verify: Literal["decode", "header"] = "decode"
    unreadable_share: Fraction = 0.01

    def path(self, relative: str) -> Path:
        """Return the file's path, refusing one that would leave the root."""
        parts = PurePosixPath(str(relative).replace("\\", "/"))
        if self.root is None or parts.is_absolute() or ".." in parts.parts:
            raise FairbenchError(f"{self.name}: image path {relative!r} is not inside the data folder")
        return self.root / parts

    def image(self, row: Mapping[str, object]) -> Image.Image:
        """Open one file as RGB; raises FairbenchError naming a file that cannot be read."""
        path = self.path(str(row["image"]))
        try:
            return open_image(path)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise FairbenchError(f"{self.name}: cannot read image {path}: {error}") from error

    def unreadable(self, table: pd.DataFrame) -> dict[str, str]:
        """Try every file of the table; return path → reason for those that fail."""
        bad: dict[str, str] = {}
        for relative in table["image"]:
            path = self.path(relative)
            try:
                if self.verify == "decode":
                    open_image(path)
                else:
                    with Image.open(path) as image:
                        check_size(image)
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                bad[relative] = type(error).__name__ if isinstance(error, FileNotFoundError) else str(error)
        return bad

    def fingerprint(self) -> str:
        """Hash the table, every file's size, and the content of 256 files spread evenly over it."""
        table = rows(self)
        sizes = [self.path(relative).stat().st_size for relative in table["image"]]
        chosen = np.unique(np.linspace(0, len(table) - 1, 256).astype(int)) if len(table) else []
        sample = [hashlib.sha256(self.path(table["image"].iloc[i]).read_bytes()).hexdigest() for i in chosen]
        return digest(table, json.dumps(self.settings(), sort_keys=True), str(sizes), *sample, *self.classes)


def check_size(image: Image.Image) -> None:
    """Refuse an image with more pixels than any medical image has, before decoding it."""
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width}×{image.height} pixels are more than {MAX_PIXELS:,}")


def open_image(path: Path) -> Image.Image:
    """Decode a file to RGB: 16-bit grey is scaled by 257 to 8 bits, transparency goes onto black."""
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise ValueError("PIL is set to accept truncated images")
    with Image.open(path) as image:
        check_size(image)
        if image.mode.startswith(("I", "F")):
            grey = np.asarray(image, dtype=np.float64)
            image = Image.fromarray(np.clip(grey / 257.0, 0, 255).astype(np.uint8))
        return image.convert("RGB")


def digest(table: pd.DataFrame, *extra: str) -> str:
    """Hash a table's content and some strings to sixteen hexadecimal digits."""
    state = hashlib.sha256()
    for column in sorted(table.columns):
        state.update(column.encode() + b"\0")
        state.update("\0".join(table[column].astype("string").fillna("\1")).encode())
    for text in extra:
        state.update(b"\0\0" + text.encode())
    return state.hexdigest()[:16]


def rows(dataset: Dataset) -> pd.DataFrame:
    """Read a dataset's table, check it against the contract, and apply `limit`.

    Raises FairbenchError for a missing column, a repeated id, an unknown split, class or attribute
    value, or a cluster that sits in two splits.
    """
    table = dataset.table().reset_index(drop=True)
    where = f"dataset {dataset.name}"
    wanted = ["id", "cluster", "split", "image", "target", *dataset.attributes]
    missing = [column for column in wanted if column not in table]
    if missing:
        raise FairbenchError(
            f"{where}: its table lacks {', '.join(missing)}", f"it has {', '.join(table.columns)}"
        )
    if table.empty:
        raise FairbenchError(f"{where} has no rows")
    repeated = table["id"][table["id"].duplicated()]
    if len(repeated):
        raise FairbenchError(f"{where}: id {repeated.iloc[0]!r} stands in {len(repeated) + 1} rows or more")
    known = {"split": SPLITS, **dict(dataset.attributes)}
    if dataset.task == "classify":
        known["target"] = dataset.classes
    for column, values in known.items():
        odd = set(table[column].dropna().unique()) - set(values)
        if odd:
            raise FairbenchError(
                f"{where}: {column} has {sorted(map(str, odd))}, which is not among {list(values)}"
            )
    for column in ("split", "target"):
        if table[column].isna().any():
            raise FairbenchError(f"{where}: {int(table[column].isna().sum())} rows have no {column}")
    shared = table.groupby("cluster")["split"].nunique()
    if (shared > 1).any():
        raise FairbenchError(
            f"{where}: {int((shared > 1).sum())} clusters sit in more than one split, for instance "
            f"{shared.index[shared > 1][0]!r}",
            "the same patient or lesion would be trained on and tested on; split by cluster",
        )
    if dataset.limit is not None and dataset.limit < len(table):
        table = _limited(table, dataset.limit)
    return table[wanted]


def _limited(table: pd.DataFrame, limit: int) -> pd.DataFrame:
    """Keep about `limit` rows: whole clusters in an order fixed by their names, each split in proportion."""
    order = table["cluster"].map(lambda name: hashlib.sha256(str(name).encode()).hexdigest())
    kept = []
    for split in SPLITS:
        part = table[table["split"] == split]
        size = round(limit * len(part) / len(table))
        by_cluster = part.assign(_order=order[part.index]).sort_values(["_order", "id"])
        kept.append(by_cluster.head(size).index)
    return table.loc[np.sort(np.concatenate(kept))].reset_index(drop=True)
