"""A lab's own table: columns by name, spellings, bins, classes, splits; the same whatever wrote the file."""

import csv
import io
import shutil
from dataclasses import replace
from pathlib import Path

import builders
import numpy as np
import pandas as pd
import pytest
from builders import ELSEWHERE, opened, write_dataset
from fairbench_plugins.datasets.table import Table
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from fairbench import FairbenchError, Store, plugins, read_table
from fairbench.benchmark import plan
from fairbench.benchmark.benchmark import Benchmark
from fairbench.benchmark.pull import Setup, work
from fairbench.data.dataset import most_images, rows
from fairbench.data.splits import split_clusters
from fairbench.jobs.job import Choice
from fairbench.testing import DATASET_CHECKS, ToyBackbone

TOYS = Path(__file__).parents[1] / "toys.py"
PLAIN = {"attribute_columns": "sex,age", "bins": "age: 0-44, 45+", "prompt": "Is it?", "positive": "ill"}


def people(count=40):
    return builders.people(count, classes=("well", "ill"))


def write(folder, frame=None, name="people.csv", **options):
    frame = people() if frame is None else frame
    return write_dataset(folder, frame, name, [f"{n}.png" for n in range(len(frame))], **options)


def at(root, **settings):
    return opened(root, Table, **{**PLAIN, **settings})


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "ward")


def described(folder, **settings):
    dataset = at(folder, **settings)
    return rows(dataset), dataset.classes, dataset.words, dataset.attributes, dataset.notes


def change(folder, **columns):
    frame = people().assign(**columns)
    write(folder, frame)
    return frame


# ── files ────────────────────────────────────────────────────────────────────────────────────────


def test_a_table_is_read_as_it_is_written(folder):
    table = rows(at(folder))
    written = people()
    for column in ("id", "cluster", "split", "image", "target"):
        assert table[column].tolist() == written[column].tolist()
    assert table["sex"].fillna("-").tolist() == written["sex"].fillna("-").tolist()
    assert table["age"].tolist() == ["0-44" if int(age) < 45 else "45+" for age in written["age"]]
    assert at(folder).classes == ("well", "ill")
    assert at(folder).attributes == {"sex": ("female", "male"), "age": ("0-44", "45+")}


@pytest.mark.parametrize(
    ("name", "options", "settings"),
    [
        ("t.tsv", {"sep": "\t"}, {}),
        ("t.csv", {"sep": ";", "encoding": "utf-8-sig", "lineterminator": "\r\n"}, {}),
        ("t.csv", {"sep": "|"}, {}),
        ("t.csv", {"quoting": csv.QUOTE_ALL}, {}),
        ("T.CSV", {"encoding": "utf-16"}, {}),
        ("t.csv", {"encoding": "cp1252"}, {"encoding": "cp1252"}),
        ("t.tab", {"sep": "\t", "lineterminator": "\r\n"}, {}),
    ],
)
def test_whatever_wrote_the_file(tmp_path, name, options, settings):
    frame = people().assign(note='größer; "so, so"')
    expected = rows(at(write(tmp_path / "one", frame)))
    table = rows(at(write(tmp_path / "other", frame, name, **options), **settings))
    pd.testing.assert_frame_equal(table, expected)


