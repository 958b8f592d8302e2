"""MIMIC-CXR and PadChest as they come: people worked by hand, label rules, layouts, pixels, and what is broken."""

import gzip
import hashlib
import io
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from builders import kit_checks, opened, sampled
from fairbench_plugins.datasets import mimic_cxr, padchest
from fairbench_plugins.datasets.mimic_cxr import LABELS, MimicCXR, MimicCXRReport
from fairbench_plugins.datasets.padchest import METADATA, PadChest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fairbench import FairbenchError, Unreadable, testing
from fairbench.data import images
from fairbench.data.dataset import rows
from fairbench.data.report import check

KINDS = (MimicCXR, MimicCXRReport, PadChest)
NOTES = "llava-rad-mimic-cxr-annotation"
CXR = "mimic-cxr-2.0.0-{}.csv.gz"
HOSP = "mimic-iv/hosp/"


@pytest.fixture(scope="session")
def examples(tmp_path_factory):
    root = tmp_path_factory.mktemp("chest")
    for kind in (MimicCXR, PadChest):
        kind.example(root / kind.name)
    return root


def copied(root, goal):
    """Copy the tables and link the images' folders, which is what many people have."""
    goal.mkdir(parents=True)
    for path in root.iterdir():
        if path.is_dir() and path.name in ("files", "0", "1", "2"):
            (goal / path.name).symlink_to(path)
        else:
            (shutil.copytree if path.is_dir() else shutil.copy)(path, goal / path.name)
    return goal


@pytest.fixture
def mimic(examples, tmp_path):
    return copied(examples / "mimic-cxr", tmp_path / "mimic")


@pytest.fixture
def pad(examples, tmp_path):
    return copied(examples / "padchest", tmp_path / "pad")


@pytest.fixture
def own(request, examples, tmp_path):
    """A copy whose images may be changed."""
    return shutil.copytree(examples / request.param, tmp_path / "own")


OF_MIMIC = pytest.mark.parametrize("own", ["mimic-cxr"], indirect=True)
OF_PAD = pytest.mark.parametrize("own", ["padchest"], indirect=True)


def at(root, kind=MimicCXR, **settings):
    return opened(root, kind, **settings)


def frame(path):
    return pd.read_csv(path, dtype=str)


def rewrite(path, change, **written):
    table = change(frame(path))
    table.to_csv(path, index=False, **written)


def bare(table):
    return table.drop(columns="image")


# ── both ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("check", kit_checks(testing.DATASET_CHECKS))
@pytest.mark.parametrize("kind", sampled(KINDS, ids=lambda kind: kind.name))
def test_examples_conform(examples, kind, check):
    check(at(examples / kind.name.removesuffix("-report"), kind))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_an_example_is_the_same_each_time_and_holds_every_group_in_every_split(tmp_path, kind):
    def hashes(folder):
        kind.example(folder)
        return {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in folder.rglob("*")
            if path.is_file()
        }

    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")
    dataset = at(tmp_path / "a", kind)
    table = rows(dataset)
    for attribute, values in dataset.attributes.items():
        for keys in [["split", attribute], *([["split", "target", attribute]] if dataset.classes else [])]:
            cells = table.groupby(keys).size()
            assert len(cells) == 3 * max(1, len(dataset.classes) if len(keys) == 3 else 1) * len(values), keys


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_order_of_lines_says_nothing(examples, tmp_path, kind):
    root = examples / kind.name.removesuffix("-report")
    mixed = copied(root, tmp_path / "mixed")
    for path in [*mixed.rglob("*.csv"), *mixed.rglob("*.csv.gz")]:
        rewrite(path, lambda table: table.sample(frac=1, random_state=5))
    for path in mixed.rglob("*.json"):
        path.write_text(json.dumps(json.loads(path.read_text())[::-1]))
    before, after = at(root, kind), at(mixed, kind)
    pd.testing.assert_frame_equal(rows(after), rows(before))
    assert after.fingerprint() == before.fingerprint()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_tables_that_other_programs_have_saved_read_the_same(examples, tmp_path, kind):
    root = examples / kind.name.removesuffix("-report")
    before = rows(at(root, kind))
    styles = {
        "plain": {"lineterminator": "\r\n", "encoding": "utf-8-sig", "sep": ";"},
        "packed": {"compression": "gzip", "sep": "\t"},
    }
    for style, written in styles.items():
        other = copied(root, tmp_path / style)
        for path in [*other.rglob("*.csv"), *other.rglob("*.csv.gz")]:
            table = frame(path).rename(columns=lambda name: f" {name.upper()} ")
            path.unlink()
            goal = path.with_name(path.name.removesuffix(".gz") + ("" if style == "plain" else ".gz"))
            table.to_csv(goal, index=False, **written)
        pd.testing.assert_frame_equal(rows(at(other, kind)), before)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_reader_of_results_is_told_the_rules(kind):
    told = " ".join((*kind().notes, kind.licence, kind.publishable))
    assert "0-44, 45-65, >=66" in told
    assert "split" in told
    assert "aggregate results only" in told
    with pytest.raises(FairbenchError, match="is not a folder") as error:
        rows(kind())
    assert f"--data {kind.name}=" in error.value.hint
    assert "agreement" in error.value.hint


@pytest.mark.parametrize("module", [mimic_cxr, padchest])
@pytest.mark.parametrize(
    ("ages", "expected"),
    [
        ("fairllava", {0: "0-44", 44: "0-44", 45: "45-65", 65: "45-65", 66: ">=66", 120: ">=66"}),
        ("decades", {39: "<40", 40: "40-59", 59: "40-59", 60: "60-79", 79: "60-79", 80: ">=80"}),
    ],
)
def test_age_bins_are_exact_at_their_edges(module, ages, expected):
    bins = module.AGES[ages]
    assert {age: bins.name(age) for age in expected} == expected


