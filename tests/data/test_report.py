"""The report on a dataset: right counts, everything that is wrong, and text that cannot inject markup."""

import io
import json

import numpy as np
import pandas as pd
import pytest
from builders import opened, people, write_dataset
from PIL import Image
from rich.console import Console

from fairbench import FairbenchError, ImageFolder
from fairbench.data.dataset import rows
from fairbench.data.report import check
from fairbench.report.dataset import render


class Ward(ImageFolder):
    name, title, licence, citation = "ward", "Ward [bold]B[/bold]", "CC0", "Nobody 2026"
    homepage, publishable = "https://example.org", "everything"
    prompt: str = "Is it?"
    classes = ("no", "yes")
    attributes = {"site": ("a", "b"), "sex": ("female", "male")}
    notes = ("made up",)

    def table(self):
        return self.readable(pd.read_csv(self.root / "ward.csv"))


@pytest.fixture
def ward(tmp_path):
    """48 images of 24 patients, every combination of split, class and site alike."""
    number = np.arange(48)
    target, site = np.where(number % 2, "yes", "no"), np.where(number < 24, "a", "b")
    return opened(write_dataset(tmp_path, people(48).assign(target=target, site=site), "ward.csv"), Ward)


def edit(dataset, change):
    path = dataset.root / "ward.csv"
    frame = pd.read_csv(path)
    change(frame)
    frame.to_csv(path, index=False)


def printed(report):
    console = Console(file=io.StringIO(), width=100)
    render(report, console)
    return console.file.getvalue()


def test_counts(ward):
    report = check(ward)
    assert report.usable
    assert report.rows == 48
    assert report.clusters == {"train": 12, "val": 6, "test": 6}
    assert report.counts["test"] == {"no": 6, "yes": 6}
    assert report.groups["site"]["a"] == {
        split: {"no": n, "yes": n} for split, n in (("train", 6), ("val", 3), ("test", 3))
    }
    frame = pd.read_csv(ward.root / "ward.csv")
    for value, part in frame.groupby(frame["sex"].fillna("unrecorded")):
        expected = pd.crosstab(part["split"], part["target"]).to_dict("index")
        assert report.groups["sex"][value] == expected
    assert report.missing == {"site": 0, "sex": 16}
    assert list(report.groups["sex"]) == ["female", "male", "unrecorded"]
    assert report.fingerprint == ward.fingerprint()
    assert (report.duplicates, report.leaking, report.unreadable, report.cautions) == ((), {}, {}, ())


def test_the_report_is_json(ward):
    data = json.loads(json.dumps(check(ward).to_json()))
    assert data["usable"] is True
    assert data["licence"] == "CC0"
    assert data["groups"]["site"]["b"]["train"] == {"no": 6, "yes": 6}


def test_leakage_is_a_problem_and_everything_is_still_counted(ward):
    edit(ward, lambda f: f.__setitem__("split", f["split"].where(f["id"] != "i003", "test")))
    report = check(ward)
    assert not report.usable
    assert report.leaking == {"c001": ("test", "train")}
    assert "1 clusters sit in more than one split" in report.problems[0]
    assert report.rows == 48
    assert report.fingerprint is None
    assert "cluster c001 in test, train" in printed(report)


def test_every_problem_is_reported_not_only_the_first(ward):
    def spoil(frame):
        frame.loc[0, "id"] = "i001"
        frame.loc[1, "site"] = "c"
        frame.loc[2, "target"] = "maybe"

    edit(ward, spoil)
    problems = " ".join(check(ward).problems)
    assert all(word in problems for word in ("stand in several rows", "site has 'c'", "target has 'maybe'"))


def test_unreadable_files_are_all_listed_and_judged(ward):
    for n in (3, 4):
        (ward.root / f"{n}.png").write_bytes(b"no image")
    report = check(ward)
    assert set(report.unreadable) == {"3.png", "4.png"}
    assert report.rows == 46
    assert "4.17%, more than the 1.00% tolerated" in report.problems[0]
    assert ward.unreadable_share == 0.01, "the caller's dataset stays as strict as it was"
    ward.unreadable_share = 0.05
    assert check(ward).usable


def test_a_damaged_file_counts_for_each_row_that_shows_it_as_in_a_run(ward):
    edit(ward, lambda frame: frame.update({"image": ["0.png"] * 10}))
    (ward.root / "0.png").write_bytes(b"no image")
    ward.unreadable_share = 0.1
    assert "the images of 10 rows cannot be read: 20.83%" in check(ward).problems[0]
    with pytest.raises(FairbenchError, match="10 of 48 images cannot be read"):
        rows(ward)


def test_duplicates_across_splits_and_classes_are_cautions(ward):
    train, test = 0, 7
    (ward.root / f"{test}.png").write_bytes((ward.root / f"{train}.png").read_bytes())
    report = check(ward)
    (duplicate,) = report.duplicates
    assert duplicate.ids == ("i000", "i007")
    assert duplicate.splits == ("test", "train")
    text = " ".join(report.cautions)
    assert all(f"in several {what}, for instance i000 = i007" in text for what in ("splits", "clusters", "classes"))
    ward.verify = "structure"
    assert check(ward).duplicates is None
    assert "not looked for" in printed(check(ward))


def test_empty_cells_are_cautions(ward):
    edit(ward, lambda f: f.__setitem__("target", f["target"].where(f["site"] != "b", "no")))
    assert "test has no yes with site b: rates that need them are undefined" in check(ward).cautions


