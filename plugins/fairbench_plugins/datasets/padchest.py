"""PadChest: chest radiographs from Alicante with the findings of their reports, sex and age (Bustos 2020)."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageOps

from fairbench import Bins, Dataset, FairbenchError, Fraction, ImageFolder, hookimpl, open_image, read_table

AGES = {  # FairLLaVA writes [0, 44], (44, 65], (65, ∞)
    "fairllava": Bins.read("0-44", "45-65", ">=66"),
    "decades": Bins.read("<40", "40-59", "60-79", ">=80"),
}
OLDEST = 120
SEXES = {"F": "female", "M": "male"}
METHODS = ("Physician", "RNN")
SILENT = ("unchanged", "suboptimal study")  # a report that says only this says nothing of any finding
EXCLUDED = "exclude"

METADATA = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
BASES = ("", "images", "images-224")
COLUMNS = (
    "ImageID", "ImageDir", "StudyDate_DICOM", "PatientID", "PatientBirth", "PatientSex_DICOM", "Projection",
    "PhotometricInterpretation_DICOM", "MethodLabel", "Labels",
)  # fmt: skip
SOURCE = (
    f"ask for PadChest at https://bimcv.cipf.es/bimcv-projects/padchest/ (form and research use agreement), unpack "
    f"the zips into one folder beside {METADATA}, and say --data padchest=FOLDER"
)


class PadChest(ImageFolder):
    """Whether a chest radiograph shows a finding, as its Spanish report says.

    An image is positive when its report has any of `label`, spelt as in the column Labels; PadChest orders
    its terms in a tree, and a term's children count only where they are listed too. `labelled_by` keeps
    labels of the physicians or of the network. Reports that say only "unchanged" or "suboptimal study", or
    are marked "exclude", say nothing of a finding, and their images are left out.

    No split is published: `fractions` of the images go to train, val and test, whole patients at a time,
    stratified by whether anything is abnormal; it depends on no other setting. `display` says how 16-bit grey
    becomes 8-bit: `percentile` stretches each image from its 0.5th to its 99.5th percentile, `minmax` from its
    least to its largest value, `full` divides by 257. `monochrome1` says whether images whose DICOM file showed
    small values white are turned over.
    """

    name = "padchest"
    title = "PadChest (a finding in chest X-rays)"
    licence = "PadChest Dataset Research Use Agreement (BIMCV)"
    citation = (
        "Bustos, Pertusa, Salinas, de la Iglesia-Vayá: PadChest: a large chest x-ray image dataset with "
        "multi-label annotated reports. Med Image Anal 66:101797 (2020), doi:10.1016/j.media.2020.101797"
    )
    homepage = "https://bimcv.cipf.es/bimcv-projects/padchest/"
    publishable: ClassVar[str] = "aggregate results only; no image and no report"
    published: ClassVar[Mapping[str, int]] = {}  # 160,868 images are known before projections and labels are chosen

    verify: Literal["decode", "structure"] = "structure"  # decoding takes hours more than holding checksums
    label: tuple[str, ...] = ("pleural effusion",)
    labelled_by: Literal["any", "Physician", "RNN"] = "any"
    projections: tuple[str, ...] = ("PA", "AP")
    ages: Literal["fairllava", "decades"] = "fairllava"
    display: Literal["percentile", "minmax", "full"] = "percentile"
    monochrome1: Literal["invert", "leave"] = "invert"
    split_seed: int = 0
    fractions: tuple[Fraction, ...] = (0.7, 0.1, 0.2)
    prompt: str = ""  # empty: the question that belongs to the label

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._negatives: frozenset[str] | None = None  # ids of the images to turn over, once the table is read
        self.label = tuple(label.strip().lower() for label in self.label)
        self.prompt = self.prompt or f"Does this chest X-ray show {' or '.join(self.label)}? Answer yes or no."
        if len(self.fractions) != 3 or min(self.fractions) == 0 or abs(sum(self.fractions) - 1) > 1e-9:
            raise FairbenchError(
                f"padchest.fractions = {list(self.fractions)} are not the shares of train, val and test",
                "give three numbers above 0 that add up to 1, such as 0.7,0.1,0.2",
            )

    @property
    def classes(self) -> tuple[str, ...]:
        """Whether the finding is there."""
        return ("absent", "present")

    @property
    def words(self) -> tuple[str, ...]:
        """No and yes."""
        return ("no", "yes")

    @property
    def attributes(self) -> Mapping[str, tuple[str, ...]]:
        """Sex and binned age; PadChest records no race."""
        return {"sex": ("female", "male"), "age": AGES[self.ages].names}

    @property
    def notes(self) -> tuple[str, ...]:
        """Label map, age bins, splits and display in force."""
        shares = "/".join(f"{share:.0%}" for share in self.fractions)
        return (
            f"present = report labelled {' or '.join(self.label)} (labelled by {self.labelled_by}); reports that "
            "say only unchanged or suboptimal study, or are to be excluded, left out",
            f"projections {', '.join(self.projections)}; 16-bit grey shown by {self.display}, MONOCHROME1: "
            f"{self.monochrome1}",
            f"ages {self.ages}: {', '.join(AGES[self.ages].names)}; age = year of the study − year of birth; "
            "no race",
            f"splits {shares} made by fairbench with seed {self.split_seed}: grouped by patient, stratified by "
            "whether anything is abnormal",
            "no report task: the published reports are Spanish word stems",
        )

    @classmethod
    def example(cls, folder: Path) -> Mapping[str, str]:
        """Write the table and 16-bit images of 60 made-up people."""
        _write_example(folder)
        return {}

    def table(self) -> pd.DataFrame:
        """Read the table and find the images; raises FairbenchError saying what is missing or odd."""
        path, people = self._people()
        findings = people["Labels"].map({text: _findings(text) for text in people["Labels"].dropna().unique()})
        rows = pd.DataFrame({"id": people["ImageID"], "cluster": people["PatientID"]})
        rows["normal"] = findings.map(lambda terms: str(terms == frozenset(["normal"])))
        # Split before anything is left out: no setting and no damaged file may move a patient.
        rows["split"] = self.split_clusters(rows, "normal", self.fractions, self.split_seed)
        rows["target"] = self._target(findings, path)
        rows["image"] = self._images(people["ImageID"], people["ImageDir"])
        chosen = self._chosen(people, "Projection", self.projections, path)
        if self.labelled_by != "any":
            chosen &= self._chosen(people, "MethodLabel", (self.labelled_by,), path)
        silent = chosen & rows["target"].isna()
        if silent.any():
            left = f"{silent.sum():,} of {chosen.sum():,} images"
            self.warnings.append(f"{left} have a report that tells of no finding, and were left out")
        people, rows = people[chosen & ~silent], rows[chosen & ~silent]
        negative = people["PhotometricInterpretation_DICOM"].str.upper() == "MONOCHROME1"
        self._negatives = frozenset(rows["id"][negative & (self.monochrome1 == "invert")])
        rows = rows.assign(sex=self._sex(people["PatientSex_DICOM"]), age=self._age(people, path))
        return self.readable(rows)

    def sources(self) -> Sequence[Path]:
        """Return the table's places and, for files that come and go, the folders themselves."""
        return [*self._tables(), *(self._root() / base for base in BASES)]

    def open(self, file: BinaryIO) -> Image.Image:
        """Decode one file to RGB, 16-bit grey by `display`. Raises Unreadable for a damaged or oversized file."""
        if self.display == "full":
            return open_image(file)
        return open_image(file, lambda grey: _stretched(grey, self.display))

    def image(self, row: Mapping[str, object]) -> Image.Image:
        """Open one file as RGB, turned over where its DICOM file showed small values white."""
        if self._negatives is None:
            self.table()
        assert self._negatives is not None
        image = super().image(row)
        return ImageOps.invert(image) if str(row["id"]) in self._negatives else image

    def fingerprint(self) -> str:
        """Hash the table, its files, and which of them are turned over."""
        seen = super().fingerprint()
        assert self._negatives is not None  # the table has been read
        return hashlib.sha256("\0".join([seen, *sorted(self._negatives)]).encode()).hexdigest()[:16]

    def _root(self) -> Path:
        if self.root is None or not self.root.is_dir():
            raise FairbenchError(f"padchest: {self.root or 'its folder'} is not a folder", SOURCE)
        return self.root

    def _tables(self) -> list[Path]:
        return [self._root() / f"{METADATA}{packed}" for packed in ("", ".gz")]

    def _people(self) -> tuple[Path, pd.DataFrame]:
        path = next((place for place in self._tables() if place.is_file()), None)
        if path is None:
            there = ", ".join(sorted(os.listdir(self._root()))[:10]) or "nothing"
            raise FairbenchError(f"padchest: {self.root} holds no {METADATA}[.gz] (it holds {there})", SOURCE)
        names = {column: (column, column.removesuffix("_DICOM")) for column in COLUMNS}
        people = read_table(path, self.name, SOURCE, names, lines=False).sort_values("ImageID", ignore_index=True)
        if people.empty:
            raise FairbenchError(f"padchest: {path} has no rows", SOURCE)
        for column in ("ImageID", "PatientID"):
            if lacking := int(people[column].isna().sum()):
                raise FairbenchError(f"padchest: {path}: {lacking:,} rows have no {column}", SOURCE)
        twice = people["ImageID"][people["ImageID"].duplicated()]
        if len(twice):
            raise FairbenchError(
                f"padchest: {path}: {len(twice):,} rows repeat an image, for instance {twice.iloc[0]}", SOURCE
            )
        # A spreadsheet keeps 15 digits of these numbers, which makes strangers one patient.
        odd = people["PatientID"][people["PatientID"].str.fullmatch(r"[\d.]+[eE]\+?\d+")]
        if len(odd):
            raise FairbenchError(
                f"padchest: {path}: PatientID {odd.iloc[0]!r} has been rounded",
                f"a spreadsheet has rewritten the file; use it as it came; {SOURCE}",
            )
        return path, people

    def _chosen(self, people: pd.DataFrame, column: str, wanted: Sequence[str], path: Path) -> pd.Series[Any]:
        there = people[column].dropna().unique()
        strange = [value for value in wanted if value not in there]
        if strange or not wanted:
            raise FairbenchError(
                f"padchest: {path} has no {column} {', '.join(strange) or 'of no name'}",
                f"choose among {', '.join(sorted(there)[:20])}",
            )
        return people[column].isin(list(wanted))

    def _sex(self, written: pd.Series[Any]) -> pd.Series[Any]:
        odd = written[written.notna() & ~written.isin(list(SEXES))]
        if len(odd):
            self.warnings.append(f"{len(odd):,} rows have the sex {odd.iloc[0]!r}: unrecorded")
        return written.map(SEXES)

    def _age(self, people: pd.DataFrame, path: Path) -> pd.Series[Any]:
        birth = pd.to_numeric(people["PatientBirth"], errors="coerce")
        dates = people["StudyDate_DICOM"].str.removesuffix(".0")
        study = pd.to_datetime(dates, format="%Y%m%d", errors="coerce").dt.year
        for column, parsed, example in (("PatientBirth", birth, "1958.0"), ("StudyDate_DICOM", study, "20150622")):
            odd = people[column][parsed.isna() & people[column].notna()]
            if len(odd):
                raise FairbenchError(
                    f"padchest: {path}: {column} {odd.iloc[0]!r} is not written as {example}",
                    f"use the file as it came; {SOURCE}",
                )
        age = study - np.floor(birth)
        odd = (age < 0) | (age > OLDEST)
        if odd.any():
            self.warnings.append(f"{odd.sum():,} ages at the study are below 0 or above {OLDEST}: unrecorded")
        return AGES[self.ages].cut(age.mask(odd))

    def _target(self, findings: pd.Series[Any], path: Path) -> pd.Series[Any]:
        """Return present or absent, missing where a report says nothing of findings."""
        kinds = {terms for terms in findings if isinstance(terms, frozenset)}
        known = frozenset().union(*kinds)
        for label in self.label or ("",):
            if label not in known:
                near = get_close_matches(label, sorted(known), n=5, cutoff=0.4)
                raise FairbenchError(
                    f"padchest: {path} has no label {label!r}",
                    f"did you mean {', '.join(near)}?" if near else "labels are spelt as in the column Labels",
                )
        silent = {*SILENT, ""}
        meaning = {
            terms: None if EXCLUDED in terms or terms <= silent else
            "present" if terms & set(self.label) else "absent"
            for terms in kinds
        }  # fmt: skip
        return findings.map(lambda terms: meaning.get(terms) if isinstance(terms, frozenset) else None)

    def _images(self, ids: pd.Series[Any], folders: pd.Series[Any]) -> pd.Series[Any]:
        """Return each image's path: in the folder that ImageDir names, or all in one; the first place counts."""
        root, files = self._root(), dict[str, str]()
        named = folders.fillna("").str.removesuffix(".0")
        for base, folder in product(BASES, [*sorted(named.unique()), ""]):
            place = "/".join(filter(None, (base, folder)))
            if place and not self.path(place).is_dir():
                continue
            for name in os.listdir(root / place):
                files.setdefault(name.lower(), f"{place}/{name}".lstrip("/"))
        names = ids.str.lower()
        if not names.isin(list(files)).any() and not self.unseen:
            places = ", ".join(sorted(named.unique())[:3])
            raise FairbenchError(
                f"padchest: none of {len(ids):,} images is there, for instance {ids.iloc[0]} (looked in {root}, "
                f"its folders {places} … and {', '.join(BASES[1:])})",
                SOURCE,
            )
        return names.map(files).fillna(named + "/" + ids)  # what is not there is counted as unreadable


