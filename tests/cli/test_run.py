"""The command line as a user meets it: two-line errors, plans, lists, health; nothing heavy before it is needed."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import click
import pytest
from builders import call
from click.testing import CliRunner

from fairbench import FairbenchError
from fairbench.cli import main as command_line
from fairbench.cli import overview
from fairbench.cli.main import main

TOYS = str(Path(__file__).parents[1] / "toys.py")
TOY = ("--datasets", "toy", "--backbones", "toy-backbone", "--attr", "site", "--plugin", TOYS)
HEAVY = ("torch", "transformers", "pandas", "numpy", "scipy", "sklearn", "rich")


def refused(*words):
    """The two lines of an error."""
    result = call(*words, code=2)
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert lines[0].startswith("error: ")
    assert len(lines) == 1 or (len(lines) == 2 and lines[1].startswith("hint: "))
    return result.stderr


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["leaderboard", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(words):
    code = f"""
        import sys
        from fairbench.cli.main import main
        try:
            main({words})
        except SystemExit as end:
            print(end.code, [name for name in {HEAVY} if name in sys.modules])
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"


def test_data_sets_are_looked_at_without_torch():
    """A lab that only curates data needs no training stack."""
    code = """
        import sys
        from fairbench.cli.main import main
        for words in ("list datasets", "list metrics", "list benchmarks", "data check nothing"):
            try:
                main(words.split())
            except SystemExit as end:
                print("ended", end.code, "torch" in sys.modules)
    """
    environment = os.environ | {"FAIRBENCH_PLUGINS": "dataset-ham10000,metric-rates"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True, env=environment
    )
    assert [line for line in done.stdout.splitlines() if line.startswith("ended")] == [
        *["ended 0 False"] * 3,
        "ended 2 False",
    ]


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["frobnicate"], "no command is called `frobnicate`", "there is: check, compare,"),
        (["leaderbord", "x"], "no command is called `leaderbord`", "did you mean `leaderboard`?"),
        (["data", "chek"], "no command is called `chek`", "did you mean `check`?"),
        (["run", "--frob"], "No such option '--frob'", "see `fairbench run --help`"),
        (["run", "--workers", "0"], "0 is not in the range", "see `fairbench run --help`"),
        (["run", "quikstart"], "no benchmark is called `quikstart`", "did you mean `quickstart`?"),
        (["run", "absent.toml"], "there is no benchmark file absent.toml", ""),
        (["run", "--methods", "grr"], "no method is called `grr`", "did you mean `gr`?"),
        (["run", "--seeds", "0,x"], "--seeds = 'x' is not a whole number", ""),
        (["run", "--set", "auroc.x=1"], "no plugin or stage is called `auroc`", ""),
        (["run", "--plugin", "absent.py"], "absent.py: there is no such file", ""),
        (["run", "--datasets", "ham10000"], "where is the data of ham10000?", "--data ham10000=PATH"),
        (["run", "--datasets", "ham10000", "--data", "ham10000=/absent"], "/absent does not exist", ""),
        (["run", "--backbones", "qwen2.5-vl-7b"], "Qwen/Qwen2.5-VL-7B-Instruct", "hf download Qwen/"),
        (["run", *TOY, "--out", TOYS], f"cannot write to {TOYS}", "choose another folder with --out"),
        (["run", *TOY, "--out", "/proc/absent/runs"], "cannot write to /proc/absent/runs", "--out"),
        (["list", "method"], "kind of them is called `method`", "did you mean `methods`?"),
        (["data", "check", "absent"], "no dataset is called `absent`", ""),
        (
            ["data", "check", "toy", "--plugin", TOYS, "--set", "toy.limi=3"],
            "called `limi`",
            "did you mean `limit`?",
        ),
    ],
)
def test_an_error_is_two_lines_and_status_2(words, message, hint):
    text = refused(*words)
    assert message in text.splitlines()[0]
    assert hint in text.splitlines()[-1]


def test_without_a_command_there_is_help():
    assert "Start with `fairbench run`" in call(code=2).stdout


@pytest.mark.parametrize(
    ("raised", "code", "text"),
    [
        (KeyboardInterrupt(), 130, "\ninterrupted; the same command goes on\n"),
        (FairbenchError("no", "yes"), 2, "error: no\nhint: yes\n"),
        (FairbenchError("no"), 2, "error: no\n"),
        (PermissionError(13, "Permission denied", "/x"), 2, "error: Permission denied: /x\n"),
    ],
)
def test_how_a_command_ends_is_its_status(monkeypatch, raised, code, text):
    @click.command()
    def burst():
        raise raised

    monkeypatch.setitem(main.commands, "burst", burst)
    assert call("burst", code=code).stderr == text


