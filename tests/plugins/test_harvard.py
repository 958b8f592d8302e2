"""Harvard-FairVLMed, Harvard-GF and FairVision: official layouts, four codings of the same people, and damage."""

import csv
import io
import re
import shutil
import zipfile

import builders
import numpy as np
import pandas as pd
import pytest
from builders import kit_checks, noise, sampled
from fairbench_plugins.datasets.fairvision import FairVision
from fairbench_plugins.datasets.harvard_fairvlmed import HarvardFairVLMed
from fairbench_plugins.datasets.harvard_gf import HarvardGF
from fairbench_plugins.methods.vanilla import Vanilla
from hypothesis import given
from hypothesis import strategies as st

from fairbench import FairbenchError, testing
from fairbench.data.dataset import rows
from fairbench.data.report import check
from fairbench.testing import toys

ATTRIBUTES = ("race", "gender", "ethnicity", "language", "marital-status", "age")
VARIANTS = {
    "fairvlmed": (HarvardFairVLMed, {}),
    "fairvlmed jpg": (HarvardFairVLMed, {"image_file": "jpg", "verify": "structure"}),
    "fairvlmed summary": (HarvardFairVLMed, {"note": "summary", "display": "stretch"}),
    "fairvlmed note": (HarvardFairVLMed, {"note": "note", "ages": "medfair5"}),
    "gf": (HarvardGF, {}),
    "gf header": (HarvardGF, {"verify": "structure", "ages": "fairmedfm"}),
    "fairvision": (FairVision, {}),
    "fairvision amd": (FairVision, {"disease": "amd"}),
    "fairvision stages": (FairVision, {"disease": "amd", "labels": "stages", "image_file": "jpg"}),
    "fairvision dr": (FairVision, {"disease": "dr", "verify": "decode"}),
}
# Where the example's table lies, and the folders of its splits.
HOMES = {HarvardFairVLMed: "", HarvardGF: "", FairVision: "Glaucoma"}
SUMMARIES = {
    HarvardFairVLMed: "ReadMe/data_summary.csv",
    HarvardGF: "ReadMe/data_summary.csv",
    FairVision: "Glaucoma/ReadMe/data_summary_glaucoma.csv",
}


def at(kind, root, **settings):
    return builders.opened(root, kind, **settings)


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """One untouched example of each dataset."""
    folders = {kind: tmp_path_factory.mktemp(kind.name) for kind in HOMES}
    for kind, folder in folders.items():
        kind.example(folder)
    return folders


@pytest.fixture
def copied(examples, tmp_path):
    """Make a copy of an example that may be spoilt: of FairVision, one disease."""

    def copy(kind, disease="Glaucoma"):
        place = tmp_path / kind.name
        part = disease if kind is FairVision else ""
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(examples[kind] / part, place / part)
        return place

    return copy


def summary(kind, root):
    return root / SUMMARIES[kind]


def written(kind, root):
    with summary(kind, root).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def rewrite(kind, change):
    def spoil(root):
        people = pd.read_csv(summary(kind, root), dtype=str, keep_default_na=False)
        change(people).to_csv(summary(kind, root), index=False)

    return spoil


def put(column, value, row=3):
    def change(people):
        people.loc[row, column] = value
        return people

    return change


def file_of(kind, root, number=1, split="Training"):
    digits = 4 if kind is HarvardGF else 5
    return root / HOMES[kind] / split / f"data_{number:0{digits}d}.npz"


def repack(path, **changes):
    """Write an npz file anew with some arrays changed; None takes one away."""
    with np.load(path) as archive:
        arrays = {**archive, **changes}
    np.savez_compressed(path, **{key: value for key, value in arrays.items() if value is not None})


def same(left, right):
    plain = [table.astype(object).where(table.notna(), None) for table in (left, right)]
    pd.testing.assert_frame_equal(*plain)


# ── the examples, end to end ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("check_", kit_checks(testing.DATASET_CHECKS))
@pytest.mark.parametrize("variant", sampled(VARIANTS, "fairvlmed", "gf", "fairvision"))
def test_the_example_keeps_the_contract(examples, variant, check_):
    kind, settings = VARIANTS[variant]
    check_(at(kind, examples[kind], **settings))


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_example_holds_every_split_class_and_group(examples, variant):
    kind, settings = VARIANTS[variant]
    dataset = at(kind, examples[kind], **settings)
    table = rows(dataset)
    assert dataset.warnings == []
    assert 30 <= len(table) <= 60
    assert set(table["split"]) == {"train", "val", "test"}
    assert set(table.loc[table["split"] == "test", "target"]) == set(dataset.classes)
    assert tuple(dataset.attributes) == ATTRIBUTES
    for attribute, values in dataset.attributes.items():
        assert set(table[attribute].dropna()) == set(values), attribute
    assert table[["ethnicity", "language", "marital-status"]].isna().any().all()
    assert len(dataset.words) == len(dataset.classes) == len({word[0] for word in dataset.words})
    assert dataset.prompt
    assert kind(**settings, prompt="Well?").prompt == "Well?"
    report = check(dataset)
    assert report.usable
    assert not report.unreadable
    assert dataset.published["all"] >= 3300
    assert not [caution for caution in report.cautions if "was not compared" in caution]