def _findings(text: str) -> frozenset[str] | None:
    """Return the terms of a cell such as ['copd signs', ' pneumonia']; None where it is no such list."""
    if not re.fullmatch(r"\[.*\]", text, re.DOTALL):
        return None
    terms = [one or other for one, other in re.findall(r"""'([^']*)'|"([^"]*)\"""", text)]
    return frozenset(" ".join(term.lower().split()) for term in terms)


def _stretched(grey: NDArray[Any], display: str) -> NDArray[np.uint8]:
    """Return 8-bit grey; an image of one value is black."""
    low, high = np.percentile(grey, (0.5, 99.5)) if display == "percentile" else (grey.min(), grey.max())
    if low == high:
        low, high = grey.min(), max(int(grey.max()), int(grey.min()) + 1)
    shade = (grey.astype(np.float32) - np.float32(low)) * np.float32(255 / (float(high) - float(low)))
    return shade.clip(0, 255).round().astype(np.uint8)


# ── an example ───────────────────────────────────────────────────────────────────────────────────

_HEADER = (
    "", "ImageID", "ImageDir", "StudyDate_DICOM", "StudyID", "PatientID", "PatientBirth", "PatientSex_DICOM",
    "ViewPosition_DICOM", "Projection", "MethodProjection", "Pediatric", "Modality_DICOM", "Manufacturer_DICOM",
    "PhotometricInterpretation_DICOM", "PixelRepresentation_DICOM", "PixelAspectRatio_DICOM",
    "SpatialResolution_DICOM", "BitsStored_DICOM", "WindowCenter_DICOM", "WindowWidth_DICOM", "Rows_DICOM",
    "Columns_DICOM", "XRayTubeCurrent_DICOM", "Exposure_DICOM", "ExposureInuAs_DICOM", "ExposureTime",
    "RelativeXRayExposure_DICOM", "ReportID", "Report", "MethodLabel", "Labels", "Localizations",
    "LabelsLocalizationsBySentence", "labelCUIS", "LocalizationsCUIS",
)  # fmt: skip
_LABELS: dict[bool, tuple[str | None, ...]] = {
    True: ("['pleural effusion', ' cardiomegaly']", "['pleural effusion']", "['COPD signs', 'pleural effusion']"),
    False: ("['normal']", "['COPD signs', 'unchanged']", "['loculated pleural effusion', 'pneumonia']"),
}
# What some reports say of the findings: nothing.
_SILENT: tuple[str | None, ...] = ("['unchanged']", "['exclude']", "[]", None, "['suboptimal study', 'unchanged']")
_AGES = (31, 45, 65, 66)
# People whose birth or sex is not recorded, or cannot be: year of birth, year of the study and sex.
_ODD: tuple[tuple[float, int, str | None], ...] = (
    (np.nan, 2016, "F"), (1970.0, 2014, None), (2016.0, 2015, "M"), (1969.0, 2014, "O"),
)  # fmt: skip


