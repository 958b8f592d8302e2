"""From Python the results are those of the commands, whatever the data come in."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from builders import call, sampled, scored

import fairbench
from fairbench import FairbenchError, Predictions
from fairbench.leaderboard.build import build

TOYS = Path(__file__).with_name("toys.py")
RACES = {"black": 60, "white": 100}


class OtherFrame:
    """A frame of another library, of which no more is known than that it speaks Arrow."""

    def __init__(self, table):
        self.table = pa.Table.from_pandas(table)

    def __arrow_c_stream__(self, requested_schema=None):
        return self.table.__arrow_c_stream__(requested_schema)


FORMS = {
    "pandas": lambda table: table,
    "arrow": lambda table: pa.Table.from_pandas(table),
    "anything that speaks Arrow": OtherFrame,
    "arrays": lambda table: {name: table[name].to_numpy() for name in table},
    "lists": lambda table: {name: table[name].tolist() for name in table},
}


@pytest.mark.parametrize("form", sampled(FORMS, count=2))
def test_score_gives_what_the_command_prints(write, form):
    table = scored(RACES)
    printed = json.loads(call("score", write(table), "--attr", "race", "--json").stdout)
    result = fairbench.score(FORMS[form](table), "race")
    assert result.data == printed
    frame = result.to_pandas()
    row = frame[(frame["group"] == "black") & (frame["quantity"] == "accuracy")].iloc[0]
    group = table[table["race"] == "black"]
    assert row["value"] == pytest.approx((group["target"] == group["answer"]).mean())
    assert row["low"] < row["value"] < row["high"]
    assert "black" in str(result)
    assert "<table" in result._repr_html_()


def test_compare_gives_what_the_command_prints(write):
    a, b = (
        scored(RACES),
        scored(RACES).assign(answer=lambda t: np.where(t.index % 7 == 0, 1 - t["answer"], t["answer"])),
    )
    paths = write(a, "a.csv"), write(b, "b.csv")
    printed = json.loads(call("compare", *paths, "--attr", "race,gender", "--json").stdout)
    for left, right in ((a, b), paths):
        assert fairbench.compare(left, right, ["race", "gender"]).data == printed
    frame = fairbench.compare(a, b, "race").to_pandas()
    assert set(frame["quantity"]) >= {"accuracy", "max_acc_gap"}


def test_options_are_those_of_the_command():
    table = scored(RACES).assign(country=np.where(np.arange(160) < 70, "NA", "DE"))
    kept = fairbench.score(table, "country", keep=["NA"], metrics=())
    assert set(kept.data["attributes"]["country"]["groups"]) == {"DE", "NA"}
    dropped = fairbench.score(table, "country", unrecorded="drop", metrics=())
    assert set(dropped.data["attributes"]["country"]["groups"]) == {"DE"}
    named = Predictions(table.assign(race=table["race"].astype("category")), ("no", "yes"), ("race",))
    assert fairbench.score(named, "race", positive="no", metrics=()).data["classes"] == ["yes", "no"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (3, "a int is no table"),
        ({"target": [1, 0], "answer": [1]}, "no column|no table|empty"),
        ({"target": [1, 0], "answer": [1, "maybe"], "race": ["a", "b"]}, "no table"),
        (pd.DataFrame({"target": [1, 0], "answer": [1, 7], "race": ["a", "b"]}), "unknown class `7`"),
        (pd.DataFrame([[1, 1, "a", "b"]], columns=["target", "answer", "race", "race"]), "two columns|no table"),
    ],
)
def test_what_is_no_table_is_refused(data, message):
    with pytest.raises(FairbenchError, match=message):
        fairbench.score(data, "race")


@pytest.mark.slow
def test_run_and_leaderboard(tmp_path):
    (tmp_path / "mine.toml").write_text('rank = "gap"\nprimary = ["reweight"]')
    board = fairbench.run(
        str(tmp_path / "mine.toml"),
        datasets="toy",
        backbones=["toy-backbone"],
        methods=["vanilla", "reweight"],
        attr="site",
        seeds=[0],
        settings={"toy.limit": 60},
        plugin=[TOYS],
        no_controls=True,
        workers=1,
        out=tmp_path / "runs",
    )
    frame = board.to_pandas()
    assert set(frame["method"]) == {"vanilla", "reweight"}
    how = {"rank": "gap", "primary": "reweight"}
    again = fairbench.leaderboard(tmp_path / "runs", "site", **how)  # the package has the function's name
    (table,) = again.board.tables
    assert (table.ranked_by, table.primary) == ("gap", ("reweight",))
    assert len(again.board.tables) == len(build(fairbench.Store(tmp_path / "runs"), attributes=["site"]).tables)
    pd.testing.assert_frame_equal(again.to_pandas(), frame)
    assert "<table" in again._repr_html_()
    assert "reweight" in str(again)
    again.save(tmp_path / "board.md")
    assert "reweight" in (tmp_path / "board.md").read_text()
    with pytest.raises(FairbenchError, match="No such option"):
        fairbench.run(metods="x")
    with pytest.raises(FairbenchError, match="no method is called `nosuch`"):
        fairbench.run(methods="nosuch")


def test_a_split_is_chosen_from_predictions_too():
    parts = [scored(RACES, seed=seed).assign(split=split) for seed, split in enumerate(("val", "test"))]
    both = pd.concat([part.assign(id=part["split"] + part["id"]) for part in parts], ignore_index=True)
    predictions = Predictions(both, ("no", "yes"), ("race",))
    for split in ("test", "val", "all"):
        given = fairbench.score(predictions, "race", split=split, metrics=()).data
        expected = fairbench.score(both, "race", split=split, metrics=()).data
        assert given["overall"]["accuracy"] == expected["overall"]["accuracy"], split
    with pytest.raises(FairbenchError, match="still to be read"):
        fairbench.score(predictions, "race", keep=["NA"])


@pytest.mark.slow
def test_a_job_that_fails_is_on_the_board(tmp_path, monkeypatch):
    monkeypatch.setenv("FAIRBENCH_TEST_BRITTLE", "1")
    toys = {"datasets": "toy", "backbones": "toy-backbone", "attr": "site", "settings": {"toy.limit": 60}}
    how = {**toys, "plugin": [TOYS], "seeds": [0], "no_controls": True, "workers": 1, "out": tmp_path / "runs"}
    board = fairbench.run(methods="brittle", **how).board
    assert [(one.label, one.status) for one in board.tables[0].excluded] == [("brittle", "failed")]
    with pytest.raises(FairbenchError, match="a dry run leaves no leaderboard"):
        fairbench.run(methods="brittle", dry_run=True, **how)
    with pytest.raises(FairbenchError, match="is called `brittel`"):
        fairbench.leaderboard(tmp_path / "runs", primary="brittel")


SCRIPT = """
import fairbench
toy = dict(datasets="toy", backbones="toy-backbone", attr="site", settings={{"toy.limit": 60}}, plugin=[{toys!r}])
board = fairbench.run(methods="reweight", seeds=[0], no_controls=True, workers=2, out="runs", **toy)
print(sorted(board.to_pandas()["method"]))
"""


@pytest.mark.slow
def test_a_script_needs_no_guard_against_its_own_workers(tmp_path):
    """Python's spawning would run an unguarded script again in each worker."""
    (tmp_path / "script.py").write_text(SCRIPT.format(toys=str(TOYS)), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=True
    )
    assert done.stdout.splitlines()[-1] == "['reweight', 'vanilla']"
    assert len(list((tmp_path / "runs").glob("*/record.json"))) == 2


NOTEBOOK = Path(__file__).parents[1] / "docs" / "tutorial.ipynb"


@pytest.mark.parametrize("slow", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_tutorial_runs_from_top_to_bottom(tmp_path, monkeypatch, slow):
    monkeypatch.chdir(tmp_path)
    space = {}
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code" and (slow or "slow" not in cell["metadata"].get("tags", ())):
            exec(compile("".join(cell["source"]), str(NOTEBOOK), "exec"), space)  # noqa: S102 (our own page)
    assert "black" in str(space["scored"])
    assert (tmp_path / "runs").is_dir() == slow
