"""`data example`, `data sample` and `data check` as a user meets them, on every dataset that has an example."""

import json
import shlex

import numpy as np
import pandas as pd
import pytest
from builders import call, opened
from fairbench_plugins.datasets.table import EXAMPLE
from matplotlib.axes import Axes
from matplotlib.text import Text
from PIL import Image

from fairbench import FairbenchError
from fairbench import plugins as plugin_loader
from fairbench.data import contact_sheet
from fairbench.data.dataset import Dataset, rows

DATASETS = plugin_loader.load(("dataset",)).tables["dataset"]
EXAMPLES = [name for name, kind in DATASETS.items() if kind.example.__func__ is not Dataset.example.__func__]


@pytest.fixture(scope="module")
def ward(tmp_path_factory):
    """The folder of `data example table`, and the words that read it."""
    folder = tmp_path_factory.mktemp("example") / "ward"
    said = call("data", "example", "table", folder).stdout
    command = shlex.split(said.split("look at it: ")[1])
    assert command[:4] == ["fairbench", "data", "check", "table"]
    return folder, command[4:]


def at(folder):
    return opened(folder, DATASETS["table"], **EXAMPLE)


# ── example ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_command_that_an_example_prints_finds_nothing_wrong(name, tmp_path):
    said = call("data", "example", name, tmp_path / "new" / name).stdout
    files = [path for path in (tmp_path / "new" / name).rglob("*") if path.is_file()]
    assert said.startswith(f"written: {len(files)} files in {tmp_path}/new/{name}, all of it made up\n")
    command = shlex.split(said.split("look at it: ")[1])
    assert command[:3] == ["fairbench", "data", "check"]
    report = json.loads(call(*command[1:], "--json").stdout)
    assert report["usable"], report["problems"]
    assert report["unreadable"] == {}
    assert report["rows"] > 20
    assert set(report["groups"]) == set(report["missing"])


def test_there_is_an_example_of_each_dataset_with_a_folder_of_its_own():
    assert {"table"} <= set(EXAMPLES)


def test_an_example_never_writes_into_what_is_there(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("")
    for there in ("mine", "file"):
        error = call("data", "example", "table", tmp_path / there, code=2).stderr
        assert (
            error
            == f"error: {tmp_path / there} is there already and is not an empty folder\nhint: name a new folder\n"
        )
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    (tmp_path / "empty").mkdir()
    call("data", "example", "table", tmp_path / "empty")


def test_a_dataset_that_needs_no_folder_says_so_and_leaves_none(tmp_path):
    error = call("data", "example", "fundus-sim", tmp_path / "new", code=2).stderr
    assert error == "error: fundus-sim needs no folder\nhint: use it as it is\n"
    assert not (tmp_path / "new").exists()


# ── sample ───────────────────────────────────────────────────────────────────────────────────────


def test_a_sheet_is_written_with_its_warning(ward, tmp_path):
    result = call("data", "sample", "table", *ward[1], "--out", tmp_path / "a/sheet.png", "--rows", "9")
    assert result.stdout == f"written: {tmp_path}/a/sheet.png (9 rows)\n"
    dataset = DATASETS["table"]
    assert f"licence: {dataset.licence}; may be published: {dataset.publishable}" in result.stderr
    assert "must not leave your hands" in result.stderr
    with Image.open(tmp_path / "a/sheet.png") as sheet:
        assert sheet.format == "PNG"
        assert abs(sheet.width - contact_sheet.ACROSS * contact_sheet.SIDE * 1.1) < 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--by", "race"], "no attribute of table is called `race`"),
        (["--out", "sheet.jpg"], "sheet.jpg: a contact sheet is a PNG\nhint: call it sheet.png"),
        (["--out", "/proc/absent/sheet.png"], "cannot write /proc/absent/sheet.png"),
        (["--rows", "0"], "0 is not in the range"),
        (["--split", "holdout"], "'holdout' is not one of"),
    ],
)
def test_a_sheet_that_cannot_be(ward, words, message):
    assert message in call("data", "sample", "table", *ward[1], *words, code=2).stderr


