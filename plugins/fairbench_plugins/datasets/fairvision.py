"""FairVision: SLO fundus photographs of 30,000 people with AMD, diabetic retinopathy or glaucoma (Luo 2023)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from PIL import Image

from fairbench import HARVARD_PEOPLE, ArchiveFolder, Dataset, FairbenchError, Variable, hookimpl


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
TARGET_KEYS = {"glaucoma": ("glaucoma",), "amd": ("amd", "amd_condition", "dr_subtype"), "dr": ("dr", "dr_subtype")}
PUBLISHED: dict[str, dict[str, int]] = {
    # The description says 7,000/1,000/2,000; data_summary_glaucoma.csv says this.
    "glaucoma": {
        "all": 10_000, "train": 6_000, "val": 1_000, "test": 3_000, "test glaucoma": 1_466,
        "test race=asian": 251, "test race=black": 431, "test race=white": 2_318,
    },
    "amd": {  # data_summary_amd.csv
        "all": 10_000, "train": 6_000, "val": 1_000, "test": 3_000,
        "train amd": 2_140, "val amd": 360, "test amd": 1_069,
        "race=asian": 706, "race=black": 1_171, "race=white": 8_123,
    },
    "dr": {"all": 10_000},
}  # fmt: skip

SOURCE = (
    "get FairVision from https://huggingface.co/datasets/harvardairobotics/FairVision (see also "
    "https://github.com/Harvard-Ophthalmology-AI-Lab/FairVision), unpack it, and say --data fairvision=FOLDER"
)


class FairVision(ArchiveFolder):
    """SLO fundus photographs of 10,000 people for each of three diseases; the official files and split.

    `disease` chooses whose; `labels = "stages"` tells four stages of AMD apart instead of AMD or none.
    Split, label and attributes come from the words in data_summary_DISEASE.csv where it is there, else from
    the folders and the codes in the npz files. `image_file` says whose picture is shown: that of the npz
    file (200×200, grey values stretched by the authors) or the jpg beside it (664×512); `auto` takes npz if
    all are there, else jpg, never a mixture. By default no whole file is read: npz files hold volumes too.
    """

    name = "fairvision"
    title = "FairVision (SLO fundus: AMD, diabetic retinopathy, glaucoma)"
    own_splits = True
    licence = "CC BY-NC-ND 4.0"
    citation = (
        "Luo, Tian, Shi, Elze, Wang: FairVision: Equitable Deep Learning for Eye Disease Screening via Fair "
        "Identity Scaling. arXiv:2310.02492 (2023)"
    )
    homepage = "https://github.com/Harvard-Ophthalmology-AI-Lab/FairVision"
    publishable: ClassVar[str] = "aggregate results of non-commercial research; no image, no altered copy"

    array = "slo_fundus"
    source = SOURCE
    people = HARVARD_PEOPLE
    files: ClassVar[Mapping[str, re.Pattern[str]]] = {
        **ArchiveFolder.files, "jpg": re.compile(r"slo_(?:fundus_)?(\d+)\.jpg"),
    }  # fmt: skip

    disease: Literal["glaucoma", "amd", "dr"] = "glaucoma"
    labels: Literal["binary", "stages"] = "binary"
    image_file: Literal["auto", "npz", "jpg"] = "auto"
    verify: Literal["decode", "structure"] = "structure"
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
        known = PUBLISHED[self.disease]
        binary = self.labels == "binary"  # stages of AMD are published nowhere
        return {key: count for key, count in known.items() if binary or not key.endswith(" amd")}

    @property
    def classes(self) -> tuple[str, ...]:
        """Without and with the disease, or its stages."""
        return self._rule.classes

    @property
    def words(self) -> tuple[str, ...]:
        """Answers to the prompt."""
        return self._rule.words

    @property
    def target(self) -> Variable:
        """The label, by the names and words of csv and npz files."""
        meanings = {word: self.classes[index] for word, index in self._rule.meanings.items()}
        return Variable(TARGET_KEYS[self.disease], also=meanings)

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
            f"ages {self.ages}, in completed years: {', '.join(self.age_bins.names)}",
            f"splits: official, from the column use of {self._summary_name}, else from the folders",
            f"picture: {shown} (npz: 200×200, stretched by the authors; jpg: 664×512, as it is)",
        )

    @property
    def _summary_name(self) -> str:
        return f"data_summary_{self.disease}.csv"

    def summaries(self) -> Sequence[Path]:
        """Return data_summary_DISEASE.csv's possible places."""
        home = self.home()
        return [folder / self._summary_name for folder in (home.parent, home, home / "ReadMe")]

    def home(self) -> Path:
        """Return the disease's folder."""
        there = sorted(super().home().iterdir())
        homes = [item for item in there if item.name.lower() == self.disease and item.is_dir()]
        if not homes:
            names = ", ".join(item.name for item in there[:10]) or "nothing"
            raise FairbenchError(
                f"{self.name}: {self.root} has no folder for {self.disease} (it holds {names})",
                f"expected AMD, DR or Glaucoma; {SOURCE}",
            )
        return homes[0]

    @classmethod
    def example(cls, folder: Path) -> Mapping[str, str]:
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
                words = {c.keys[0]: (*c.values, "unknown")[own[c.keys[-1]]] for c in HARVARD_PEOPLE.values()}
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
        return {}


@hookimpl
def fairbench_datasets() -> Iterable[type[Dataset]]:
    """Offer FairVision."""
    return [FairVision]
