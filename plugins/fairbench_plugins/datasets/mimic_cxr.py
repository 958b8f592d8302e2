"""MIMIC-CXR: chest radiographs with labels or findings to write, and the people from MIMIC-IV (Johnson 2019)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from PIL import Image

from fairbench import Bins, Dataset, FairbenchError, ImageFolder, hookimpl, read_table

# Each CheXpert label with the words that ask for it.
LABELS = {
    "Atelectasis": "atelectasis",
    "Cardiomegaly": "cardiomegaly",
    "Consolidation": "consolidation",
    "Edema": "pulmonary edema",
    "Enlarged Cardiomediastinum": "an enlarged cardiomediastinum",
    "Fracture": "a fracture",
    "Lung Lesion": "a lung lesion",
    "Lung Opacity": "a lung opacity",
    "No Finding": "nothing abnormal",
    "Pleural Effusion": "a pleural effusion",
    "Pleural Other": "a pleural abnormality other than an effusion",
    "Pneumonia": "pneumonia",
    "Pneumothorax": "a pneumothorax",
    "Support Devices": "a support device",
}

AGES = {  # FairLLaVA writes [0, 44], (44, 65], (65, ∞)
    "fairllava": Bins.read("0-44", "45-65", ">=66"),
    "decades": Bins.read("<40", "40-59", "60-79", ">=80"),
}
OLDEST = 120

# Each group with the openings of what MIMIC-IV writes, sorted as the US federal standard of 1997 sorts origins.
RACES = {
    "white": ("WHITE", "PORTUGUESE"),
    "black": ("BLACK",),
    "asian": ("ASIAN",),
    "hispanic": ("HISPANIC", "SOUTH AMERICAN"),
    "american-indian": ("AMERICAN INDIAN",),
    "pacific-islander": ("NATIVE HAWAIIAN",),
    "other": ("OTHER", "MULTIPLE RACE"),
}
NO_RACE = ("UNKNOWN", "UNABLE TO OBTAIN", "PATIENT DECLINED")
SEXES = {"F": "female", "M": "male"}
SPLITS = {"train": "train", "validate": "val", "test": "test"}

SUFFIXES = (".jpg", ".dcm", ".png", ".JPG", ".DCM", ".PNG")
MIMIC_IV = ("mimic-iv", "mimiciv", ".")
MODULES = ("hosp", "core", ".")  # MIMIC-IV 1.0 keeps patients and admissions in `core`
NOTES = "llava-rad-mimic-cxr-annotation"
ANNOTATIONS = (NOTES, f"{NOTES}/1.0.0", "llava-rad", ".")
PARTS = {"train": "train", "val": "dev", "test": "test"}
TEXT_FILE = "chat_{}_MIMIC_CXR_all_gpt4extract_rulebased_v1.json"

SOURCE = (
    "MIMIC-CXR-JPG (https://physionet.org/content/mimic-cxr-jpg/) needs a credentialed PhysioNet account, the CITI "
    "course and the signed data use agreement; give the folder that holds `files/` and mimic-cxr-2.0.0-*.csv.gz"
)
PEOPLE = (
    "sex, age and race come from MIMIC-IV (https://physionet.org/content/mimiciv/, same credentials): put or link "
    "it as `mimic-iv` into the folder, or say where it lies with --set {name}.mimic_iv=PATH"
)
TEXTS = (
    f"get the three files from https://physionet.org/content/{NOTES}/1.0.0/ (same credentials), put or link them "
    f"as `{NOTES}` into the folder, or say where they lie with --set mimic-cxr-report.annotations=PATH"
)


class Radiographs(ImageFolder):
    """The images, splits and people that both datasets share; each adds what is asked and answered.

    `views` keeps those positions, `ages` bins the age at the study (or, with `age_at` = anchor, MIMIC-IV's
    anchor_age as FairLLaVA does), `shown` is one image, or after it the other views of its study, or the newest
    image of the patient's days before (`prior`), where there is one. `race_rule` settles what several admissions
    write of one person: the group most of them write (unknown ones aside, the earlier wins a tie), or the first
    admission's, even where that is unknown. `mimic_iv` says where MIMIC-IV lies, absolute or from the folder.
    """

    own_splits = True
    licence = "PhysioNet Credentialed Health Data License 1.5.0"
    citation = (
        "Johnson et al.: MIMIC-CXR, a de-identified publicly available database of chest radiographs with "
        "free-text reports. Sci Data 6:317 (2019), doi:10.1038/s41597-019-0322-0; MIMIC-CXR-JPG, "
        "arXiv:1901.07042; MIMIC-IV: "
        "Sci Data 10:1 (2023), doi:10.1038/s41597-022-01899-x"
    )
    homepage = "https://physionet.org/content/mimic-cxr-jpg/"
    publishable: ClassVar[str] = (
        "aggregate results only: no image, report, prediction or generated text of a patient, and nothing of it to "
        "third-party services"
    )
    published: ClassVar[Mapping[str, int]] = {}  # the counts that are known hold before views and labels are chosen

    verify: Literal["decode", "structure"] = "structure"  # decoding 377,110 radiographs takes hours
    mimic_iv: str = ""
    views: tuple[str, ...] = ("AP", "PA")
    shown: Literal["image", "study", "prior"] = "image"
    ages: Literal["fairllava", "decades"] = "fairllava"
    age_at: Literal["study", "anchor"] = "study"
    race_rule: Literal["mode", "first"] = "mode"

    @property
    def attributes(self) -> Mapping[str, tuple[str, ...]]:
        """Sex, binned age and race."""
        return {"sex": ("female", "male"), "age": AGES[self.ages].names, "race": tuple(RACES)}

    @property
    def notes(self) -> tuple[str, ...]:
        """Views, age bins, race rule, splits and terms in force."""
        age = {"study": "anchor_age + year of the study − anchor_year", "anchor": "anchor_age, whenever the study"}
        rule = {"mode": "what most admissions write, unknown aside", "first": "what the first admission writes"}
        return (
            f"views {', '.join(self.views)}; the official split, by patient",
            f"ages {self.ages}: {', '.join(AGES[self.ages].names)}; age = {age[self.age_at]} (above 89 coded 91)",
            f"race_rule {self.race_rule}: {rule[self.race_rule]}; one field mixes race and ethnicity, "
            "hispanic is a group of its own; South American counts as hispanic, Portuguese as white",
            "patients who are not in MIMIC-IV have no sex, age and race recorded",
            f"{self.licence}: nothing of a patient may be passed on, or sent to third-party services",
        )

    @classmethod
    def example(cls, folder: Path) -> Mapping[str, str]:
        """Write MIMIC-CXR-JPG, MIMIC-IV and the LLaVA-Rad annotations of 50 made-up people."""
        _write_example(folder)
        return {}

    def sources(self) -> Sequence[Path]:
        """Return every place that a table may be read from, there or not."""
        official = (f"mimic-cxr-2.0.0-{kind}.csv" for kind in ("metadata", "split"))
        people = (path for kind in ("patients", "admissions") for path in self._people_places(kind))
        return [*self._places((".",), *official), *people]

    def _radiographs(self) -> pd.DataFrame:
        """Return subject_id, study_id, id, cluster, split, image and attributes of the views asked for.

        Raises FairbenchError saying which file or column is missing or what in it makes no sense.
        """
        table = self._images()
        subjects = table["subject_id"]
        folder = "files/p" + subjects.str[:2] + "/p" + subjects + "/s" + table["study_id"] + "/"
        people = self._people(table)
        table = table.assign(
            id=table["dicom_id"],
            cluster=subjects,
            image=self._named(folder + table["dicom_id"]),
            **{attribute: people[attribute] for attribute in self.attributes},
        )
        if self.shown == "study":
            return table.assign(further=_beside(table))
        return table.assign(further=_before(table)) if self.shown == "prior" else table

    def _official(self, kind: str, wanted: Mapping[str, Sequence[str]]) -> tuple[pd.DataFrame, Path]:
        """Read columns of `mimic-cxr-2.0.0-<kind>.csv`, gzipped or not."""
        return self._table(self._places((".",), f"mimic-cxr-2.0.0-{kind}.csv"), wanted, SOURCE)

    def _folders(self, setting: str, given: str, usual: Sequence[str]) -> tuple[str, ...]:
        """Return where to look: the place that a setting gives, from the root or absolute, else the usual ones."""
        if not given:
            return tuple(usual)
        if not (self._root() / os.path.expanduser(given)).is_dir():
            raise FairbenchError(
                f"{self.name}: {setting} = {given!r}: {self._root() / os.path.expanduser(given)} is not a folder",
                f"a relative path starts from {self._root()}",
            )
        return (os.path.expanduser(given),)

    def _unique(self, table: pd.DataFrame, columns: Sequence[str], path: Path) -> None:
        """Raise FairbenchError when two rows of a file have the same key."""
        twice = table[table.duplicated(list(columns))]
        if len(twice):
            key = ", ".join(f"{column} {twice[column].iloc[0]}" for column in columns)
            raise FairbenchError(
                f"{self.name}: {path}: {len(twice):,} rows repeat an earlier one, for instance {key}", SOURCE
            )

    def _warn(self, count: int, total: int, what: str) -> None:
        """Note how many of how many something befell, if any."""
        if count:
            self.warnings.append(f"{count:,} of {total:,} {what}")

    def _root(self) -> Path:
        if self.root is None or not self.root.is_dir():
            raise FairbenchError(
                f"{self.name}: {self.root or 'its folder'} is not a folder", f"{SOURCE}: --data {self.name}=FOLDER"
            )
        return self.root

    def _places(self, folders: Iterable[str], *names: str) -> list[Path]:
        return [
            self._root() / folder / f"{name}{packed}"
            for folder, name, packed in product(folders, names, ("", ".gz"))
        ]

    def _people_places(self, kind: str) -> list[Path]:
        given = self._folders("mimic_iv", self.mimic_iv, MIMIC_IV)
        return self._places([f"{folder}/{module}" for folder, module in product(given, MODULES)], f"{kind}.csv")

    def _table(
        self, places: Sequence[Path], wanted: Mapping[str, Sequence[str]], hint: str
    ) -> tuple[pd.DataFrame, Path]:
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            there = ", ".join(sorted(os.listdir(self._root()))[:10]) or "nothing"
            looked = ", ".join(dict.fromkeys(os.path.normpath(place.parent) for place in places))
            raise FairbenchError(
                f"{self.name}: there is no {places[0].name}[.gz] in {looked} ({self._root()} holds {there})", hint
            )
        table = read_table(path, self.name, hint, wanted, lines=False).reset_index(drop=True)
        if table.empty:
            raise FairbenchError(f"{self.name}: {path} has no rows", hint)
        return table, path

    def _images(self) -> pd.DataFrame:
        """Return dicom_id, subject_id, study_id, year and split of the views asked for, by dicom_id."""
        names = ("dicom_id", "subject_id", "study_id", "ViewPosition", "StudyDate")
        table, path = self._official("metadata", {name: (name,) for name in names})
        self._filled(table["dicom_id"], path)
        for column in ("subject_id", "study_id", "StudyDate"):
            self._digits(table[column], path)
        self._unique(table, ["dicom_id"], path)
        table["year"] = _years(self.name, table["StudyDate"], path)
        table["date"] = table["StudyDate"]
        splits, where = self._official("split", {"dicom_id": ("dicom_id",), "split": ("split",)})
        self._unique(splits, ["dicom_id"], where)
        known = splits["split"].str.lower().map(SPLITS)
        odd = splits[known.isna()]
        if len(odd):
            raise FairbenchError(
                f"{self.name}: {where}: image {odd['dicom_id'].iloc[0]} has split {odd['split'].iloc[0]!r}",
                f"expected {', '.join(SPLITS)}; {SOURCE}",
            )
        table["split"] = table["dicom_id"].map(pd.Series(known.to_numpy(), index=splits["dicom_id"]))
        held = table["ViewPosition"].dropna().unique()
        strange = [view for view in self.views if view not in held]
        if strange or not self.views:
            raise FairbenchError(
                f"{self.name}: {path} has no image with the view {', '.join(strange) or 'of no name'}",
                f"choose among {', '.join(sorted(held))}",
            )
        table = table[table["ViewPosition"].isin(self.views)]
        if table["split"].isna().all():
            raise FairbenchError(f"{self.name}: {where} names no image of {path}", SOURCE)
        lost = int(table["split"].isna().sum())
        self._warn(lost, len(table), f"images have no split in {where.name} and were left out")
        table = table[table["split"].notna()].sort_values("dicom_id", ignore_index=True)
        return table[["dicom_id", "subject_id", "study_id", "year", "date", "split"]]

    def _filled(self, column: pd.Series[Any], path: Path) -> None:
        if lacking := int(column.isna().sum()):
            raise FairbenchError(f"{self.name}: {path}: {lacking:,} rows have no {column.name}", SOURCE)

    def _digits(self, column: pd.Series[Any], path: Path) -> None:
        """Refuse a number that another program has rewritten: nothing would match it."""
        self._filled(column, path)
        odd = column[~column.str.fullmatch(r"\d+")]
        if len(odd):
            raise FairbenchError(
                f"{self.name}: {path}: {column.name} {odd.iloc[0]!r} is not written in digits",
                f"use the file as it came; {SOURCE}",
            )

    def _named(self, stems: pd.Series[Any]) -> pd.Series[Any]:
        """Return the paths with the suffix that the files have, by the first that is there."""
        root = self._root()
        there = (s for stem in stems for s in SUFFIXES if (root / f"{stem}{s}").is_file())
        suffix = next(there, None)
        if suffix is None and not self.unseen:
            raise FairbenchError(
                f"{self.name}: none of {len(stems):,} images is there, for instance {root / stems.iloc[0]}"
                f"{' or '.join(SUFFIXES[:2])}",
                SOURCE,
            )
        return stems + (suffix or SUFFIXES[0])

    def _people(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return sex, age bin and race for each row; missing where not recorded."""
        hint = PEOPLE.format(name=self.name)
        names = ("subject_id", "gender", "anchor_age", "anchor_year")
        people, path = self._table(self._people_places("patients"), {n: (n,) for n in names}, hint)
        self._digits(people["subject_id"], path)
        self._unique(people, ["subject_id"], path)
        subjects = table["subject_id"].drop_duplicates()
        absent = ~subjects.isin(people["subject_id"])
        if absent.all():
            raise FairbenchError(f"{self.name}: {path} has none of the {len(subjects):,} patients", hint)
        self._warn(
            int(absent.sum()), len(subjects), "patients are not in MIMIC-IV: sex, age and race are unrecorded"
        )
        people = people[people["subject_id"].isin(subjects)].set_index("subject_id")
        for column in ("anchor_age", "anchor_year"):
            self._digits(people[column], path)
        own = people.reindex(table["subject_id"]).set_index(table.index)
        age = pd.to_numeric(own["anchor_age"])
        if self.age_at == "study":
            age = age + table["year"] - pd.to_numeric(own["anchor_year"])
        race = self._race(subjects, hint)
        return pd.DataFrame(
            {
                "sex": self._translated(own["gender"], SEXES, path),
                "age": self._binned(age),
                "race": table["subject_id"].map(race),
            }
        )

    def _translated(self, column: pd.Series[Any], names: Mapping[str, str | None], path: Path) -> pd.Series[Any]:
        """Return the canonical names; what has none is unrecorded, with a warning."""
        odd = column[column.notna() & ~column.isin(list(names))]
        if len(odd):
            example = f"an unknown {column.name}, such as {odd.iloc[0]!r}"
            self._warn(len(odd), len(column), f"rows have {example} ({path.name}): unrecorded")
        return column.map(names)

    def _binned(self, age: pd.Series[Any]) -> pd.Series[Any]:
        odd = (age < 0) | (age > OLDEST)
        self._warn(int(odd.sum()), len(age), f"ages at the study are below 0 or above {OLDEST}: unrecorded")
        return AGES[self.ages].cut(age.mask(odd))

    def _race(self, subjects: pd.Series[Any], hint: str) -> pd.Series[Any]:
        """Return each subject's group by the rule in force."""
        wanted = {"subject_id": ("subject_id",), "admittime": ("admittime",), "race": ("race", "ethnicity")}
        visits, path = self._table(self._people_places("admissions"), wanted, hint)
        self._digits(visits["subject_id"], path)
        visits = visits[visits["subject_id"].isin(subjects)]
        odd = visits["admittime"][~visits["admittime"].str.fullmatch(r"\d{4}-\d\d-\d\d.*", na=False)]
        if len(odd):
            raise FairbenchError(
                f"{self.name}: {path}: admittime {odd.iloc[0]!r} is not written as 2180-05-06 22:23:00",
                f"the order of admissions cannot be told; use the file as it came; {hint}",
            )
        written = {text: _group(text) for text in visits["race"].dropna().unique()}
        groups = {text: group for text, group in written.items() if group or text.upper().startswith(NO_RACE)}
        visits = visits.sort_values(["subject_id", "admittime"], kind="stable")
        visits = visits.assign(group=self._translated(visits["race"], groups, path))
        if self.race_rule == "first":
            return visits.drop_duplicates("subject_id").set_index("subject_id")["group"]
        # groupby keeps the order of admissions, and so does the sort: the earlier group wins a tie.
        known = visits.dropna(subset=["group"])
        counts = known.groupby(["subject_id", "group"], sort=False).size().reset_index(name="n")
        counts = counts.sort_values("n", ascending=False, kind="stable").drop_duplicates("subject_id")
        return counts.set_index("subject_id")["group"]


