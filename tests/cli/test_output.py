"""What reaches the terminal: every stream can be written to, and no text of the data's commands it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from builders import call, scored

from fairbench.errors import FairbenchError

HOSTILE = "\x1b[2Jred\x9b31m\u202eder\x07"
RACES = {"naïve×東京": 40, "ağ": 40}


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_stream_of_any_encoding_can_be_written_to(write, encoding):
    path = write(scored(RACES))
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}

    def run(*words):
        command = [sys.executable, "-m", "fairbench", "score", str(path), *words]
        done = subprocess.run(command, capture_output=True, env=environment, check=False)
        assert b"Traceback" not in done.stderr
        return done.returncode, done.stdout.decode(encoding), done.stderr.decode(encoding)

    status, text, _ = run("--attr", "race")
    assert status == 0
    assert "na\\xefve\\xd7" in text if encoding == "ascii" else "naïve×" in text
    status, text, _ = run("--attr", "race", "--json")
    assert set(json.loads(text)["attributes"]["race"]["groups"]) == set(RACES)
    status, _, error = run("--attr", "rasse", "--unrecorded", "merge:ağ")
    assert status == 2
    assert error.startswith("error: ")


def test_no_text_of_the_data_commands_the_terminal(tmp_path):
    table = scored({HOSTILE: 30, "white": 30}).assign(split=HOSTILE, cluster=[HOSTILE, *"b" * 59])
    table.to_parquet(tmp_path / "p.parquet")
    wrong = table.assign(answer=[HOSTILE, *"0" * 59], target=["0"] * 60)
    wrong.to_parquet(tmp_path / "wrong.parquet")
    path = tmp_path / "p.parquet"
    outputs = [
        call("score", path, "--attr", "race", "--split", "all").output,
        call("score", path, "--attr", "race", "--split", "all", "--json").output,
        call("score", path, "--attr", "race", code=2).output,
        call("score", path, "--attr", HOSTILE, code=2).output,
        call("score", path, "--attr", "race", "--split", "all", "--unrecorded", f"merge:{HOSTILE}x", code=2).output,
        call("score", tmp_path / "wrong.parquet", "--attr", "race", "--split", "all", code=2).output,
        call("score", path, "--attr", "race", f"--{HOSTILE}", code=2).output,
        call(HOSTILE, code=2).output,
    ]
    assert not set("\x1b\x9b\u202e\x07") & set("".join(outputs))
    assert all("1b[2" in output for output in outputs[1:])
    groups = json.loads(outputs[1])["attributes"]["race"]["groups"]
    assert set(groups) == {HOSTILE, "white"}  # escaped, not changed


def test_an_error_raised_in_python_is_as_harmless():
    error = FairbenchError(f"no group {HOSTILE}", HOSTILE)
    assert str(error).replace("\n", "").isprintable()
    assert "\\u001b[2Jred\\u009b31m\\u202eder\\u0007" in str(error)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", ["list metrics", "run --help", "verify ../leaderboards/glaucoma-table2-tiny.json"]
)
def test_a_reader_that_goes_away_is_no_error(command):
    """What rich prints, what click prints before a command runs, and what a command prints by click."""
    done = subprocess.run(
        ["bash", "-c", f"({sys.executable} -m fairbench {command}; echo $? >&2) | true"],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == "141\n"


def test_numbers_are_explained_where_it_is_asked(write):
    path = write(scored(RACES))
    for command, said in ((("score", path), "detectable: "), (("compare", path, path), "Moved against: ")):
        short, long = (call(*command, "--attr", "race", *more).stdout for more in ((), ("--explain",)))
        assert said not in short
        assert said in long
        assert long.startswith(short.rstrip())
        for idle in (("--json",), ("--as", "medfair"))[: 2 if command[0] == "score" else 1]:
            said = call(*command, "--attr", "race", "--explain", *idle, code=2).stderr
            assert said.startswith("error: --explain adds to the tables on a terminal, and does nothing beside --")


def test_a_metric_of_a_single_file_that_fails_is_a_warning_by_name(write, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from fairbench import Metric, hookimpl\n\n"
        "said = {'title': 'M', 'formula': 'm', 'source': 'this test', 'needs': ('classes',)}\n\n"
        "@hookimpl\ndef fairbench_metrics():\n"
        "    return [Metric(name='good', each=lambda rows: rows.answer * 1.0, **said),\n"
        "            Metric(name='bad', each=lambda rows: 1 / 0, **said)]\n"
    )
    result = call("score", write(scored(RACES)), "--attr", "race", "--plugin", tmp_path / "mine.py", "--json")
    assert result.stderr == "warning: metric bad failed: ZeroDivisionError: division by zero\n"
    overall = json.loads(result.stdout)["overall"]
    assert overall["bad"]["value"] is None
    assert overall["bad"]["reason"] == "bad failed: ZeroDivisionError: division by zero"
    assert overall["good"]["value"] == overall["selection_rate"]["value"]


def test_a_shell_can_complete_words_and_hears_nothing_else():
    environment = {
        **os.environ,
        "_FAIRBENCH_COMPLETE": "bash_complete",
        "COMP_WORDS": "fairbench sc",
        "COMP_CWORD": "1",
    }
    command = [sys.executable, "-c", "from fairbench.cli.main import main; main(prog_name='fairbench')"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("plain,score\n", "", 0)
