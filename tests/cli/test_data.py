"""`data example`, `data sample` and `data check` as a user meets them, on every dataset that has an example."""

import json
import shlex
import shutil

import numpy as np
import pandas as pd
import pytest
import tomli_w
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


# ── check ────────────────────────────────────────────────────────────────────────────────────────


def benchmark_file(folder, *words, **keys):
    """Write what a benchmark file says of the example's folder; return its path."""
    settings = {key: value.split(",") if key == "attribute_columns" else value for key, value in EXAMPLE.items()}
    settings["unrecorded"] = settings["unrecorded"].split(",")
    path = folder / "b.toml"
    path.write_text(
        tomli_w.dumps({"datasets": ["table"], "backbones": ["tiny-qwen2.5-vl"], "methods": ["vanilla"], **keys,
                       "settings": {"table": {**settings, "title": "Ward [B]"}}})
    )  # fmt: skip
    return path


def test_a_benchmark_file_says_what_ten_options_would(ward, tmp_path):
    folder, words = ward
    path = benchmark_file(tmp_path)
    asked = json.loads(call("data", "check", "table", *words, "--json").stdout)
    filed = json.loads(call("data", "check", path, "--data", f"table={folder}", "--json").stdout)
    for report in (asked, filed):
        del report["settings"], report["title"], report["fingerprint"]
    assert filed == asked
    sheet = tmp_path / "sheet.png"
    call("data", "sample", path, "--data", f"table={folder}", "--out", sheet, "--rows", 3)
    assert sheet.is_file()
    assert "Ward [B] (table)" in call("data", "check", path, "--data", f"table={folder}").stdout


def test_a_check_of_a_file_refuses_what_a_plan_would(ward, tmp_path):
    path = benchmark_file(tmp_path, attributes=["race"])
    said = call("data", "check", path, "--data", f"table={ward[0]}", code=2).stderr
    assert "no attribute of table is called `race`" in said


REFUSED = {
    "thresholds needs the scores of two classes": {"methods": ["vanilla", "thresholds"]},
    "no method is called `vanila`": {"methods": ["vanila"]},
    "no setting of gr is called `caps`": {"methods": [{"name": "gr", "caps": 1.0}]},
    "no backbone is called `tiny`": {"backbones": ["tiny"]},
}


@pytest.mark.parametrize("said", REFUSED)
def test_a_check_of_a_file_refuses_methods_and_backbones_as_a_plan_does(tmp_path, said):
    path = tmp_path / "b.toml"
    benchmark = {"datasets": ["fundus-sim-vqa"], "backbones": ["tiny-llava"], "methods": ["vanilla"]}
    path.write_text(tomli_w.dumps({**benchmark, "attributes": ["race"], **REFUSED[said]}))
    checked, planned = (call(*words, path, code=2).stderr for words in (("data", "check"), ("plan",)))
    assert checked == planned
    assert said in checked


def test_a_problem_is_a_status(ward, tmp_path):
    folder = shutil.copytree(ward[0], tmp_path / "ward")
    for path in sorted((folder / "Bilder").iterdir())[:4]:
        path.write_bytes(path.read_bytes()[:60])
    words = [word.replace(str(ward[0]), str(folder)) for word in ward[1]]
    said = call("data", "check", "table", *words, code=1).stdout
    assert "the images of 4 rows cannot be read: 2.82%, more than the 1.00% tolerated" in " ".join(said.split())
    assert json.loads(call("data", "check", "table", *words, "--json", code=1).stdout)["usable"] is False
    call("data", "check", "table", *words, "--set", "table.unreadable_share=0.1")


def test_backbones_are_tried_on_every_size_of_image(ward, tmp_path):
    folder = shutil.copytree(ward[0], tmp_path / "ward")
    Image.new("RGB", (1000, 4)).save(folder / "Bilder/0003.png")
    words = [word.replace(str(ward[0]), str(folder)) for word in ward[1]]
    report = json.loads(call("data", "check", "table", *words, "--backbones", "tiny-qwen2.5-vl", "--json").stdout)
    ((row, why),) = report["refused"]["tiny-qwen2.5-vl"].items()
    assert row == "2024-0003"
    assert why.startswith(
        "Bilder/0003.png, 1000×4 pixels: ValueError: absolute aspect ratio must be smaller than 200"
    )
    assert "tiny-qwen2.5-vl cannot take 1 rows: 0.70%; a run leaves them out" in report["cautions"]
    call(
        "data",
        "check",
        "table",
        *words,
        "--backbones",
        "tiny-qwen2.5-vl",
        "--set",
        "table.unreadable_share=0",
        code=1,
    )


def test_power_needs_a_table_and_no_images(ward, tmp_path):
    folder = shutil.copytree(ward[0], tmp_path / "ward")
    shutil.rmtree(folder / "Bilder")
    path = benchmark_file(tmp_path)
    words = ("plan", path, "--power", "--data", f"table={folder}")
    with_images = call("plan", path, "--power", "--data", f"table={ward[0]}").stdout
    assert call(*words).stdout == with_images
    assert "sex" in with_images
