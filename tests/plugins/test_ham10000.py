"""HAM10000 in each packaging it comes in, its labels, bins and splits, and the real files' own numbers."""

import itertools
import shutil

import numpy as np
import pandas as pd
import pytest
from builders import ISIC, ham10000_example, opened
from fairbench_plugins.datasets.ham10000 import DIAGNOSES, HAM10000, HAM10000VQA, LABELS, QUESTIONS

from fairbench import AGE_BINS, FairbenchError
from fairbench.data.dataset import rows


@pytest.fixture
def folder(tmp_path):
    ham10000_example(tmp_path / "ham")
    return tmp_path / "ham"


def at(root, kind=HAM10000, **settings):
    return opened(root, kind, **settings)


def rewrite(root, change):
    path = root / "HAM10000_metadata.csv"
    change(pd.read_csv(path)).to_csv(path, index=False)


# ── packagings ───────────────────────────────────────────────────────────────────────────────────


def test_every_packaging_gives_the_same_table(tmp_path):
    tables = {}
    for packaging in ("kaggle", "dataverse", "flat", "isic"):
        ham10000_example(tmp_path / packaging, packaging)
        dataset = at(tmp_path / packaging)
        tables[packaging] = rows(dataset).drop(columns="image")
        assert dataset.image(rows(dataset).iloc[0].to_dict()).size == (8, 6)
    for packaging in ("dataverse", "flat"):
        pd.testing.assert_frame_equal(tables["kaggle"], tables[packaging])
    known = ["id", "cluster", "split", "target"]
    pd.testing.assert_frame_equal(tables["kaggle"][known], tables["isic"][known], check_dtype=False)
    assert tables["isic"][["sex", "age"]].isna().all(axis=None)


def test_isic_files_say_what_they_lack_and_use_the_metadata_beside_them(tmp_path):
    table = ham10000_example(tmp_path, "isic")
    dataset = at(tmp_path)
    rows(dataset)
    assert any("lack sex, age and localization" in w and "HAM10000_metadata" in w for w in dataset.warnings)
    table.to_csv(tmp_path / "HAM10000_metadata", index=False)
    read_table = rows(dataset)
    assert not dataset.warnings
    assert read_table["sex"].notna().sum() == (table["sex"] != "unknown").sum()
    (tmp_path / "HAM10000_metadata").unlink()
    (tmp_path / f"{ISIC}LesionGroupings.csv").unlink()
    with pytest.raises(FairbenchError, match="LesionGroupings"):
        rows(at(tmp_path))


def test_isic_images_without_a_lesion_are_an_error(tmp_path):
    ham10000_example(tmp_path, "isic")
    path = tmp_path / f"{ISIC}LesionGroupings.csv"
    pd.read_csv(path).iloc[1:].to_csv(path, index=False)
    with pytest.raises(FairbenchError, match="1 rows have no lesion_id"):
        rows(at(tmp_path))


def test_isic_labels_must_be_one_hot(tmp_path):
    ham10000_example(tmp_path, "isic")
    path = tmp_path / f"{ISIC}GroundTruth/{ISIC}GroundTruth.csv"
    path.write_text(path.read_text().replace("1.0", "0.0", 1))
    with pytest.raises(FairbenchError, match="does not have exactly one diagnosis"):
        rows(at(tmp_path))


@pytest.mark.parametrize("separator", [";", "\t"])
def test_metadata_saved_by_a_spreadsheet_is_understood(folder, separator):
    before = rows(at(folder))
    path = folder / "HAM10000_metadata.csv"
    table = pd.read_csv(path).rename(columns={"dx": " dx "})
    table["sex"] = table["sex"].str.upper()
    table.to_csv(path, index=False, sep=separator, encoding="utf-8-sig", lineterminator="\r\n")
    pd.testing.assert_frame_equal(rows(at(folder)), before)


# ── labels and attributes ────────────────────────────────────────────────────────────────────────


def test_label_maps(folder):
    table = pd.read_csv(folder / "HAM10000_metadata.csv").set_index("image_id")
    positives = {"malignant": {"mel", "bcc", "akiec"}, "medfair": {"mel", "akiec"}}
    for labels, codes in positives.items():
        read_table = rows(at(folder, labels=labels)).set_index("id")["target"]
        assert (read_table[table.index] == "malignant").equals(table["dx"].isin(codes))
    read_table = rows(at(folder, labels="dx7")).set_index("id")["target"]
    assert read_table[table.index].tolist() == table["dx"].tolist()


def test_label_maps_share_one_split(folder):
    splits = [rows(at(folder, labels=labels))["split"].tolist() for labels in LABELS]
    assert splits[0] == splits[1] == splits[2]