def test_parquet_and_its_types(tmp_path, folder):
    frame = people()
    typed = frame.assign(
        age=frame["age"].astype(float).where(frame.index != 3),
        target=frame["target"] == "ill",
        sex=frame["sex"].astype("category"),
        id=2**60 + np.arange(len(frame)),
        cluster=np.arange(len(frame)) // 2,
        boxes=[[1, 2]] * len(frame),
    )
    shutil.copytree(folder, tmp_path / "typed")
    (tmp_path / "typed/people.csv").unlink()
    typed.to_parquet(tmp_path / "typed/people.parquet")
    table = rows(at(tmp_path / "typed", positive="true"))
    expected = rows(at(folder))
    assert table["id"].tolist() == [str(2**60 + n) for n in range(len(frame))]
    assert table["cluster"].tolist() == [str(n // 2) for n in range(len(frame))]
    assert table["target"].tolist() == expected["target"].map({"ill": "true", "well": "false"}).tolist()
    assert table["sex"].fillna("-").tolist() == expected["sex"].fillna("-").tolist()
    assert table["age"].isna().tolist() == [n == 3 for n in range(len(frame))]
    assert table["age"].drop(3).tolist() == expected["age"].drop(3).tolist()
    with pytest.raises(FairbenchError, match="has no column 'boxes'"):
        rows(at(tmp_path / "typed", positive="true", cluster_column="boxes"))


cells = st.text(st.characters(exclude_characters="\0\r", exclude_categories=["Cs"]), max_size=6)


@hypothesis_settings(deadline=None, max_examples=150)
@given(
    st.lists(st.lists(cells, min_size=3, max_size=3), min_size=1, max_size=6), st.sampled_from(",;\t|"), st.data()
)
def test_any_text_survives_the_way_through_a_file(tmp_path_factory, written, separator, data):
    encoding = data.draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, delimiter=separator, lineterminator=data.draw(st.sampled_from(["\n", "\r\n"])))
    writer.writerows([["a,b", "c;d", "e\tf|g"], *written])
    path = tmp_path_factory.getbasetemp() / "round.csv"
    path.write_bytes(buffer.getvalue().encode(encoding))
    table = read_table(path, "table", "")
    expected = [[cell.strip() or None for cell in line] for line in written if any(map(str.strip, line))]
    assert list(table.columns) == ["a,b", "c;d", "e\tf|g"]
    assert [[None if pd.isna(cell) else cell for cell in line] for line in table.to_numpy().tolist()] == expected


def test_the_only_table_of_the_folder_is_the_one(folder):
    (folder / "README.txt").write_text("a,b")
    assert len(rows(at(folder))) == 40
    write(folder, name="other.csv")
    with pytest.raises(FairbenchError, match=r"which file .* is the table\? It holds other\.csv, people\.csv"):
        rows(at(folder))
    assert len(rows(at(folder, file="people.csv"))) == 40


def test_the_example_is_read_with_its_settings(tmp_path):
    dataset = Table(**Table.example(tmp_path))
    dataset.root = tmp_path
    raw = (tmp_path / "Faelle.csv").read_bytes()
    assert raw.startswith(b"\xef\xbb\xbf")
    lines = list(csv.DictReader(io.StringIO(raw.decode("utf-8-sig")), delimiter=";"))[:-1]
    table = rows(dataset).set_index("id")
    assert len(table) == len(lines)
    unrecorded = ("", "unbekannt", "k. A.")
    for line in lines:
        row = table.loc[line["Fallnummer"]]
        assert row["cluster"] == line["Patient"]
        assert row["target"] == {"gutartig": "benign", "bösartig": "malignant"}[line["Befund"]]
        sex, age = line["Geschlecht"], line["Alter"]
        assert pd.isna(row["sex"]) if sex in unrecorded else row["sex"] == {"w": "female", "m": "male"}[sex.lower()]
        years = None if age in unrecorded else float(age.replace(",", "."))
        expected = years if years is None else "0-44" if years < 45 else "45-64" if years < 65 else "65+"
        assert pd.isna(row["age"]) if expected is None else row["age"] == expected
    assert {line["Alter"] for line in lines} >= {"44,5", "k. A."}
    assert {line["Geschlecht"] for line in lines} >= {"w", "W", "", "unbekannt"}
    for kept in DATASET_CHECKS:
        if kept.__name__ not in ELSEWHERE:
            kept(dataset)


@pytest.mark.parametrize("beside", ["~$people.csv", "._people.csv", ".~lock.people.csv", "._other.xlsx"])
def test_what_systems_leave_beside_a_table_is_none(folder, beside):
    (folder / beside).write_bytes(b"\0\5\x16\7")
    assert len(rows(at(folder))) == 40


def test_a_lone_file_that_is_no_table_says_what_it_is(folder):
    (folder / "people.csv").rename(folder / "people.xls")
    (folder / "people.xls").write_bytes(bytes.fromhex("d0cf11e0a1b11ae1"))
    with pytest.raises(FairbenchError, match=r"people\.xls is an old workbook"):
        rows(at(folder))


# ── columns ──────────────────────────────────────────────────────────────────────────────────────


def test_columns_go_by_any_name(tmp_path, folder):
    names = {"id": "Fall", "cluster": "Patient", "split": "Teil", "image": "Bild", "target": "Befund"}
    renamed = people().rename(columns={**names, "sex": "Geschlecht", "age": "Alter (Jahre)"})
    other = write(tmp_path / "other", renamed)
    settings = {f"{key}_column": name.upper() for key, name in names.items()}
    table = rows(at(other, **settings, attribute_columns="SEX = Geschlecht,age=alter (jahre)"))
    pd.testing.assert_frame_equal(table, rows(at(folder)))


def test_an_id_may_be_the_image(folder):
    write(folder, people().drop(columns="id"))
    assert rows(at(folder))["id"].tolist() == sorted(people()["image"])


def test_a_path_is_made_of_cells(tmp_path):
    frame = people().assign(image=[f"{n}" for n in range(40)], Ward=["a", "b"] * 20)
    write(tmp_path, frame)
    for n in range(40):
        (tmp_path / "img" / "ab"[n % 2]).mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{n}.png").rename(tmp_path / "img" / "ab"[n % 2] / f"{n}.PNG")
    table = rows(at(tmp_path, image_path="img/{ward}/{image}.PNG"))
    assert table["image"].tolist() == [f"img/{'ab'[n % 2]}/{n}.PNG" for n in range(40)]
    with pytest.raises(FairbenchError, match=r"none of the 40 images is there, for instance .*/0.jpg.bak\n"):
        rows(at(tmp_path, image_path="{image}.jpg.bak"))
    with pytest.raises(FairbenchError, match="no column 'Bett'"):
        rows(at(tmp_path, image_path="{Bett}/{image}"))
    with pytest.raises(FairbenchError, match="the same for every row"):
        rows(at(tmp_path, image_path="img/0.png"))


def test_the_order_of_the_file_does_not_matter(tmp_path, folder):
    shuffled = write(tmp_path / "other", people().sample(frac=1, random_state=0))
    pd.testing.assert_frame_equal(rows(at(shuffled)).drop(columns="image"), rows(at(folder)).drop(columns="image"))


# ── splits and clusters ──────────────────────────────────────────────────────────────────────────


def test_splits_have_many_spellings(folder):
    spelled = {"train": "Training", "val": " valid", "test": "TESTING"}
    change(folder, split=people()["split"].map(spelled))
    assert rows(at(folder))["split"].tolist() == people()["split"].tolist()
    change(folder, split=people()["split"].map({"train": "1", "val": "2", "test": "3"}))
    table = rows(at(folder, values="split: 1=train, 2=val, 3=test"))
    assert table["split"].tolist() == people()["split"].tolist()


@pytest.mark.parametrize("how", ["absent", "none"])
def test_without_splits_fairbench_divides_whole_patients(folder, how):
    settings = {"split_seed": 3, "fractions": "0.5,0.25,0.25"}
    if how == "absent":
        write(folder, people().drop(columns="split"))
    else:
        settings["split_column"] = "none"
    dataset = at(folder, **settings)
    table = rows(dataset)
    expected = split_clusters(table, ("target", "sex", "age"), (0.5, 0.25, 0.25), 3)
    assert table["split"].tolist() == expected.tolist()
    assert any("50%/25%/25% made by fairbench with seed 3: grouped by cluster" in note for note in dataset.notes)
    assert not any("made by fairbench" in note for note in at(write(folder)).notes)


def test_without_patients_a_warning_says_what_may_leak(folder):
    write(folder, people().drop(columns="cluster"))
    dataset = at(folder)
    assert (rows(dataset)["cluster"] == rows(dataset)["id"]).all()
    assert any("each row counts as a patient of its own" in warning for warning in dataset.warnings)
    dataset = at(write(folder), cluster_column="none")
    assert rows(dataset)["cluster"].nunique() == 40
    assert any("is it cluster, which few rows share?" in warning for warning in dataset.warnings)
    rows(at(folder))
    assert not at(folder).warnings


def test_a_patient_in_two_splits_is_refused(folder):
    change(folder, split=np.array(["train", "val", "test"])[np.arange(40) % 3])
    with pytest.raises(FairbenchError, match="20 clusters sit in more than one split"):
        rows(at(folder))


@pytest.mark.parametrize("column", ["id", "cluster"])
@pytest.mark.parametrize("word", ["unknown", "NaN", "NA", "n/a", "Unbekannt", ""])
def test_a_word_for_nothing_is_nobody(folder, column, word):
    named = people()[column]
    change(folder, **{column: named.where(people().index % 3 > 0, word)})
    settings = {"unrecorded": "unbekannt"}
    with pytest.raises(FairbenchError, match=rf"14 rows have no {column} \(the first: line 2\)\n.*{column}: \*'"):
        rows(at(folder, **settings))
    kept = rows(at(folder, **settings, only=f"{column}: *"))
    assert kept[column].tolist() == named[people().index % 3 > 0].tolist()
    change(folder, cluster=people()["cluster"].where(people()["split"] != "val", "NA"))
    assert rows(at(folder, recorded="NA"))["cluster"].nunique() == 16


def test_patients_that_may_be_one_are_cautioned(folder):
    for one, other in (("1", "1.0"), ("7", "007"), ("P1", "p1 "), ("ü", "u\u0308")):
        change(folder, cluster=people()["cluster"].replace({"c000": one, "c004": other}))
        dataset = at(folder)
        assert rows(dataset)["cluster"].nunique() == 20
        assert (
            f"cluster has {one!r} and {other.strip()!r}, which count as two: write alike what is one"
            in dataset.warnings
        )
    change(folder, cluster=people()["cluster"].replace({"c000": "--", "c004": "9", "c005": "x"}))
    dataset = at(folder)
    rows(dataset)
    assert [text for text in dataset.warnings if "cluster has" in text] == [
        "cluster has '--', which may stand for nothing: --set 'table.unrecorded=--'"
    ]


@pytest.mark.parametrize("short", ["1,23457E+17", "1.23e+17", "2E+10"])
def test_a_patient_whose_number_was_cut_short_is_refused(folder, short):
    change(folder, cluster=people()["cluster"].replace("c004", short))
    with pytest.raises(FairbenchError, match="line 10, a number that a spreadsheet has cut short"):
        rows(at(folder))


# ── classes ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("written", "settings", "classes", "words"),
    [
        (("0", "1"), {"positive": ""}, ("0", "1"), ("no", "yes")),
        (("1", "0"), {"positive": "0"}, ("1", "0"), ("1", "0")),
        (("1.0", "0.0"), {"positive": ""}, ("0", "1"), ("no", "yes")),
        (("TRUE", "False"), {"positive": ""}, ("false", "true"), ("no", "yes")),
        (("Yes", "no "), {"positive": ""}, ("no", "yes"), ("no", "yes")),
        (("Positive", "Negative"), {"positive": ""}, ("negative", "positive"), ("negative", "positive")),
        (("ill", "well"), {"positive": "ILL"}, ("well", "ill"), ("well", "ill")),
        (("a", "b"), {"positive": "", "order": "B,a"}, ("b", "a"), ("b", "a")),
        (("c", "a", "b"), {"positive": ""}, ("a", "b", "c"), ("a", "b", "c")),
        (("c", "a"), {"positive": "", "order": "c,b,a"}, ("c", "b", "a"), ("c", "b", "a")),
        (("0", "1"), {"positive": "", "answers": "healthy,sick"}, ("0", "1"), ("healthy", "sick")),
        (
            ("m8500/3", "m8211/0"),
            {"positive": "cancer", "values": "target: M8500/3=cancer, M8211/0=none", "recorded": "none"},
            ("none", "cancer"),
            ("none", "cancer"),
        ),
    ],
)
def test_which_class_is_which(folder, written, settings, classes, words):
    number = np.arange(40) % len(written)
    change(folder, target=np.array(written)[number])
    dataset = at(folder, **settings)
    assert (dataset.classes, dataset.words) == (classes, words)
    assert set(rows(dataset)["target"]) <= set(classes)


