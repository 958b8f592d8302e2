"""The Dataset contract: what `rows` refuses, keeps and thins out, and what a fingerprint notices."""

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from builders import noise, opened, people, write_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fairbench import Dataset, FairbenchError, ImageFolder
from fairbench.data.dataset import digest, rows
from fairbench.data.splits import limited, split_clusters
from fairbench.predictions.classes import first_named


def sites(count=12):
    return people(count, "pictures/").assign(site=np.resize(np.array(["a", "b", None], dtype=object), count))


class Toy(Dataset):
    name, title, licence, citation = "toy", "Toy", "CC0", "none"
    prompt: str = "Is it?"
    classes = ("no", "yes")
    attributes = {"site": ("a", "b")}

    def __init__(self, frame=None, **settings):
        super().__init__(**settings)
        self.frame, self.version, self.times = sites() if frame is None else frame, None, 0

    def table(self):
        self.times += 1
        self.warnings.append("odd")
        return self.frame

    def stamp(self):
        return self.version

    def image(self, row):
        return Image.new("RGB", (2, 2))


class ToyFolder(ImageFolder):
    name, title, licence, citation, homepage = "toy", "Toy", "CC0", "none", "https://example.org"
    prompt: str = "Is it?"
    classes = ("no", "yes")
    attributes = {"site": ("a", "b")}

    def table(self):
        return self.readable(pd.read_csv(self.root / "people.csv", keep_default_na=True))

    def sources(self):
        return [self.root / "people.csv"]


@pytest.fixture
def folder(tmp_path):
    frame = sites()
    frame.loc[7, "image"] = "pictures/7.bmp"  # as many bytes whatever it shows
    return write_dataset(tmp_path / "data", frame)


# ── what `rows` refuses ──────────────────────────────────────────────────────────────────────────


def change(column, value, row=3):
    def spoil(frame):
        frame[column] = frame[column].astype(object)
        frame.loc[row, column] = value
        return frame

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: f.drop(columns=["cluster", "site"]), "lacks cluster, site"),
        (lambda f: f.iloc[:0], "no rows"),
        (change("id", "i000"), "stand in several rows, for instance 'i000'"),
        *[(change(c, None), f"1 rows have no {c}") for c in ("id", "cluster", "split", "image", "target")],
        (change("split", "testing"), "split has 'testing', which is not among train, val, test"),
        (change("target", "maybe"), "target has 'maybe', which is not among no, yes"),
        (change("target", 1), "target has 1,"),
        (change("site", "c"), "site has 'c', which is not among a, b"),
        (change("site", 0), "site has 0,"),
        (change("site", "A"), "site has 'A',"),
        (change("cluster", "c002"), "1 clusters sit in more than one split, for instance 'c002'"),
    ],
)
def test_rows_refuses_a_broken_table(spoil, message):
    with pytest.raises(FairbenchError, match=message):
        rows(Toy(spoil(sites())))


@pytest.mark.parametrize("name", ["target", "p_0", "split", "a+b"])
def test_an_attribute_cannot_take_a_column_of_the_results(name):
    dataset = Toy(sites().assign(**{name: "a"}))
    dataset.attributes = {name: ("a",)}
    with pytest.raises(FairbenchError, match="cannot be called"):
        rows(dataset)


@pytest.mark.parametrize("value", ["Black", "", " a", "unrecorded", 1])
def test_an_attribute_cannot_declare_an_unclear_value(value):
    dataset = Toy()
    dataset.attributes = {"site": ("a", "b", value)}
    with pytest.raises(FairbenchError, match="cannot have the value"):
        rows(dataset)


def test_free_text_targets_are_for_generation():
    frame = sites().assign(prompt="Findings?", reference="no acute findings").drop(columns="target")
    dataset = Toy(frame)
    dataset.task, dataset.classes = "generate", ()
    assert len(rows(dataset)) == 12
    dataset.times, dataset.classes = 0, ("dark", "bright")
    dataset._known_rows = None
    with pytest.raises(FairbenchError, match="lacks target"):
        rows(dataset)


# ── what `rows` keeps ────────────────────────────────────────────────────────────────────────────


def test_a_table_without_a_stamp_is_read_every_time_and_its_warnings_once():
    dataset = Toy()
    rows(dataset)
    rows(dataset)
    assert dataset.times == 2
    assert dataset.warnings == ["odd"]