def test_a_broken_plugin_is_a_warning_for_whom_it_concerns(monkeypatch):
    def add(cli):
        raise ValueError("bad [day]")

    original = command_line._add_plugin_commands

    def with_one_more(group):
        from fairbench import hookimpl, plugins

        load = plugins.load

        def more(*arguments, **named):
            loaded = load(*arguments, **named)
            loaded.sources["plugin-x"] = "x 1"
            loaded.manager.register(type("X", (), {"fairbench_commands": staticmethod(hookimpl(add))}), "plugin-x")
            return loaded

        monkeypatch.setattr(plugins, "load", more)
        original(group)
        monkeypatch.setattr(plugins, "load", load)

    monkeypatch.setattr(command_line, "_add_plugin_commands", with_one_more)
    result = call("--version")
    assert "fairbench" in result.stdout
    assert result.stderr.startswith("warning: plugin plugin-x of x 1 is broken: ValueError: bad [day] (test_run.py")


def test_lists_say_what_is_there_with_settings_and_origin():
    text = call("list").stdout
    for kind in ("datasets", "backbones", "methods", "metrics", "benchmarks"):
        assert f"{kind}\n" in text.replace(" ", "")
    methods = call("list", "methods", "--plugin", TOYS).stdout
    assert "strength 0.5 float at least 0" in " ".join(call("list", "fr").stdout.split())
    assert "brittle" in methods
    assert "toys.py" in methods
    assert "fundus-sim" not in methods


def test_a_list_of_one_name_tells_all_of_it():
    text = " ".join(call("list", "brittle", "--plugin", TOYS).stdout.split())
    assert "brittle, one of the methods, from toys.py" in text
    assert "It raises while FAIRBENCH_TEST_BRITTLE is set." in text
    assert "role: contender" in text
    (entry,) = json.loads(call("list", "fpr", "--json").stdout)["metrics"]
    assert (entry["facts"]["low"], entry["facts"]["higher_is_better"]) == (0, False)
    assert "seeds = [0]" in call("list", "quickstart").stdout
    (ours,) = json.loads(call("list", "fr", "--json").stdout)["methods"]
    assert {"name": "strength", "default": "0.5", "type": "float at least 0"} in ours["settings"]


def test_every_list_is_json_on_request(tmp_path):
    everything = json.loads(call("list", "--json").stdout)
    assert set(everything) == {*overview.LISTED, "broken"}
    words = (*TOY, "--methods", "fr", "--attr", "site", "--out", tmp_path / "runs", "--no-controls")
    jobs = json.loads(call("plan", *words, "--json").stdout)
    assert [(one["job"]["method"]["name"], one["state"]) for one in jobs] == [
        ("vanilla", "to run"),
        ("fr", "to run"),
    ]
    power = json.loads(call("plan", *words, "--power", "--json").stdout)
    assert power["assumed"]["accuracy"] == 0.8
    assert [one["attribute"] for one in power["tests"]] == ["site"]


def test_doctor_says_what_a_bug_report_needs():
    text = call("doctor").stdout
    for word in ("python", "torch", "transformers", "GiB free", "fundus-sim", "vanilla", "no plugin is broken"):
        assert word in text


def test_a_plan_runs_nothing_and_says_what_it_would(tmp_path):
    words = (*TOY, "--methods", "fr,zero-shot", "--attr", "site,sex", "--out", tmp_path / "runs", "--no-controls")
    plan = call("plan", *words).stdout
    assert "4 jobs, 4 to run" in plan
    assert [line.split()[1] for line in plan.splitlines() if "to run" in line][:4] == [
        "vanilla",
        "fr",
        "fr",
        "zero-shot",
    ]
    dry = call("run", *words, "--dry-run").output
    assert [line.split()[:4] for line in dry.splitlines()] == [line.split()[:4] for line in plan.splitlines()]
    assert not (tmp_path / "runs").exists()
    assert "without the probe" not in dry
    assert "times are without the probe" in call("run", *words, "--dry-run", "--probe").output