@pytest.mark.parametrize("kind", HOMES)
def test_an_example_is_always_the_same(examples, kind, tmp_path):
    kind.example(tmp_path)
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert files == sorted(p.relative_to(examples[kind]) for p in examples[kind].rglob("*") if p.is_file())
    for file in files:
        assert (tmp_path / file).read_bytes() == (examples[kind] / file).read_bytes(), file


@pytest.mark.parametrize("kind", HOMES)
def test_the_tables_words_are_the_people(examples, kind):
    """Read the csv by other means: only the names of splits and classes, missing words and ages may differ."""
    table = rows(at(kind, examples[kind])).set_index("id")
    people = written(kind, examples[kind])
    assert len(people) == len(table)
    splits = {"training": "train", "validation": "val", "test": "test"}
    for person in people:
        row = table.loc[person["filename"].removesuffix(".npz")]
        assert row["split"] == splits[person["use"]]
        assert row["target"] == {"no": "non-glaucoma", "yes": "glaucoma"}[person["glaucoma"]]
        for attribute in ATTRIBUTES[:5]:
            word = person[attribute.replace("-", "")]
            assert (None if pd.isna(row[attribute]) else row[attribute]) == (word if word != "unknown" else None)
        years = float(person["age"])
        assert row["age"] == ("<45" if years < 45 else "45-65" if years < 66 else ">=66")


def test_golden_people(examples):
    table = rows(at(HarvardFairVLMed, examples[HarvardFairVLMed])).set_index("id")
    assert table.loc["data_00002"].to_dict() == {
        "cluster": "data_00002", "split": "train", "image": "Training/data_00002.npz", "target": "glaucoma",
        "race": "white", "gender": "male", "ethnicity": None, "language": "other",
        "marital-status": "legally separated", "age": "<45",
    }  # fmt: skip
    assert table["split"].value_counts().to_dict() == {"train": 36, "test": 16, "val": 8}
    table = rows(at(HarvardGF, examples[HarvardGF])).set_index("id")
    assert table["race"].value_counts().to_dict() == {"asian": 15, "black": 15, "white": 15}
    table = rows(at(FairVision, examples[FairVision], disease="amd", labels="stages"))
    assert table["target"].value_counts().to_dict() == {
        "late amd": 20, "no amd": 8, "early amd": 4, "intermediate amd": 4,
    }  # fmt: skip


# ── one person, four codings ─────────────────────────────────────────────────────────────────────

WHO = pd.DataFrame(  # race, gender, ethnicity, language, marital status: the words, then the Harvard codes
    [
        ("asian", "female", "non-hispanic", "english", "married or partnered", 0, 0, 0, 0, 0),
        ("black", "male", "hispanic", "spanish", "single", 1, 1, 1, 1, 1),
        ("white", "female", None, "other", "divorced", 2, 0, -1, 2, 2),
        ("white", "male", "non-hispanic", None, "widowed", 2, 1, 0, -1, 3),
        ("asian", "male", "hispanic", "english", "legally separated", 0, 1, 1, 0, 4),
        ("black", "female", "non-hispanic", "spanish", None, 1, 0, 0, 1, -1),
    ],
    columns=[*ATTRIBUTES[:5], *(f"{name} code" for name in ATTRIBUTES[:5])],
)


@pytest.mark.parametrize(
    "coding", ["fairvlmed words", "fairvlmed codes", "gf keys", "fairvision keys", "older words"]
)
def test_four_codings_give_the_same_people(tmp_path, coding):
    kind = {"f": HarvardFairVLMed, "g": HarvardGF, "o": FairVision}[coding[0]]
    kind = FairVision if coding.startswith("fairvision") else kind
    other_keys = kind is not HarvardFairVLMed
    keys = ["race", "male" if other_keys else "gender", "hispanic" if other_keys else "ethnicity", "language"]
    folders = np.repeat(["Training", "Validation", "Test"], 2)
    for index, person in WHO.iterrows():
        path = file_of(kind, tmp_path, index + 1, folders[index])
        path.parent.mkdir(parents=True, exist_ok=True)
        codes = [np.int64(person[f"{name} code"]) for name in ATTRIBUTES[:5]]
        if coding == "older words":
            codes[0] = ("Asian", "Black or African American", "White or Caucasian")[codes[0]]
        picture = {"rnflt": np.full((4, 4), float(index))} if kind is HarvardGF else {}
        np.savez(
            path, **dict(zip([*keys, "maritalstatus"], codes, strict=True)), **picture,
            glaucoma=index % 2, age=50.5, slo_fundus=np.full((4, 4), index, np.uint8),
        )  # fmt: skip
    if kind is HarvardFairVLMed:
        people = pd.DataFrame({"filename": [f"data_{n:05d}.npz" for n in range(1, 7)], "age": "50.5"})
        people = people.assign(use=np.repeat(["training", "validation", "test"], 2), glaucoma=["no", "yes"] * 3)
        if coding == "fairvlmed words":
            words = WHO[list(ATTRIBUTES[:5])].fillna("unknown")
            people = people.join(words.rename(columns={"marital-status": "maritalstatus"}))
        people.to_csv(tmp_path / "data_summary.csv", index=False)
    table = rows(at(kind, tmp_path))
    same(table[list(ATTRIBUTES[:5])], WHO[list(ATTRIBUTES[:5])])
    assert table["target"].tolist() == ["non-glaucoma", "glaucoma"] * 3
    assert table["split"].tolist() == ["train", "train", "val", "val", "test", "test"]
    assert (table["age"] == "45-65").all()