# ── MIMIC-CXR: people ────────────────────────────────────────────────────────────────────────────

NOBODY = {"sex": np.nan, "age": np.nan, "race": np.nan}
# Worked by hand from the example's people; the ages in the order of the studies.
PEOPLE = {
    "10000032": {"sex": "female", "age": ["45-65"], "mode": "other", "first": "white"},  # 52 + 2176 − 2180 = 48
    "10000764": {
        "sex": "male",
        "age": [">=66"] * 2,
        "mode": "white",
        "first": "white",
    },  # 91 stands for 90 and more
    "10000898": {"sex": "female", "age": [">=66"], "mode": "black", "first": None},  # unknown, then black
    "10000935": {"sex": "male", "age": ["0-44", "45-65"], "mode": "hispanic", "first": "hispanic"},  # 44, then 45
    "10000980": {"sex": "male", "age": ["45-65", ">=66"], "mode": "asian", "first": "asian"},  # a tie: the earlier
    "10001038": {"sex": None, "age": [None], "mode": None, "first": None},  # not in MIMIC-IV
    "10001122": {"sex": "female", "age": ["0-44"], "mode": None, "first": None},  # never admitted
    "10001176": {"sex": "female", "age": ["45-65"], "mode": None, "first": None},  # unable to obtain, declined
}


def of(table, subject, column):
    return [None if pd.isna(cell) else cell for cell in table[table["cluster"] == subject][column]]


@pytest.mark.parametrize("rule", ["mode", "first"])
@pytest.mark.parametrize("subject", PEOPLE)
def test_people_worked_by_hand(examples, subject, rule):
    dataset = at(examples / "mimic-cxr", uncertain="negative", race_rule=rule)
    table = rows(dataset).assign(study=lambda t: t["image"].str.split("/").str[3]).sort_values("study")
    expected = PEOPLE[subject]
    assert of(table, subject, "age") == expected["age"]
    assert set(of(table, subject, "sex")) == {expected["sex"]}
    assert set(of(table, subject, "race")) == {expected[rule]}
    assert dataset.warnings == ["1 of 50 patients are not in MIMIC-IV: sex, age and race are unrecorded"]


def test_the_age_may_be_fairllavas_which_forgets_when_the_study_was(examples):
    table = rows(at(examples / "mimic-cxr", uncertain="negative", age_at="anchor"))
    assert of(table, "10000935", "age") == ["0-44", "0-44"]
    assert of(table, "10000980", "age") == ["45-65", "45-65"]


WRITTEN = {
    "white": "WHITE|WHITE - BRAZILIAN|WHITE - EASTERN EUROPEAN|WHITE - OTHER EUROPEAN|WHITE - RUSSIAN|PORTUGUESE",
    "black": "BLACK/AFRICAN|BLACK/AFRICAN AMERICAN|BLACK/CAPE VERDEAN|BLACK/CARIBBEAN ISLAND",
    "asian": "ASIAN|ASIAN - ASIAN INDIAN|ASIAN - CHINESE|ASIAN - KOREAN|ASIAN - SOUTH EAST ASIAN",
    "hispanic": "HISPANIC OR LATINO|HISPANIC/LATINO|HISPANIC/LATINO - CENTRAL AMERICAN|HISPANIC/LATINO - COLUMBIAN|"
    "HISPANIC/LATINO - CUBAN|HISPANIC/LATINO - MEXICAN|HISPANIC/LATINO - PUERTO RICAN|SOUTH AMERICAN",
    "american-indian": "AMERICAN INDIAN/ALASKA NATIVE",
    "pacific-islander": "NATIVE HAWAIIAN OR OTHER PACIFIC ISLANDER",
    "other": "OTHER|MULTIPLE RACE/ETHNICITY",
    None: "UNKNOWN|UNABLE TO OBTAIN|PATIENT DECLINED TO ANSWER",
}


@pytest.mark.parametrize("group", WRITTEN)
def test_what_mimic_iv_writes_of_race(mimic, group):
    texts = WRITTEN[group].split("|")
    rewrite(mimic / HOSP / "admissions.csv", lambda t: t.assign(race=(texts * len(t))[: len(t)]))
    dataset = at(mimic)
    assert {None if pd.isna(cell) else cell for cell in rows(dataset)["race"]} == {group, None}
    assert not any("unknown race" in warning for warning in dataset.warnings)
    assert {mimic_cxr._group(text.lower()) for text in texts} == {group}


def test_what_nobody_has_written_before_is_unrecorded_and_said(mimic):
    rewrite(mimic / HOSP / "admissions.csv", lambda t: t.assign(race=t["race"].replace("WHITE", "MARTIAN")))
    rewrite(mimic / HOSP / "patients.csv.gz", lambda t: t.assign(gender=t["gender"].replace("M", "X")))
    dataset = at(mimic)
    table = rows(dataset)
    assert "male" not in set(table["sex"])
    assert any("unknown race, such as 'MARTIAN' (admissions.csv): unrecorded" in w for w in dataset.warnings)
    assert any("unknown gender, such as 'X' (patients.csv.gz): unrecorded" in w for w in dataset.warnings)


