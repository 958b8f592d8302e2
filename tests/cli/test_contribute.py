"""`new` and `check`: what is written passes as it stands, and what is broken is named."""

import json
import os
import subprocess
import sys
import tomllib

import pytest
from builders import call

FAULTY = """
from fairbench import Metric, hookimpl


@hookimpl
def fairbench_metrics():
    said = {"name": "loud", "title": "Loud", "formula": "a hundred", "source": "this test"}
    return [Metric(**said, each=lambda rows: rows.target * 100.0, needs=("classes",))]
"""


TRACKER = """
from fairbench import Tracker, hookimpl


class Silent(Tracker):
    name = "silent"


@hookimpl
def fairbench_trackers():
    return [Silent]
"""


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "kind", ["metric", *(pytest.param(kind, marks=SLOW) for kind in ("dataset", "backbone", "method"))]
)
def test_what_is_new_passes_the_kit_as_it_is_written(tmp_path, kind):
    said = call("new", kind, "my-own", "--into", tmp_path).stdout
    path = tmp_path / "my_own.py"
    assert said == f"written: {path}\nnext: fairbench check {path}\n"
    findings = json.loads(call("check", path, "--json").stdout)
    assert findings
    assert {(one["kind"], one["name"].replace("_", "-"), one["fault"]) for one in findings} == {
        (kind, "my-own", None)
    }
    assert all(one["purpose"].endswith(".") for one in findings)
    assert "is there already" in call("new", kind, "my-own", "--into", tmp_path, code=2).stderr


@SLOW
@pytest.mark.parametrize("kind", ["metric", "dataset"])
def test_a_new_package_has_an_entry_point_and_a_test_that_passes(tmp_path, kind):
    call("new", kind, "mine", "--package", "--into", tmp_path)
    home = tmp_path / "fairbench-mine"
    project = tomllib.loads((home / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["fairbench"] == {f"{kind}-mine": "fairbench_mine"}
    assert (home / "fairbench_mine.py").exists()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(home)]
    environment = {**os.environ, "PYTHONPATH": str(home)}
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@SLOW
def test_a_new_benchmark_can_be_planned(tmp_path):
    call("new", "benchmark", "ours", "--into", tmp_path)
    assert "to run" in call("plan", tmp_path / "ours.toml", "--out", tmp_path / "runs").stdout
    assert "one file" in call("new", "benchmark", "b", "--package", "--into", tmp_path, code=2).stderr


@pytest.mark.parametrize("name", ["Mine", "my method", "../up", "1st", "a--b", "ü"])
def test_a_name_that_could_not_be_typed_is_refused(tmp_path, name):
    assert "cannot be a name" in call("new", "metric", "--into", tmp_path, "--", name, code=2).stderr
    assert not list(tmp_path.iterdir())


def test_a_fault_is_named_and_the_other_checks_go_on(tmp_path):
    (tmp_path / "quite faulty.py").write_text(FAULTY)
    result = call("check", tmp_path / "quite faulty.py", code=1)
    assert "FAULT  gives a number or a reason" in result.stdout
    assert "outside 0 to 1" in result.stdout
    assert "ok     says what it is: Its name is one lower-case word" in result.stdout
    assert result.stderr.splitlines()[-1].endswith("checks found a fault")


def test_whoever_offers_nothing_is_told_what_to_write(tmp_path):
    (tmp_path / "empty.py").write_text("")
    assert "below @hookimpl" in call("check", tmp_path / "empty.py", code=2).stderr
    assert "did you mean `auroc`?" in call("check", "aurok", code=2).stderr
    missing = call("check", tmp_path / "emty.py", code=2).stderr
    assert "did you mean" in missing
    assert "empty.py" in missing
    assert "set FAIRBENCH_" in call("check", "green_score", code=2).stderr
    assert (
        "no method, dataset, backbone or metric is called `tensorboard`"
        in call("check", "tensorboard", code=2).stderr
    )
    (tmp_path / "my tracker.py").write_text(TRACKER)
    said = call("check", tmp_path / "my tracker.py", code=2).stderr
    assert "my tracker.py offers the tracker silent, for which there are no checks" in said


UNWRITTEN = """
from fairbench import Dataset, FairbenchError, hookimpl


class Unwritten(Dataset):
    name = "unwritten"
    folder = "a folder"
    attributes = {"site": ("a", "b")}
    classes = ("no", "yes")

    @classmethod
    def example(cls, path):
        (path / "half.csv").write_text("half")
        HOW

    def table(self):
        return {}["nope"]

    def image(self, row):
        raise FileNotFoundError


@hookimpl
def fairbench_datasets():
    return [Unwritten]
"""


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ('raise FairbenchError("needs pydicom", "pip install pydicom")', "needs pydicom"),
        (
            "Imag.new()",
            "dataset unwritten: `example` raised NameError: name 'Imag' is not defined (unwritten.py",
        ),
    ],
)
def test_an_example_that_fails_says_why_and_leaves_nothing(tmp_path, how, said):
    file = tmp_path / "unwritten.py"
    file.write_text(UNWRITTEN.replace("HOW", how))
    result = call("check", file, code=1)
    assert "FAULT  example: It writes a small made-up folder" in result.stdout
    assert said in " ".join(result.stdout.split())
    error = call("data", "example", "unwritten", tmp_path / "out", "--plugin", file, code=2).stderr
    assert error.startswith("error: ")
    assert said in error
    assert not (tmp_path / "out").exists()


def test_what_a_dataset_raises_is_one_error_that_says_where(tmp_path):
    file, folder = tmp_path / "unwritten.py", tmp_path / "data"
    file.write_text(UNWRITTEN.replace("HOW", "return {}"))
    folder.mkdir()
    where = ("--data", f"unwritten={folder}", "--plugin", file)
    for words in (("data", "check", "unwritten"), ("plan", "--datasets", "unwritten", "--backbones", "tiny-llava")):
        error = call(*words, *where, code=2).stderr
        assert "error: dataset unwritten: `table` raised KeyError: 'nope' (unwritten.py, line 17)\nhint: " in error


def test_a_plugin_is_not_called_as_another_or_as_a_word_of_python(tmp_path):
    error = call("new", "method", "gr", "--into", tmp_path, code=2).stderr
    assert "there is a method gr already, of " in error
    assert not list(tmp_path.iterdir())
    for kind, name, own in (("method", "true", "TrueMethod"), ("dataset", "image", "ImageDataset")):
        call("new", kind, name, "--into", tmp_path)
        text = (tmp_path / f"{name}.py").read_text()
        compile(text, name, "exec")
        assert f"class {own}(" in text