def test_a_plan_says_which_stage_lasts_longer_where_rows_are_few():
    plan = call("plan", *TOY, "--methods", "fr", "--no-controls", "--set", "lora.min_steps=50").stdout
    assert "lora lasts 5 epochs of the 96 train rows of toy, not 1, to take 50 steps (min_steps)" in plan
    assert plan.count("lora lasts") == 1
    assert "warming up" not in plan
    folded = call(
        "plan", *TOY, "--methods", "fr", "--no-controls", "--no-baseline", "--attr", "site", "--folds", "3"
    )
    assert [f"fold {number}/3" in folded.stdout.replace("\n", "") for number in (1, 2, 3)] == [True] * 3


def test_what_is_assumed_without_power_is_refused():
    for name in ("accuracy", "agreement", "gap"):
        refusal = call("plan", *TOY, "--methods", "fr", f"--{name}", "0.5", code=2).stderr
        assert refusal == f"error: --{name} is assumed of what test sets can show\nhint: add --power\n"


def test_a_plan_says_that_a_recipe_lasts_longer_on_few_rows_and_when_own_stages_hardly_train():
    few = ("--methods", "fr", "--no-controls", "--set", "toy.limit=20", "--set", "run.batch_size=8")
    plan = call("plan", *TOY, *few).stdout
    assert plan.count("lora lasts 5 epochs of the 11 train rows of toy, not 1, to take 10 steps (min_steps)") == 1
    assert "warming up" not in plan
    own = call("plan", *TOY, *few, "--set", "lora.warmup=2").stdout
    said = (
        "note: lora of toy-backbone takes 2 steps on the 11 train rows of toy, 2 of them warming up: "
        "it may hardly learn; --set lora.min_steps=20 trains all methods for longer"
    )
    assert own.count("warming up") == 1
    assert said in own
    assert "warming up" not in call("plan", *TOY, *few, "--set", "lora.min_steps=20").stdout
    assert "warming up" not in call("plan", *TOY, *few, "--set", "lora.warmup=0").stdout


def test_a_plan_of_many_jobs_tells_those_alike_in_one_line(tmp_path, monkeypatch):
    from fairbench.benchmark import cost

    monkeypatch.setattr(cost, "LISTED", 7)
    words = (*TOY, "--methods", "zero-shot", "--no-controls", "--out", tmp_path / "runs", "--seeds")
    assert call("plan", *words, "0,1,2").stdout.count("to run") == 6 + 1
    text = call("plan", *words, "0,1,2,3").stdout
    assert "8 jobs, 8 to run" in text
    assert text.count("0 and 3") == 2


@pytest.mark.slow
def test_a_plan_knows_what_is_done_and_what_failed(tmp_path, monkeypatch):
    words = (*TOY, "--methods", "brittle", "--out", tmp_path, "--no-controls")
    monkeypatch.setenv("FAIRBENCH_TEST_BRITTLE", "1")
    call("run", *words, "--workers", "1", code=1)
    assert "2 jobs, 0 to run" in call("plan", *words).stdout
    again = call("run", *words, "--dry-run", "--retry-failed").stdout
    assert "2 jobs, 1 to run" in again
    assert [line.split()[-1] for line in again.splitlines() if "toy-backbone" in line] == ["done", "failed"]


def test_a_dataset_is_checked_from_a_plugin_file():
    text = call("data", "check", "toy", "--plugin", TOYS).stdout
    assert "Toy (toy): 168 rows" in text
    report = json.loads(call("data", "check", "toy", "--plugin", TOYS, "--set", "toy.limit=60", "--json").stdout)
    assert report["rows"] == 60
    assert report["licence"] == "CC0"


def test_a_plan_needs_no_weights_and_a_run_does(tmp_path, monkeypatch):
    """The hub's cache is empty, and the hub is never asked."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    choices = ["--backbones", "qwen2.5-vl-3b", "--methods", "fr", "--no-controls", "--set", "fundus-sim.limit=20"]
    choices += ["--out", str(tmp_path / "runs")]
    planned = CliRunner().invoke(main, ["plan", *choices])
    assert planned.exit_code == 0, planned.output
    assert "14,749,698" in planned.stdout.replace("\n", "")  # LoRA, and a head of two classes
    assert "to run this, checkpoint" in planned.stderr
    refused = CliRunner().invoke(main, ["run", *choices])
    assert refused.exit_code == 2
    assert "hf download Qwen/Qwen2.5-VL-3B-Instruct" in refused.stderr
