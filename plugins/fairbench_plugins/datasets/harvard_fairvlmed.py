"""Harvard-FairVLMed: SLO fundus photographs, clinical notes and six attributes of 10,000 people (Luo 2024)."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal
from zipfile import ZipFile

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from fairbench import (
    Dataset,
    FairbenchError,
    ImageFolder,
    Unreadable,
    hookimpl,
    open_array,
    open_image,
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
# What csv and npz files call the columns, and the words (csv) and codes (npz) in them.
KEYS = {"split": "use", "target": "glaucoma", "age": "age", **{name: name.replace("-", "") for name in VALUES}}
MEANINGS: dict[str, dict[object, str]] = {
    "split": {"training": "train", "validation": "val", "test": "test"},
    "target": {"no": CLASSES[0], "yes": CLASSES[1], **dict(enumerate(CLASSES))},
    **{name: {**{value: value for value in values}, **dict(enumerate(values))} for name, values in VALUES.items()},
}
MEANINGS["marital-status"]["widoled"] = "widowed"  # as the description of the release has it
UNKNOWN = ("unknown", "-1", "-1.0", -1)
# Each bin with the first age, in completed years, that lies above it.
AGES: dict[str, dict[str, float]] = {
    "fairllava": {"<45": 45, "45-65": 66, ">=66": np.inf},
    "fairmedfm": {"<60": 60, ">=60": np.inf},
    "medfair5": {"0-19": 20, "20-39": 40, "40-59": 60, "60-79": 80, ">=80": np.inf},
}
TASKS = {"none": "the image alone", "summary": "image and GPT-4 summary", "note": "image and clinical note"}

SUMMARY = "data_summary.csv"
NOTES = ("gpt-4_summarized_notes.csv", "gpt4_summarized_notes.csv")
READMES = ("", "ReadMe/")
FOLDERS = {
    "training": "train", "validation": "val", "test": "test", "testing": "test", "train": "train", "val": "val",
}  # fmt: skip
FILES = {"npz": re.compile(r"data_(\d+)\.npz"), "jpg": re.compile(r"slo_fundus_(\d+)\.jpg")}
COMMAS = "columns are separated by commas, semicolons or tabs"
COMPARED = 10  # people whose npz file is held against the csv
SOURCE = (
    "get Harvard-FairVLMed from https://huggingface.co/datasets/harvardairobotics/FairVLMed or through "
    "https://ophai.hms.harvard.edu/datasets/harvard-fairvlmed10k, unpack it, and say "
    "--data harvard-fairvlmed=FOLDER"
)


class HarvardFairVLMed(ImageFolder):
    """10,000 SLO fundus photographs of 10,000 people, glaucoma or not; the official files and split.

    `note` makes another task of it: `summary` or `note` puts the GPT-4 summary or the clinical note
    before the question, and the text alone nearly tells the answer. Splits and attributes come from the
    words in data_summary.csv, and from the codes in the npz files only where it lacks a column.
    `image_file` says whose picture is shown (`auto`: npz if all are there, else jpg; never a mixture).
    Grey values end at about 86 of 255; `display = "stretch"` spreads each picture's over the whole range.
    """

    name = "harvard-fairvlmed"
    title = "Harvard-FairVLMed (SLO fundus, glaucoma)"
    licence = "CC BY-NC-ND 4.0"
    citation = (
        "Luo, Shi, Khan, Afzal, Huang, Yuan, Tian, Song, Kouhana, Elze, Fang, Wang: FairCLIP: Harnessing "
        "Fairness in Vision-Language Learning. CVPR 2024, arXiv:2403.19949"
    )
    homepage = "https://ophai.hms.harvard.edu/datasets/harvard-fairvlmed10k"
    publishable: ClassVar[str] = "aggregate results of non-commercial research; no image, no note, no altered copy"
    published: ClassVar[Mapping[str, int]] = {
        "all": 10_000, "train": 7_000, "val": 1_000, "test": 2_000, "test glaucoma": 1_023,
        "test race=asian": 158, "test race=black": 305, "test race=white": 1_537,
        "test gender=male": 904, "gender=female": 5_631, "gender=male": 4_369,
        "language=english": 9_250, "language=spanish": 176, "language=other": 76,
    }  # fmt: skip

    note: Literal["none", "summary", "note"] = "none"
    image_file: Literal["auto", "npz", "jpg"] = "auto"
    display: Literal["as-is", "stretch"] = "as-is"
    ages: Literal["fairllava", "fairmedfm", "medfair5"] = "fairllava"
    prompt: str = "Does the patient have glaucoma?"

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
        """Task, labels, bins, splits and picture in force."""
        leak = (
            "; the text leaks the answer (a GRU that reads nothing but the note was reported at AUROC 0.86), so "
            "compare with nothing that sees the image alone"
        )
        shown = "".join({Path(image).suffix[1:] for image in self.verdicts}) or self.image_file
        return (
            f"task: {TASKS[self.note]}{'' if self.note == 'none' else leak}",
            "labels (version 1): glaucoma = yes in the column glaucoma",
            f"ages {self.ages}, in completed years: {', '.join(AGES[self.ages])}",
            "splits: official, from the column use",
            f"picture: {shown}, grey values {self.display} (as they are, they end at about 86 of 255)",
        )

    def table(self) -> pd.DataFrame:
        """Read data_summary.csv and find the images; raises FairbenchError saying what is missing."""
        people = self._people()
        files = {kind: self._files(kind) for kind in FILES}
        people["image"] = people["number"].map(files[self._kind(people["number"], files)])
        people = self.readable(people)
        table = people[["id", "image"]].assign(cluster=people["id"])
        for column in KEYS:
            table[column] = self._column(column, people, files["npz"])
        self._refuse_misplaced(table)
        self._compare(table, people["number"], files["npz"])
        if self.note != "none":
            table["prompt"] = self._prompts(people, files["npz"])
        return table

    def sources(self) -> Sequence[Path]:
        """Return the tables and, for files that come and go, the folders."""
        tables = [self._root() / f"{readme}{name}" for readme in READMES for name in (SUMMARY, *NOTES)]
        return [*tables, *self._folders()]

    def open(self, source: Path | BinaryIO) -> Image.Image:
        """Decode a jpg, or the array `slo_fundus` of an npz file; raises Unreadable."""
        stream = io.BytesIO(source.read_bytes()) if isinstance(source, Path) else source
        packed = stream.read(2) == b"PK"
        stream.seek(0)
        image = Image.fromarray(_grey(open_array(stream, "slo_fundus"))) if packed else open_image(stream)
        return (_stretched(image) if self.display == "stretch" else image).convert("RGB")

    def peek(self, path: Path) -> None:
        """Look for the picture in an npz file's table of contents, or at a jpg's header."""
        if path.suffix != ".npz":
            super().peek(path)
            return
        with ZipFile(path) as archive:
            if "slo_fundus.npy" not in archive.namelist():
                raise Unreadable("it has no array `slo_fundus`")

    def _root(self) -> Path:
        if self.root is None or not self.root.is_dir():
            raise FairbenchError(f"{self.name}: {self.root or 'its folder'} is not a folder", SOURCE)
        return self.root

    def _first(self, names: Iterable[str]) -> Path | None:
        paths = [self._root() / f"{readme}{name}" for name in names for readme in READMES]
        return next((path for path in paths if path.is_file()), None)

    def _people(self) -> pd.DataFrame:
        """Return data_summary.csv in words, with each person's `id` and `number` beside its own columns."""
        path = self._first([SUMMARY])
        if path is None:
            there = ", ".join(sorted(item.name for item in self._root().iterdir())[:10]) or "nothing"
            raise FairbenchError(
                f"{self.name}: no {SUMMARY} in {self.root} or its ReadMe/ (it holds {there})", SOURCE
            )
        people = self._read(path)
        if missing := [column for column in ("filename", "use") if column not in people]:
            raise FairbenchError(
                f"{self.name}: {path} lacks the columns {', '.join(missing)}; it has {', '.join(people.columns)}",
                f"{COMMAS}; {SOURCE}",
            )
        names = people["filename"].map(str)
        people["id"] = names.str.removesuffix(".npz")
        people["number"] = names.str.extract(f"^{FILES['npz'].pattern}$", expand=False)
        if (odd := people["number"].isna()).any():
            raise FairbenchError(
                f"{self.name}: {path} has the filename {names[odd].iloc[0]!r}", "expected data_00001.npz and so on"
            )
        return people.sort_values("id", ignore_index=True)

    def _read(self, path: Path) -> pd.DataFrame:
        """Read a table as words; empty is missing. Its columns' letters and digits count."""
        table = read_words(path, self.name, f"{COMMAS}; {SOURCE}")
        # Releases and spreadsheets differ in `gpt4_summary` and `GPT-4 summary`: letters and digits count.
        table.columns = [re.sub(r"[^a-z0-9]", "", str(column).lower()) for column in table.columns]
        if table.columns.has_duplicates:
            raise FairbenchError(f"{self.name}: {path} names a column twice: {', '.join(table.columns)}", SOURCE)
        return table

    def _folders(self) -> list[Path]:
        """Return the folders that can hold images: one for each split, and those that they lie in."""
        bases = [base for base in (self._root(), self._root() / "Dataset") if base.is_dir()]
        within = [item for base in bases for item in sorted(base.iterdir())]
        return [*bases, *(item for item in within if item.name.lower() in FOLDERS and item.is_dir())]

    def _files(self, kind: str) -> dict[str, str]:
        """Return the number of each npz or jpg file with its path under the root."""
        found: dict[str, str] = {}
        for item in (item for folder in self._folders() for item in sorted(folder.iterdir())):
            if match := FILES[kind].fullmatch(item.name):
                relative = item.relative_to(self._root()).as_posix()
                if match[1] in found:
                    raise FairbenchError(
                        f"{self.name}: {found[match[1]]} and {relative} are both in {self.root}",
                        f"keep the one that {SUMMARY} means",
                    )
                found[match[1]] = relative
        return found

    def _kind(self, numbers: pd.Series[Any], files: Mapping[str, Mapping[str, str]]) -> str:
        """Choose npz or jpg for everybody; all must be there."""
        kinds = list(FILES) if self.image_file == "auto" else [self.image_file]
        lost = {kind: numbers[~numbers.isin(list(files[kind]))] for kind in kinds}
        kind = min(kinds, key=lambda kind: len(lost[kind]))
        if len(lost[kind]):
            example = {"npz": "data_{}.npz", "jpg": "slo_fundus_{}.jpg"}[kind].format(lost[kind].iloc[0])
            looked = ", ".join(str(folder.relative_to(self._root())) for folder in self._folders())
            raise FairbenchError(
                f"{self.name}: {len(lost[kind]):,} of {len(numbers):,} {kind} files are missing, for instance "
                f"{example} (looked in {looked} of {self.root})",
                SOURCE,
            )
        return kind

    def _column(self, column: str, people: pd.DataFrame, npz: Mapping[str, str]) -> pd.Series[Any]:
        """Translate a column: from the csv, or from the npz files where it has none."""
        key = KEYS[column]
        if key in people:
            where, cells = str(self._first([SUMMARY])), people[key]
        else:
            held = self._held(key, npz, people["number"])
            where, cells = f"npz files in {self.root}", people["number"].map(held)
            if lacking := len(people) - len(held):
                self.warnings.append(f"{lacking:,} people have no readable npz file with {key}: not recorded")
        found = []
        for person, cell in zip(people["id"], cells, strict=True):
            try:
                found.append(self._meaning(column, cell))
            except ValueError as error:
                raise FairbenchError(f"{self.name}: {where}: {person} has {key} {cell!r}", str(error)) from error
            if found[-1] is None and column in ("split", "target"):
                raise FairbenchError(f"{self.name}: {where}: {person} has no {key}", SOURCE)
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

    def _held(self, key: str, npz: Mapping[str, str], numbers: pd.Series[Any]) -> dict[str, object]:
        """Return what each person's npz file holds under a key; a file that cannot be read gives nothing."""
        found: dict[str, object] = {}
        for number in numbers[numbers.isin(list(npz))]:
            try:
                array = open_array(self.path(npz[number]), key)
            except Unreadable:
                continue
            found[number] = array.item() if array.size == 1 else repr(array)
        if not found:
            raise FairbenchError(f"{self.name}: neither {SUMMARY} nor any npz file has `{key}`", SOURCE)
        return found

    def _refuse_misplaced(self, table: pd.DataFrame) -> None:
        homes = table["image"].map(lambda image: FOLDERS.get(Path(image).parent.name.lower()))
        odd = table[homes.notna() & (homes != table["split"])]
        if len(odd):
            raise FairbenchError(
                f"{self.name}: {SUMMARY} puts {odd['id'].iloc[0]} into {odd['split'].iloc[0]}, but its file is "
                f"{odd['image'].iloc[0]} ({len(odd):,} are like this)",
                f"table and files are not of one release; {SOURCE}",
            )

    def _compare(self, table: pd.DataFrame, numbers: pd.Series[Any], npz: Mapping[str, str]) -> None:
        """Hold some people's npz files against the csv: what differs is a warning, and the csv counts."""
        chosen = np.unique(np.linspace(0, len(table) - 1, COMPARED).astype(int))
        sample, differ = table.iloc[chosen].assign(number=numbers.iloc[chosen]), []
        for column in ("target", *VALUES):
            try:
                held = self._held(KEYS[column], npz, sample["number"])
            except FairbenchError:
                continue  # no npz files, or none with this key
            for person, number, written in zip(sample["id"], sample["number"], sample[column], strict=True):
                told = MEANINGS[column].get(held.get(number))
                if number in held and told != (None if pd.isna(written) else written):
                    differ.append(f"{person} {KEYS[column]} {written} and {told}")
        if differ:
            self.warnings.append(
                f"of {len(chosen)} people compared, {SUMMARY} and npz files differ in {len(differ)} values "
                f"({'; '.join(differ[:3])}): are they of one release?"
            )

    def _prompts(self, people: pd.DataFrame, npz: Mapping[str, str]) -> pd.Series[Any]:
        """Put each person's text before the question; whoever has none is asked the bare question."""
        column = {"summary": "gpt4summary", "note": "note"}[self.note]
        if column in people:
            texts = people[column]
        elif self.note == "note":
            texts = people["number"].map(self._held("note", npz, people["number"]))
        else:
            texts = people["filename"].map(self._summaries())
        told = texts.map(lambda text: isinstance(text, str) and bool(text.strip()))
        if not told.all():
            self.warnings.append(
                f"{int((~told).sum()):,} of {len(told):,} people have no {self.note}, only a question"
            )
        opening = {"summary": "Summary of the clinical note", "note": "Clinical note"}[self.note]
        return (opening + ": " + texts.map(str).str.strip() + "\n" + self.prompt).where(told, self.prompt)

    def _summaries(self) -> dict[str, str | None]:
        """Return file name → summary from the file of summaries, whose first and third columns these are."""
        path = self._first(NOTES)
        table = self._read(path) if path else pd.DataFrame()
        if len(table.columns) < 3:
            raise FairbenchError(
                f"{self.name}: no column gpt4_summary in {SUMMARY}, and {path or NOTES[0]} "
                + ("has fewer than three columns" if path else "is not there"),
                SOURCE,
            )
        return dict(zip(table.iloc[:, 0], table.iloc[:, 2], strict=True))

    @classmethod
    def example(cls, folder: Path) -> None:
        """Write 60 made-up people as the release does: ReadMe/, three folders, an npz and a jpg for each."""
        generator = np.random.default_rng(0)
        count = 60
        dealt = {
            "race": (0, 1, 1, 2, 2, 2), "gender": (0, 1), "ethnicity": (0, 0, 0, 0, 1, -1),
            "language": (0, 0, 0, 0, 0, 1, 2, -1), "maritalstatus": (0, 0, 1, 2, 3, 4, -1),
        }  # fmt: skip
        codes = {key: generator.permutation(np.resize(cards, count)) for key, cards in dealt.items()}
        ages = generator.uniform(9, 98, count).round(2)
        rows = []
        for index, use in enumerate(np.repeat(["training", "validation", "test"], [36, 8, 16])):
            number, own = f"{index + 1:05d}", {key: int(code[index]) for key, code in codes.items()}
            ill = own["glaucoma"] = index % 2
            words = {KEYS[name]: (*VALUES[name], "unknown")[own[KEYS[name]]] for name in VALUES}
            note = f"{int(ages[index])} yo {words['gender']} seen DATE_TIME by PERSON, md.\n" + (
                'iop 24 ou; "cupped" discs, start latanoprost' if ill else "iop 14 ou; discs healthy, return prn"
            )
            row = {"filename": f"data_{number}.npz", "age": f"{ages[index]:.2f}", **words, "note": note}
            row["gpt4_summary"] = f"The patient has {'cupped' if ill else 'healthy'} discs, both eyes."
            rows.append({**row, "glaucoma": ("no", "yes")[ill], "use": use})
            image = generator.integers(0, 40, (83, 64), dtype=np.uint8)
            image[30:50, 20:40] += np.uint8(20 + 26 * ill)  # no brighter than the real ones
            texts = {"note": note, "note_extra": f"{words['race']} {words['gender']}. {note}"} if index % 3 else {}
            field = {"md": generator.normal(-12 * ill, 2), "tds": generator.normal(-12 * ill, 3, 52)}
            arrays: dict[str, Any] = {"slo_fundus": image, **field, "age": ages[index], **own, **texts}
            home = folder / use.capitalize()
            home.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(home / f"data_{number}.npz", **arrays)
            Image.fromarray(image).save(home / f"slo_fundus_{number}.jpg", quality=95)
        (folder / "ReadMe").mkdir(exist_ok=True)
        people = pd.DataFrame(rows)
        people.to_csv(folder / "ReadMe" / SUMMARY, index=False)
        people[["filename", "note", "gpt4_summary"]].to_csv(folder / "ReadMe" / NOTES[0], index=False)


def _grey(array: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Return a picture's grey values, which must lie between 0 and 255."""
    if array.ndim != 2 or not array.size or array.dtype.kind not in "uif":
        raise Unreadable(f"`slo_fundus` is no grey picture but {array.dtype} of shape {array.shape}")
    values = array.astype(float)
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 255):
        raise Unreadable(f"grey values from {values.min()} to {values.max()} do not lie between 0 and 255")
    return values.round().astype(np.uint8)


def _stretched(image: Image.Image) -> Image.Image:
    """Spread a picture's grey values linearly over 0 to 255; one that is all the same stays."""
    grey = np.asarray(image.convert("L")).astype(float)
    low, high = grey.min(), grey.max()
    return Image.fromarray(((grey - low) * 255 / (high - low)).round().astype(np.uint8)) if high > low else image


@hookimpl
def fairbench_datasets() -> Iterable[type[Dataset]]:
    """Offer Harvard-FairVLMed."""
    return [HarvardFairVLMed]
