"""HAM10000: dermatoscopic images of skin lesions, with sex, age and body site (Tschandl 2018)."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd

from fairbench import (
    AGE_BINS,
    Count,
    Dataset,
    FairbenchError,
    Fraction,
    ImageFolder,
    hookimpl,
    is_missing,
    read_table,
)

# Each diagnosis with the words that name it; no two begin with the same letter, hence not the same token.
DIAGNOSES = {
    "akiec": "actinic keratosis",
    "bcc": "basal cell carcinoma",
    "bkl": "seborrheic keratosis",  # the commonest of the benign keratoses that bkl stands for
    "df": "dermatofibroma",
    "mel": "melanoma",
    "nv": "nevus",
    "vasc": "vascular lesion",
}


@dataclass(frozen=True)
class LabelMap:
    """How diagnoses become classes; `version` rises when a map changes, so that results stay apart."""

    version: int
    prompt: str
    positive: tuple[str, ...] = ()  # empty: every diagnosis is a class of its own

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of their index."""
        return ("benign", "malignant") if self.positive else tuple(DIAGNOSES)

    @property
    def words(self) -> tuple[str, ...]:
        """What a model would answer for each class."""
        return ("no", "yes") if self.positive else tuple(DIAGNOSES.values())

    def target(self, diagnosis: pd.Series[Any]) -> pd.Series[Any]:
        """Return the class of each diagnosis."""
        return (
            diagnosis.isin(self.positive).map({False: "benign", True: "malignant"}) if self.positive else diagnosis
        )


LABELS = {
    "malignant": LabelMap(1, "Is this skin lesion malignant? Answer yes or no.", ("mel", "bcc", "akiec")),
    # MEDFAIR, FairMedFM and MedVLMBench count basal cell carcinoma as benign, so the question leaves it out.
    "medfair": LabelMap(
        1, "Is this skin lesion a melanoma or an actinic keratosis? Answer yes or no.", ("mel", "akiec")
    ),
    "dx7": LabelMap(1, f"What type of skin lesion is this? Answer with one of: {', '.join(DIAGNOSES.values())}."),
}

SITES = (
    "abdomen", "acral", "back", "chest", "ear", "face", "foot", "genital", "hand", "lower extremity",
    "neck", "scalp", "trunk", "upper extremity",
)  # fmt: skip

# What may be asked, in several wordings, each with its own form of answer: who reads the question knows the form.
QUESTIONS = {
    "diagnosis": {
        "What type of skin lesion is this?": "This is {article} {answer}.",
        "What is the diagnosis?": "The diagnosis is {answer}.",
        "Which lesion does the image show?": "The image shows {article} {answer}.",
    },
    "site": {
        "Where on the body is this lesion?": "The body site is {answer}.",
        "Which body site is shown?": "Site: {answer}.",
    },
    "malignancy": {
        "Is this lesion malignant or benign?": "It is {answer}.",
        "Could this be cancer?": "{yes}, the lesion is {answer}.",
    },
}
# What else an answer may call a class, beside its code and its name.
ALSO = {
    "akiec": ("actinic keratoses", "bowen"),
    "bkl": ("benign keratosis", "seborrhoeic keratosis", "solar lentigo", "lichen planus-like keratosis"),
    "nv": ("naevus", "nevi", "naevi"),
    "vasc": ("vascular",),
    "benign": ("no",),
    "malignant": ("yes",),
}

METADATA = ("HAM10000_metadata", "HAM10000_metadata.csv", "HAM10000_metadata.tab")
ISIC = "ISIC2018_Task3_Training_"
FOLDERS = (
    "HAM10000_images_part_1", "HAM10000_images_part_2", "HAM10000_images_part1", "HAM10000_images_part2",
    f"{ISIC}Input", "HAM10000_images", "images", ".",
)  # fmt: skip
SUFFIXES = (".jpg", ".jpeg", ".png")
SOURCE = (
    "get HAM10000 from https://doi.org/10.7910/DVN/DBW86T (Dataverse: HAM10000_metadata and two archives "
    "of images) or Kaggle's kmader/skin-cancer-mnist-ham10000, unpack it, and say --data ham10000=FOLDER"
)