@pytest.mark.parametrize(
    ("written", "settings", "message"),
    [
        (("ill", "well"), {"positive": ""}, "which of ill and well is the positive class"),
        (("ill", "well"), {"positive": "sick"}, "which of ill and well is the positive class"),
        (("a", "b", "c"), {"positive": "a"}, "has 3 classes: a, b, c"),
        (("ill",), {}, r"target has one value \(ill\)"),
        (
            tuple(map(str, range(40))),
            {"positive": "", "most_groups": 20},
            r"target has 40 values \(0, 1, 10, 11, 12, …\)",
        ),
        (("ill", "well", "odd"), {"positive": "", "order": "well,ill"}, "target is 'odd' in line 4, which is not"),
        (("ill", "unknown"), {}, r"20 rows have no target \(the first: line 3\)"),
        (("0", "1"), {"positive": "", "answers": "a,b,c"}, "names 3 words for 2 classes"),
        (("0", "1"), {"order": "0,1"}, "both say which class is positive"),
        (("ill", "well"), {"values": "target: well=unknown"}, r"20 rows have no target .*\n.*target: !well'"),
    ],
)
def test_classes_that_are_not_clear(folder, written, settings, message):
    change(folder, target=np.array(written)[np.arange(40) % len(written)])
    with pytest.raises(FairbenchError, match=message):
        described(folder, **settings)


