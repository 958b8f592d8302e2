"""The report on a dataset: right counts, everything that is wrong, and text that cannot inject markup."""

import io
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from fairbench import FairbenchError, ImageFolder
from fairbench.check import check, render


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
    frame = pd.DataFrame(
        {
            "id": [f"i{n:02d}" for n in number],
            "cluster": [f"c{n // 2:02d}" for n in number],
            "split": np.array(["train", "train", "val", "test"])[number // 2 % 4],
            "image": [f"{n}.png" for n in number],
            "target": np.where(number % 2, "yes", "no"),
            "site": np.where(number < 24, "a", "b"),
            "sex": np.array(["female", "male", None], dtype=object)[number % 3],
        }
    )
    frame.to_csv(tmp_path / "ward.csv", index=False)
    for n in number:
        Image.new("RGB", (5, 5), (n, n, 9)).save(tmp_path / f"{n}.png")
    dataset = Ward()
    dataset.root = tmp_path
    return dataset


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
    edit(ward, lambda f: f.__setitem__("split", f["split"].where(f["id"] != "i03", "test")))
    report = check(ward)
    assert not report.usable
    assert report.leaking == {"c01": ("test", "train")}
    assert "1 clusters sit in more than one split" in report.problems[0]
    assert report.rows == 48
    assert report.fingerprint is None
    assert "cluster c01 in test, train" in printed(report)


def test_every_problem_is_reported_not_only_the_first(ward):
    def spoil(frame):
        frame.loc[0, "id"] = "i01"
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


def test_duplicates_across_splits_and_classes_are_cautions(ward):
    train, test = 0, 7
    (ward.root / f"{test}.png").write_bytes((ward.root / f"{train}.png").read_bytes())
    report = check(ward)
    (duplicate,) = report.duplicates
    assert duplicate.ids == ("i00", "i07")
    assert duplicate.splits == ("test", "train")
    text = " ".join(report.cautions)
    assert all(f"in several {what}, for instance i00 = i07" in text for what in ("splits", "clusters", "classes"))
    ward.verify = "header"
    assert check(ward).duplicates is None
    assert "not looked for" in printed(check(ward))


def test_empty_cells_are_cautions(ward):
    edit(ward, lambda f: f.__setitem__("target", f["target"].where(f["site"] != "b", "no")))
    assert "test has no yes with site b: rates that need them are undefined" in check(ward).cautions


def test_limit_shows(ward):
    ward.limit = 24
    assert check(ward).rows == 24


def test_what_cannot_be_counted_is_raised(ward):
    edit(ward, lambda f: f.pop("site"))
    with pytest.raises(FairbenchError, match="lacks site"):
        check(ward)


def test_text_from_data_is_not_markup(ward):
    text = printed(check(ward))
    assert "Ward [bold]B[/bold] (ward): 48 rows" in text
    for part in ("CC0", "Nobody 2026", "everything", "made up", "https://example.org"):
        assert part in text