class Lesions(ImageFolder):
    """The official files, as they come: images, lesions, diagnoses, people and splits."""

    licence = "CC BY-NC 4.0"
    citation = (
        "Tschandl, Rosendahl, Kittler: The HAM10000 dataset, a large collection of multi-source "
        "dermatoscopic images of common pigmented skin lesions. Sci Data 5:180161 (2018), "
        "doi:10.1038/sdata.2018.161"
    )
    homepage = "https://doi.org/10.7910/DVN/DBW86T"
    publishable: ClassVar[str] = (
        "aggregate results, and for non-commercial use predictions and images with attribution"
    )

    ages: Literal["fairllava", "medfair2", "medfair5", "fairmedfm"] = "fairllava"
    age_zero: Literal["keep", "missing"] = "keep"
    localization: bool = False
    split_seed: int = 0
    fractions: tuple[Fraction, ...] = (0.7, 0.1, 0.2)

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        if len(self.fractions) != 3 or min(self.fractions) == 0 or abs(sum(self.fractions) - 1) > 1e-9:
            raise FairbenchError(
                f"{self.name}.fractions = {list(self.fractions)} are not the shares of train, val and test",
                "give three numbers above 0 that add up to 1, such as 0.7,0.1,0.2",
            )

    @property
    def attributes(self) -> Mapping[str, tuple[str, ...]]:
        """Sex, binned age and, on request, body site."""
        sites = {"localization": SITES} if self.localization else {}
        return {"sex": ("female", "male"), "age": AGE_BINS[self.ages].names, **sites}

    @property
    def notes(self) -> tuple[str, ...]:
        """Age bins and splits in force."""
        shares = "/".join(f"{share:.0%}" for share in self.fractions)
        return (
            f"ages {self.ages}: {', '.join(AGE_BINS[self.ages].names)}; age 0: {self.age_zero}",
            f"splits {shares} made by fairbench with seed {self.split_seed}: grouped by lesion, stratified "
            "by diagnosis; the data names no patients, so one patient's lesions may sit in several splits",
        )

    def lesions(self, localization: bool) -> pd.DataFrame:
        """Read the metadata and find the images, unseen yet; raises FairbenchError saying what is missing."""
        people = self._people(localization).sort_values("image_id", ignore_index=True)
        images = pd.DataFrame(
            {
                "id": people["image_id"],
                "cluster": people["lesion_id"],
                "image": self._images(people["image_id"]),
                "dx": people["dx"],
                "sex": people["sex"],
                "age": self._age(people["age"]),
                "localization": people["localization"],
            }
        )
        # Split before unreadable files are left out: a damaged file must not move other lesions.
        images["split"] = self.split_clusters(images, "dx", self.fractions, self.split_seed)
        return images

    def sources(self) -> Sequence[Path]:
        """Return the tables of the folder and, for files that come and go, the folders themselves."""
        root = self._root()
        tables = [*METADATA, *_isic("GroundTruth"), *_isic("LesionGroupings")]
        return [root / name for name in (*tables, *FOLDERS)]

    def _root(self) -> Path:
        if self.root is None or not self.root.is_dir():
            raise FairbenchError(f"ham10000: {self.root or 'its folder'} is not a folder", SOURCE)
        return self.root

    def _first(self, names: Iterable[str]) -> Path | None:
        return next((self._root() / name for name in names if (self._root() / name).is_file()), None)

    def _people(self, localization: bool) -> pd.DataFrame:
        """Return image_id, lesion_id, dx, age, sex, localization as strings, missing where not recorded."""
        metadata, truth = self._first(METADATA), self._first(_isic("GroundTruth"))
        wanted = ["lesion_id", "image_id", "dx", "age", "sex", *(["localization"] if localization else [])]
        if metadata is not None:
            people = _read(metadata, wanted)
        elif truth is not None:
            people = self._isic_people(truth)
        else:
            there = ", ".join(sorted(os.listdir(self._root()))[:10]) or "nothing"
            raise FairbenchError(
                f"ham10000: {self.root} holds neither {' nor '.join(METADATA[:2])} (it holds {there})", SOURCE
            )
        people = people.reindex(columns=[*wanted[:5], "localization"])
        for column in ("lesion_id", "image_id", "dx"):  # a row without a diagnosis is not a benign one
            if lacking := int(people[column].isna().sum()):
                raise FairbenchError(f"ham10000: {metadata or truth}: {lacking:,} rows have no {column}", SOURCE)
        for column, known in {
            "dx": tuple(DIAGNOSES),
            "sex": ("female", "male"),
            "localization": SITES,
        }.items():
            people[column] = people[column].map(str.lower, na_action="ignore")
            people[column] = people[column].where(~people[column].map(is_missing, na_action="ignore").eq(True))
            odd = people[~people[column].isin(known) & people[column].notna()]
            if len(odd):
                raise FairbenchError(
                    f"ham10000: {metadata or truth}: image {odd['image_id'].iloc[0]} has {column} "
                    f"{odd[column].iloc[0]!r}",
                    f"expected {', '.join(known)}",
                )
        return people

    def _isic_people(self, truth: Path) -> pd.DataFrame:
        """Read the ISIC 2018 challenge's files, which know labels and lesions but not the people."""
        codes = [code.upper() for code in DIAGNOSES]
        labels = _read(truth, ["image", *codes])
        lesions = self._first(_isic("LesionGroupings"))
        if lesions is None:
            raise FairbenchError(
                f"ham10000: {truth} comes without {ISIC}LesionGroupings.csv (which images show one lesion)",
                f"put it beside, from https://challenge.isic-archive.com/data/#2018, or {SOURCE}",
            )
        chosen = labels[codes].apply(pd.to_numeric, errors="coerce") == 1
        if (chosen.sum(axis=1) != 1).any():
            odd = labels["image"][chosen.sum(axis=1) != 1].iloc[0]
            raise FairbenchError(f"ham10000: {truth}: image {odd} does not have exactly one diagnosis", SOURCE)
        labels["dx"] = chosen.idxmax(axis=1)
        people = labels[["image", "dx"]].merge(_read(lesions, ["image", "lesion_id"]), how="left", on="image")
        self.warnings.append(
            "the ISIC 2018 files lack sex, age and localization, so every attribute is unrecorded; "
            f"put HAM10000_metadata beside them ({self.homepage})"
        )
        return people.rename(columns={"image": "image_id"}).astype(object)

    def _age(self, written: pd.Series[Any]) -> pd.Series[Any]:
        age = np.floor(pd.to_numeric(written, errors="coerce"))
        odd = written[(age.isna() & written.notna()) | (age < 0) | (age > 120)]
        if len(odd):
            raise FairbenchError(f"ham10000: age {odd.iloc[0]!r} is not a number of years from 0 to 120", SOURCE)
        if self.age_zero == "missing":
            age = age.where(age != 0)
        return AGE_BINS[self.ages].cut(age)

    def _images(self, ids: pd.Series[Any]) -> pd.Series[Any]:
        """Return each image's path under the root; all must be there."""
        root, files = self._root(), dict[str, str]()
        for folder in FOLDERS:
            if (root / folder).is_dir():
                for name in sorted(os.listdir(root / folder)):
                    stem, suffix = os.path.splitext(name)
                    if suffix.lower() in SUFFIXES:
                        files.setdefault(stem, name if folder == "." else f"{folder}/{name}")
        lost = ids[~ids.isin(list(files))]
        if len(lost) and not self.unseen:
            looked = ", ".join(folder for folder in FOLDERS if (root / folder).is_dir())
            raise FairbenchError(
                f"ham10000: {len(lost):,} of {len(ids):,} images are missing, for instance "
                f"{lost.iloc[0]}.jpg (looked in {looked} of {root})",
                f"expected {' and '.join(FOLDERS[:2])}; {SOURCE}",
            )
        return ids.map(files).fillna(ids)  # what is not there is not looked at