def test_impossible_ages_are_unrecorded_and_counted(mimic):
    rewrite(mimic / HOSP / "patients.csv.gz", lambda t: t.assign(anchor_year="2500"))
    dataset = at(mimic)
    assert rows(dataset)["age"].isna().all()
    assert any("ages at the study are below 0 or above 120" in warning for warning in dataset.warnings)


def moved(goal, rename=None):
    def change(root):
        shutil.move(root / "mimic-iv", root.parent / "elsewhere")
        (root / goal).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(root.parent / "elsewhere/hosp", root / goal)
        if rename:
            rewrite(root / goal / "admissions.csv", lambda t: t.rename(columns=rename))

    return change


PLACES = {
    "in the folder itself": (moved("hosp"), ""),
    "under its other name": (moved("mimiciv/hosp"), ""),
    "version 1.0": (moved("mimic-iv/core", {"race": "ethnicity"}), ""),
    "beside, relative": (moved("../iv/hosp"), "../iv"),
    "the module itself": (moved("../iv/hosp"), "../iv/hosp"),
    "absolute": (moved("../iv/hosp"), "{}/iv"),
}


@pytest.mark.parametrize("place", PLACES)
def test_mimic_iv_is_found_where_it_lies(examples, mimic, place):
    change, setting = PLACES[place]
    change(mimic)
    table = rows(at(mimic, mimic_iv=setting.format(mimic.parent)))
    pd.testing.assert_frame_equal(table, rows(at(examples / "mimic-cxr")))


# ── MIMIC-CXR: labels, views, files ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize("uncertain", ["drop", "negative", "positive"])
@pytest.mark.parametrize("blank", ["negative", "drop"])
def test_uncertain_and_blank_labels_follow_their_rules(examples, uncertain, blank):
    root = examples / "mimic-cxr"
    word = {"negative": "absent", "positive": "present", "drop": None}
    expected = {}
    for line in frame(root / CXR.format("chexpert")).to_dict("records"):
        cell = line["Pleural Effusion"]
        meaning = {"1.0": "present", "0.0": "absent", "-1.0": word[uncertain]}
        expected[f"s{line['study_id']}"] = word[blank] if pd.isna(cell) else meaning[cell]
    assert {*map(str, frame(root / CXR.format("chexpert"))["Pleural Effusion"].unique())} == {
        "1.0", "0.0", "-1.0", "nan",
    }  # fmt: skip
    table = rows(at(root, uncertain=uncertain, blank=blank))
    study = table["image"].str.split("/").str[3]
    assert table["target"].tolist() == [expected[one] for one in study]
    assert set(study) == {one for one, target in expected.items() if target}


def test_each_label_asks_its_own_question_and_negbios_labels_are_read(mimic):
    assert len({MimicCXR(label=label).prompt for label in LABELS}) == len(LABELS) == 14
    assert MimicCXR(label="Edema", prompt="Well?").prompt == "Well?"
    rewrite(mimic / CXR.format("negbio"), lambda t: t.assign(Edema="1.0"))
    assert set(rows(at(mimic, label="Edema", labeller="negbio"))["target"]) == {"present"}
    assert set(rows(at(mimic, label="Edema"))["target"]) == {"absent"}
    with pytest.raises(FairbenchError, match=r"mimic-cxr\.label = 'Oedema' is not a choice"):
        MimicCXR(label="Oedema")


def test_views_and_splits_are_the_official_ones(examples):
    root = examples / "mimic-cxr"
    meta = frame(root / CXR.format("metadata")).merge(frame(root / CXR.format("split")), on="dicom_id")
    meta = meta.set_index("dicom_id")
    for views in ("AP,PA", "LATERAL", "PA"):
        table = rows(at(root, views=views, uncertain="positive"))
        assert set(table["id"]) == set(meta.index[meta["ViewPosition"].isin(views.split(","))])
        split = meta["split"].replace("validate", "val")
        assert table["split"].tolist() == split[table["id"]].tolist()
    with pytest.raises(FairbenchError, match="no image with the view LL") as error:
        rows(at(root, views="AP,LL"))
    assert error.value.hint == "choose among AP, LATERAL, PA"


@OF_MIMIC
def test_a_tree_of_dicom_files_is_known_by_their_suffix(own):
    for path in own.rglob("*.jpg"):
        path.rename(path.with_suffix(".dcm"))
    assert rows(at(own))["image"].str.endswith(".dcm").all()


def test_images_without_split_or_label_are_left_out_and_said(mimic):
    whole = rows(at(mimic, uncertain="negative"))
    rewrite(mimic / CXR.format("split"), lambda t: t[t["dicom_id"] != whole["id"][0]])
    study = whole["image"].str.split("/").str[3].str[1:]
    rewrite(mimic / CXR.format("chexpert"), lambda t: t[t["study_id"] != study[1]])
    dataset = at(mimic, uncertain="negative")
    assert list(rows(dataset)["id"]) == list(whole["id"][2:])
    lost = f"1 of {len(whole)} images have no split in mimic-cxr-2.0.0-split.csv.gz and were left out"
    unlabelled = f"1 of {len(whole) - 1} images have no row in mimic-cxr-2.0.0-chexpert.csv.gz and were left out"
    assert {lost, unlabelled} <= set(dataset.warnings)


def test_a_table_that_comes_or_goes_is_noticed(mimic):
    dataset = at(mimic)
    before = rows(dataset)
    rewrite(mimic / HOSP / "admissions.csv", lambda t: t.assign(race="ASIAN"))
    assert set(rows(dataset)["race"].dropna()) == {"asian"}
    (mimic / HOSP / "patients.csv.gz").unlink()
    with pytest.raises(FairbenchError, match=r"no patients\.csv"):
        rows(dataset)
    assert len(before)