def _beside(table: pd.DataFrame) -> list[tuple[str, ...]]:
    """Return for each image the other images of its study."""
    together = table.groupby("study_id")["image"].agg(tuple)
    return [
        tuple(other for other in together[study] if other != image)
        for study, image in zip(table["study_id"], table["image"], strict=True)
    ]


def _before(table: pd.DataFrame) -> list[tuple[str, ...]]:
    """Return for each image the last one of the patient's newest study of an earlier day, or nothing."""
    newest = table.sort_values(["date", "study_id", "dicom_id"]).groupby(["subject_id", "date"])["image"].last()
    days = newest.groupby("subject_id").shift(1)
    earlier = days.reindex(pd.MultiIndex.from_frame(table[["subject_id", "date"]]))
    return [() if pd.isna(image) else (str(image),) for image in earlier]


class MimicCXR(Radiographs):
    """Whether a chest radiograph shows one of CheXpert's 14 labels, which a labeller read from its report.

    `uncertain` says what becomes of studies whose report is unsure (−1), `blank` of those that do not mention
    the label; `labeller` chooses whose labels.
    """

    name = "mimic-cxr"
    title = "MIMIC-CXR (one CheXpert label)"
    classes = ("absent", "present")
    words = ("no", "yes")

    label: Literal[
        "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture",
        "Lung Lesion", "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other", "Pneumonia",
        "Pneumothorax", "Support Devices",
    ] = "Pleural Effusion"  # fmt: skip
    uncertain: Literal["drop", "negative", "positive"] = "drop"
    blank: Literal["negative", "drop"] = "negative"
    labeller: Literal["chexpert", "negbio"] = "chexpert"
    prompt: str = ""  # empty: the question that belongs to the label

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.prompt = self.prompt or f"Does this chest X-ray show {LABELS[self.label]}? Answer yes or no."

    @property
    def notes(self) -> tuple[str, ...]:
        """Label map first, then what both datasets say."""
        rules = f"uncertain (−1): {self.uncertain}; not mentioned (blank): {self.blank}"
        return (f"{self.label} by {self.labeller}: present = 1, absent = 0; {rules}", *super().notes)

    def sources(self) -> Sequence[Path]:
        """Return the labels' places beside the others."""
        return [*super().sources(), *self._places((".",), f"mimic-cxr-2.0.0-{self.labeller}.csv")]

    def table(self) -> pd.DataFrame:
        """Read images, people and labels; raises FairbenchError saying what is missing or odd."""
        table = self._radiographs()
        keys = ["subject_id", "study_id"]
        wanted = {name: (name,) for name in (*keys, self.label)}
        labels, path = self._official(self.labeller, wanted)
        self._unique(labels, keys, path)
        written = labels[self.label]
        value = pd.to_numeric(written, errors="coerce")
        odd = written[written.notna() & ~value.isin([-1, 0, 1])]
        if len(odd):
            raise FairbenchError(
                f"{self.name}: {path}: {self.label} has the value {odd.iloc[0]!r}",
                f"expected 1.0, 0.0, -1.0 or nothing; {SOURCE}",
            )
        meaning = {1.0: "present", 0.0: "absent", -1.0: _RULE[self.uncertain]}
        labels["target"] = value.map(meaning).where(value.notna(), _RULE[self.blank])
        table = table.merge(labels[[*keys, "target"]], on=keys, how="left", indicator=True)
        unlabelled = table["_merge"] == "left_only"
        if unlabelled.all():
            raise FairbenchError(f"{self.name}: {path} has none of the {len(table):,} studies", SOURCE)
        self._warn(int(unlabelled.sum()), len(table), f"images have no row in {path.name} and were left out")
        table = table[table["target"].notna()]
        if self.shown == "study":  # a study has one label, and so is one row
            table = table.drop_duplicates("study_id")
        return self.readable(table)