class HAM10000(Lesions):
    """10,015 dermatoscopic images of 7,470 lesions; the official files, as they come.

    `labels` chooses the classes, `ages` the bins of `age`; `localization` adds the body site as an
    attribute. No split is published: `fractions` of the images go to train, val and test, whole
    lesions at a time, stratified by diagnosis, so every label map shares one split. `age_zero` says
    what to make of the 39 images whose age is 0. `dx_type` (how the diagnosis was confirmed) is no
    attribute, because it gives the label away.
    """

    name = "ham10000"
    title = "HAM10000 (skin lesions)"

    labels: Literal["malignant", "medfair", "dx7"] = "malignant"
    prompt: str = ""  # empty: the question that belongs to the labels

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.prompt = self.prompt or LABELS[self.labels].prompt

    @property
    def classes(self) -> tuple[str, ...]:
        """Benign and malignant, or the seven diagnoses."""
        return LABELS[self.labels].classes

    @property
    def words(self) -> tuple[str, ...]:
        """No and yes, or the diagnoses' full names."""
        return LABELS[self.labels].words

    @property
    def notes(self) -> tuple[str, ...]:
        """Label map, age bins and splits in force."""
        chosen = LABELS[self.labels]
        meaning = f"malignant = {', '.join(chosen.positive)}" if chosen.positive else ", ".join(DIAGNOSES)
        return (f"labels {self.labels} (version {chosen.version}): {meaning}", *super().notes)

    def table(self) -> pd.DataFrame:
        """Read the metadata and find the images; raises FairbenchError saying what is missing."""
        images = self.lesions(self.localization)
        return self.readable(images.assign(target=LABELS[self.labels].target(images["dx"])))


