"""`data example`, `data sample` and `data check` as a user meets them, on every dataset that has an example."""

import json
import shlex

import numpy as np
import pytest
from builders import call, opened
from PIL import Image, ImageFont

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
    return opened(folder, DATASETS["table"], **DATASETS["table"].example_settings)


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
        assert (sheet.format, sheet.width) == ("PNG", contact_sheet.ACROSS * (contact_sheet.SIDE + 12) + 12)


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


def drawn(monkeypatch):
    """What is written on sheets from now on: text → places."""
    said: dict[str, list[tuple[float, float]]] = {}
    real = contact_sheet.ImageDraw.ImageDraw.text

    def text(pen, place, words, *rest):
        said.setdefault(words, []).append(place)
        return real(pen, place, words, *rest)

    monkeypatch.setattr(contact_sheet.ImageDraw.ImageDraw, "text", text)
    return said


def test_a_split_alone_and_a_line_for_each_value(ward, monkeypatch):
    dataset = at(ward[0])
    chosen = contact_sheet.sample(dataset, 9, split="test", by="sex")
    assert set(chosen["split"]) == {"test"}
    there = rows(dataset)["sex"][rows(dataset)["split"] == "test"].fillna("-").value_counts()
    counts = chosen["sex"].fillna("-").value_counts()
    assert counts.to_dict() == {value: min(3, count) for value, count in there.items()}
    said = drawn(monkeypatch)
    contact_sheet.draw(dataset, chosen, by="sex", split="test")
    assert {f"sex {value}: {counts[value]} of {there[value]} rows" for value in ("female", "male")} <= set(said)


def test_a_picture_stands_where_its_caption_says(ward, monkeypatch):
    """Every row's picture is drawn once, in its section, over its own words."""
    dataset = at(ward[0])
    chosen = contact_sheet.sample(dataset, 10, by="age")
    colours = {row: (20 * n + 15, 250 - 20 * n, 90) for n, row in enumerate(chosen["id"])}
    monkeypatch.setattr(dataset, "image", lambda row: Image.new("RGB", (300, 200), colours[row["id"]]))
    said = drawn(monkeypatch)
    sheet = np.asarray(contact_sheet.draw(dataset, chosen, by="age"))
    for name, colour in colours.items():
        where = np.argwhere((sheet == colour).all(axis=2))
        assert len(where) == contact_sheet.SIDE * contact_sheet.SIDE * 2 // 3, "whole, not cut"
        ((left, _),) = said[name]
        assert left == where[:, 1].min(), "the id stands under its picture"
    for value, count in rows(dataset)["age"].fillna("unrecorded").value_counts().items():
        part = int(chosen["age"].fillna("unrecorded").eq(value).sum())
        assert f"age {value}: {part} of {count} rows" in said
    for trait in ("target", "split"):
        for value, count in chosen[trait].value_counts().items():
            assert len(said[f"{'split ' if trait == 'split' else ''}{value}"]) == count
    assert "must not leave your hands" in " ".join(said)


def test_long_words_are_cut_to_the_width_of_a_picture():
    font = ImageFont.load_default(contact_sheet.TEXT)
    fitted = contact_sheet._fitted("localization  lower\nextremity of a very long name", font)
    assert fitted.startswith("localization lower")
    assert fitted.endswith("…")
    assert font.getlength(fitted) <= contact_sheet.SIDE
    assert contact_sheet._fitted("short", font) == "short"


def test_no_rows_is_an_error(ward):
    dataset = at(ward[0])
    table = rows(dataset)
    dataset._known_rows = (dataset.stamp(), table[table["split"] != "val"])
    with pytest.raises(FairbenchError, match="table has no rows in val"):
        contact_sheet.sample(dataset, 3, split="val")