_RULE = {"positive": "present", "negative": "absent", "drop": None}


class MimicCXRReport(Radiographs):
    """Write the findings of a chest radiograph, given why it was taken (LLaVA-Rad, Nat Commun 16:3108).

    The texts are the LLaVA-Rad annotations. Training uses findings extracted by rules, by GPT-4 or `both`
    (`extraction`); validation and test use the rules' only, which are the radiologists' own words.
    `indication` = false leaves the reason for the exam out of the question.
    """

    name = "mimic-cxr-report"
    folder = "mimic-cxr"
    title = "MIMIC-CXR (findings)"
    task = "generate"
    max_new_tokens = 256
    classes = ()
    # FairLLaVA's repository: 2,461 test reports, of them 129 without demographics (with the MIMIC-IV that it read).
    published: ClassVar[Mapping[str, int]] = {"test": 2461, "test sex=male": 1301, "test sex=female": 1031}

    annotations: str = ""
    extraction: Literal["both", "rule-based", "gpt4"] = "both"
    indication: bool = True
    prompt: str = "Provide a description of the findings in the radiology image"

    @property
    def notes(self) -> tuple[str, ...]:
        """The texts first, then what both datasets say."""
        asked = (
            "the question gives the indication where there is one; it often tells sex and age"
            if self.indication
            else "the question leaves the indication out"
        )
        kinds = f"LLaVA-Rad annotations: train {self.extraction}, val and test rule-based"
        return (kinds, asked, *super().notes)

    def sources(self) -> Sequence[Path]:
        """Return the annotations' places beside the others."""
        return [*super().sources(), *(path for part in PARTS.values() for path in self._texts(part))]

    def table(self) -> pd.DataFrame:
        """Read images, people and texts; raises FairbenchError saying what is missing or odd."""
        texts = pd.concat([self._entries(split, part) for split, part in PARTS.items()], ignore_index=True)
        kept = {"both": texts["extraction"].notna(), "rule-based": texts["extraction"] == "rule-based"}
        kept["gpt4"] = ~kept["rule-based"]
        texts = texts[kept["rule-based"].where(texts["file"] != "train", kept[self.extraction])]
        table = self._radiographs()
        lost = ~texts["dicom_id"].isin(table["dicom_id"])
        if lost.all():
            raise FairbenchError(f"{self.name}: none of {len(texts):,} annotated images is in the metadata", TEXTS)
        self._warn(int(lost.sum()), len(texts), "annotations name images of other views or unknown ones; left out")
        twice = texts.duplicated(["dicom_id", "extraction"])
        self._warn(int(twice.sum()), len(texts), "annotations repeat an image and extraction and were left out")
        empty = texts["reference"] == ""
        self._warn(int(empty.sum()), len(texts), "annotations hold no findings and were left out")
        table = texts[~lost & ~twice & ~empty].merge(table, on="dicom_id")
        moved = table[table["file"] != table["split"]]
        if len(moved):
            raise FairbenchError(
                f"{self.name}: {len(moved):,} annotated images are not in their official split, for instance "
                f"{moved['dicom_id'].iloc[0]} of {moved['split'].iloc[0]} in the file of {moved['file'].iloc[0]}",
                f"the annotations' files may have been exchanged; {TEXTS}",
            )
        table["id"] = table["dicom_id"] + "-" + table["extraction"]
        given = " given the following indication: " + table["reason"]
        table["prompt"] = self.prompt + given.where(self.indication & (table["reason"] != ""), ".")
        return self.readable(table.sort_values("id"))

    def _texts(self, part: str) -> list[Path]:
        folders = self._folders("annotations", self.annotations, ANNOTATIONS)
        return [self._root() / folder / TEXT_FILE.format(part) for folder in folders]

    def _entries(self, split: str, part: str) -> pd.DataFrame:
        """Return dicom_id, extraction, reason, reference and file (its split) of every entry of one file."""
        places = self._texts(part)
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            looked = ", ".join(str(place.parent) for place in places)
            raise FairbenchError(f"{self.name}: there is no {places[0].name} in {looked}", TEXTS)
        try:
            with path.open(encoding="utf-8-sig") as file:
                entries = json.load(file)  # it holds bare NaN, which Python's reader takes
        except (OSError, ValueError, RecursionError) as error:
            raise FairbenchError(f"{self.name}: cannot read {path}: {error}", TEXTS) from error
        if not isinstance(entries, list) or not entries:
            raise FairbenchError(f"{self.name}: {path} is not a list of annotations", TEXTS)
        columns = ["dicom_id", "extraction", "reason", "reference"]
        rows = pd.DataFrame([self._entry(entry, i, path) for i, entry in enumerate(entries, 1)], columns=columns)
        return rows.assign(file=split)

    def _entry(self, entry: Any, number: int, path: Path) -> tuple[str, str, str, str]:
        try:
            said = next(turn["value"] for turn in entry["conversations"] if turn["from"] == "gpt")
            image, reason = str(entry["image"]), entry.get("reason")
            return (
                PurePosixPath(image).stem,
                str(entry["generate_method"]),
                " ".join(reason.split()) if isinstance(reason, str) else "",  # null or NaN where there is none
                str(said or "").strip(),
            )
        except (KeyError, TypeError, AttributeError, StopIteration) as error:
            what = error if isinstance(error, KeyError) else "an answer in `conversations`"
            raise FairbenchError(f"{self.name}: {path}: entry {number} lacks {what}", TEXTS) from error