@pytest.mark.parametrize("kind", HOMES)
def test_columns_that_the_csv_lacks_are_read_from_the_npz_files(copied, kind):
    root = copied(kind)
    before = rows(at(kind, root))
    lacking = ["race", "gender", "ethnicity", "language", "maritalstatus", "glaucoma"]
    rewrite(kind, lambda people: people.drop(columns=lacking))(root)
    same(rows(at(kind, root)), before)


@pytest.mark.parametrize("kind", HOMES)
def test_without_the_csv_folders_and_npz_files_suffice(copied, kind):
    root = copied(kind)
    before = rows(at(kind, root))
    summary(kind, root).unlink()
    dataset = at(kind, root)
    after = rows(dataset)
    same(after.drop(columns="age"), before.drop(columns="age"))
    if kind is not FairVision:
        same(after, before)
    else:
        assert "age is recorded for nobody" in dataset.warnings


def test_csv_and_npz_files_that_differ_are_a_warning(copied):
    for kind in HOMES:
        root = copied(kind)
        repack(file_of(kind, root), glaucoma=1 if written(kind, root)[0]["glaucoma"] == "no" else 0, race=-1)
        dataset = at(kind, root)
        table = rows(dataset)
        assert len(dataset.warnings) == 1
        assert "differ in 2 values (data_0" in dataset.warnings[0]
        same(table, rows(at(kind, copied(kind))))  # the csv counts


# ── layouts ──────────────────────────────────────────────────────────────────────────────────────


def as_spreadsheet(kind, separator):
    def change(root):
        people = pd.read_csv(summary(kind, root), dtype=str)
        names = {"maritalstatus": " Marital Status ", "race": "Race", "gpt4_summary": "GPT-4 summary", "use": "USE"}
        people["gender"] = people["gender"].str.upper()
        people.rename(columns=names).sample(frac=1, random_state=3).to_csv(
            summary(kind, root), index=False, sep=separator, encoding="utf-8-sig", lineterminator="\r\n"
        )

    return change


def to_root(kind):
    return lambda root: summary(kind, root).rename(root / summary(kind, root).name)


def renamed(kind, **names):
    def change(root):
        for old, new in names.items():
            (root / HOMES[kind] / old).rename(root / HOMES[kind] / f"{new} ")
            (root / HOMES[kind] / f"{new} ").rename(root / HOMES[kind] / new)

    return change


def nested(kind):
    def change(root):
        (root / HOMES[kind] / "Dataset").mkdir()
        for name in ("Training", "Validation", "Test"):
            (root / HOMES[kind] / name).rename(root / HOMES[kind] / "Dataset" / name)

    return change