# ── attributes ───────────────────────────────────────────────────────────────────────────────────


def test_values_are_renamed_and_what_nobody_wrote_down_is_missing(folder):
    written = ["W", "m", " m ", "Unknown", "", "n/a", "NaN", "divers", "k.A.", "1.0"]
    expected = ["female", "male", "male", None, None, None, None, "divers", None, "male"]
    change(folder, sex=written * 4)
    dataset = at(folder, values="sex: w=female, m=male, 1=male", unrecorded="unknown,n/a,nan,K.A.")
    assert [None if pd.isna(value) else value for value in rows(dataset)["sex"]] == expected * 4
    assert dataset.attributes["sex"] == ("divers", "female", "male")


def test_values_renamed_to_a_word_for_nothing_are_missing(folder):
    change(folder, sex=["w", "m", "divers", "x"] * 10)
    values = "sex: w=female, m=Unknown, divers=k.A., x=NA"
    dataset = at(folder, values=values, unrecorded="k.A.")
    assert dataset.attributes["sex"] == ("female",)
    assert rows(dataset)["sex"].isna().tolist() == [False, True, True, True] * 10
    assert at(folder, values=values, recorded="na,k.A.").attributes["sex"] == ("female", "k.a.", "na")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ("sex: femal=woman, male=man", "sex is nowhere 'femal', to be renamed 'woman': it has female, male"),
        ("target: sick=ill", "target is nowhere 'sick', to be renamed 'ill': it has ill, well"),
        ("split: fold0=test", "split is nowhere 'fold0', to be renamed 'test': it has test, train, val"),
    ],
)
def test_a_renaming_of_what_no_cell_has_is_cautioned(folder, values, said):
    dataset = at(folder, values=values)
    rows(dataset)
    assert [text for text in dataset.warnings if "nowhere" in text] == [f"table.values: {said}"]