# ── MIMIC-CXR: findings ──────────────────────────────────────────────────────────────────────────


def test_prompts_give_the_indication_where_there_is_one(examples):
    table = rows(at(examples / "mimic-cxr", MimicCXRReport))
    asked = "Provide a description of the findings in the radiology image"
    told = f"{asked} given the following indication: ___ year old woman with dyspnea // eval for effusion"
    assert set(table["prompt"]) == {told, f"{asked}."}
    reasons = {}
    for path in (examples / "mimic-cxr" / NOTES).glob("*.json"):
        for entry in json.loads(path.read_text()):
            reasons[f"{entry['image'][-48:-4]}-{entry['generate_method']}"] = entry["reason"]
    for _, row in table.iterrows():
        given = reasons[row["id"]]
        assert (row["prompt"] == told) == (isinstance(given, str) and bool(given.strip()))
    assert {type(reason) for reason in reasons.values()} == {str, type(None), float}  # text, null, NaN
    without = rows(at(examples / "mimic-cxr", MimicCXRReport, indication=False))
    assert set(without["prompt"]) == {f"{asked}."}


@pytest.mark.parametrize("extraction", ["both", "rule-based", "gpt4"])
def test_only_training_sees_texts_that_gpt4_has_rewritten(examples, extraction):
    table = rows(at(examples / "mimic-cxr", MimicCXRReport, extraction=extraction))
    kinds = table["id"].str.extract(r"^[0-9a-f]{8}(?:-[0-9a-f]{8}){4}-(.*)$")[0]
    trained = {"both": {"rule-based", "gpt4"}}.get(extraction, {extraction})
    for split, part in kinds.groupby(table["split"]):
        assert set(part) == (trained if split == "train" else {"rule-based"})
    assert (table["reference"].str.endswith("Rephrased.") == (kinds == "gpt4")).all()


def test_findings_are_asked_of_official_splits_only(mimic):
    dev, test = (
        mimic / NOTES / f"chat_{part}_MIMIC_CXR_all_gpt4extract_rulebased_v1.json" for part in ("dev", "test")
    )
    texts = dev.read_text(), test.read_text()
    dev.write_text(texts[1])
    with pytest.raises(
        FairbenchError, match=r"not in their official split, for instance .* of test in the file of val"
    ):
        rows(at(mimic, MimicCXRReport))


def test_texts_that_cannot_be_used_are_left_out_and_said(mimic):
    path = mimic / NOTES / "chat_test_MIMIC_CXR_all_gpt4extract_rulebased_v1.json"
    entries = json.loads(path.read_text())
    whole = rows(at(mimic, MimicCXRReport))
    entries[0]["conversations"][1]["value"] = "  "
    entries[1]["image"] = "mimic/p10/p10000032/s1/00000000.jpg"
    path.write_text(json.dumps([*entries, entries[2]]))
    dataset = at(mimic, MimicCXRReport)
    assert len(rows(dataset)) == len(whole) - 2
    for what in (
        "hold no findings",
        "name images of other views or unknown ones;",
        "repeat an image and extraction",
    ):
        assert any(warning.startswith("1 of ") and what in warning for warning in dataset.warnings), what


# ── MIMIC-CXR: what is missing or wrong ──────────────────────────────────────────────────────────


def spoilt(name, column, value, line=3):
    def change(root):
        def spoil(table):
            table.loc[line, column] = value
            return table

        rewrite(root / name, spoil)

    return change


def repeated(name):
    return lambda root: rewrite(root / name, lambda t: pd.concat([t, t.iloc[:1]]))


def without(name, column):
    return lambda root: rewrite(root / name, lambda t: t.drop(columns=column))