LAYOUTS = {
    "commas, BOM, CRLF, other headings and order": lambda kind: as_spreadsheet(kind, ","),
    "semicolons": lambda kind: as_spreadsheet(kind, ";"),
    "tabs": lambda kind: as_spreadsheet(kind, "\t"),
    "csv at the root": to_root,
    "train, val, test": lambda kind: renamed(kind, Training="train", Validation="val", Test="test"),
    "Testing": lambda kind: renamed(kind, Test="Testing"),
    "Dataset": nested,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", sampled(HOMES))
def test_every_official_layout_gives_the_same_table(copied, kind, layout):
    root = copied(kind)
    settings = {"note": "summary"} if kind is HarvardFairVLMed else {}
    before = at(kind, root, **settings)
    expected, fingerprint = rows(before), before.fingerprint()
    LAYOUTS[layout](kind)(root)
    after = at(kind, root, **settings)
    same(rows(after).drop(columns="image"), expected.drop(columns="image"))
    assert after.fingerprint() == fingerprint
    assert after.warnings == []


def test_a_copied_folder_has_the_same_fingerprint_and_a_changed_person_another(examples, copied):
    for kind in HOMES:
        root = copied(kind)
        before = at(kind, examples[kind]).fingerprint()
        assert at(kind, root).fingerprint() == before
        rewrite(kind, put("race", {"asian": "black"}.get(written(kind, root)[3]["race"], "asian")))(root)
        assert at(kind, root).fingerprint() != before


@pytest.mark.parametrize("kind", [HarvardFairVLMed, FairVision])
def test_the_picture_is_npz_or_jpg_for_everybody(copied, kind):
    root = copied(kind)
    suffixes = {
        choice: {image[-4:] for image in rows(at(kind, root, image_file=choice))["image"]}
        for choice in ("auto", "npz", "jpg")
    }
    assert suffixes == {"auto": {".npz"}, "npz": {".npz"}, "jpg": {".jpg"}}
    file_of(kind, root).unlink()
    dataset = at(kind, root)
    assert dataset.notes[-1].startswith("picture: auto")
    assert {image[-4:] for image in rows(dataset)["image"]} == {".jpg"}
    assert dataset.notes[-1].startswith("picture: jpg")
    with pytest.raises(FairbenchError, match=r"1 of \d+ npz files are missing, for instance .*data_00001"):
        rows(at(kind, root, image_file="npz"))


def test_fairvision_photographs_may_have_their_short_name(copied):
    root = copied(FairVision)
    for path in list(root.rglob("slo_fundus_*.jpg")):
        path.rename(path.with_name(path.name.replace("slo_fundus_", "slo_")))
    assert rows(at(FairVision, root, image_file="jpg"))["image"].iloc[0] == "Glaucoma/Training/slo_00001.jpg"


# ── pictures ─────────────────────────────────────────────────────────────────────────────────────


def opened(kind, path, **arrays):
    settings = arrays.pop("settings", {})
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    (path / "data_1.npz").write_bytes(stream.getvalue())
    return np.asarray(at(kind, path, **settings).image({"image": "data_1.npz"}))


def test_an_rnfl_map_is_scaled_as_stated(tmp_path):
    microns = np.array([[-2.0, 0.0, 174.0], [350.0, 400.0, -9.0]])
    grey = opened(HarvardGF, tmp_path, rnflt=microns)
    assert grey[..., 0].tolist() == [[0, 1, 128], [255, 255, 0]]  # 2/352·255 = 1.4, 176/352·255 = 127.5
    assert (grey == grey[..., :1]).all()
    assert opened(HarvardGF, tmp_path, rnflt=np.array([[86]], np.int16))[0, 0, 0] == 64  # 88/352·255 = 63.75


@pytest.mark.parametrize("kind", [HarvardFairVLMed, FairVision])
def test_fundus_grey_values_are_kept(tmp_path, kind):
    for dtype in (np.uint8, np.float32):
        grey = opened(kind, tmp_path, slo_fundus=np.array([[0, 40, 86]], dtype))
        assert grey[..., 1].tolist() == [[0, 40, 86]]


def test_stretching_is_linear_per_picture_and_leaves_a_flat_one(tmp_path):
    stretch = {"display": "stretch"}
    picture = opened(HarvardFairVLMed, tmp_path, slo_fundus=np.array([[6, 46, 86]], np.uint8), settings=stretch)
    assert picture[..., 2].tolist() == [[0, 128, 255]]
    flat = opened(HarvardFairVLMed, tmp_path, slo_fundus=np.full((2, 2), 9, np.uint8), settings=stretch)
    assert (flat == 9).all()


def test_npz_and_jpg_show_the_same(examples):
    root = examples[HarvardFairVLMed]
    pictures = []
    for choice in ("npz", "jpg"):
        dataset = at(HarvardFairVLMed, root, image_file=choice)
        image = dataset.image(rows(dataset).iloc[0].to_dict())
        assert image.size == (64, 83)
        pictures.append(np.asarray(image).astype(float))
    assert pictures[0].max() <= 86
    assert abs(pictures[0] - pictures[1]).mean() < 3


PICTURES = {  # array, what is said of it
    "colour": (np.zeros((4, 4, 3), np.uint8), "is no"),
    "one number": (np.uint8(3), "is no"),
    "empty": (np.zeros((0, 0), np.uint8), "is no"),
    "words": (np.array([["a"]]), "is no"),
    "objects": (np.array([[{}]], dtype=object), "Python objects"),
    "not finite": (np.array([[np.nan, 1.0]]), "is no|do not lie"),
}


@pytest.mark.parametrize("case", PICTURES)
@pytest.mark.parametrize("kind", HOMES)
def test_an_array_that_is_no_picture_is_refused(tmp_path, kind, case):
    array, says = PICTURES[case]
    with pytest.raises(FairbenchError, match=f"cannot read image .*data_1.npz: .*({says})"):
        opened(kind, tmp_path, **{"rnflt" if kind is HarvardGF else "slo_fundus": array})


@pytest.mark.parametrize("kind", [HarvardFairVLMed, FairVision])
def test_grey_values_without_a_stated_range_are_refused(tmp_path, kind):
    for value in (256.0, -1.0):
        with pytest.raises(FairbenchError, match="do not lie between 0 and 255"):
            opened(kind, tmp_path, slo_fundus=np.array([[0.0, value]]))


# ── notes ────────────────────────────────────────────────────────────────────────────────────────


def prompts(root, **settings):
    dataset = at(HarvardFairVLMed, root, **settings)
    return rows(dataset).set_index("id"), dataset


def test_the_note_is_a_task_of_its_own(examples):
    root = examples[HarvardFairVLMed]
    people = {person["filename"].removesuffix(".npz"): person for person in written(HarvardFairVLMed, root)}
    alone, dataset = prompts(root)
    assert "prompt" not in alone
    assert "image alone" in dataset.notes[0]
    fingerprints = {dataset.fingerprint()}
    for note, column in {"note": "note", "summary": "gpt4_summary"}.items():
        table, dataset = prompts(root, note=note)
        for person, prompt in table["prompt"].items():
            assert prompt.endswith("\nDoes the patient have glaucoma?")
            assert f": {people[person][column]}\n" in prompt
        same(table[alone.columns], alone)
        assert "leaks the answer" in dataset.notes[0]
        fingerprints.add(dataset.fingerprint())
    assert len(fingerprints) == 3


def test_texts_are_found_in_the_npz_files_and_in_the_file_of_summaries(copied):
    root = copied(HarvardFairVLMed)
    expected = {note: prompts(root, note=note)[0]["prompt"] for note in ("note", "summary")}
    rewrite(HarvardFairVLMed, lambda people: people.drop(columns=["note", "gpt4_summary"]))(root)
    same(prompts(root, note="summary")[0]["prompt"].to_frame(), expected["summary"].to_frame())
    table, dataset = prompts(root, note="note")
    told = table["prompt"] != dataset.prompt  # every third copy of the npz files lacks its note
    assert dataset.warnings == ["20 of 60 people have no note, only a question"]
    assert told.sum() == 40
    same(table["prompt"][told].to_frame(), expected["note"][told].to_frame())
    assert not table["prompt"].str.contains("white male|black female").any()  # note_extra names the groups


def test_without_any_text_the_task_is_refused(copied):
    root = copied(HarvardFairVLMed)
    rewrite(HarvardFairVLMed, lambda people: people.drop(columns=["note", "gpt4_summary"]))(root)
    notes = root / "ReadMe/gpt-4_summarized_notes.csv"
    notes.write_text("filename,summary\ndata_00001.npz,text\n")
    with pytest.raises(FairbenchError, match=r"gpt-4_summarized_notes.csv has fewer than three columns"):
        prompts(root, note="summary")
    notes.unlink()
    with pytest.raises(FairbenchError, match=r"no column gpt4_summary .* is not there"):
        prompts(root, note="summary")
    for path in root.rglob("*.npz"):
        repack(path, note=None, note_extra=None)
    with pytest.raises(FairbenchError, match=r"neither data_summary.csv nor any npz file has `note`"):
        prompts(root, note="note")
    assert len(rows(at(HarvardFairVLMed, root))) == 60


@pytest.mark.parametrize("note", ["none", "summary"])
def test_a_model_trains_on_the_example(examples, note):
    class Rooted(HarvardFairVLMed):
        folder = None

        def __init__(self, **settings):
            super().__init__(**settings)
            self.root = examples[HarvardFairVLMed]

    outcome = toys.train(
        Vanilla, dataset=Rooted, dataset_settings={"note": note, "verify": "structure"}, attributes=("race",)
    )
    assert outcome.record.error is None
    assert outcome.predictions["split"].value_counts().to_dict() == {"test": 16, "val": 8}
    assert set(outcome.predictions["gender"]) == {"female", "male"}


# ── labels and ages ──────────────────────────────────────────────────────────────────────────────

STAGES = {  # as FairVision's description has them: 0 none, 1 early, 2 intermediate, 3 late
    "not.in.icd.table": 0, "no.amd.diagnosis": 0, "early.dry": 1, "intermediate.dry": 2,
    "advanced.atrophic.dry.with.subfoveal.involvement": 3, "advanced.atrophic.dry.without.subfoveal.involvement": 3,
    "wet.amd.active.choroidal.neovascularization": 3, "wet.amd.inactive.choroidal.neovascularization": 3,
    "wet.amd.inactive.scar": 3,
}  # fmt: skip
THREATS = {
    "not.in.icd.table": 0, "no.dr.diagnosis": 0, "mild.npdr": 0, "moderate.npdr": 0, "severe.npdr": 1, "pdr": 1,
}  # fmt: skip


@pytest.mark.parametrize("labels", ["binary", "stages"])
def test_conditions_of_amd_become_classes(copied, labels):
    root = copied(FairVision, "AMD")
    before = rows(at(FairVision, root, disease="amd", labels=labels))
    (root / "AMD/ReadMe/data_summary_amd.csv").unlink()
    repack(root / "AMD/Training/data_00001.npz", dr_subtype="pdr")  # an eye can have both; it is not asked
    after = rows(at(FairVision, root, disease="amd", labels=labels)).set_index("image")["target"]
    assert after.tolist() == before["target"].tolist()
    classes = (
        ("no amd", "early amd", "intermediate amd", "late amd") if labels == "stages" else ("no amd", *["amd"] * 3)
    )
    seen = set()
    for image, target in after.items():
        with np.load(root / image) as archive:
            condition = archive["amd_condition"].item()
        assert target == classes[STAGES[condition]]
        seen.add(condition)
    assert seen == set(STAGES)


def test_conditions_of_dr_become_classes(copied):
    root = copied(FairVision, "DR")
    (root / "DR/ReadMe/data_summary_dr.csv").unlink()
    seen = set()
    for _, row in rows(at(FairVision, root, disease="dr")).iterrows():
        with np.load(root / row["image"]) as archive:
            condition = archive["dr_subtype"].item()
        assert row["target"] == ("no vision-threatening dr", "vision-threatening dr")[THREATS[condition]]
        seen.add(condition)
    assert seen == set(THREATS)


def test_only_amd_has_stages():
    for disease in ("glaucoma", "dr"):
        with pytest.raises(FairbenchError, match=f"labels = 'stages' is not there for {disease}"):
            FairVision(disease=disease, labels="stages")


EDGES = {"fairllava": (45, 66), "fairmedfm": (60,), "medfair5": (20, 40, 60, 80)}


NEAR = [100 * edge + step for edges in EDGES.values() for edge in edges for step in (-1, 0, 1)]


@given(st.sampled_from(list(HOMES)), st.sampled_from(list(EDGES)), st.sampled_from(NEAR) | st.integers(0, 12_000))
def test_ages_are_binned_by_completed_years(kind, ages, hundredths):
    dataset = kind(ages=ages)
    place = sum(hundredths // 100 >= edge for edge in EDGES[ages])
    for cell in (f"{hundredths / 100:.2f}", hundredths / 100):
        assert dataset.codebook["age"].meaning(cell) == dataset.attributes["age"][place]


@given(
    st.sampled_from(list(HOMES)), st.sampled_from(ATTRIBUTES), st.text(max_size=12) | st.integers() | st.floats()
)
def test_whatever_a_cell_holds_becomes_a_declared_value_or_an_error(kind, attribute, cell):
    dataset = kind()
    try:
        value = dataset.codebook[attribute].meaning(cell)
    except KeyError:
        return
    assert value is None or value in dataset.attributes[attribute]


# ── what is missing or wrong ─────────────────────────────────────────────────────────────────────


def copy_file(kind):
    def spoil(root):
        path = file_of(kind, root)
        shutil.copy(path, path.parents[1] / "Test" / path.name)

    return spoil


def move_file(kind):
    def spoil(root):
        path = file_of(kind, root)
        path.rename(path.parents[1] / "Test" / path.name)

    return spoil


def encoded(kind):
    return lambda root: summary(kind, root).write_bytes(b"\xff\xfe\0")


def with_separator(kind, separator):
    def spoil(root):
        pd.read_csv(summary(kind, root), dtype=str).to_csv(summary(kind, root), index=False, sep=separator)

    return spoil


def twice(people):
    return pd.concat([people, people.iloc[[3]]])


def everywhere(column, value):
    return lambda people: people.assign(**{column: value})


BROKEN = {  # what is done to any of the three, and what is said
    "no folder": (lambda kind: shutil.rmtree, "is not a folder"),
    "empty csv": (lambda kind: lambda root: summary(kind, root).write_text(""), "data_summary.*csv is empty"),
    "not text": (encoded, "data_summary.*csv is not written in utf-16"),
    "other delimiter": (lambda kind: with_separator(kind, ":"), "lacks the columns filename, use|its header 1"),
    "no split column": (lambda kind: rewrite(kind, lambda p: p.drop(columns="use")), "lacks the columns use; it"),
    "no file column": (lambda kind: rewrite(kind, lambda p: p.drop(columns="filename")), "the columns filename;"),
    "column twice": (lambda kind: rewrite(kind, lambda p: p.assign(Race="white")), "names a column twice"),
    "no known split": (lambda kind: rewrite(kind, everywhere("use", "fold")), r"unknown split \('fold'\)"),
    "no known label": (
        lambda kind: rewrite(kind, everywhere("glaucoma", "maybe")),
        r"unknown target \('maybe'\)",
    ),
    "no label": (lambda kind: rewrite(kind, everywhere("glaucoma", "")), "nobody in .* has a target"),
    "no known race": (lambda kind: rewrite(kind, everywhere("race", "2")), r"csv: .* unknown race \('2'\)"),
    "repeated person": (lambda kind: rewrite(kind, twice), "1 ids stand in several rows, for instance 'data_0+4'"),
    "another folder": (lambda kind: rewrite(kind, put("filename", "../../etc/passwd")), r"(\.\./|missing)"),
    "missing file": (lambda kind: lambda root: [p.unlink() for p in root.rglob("*_00*1.*")], "files .*are missing"),
    "file twice": (copy_file, "data_0+1.npz and .*data_0+1.npz are both in"),
    "file in another split": (move_file, "Test/data_0+1.npz"),
    "attribute nowhere": (
        lambda kind: lambda root: (
            rewrite(kind, lambda p: p.drop(columns="race"))(root),
            [repack(path, race=None) for path in root.rglob("*.npz")],
        ),
        "neither .*data_summary.*csv nor any npz file has `race`",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("kind", HOMES)
def test_what_is_broken_is_named(copied, kind, case):
    root = copied(kind)
    spoil, message = BROKEN[case]
    spoil(kind)(root)
    with pytest.raises(FairbenchError, match=message) as error:
        rows(at(kind, root))
    if case in ("no folder", "empty csv", "missing file"):
        assert "huggingface.co/datasets/harvardairobotics/" in error.value.hint
        assert f"--data {kind.name}=" in error.value.hint
    elif case == "other delimiter":
        assert "commas, semicolons, tabs or |" in error.value.hint
    elif case.startswith("no known"):
        assert error.value.hint.startswith("expected ")


UNKNOWN = {  # what is written of one person, and what is said; the row stays unless it says otherwise
    "split": ("use", "holdout", "1 of {n} rows have an unknown split ('holdout'): unrecorded"),
    "target": ("glaucoma", "maybe", "1 of {n} rows have an unknown target ('maybe'): unrecorded"),
    "race": ("race", "martian", "1 of {n} rows have an unknown race ('martian'): unrecorded"),
    "code": ("race", "2", "1 of {n} rows have an unknown race ('2'): unrecorded"),
    "age": ("age", "old", "1 of {n} rows have an unknown age ('old'): unrecorded"),
    "old age": ("age", "650", "1 of {n} rows have an unknown age ('650'): unrecorded"),
}


@pytest.mark.parametrize("case", UNKNOWN)
@pytest.mark.parametrize("kind", sampled(HOMES))
def test_an_unknown_word_is_unrecorded_and_counted_and_ends_nothing(copied, kind, case):
    root = copied(kind)
    column, word, said = UNKNOWN[case]
    before = rows(at(kind, root)).set_index("id")
    rewrite(kind, put(column, word))(root)
    dataset = at(kind, root)
    after = rows(dataset).set_index("id")
    person, total = before.index[3], len(before)
    assert dataset.warnings[0] == said.format(n=total)
    attribute = case.replace("code", "race").replace("old ", "")
    if case == "target":
        same(after, before.drop(index=person))
        assert dataset.warnings[1] == f"1 of {total} rows have no target and were left out"
    elif case == "split":  # the folder says it too
        same(after, before)
    else:
        assert pd.isna(after.loc[person, attribute])
        same(after.drop(columns=attribute), before.drop(columns=attribute))


@pytest.mark.parametrize("code", [7, np.array([1, 2])], ids=["unknown", "several"])
@pytest.mark.parametrize("kind", HOMES)
def test_an_unknown_code_is_unrecorded_and_counted(copied, kind, code):
    root = copied(kind)
    rewrite(kind, lambda p: p.drop(columns="race"))(root)
    repack(file_of(kind, root), race=code)
    dataset = at(kind, root)
    assert rows(dataset)["race"].isna().tolist() == [True] + [False] * (len(rows(dataset)) - 1)
    assert re.search(r"^1 of \d+ rows have an unknown race \((7|'array.*)\): unrecorded$", dataset.warnings[0])


def test_the_published_counts_of_amd_are_laid_beside_those_found(copied):
    published = FairVision(disease="amd").published
    assert published == {
        "all": 10_000, "train": 6_000, "val": 1_000, "test": 3_000, "train amd": 2_140, "val amd": 360,
        "test amd": 1_069, "race=asian": 706, "race=black": 1_171, "race=white": 8_123,
    }  # fmt: skip
    assert sum(published[f"race={race}"] for race in ("asian", "black", "white")) == published["all"]
    report = check(at(FairVision, copied(FairVision, "AMD"), disease="amd"))
    assert set(report.published) == set(published), "each key means something"
    stages = check(at(FairVision, copied(FairVision, "AMD"), disease="amd", labels="stages"))
    assert not [caution for caution in stages.cautions if "was not compared" in caution]


def test_the_table_of_amd_as_it_is_published(shared, tmp_path):
    home = tmp_path / "AMD"
    for number, split in enumerate(("Training", "Validation", "Test"), 1):
        (home / split).mkdir(parents=True)
        noise(number).save(home / split / f"slo_fundus_{number:05d}.jpg")
    shutil.copy(shared / "cases/tables/data_summary_amd.csv", home)
    dataset = at(FairVision, tmp_path, disease="amd")
    table = rows(dataset).set_index("id")
    assert table["language"].tolist() == ["english", "other", "spanish"]
    assert table["target"].tolist() == ["amd", "no amd", "amd"]
    assert dataset.warnings == []
    path = home / "data_summary_amd.csv"
    path.write_text(path.read_text().replace("spanish", "klingon"))
    dataset = at(FairVision, tmp_path, disease="amd")
    assert pd.isna(rows(dataset).set_index("id").loc["data_00003", "language"])
    assert dataset.warnings == ["1 of 3 rows have an unknown language ('klingon'): unrecorded"]


def test_published_spellings_of_every_disease_are_known(copied):
    for disease in ("Glaucoma", "AMD", "DR"):
        root = copied(FairVision, disease)
        path = root / f"{disease}/ReadMe/data_summary_{disease.lower()}.csv"
        people = pd.read_csv(path, dtype=str, keep_default_na=False)
        before = rows(at(FairVision, root, disease=disease.lower()))
        people = people.replace({"language": {"other": "other languages"}, "use": {"test": "testing"}})
        people.to_csv(path, index=False)
        dataset = at(FairVision, root, disease=disease.lower())
        same(rows(dataset), before)
        assert dataset.warnings == []


def test_folders_that_hold_nothing_are_named(copied, tmp_path):
    root = copied(FairVision)
    with pytest.raises(FairbenchError, match=r"has no folder for amd \(it holds Glaucoma\)"):
        rows(at(FairVision, root, disease="amd"))
    (root / "AMD").mkdir()
    with pytest.raises(FairbenchError, match=r"has neither data_summary_amd.csv nor npz files"):
        rows(at(FairVision, root, disease="amd"))
    (tmp_path / "gf").mkdir()
    (tmp_path / "gf/notes.txt").touch()
    with pytest.raises(
        FairbenchError, match=r"neither data_summary.csv nor npz files in .* \(it holds notes.txt\)"
    ):
        rows(at(HarvardGF, tmp_path / "gf"))


@pytest.mark.parametrize("kind", HOMES)
def test_an_attribute_recorded_for_nobody_is_a_warning(copied, kind):
    root = copied(kind)
    rewrite(kind, everywhere("ethnicity", "unknown"))(root)
    for path in root.rglob("*.npz"):
        repack(path, **({"ethnicity": -1} if kind is HarvardFairVLMed else {"hispanic": -1}))
    dataset = at(kind, root)
    rows(dataset)
    assert dataset.warnings == ["ethnicity is recorded for nobody"]


def truncated(path):
    path.write_bytes(path.read_bytes()[:-200])


def pickled(path):
    key = "rnflt" if "rnflt" in np.load(path) else "slo_fundus"
    repack(path, **{key: np.array([{"a": 1}], dtype=object)})


def without_picture(path):
    repack(path, rnflt=None, slo_fundus=None)


def bomb(path):
    """Claim an array of 10^10 values in a few bytes."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (100_000, 100_000)}
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("slo_fundus.npy", header.getvalue())
        archive.writestr("rnflt.npy", header.getvalue())


DAMAGE = {  # what is done to one file, and whether its first bytes tell
    "truncated": (truncated, True),
    "empty": (lambda path: path.write_bytes(b""), True),
    "no picture": (without_picture, True),
    "pickled": (pickled, False),
    "bomb": (bomb, False),
}


SEEN = [
    (case, verify)
    for case, (_, early) in DAMAGE.items()
    for verify in ("decode", "structure")
    if early or verify == "decode"
]


@pytest.mark.parametrize(("case", "verify"), SEEN)
@pytest.mark.parametrize("kind", sampled(HOMES))
def test_a_damaged_npz_file_is_left_out_or_stops_the_run(copied, kind, case, verify):
    damage, _ = DAMAGE[case]
    root = copied(kind)
    before = rows(at(kind, root)).set_index("id")
    path = file_of(kind, root)
    damage(path)
    settings = {"verify": verify, **({} if kind is HarvardGF else {"image_file": "npz"})}
    with pytest.raises(FairbenchError, match=r"1 of .* images cannot be read .*: more than the 1.00%"):
        rows(at(kind, root, **settings))
    dataset = at(kind, root, unreadable_share=0.1, **settings)
    after = rows(dataset).set_index("id")
    same(after, before.drop(index=path.stem))
    assert len(dataset.warnings) == 1
    assert path.name in dataset.warnings[0]


@pytest.mark.parametrize("verify", [{}, {"verify": "decode"}, {"verify": "structure"}])
def test_a_jpg_that_is_cut_short_is_named_before_training(copied, verify):
    for kind in (HarvardFairVLMed, FairVision):
        root = copied(kind)
        path = file_of(kind, root).with_name("slo_fundus_00001.jpg")
        path.write_bytes(path.read_bytes()[:-60])
        report = check(at(kind, root, image_file="jpg", **verify))
        assert [name for name in report.unreadable if name.endswith("slo_fundus_00001.jpg")]
        assert not report.usable


def test_jpgs_do_without_npz_files_and_say_what_is_then_unrecorded(copied):
    for kind in (HarvardFairVLMed, FairVision):
        root = copied(kind)
        rewrite(kind, lambda people: people.drop(columns="race"))(root)
        truncated(file_of(kind, root))
        dataset = at(kind, root, image_file="jpg")
        table = rows(dataset)
        assert table["race"].isna().tolist() == [True] + [False] * (len(table) - 1)
        assert len(dataset.warnings) == 1
        assert "unrecorded" in dataset.warnings[0]


def test_the_examples_pictures_show_the_label(examples):
    """A training on made-up people can learn something."""
    for kind in HOMES:
        dataset = at(kind, examples[kind])
        table = rows(dataset)
        light = table.apply(lambda row, data=dataset: np.asarray(data.image(row.to_dict())).mean(), axis=1)
        groups = [light[table["target"] == name] for name in dataset.classes]
        assert groups[0].max() < groups[1].min() or groups[1].max() < groups[0].min()