def test_limit_shows(ward):
    ward.limit = 24
    assert check(ward).rows == 24


def test_published_counts_are_laid_beside_those_found(ward):
    right = {"all": 48, "train": 24, "yes": 24, "test no": 6, "site=a": 24, "val site=b": 6, "sex=unrecorded": 16}
    ward.published = right | {"test sex=male": 99, "yes sex=male": 4, "sex=mole": 1, "maybe": 2}
    report = check(ward)
    frame = pd.read_csv(ward.root / "ward.csv")
    men = int(((frame["split"] == "test") & (frame["sex"] == "male")).sum())
    counts = {key: count["found"] for key, count in report.published.items()}
    assert counts == right | {"test sex=male": men}
    assert report.cautions == (
        *(f"the published count of `{key}` was not compared: it names nothing that is here"
          for key in ("yes sex=male", "sex=mole", "maybe")),
        f"test sex=male: 99 rows are published, {men} were found",
    )  # fmt: skip
    (line,) = [line for line in printed(report).splitlines() if "test sex=male" in line and "│" in line]
    assert line.split("│")[2:5] == ["        99 ", f"     {men} ", f"        {men - 99} "]
    ward.limit = 24
    assert check(ward).published == {}
    assert "published counts were not compared, because `limit` leaves rows out" in check(ward).cautions


def test_a_class_or_group_that_a_split_lacks_is_a_caution_of_its_own(ward):
    def shift(frame):
        frame.loc[(frame["split"] == "val") & (frame["site"] == "b"), "site"] = "a"
        frame.loc[frame["split"] == "test", "target"] = "no"

    edit(ward, shift)
    cautions = check(ward).cautions
    assert "val has nobody with site b" in cautions
    assert "test has nobody with target yes" in cautions


def test_a_lost_file_shows_in_the_published_counts(ward):
    ward.published, ward.unreadable_share = {"all": 48}, 0.1
    (ward.root / "3.png").write_bytes(b"no image")
    assert "all: 48 rows are published, 47 were found" in check(ward).cautions


def shade(low, high, size=(40, 30)):
    noise = np.random.default_rng(0).integers(low, high + 1, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(noise)


def labelled(image):
    """A bright mark in one corner, as on a radiograph."""
    image.paste((255, 255, 255), (0, 0, 3, 3))
    return image


@pytest.mark.parametrize(
    ("image", "remark"),
    [
        (Image.new("RGB", (9, 9), (7, 7, 8)), "constant (7, 7, 8)"),
        (shade(0, 12), "nearly black (99 % of its pixels are at most 1"),
        (labelled(shade(0, 12)), "nearly black (99 % of its pixels are at most 1"),
        (shade(200, 212), "nearly uniform (98 % of its pixels lie from 20"),
        (shade(0, 30), ""),
        (shade(100, 160), ""),
    ],
)
def test_pictures_that_show_nothing_are_remarked_on(ward, image, remark):
    image.save(ward.root / "3.png")
    report = check(ward)
    assert set(report.remarks) == ({"3.png"} if remark else set())
    assert report.remarks.get("3.png", "").startswith(remark)
    said = [caution for caution in report.cautions if "show nothing" in caution]
    assert len(said) == bool(remark)
    assert report.usable
    if remark:
        assert said[0].startswith(f"1 images of 48 rows show nothing, for instance 3.png: {remark}")
        assert "3.png: " in printed(report)


def test_headers_say_nothing_about_what_pictures_show(ward):
    Image.new("RGB", (5, 5)).save(ward.root / "3.png")
    ward.verify = "structure"
    assert check(ward).remarks == {}


def test_questions_and_answers_are_measured(ward):
    def ask(frame):
        frame["prompt"] = ["Findings?", "What do you see in this image?"] * 24
        frame["reference"] = ["no acute findings"] * 46 + [" ", "word " * 40]
        del frame["target"]

    edit(ward, ask)
    ward.task, ward.classes = "generate", ()
    (ward.root / "7.png").write_bytes((ward.root / "0.png").read_bytes())
    report = check(ward)
    assert report.usable, report.problems
    assert report.lengths == {
        "prompt": {"least": 1, "median": 4, "most": 7},
        "reference": {"least": 0, "median": 3, "most": 40},
    }
    assert report.cautions[:2] == (
        "1 references are empty: there is nothing to learn from them",
        "1 references have more words than the 32 tokens to be written",
    )
    assert report.counts["test"] == {"all": 12}
    assert report.duplicates[0].targets == ()
    assert "reference: 0 to 40, median 3" in printed(report)


def test_several_questions_about_one_image_are_no_copies_of_it(ward):
    def again(frame):
        frame["prompt"], frame["reference"] = "Findings?", "none"
        frame.loc[1, "image"] = "0.png"

    edit(ward, again)
    ward.task = "generate"
    assert check(ward).duplicates == ()
    ward.task = "classify"
    assert check(ward).duplicates[0].ids == ("i000", "i001")


def test_what_cannot_be_counted_is_raised(ward):
    edit(ward, lambda f: f.pop("site"))
    with pytest.raises(FairbenchError, match="lacks site"):
        check(ward)


def test_text_from_data_is_not_markup(ward):
    text = printed(check(ward))
    assert "Ward [bold]B[/bold] (ward): 48 rows" in text
    for part in ("CC0", "Nobody 2026", "everything", "made up", "https://example.org"):
        assert part in text
