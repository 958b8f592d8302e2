"""Releases of numpy archives, one a person, in a folder for each split, with a table of who is who in words."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from fairbench.data.bins import AGE_BINS, Bins
from fairbench.data.image_folder import ImageFolder
from fairbench.data.images import Unreadable, open_array, open_image
from fairbench.data.tables import SEPARATED, read_table
from fairbench.errors import FairbenchError
from fairbench.predictions.missing import is_missing

SPLIT_WORDS: Mapping[object, str] = {
    "training": "train", "train": "train", "validation": "val", "validate": "val", "valid": "val", "val": "val",
    "dev": "val", "testing": "test", "test": "test",
}  # fmt: skip
UNKNOWN = ("-1", "-1.0", -1)  # beside the words that stand for a missing value everywhere
COMPARED = 10  # people whose archive is held against the table


@dataclass(frozen=True)
class Variable:
    """A column: its `keys` in table and archives, its `values` in the order of the archives' codes, from 0.

    `also` are further words and codes that mean a value; a column of numbers has `bins` in place of values.
    """

    keys: tuple[str, ...]
    values: tuple[str, ...] = ()
    also: Mapping[object, str] = field(default_factory=dict)
    bins: Bins | None = None

    @cached_property
    def meanings(self) -> Mapping[object, str]:
        """What each word and code means."""
        return {**{value: value for value in self.values}, **dict(enumerate(self.values)), **self.also}

    def meaning(self, cell: object) -> str | None:
        """Return the value of a word or code, None where it is not recorded; raises KeyError for an unknown one."""
        word = " ".join(cell.lower().split()) if isinstance(cell, str) else cell
        if pd.isna(word) or word in UNKNOWN or is_missing(str(word)):  # type: ignore[call-overload]
            return None
        if self.bins is None:
            return self.meanings[word]
        if (name := self.bins.of(str(word), years=True)) is None:
            raise KeyError(word)
        return name

    @property
    def expected(self) -> str:
        """What may be written, for people."""
        known = self.meanings if self.bins is None else ("years from 0 to 120",)
        return f"{', '.join(map(str, known))}, unknown or -1"


# How the eye releases of Harvard's ophthalmology lab write who people are: what the csv and then the npz files call
# each column, values in the order of the npz files' codes; words of older npz files, and a slip of the pen.
HARVARD_PEOPLE: Mapping[str, Variable] = {
    "race": Variable(
        ("race",),
        ("asian", "black", "white"),
        {"black or african american": "black", "white or caucasian": "white"},
    ),
    "gender": Variable(("gender", "male"), ("female", "male")),
    "ethnicity": Variable(("ethnicity", "hispanic"), ("non-hispanic", "hispanic")),
    "language": Variable(("language",), ("english", "spanish", "other"), {"other languages": "other"}),
    "marital-status": Variable(
        ("maritalstatus",),
        ("married or partnered", "single", "divorced", "widowed", "legally separated"),
        {"widoled": "widowed"},
    ),
}


class ArchiveFolder(ImageFolder):
    """People's archives (`data_00001.npz`), one folder for each split, maybe with a picture file beside each.

    Split, target and attributes come from the words of a table (columns `filename` and `use`), where it is there
    and has the column, else from the folders and from the codes in the archives. A word that the codebook lacks is
    unrecorded, with a warning that counts it; a row without a target or split is left out. A subclass says where
    things are and what they mean.
    """

    array: ClassVar[str]  # the name of the picture in an archive
    people: ClassVar[Mapping[str, Variable]]  # attributes of words, beside the binned `age`
    source: ClassVar[str]  # where to get the release
    files: ClassVar[Mapping[str, re.Pattern[str]]] = {"npz": re.compile(r"data_(\d+)\.npz")}
    image_file: ClassVar[str] = (
        "npz"  # whose picture is shown: one of `files`, or auto; a subclass may make it a setting
    )

    ages: Literal["fairllava", "fairmedfm", "medfair5"] = "fairllava"

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.archives: dict[str, str] = {}  # the path of each person's archive, once `located` has looked

    @property
    @abstractmethod
    def target(self) -> Variable:
        """What table and archives call the target and write in it."""

    @property
    def age_bins(self) -> Bins:
        """The bins of age in force, those of a paper."""
        return AGE_BINS[self.ages]

    @property
    def attributes(self) -> Mapping[str, tuple[str, ...]]:
        """The attributes of words with their values, and binned age."""
        return {**{name: column.values for name, column in self.people.items()}, "age": self.age_bins.names}

    @property
    def codebook(self) -> Mapping[str, Variable]:
        """The target and the attributes: what table and archives call them and write in them."""
        return {"target": self.target, **self.people, "age": Variable(("age",), bins=self.age_bins)}

    @abstractmethod
    def summaries(self) -> Sequence[Path]:
        """Return the places where the table may be; the first that is there counts."""

    def home(self) -> Path:
        """Return the folder in which the splits' folders lie, or `Dataset/` with them; raises FairbenchError."""
        if self.root is None or not self.root.is_dir():
            raise FairbenchError(f"{self.name}: {self.root or 'its folder'} is not a folder", self.source)
        return self.root

    def shown(self, array: npt.NDArray[np.generic]) -> Image.Image:
        """Make a picture of an archive's array of grey values from 0 to 255; raises Unreadable."""
        if array.ndim != 2 or not array.size or array.dtype.kind not in "uif":
            raise Unreadable(f"`{self.array}` is no grey picture but {array.dtype} of shape {array.shape}")
        values = array.astype(float)
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 255):
            raise Unreadable(f"grey values from {values.min()} to {values.max()} do not lie between 0 and 255")
        return Image.fromarray(values.round().astype(np.uint8)).convert("RGB")

    def table(self) -> pd.DataFrame:
        """Find the pictures, and whose they are; raises FairbenchError saying what is missing."""
        return self.readable(self.described(self.located()))

    def sources(self) -> Sequence[Path]:
        """Return the table's possible places and, for files that come and go, the folders."""
        return [*self.summaries(), *self.folders()]

    def open(self, file: BinaryIO) -> Image.Image:
        """Decode a picture file, or the picture in an archive; raises Unreadable."""
        packed = _packed(file)
        return self.shown(open_array(file, self.array)) if packed else open_image(file)

    def peek(self, file: BinaryIO) -> tuple[int, int]:
        """Look at a picture file's structure; the picture of an archive is decoded, which its checksum protects."""
        return self.open(file).size if _packed(file) else super().peek(file)

    def located(self) -> pd.DataFrame:
        """Return id, image and split of everybody, beside what the table says of them."""
        files, path = {kind: self._files(kind) for kind in self.files}, self.summary()
        self.archives = files["npz"]
        if path is None and not files["npz"]:
            there = ", ".join(sorted(item.name for item in self.home().iterdir())[:10]) or "nothing"
            wanted = " or ".join(dict.fromkeys(place.name for place in self.summaries()))
            raise FairbenchError(
                f"{self.name}: {self.home()} has neither {wanted} nor npz files in Training, Validation or Test "
                f"(it holds {there})",
                self.source,
            )
        people = self.read(path) if path else pd.DataFrame({"filename": sorted(f"{id}.npz" for id in files["npz"])})
        if missing := [column for column in ("filename", *(["use"] if path else [])) if column not in people]:
            raise FairbenchError(
                f"{self.name}: {path} lacks the columns {', '.join(missing)}; it has {', '.join(people.columns)}",
                f"{SEPARATED}; {self.source}",
            )
        people["id"] = people["filename"].map(str).str.removesuffix(".npz")
        people["image"] = people["id"].map(files[self._kind(people["id"], files)])
        homes = people["image"].map(lambda image: SPLIT_WORDS.get(Path(image).parent.name.lower()))
        stated = people["use"] if path else homes
        split = self._read_cells("split", Variable(("use",), also=SPLIT_WORDS), stated, path)
        people["split"] = split.where(split.notna(), homes)
        self._refuse_misplaced(people, homes)
        return self._whole(people, "split").sort_values("id", ignore_index=True)

    def described(self, people: pd.DataFrame) -> pd.DataFrame:
        """Return id, image, cluster, split, target and attributes of some people."""
        table = people[["id", "image", "split"]].assign(cluster=people["id"])
        for column in self.codebook:
            table[column] = self._column(column, people)
        table = self._whole(table, "target")
        self._compare(table)
        return table

    def summary(self) -> Path | None:
        """Return the table that is there, if any."""
        return next((path for path in self.summaries() if path.is_file()), None)

    def read(self, path: Path) -> pd.DataFrame:
        """Read a table as words; of its headings letters and digits count (`Marital Status` is `maritalstatus`)."""
        table = read_table(path, self.name, self.source).reset_index(drop=True)
        table.columns = [re.sub(r"[^a-z0-9]", "", str(column).lower()) for column in table.columns]
        if table.columns.has_duplicates:
            raise FairbenchError(
                f"{self.name}: {path} names a column twice: {', '.join(table.columns)}", self.source
            )
        return table

    def folders(self) -> list[Path]:
        """Return the folders that can hold files: one for each split, and those that they lie in."""
        bases = [base for base in (self.home(), self.home() / "Dataset") if base.is_dir()]
        within = [item for base in bases for item in sorted(base.iterdir())]
        return [*bases, *(item for item in within if item.name.lower() in SPLIT_WORDS and item.is_dir())]

    def held(self, keys: Sequence[str], ids: Iterable[str]) -> dict[str, object]:
        """Return what people's archives hold under the first of some keys; one that lacks them gives nothing."""
        values: dict[str, object] = {}
        for id in (id for id in ids if id in self.archives):
            for key in keys:
                try:
                    with self.path(self.archives[id]).open("rb") as file:
                        array = open_array(file, key)
                except (Unreadable, OSError):
                    continue
                values[id] = array.item() if array.size == 1 else repr(array)
                break
        return values

    def _files(self, kind: str) -> dict[str, str]:
        """Return the id behind each file of a kind with its path under the root."""
        paths: dict[str, str] = {}
        for item in (item for folder in self.folders() for item in sorted(folder.iterdir())):
            if match := self.files[kind].fullmatch(item.name.lower()):
                relative, id = item.relative_to(self.root or item).as_posix(), f"data_{match[1]}"
                if id in paths:
                    raise FairbenchError(
                        f"{self.name}: {paths[id]} and {relative} are both in {self.root}",
                        "keep the one that belongs to this release",
                    )
                paths[id] = relative
        return paths

    def _kind(self, ids: pd.Series[Any], files: Mapping[str, Mapping[str, str]]) -> str:
        """Choose one kind of file for everybody; all must be there."""
        kinds = list(self.files) if self.image_file == "auto" else [self.image_file]
        lost = {kind: ids[~ids.isin(list(files[kind]))] for kind in kinds}
        kind = min(kinds, key=lambda kind: len(lost[kind]))
        if len(lost[kind]):
            looked = ", ".join(str(folder.relative_to(self.root or folder)) for folder in self.folders())
            raise FairbenchError(
                f"{self.name}: {len(lost[kind]):,} of {len(ids):,} {kind} files are missing, for instance that of "
                f"{lost[kind].iloc[0]!r} (looked in {looked} of {self.root})",
                self.source,
            )
        return kind

    def _refuse_misplaced(self, people: pd.DataFrame, homes: pd.Series[Any]) -> None:
        odd = people[homes.notna() & people["split"].notna() & (homes != people["split"])]
        if len(odd):
            raise FairbenchError(
                f"{self.name}: {odd['image'].iloc[0]} does not lie where {self.summary()} puts it "
                f"({odd['split'].iloc[0]}); {len(odd):,} are like this",
                f"table and files are not of one release; {self.source}",
            )

    def _whole(self, people: pd.DataFrame, column: str) -> pd.DataFrame:
        """Leave out the rows that lack a target or split; raises FairbenchError where all do."""
        lacking = people[column].isna()
        if lacking.all():
            raise FairbenchError(
                f"{self.name}: nobody in {self.summary() or self.home()} has a {column}", self.source
            )
        if lacking.any():
            self.warnings.append(
                f"{int(lacking.sum()):,} of {len(people):,} rows have no {column} and were left out"
            )
        return people[~lacking]

    def _column(self, column: str, people: pd.DataFrame) -> pd.Series[Any]:
        """Read a column: from the table, or from the archives where it has none."""
        variable = self.codebook[column]
        key = next((key for key in variable.keys if key in people), None)
        if key is not None:
            return self._read_cells(column, variable, people[key], self.summary())
        held = self.held(variable.keys, people["id"])
        if not held and (self.summary() or column == "target"):
            raise FairbenchError(
                f"{self.name}: neither {self.summary() or 'a table'} nor any npz file has "
                f"`{'` or `'.join(variable.keys)}`",
                self.source,
            )
        if lacking := len(people) - len(held):
            self.warnings.append(f"{lacking:,} npz files have no {' or '.join(variable.keys)}: unrecorded")
        return self._read_cells(column, variable, people["id"].map(held), self.home())

    def _read_cells(
        self, column: str, variable: Variable, cells: pd.Series[Any], where: Path | None
    ) -> pd.Series[Any]:
        """Return the cells' values; what nobody understands is unrecorded, and a warning says how often."""
        meanings, strange = dict[object, str | None](), list[object]()
        for cell in cells.dropna().unique():
            try:
                meanings[cell] = variable.meaning(cell)
            except KeyError:
                strange.append(cell)
        if strange:
            count, total = int(cells.isin(strange).sum()), int(cells.notna().sum())
            plain = (cell.item() if isinstance(cell, np.generic) else cell for cell in strange[:3])
            shown = ", ".join(map(repr, plain)) + (", …" if len(strange) > 3 else "")
            said = f"{count:,} of {total:,} rows have an unknown {column} ({shown})"
            if count == total:
                raise FairbenchError(f"{self.name}: {where}: {said}", f"expected {variable.expected}")
            self.warnings.append(f"{said}: unrecorded")
        meant = cells.map(meanings).astype(object)
        return meant.where(meant.notna(), None)

    def _compare(self, table: pd.DataFrame) -> None:
        """Hold some people's archives against the table: what differs is a warning, and the table counts."""
        sample = table.iloc[np.unique(np.linspace(0, len(table) - 1, COMPARED).astype(int))]
        differ = []
        for column, variable in self.codebook.items():
            if variable.bins is not None:
                continue
            held = self.held(variable.keys, sample["id"])
            for id, written in zip(sample["id"], sample[column], strict=True):
                cell = held.get(id)
                told = variable.meanings.get(cell.lower() if isinstance(cell, str) else cell)
                if id in held and told != (None if pd.isna(written) else written):
                    differ.append(f"{id} {column} {written} and {told}")
        if differ:
            self.warnings.append(
                f"of {len(sample)} people compared, {self.summary()} and npz files differ in {len(differ)} values "
                f"({'; '.join(differ[:3])}): are they of one release?"
            )


def _packed(file: BinaryIO) -> bool:
    """Whether a file is an archive; it stands at its start before and after."""
    start = file.read(2)
    file.seek(0)
    return start == b"PK"