def _group(text: str) -> str | None:
    """Return the group of what MIMIC-IV writes, None where that names none."""
    return next((group for group, openings in RACES.items() if text.upper().startswith(openings)), None)


def _years(name: str, dates: pd.Series[Any], path: Path) -> pd.Series[Any]:
    parsed = pd.to_datetime(dates, format="%Y%m%d", errors="coerce")
    if parsed.isna().any():
        odd = dates[parsed.isna()].iloc[0]
        raise FairbenchError(f"{name}: {path}: {dates.name} {odd!r} is not a date such as 21800506", SOURCE)
    return parsed.dt.year


# ── an example ───────────────────────────────────────────────────────────────────────────────────

# Patient, split, gender, anchor_age, anchor_year, races in the order of admission, years of the studies; people
# whose numbers are odd in one of the ways that real ones are. No gender: not in MIMIC-IV.
_ODD = (
    ("10000032", "train", "F", 52, 2180, ("WHITE", "OTHER", "OTHER"), (2176,)),
    ("10000764", "train", "M", 91, 2132, ("WHITE - RUSSIAN",), (2130, 2132)),
    ("10000898", "test", "F", 79, 2188, ("UNKNOWN", "BLACK/AFRICAN AMERICAN"), (2188,)),
    ("10000935", "validate", "M", 44, 2180, ("HISPANIC/LATINO - PUERTO RICAN",), (2180, 2181)),
    ("10000980", "test", "M", 65, 2190, ("ASIAN - CHINESE", "WHITE"), (2190, 2191)),
    ("10001038", "train", "", 0, 0, (), (2149,)),
    ("10001122", "test", "F", 30, 2150, (), (2151,)),
    ("10001176", "train", "F", 64, 2186, ("UNABLE TO OBTAIN", "PATIENT DECLINED TO ANSWER"), (2186,)),
)
_RACES = (
    "WHITE", "BLACK/CAPE VERDEAN", "ASIAN - SOUTH EAST ASIAN", "HISPANIC OR LATINO",
    "AMERICAN INDIAN/ALASKA NATIVE", "NATIVE HAWAIIAN OR OTHER PACIFIC ISLANDER", "MULTIPLE RACE/ETHNICITY",
)  # fmt: skip
_VALUES = (1.0, 0.0, -1.0, None)
_SAID = {
    1.0: "There is a moderate right pleural effusion.",
    0.0: "No pleural effusion. The lungs are clear.",
    -1.0: "Blunting of the costophrenic angle may represent a small effusion.",
    None: "The heart is normal in size.",
}
_REASONS: tuple[Any, ...] = ("___ year old woman with dyspnea\n// eval for effusion", None, "", float("nan"))