def cut(name):
    def change(root):
        data = (root / name).read_bytes()
        (root / name).write_bytes(data[: len(data) // 2])

    return change


META, SPLIT, CHEX = (CXR.format(kind) for kind in ("metadata", "split", "chexpert"))
TEXT = f"{NOTES}/chat_test_MIMIC_CXR_all_gpt4extract_rulebased_v1.json"
BROKEN = {
    "no metadata": (
        lambda r: (r / META).unlink(),
        r"no mimic-cxr-2\.0\.0-metadata\.csv\[\.gz\] in .* holds files,",
    ),
    "no split": (lambda r: (r / SPLIT).unlink(), r"no mimic-cxr-2\.0\.0-split\.csv"),
    "no labels": (lambda r: (r / CHEX).unlink(), r"no mimic-cxr-2\.0\.0-chexpert\.csv"),
    "no MIMIC-IV": (lambda r: shutil.rmtree(r / "mimic-iv"), r"no patients\.csv\[\.gz\] in .*mimic-iv/hosp"),
    "no admissions": (lambda r: (r / HOSP / "admissions.csv").unlink(), r"no admissions\.csv"),
    "no images": (
        lambda r: (r / "files").unlink(),
        r"none of \d+ images is there, for instance .*\.jpg or \.dcm",
    ),
    "cut-off gzip": (cut(META), "metadata.* cannot be read"),
    "no gzip": (lambda r: (r / SPLIT).write_bytes(b"\x1f\x8bnothing of the sort"), "split.* cannot be read"),
    "not text": (
        lambda r: (r / HOSP / "admissions.csv").write_bytes(b"\xff\xfe\0"),
        "admissions.* is not written in utf-16",
    ),
    "empty file": (
        lambda r: (r / HOSP / "admissions.csv").write_text(""),
        "admissions.* is empty",
    ),
    "header only": (lambda r: rewrite(r / SPLIT, lambda t: t.iloc[:0]), "split.csv.gz has no rows"),
    "no column": (without(META, "StudyDate"), "lacks the columns StudyDate; it has dicom_id, subject_id"),
    "no label column": (without(CHEX, "Pleural Effusion"), "lacks the columns Pleural Effusion; it has subject_id"),
    "no race column": (without(HOSP + "admissions.csv", "race"), "lacks the columns race; it has subject_id"),
    "wrong separator": (
        lambda r: rewrite(r / SPLIT, lambda t: t, sep=":"),
        r"lacks the columns dicom_id, split; it has dicom_id:",
    ),
    "ragged": (
        lambda r: (r / HOSP / "admissions.csv").open("a").write('"1,2,3\n') and None,
        "admissions.* line 55: unexpected end of data",
    ),
    "image twice": (repeated(META), "1 rows repeat an earlier one, for instance dicom_id"),
    "split twice": (repeated(SPLIT), "split.csv.gz: 1 rows repeat"),
    "study twice": (repeated(CHEX), "chexpert.csv.gz: 1 rows repeat an earlier one, for instance subject_id"),
    "patient twice": (repeated(HOSP + "patients.csv.gz"), "patients.csv.gz: 1 rows repeat"),
    "unknown split": (spoilt(SPLIT, "split", "dev"), "has split 'dev'"),
    "no id": (spoilt(META, "dicom_id", None), "metadata.csv.gz: 1 rows have no dicom_id"),
    "bad date": (spoilt(META, "StudyDate", "21809999"), "StudyDate '21809999' is not a date"),
    "date of a spreadsheet": (
        spoilt(META, "StudyDate", "5/6/2180"),
        "StudyDate '5/6/2180' is not written in digits",
    ),
    "no date": (spoilt(META, "StudyDate", None), "1 rows have no StudyDate"),
    "rounded id": (spoilt(META, "subject_id", "10000032.0"), "subject_id '10000032.0' is not written in digits"),
    "label out of range": (spoilt(CHEX, "Pleural Effusion", "2"), "Pleural Effusion has the value '2'"),
    "label in words": (spoilt(CHEX, "Pleural Effusion", "yes"), "Pleural Effusion has the value 'yes'"),
    "age in words": (spoilt(HOSP + "patients.csv.gz", "anchor_age", "> 89"), "anchor_age '> 89' is not written in"),
    "admission's date": (spoilt(HOSP + "admissions.csv", "admittime", "5/6/2180"), "admittime '5/6/2180'"),
    "other people": (
        lambda r: rewrite(r / HOSP / "patients.csv.gz", lambda t: t.assign(subject_id=range(len(t)))),
        "has none of the 50 patients",
    ),
    "other splits": (
        lambda r: rewrite(r / SPLIT, lambda t: t.assign(dicom_id=[f"{i:08x}" for i in range(len(t))])),
        "names no image of",
    ),
    "other studies": (
        lambda r: rewrite(r / CHEX, lambda t: t.assign(study_id=range(len(t)))),
        r"has none of the \d+ studies",
    ),
    "patient in two splits": (
        spoilt(SPLIT, "split", "test", 2),
        "1 clusters sit in more than one split, for instance '10000764'",
    ),
}
BROKEN_TEXTS = {
    "no texts": (lambda r: (r / TEXT).unlink(), f"no chat_test_MIMIC.* in .*{NOTES}"),
    "cut-off JSON": (cut(TEXT), "cannot read .*chat_test"),
    "no list": (lambda r: (r / TEXT).write_text("{}"), "is not a list of annotations"),
    "no answer": (lambda r: (r / TEXT).write_text('[{"conversations": []}]'), "entry 1 lacks an answer in"),
    "no image": (
        lambda r: (r / TEXT).write_text('[{"conversations": [{"from": "gpt", "value": "x"}]}]'),
        "entry 1 lacks 'image'",
    ),
    "entry of another kind": (lambda r: (r / TEXT).write_text("[1]"), "entry 1 lacks"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_broken_is_named(mimic, case):
    spoil, message = BROKEN[case]
    spoil(mimic)
    with pytest.raises(FairbenchError, match=message) as error:
        rows(at(mimic))
    assert error.value.hint


@pytest.mark.parametrize("case", BROKEN_TEXTS)
def test_what_is_broken_in_the_texts_is_named(mimic, case):
    spoil, message = BROKEN_TEXTS[case]
    spoil(mimic)
    with pytest.raises(FairbenchError, match=message) as error:
        rows(at(mimic, MimicCXRReport))
    assert f"https://physionet.org/content/{NOTES}" in error.value.hint


def test_a_path_that_leaves_the_folder_is_refused(mimic):
    image = frame(mimic / META)["dicom_id"][0]
    for name in (META, SPLIT):
        rewrite(mimic / name, lambda t: t.assign(dicom_id=t["dicom_id"].replace(image, "../../../../../secret")))
    with pytest.raises(FairbenchError, match=r"secret\.jpg' is not inside the data folder"):
        rows(at(mimic, views="AP,PA,LATERAL"))


def test_places_that_are_no_folders_are_refused(mimic):
    with pytest.raises(FairbenchError, match=r"mimic_iv = 'nowhere': .*nowhere is not a folder"):
        rows(at(mimic, mimic_iv="nowhere"))
    with pytest.raises(FairbenchError, match="annotations = '/nowhere': /nowhere is not a folder"):
        rows(at(mimic, MimicCXRReport, annotations="/nowhere"))


# ── PadChest: people and labels ──────────────────────────────────────────────────────────────────


def birth_and_study(root, person, birth, study, sex="F"):
    def change(table):
        one = table["PatientID"] == table["PatientID"].unique()[person]
        table.loc[one, ["PatientBirth", "StudyDate_DICOM", "PatientSex_DICOM"]] = [birth, study, sex]
        return table

    rewrite(root / METADATA, change)
    return frame(root / METADATA)["PatientID"].unique()[person]


@pytest.mark.parametrize(
    ("birth", "study", "age"),
    [
        ("1970.0", "20141231", "0-44"),  # 44
        ("1970.0", "20150101", "45-65"),  # 45
        ("1950.0", "20150622", "45-65"),  # 65
        ("1949.0", "20150622", ">=66"),  # 66
        (None, "20150622", None),
        ("1970.0", None, None),
        ("2016.0", "20150622", None),  # born after the study
        ("1889", "20150622", None),  # 126
    ],
)
def test_age_is_the_year_of_the_study_less_that_of_birth(pad, birth, study, age):
    patient = birth_and_study(pad, 20, birth, study)
    assert set(of(rows(at(pad, PadChest)), patient, "age")) == {age}


def test_people_of_the_example_worked_by_hand(examples):
    dataset = at(examples / "padchest", PadChest)
    table = rows(dataset)
    people = list(frame(examples / "padchest" / METADATA)["PatientID"].unique())
    assert [*{*zip(of(table, people[0], "sex"), of(table, people[0], "age"), strict=True)}] == [("female", None)]
    assert [*{*zip(of(table, people[1], "sex"), of(table, people[1], "age"), strict=True)}] == [
        (None, "0-44")
    ]  # 44
    assert [*{*zip(of(table, people[2], "sex"), of(table, people[2], "age"), strict=True)}] == [("male", None)]
    assert [*{*zip(of(table, people[3], "sex"), of(table, people[3], "age"), strict=True)}] == [
        (None, "45-65")
    ]  # 45
    assert "2 rows have the sex 'O': unrecorded" in dataset.warnings


LISTS = st.lists(st.text("abc ',[]-áñ", max_size=12).filter(lambda text: "\\" not in repr(text)), max_size=6)


@given(LISTS)
def test_the_labels_of_any_python_list_are_read(terms):
    assert padchest._findings(repr(terms)) == {" ".join(term.split()) for term in terms}


@pytest.mark.parametrize("text", ["", "normal", "['normal'", "normal]", "{'a'}"])
def test_what_is_no_list_has_no_labels(text):
    assert padchest._findings(text) is None


@pytest.mark.parametrize(
    ("cell", "target"),
    [
        ("['pleural effusion']", "present"),
        ("['COPD signs', ' Pleural  Effusion']", "present"),  # as they stand in the file: leading spaces, any case
        ("['loculated pleural effusion']", "absent"),  # a child counts where it is listed
        ("['normal']", "absent"),
        ("['unchanged', 'COPD signs']", "absent"),
        ("['unchanged']", None),
        ("['suboptimal study', '']", None),
        ("['pleural effusion', 'exclude']", None),
        ("[]", None),
        (None, None),
        ("pleural effusion", None),
    ],
)
def test_reports_that_say_nothing_are_left_out(pad, cell, target):
    patient = frame(pad / METADATA)["PatientID"].unique()[20]
    rewrite(pad / METADATA, lambda t: t.assign(Labels=t["Labels"].mask(t["PatientID"] == patient, cell)))
    assert set(of(rows(at(pad, PadChest)), patient, "target")) == ({target} if target else set())


def test_a_finding_may_be_any_of_several(examples):
    root = examples / "padchest"
    one, other, both = (
        rows(at(root, PadChest, label=label)).set_index("id")["target"] == "present"
        for label in (
            "pleural effusion",
            "Loculated pleural effusion",
            "pleural effusion,loculated pleural effusion",
        )
    )
    assert (both == one | other).all()
    assert other.any()
    assert not (one & other).any()
    with pytest.raises(FairbenchError, match="no label 'pleural efusion'") as error:
        rows(at(root, PadChest, label="pleural efusion"))
    assert "did you mean pleural effusion" in error.value.hint


@OF_PAD
def test_no_setting_and_no_damage_moves_a_patient(own):
    whole = rows(at(own, PadChest, projections="PA,AP,L,AP_horizontal")).set_index("id")["split"]
    victim = next(own.glob("1/*.png"))
    victim.write_bytes(victim.read_bytes()[:-40])
    for settings in (
        {"label": "cardiomegaly"},
        {"labelled_by": "Physician"},
        {"projections": "L", "ages": "decades"},
    ):
        dataset = at(own, PadChest, unreadable_share=0.1, **settings)
        part = rows(dataset).set_index("id")["split"]
        assert part.equals(whole[part.index])
        assert len(part) < len(whole)
    assert not rows(at(own, PadChest, split_seed=1, unreadable_share=0.1))["split"].equals(whole)
    assert list(at(own, PadChest).attributes) == ["sex", "age"]


def test_projections_and_labellers_are_chosen(examples):
    root = examples / "padchest"
    written = frame(root / METADATA).set_index("ImageID")
    for settings, column in (
        ({"projections": "AP_horizontal"}, "Projection"),
        ({"labelled_by": "RNN"}, "MethodLabel"),
    ):
        table = rows(at(root, PadChest, **settings))["id"]
        assert set(written.loc[table, column]) == set(settings.values())
    with pytest.raises(FairbenchError, match="no Projection COSTAL") as error:
        rows(at(root, PadChest, projections="PA,COSTAL"))
    assert error.value.hint == "choose among AP, AP_horizontal, L, PA"


@OF_MIMIC
@pytest.mark.parametrize("kind", [MimicCXR, MimicCXRReport])
def test_a_jpeg_that_is_cut_short_is_found_with_the_settings_as_they_are(own, kind):
    name = rows(at(own, kind, unreadable_share=0.1))["image"].iloc[3]
    (own / name).write_bytes((own / name).read_bytes()[:-60])
    report = check(at(own, kind, unreadable_share=0.0))
    assert list(report.unreadable) == [name]
    assert not report.usable


# ── PadChest: files and pixels ───────────────────────────────────────────────────────────────────


@OF_PAD
@pytest.mark.parametrize("layout", ["images/{part}", "images", "."])
def test_images_are_found_in_each_layout(examples, own, layout):
    for path in list(own.glob("*/*.png")):
        goal = own / layout.format(part=path.parent.name) / path.with_suffix(".PNG").name
        goal.parent.mkdir(parents=True, exist_ok=True)
        path.rename(goal)
    expected, moved = at(examples / "padchest", PadChest), at(own, PadChest)
    pd.testing.assert_frame_equal(bare(rows(moved)), bare(rows(expected)))
    assert moved.fingerprint() == expected.fingerprint()


@OF_PAD
@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-40],
        lambda data: data[:100],
        lambda data: b"",
        lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :],
    ],
    ids=["end missing", "header only", "empty", "a bit in the middle"],
)
@pytest.mark.parametrize("verify", ["structure", "decode"])
def test_corrupt_files_are_left_out_with_a_warning(own, spoil, verify):
    whole = rows(at(own, PadChest))
    path = own / whole["image"][5]
    path.write_bytes(spoil(path.read_bytes()))
    (own / whole["image"][7]).unlink()
    with pytest.raises(FairbenchError, match=r"2 of 84 images cannot be read .*more than the 1\.00%"):
        rows(at(own, PadChest, verify=verify))
    dataset = at(own, PadChest, verify=verify, unreadable_share=0.05)
    assert list(rows(dataset)["id"]) == list(whole["id"].drop([5, 7]))
    assert "there is no such file" in dataset.warnings[-1]