def _write_example(folder: Path) -> None:
    generator = np.random.default_rng(0)
    lines = list[tuple[Any, ...]]()
    for person in range(60):
        year, effusion = 2009 + person % 9, person // 2 % 2 == 1
        born: tuple[float, int, str | None] = (year - _AGES[person // 4 % 4], year, "FM"[person % 2])
        birth, year, sex = _ODD[person] if person < len(_ODD) else born
        # With this step every split has both classes of every sex and age.
        patient = str(32588016314042952172500681022764831222 + 1808 * person)
        for study in range(1 + person % 2):
            silent = study == 1 and person % 5 == 1
            labels = _SILENT[person // 10 % 5] if silent else _LABELS[effusion][(person + study) % 3]
            number = str(14968019924555248865694512726537711769 + 104729 * person + study)
            for view in ("PA", "L") if person % 3 else ("AP_horizontal", "AP"):
                name = f"{number}_{''.join(generator.choice(list('abcdefghijkmnpqr'), 6))}.png"
                photometric = "MONOCHROME1" if person % 7 == 0 else "MONOCHROME2"
                grey = generator.integers(0, 2600, (22, 18)) + 1400 * effusion  # 12 bits of 16
                grey = np.where(photometric == "MONOCHROME1", 4095 - grey, grey).astype(np.uint16)
                place = folder / str(person % 3)
                place.mkdir(parents=True, exist_ok=True)
                Image.fromarray(grey).save(place / name)
                dicom = ("CR", "PhilipsMedicalSystems", photometric, 0, "['1', '1']", 0.2, 12, 2047.0, 4095.0)
                lines.append((
                    len(lines), name, person % 3, f"{year}0622", number, patient, birth, sex, None, view,
                    "Manual review of DICOM fields", "PED" if year - birth < 18 else "No", *dicom, 22, 18, None,
                    None, None, None, 419.0, 4765777 + len(lines), "sin identific cambi signific .",
                    METHODS[person % 4 > 0], labels, "[]", "[]", "[]", "[]",
                ))  # fmt: skip
    pd.DataFrame(lines, columns=list(_HEADER)).to_csv(folder / METADATA, index=False)


@hookimpl
def fairbench_datasets() -> Iterable[type[Dataset]]:
    """Offer PadChest."""
    return [PadChest]