@pytest.mark.parametrize("labels", LABELS)
def test_words_differ_from_their_first_letter_on(labels):
    dataset = HAM10000(labels=labels)
    assert len({word[0] for word in dataset.words}) == len(dataset.classes) == len(dataset.words)
    assert dataset.prompt
    assert HAM10000(labels=labels, prompt="Well?").prompt == "Well?"


@pytest.mark.parametrize(
    ("ages", "expected"),
    [
        ("fairllava", {0: "<45", 40: "<45", 44.9: "<45", 45: "45-65", 65: "45-65", 66: ">=66", 70: ">=66"}),
        ("medfair2", {0: "<=60", 60: "<=60", 60.9: "<=60", 61: ">60", 65: ">60", 85: ">60"}),
        ("medfair5", {0: "0-19", 15: "0-19", 20: "20-39", 40: "40-59", 60: "60-79", 75: "60-79", 80: ">=80"}),
        ("fairmedfm", {0: "<60", 55: "<60", 60: ">=60", 85: ">=60"}),
    ],
)
def test_age_bins_are_exact_at_their_edges(ages, expected):
    dataset = HAM10000(ages=ages)
    written = pd.Series([str(float(age)) for age in expected], dtype=object)
    assert dataset._age(written).tolist() == list(expected.values())
    assert set(expected.values()) == set(dataset.attributes["age"]) == set(AGE_BINS[ages].names)


def test_what_was_not_recorded_is_missing(folder):
    table = pd.read_csv(folder / "HAM10000_metadata.csv").set_index("image_id")
    read_table = rows(at(folder, localization=True)).set_index("id").loc[table.index]
    assert read_table["sex"].isna().equals(table["sex"] == "unknown")
    assert read_table["age"].isna().equals(table["age"].isna())
    assert read_table["localization"].isna().equals(table["localization"] == "unknown")
    zero = rows(at(folder, age_zero="missing")).set_index("id").loc[table.index]
    assert zero["age"].isna().equals(table["age"].isna() | (table["age"] == 0))


def test_how_the_diagnosis_was_confirmed_stays_out(folder):
    assert "dx_type" not in rows(at(folder, localization=True))


# ── splits ───────────────────────────────────────────────────────────────────────────────────────


def test_splits_depend_on_seed_and_fractions_and_not_on_the_order_of_rows(folder):
    before = at(folder)
    table = rows(before)
    rewrite(folder, lambda t: t.sample(frac=1, random_state=3))
    after = at(folder)
    pd.testing.assert_frame_equal(rows(after), table)
    assert after.fingerprint() == before.fingerprint()
    assert not rows(at(folder, split_seed=1))["split"].equals(table["split"])
    even = rows(at(folder, fractions="0.5,0.25,0.25"))["split"].value_counts(normalize=True)
    assert abs(even["train"] - 0.5) < 0.05


def test_no_packaging_and_no_suffix_makes_other_data(tmp_path):
    prints = set()
    for packaging in ("kaggle", "dataverse", "flat"):
        ham10000_example(tmp_path / packaging, packaging)
        prints.add(at(tmp_path / packaging).fingerprint())
    for path in list((tmp_path / "flat").glob("*.jpg")):
        path.rename(path.with_suffix(".JPEG"))
    assert {*prints, at(tmp_path / "flat").fingerprint()} == {at(tmp_path / "kaggle").fingerprint()}


@pytest.mark.parametrize("fractions", ["0.7,0.3", "0.7,0.3,0", "0.7,0.2,0.2", "0.5,0.6,-0.1"])
def test_fractions_must_be_three_shares(fractions):
    with pytest.raises(FairbenchError, match="fractions"):
        HAM10000(fractions=fractions)


def test_a_damaged_image_moves_no_other(folder):
    before = rows(at(folder)).set_index("id")["split"]
    damaged = next((folder / "HAM10000_images_part_2").iterdir())
    damaged.write_bytes(damaged.read_bytes()[:-80])
    dataset = at(folder)
    after = rows(dataset).set_index("id")["split"]
    assert list(before.index.difference(after.index)) == [damaged.stem]
    assert after.equals(before[after.index])
    assert damaged.name in dataset.warnings[0]


# ── what is missing or wrong ─────────────────────────────────────────────────────────────────────


def spoilt(column, value):
    def change(table):
        table[column] = table[column].astype(object)
        table.loc[4, column] = value
        return table

    return lambda root: rewrite(root, change)