def png(grey):
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "PNG")
    file.seek(0)
    return file


@pytest.mark.parametrize(
    ("display", "expected"),
    [("minmax", [0, 64, 128, 255]), ("full", [4, 5, 6, 8])],  # (v − 1000)/1000 × 255, and v/257
)
def test_sixteen_bits_are_shown_by_the_stated_rule(display, expected):
    image = PadChest(display=display).open(png(np.array([[1000, 1250, 1500, 2000]], dtype=np.uint16)))
    assert image.mode == "RGB"
    assert np.asarray(image)[0, :, 0].tolist() == expected
    assert np.ptp(np.asarray(image), axis=2).max() == 0


def test_percentiles_are_not_swayed_by_a_burnt_in_letter():
    grey = np.tile(np.arange(1000, 3000, dtype=np.uint16), (10, 1))
    grey[0, :20] = 65535  # 0.1 % of the pixels
    low, high = np.percentile(grey, [0.5, 99.5])
    shown = np.asarray(PadChest().open(png(grey)))[5, :, 0].astype(float)
    expected = np.clip((grey[5] - low) / (high - low), 0, 1) * 255
    assert np.abs(shown - expected).max() <= 0.5 + 1e-3
    assert np.asarray(PadChest(display="minmax").open(png(grey)))[5].max() < 10