@pytest.mark.parametrize("error", ["#REF!", "#DIV/0!", "#name?", "#BEZUG!", "#NV", "Err:502"])
@pytest.mark.parametrize("column", ["sex", "target", "cluster", "age"])
def test_the_errors_of_a_spreadsheet_are_no_values(folder, column, error):
    change(folder, **{column: people()[column].where(people().index != 5, error), "note": "#VALUE!"})
    with pytest.raises(
        FairbenchError, match=rf"{column} is '{error}' in line 7, a spreadsheet's error".replace("?", r"\?")
    ):
        rows(at(folder))
    if column in ("sex", "age"):
        assert rows(at(folder, unrecorded=error))[column].isna()[5]


@pytest.mark.parametrize(
    ("written", "expected"),
    [(["100,000", "44,5"], "0-200"), (["100,000", "1,000,000"], "201+"), (["100,000", "99.5"], "201+")],
)
def test_a_comma_before_three_digits_means_what_its_column_says(folder, written, expected):
    settings = {"attribute_columns": "plt", "bins": "plt: 0-200, 201+"}
    change(folder, plt=written * 20)
    assert rows(at(folder, **settings))["plt"][0] == expected
    change(folder, plt=["100,000", "99"] * 20)
    for asked in (settings, {"only": "plt: 150+"}):
        with pytest.raises(FairbenchError, match=r"plt is '100,000' in line 2, which may be 100000 or 100\.000"):
            rows(at(folder, **asked))
    renamed = at(folder, **settings, values='plt: "100,000"=100000')
    assert rows(renamed)["plt"].tolist() == ["201+", "0-200"] * 20