BROKEN = {
    "no folder": (shutil.rmtree, "is not a folder"),
    "no metadata": (
        lambda r: (r / "HAM10000_metadata.csv").unlink(),
        "neither HAM10000_metadata nor HAM10000_metadata.csv .it holds HAM10000_images_part_1, ",
    ),
    "empty metadata": (lambda r: (r / "HAM10000_metadata.csv").write_text(""), "is empty"),
    "not text": (lambda r: (r / "HAM10000_metadata.csv").write_bytes(b"\xff\xfe\0"), "not written in utf-16"),
    "ragged": (
        lambda r: (r / "HAM10000_metadata.csv").open("a").write("1,2,3,4,5,6,7,8,9\n") and None,
        "line 167 has 9 cells, its header 7",
    ),
    "no column": (lambda r: rewrite(r, lambda t: t.drop(columns="sex")), "lacks the columns sex; it has les"),
    "no part 2": (
        lambda r: shutil.rmtree(r / "HAM10000_images_part_2"),
        "images are missing, for instance ISIC_.*looked in HAM10000_images_part_1, ",
    ),
    "unknown dx": (spoilt("dx", "scc"), "has dx 'scc'"),
    "unknown sex": (spoilt("sex", "M"), "has sex 'm'"),
    "not an age": (spoilt("age", "old"), "age 'old'"),
    "impossible age": (spoilt("age", "650"), "age '650'"),
    "no diagnosis": (spoilt("dx", None), "HAM10000_metadata.csv: 1 rows have no dx"),
    "no lesion": (spoilt("lesion_id", None), "1 rows have no lesion_id"),
    "repeated image": (
        lambda r: rewrite(r, lambda t: pd.concat([t, t.iloc[:1]])),
        "stand in several rows",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_broken_is_named(folder, case):
    spoil, message = BROKEN[case]
    spoil(folder)
    with pytest.raises(FairbenchError, match=message):
        rows(at(folder))


@pytest.mark.parametrize("case", ["no folder", "no metadata", "no column", "no part 2"])
def test_what_is_missing_can_be_got(folder, case):
    BROKEN[case][0](folder)
    with pytest.raises(FairbenchError) as error:
        rows(at(folder))
    assert "10.7910/DVN/DBW86T" in error.value.hint
    assert "kmader/skin-cancer-mnist-ham10000" in error.value.hint
    assert "--data ham10000=" in error.value.hint


# ── questions ────────────────────────────────────────────────────────────────────────────────────


def test_each_image_is_asked_each_question_that_has_an_answer(folder):
    metadata = pd.read_csv(folder / "HAM10000_metadata.csv").set_index("image_id")
    dataset = at(folder, HAM10000VQA, questions="diagnosis,site,malignancy")
    table = rows(dataset)
    unknown = metadata.index[metadata["localization"] == "unknown"]
    assert len(table) == 3 * len(metadata) - len(unknown)
    assert not set(table["id"]) & {f"{image}-site" for image in unknown}
    assert f"{len(unknown)} images have no recorded site" in dataset.warnings[0]
    for row in table.to_dict("records"):
        image, question = row["id"].rsplit("-", 1)
        dx, site = metadata.loc[image, ["dx", "localization"]]
        verdict = "malignant" if dx in ("mel", "bcc", "akiec") else "benign"
        assert row["target"] == {"diagnosis": dx, "site": site, "malignancy": verdict}[question]
        assert row["cluster"] == metadata.loc[image, "lesion_id"]
        assert row["prompt"] in QUESTIONS[question]
        assert dataset.classes[dataset.parse(row["reference"])] == row["target"]
        assert len(row["reference"].encode()) < dataset.max_new_tokens
    for question, ways in QUESTIONS.items():
        assert set(table.loc[table["id"].str.endswith(question), "prompt"]) == set(ways)


def test_questions_are_split_as_the_images_are(folder):
    for settings in ({}, {"split_seed": 3}, {"fractions": "0.5,0.25,0.25"}):
        images = rows(at(folder, labels="dx7", **settings)).set_index("id")["split"]
        asked = rows(at(folder, HAM10000VQA, questions="malignancy,diagnosis", **settings))
        assert (asked["id"].str.split("-").str[0].map(images) == asked["split"]).all()
        assert (asked.groupby("cluster")["split"].nunique() == 1).all()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("This is a melanoma.", "mel"),
        ("MEL", "mel"),
        ("Melanocytic nevi on the back, not melanoma", "nv"),
        ("a benign keratosis, no nevus", "bkl"),
        ("It is benign.", "benign"),
        ("No sign of melanoma", "benign"),
        ("Bowen's disease", "akiec"),
        ("actinic keratoses", "akiec"),
        ("a naevus or a melanoma", "nv"),
        ("a vascular lesion", "vasc"),
        ("bcc or mel", "bcc"),
        ("The body site is lower extremity.", "lower extremity"),
        ("Site: back.", "back"),
        ("backwards", None),
        ("melanomatous", None),
        ("", None),
    ],
)
def test_the_class_named_first_counts_by_code_or_name(text, named):
    dataset = HAM10000VQA(questions="diagnosis,site,malignancy")
    assert dataset.parse(text) == (-1 if named is None else dataset.classes.index(named))


