"""Datasets of image files under one folder: paths that stay inside, files looked at once, one way to open them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO, ClassVar, Literal

import numpy as np
import pandas as pd
from PIL import Image

from fairbench.cache import cache_folder
from fairbench.data.dataset import Dataset, digest, rows
from fairbench.data.images import Unreadable, open_image, peek, reason
from fairbench.data.inspection import Look, Stamp, Verdict, inspect, stamp
from fairbench.errors import FairbenchError
from fairbench.settings import Fraction


class ImageFolder(Dataset):
    """A dataset of image files under one root folder; `image` holds the path relative to it.

    `table` passes its rows through `readable`, which looks at every file once (`verify`: `decode` reads all pixels,
    `structure` sees whether a file is whole), leaves out those that cannot be read with a warning, and stops when
    their share exceeds `unreadable_share`.
    """

    folder: ClassVar[str | None] = ""  # its own name, unless it reads another dataset's folder

    verify: Literal["decode", "structure"] = "decode"
    unreadable_share: Fraction = 0.01

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.verdicts: dict[str, Verdict] = {}  # relative path → what was found; filled by `readable`
        self.unread = 0, 0  # rows with an image that cannot be read, of all

    @property
    def unreadable(self) -> dict[str, str]:
        """Files that the last reading left out: relative path → why."""
        return {relative: verdict.fault for relative, verdict in self.verdicts.items() if verdict.fault}

    def path(self, relative: str) -> Path:
        """Return the file's path, refusing one that would leave the root (links in it are the user's own)."""
        parts = PurePosixPath(str(relative).replace("\\", "/"))
        outside = parts.is_absolute() or ".." in parts.parts or PureWindowsPath(str(relative)).drive
        if self.root is None or outside or not parts.parts or "\0" in str(relative):
            raise FairbenchError(
                f"{self.name}: image path {relative!r} is not inside the data folder",
                "a path starts in the folder and stays in it",
            )
        return self.images() / parts

    def images(self) -> Path:
        """Return the folder that image paths start from: the root, unless a dataset keeps its images elsewhere."""
        assert self.root is not None  # path() has refused otherwise
        return self.root

    def open(self, file: BinaryIO) -> Image.Image:
        """Decode one file to RGB; files that are no ordinary images need their own. Raises Unreadable."""
        return open_image(file)

    def peek(self, file: BinaryIO) -> tuple[int, int]:
        """Return width and height of a file whose structure is whole (`verify = "structure"`); raises otherwise."""
        return peek(file)

    def image(self, row: Mapping[str, object]) -> Image.Image:
        """Open one file as RGB; raises FairbenchError naming a file that cannot be read."""
        path = self.path(str(row["image"]))
        try:
            with path.open("rb") as file:
                return self.open(file)
        except (Unreadable, OSError) as error:
            raise FairbenchError(
                f"{self.name}: cannot read image {path}: {reason(error)}",
                f"get the file again; `fairbench data check {self.name}` lists all that cannot be read",
            ) from error

    def readable(self, table: pd.DataFrame) -> pd.DataFrame:
        """Leave out the rows beyond `limit`, then those whose file cannot be read; raises for too many of those."""
        table = self.limited(table)
        slashed = [relative.replace("\\", "/") for relative in table["image"]]
        table = table.assign(image=pd.Series(slashed, index=table.index, dtype=object))
        named = [(image, *further) for image, further in zip(slashed, _further(table), strict=True)]
        every = [relative for names in named for relative in names]
        for relative in every:
            self.path(relative)
        if self.unseen:
            return table
        self.verdicts, trouble = inspect(
            self.images(),
            every,
            self.verify == "decode",
            cache_folder("inspected"),
            Look(self.name, self.open, self.peek),
        )
        if trouble:
            self.warnings.append(f"every file will be read again next time; cannot write to {trouble}")
        bad = np.array([any(self.verdicts[relative].fault for relative in names) for names in named], dtype=bool)
        self.unread = int(bad.sum()), len(table)
        if not bad.any():
            return table
        first = "; ".join(f"{relative}: {why}" for relative, why in list(self.unreadable.items())[:5])
        more = "; …" if bad.sum() > 5 else ""
        unread = f"{int(bad.sum()):,} of {len(table):,} images cannot be read ({first}{more})"
        if bad.mean() > self.unreadable_share:
            raise FairbenchError(
                f"{self.name}: {unread}: more than the {self.unreadable_share:.2%} that are tolerated",
                f"`fairbench data check {self.name}` lists them; get them again"
                + (f" ({self.homepage})" if self.homepage else "")
                + f", or tolerate more with --set {self.name}.unreadable_share=…",
            )
        self.warnings.append(f"{unread} and were left out")
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
        """Hash the table and the content of its files (by `structure`: their sizes, and 256 files' content).

        Where a file lies and what it is called does not count, so that any layout of the same data is the same.
        """
        table = rows(self)
        every = [*table["image"], *(relative for names in _further(table) for relative in names)]
        paths = [self.path(relative) for relative in every]
        contents = [self.verdicts[relative].content for relative in every]
        if self.verify == "structure":
            contents = [str(path.stat().st_size) for path in paths]
            for index in np.unique(np.linspace(0, len(paths) - 1, 256).astype(int)):
                contents.append(hashlib.sha256(paths[index].read_bytes()).hexdigest())
        # How files are verified does not change what a model sees; `limit` shows in the table.
        settings = {k: v for k, v in self.settings().items() if k not in ImageFolder.fields() or k == "prompt"}
        counted = {"further": table["further"].map(len)} if "further" in table else {}
        said = table.drop(columns="image").assign(**counted)
        return digest(said, json.dumps(settings, sort_keys=True), *self.classes, *self.words, *contents)


def _further(table: pd.DataFrame) -> Sequence[tuple[str, ...]]:
    """Return the names of each row's further images."""
    return list(table["further"]) if "further" in table else [()] * len(table)