@pytest.mark.parametrize("display", ["percentile", "minmax"])
def test_odd_images_are_shown_without_dividing_by_nothing(display):
    flat = PadChest(display=display).open(png(np.full((8, 8), 700, dtype=np.uint16)))
    assert np.asarray(flat).max() == 0
    sparse = np.zeros((40, 40), dtype=np.uint16)
    sparse[0, 0] = 500
    assert np.asarray(PadChest(display=display).open(png(sparse))).max() == 255
    ordinary = np.array([[0, 100, 255]], dtype=np.uint8)  # eight bits are shown as they are
    assert np.asarray(PadChest(display=display).open(png(ordinary)))[0, :, 0].tolist() == [0, 100, 255]


def test_what_is_no_png_is_unreadable(monkeypatch):
    with pytest.raises(Unreadable):
        PadChest().open(io.BytesIO(b"GIF89a"))
    monkeypatch.setattr(images, "MAX_PIXELS", 10)
    with pytest.raises(Unreadable, match="4×4 pixels are more than 10"):
        PadChest().open(png(np.zeros((4, 4), dtype=np.uint16)))


def test_monochrome1_is_turned_over_and_part_of_the_fingerprint(pad):
    photometric = frame(pad / METADATA).set_index("ImageID")["PhotometricInterpretation_DICOM"]
    turned, left = at(pad, PadChest), at(pad, PadChest, monochrome1="leave")
    table = rows(turned)
    inverse = photometric[table["id"]].to_numpy() == "MONOCHROME1"
    assert inverse.any()
    assert not inverse.all()
    for row, over in zip(table.to_dict("records"), inverse, strict=True):
        one, other = (np.asarray(dataset.image(row)).astype(int) for dataset in (turned, left))
        assert (one + other == 255).all() if over else (one == other).all()
    fresh = at(pad, PadChest)  # whose table nobody has read yet
    row = table[inverse].iloc[0].to_dict()
    assert np.array_equal(np.asarray(fresh.image(row)), np.asarray(turned.image(row)))
    before = turned.fingerprint()
    rewrite(pad / METADATA, lambda t: t.assign(PhotometricInterpretation_DICOM="MONOCHROME2"))
    assert at(pad, PadChest).fingerprint() != before