@pytest.mark.parametrize(
    ("bins", "written", "expected"),
    [
        ("0-44, 45-64, 65+", ["0", "44", "44.99", "44,5", "45", "64.9", "65", "120"], "0 0 0 0 1 1 2 2"),
        ("<45, 45-65, >=66", ["0", "44.9", "45", "65", "65.5", "66"], "0 0 1 1 1 2"),
        ("<=60, >60", ["60", "60.9", "61"], "0 0 1"),
        ("<18.5, 18.5-24.9, >=25", ["18.4", "18.5", "24.9", "25"], "0 1 1 2"),
        (">=65, <65", ["64", "65"], "1 0"),
        ("0-17 , 18+", ["17", "18.0"], "0 1"),
    ],
)
def test_bins(folder, bins, written, expected):
    change(folder, age=[written[n % len(written)] for n in range(40)])
    dataset = at(folder, bins=f"age: {bins}")
    names = dataset.attributes["age"]
    assert names == tuple(name.replace(" ", "") for name in bins.split(","))
    places = list(map(int, expected.split()))
    assert rows(dataset)["age"].tolist() == [names[places[n % len(written)]] for n in range(40)]


@pytest.mark.parametrize(
    ("columns", "settings", "message"),
    [
        ({"age": "old"}, {}, "age is 'old' in line 2, which lies in none of 0-44, 45\\+"),
        ({"age": "-1"}, {}, "age is '-1' in line 2"),
        ({"age": "24.95"}, {"bins": "age: 0-24.9, 25+"}, "age is '24.95' in line 2"),
        ({}, {"bins": ""}, r"age has 40 values .* too many to compare"),
        ({"age": ["0", "1"] * 20}, {"bins": ""}, "age has the value 0: a number does not say who somebody is"),
        ({"sex": [f"s{n}" for n in range(40)]}, {"most_groups": 39}, "sex has 40 values"),
        ({"sex": ["", "unknown"] * 20}, {}, "sex is empty or unrecorded in every row"),
        ({}, {"attribute_columns": ""}, "nothing says who the patients are"),
        ({}, {"prompt": ""}, "nothing says what to ask"),
        ({}, {"prompt": " "}, "nothing says what to ask"),
        ({}, {"prompt": "", "image_column": "eye"}, "nothing says what to ask, which names the image"),
        ({}, {"attribute_columns": "race"}, "no column 'race'"),
        ({}, {"attribute_columns": "age,split=sex"}, "an attribute cannot be called `split`"),
    ],
)
def test_attributes_that_say_nothing(folder, columns, settings, message):
    change(folder, **columns)
    if "age" not in settings.get("attribute_columns", "age"):
        settings = {"bins": "", **settings}
    with pytest.raises(FairbenchError, match=message):
        rows(at(folder, **settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bins": "age: 0-45, 45+"}, "0-45 and 45\\+ overlap"),
        ({"bins": "age: <=45, >=45"}, "overlap"),
        ({"bins": "age: 0-100, 20-30"}, "overlap"),
        ({"bins": "age: 50-40, 60+"}, "50-40 ends before it begins"),
        ({"bins": "age: young, old"}, "age: 'young' is no bin"),
        ({"bins": "weight: 0-44"}, "its name is not among sex, age"),
        ({"bins": "age 0-44"}, "is not `name: item, item`"),
        ({"values": "sex: w"}, "'w' is not written=meant"),
        ({"values": "race: w=white"}, "its name is not among sex, age, target, split"),
        ({"encoding": "utf-9"}, "table.encoding = 'utf-9': unknown encoding: utf-9"),
        ({"encoding": "hex"}, "table.encoding = 'hex': 'hex' is not a text encoding"),
        ({"fractions": "0.5,0.5"}, "are not the shares"),
        ({"fractions": "0.5,0.4,0.4"}, "are not the shares"),
        ({"fractions": "1,0,0"}, "are not the shares"),
        ({"answers": "yes,Yes"}, "table.answers: 'yes', 'Yes' are not words that all differ"),
        ({"answers": "no, NO ,maybe"}, "are not words that all differ"),
        ({"answers": ["yes", " "]}, "are not words that all differ"),
        ({"order": "stra\u00dfe,STRASSE", "positive": ""}, "table.order: 'straße', 'STRASSE' are not words"),
        ({"attribute_columns": "=sex,age"}, "table.attribute_columns: '=sex' names no attribute"),
        ({"attribute_columns": "age, = "}, "'=' names no attribute"),
        ({"attribute_columns": "age,sex=A,Sex=B"}, "table.attribute_columns: 'sex' is 'A' and 'B'"),
        ({"values": "sex: w=female, W=male"}, "table.values: sex: 'w' is 'female' and 'male'"),
        ({"values": "sex: w=female; sex: m=male"}, "table.values has two sections for sex"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_read(settings, message):
    with pytest.raises(FairbenchError, match=message):
        Table(**{**PLAIN, **settings})


def test_one_group_is_nothing_to_compare(folder):
    change(folder, sex="male")
    dataset = at(folder)
    rows(dataset)
    assert "sex has one value only (male): there is nothing to compare" in dataset.warnings


# ── reading once, and telling data apart ─────────────────────────────────────────────────────────


def test_the_file_is_read_once_until_it_changes(folder, monkeypatch):
    times, real = [], Table._read
    monkeypatch.setattr(Table, "_read", lambda self, path: times.append(path) or real(self, path))
    dataset = at(folder)
    assert all((dataset.attributes, dataset.classes, dataset.words, dataset.notes))
    rows(dataset)
    dataset.fingerprint()
    rows(dataset)
    assert len(times) == 1
    change(folder, sex="male")
    assert dataset.attributes["sex"] == ("male",)
    assert set(rows(dataset)["sex"]) == {"male"}
    assert len(times) == 2


def test_a_fingerprint_notices_what_a_model_would_see(folder, tmp_path):
    before = at(folder).fingerprint()
    moved = shutil.copytree(folder, tmp_path / "moved", copy_function=shutil.copyfile)
    assert at(moved).fingerprint() == before
    for settings in ({"prompt": "Well?"}, {"bins": "age: 0-50, 51+"}, {"positive": "well"}, {"answers": "no,yes"}):
        assert at(folder, **settings).fingerprint() != before, settings
    flipped = people()["target"].where(people().index != 7, people()["target"].map({"ill": "well", "well": "ill"}))
    change(folder, target=flipped)
    assert at(folder).fingerprint() != before
    write(folder)
    assert at(folder).fingerprint() == before
    Image.new("RGB", (8, 6), (9, 9, 200)).save(folder / "7.png")
    assert at(folder).fingerprint() != before


def test_dicom_images_are_images(tmp_path):
    from pydicom.data import get_testdata_file

    frame = people().assign(image="scan.dcm")
    write(tmp_path, frame.assign(id=frame["id"]))
    shutil.copy(get_testdata_file("MR_small.dcm", download=False), tmp_path / "scan.dcm")
    dataset = at(tmp_path)
    assert dataset.image(rows(dataset).iloc[0].to_dict()).size == (64, 64)


def test_pyarrow_reads_nothing_but_columns(tmp_path, folder):
    """A truncated file and a text file are no parquet."""
    buffer = io.BytesIO()
    people().to_parquet(buffer)
    (folder / "people.csv").unlink()
    for data in (buffer.getvalue()[:-20], b"id,image\n", b""):
        (folder / "people.parquet").write_bytes(data)
        with pytest.raises(FairbenchError, match="is no whole parquet file"):
            rows(at(folder))
    (folder / "people.parquet").write_bytes(buffer.getvalue())
    assert len(rows(at(folder))) == 40


# ── several images a row ─────────────────────────────────────────────────────────────────────────


def eyes(folder):
    """Left and right eyes; of every fourth patient the right one is missing."""
    frame = people()
    write(folder, frame)
    right = [None if n % 4 == 3 else f"{(n + 1) % 40}.png" for n in range(40)]
    pictures = [Image.new("RGB", (20, 16), (6 * n, 90, 120)) for n in range(40)]
    for n, picture in enumerate(pictures):
        picture.save(folder / f"{n}.png")
    write_table = frame.drop(columns="image").assign(left=[f"{n}.png" for n in range(40)], right=right)
    write_table.to_csv(folder / "people.csv", index=False)
    return at(folder, image_column="left,right", together="true")


def test_a_row_may_show_several_images_together(tmp_path):
    dataset = eyes(tmp_path)
    found = rows(dataset).set_index("id")
    assert len(found) == 40
    assert most_images(dataset) == 2
    assert found["image"].tolist() == [f"{n}.png" for n in range(40)]
    assert found["further"].tolist() == [() if n % 4 == 3 else (f"{(n + 1) % 40}.png",) for n in range(40)]
    assert any("10 of 40 rows lack some of their images" in note for note in dataset.warnings)
    colours = [[p.getpixel((0, 0))[0] for p in dataset.pictures(row)] for row in rows(dataset).to_dict("records")]
    assert colours == [[6 * n] if n % 4 == 3 else [6 * n, 6 * ((n + 1) % 40)] for n in range(40)]
    before = dataset.fingerprint()
    assert at(tmp_path, image_column="right,left", together="true", only="right: *").fingerprint() != before
    (tmp_path / "10.png").write_bytes(b"")
    again = at(tmp_path, image_column="left,right", together="true", unreadable_share=0.1)
    assert len(rows(again)) == 38, "the row whose left eye it is, and the one whose right eye"
    with pytest.raises(FairbenchError, match=r"10 rows have no right \(the first: line 5\)\n.*only=right: \*'"):
        rows(at(tmp_path, image_column="right,left", together="true"))
    for wrong, said in (({"image_column": "left"}, "names one"), ({"target_column": "target,sex"}, "names 2")):
        with pytest.raises(FairbenchError, match=said):
            at(tmp_path, **{"image_column": "left,right", "together": "true", **wrong})


@pytest.mark.slow
def test_a_model_trains_on_several_images_a_row_and_one_that_cannot_is_refused(tmp_path, monkeypatch):
    eyes(tmp_path / "ward")
    settings = {**PLAIN, "image_column": ("left", "right"), "together": True}
    loaded = plugins.load()
    roots = {"table": tmp_path / "ward"}
    chosen = {"datasets": ("table",), "attributes": ("sex",), "settings": {"table": settings}, "controls": False}
    bench = Benchmark(backbones=("tiny-llava",), methods=(Choice("vanilla"),), **chosen)
    (job,) = plan.jobs(bench, loaded, roots).jobs
    work(0, [job], Setup(str(tmp_path / "runs"), roots), lambda event: None)
    (record,) = Store(tmp_path / "runs").contents().records
    assert record.error is None
    assert record.facts["difference from transformers"] < 1e-5
    monkeypatch.setattr(ToyBackbone, "takes_several", False)
    alone = replace(bench, backbones=("toy-backbone",))
    with pytest.raises(FairbenchError, match="toy-backbone takes one image a row, and table has 2"):
        plan.jobs(alone, plugins.load(files=[TOYS]), roots)
