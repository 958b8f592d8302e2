"""Harvard-GF: maps of the retinal nerve fibre layer of 3,300 people, a third of each race (Luo 2024)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from fairbench import HARVARD_PEOPLE, ArchiveFolder, Dataset, Unreadable, Variable, hookimpl

CLASSES = ("non-glaucoma", "glaucoma")
SUMMARY = "data_summary.csv"
THINNEST, THICKEST = -2.0, 350.0  # micrometres that are shown black and white
SOURCE = (
    "get Harvard-GF from https://huggingface.co/datasets/harvardairobotics/Harvard-GF or through "
    "https://ophai.hms.harvard.edu/datasets/harvard-glaucoma-fairness-3300-samples, unpack it, and say "
    "--data harvard-gf=FOLDER"
)


class HarvardGF(ArchiveFolder):
    """3,300 maps of the retinal nerve fibre layer's thickness, glaucoma or not; the official files and split.

    A map becomes grey by (x + 2) / 352 · 255: −2 µm (nothing measured) is black, 350 µm is white, and what
    lies beyond is cut off. Split, label and attributes come from the words in data_summary.csv where it is
    there, else from the folders and from the codes in the npz files, which name them differently.
    """

    name = "harvard-gf"
    title = "Harvard-GF (retinal nerve fibre layer maps, glaucoma)"
    own_splits = True
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

    array = "rnflt"
    source = SOURCE
    people = HARVARD_PEOPLE
    classes = CLASSES
    words = ("no", "yes")
    target = Variable(("glaucoma",), CLASSES, {"no": CLASSES[0], "yes": CLASSES[1]})

    prompt: str = "This map shows the thickness of the retinal nerve fibre layer. Does the patient have glaucoma?"

    @property
    def notes(self) -> tuple[str, ...]:
        """Labels, bins, splits and picture in force."""
        return (
            "labels (version 1): glaucoma = yes in the column glaucoma, 1 in the npz files",
            f"ages {self.ages}, in completed years: {', '.join(self.age_bins.names)}",
            f"splits: official, from the column use of {SUMMARY}, else from the folders",
            "picture: thickness in micrometres, grey = (x + 2) / 352 · 255, cut off at black and white",
            "races are equally frequent by design: prevalences are not those of any clinic",
        )

    def summaries(self) -> Sequence[Path]:
        """Return data_summary.csv's possible places."""
        return [self.home() / folder / SUMMARY for folder in (".", "ReadMe")]

    def shown(self, array: NDArray[np.generic]) -> Image.Image:
        """Show a map of micrometres in grey; raises Unreadable."""
        if array.ndim != 2 or not array.size or array.dtype.kind not in "uif" or not np.isfinite(array).all():
            raise Unreadable(f"`rnflt` is no map of numbers but {array.dtype} of shape {array.shape}")
        light = (array.astype(float) - THINNEST) / (THICKEST - THINNEST)
        return Image.fromarray((light.clip(0, 1) * 255).round().astype(np.uint8)).convert("RGB")

    @classmethod
    def example(cls, folder: Path) -> Mapping[str, str]:
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
            words = {c.keys[0]: (*c.values, "unknown")[own[c.keys[-1]]] for c in HARVARD_PEOPLE.values()}
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
        return {}


@hookimpl
def fairbench_datasets() -> Iterable[type[Dataset]]:
    """Offer Harvard-GF."""
    return [HarvardGF]