def test_header_names_are_those_of_the_file_or_of_the_documentation(examples, pad):
    names = {"ExposureTime": "ExposureTime_DICOM", "labelCUIS": "LabelCUIS", "StudyDate_DICOM": "studydate"}
    rewrite(pad / METADATA, lambda t: t.rename(columns=names))
    packed = gzip.compress((pad / METADATA).read_bytes())
    (pad / METADATA).unlink()
    (pad / f"{METADATA}.gz").write_bytes(packed)
    pd.testing.assert_frame_equal(rows(at(pad, PadChest)), rows(at(examples / "padchest", PadChest)))


def hidden(text):
    """Quotes that make one row of two with as many cells as before: nobody counts them wrong."""
    lines = text.splitlines(keepends=True)
    cells = [line.split(",", 3) for line in lines[1:3]]
    cells[0][2], cells[1][2] = '"' + cells[0][2], cells[1][2] + '"'
    return "".join([lines[0], *(",".join(part) for part in cells), *lines[3:]])


PAD_BROKEN = {
    "no table": (lambda r: (r / METADATA).unlink(), r"holds no PADCHEST.*\(it holds 0, 1, 2\)"),
    "no images": (lambda r: [(r / part).unlink() for part in "012"], "none of 180 images is there"),
    "no column": (without(METADATA, "PatientBirth"), "lacks the columns PatientBirth; it has Unnamed"),
    "cut-off gzip": (
        lambda r: (r / METADATA).write_bytes(gzip.compress((r / METADATA).read_bytes())[:400]),
        "cannot be read",
    ),
    "not text": (lambda r: (r / METADATA).write_bytes(b"\xff\xfe\0"), "not written in utf-16"),
    "a stray quote": (
        lambda r: (r / METADATA).write_text((r / METADATA).read_text().replace(",PED,", ',"PED,', 1)),
        "line [0-9]+ (has|ends)|unexpected end|expected after",
    ),
    "two stray quotes, which hide a row between them": (
        lambda r: (r / METADATA).write_text(hidden((r / METADATA).read_text())),
        "ends a cell of several lines|expected after",
    ),
    "a surplus cell in the first row": (
        lambda r: (r / METADATA).write_text((r / METADATA).read_text().replace("\n0,", "\n0,,", 1)),
        "line 2 has 37 cells, its header 36",
    ),
    "header only": (lambda r: rewrite(r / METADATA, lambda t: t.iloc[:0]), "has no rows"),
    "image twice": (repeated(METADATA), "1 rows repeat an image, for instance 1496"),
    "no patient": (spoilt(METADATA, "PatientID", None), "1 rows have no PatientID"),
    "rounded numbers": (spoilt(METADATA, "PatientID", "3.2588E+37"), "PatientID '3.2588E.37' has been rounded"),
    "bad date": (spoilt(METADATA, "StudyDate_DICOM", "20159999"), "StudyDate_DICOM '20159999' is not written as"),
    "bad birth": (spoilt(METADATA, "PatientBirth", "old"), "PatientBirth 'old' is not written as 1958.0"),
    "path out of the folder": (spoilt(METADATA, "ImageDir", "../.."), "not inside the data folder"),
    "absolute path": (spoilt(METADATA, "ImageDir", "/etc"), "not inside the data folder"),
}


@pytest.mark.parametrize("case", PAD_BROKEN)
def test_what_is_broken_in_padchest_is_named(pad, case):
    spoil, message = PAD_BROKEN[case]
    spoil(pad)
    with pytest.raises(FairbenchError, match=message):
        rows(at(pad, PadChest, projections="PA,AP,L"))


@pytest.mark.parametrize("fractions", ["0.7,0.3", "0.7,0.3,0", "0.7,0.2,0.2"])
def test_fractions_must_be_three_shares(fractions):
    with pytest.raises(FairbenchError, match="fractions"):
        PadChest(fractions=fractions)


def test_a_study_may_show_all_its_views_or_the_patients_image_before(examples):
    root, views = examples / "mimic-cxr", "AP,PA,LATERAL"
    meta = frame(root / CXR.format("metadata")).sort_values("dicom_id")
    stem = rows(at(root, views=views, uncertain="positive")).set_index("id")["image"]
    whole = rows(at(root, views=views, uncertain="positive", shown="study"))
    assert whole["id"].tolist() == meta.drop_duplicates("study_id")["dicom_id"].tolist()
    assert whole["further"].map(len).max() > 0, "the example has studies of several views"
    for row in whole.itertuples():
        (study,) = meta.loc[meta["dicom_id"] == row.id, "study_id"]
        others = meta.loc[(meta["study_id"] == study) & (meta["dicom_id"] != row.id), "dicom_id"]
        assert row.further == tuple(stem[others])
    after = rows(at(root, views=views, uncertain="positive", shown="prior"))
    assert after["further"].map(len).max() == 1, "the example has patients of several days"
    for row in after.itertuples():
        (own,) = meta[meta["dicom_id"] == row.id].to_dict("records")
        earlier = meta[(meta["subject_id"] == own["subject_id"]) & (meta["StudyDate"] < own["StudyDate"])]
        if earlier.empty:
            assert row.further == ()
        else:
            last = earlier.sort_values(["StudyDate", "study_id", "dicom_id"])["dicom_id"].iloc[-1]
            assert row.further == (stem[last],)
