"""Harvard-FairVLMed: SLO fundus photographs, clinical notes and six attributes of 10,000 people (Luo 2024)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal

import numpy as np
import pandas as pd
from PIL import Image

from fairbench import HARVARD_PEOPLE, ArchiveFolder, Dataset, FairbenchError, Variable, hookimpl

CLASSES = ("non-glaucoma", "glaucoma")
TASKS = {"none": "the image alone", "summary": "image and GPT-4 summary", "note": "image and clinical note"}
SUMMARY = "data_summary.csv"
NOTES = ("gpt-4_summarized_notes.csv", "gpt4_summarized_notes.csv")
SOURCE = (
    "get Harvard-FairVLMed from https://huggingface.co/datasets/harvardairobotics/FairVLMed or through "
    "https://ophai.hms.harvard.edu/datasets/harvard-fairvlmed10k, unpack it, and say "
    "--data harvard-fairvlmed=FOLDER"
)


class HarvardFairVLMed(ArchiveFolder):
    """10,000 SLO fundus photographs of 10,000 people, glaucoma or not; the official files and split.

    `note` makes another task of it: `summary` or `note` puts the GPT-4 summary or the clinical note
    before the question, and the text alone nearly tells the answer. Splits and attributes come from the
    words in data_summary.csv, and from the codes in the npz files only where it lacks a column.
    `image_file` says whose picture is shown (`auto`: npz if all are there, else jpg; never a mixture).
    Grey values end at about 86 of 255; `display = "stretch"` spreads each picture's over the whole range.
    """

    name = "harvard-fairvlmed"
    title = "Harvard-FairVLMed (SLO fundus, glaucoma)"
    own_splits = True
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

    array = "slo_fundus"
    source = SOURCE
    people = HARVARD_PEOPLE
    classes = CLASSES
    words = ("no", "yes")
    target = Variable(("glaucoma",), CLASSES, {"no": CLASSES[0], "yes": CLASSES[1]})
    files: ClassVar[Mapping[str, re.Pattern[str]]] = {
        **ArchiveFolder.files, "jpg": re.compile(r"slo_fundus_(\d+)\.jpg"),
    }  # fmt: skip

    note: Literal["none", "summary", "note"] = "none"
    image_file: Literal["auto", "npz", "jpg"] = "auto"
    display: Literal["as-is", "stretch"] = "as-is"
    prompt: str = "Does the patient have glaucoma?"

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
            f"ages {self.ages}, in completed years: {', '.join(self.age_bins.names)}",
            "splits: official, from the column use",
            f"picture: {shown}, grey values {self.display} (as they are, they end at about 86 of 255)",
        )

    def table(self) -> pd.DataFrame:
        """Find the pictures, and whose they are; raises FairbenchError saying what is missing."""
        people = self.located()
        table = self.described(people)
        if self.note != "none":
            table["prompt"] = self._prompts(people.loc[table.index])
        return self.readable(table)

    def sources(self) -> Sequence[Path]:
        """Return the notes' places beside the others."""
        return [*super().sources(), *self._places(NOTES)]

    def summaries(self) -> Sequence[Path]:
        """Return data_summary.csv's possible places."""
        return self._places([SUMMARY])

    def open(self, file: BinaryIO) -> Image.Image:
        """Decode a jpg, or the array `slo_fundus` of an npz file; raises Unreadable."""
        image = super().open(file)
        return _stretched(image) if self.display == "stretch" else image

    def _places(self, names: Iterable[str]) -> list[Path]:
        return [self.home() / folder / name for name in names for folder in (".", "ReadMe")]

    def _prompts(self, people: pd.DataFrame) -> pd.Series[Any]:
        """Put each person's text before the question; whoever has none is asked the bare question."""
        column = {"summary": "gpt4summary", "note": "note"}[self.note]
        if column in people:
            texts = people[column]
        elif self.note == "note":
            held = self.held(["note"], people["id"])
            if not held:
                raise FairbenchError(f"{self.name}: neither {SUMMARY} nor any npz file has `note`", SOURCE)
            texts = people["id"].map(held)
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
        path = next((place for place in self._places(NOTES) if place.is_file()), None)
        table = self.read(path) if path else pd.DataFrame()
        if len(table.columns) < 3:
            raise FairbenchError(
                f"{self.name}: no column gpt4_summary in {SUMMARY}, and {path or NOTES[0]} "
                + ("has fewer than three columns" if path else "is not there"),
                SOURCE,
            )
        return dict(zip(table.iloc[:, 0], table.iloc[:, 2], strict=True))

    @classmethod
    def example(cls, folder: Path) -> Mapping[str, str]:
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
            words = {c.keys[0]: (*c.values, "unknown")[own[c.keys[0]]] for c in HARVARD_PEOPLE.values()}
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
        return {}


def _stretched(image: Image.Image) -> Image.Image:
    """Spread a picture's grey values linearly over 0 to 255; one that is all the same stays."""
    grey = np.asarray(image.convert("L")).astype(float)
    low, high = grey.min(), grey.max()
    if low == high:
        return image
    return Image.fromarray(((grey - low) * 255 / (high - low)).round().astype(np.uint8)).convert("RGB")


@hookimpl
def fairbench_datasets() -> Iterable[type[Dataset]]:
    """Offer Harvard-FairVLMed."""
    return [HarvardFairVLMed]
