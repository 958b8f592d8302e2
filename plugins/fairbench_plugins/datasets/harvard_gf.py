"""Harvard-GF: maps of the retinal nerve fibre layer of 3,300 people, a third of each race (Luo 2024)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal
from zipfile import ZipFile

import numpy as np
import pandas as pd
from PIL import Image

from fairbench import (
    Dataset,
    FairbenchError,
    ImageFolder,
    Unreadable,
    hookimpl,
    open_array,
    read_words,
)

CLASSES = ("non-glaucoma", "glaucoma")
# In the order of the codes in the npz files, which count from 0.
VALUES: dict[str, tuple[str, ...]] = {
    "race": ("asian", "black", "white"),
    "gender": ("female", "male"),
    "ethnicity": ("non-hispanic", "hispanic"),
    "language": ("english", "spanish", "other"),
    "marital-status": ("married or partnered", "single", "divorced", "widowed", "legally separated"),
}
# What the csv and then the npz files call the columns, and the words and codes in them.
KEYS: dict[str, tuple[str, ...]] = {
    "target": ("glaucoma",),
    "race": ("race",),
    "gender": ("gender", "male"),
    "ethnicity": ("ethnicity", "hispanic"),
    "language": ("language",),
    "marital-status": ("maritalstatus",),
    "age": ("age",),
}
MEANINGS: dict[str, dict[object, str]] = {
    "split": {"training": "train", "validation": "val", "test": "test"},
    "target": {"no": CLASSES[0], "yes": CLASSES[1], **dict(enumerate(CLASSES))},
    **{name: {**{value: value for value in values}, **dict(enumerate(values))} for name, values in VALUES.items()},
}
MEANINGS["race"] |= {"black or african american": "black", "white or caucasian": "white"}  # in older npz files
UNKNOWN = ("unknown", "-1", "-1.0", -1)
# Each bin with the first age, in completed years, that lies above it.
AGES: dict[str, dict[str, float]] = {
    "fairllava": {"<45": 45, "45-65": 66, ">=66": np.inf},
    "fairmedfm": {"<60": 60, ">=60": np.inf},
    "medfair5": {"0-19": 20, "20-39": 40, "40-59": 60, "60-79": 80, ">=80": np.inf},
}

SUMMARY = "data_summary.csv"
READMES = ("", "ReadMe/")
FOLDERS = {
    "training": "train", "validation": "val", "test": "test", "testing": "test", "train": "train", "val": "val",
}  # fmt: skip
FILE = re.compile(r"data_(\d+)\.npz")
THINNEST, THICKEST = -2.0, 350.0  # micrometres that are shown black and white
COMMAS = "columns are separated by commas, semicolons or tabs"
COMPARED = 10  # people whose npz file is held against the csv
SOURCE = (
    "get Harvard-GF from https://huggingface.co/datasets/harvardairobotics/Harvard-GF or through "
    "https://ophai.hms.harvard.edu/datasets/harvard-glaucoma-fairness-3300-samples, unpack it, and say "
    "--data harvard-gf=FOLDER"
)


class HarvardGF(ImageFolder):
    """3,300 maps of the retinal nerve fibre layer's thickness, glaucoma or not; the official files and split.

    A map becomes grey by (x + 2) / 352 · 255: −2 µm (nothing measured) is black, 350 µm is white, and what
    lies beyond is cut off. Split, label and attributes come from the words in data_summary.csv where it is
    there, else from the folders and from the codes in the npz files, which name them differently.
    """

    name = "harvard-gf"
    title = "Harvard-GF (retinal nerve fibre layer maps, glaucoma)"
    licence = "CC BY-NC-ND 4.0"
    citation = (
        "Luo, Tian, Shi, Pasquale, Shen, Zebardast, Elze, Wang: Harvard Glaucoma Fairness: A Retinal Nerve Disease "
        "Dataset for Fairness Learning and Fair Identity Normalization. IEEE Trans Med Imaging (2024), "
        "arXiv:2306.09264"
    )
    homepage = "https://ophai.hms.harvard.edu/datasets/harvard-glaucoma-fairness-3300-samples"
    publishable: ClassVar[str] = "aggregate results of non-commercial research; no image, no altered copy"
    published: ClassVar[Mapping[str, int]] = {
        "all": 3_300, "train": 2_100, "val": 300, "test": 900,
        "train glaucoma": 1_083, "val glaucoma": 176, "test glaucoma": 489,
        "race=asian": 1_100, "race=black": 1_100, "race=white": 1_100,
        "gender=female": 1_812, "gender=male": 1_488,
        "ethnicity=hispanic": 87, "ethnicity=non-hispanic": 3_025,
        "language=english": 2_877, "language=spanish": 38, "language=other": 354,
        "marital-status=married or partnered": 1_884, "marital-status=single": 947,
        "marital-status=divorced": 168, "marital-status=widowed": 181,
        "marital-status=legally separated": 39,
    }  # fmt: skip

    ages: Literal["fairllava", "fairmedfm", "medfair5"] = "fairllava"
    prompt: str = "This map shows the thickness of the retinal nerve fibre layer. Does the patient have glaucoma?"

    @property
    def classes(self) -> tuple[str, ...]:
        """Glaucoma is the positive class."""
        return CLASSES

    @property
    def words(self) -> tuple[str, ...]:
        """Answers to the prompt."""
        return ("no", "yes")

    @property
    def attributes(self) -> Mapping[str, tuple[str, ...]]:
        """Race, gender, ethnicity, preferred language, marital status and binned age."""
        return {**VALUES, "age": tuple(AGES[self.ages])}

    @property
    def notes(self) -> tuple[str, ...]:
        """Labels, bins, splits and picture in force."""
        return (
            "labels (version 1): glaucoma = yes in the column glaucoma, 1 in the npz files",
            f"ages {self.ages}, in completed years: {', '.join(AGES[self.ages])}",
            f"splits: official, from the column use of {SUMMARY}, else from the folders",
            "picture: thickness in micrometres, grey = (x + 2) / 352 · 255, cut off at black and white",
            "races are equally frequent by design: prevalences are not those of any clinic",
        )

    def table(self) -> pd.DataFrame:
        """Find the maps, and whose they are; raises FairbenchError saying what is missing."""
        people = self.readable(self._people())
        table = people[["id", "image"]].assign(cluster=people["id"], split=people["split"])
        for column in KEYS:
            table[column] = self._column(column, people)
        self._compare(table)
        return table

    def sources(self) -> Sequence[Path]:
        """Return the table and, for files that come and go, the folders."""
        return [*(self._root() / f"{readme}{SUMMARY}" for readme in READMES), *self._folders()]

    def open(self, source: Path | BinaryIO) -> Image.Image:
        """Show the array `rnflt` of an npz file in grey; raises Unreadable."""
        array = open_array(source, "rnflt")
        if array.ndim != 2 or not array.size or array.dtype.kind not in "uif" or not np.isfinite(array).all():
            raise Unreadable(f"`rnflt` is no map of numbers but {array.dtype} of shape {array.shape}")
        light = (array.astype(float) - THINNEST) / (THICKEST - THINNEST)
        return Image.fromarray((light.clip(0, 1) * 255).round().astype(np.uint8)).convert("RGB")

    def peek(self, path: Path) -> None:
        """Look for the map in a file's table of contents."""
        with ZipFile(path) as archive:
            if "rnflt.npy" not in archive.namelist():
                raise Unreadable("it has no array `rnflt`")

    def _root(self) -> Path:
        if self.root is None or not self.root.is_dir():
            raise FairbenchError(f"{self.name}: {self.root or 'its folder'} is not a folder", SOURCE)
        return self.root

    def _summary(self) -> Path | None:
        paths = [self._root() / f"{readme}{SUMMARY}" for readme in READMES]
        return next((path for path in paths if path.is_file()), None)

    def _people(self) -> pd.DataFrame:
        """Return id, image and split of everybody, with the columns of data_summary.csv where it is there."""
        files, path = self._files(), self._summary()
        if not files:
            there = ", ".join(sorted(item.name for item in self._root().iterdir())[:10]) or "nothing"
            raise FairbenchError(
                f"{self.name}: no data_0001.npz and so on in Training, Validation or Test of {self.root} "
                f"(it holds {there})",
                SOURCE,
            )
        people = pd.DataFrame({"filename": sorted(files)}) if path is None else self._read(path)
        if path is not None and (missing := [column for column in ("filename", "use") if column not in people]):
            raise FairbenchError(
                f"{self.name}: {path} lacks the columns {', '.join(missing)}; it has {', '.join(people.columns)}",
                f"{COMMAS}; {SOURCE}",
            )
        names = people["filename"].map(str)
        if len(lost := names[~names.isin(list(files))]):
            raise FairbenchError(
                f"{self.name}: {len(lost):,} of {len(names):,} files that {path} names are missing, for instance "
                f"{lost.iloc[0]!r} (looked in {', '.join(map(str, self._folders()))})",
                SOURCE,
            )
        people["id"], people["image"] = names.str.removesuffix(".npz"), names.map(files)
        homes = people["image"].map(lambda image: FOLDERS.get(Path(image).parent.name.lower()))
        people["split"] = homes if path is None else self._translated("split", people["id"], people["use"], path)
        odd = people[people["split"].isna() | (homes.notna() & (homes != people["split"]))]
        if len(odd):
            raise FairbenchError(
                f"{self.name}: {odd['image'].iloc[0]} does not lie where {SUMMARY} puts it "
                f"({odd['split'].iloc[0] or 'no split'}); {len(odd):,} are like this",
                f"table and files are not of one release, or the folders have other names; {SOURCE}",
            )
        return people.sort_values("id", ignore_index=True)

    def _read(self, path: Path) -> pd.DataFrame:
        """Read a table as words; empty is missing. Its columns' letters and digits count."""
        table = read_words(path, self.name, f"{COMMAS}; {SOURCE}")
        # Spreadsheets write `Marital Status` for `maritalstatus`: letters and digits count.
        table.columns = [re.sub(r"[^a-z0-9]", "", str(column).lower()) for column in table.columns]
        if table.columns.has_duplicates:
            raise FairbenchError(f"{self.name}: {path} names a column twice: {', '.join(table.columns)}", SOURCE)
        return table

    def _folders(self) -> list[Path]:
        """Return the folders that can hold files: one for each split, and those that they lie in."""
        bases = [base for base in (self._root(), self._root() / "Dataset") if base.is_dir()]
        within = [item for base in bases for item in sorted(base.iterdir())]
        return [*bases, *(item for item in within if item.name.lower() in FOLDERS and item.is_dir())]

    def _files(self) -> dict[str, str]:
        """Return the name of each npz file with its path under the root."""
        found: dict[str, str] = {}
        for item in (item for folder in self._folders() for item in sorted(folder.iterdir())):
            if FILE.fullmatch(item.name):
                relative = item.relative_to(self._root()).as_posix()
                if item.name in found:
                    raise FairbenchError(
                        f"{self.name}: {found[item.name]} and {relative} are both in {self.root}",
                        "keep the one that belongs to this release",
                    )
                found[item.name] = relative
        return found

    def _column(self, column: str, people: pd.DataFrame) -> pd.Series[Any]:
        """Translate a column: from the csv, or from the npz files where it has none."""
        key = next((key for key in KEYS[column] if key in people), None)
        if key is not None:
            return self._translated(column, people["id"], people[key], self._summary())
        held = self._held(column, people["image"])
        if not held:
            raise FairbenchError(
                f"{self.name}: neither {SUMMARY} nor any npz file has `{'` or `'.join(KEYS[column])}`", SOURCE
            )
        if lacking := len(people) - len(held):
            self.warnings.append(f"{lacking:,} npz files have no {' or '.join(KEYS[column])}: not recorded")
        cells = people["image"].map(held)
        return self._translated(column, people["id"], cells, f"npz files in {self.root}")

    def _translated(
        self, column: str, people: pd.Series[Any], cells: pd.Series[Any], where: object
    ) -> pd.Series[Any]:
        found = []
        for person, cell in zip(people, cells, strict=True):
            try:
                found.append(self._meaning(column, cell))
            except ValueError as error:
                raise FairbenchError(f"{self.name}: {where}: {person} has {column} {cell!r}", str(error)) from error
            if found[-1] is None and column in ("split", "target"):
                raise FairbenchError(f"{self.name}: {where}: {person} has no {column}", SOURCE)
        return pd.Series(found, index=people.index, dtype=object)

    def _meaning(self, column: str, cell: object) -> str | None:
        """Translate a word or code, None where not recorded; raises ValueError with what was expected."""
        word = cell.lower() if isinstance(cell, str) else cell
        if pd.isna(word) or word in UNKNOWN:  # type: ignore[call-overload]
            return None
        if column == "age":
            return self._bin(word)
        if word not in MEANINGS[column]:
            raise ValueError(f"expected {', '.join(map(str, MEANINGS[column]))}, unknown or -1")
        return MEANINGS[column][word]

    def _bin(self, age: Any) -> str:
        years = float(age) if re.fullmatch(r"\d+(\.\d*)?", str(age)) else np.inf
        if years > 120:
            raise ValueError("expected years from 0 to 120, unknown or -1")
        return next(name for name, above in AGES[self.ages].items() if np.floor(years) < above)

    def _held(self, column: str, images: Iterable[str]) -> dict[str, object]:
        """Return what npz files hold under a column's key; one that lacks it gives nothing."""
        found: dict[str, object] = {}
        for image in images:
            for key in KEYS[column]:
                try:
                    array = open_array(self.path(image), key)
                except Unreadable:
                    continue
                found[image] = array.item() if array.size == 1 else repr(array)
                break
        return found

    def _compare(self, table: pd.DataFrame) -> None:
        """Hold some people's npz files against the csv: what differs is a warning, and the csv counts."""
        sample = table.iloc[np.unique(np.linspace(0, len(table) - 1, COMPARED).astype(int))]
        differ = []
        for column in MEANINGS.keys() & KEYS.keys():
            held = self._held(column, sample["image"])
            for person, image, written in zip(sample["id"], sample["image"], sample[column], strict=True):
                cell = held.get(image)
                told = MEANINGS[column].get(cell.lower() if isinstance(cell, str) else cell)
                if image in held and told != (None if pd.isna(written) else written):
                    differ.append(f"{person} {column} {written} and {told}")
        if differ:
            self.warnings.append(
                f"of {len(sample)} people compared, {SUMMARY} and npz files differ in {len(differ)} values "
                f"({'; '.join(sorted(differ)[:3])}): are they of one release?"
            )

    @classmethod
    def example(cls, folder: Path) -> None:
        """Write 45 made-up people as the release does: ReadMe/data_summary.csv and three folders of npz files."""
        generator = np.random.default_rng(0)
        count = 45
        dealt = {
            "race": (0, 1, 2), "male": (0, 1), "hispanic": (0, 0, 0, 1, -1), "language": (0, 0, 0, 1, 2, -1),
            "maritalstatus": (0, 0, 1, 2, 3, 4, -1),
        }  # fmt: skip
        codes = {key: generator.permutation(np.resize(cards, count)) for key, cards in dealt.items()}
        ages = generator.uniform(10, 98, count).round(2)
        rows = []
        for index, use in enumerate(np.repeat(["training", "validation", "test"], [27, 6, 12])):
            name, own = f"data_{index + 1:04d}.npz", {key: int(code[index]) for key, code in codes.items()}
            ill = own["glaucoma"] = index % 2
            words = {KEYS[a][0]: (*VALUES[a], "unknown")[own[KEYS[a][-1]]] for a in VALUES}
            row = {"filename": name, "age": f"{ages[index]:.2f}", **words}
            rows.append({**row, "glaucoma": ("no", "yes")[ill], "use": use})
            rnflt = generator.uniform(20, 120 - 40 * ill, (25, 25)).round()
            rnflt[10:15, 10:15] = -2  # nothing is measured in the disc
            field = {"md": generator.normal(-12 * ill, 2), "tds": generator.normal(-12 * ill, 3, 52)}
            scan = generator.integers(0, 256, (4, 4, 4), dtype=np.uint8)
            arrays: dict[str, Any] = {"rnflt": rnflt, "oct_bscans": scan, **field, "age": ages[index], **own}
            home = folder / use.capitalize()
            home.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(home / name, **arrays)
        (folder / "ReadMe").mkdir(exist_ok=True)
        pd.DataFrame(rows).to_csv(folder / "ReadMe" / SUMMARY, index=False)


@hookimpl
def fairbench_datasets() -> Iterable[type[Dataset]]:
    """Offer Harvard-GF."""
    return [HarvardGF]