def test_only_what_was_asked_for_is_a_class():
    assert HAM10000VQA(questions="malignancy").classes == ("benign", "malignant")
    assert HAM10000VQA(questions="malignancy").parse("melanoma, malignant") == 1
    for questions in ("", "site,site", "colour"):
        with pytest.raises(FairbenchError, match="questions"):
            HAM10000VQA(questions=questions)


def test_questions_need_no_more_than_their_answers(tmp_path):
    ham10000_example(tmp_path, "isic")
    assert set(rows(at(tmp_path, HAM10000VQA))["target"]) <= set(DIAGNOSES)
    with pytest.raises(FairbenchError, match="has no rows"):
        rows(at(tmp_path, HAM10000VQA, questions="site"))


def test_questions_tell_nothing_and_stay_as_they_are(folder):
    dataset = at(folder, HAM10000VQA, questions="diagnosis,malignancy", prompt="Look closely.")
    before = rows(dataset)
    assert (before["prompt"].str.startswith("Look closely. ")).all()

    def change(table):
        table["dx_type"] = "confocal"
        table["dx"] = table["dx"].iloc[::-1].to_numpy()
        return table.sample(frac=1, random_state=1)

    rewrite(folder, change)
    after = rows(at(folder, HAM10000VQA, questions="diagnosis,malignancy", prompt="Look closely."))
    assert after["prompt"].equals(before["prompt"])  # whatever the answer, and however it was confirmed
    assert not after["reference"].equals(before["reference"])


# ── the real thing ───────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def real(shared):
    root = shared / "data/ham10000"
    if not root.is_dir():
        pytest.skip(f"HAM10000 not found at {root}")
    return root


@pytest.mark.slow
@pytest.mark.shared
def test_the_real_files_have_their_published_numbers(real):
    table = rows(at(real, labels="dx7"))
    assert (len(table), table["cluster"].nunique()) == (10_015, 7_470)
    published = {"nv": 6705, "mel": 1113, "bkl": 1099, "bcc": 514, "akiec": 327, "vasc": 142, "df": 115}
    assert table["target"].value_counts().to_dict() == published
    assert table["sex"].value_counts(dropna=False).to_dict() == {"male": 5406, "female": 4552, np.nan: 57}
    assert table["age"].isna().sum() == 57
    assert rows(at(real, age_zero="missing"))["age"].isna().sum() == 57 + 39
    assert (rows(at(real))["target"] == "malignant").sum() == 1113 + 514 + 327
    assert (rows(at(real, labels="medfair"))["target"] == "malignant").sum() == 1113 + 327


@pytest.mark.slow
@pytest.mark.shared
def test_real_splits_keep_lesions_whole_and_diagnoses_in_proportion(real):
    table = rows(at(real, labels="dx7"))
    for one, other in itertools.combinations(["train", "val", "test"], 2):
        clusters = [set(table.loc[table["split"] == split, "cluster"]) for split in (one, other)]
        assert not clusters[0] & clusters[1]
    for split, share in {"train": 0.7, "val": 0.1, "test": 0.2}.items():
        part = table[table["split"] == split]
        assert abs(len(part) - share * 10_015) <= 7
        expected = share * table["target"].value_counts()
        assert ((part["target"].value_counts() - expected).abs() <= 3).all()


@pytest.mark.slow
@pytest.mark.shared
def test_a_limit_on_the_real_files_is_representative(real):
    whole, part = rows(at(real)), rows(at(real, limit=2000))
    assert abs(len(part) - 2000) < 20
    for column in ("split", "target", "sex", "age"):
        shares = [t[column].value_counts(normalize=True, dropna=False) for t in (whole, part)]
        assert (shares[0] - shares[1]).abs().max() < 0.01, column


@pytest.mark.slow
@pytest.mark.shared
def test_real_questions_have_the_published_numbers_and_the_splits_of_the_images(real):
    table = rows(at(real, HAM10000VQA))
    assert len(table) == 2 * 10_015 - 234
    assert table["target"].value_counts()[["nv", "mel", "back", "acral"]].tolist() == [6705, 1113, 2192, 7]
    images = rows(at(real)).set_index("id")["split"]
    assert (table["id"].str.split("-").str[0].map(images) == table["split"]).all()
    part = rows(at(real, HAM10000VQA, limit=2000))
    assert abs(len(part) - 2000) < 40