def test_a_sample_is_the_same_each_time_and_spread(ward):
    dataset = at(ward[0])
    chosen = contact_sheet.sample(dataset, 12)
    assert chosen["id"].tolist() == contact_sheet.sample(at(ward[0]), 12)["id"].tolist()
    assert chosen["cluster"].is_unique, "twelve patients, not twelve views of a few"
    table = rows(dataset)
    for trait in ("split", "target", "sex", "age"):
        counts = chosen[trait].value_counts(dropna=False)
        assert set(counts.index.fillna("-")) == set(table[trait].fillna("-").unique()), trait
        assert counts.max() - counts.min() <= 4, f"{trait}: {counts.to_dict()}"
    shares = chosen["sex"].isna().mean() / table["sex"].isna().mean()
    assert shares > 2, "what is rare is shown as well"


def test_a_sample_of_everything_is_everything(ward):
    dataset = at(ward[0])
    assert sorted(contact_sheet.sample(dataset, 600)["id"]) == rows(dataset)["id"].tolist()


def words(sheet):
    """Everything that is written on a sheet."""
    return [text.get_text() for text in sheet.findobj(Text) if text.get_text()]


def test_a_split_alone_and_a_line_for_each_value(ward):
    dataset = at(ward[0])
    chosen = contact_sheet.sample(dataset, 9, split="test", by="sex")
    assert set(chosen["split"]) == {"test"}
    there = rows(dataset)["sex"][rows(dataset)["split"] == "test"].fillna("-").value_counts()
    counts = chosen["sex"].fillna("-").value_counts()
    assert counts.to_dict() == {value: min(3, count) for value, count in there.items()}
    said = words(contact_sheet.draw(dataset, chosen, by="sex", split="test"))
    assert {f"sex {value}: {counts[value]} of {there[value]} rows" for value in ("female", "male")} <= set(said)


def test_a_picture_stands_over_its_own_words(ward, monkeypatch):
    """Every row's picture is drawn once, whole, over its id, target, split and groups."""
    dataset = at(ward[0])
    chosen = contact_sheet.sample(dataset, 10, by="age").set_index("id", drop=False).rename_axis(None)
    colours = {row: (20 * n + 15, 250 - 20 * n, 90) for n, row in enumerate(chosen["id"])}
    monkeypatch.setattr(dataset, "image", lambda row: Image.new("RGB", (300, 200), colours[row["id"]]))
    sheet = contact_sheet.draw(dataset, chosen, by="age")
    shown = [axis for axis in sheet.findobj(Axes) if axis.images]
    assert len(shown) == len(chosen)
    for axis in shown:
        ((picture,), (caption,)) = axis.images, axis.texts
        name, target, split, sex, *rest = caption.get_text().splitlines()
        row = chosen.loc[name]
        assert (np.asarray(picture.get_array()) == colours[name]).all()
        assert picture.get_array().shape == (96, 144, 3)
        recorded = "unrecorded" if pd.isna(row["sex"]) else row["sex"]
        assert (target, split, sex) == (row["target"], f"split {row['split']}", f"sex {recorded}")
        assert not rest
    for value, count in rows(dataset)["age"].fillna("unrecorded").value_counts().items():
        part = int(chosen["age"].fillna("unrecorded").eq(value).sum())
        assert f"age {value}: {part} of {count} rows" in words(sheet)
    assert "must not leave your hands" in " ".join(words(sheet))


def test_what_comes_from_data_is_no_mathematics_and_never_wider_than_its_picture(ward, tmp_path):
    dataset = at(ward[0])
    dataset.title = r"Ward $\frac{1}{0$"
    chosen = contact_sheet.sample(dataset, 1).assign(id=r"$\nonsense " + 9 * "very long ")
    sheet = contact_sheet.draw(dataset, chosen)
    contact_sheet.write(sheet, tmp_path / "sheet.png")
    (caption,) = next(axis for axis in sheet.findobj(Axes) if axis.images).texts
    assert caption.get_text().startswith(r"$\nonsense very")
    assert caption.get_window_extent().width <= contact_sheet.SIDE * 1.1


def test_no_rows_is_an_error(ward):
    dataset = at(ward[0])
    table = rows(dataset)
    dataset._known_rows = (dataset.stamp(), table[table["split"] != "val"])
    with pytest.raises(FairbenchError, match="table has no rows in val"):
        contact_sheet.sample(dataset, 3, split="val")
