"""FairVision: SLO fundus photographs of 30,000 people with AMD, diabetic retinopathy or glaucoma (Luo 2023)."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Labels:
    """How what was written of a disease becomes classes; `version` rises when that changes.

    `meanings` maps the words of the csv, and the conditions or codes of the npz files, to an index of `classes`.
    """

    version: int
    prompt: str
    classes: tuple[str, ...]
    words: tuple[str, ...]
    meanings: Mapping[object, int]


# Each stage of AMD: the csv's word, then the conditions that FairVision's own code counts as it.
AMD = (
    ("normal", "no amd", "not.in.icd.table", "no.amd.diagnosis"),
    ("early amd", "early.dry"),
    ("intermediate amd", "intermediate.dry"),
    (
        "late amd", "advanced.atrophic.dry.with.subfoveal.involvement",
        "advanced.atrophic.dry.without.subfoveal.involvement", "wet.amd.active.choroidal.neovascularization",
        "wet.amd.inactive.choroidal.neovascularization", "wet.amd.inactive.scar",
    ),
)  # fmt: skip
DR = (
    (
        "non-vision threatening dr",
        "normal",
        "no dr",
        "not.in.icd.table",
        "no.dr.diagnosis",
        "mild.npdr",
        "moderate.npdr",
    ),
    ("vision threatening dr", "severe.npdr", "pdr"),
)
LABELS: dict[str, dict[str, Labels]] = {  # disease → labels → rule
    "glaucoma": {
        "binary": Labels(
            1, "Does the patient have glaucoma?", ("non-glaucoma", "glaucoma"), ("no", "yes"),
            {"no": 0, "yes": 1, 0: 0, 1: 1},
        )
    },
    "amd": {
        "binary": Labels(
            1, "Does the patient have age-related macular degeneration?", ("no amd", "amd"), ("no", "yes"),
            {word: int(stage > 0) for stage, words in enumerate(AMD) for word in words},
        ),
        "stages": Labels(
            1, "Which stage of age-related macular degeneration is this? Answer none, early, intermediate or late.",
            ("no amd", "early amd", "intermediate amd", "late amd"), ("none", "early", "intermediate", "late"),
            {word: stage for stage, words in enumerate(AMD) for word in words},
        ),
    },
    "dr": {
        "binary": Labels(
            1, "Does the patient have vision-threatening diabetic retinopathy?",
            ("no vision-threatening dr", "vision-threatening dr"), ("no", "yes"),
            {word: index for index, words in enumerate(DR) for word in words},
        )
    },
}  # fmt: skip
# In the order of the codes in the npz files, which count from 0.
VALUES: dict[str, tuple[str, ...]] = {
    "race": ("asian", "black", "white"),
    "gender": ("female", "male"),
    "ethnicity": ("non-hispanic", "hispanic"),
    "language": ("english", "spanish", "other"),
    "marital-status": ("married or partnered", "single", "divorced", "widowed", "legally separated"),
}
# What the csv and then the npz files call the columns, and the words and codes in them.
TARGET_KEYS = {"glaucoma": ("glaucoma",), "amd": ("amd", "amd_condition", "dr_subtype"), "dr": ("dr", "dr_subtype")}
KEYS: dict[str, tuple[str, ...]] = {
    "race": ("race",),
    "gender": ("gender", "male"),
    "ethnicity": ("ethnicity", "hispanic"),
    "language": ("language",),
    "marital-status": ("maritalstatus",),
    "age": ("age",),
}
MEANINGS: dict[str, dict[object, str]] = {
    "split": {"training": "train", "validation": "val", "test": "test"},
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
PUBLISHED: dict[str, dict[str, int]] = {
    # The description says 7,000/1,000/2,000; data_summary_glaucoma.csv says this.
    "glaucoma": {
        "all": 10_000, "train": 6_000, "val": 1_000, "test": 3_000, "test glaucoma": 1_466,
        "test race=asian": 251, "test race=black": 431, "test race=white": 2_318,
    },
    "amd": {"all": 10_000},
    "dr": {"all": 10_000},
}  # fmt: skip

FOLDERS = {
    "training": "train", "validation": "val", "test": "test", "testing": "test", "train": "train", "val": "val",
}  # fmt: skip
FILES = {"npz": re.compile(r"data_(\d+)\.npz"), "jpg": re.compile(r"slo_(?:fundus_)?(\d+)\.jpg")}
COMMAS = "columns are separated by commas, semicolons or tabs"
COMPARED = 10  # people whose npz file is held against the csv
SOURCE = (
    "get FairVision from https://huggingface.co/datasets/harvardairobotics/FairVision (see also "
    "https://github.com/Harvard-Ophthalmology-AI-Lab/FairVision), unpack it, and say --data fairvision=FOLDER"
)


class FairVision(ImageFolder):
    """SLO fundus photographs of 10,000 people for each of three diseases; the official files and split.

    `disease` chooses whose; `labels = "stages"` tells four stages of AMD apart instead of AMD or none.
    Split, label and attributes come from the words in data_summary_DISEASE.csv where it is there, else from
    the folders and the codes in the npz files. `image_file` says whose picture is shown: that of the npz
    file (200×200, grey values stretched by the authors) or the jpg beside it (664×512); `auto` takes npz if
    all are there, else jpg, never a mixture. Only headers are verified by default: npz files hold volumes too.
    """

    name = "fairvision"
    title = "FairVision (SLO fundus: AMD, diabetic retinopathy, glaucoma)"
    licence = "CC BY-NC-ND 4.0"
    citation = (
        "Luo, Tian, Shi, Elze, Wang: FairVision: Equitable Deep Learning for Eye Disease Screening via Fair "
        "Identity Scaling. arXiv:2310.02492 (2023)"
    )
    homepage = "https://github.com/Harvard-Ophthalmology-AI-Lab/FairVision"
    publishable: ClassVar[str] = "aggregate results of non-commercial research; no image, no altered copy"

    disease: Literal["glaucoma", "amd", "dr"] = "glaucoma"
    labels: Literal["binary", "stages"] = "binary"
    image_file: Literal["auto", "npz", "jpg"] = "auto"
    ages: Literal["fairllava", "fairmedfm", "medfair5"] = "fairllava"
    verify: Literal["decode", "header"] = "header"
    prompt: str = ""  # empty: the question that belongs to the labels

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        if self.labels not in LABELS[self.disease]:
            raise FairbenchError(
                f"fairvision.labels = {self.labels!r} is not there for {self.disease}",
                f"choose one of: {', '.join(LABELS[self.disease])}",
            )
        self.prompt = self.prompt or self._rule.prompt

    @property
    def _rule(self) -> Labels:
        return LABELS[self.disease][self.labels]

    @property  # a fact that depends on the disease
    def published(self) -> Mapping[str, int]:  # type: ignore[override]
        """What is known of the release's numbers."""
        return PUBLISHED[self.disease]

    @property
    def classes(self) -> tuple[str, ...]:
        """Without and with the disease, or its stages."""
        return self._rule.classes

    @property
    def words(self) -> tuple[str, ...]:
        """Answers to the prompt."""
        return self._rule.words

    @property
    def attributes(self) -> Mapping[str, tuple[str, ...]]:
        """Race, gender, ethnicity, preferred language, marital status and binned age."""
        return {**VALUES, "age": tuple(AGES[self.ages])}

    @property
    def notes(self) -> tuple[str, ...]:
        """Labels, bins, splits and picture in force."""
        rule = self._rule
        shown = "".join({Path(image).suffix[1:] for image in self.verdicts}) or self.image_file
        groups = [
            [str(word) for word, index in rule.meanings.items() if index == i] for i in range(len(rule.classes))
        ]
        meaning = "; ".join(
            f"{name} = {', '.join(group)}" for name, group in zip(rule.classes, groups, strict=True)
        )
        return (
            f"labels {self.disease} {self.labels} (version {rule.version}): {meaning}",
            f"ages {self.ages}, in completed years: {', '.join(AGES[self.ages])}",
            f"splits: official, from the column use of {self._table_name}, else from the folders",
            f"picture: {shown} (npz: 200×200, stretched by the authors; jpg: 664×512, as it is)",
        )

    @property
    def _table_name(self) -> str:
        return f"data_summary_{self.disease}.csv"

    def table(self) -> pd.DataFrame:
        """Find the pictures, and whose they are; raises FairbenchError saying what is missing."""
        people, npz = self._people()
        people = self.readable(people)
        table = people[["id", "image"]].assign(cluster=people["id"], split=people["split"])
        for column in ("target", *KEYS):
            table[column] = self._column(column, people, npz)
        self._compare(table, npz)
        return table

    def sources(self) -> Sequence[Path]:
        """Return the table's possible places and, for files that come and go, the folders."""
        return [*self._table_places(), *self._folders()]

    def open(self, source: Path | BinaryIO) -> Image.Image:
        """Decode a jpg, or the array `slo_fundus` of an npz file; raises Unreadable."""
        stream = io.BytesIO(source.read_bytes()) if isinstance(source, Path) else source
        packed = stream.read(2) == b"PK"
        stream.seek(0)
        if not packed:
            return open_image(stream)
        return Image.fromarray(_grey(open_array(stream, "slo_fundus"))).convert("RGB")

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

    def _home(self) -> Path:
        """Return the disease's folder."""
        there = sorted(self._root().iterdir())
        homes = [item for item in there if item.name.lower() == self.disease and item.is_dir()]
        if not homes:
            names = ", ".join(item.name for item in there[:10]) or "nothing"
            raise FairbenchError(
                f"{self.name}: {self.root} has no folder for {self.disease} (it holds {names})",
                f"expected AMD, DR or Glaucoma; {SOURCE}",
            )
        return homes[0]

    def _table_places(self) -> list[Path]:
        return [folder / self._table_name for folder in (self._root(), self._home(), self._home() / "ReadMe")]

    def _summary(self) -> Path | None:
        return next((path for path in self._table_places() if path.is_file()), None)

    def _people(self) -> tuple[pd.DataFrame, dict[str, str]]:
        """Return id, image and split of everybody beside what the csv says, and the npz file of each id."""
        files, path = {kind: self._files(kind) for kind in FILES}, self._summary()
        if path is None and not files["npz"]:
            raise FairbenchError(
                f"{self.name}: {self._home()} has neither {self._table_name} nor npz files", SOURCE
            )
        people = (
            self._read(path) if path else pd.DataFrame({"filename": [f"{id}.npz" for id in sorted(files["npz"])]})
        )
        if missing := [column for column in ("filename", *(["use"] if path else [])) if column not in people]:
            raise FairbenchError(
                f"{self.name}: {path} lacks the columns {', '.join(missing)}; it has {', '.join(people.columns)}",
                f"{COMMAS}; {SOURCE}",
            )
        people["id"] = people["filename"].map(str).str.removesuffix(".npz")
        people["image"] = people["id"].map(files[self._kind(people["id"], files)])
        homes = people["image"].map(lambda image: FOLDERS.get(Path(image).parent.name.lower()))
        people["split"] = self._translated("split", people["id"], people["use"], path) if path else homes
        odd = people[people["split"].isna() | (homes.notna() & (homes != people["split"]))]
        if len(odd):
            raise FairbenchError(
                f"{self.name}: {odd['image'].iloc[0]} does not lie where {self._table_name} puts it "
                f"({odd['split'].iloc[0] or 'no split'}); {len(odd):,} are like this",
                f"table and files are not of one release, or the folders have other names; {SOURCE}",
            )
        return people.sort_values("id", ignore_index=True), files["npz"]

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
        bases = [base for base in (self._home(), self._home() / "Dataset") if base.is_dir()]
        within = [item for base in bases for item in sorted(base.iterdir())]
        return [*bases, *(item for item in within if item.name.lower() in FOLDERS and item.is_dir())]

    def _files(self, kind: str) -> dict[str, str]:
        """Return the id behind each npz or jpg file with its path under the root."""
        found: dict[str, str] = {}
        for item in (item for folder in self._folders() for item in sorted(folder.iterdir())):
            if match := FILES[kind].fullmatch(item.name):
                relative, id = item.relative_to(self._root()).as_posix(), f"data_{match[1]}"
                if id in found:
                    raise FairbenchError(
                        f"{self.name}: {found[id]} and {relative} are both in {self.root}",
                        "keep the one that belongs to this release",
                    )
                found[id] = relative
        return found

    def _kind(self, ids: pd.Series[Any], files: Mapping[str, Mapping[str, str]]) -> str:
        """Choose npz or jpg for everybody; all must be there."""
        kinds = list(FILES) if self.image_file == "auto" else [self.image_file]
        lost = {kind: ids[~ids.isin(list(files[kind]))] for kind in kinds}
        kind = min(kinds, key=lambda kind: len(lost[kind]))
        if len(lost[kind]):
            looked = ", ".join(str(folder.relative_to(self._root())) for folder in self._folders())
            raise FairbenchError(
                f"{self.name}: {len(lost[kind]):,} of {len(ids):,} {kind} files are missing, for instance that of "
                f"{lost[kind].iloc[0]} (looked in {looked} of {self.root})",
                SOURCE,
            )
        return kind

    def _column(self, column: str, people: pd.DataFrame, npz: Mapping[str, str]) -> pd.Series[Any]:
        """Translate a column: from the csv, or from the npz files where it has none."""
        keys = self._keys(column)
        key = next((key for key in keys if key in people), None)
        if key is not None:
            return self._translated(column, people["id"], people[key], self._summary())
        held = self._held(column, people["id"], npz)
        if not held and (self._summary() or column != "age"):  # no npz file of this release tells ages
            raise FairbenchError(
                f"{self.name}: neither {self._table_name} nor any npz file has `{'` or `'.join(keys)}`", SOURCE
            )
        if lacking := len(people) - len(held):
            self.warnings.append(f"{lacking:,} npz files have no {' or '.join(keys)}: not recorded")
        return self._translated(column, people["id"], people["id"].map(held), f"npz files in {self._home()}")

    def _keys(self, column: str) -> tuple[str, ...]:
        return TARGET_KEYS[self.disease] if column == "target" else KEYS[column]

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
        if word not in (meanings := self._meanings(column)):
            raise ValueError(f"expected {', '.join(map(str, meanings))}, unknown or -1")
        return meanings[word]

    def _meanings(self, column: str) -> Mapping[object, str]:
        if column != "target":
            return MEANINGS[column]
        return {word: self.classes[index] for word, index in self._rule.meanings.items()}

    def _bin(self, age: Any) -> str:
        years = float(age) if re.fullmatch(r"\d+(\.\d*)?", str(age)) else np.inf
        if years > 120:
            raise ValueError("expected years from 0 to 120, unknown or -1")
        return next(name for name, above in AGES[self.ages].items() if np.floor(years) < above)

    def _held(self, column: str, ids: Iterable[str], npz: Mapping[str, str]) -> dict[str, object]:
        """Return what people's npz files hold under a column's key; one that lacks it gives nothing."""
        found: dict[str, object] = {}
        for id in (id for id in ids if id in npz):
            for key in self._keys(column):
                try:
                    array = open_array(self.path(npz[id]), key)
                except Unreadable:
                    continue
                found[id] = array.item() if array.size == 1 else repr(array)
                break
        return found

    def _compare(self, table: pd.DataFrame, npz: Mapping[str, str]) -> None:
        """Hold some people's npz files against the csv: what differs is a warning, and the csv counts."""
        sample = table.iloc[np.unique(np.linspace(0, len(table) - 1, COMPARED).astype(int))]
        differ = []
        for column in ("target", *VALUES):
            held, meanings = self._held(column, sample["id"], npz), self._meanings(column)
            for id, written in zip(sample["id"], sample[column], strict=True):
                cell = held.get(id)
                told = meanings.get(cell.lower() if isinstance(cell, str) else cell)
                if id in held and told != (None if pd.isna(written) else written):
                    differ.append(f"{id} {column} {written} and {told}")
        if differ:
            self.warnings.append(
                f"of {len(sample)} people compared, {self._table_name} and npz files differ in {len(differ)} "
                f"values ({'; '.join(differ[:3])}): are they of one release?"
            )

    @classmethod
    def example(cls, folder: Path) -> None:
        """Write 36 made-up people for each disease as the release does: ReadMe/, three folders, npz and jpg."""
        generator = np.random.default_rng(0)
        count = 36
        dealt = {
            "race": (0, 1, 2, 2), "male": (0, 1), "hispanic": (0, 0, 0, 1, -1), "language": (0, 0, 0, 1, 2, -1),
            "maritalstatus": (0, 0, 1, 2, 3, 4, -1),
        }  # fmt: skip
        written: dict[str, list[tuple[str, object]]] = {  # the csv's word and the npz file's condition or code
            "glaucoma": [("no", 0), ("yes", 1)],
            "amd": [(stage[0], condition) for stage in AMD for condition in stage[1:] if "." in condition],
            "dr": [
                (stage[0], condition)
                for stage in DR
                for condition in stage[1:]
                if "." in condition or condition == "pdr"
            ],
        }
        for disease, home in {"amd": "AMD", "dr": "DR", "glaucoma": "Glaucoma"}.items():
            codes = {key: generator.permutation(np.resize(cards, count)) for key, cards in dealt.items()}
            labels = generator.permutation(np.resize(np.arange(len(written[disease])), count))
            rows = []
            for index, use in enumerate(np.repeat(["training", "validation", "test"], [18, 6, 12])):
                number, own = f"{index + 1:05d}", {key: int(code[index]) for key, code in codes.items()}
                word, condition = written[disease][labels[index]]
                words = {KEYS[a][0]: (*VALUES[a], "unknown")[own[KEYS[a][-1]]] for a in VALUES}
                row = {"filename": f"data_{number}.npz", "age": f"{generator.uniform(18, 97):.2f}", **words}
                rows.append({**row, disease: word, "use": use})
                image = generator.integers(0, 60, (83, 64), dtype=np.uint8)
                image[20:60, 16:48] += np.uint8(25 * (word == written[disease][-1][0]))
                small = Image.fromarray(image).resize((25, 25))
                key = {"amd": "amd_condition", "dr": "dr_subtype", "glaucoma": "glaucoma"}[disease]
                arrays: dict[str, Any] = {"slo_fundus": np.asarray(small) * 3, **own, key: condition}
                arrays["oct_bscans"] = generator.integers(0, 256, (4, 4, 4), dtype=np.uint8)
                place = folder / home / use.capitalize()
                place.mkdir(parents=True, exist_ok=True)
                np.savez_compressed(place / f"data_{number}.npz", **arrays)
                Image.fromarray(image).save(place / f"slo_fundus_{number}.jpg", quality=95)
            (folder / home / "ReadMe").mkdir(exist_ok=True)
            pd.DataFrame(rows).to_csv(folder / home / "ReadMe" / f"data_summary_{disease}.csv", index=False)


def _grey(array: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Return a picture's grey values, which must lie between 0 and 255."""
    if array.ndim != 2 or not array.size or array.dtype.kind not in "uif":
        raise Unreadable(f"`slo_fundus` is no grey picture but {array.dtype} of shape {array.shape}")
    values = array.astype(float)
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 255):
        raise Unreadable(f"grey values from {values.min()} to {values.max()} do not lie between 0 and 255")
    return values.round().astype(np.uint8)


@hookimpl
def fairbench_datasets() -> Iterable[type[Dataset]]:
    """Offer FairVision."""
    return [FairVision]