def test_a_table_is_kept_until_its_stamp_changes():
    dataset = Toy()
    dataset.version = 1
    first = rows(dataset)
    first["target"] = "spoilt by the caller"
    assert set(rows(dataset)["target"]) == {"no", "yes"}
    assert dataset.times == 1
    dataset.version = 2
    rows(dataset)
    assert dataset.times == 2


def test_an_attribute_recorded_for_nobody_is_a_warning():
    dataset = Toy(sites().assign(site=None))
    rows(dataset)
    assert "site is recorded for nobody" in dataset.warnings


def test_a_folder_notices_changed_files(folder):
    dataset = opened(folder, ToyFolder, unreadable_share=0.1)
    assert len(rows(dataset)) == 12
    (folder / "pictures/3.png").write_bytes(b"spoilt")
    assert len(rows(dataset)) == 11
    changed = pd.read_csv(folder / "people.csv")
    changed.loc[0, "site"] = "b"
    changed.to_csv(folder / "people.csv", index=False)
    assert rows(dataset)["site"].iloc[0] == "b"


# ── limit and splits ─────────────────────────────────────────────────────────────────────────────


@st.composite
def crowds(draw):
    """Tables of clusters of one to four rows, each in one split and one class."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=6, max_size=120))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    split = generator.choice(["train", "val", "test"], len(sizes), p=[0.6, 0.15, 0.25])
    split[:3] = ["train", "val", "test"]
    target = generator.choice(["no", "yes"], len(sizes), p=[0.8, 0.2])
    site = generator.choice(["a", "b", None], len(sizes))
    frame = pd.DataFrame({"split": split, "target": target, "site": site, "cluster": range(len(sizes))})
    frame = frame.loc[frame.index.repeat(sizes)].reset_index(drop=True)
    frame["cluster"] = "c" + frame["cluster"].astype(str)
    return frame.assign(id=[f"i{n}" for n in range(len(frame))])


@settings(deadline=None, max_examples=60)
@given(crowds(), st.floats(0.02, 0.98))
def test_limit_keeps_whole_clusters_in_proportion(table, share):
    limit = max(1, int(share * len(table)))
    kept = limited(table, limit, ["site"])
    share = limit / len(table)
    assert set(kept["split"]) == {"train", "val", "test"}
    sizes = table.groupby("cluster").size()
    assert kept.groupby("cluster").size().equals(sizes[sizes.index.isin(kept["cluster"])])
    for keys in (["split"], ["split", "target"]):
        before = table.groupby(keys)["cluster"].nunique()
        after = kept.groupby(keys)["cluster"].nunique().reindex(before.index, fill_value=0)
        assert ((after - share * before).abs() <= 1).all()
    shuffled = limited(table.sample(frac=1, random_state=1), limit, ["site"])
    assert set(shuffled["id"]) == set(kept["id"])


@settings(deadline=None, max_examples=60)
@given(st.integers(30, 400), st.integers(1, 30))
def test_limit_is_met_where_clusters_are_single(count, limit):
    table = people(2 * count).drop_duplicates("cluster")
    assert limit - 1 <= len(limited(table, limit, [])) <= max(limit, 3) + 1


def test_limit_is_a_setting_that_rows_applies():
    assert 4 <= len(rows(Toy(sites(48), limit=6))) <= 10
    assert len(rows(Toy(sites(48), limit=48))) == 48


@settings(deadline=None, max_examples=60)
@given(crowds(), st.integers(0, 5))
def test_split_clusters_keeps_clusters_whole_and_classes_in_proportion(table, seed):
    fractions = (0.6, 0.2, 0.2)
    split = split_clusters(table, "target", fractions, seed)
    assert (split.groupby(table["cluster"]).nunique() == 1).all()
    largest = table.groupby("cluster").size().max()
    for name, share in zip(("train", "val", "test"), fractions, strict=True):
        for target, part in table.groupby("target"):
            got = (split[part.index] == name).sum()
            assert abs(got - share * len(part)) <= largest, (name, target)
    order = table.sample(frac=1, random_state=2)
    assert split_clusters(order, "target", fractions, seed).sort_index().equals(split.sort_index())


def test_split_seeds_draw_different_splits_and_repeat_themselves():
    table = people(400)
    table["target"] = "no"
    splits = [split_clusters(table, "target", (0.5, 0.25, 0.25), seed) for seed in (0, 0, 1)]
    assert splits[0].equals(splits[1])
    assert 0.2 < (splits[0] != splits[2]).mean() < 0.9
    names = sorted(set(table["cluster"]), key=lambda name: hashlib.sha256(f"0:{name}".encode()).digest())
    expected = dict(zip(names, ["train"] * 100 + ["val"] * 50 + ["test"] * 50, strict=True))
    assert splits[0].to_dict() == table["cluster"].map(expected).to_dict()


# ── paths ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "path",
    ["../x.png", "/etc/passwd", "a/../../b", "..\\b.png", "C:\\b.png", "c:b", "\\\\host\\b", "", ".", "a\0b"],
)
def test_a_path_that_leaves_the_folder_is_refused(folder, path):
    with pytest.raises(FairbenchError, match="not inside"):
        opened(folder, ToyFolder).path(path)
    frame = sites()
    frame.loc[5, "image"] = path
    dataset = opened(folder, ToyFolder)
    dataset.table = lambda: dataset.readable(frame)
    with pytest.raises(FairbenchError, match="not inside"):
        rows(dataset)


def test_windows_separators_are_understood(folder):
    assert opened(folder, ToyFolder).path("pictures\\1.png") == folder / "pictures/1.png"


# ── unreadable files ─────────────────────────────────────────────────────────────────────────────


def test_unreadable_files_are_listed_and_left_out(folder):
    (folder / "pictures/3.png").write_bytes((folder / "pictures/3.png").read_bytes()[:40])
    (folder / "pictures/5.png").unlink()
    dataset = opened(folder, ToyFolder, unreadable_share=0.2)
    table = rows(dataset)
    assert len(table) == 10
    assert set(dataset.unreadable) == {"pictures/3.png", "pictures/5.png"}
    (warning,) = dataset.warnings
    assert "2 of 12 images cannot be read" in warning
    assert "pictures/5.png: there is no such file" in warning
    with pytest.raises(FairbenchError, match=r"more than the 10\.00%") as error:
        rows(opened(folder, ToyFolder, unreadable_share=0.1))
    assert "https://example.org" in error.value.hint


def test_an_image_that_vanishes_later_is_an_error_with_its_path(folder):
    dataset = opened(folder, ToyFolder)
    row = rows(dataset).iloc[4].to_dict()
    assert dataset.image(row).size == (8, 6)
    os.unlink(folder / "pictures/4.png")
    with pytest.raises(FairbenchError, match=r"4\.png: there is no such file"):
        dataset.image(row)


# ── fingerprints ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("verify", ["decode", "structure"])
def test_a_fingerprint_notices_content_and_nothing_else(folder, tmp_path, verify):
    def print_of(root, **settings):
        return opened(root, ToyFolder, verify=verify, **settings).fingerprint()

    before = print_of(folder)
    moved = Path(shutil.copytree(folder, tmp_path / "moved", copy_function=shutil.copyfile))
    assert print_of(moved, unreadable_share=0.5) == before, "another place, other times, same data"
    assert print_of(folder, prompt="Is it not?") != before
    assert print_of(folder, limit=8) != before
    size = (moved / "pictures/7.bmp").stat().st_size
    noise(200).save(moved / "pictures/7.bmp")
    assert (moved / "pictures/7.bmp").stat().st_size == size
    assert print_of(moved) != before


def test_a_fingerprint_notices_the_words_of_the_answer():
    class Worded(Toy):
        words = ("nope", "yep")

    assert Worded().fingerprint() != Toy().fingerprint()


cells = st.one_of(st.none(), st.text(max_size=3))


@settings(deadline=None, max_examples=60)
@given(st.lists(cells, max_size=4), st.lists(cells, max_size=4))
def test_digest_tells_tables_apart(left, right):
    one, two = (pd.DataFrame({"a": pd.Series(values, dtype=object)}) for values in (left, right))
    assert (digest(one) == digest(two)) == (left == right)


def test_digest_keeps_fields_apart():
    assert digest(pd.DataFrame({"a": ["x", "b"]})) != digest(pd.DataFrame({"a": ["x"], "b": [None]}))
    assert digest(pd.DataFrame({"a": ["x"]}), "y", "z") != digest(pd.DataFrame({"a": ["x"]}), "yz")
    assert digest(sites()) != digest(sites().iloc[::-1]), "the order of rows decides the batches"
    assert digest(sites()) == digest(sites()[sorted(sites())])


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("Melanoma.", 0),
        ("a nevus, not a melanoma", 1),
        ("This is a melanocytic nevus", 2),  # the longer of two names at one place …
        ("melanocytic nevus or melanoma", 2),  # … and the first of two places
        ("melanomas", -1),
        ("", -1),
    ],
)
def test_the_first_class_named_is_the_answer(text, index):
    assert first_named(text, ["melanoma", "nevus", "melanocytic nevus"]) == index