class HAM10000VQA(Lesions):
    """Questions about the same lesions, answered in a phrase: one row for each image and each of `questions`.

    Answers are made from the official metadata alone. `malignancy` is read as the label map `malignant`
    does. Images whose site is not recorded are not asked for it. `prompt` is put before each question.
    """

    name = "ham10000-vqa"
    folder = "ham10000"
    title = "HAM10000 VQA (questions about skin lesions)"
    task = "generate"

    questions: tuple[Literal["diagnosis", "site", "malignancy"], ...] = ("diagnosis", "site")
    max_new_tokens: Count = 48  # one token a byte; the longest answer has 41

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        if not self.questions or len(set(self.questions)) < len(self.questions):
            raise FairbenchError(
                f"{self.name}.questions = {list(self.questions)} must name at least one question, none twice",
                f"choose from {', '.join(QUESTIONS)}",
            )
        self._called = {n: c for c in self.classes for n in (c, DIAGNOSES.get(c, c), *ALSO.get(c, ()))}
        longest_first = sorted(map(re.escape, self._called), key=len, reverse=True)
        self._calls = re.compile(rf"(?<!\w)({'|'.join(longest_first)})(?!\w)", re.IGNORECASE)

    @property
    def classes(self) -> tuple[str, ...]:
        """The answers to all questions."""
        answers = {"diagnosis": tuple(DIAGNOSES), "site": SITES, "malignancy": LABELS["malignant"].classes}
        return tuple(answer for question in self.questions for answer in answers[question])

    def parse(self, text: str) -> int:
        """Return the class that an answer names first, by its code or any of its names; -1 for none."""
        named = self._calls.search(text)
        return self.classes.index(self._called[named[0].lower()]) if named else -1

    @property
    def notes(self) -> tuple[str, ...]:
        """Where questions, answers and splits come from."""
        return (
            f"questions: {', '.join(self.questions)}; wordings and answers are fairbench's templates, filled from "
            "dx and localization; FairLLaVA's were written by LLaVA-1.5-7B, which was told the true label",
            "splits are those of ham10000, whole lesions at a time; FairLLaVA's code splits rows of questions at "
            "random, so that images and lesions stand on both sides: its scores cannot be compared with these",
            "the first diagnosis, site or verdict that an answer names counts, by code or name; none is wrong",
            *super().notes,
        )

    def table(self) -> pd.DataFrame:
        """Return a row for each image and question that has an answer; a lesion's rows are one cluster."""
        images = self.lesions(localization=self.localization or "site" in self.questions)
        verdicts = LABELS["malignant"].target(images["dx"])
        answers = {"diagnosis": images["dx"], "site": images["localization"], "malignancy": verdicts}
        asked = [self._asked(images.assign(target=answers[question]), question) for question in self.questions]
        table = pd.concat(asked).sort_index(kind="stable")  # an image's questions stand together
        if "site" in self.questions and (without := int(images["localization"].isna().sum())):
            self.warnings.append(f"{without:,} images have no recorded site and are not asked for it")
        return self.readable(table)

    def _asked(self, images: pd.DataFrame, question: str) -> pd.DataFrame:
        """Put one question to every image that has an answer, in a wording drawn from the image's name."""
        images, ways = images[images["target"].notna()], list(QUESTIONS[question].items())
        prompts, references = [], []
        for image, answer in zip(images["id"], images["target"], strict=True):
            draw = int.from_bytes(hashlib.sha256(f"{question}:{image}".encode()).digest()[:8])
            prompt, form = ways[draw % len(ways)]
            prompts.append(f"{self.prompt} {prompt}".strip())
            name = DIAGNOSES.get(answer, answer)
            yes = "Yes" if answer == "malignant" else "No"
            references.append(form.format(answer=name, article="an" if name[0] in "aeiou" else "a", yes=yes))
        return images.assign(id=images["id"] + f"-{question}", prompt=prompts, reference=references)


def _isic(kind: str) -> tuple[str, ...]:
    return (f"{ISIC}{kind}/{ISIC}{kind}.csv", f"{ISIC}{kind}.csv")


def _read(path: Path, wanted: Sequence[str]) -> pd.DataFrame:
    """Read columns of a table as words."""
    return read_table(path, "ham10000", SOURCE, {name: (name,) for name in wanted}, lines=False).reset_index(
        drop=True
    )


@hookimpl
def fairbench_datasets() -> Iterable[type[Dataset]]:
    """Offer HAM10000, to classify and to be asked about."""
    return [HAM10000, HAM10000VQA]