def _example_people() -> Iterator[tuple[str, str, str, int, int, tuple[str, ...], tuple[int, ...]]]:
    yield from _ODD
    for i, (split, race, gender) in enumerate(product(SPLITS, _RACES, ("F", "M"))):
        age = (28, 58, 77)[i % 3]
        yield str(11000000 + 37 * i), split, gender, age, 2150 + i, (race,), (2150 + i, 2153 + i)


def _write_example(folder: Path) -> None:
    generator = np.random.default_rng(0)
    metadata, splits, labels, texts = list[tuple[Any, ...]](), [], [], dict[str, list[Any]]()
    studies = ((*person[:2], year) for person in _example_people() for year in person[-1])
    for number, (subject, split, year) in enumerate(studies):
        study, value = str(50000000 + 613 * number), _VALUES[number % 2 if number % 7 else number // 7 % 4]
        labels.append((subject, study, *(value if name == "Pleural Effusion" else None for name in LABELS)))
        for view in ("AP",) if number % 3 else ("PA", "LATERAL"):
            dicom = "-".join(f"{part:08x}" for part in generator.integers(0, 1 << 32, 5))
            path = f"p{subject[:2]}/p{subject}/s{study}/{dicom}.jpg"
            pixels = generator.integers(0, 120, (20, 16), dtype=np.uint8) + np.uint8(100 * (value == 1))
            (folder / "files" / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / "files" / path)
            code = {"PA": "postero-anterior", "AP": "antero-posterior", "LATERAL": "lateral"}[view]
            when = (f"{year}0506", "213014.531")
            metadata.append((dicom, subject, study, "CHEST", view, 20, 16, *when, "CHEST", code, "Erect"))
            splits.append((dicom, study, subject, split))
            if view != "LATERAL":
                kinds = ("rule-based",) if split == "test" else ("gpt4", "rule-based")
                said = (f"{subject}_{study}", path, _REASONS[number % len(_REASONS)], view, _SAID[value])
                texts.setdefault(split, []).extend(_annotation(kind, *said) for kind in kinds)
    official = "mimic-cxr-2.0.0-{}.csv.gz"
    _save(folder / official.format("metadata"), metadata, (
        "dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription", "ViewPosition", "Rows",
        "Columns", "StudyDate", "StudyTime", "ProcedureCodeSequence_CodeMeaning", "ViewCodeSequence_CodeMeaning",
        "PatientOrientationCodeSequence_CodeMeaning",
    ))  # fmt: skip
    _save(folder / official.format("split"), splits, ("dicom_id", "study_id", "subject_id", "split"))
    for kind in ("chexpert", "negbio"):
        _save(folder / official.format(kind), labels, ("subject_id", "study_id", *LABELS))
    _write_people(folder / "mimic-iv" / "hosp")
    (folder / NOTES).mkdir()
    for split, entries in texts.items():
        name = TEXT_FILE.format(PARTS[SPLITS[split]])
        (folder / NOTES / name).write_text(json.dumps(entries, indent=1), encoding="utf-8")


def _annotation(kind: str, study: str, path: str, reason: Any, view: str, said: str) -> dict[str, Any]:
    """Write one entry as the LLaVA-Rad annotations have it."""
    return {
        "id": study,
        "image": f"mimic/{path}",
        "generate_method": kind,
        "reason": reason,
        "impression": None,
        "indication": None,
        "history": None,
        "view": view,
        "orientation": "Erect",
        "chexpert_labels": {name: float("nan") for name in LABELS},
        "conversations": [
            {"from": "human", "value": "<image>\nDescribe the findings of the chest x-ray.\n"},
            {"from": "gpt", "value": said + (" Rephrased." if kind == "gpt4" else "")},
        ],
    }


def _write_people(hosp: Path) -> None:
    people = [person for person in _example_people() if person[2]]
    patients = [(s, g, age, year, "2014 - 2016", None) for s, _, g, age, year, _, _ in people]
    _save(hosp / "patients.csv.gz", patients, (
        "subject_id", "gender", "anchor_age", "anchor_year", "anchor_year_group", "dod",
    ))  # fmt: skip
    admissions = [
        (person[0], 29999999 - 101 * i - j, f"{person[4] + j}-0{j + 1}-06 22:23:00", "URGENT", "Medicare", race)
        for i, person in enumerate(people)
        for j, race in enumerate(person[5])
    ]
    admissions.sort(key=lambda row: (row[0], row[1]))  # by hadm_id, which says nothing of the time
    _save(hosp / "admissions.csv", admissions, (
        "subject_id", "hadm_id", "admittime", "admission_type", "insurance", "race",
    ))  # fmt: skip


def _save(path: Path, rows: Sequence[tuple[Any, ...]], columns: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    packing: Any = {"method": "gzip", "mtime": 0} if path.suffix == ".gz" else None  # no clock in the file
    pd.DataFrame(rows, columns=list(columns)).to_csv(path, index=False, compression=packing)


@hookimpl
def fairbench_datasets() -> Iterable[type[Dataset]]:
    """Offer both datasets."""
    return [MimicCXR, MimicCXRReport]
