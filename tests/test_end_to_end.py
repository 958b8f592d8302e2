"""From `fairbench run` to a leaderboard on the toys: resumed, failed, shared, interrupted, killed, out of disk."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from builders import hears_ctrl_c
from click.testing import CliRunner

from fairbench import Store
from fairbench.benchmark import launch
from fairbench.benchmark.pull import work
from fairbench.cli.main import main

pytestmark = pytest.mark.slow  # commands, workers and signals, as a user has them

TOYS = Path(__file__).with_name("toys.py")
ROOT = Path(__file__).parents[1]
BASE = (
    "--datasets",
    "toy",
    "--backbones",
    "toy-backbone",
    "--attr",
    "site",
    "--plugin",
    str(TOYS),
    "--no-controls",
)
SWEEP = (*BASE, "--methods", "fr,gr", "--seeds", "0,1")  # six jobs with the baseline
COMMAND = (sys.executable, "-c", "from fairbench.cli.main import main; main()", "run")


@pytest.fixture(autouse=True)
def _few_plugins(monkeypatch):
    """What starts a new process imports what it needs and no more."""
    names = "method-fr,method-gr,method-vanilla,metric-rates,metric-auroc,metric-balanced-accuracy"
    monkeypatch.setenv("FAIRBENCH_PLUGINS", names)


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """Which jobs were run so far, each time one was."""
    monkeypatch.setenv("FAIRBENCH_TEST_LOG", str(tmp_path / "finished"))
    (tmp_path / "finished").touch()
    return lambda: [line.split()[0] for line in (tmp_path / "finished").read_text().splitlines()]


def run(out, *options, code=0, workers=1):
    """Run the command in this process, and with one worker the jobs, too, which saves starting another."""
    words = ["run", *map(str, options), "--out", str(out), "--workers", str(workers)]
    with pytest.MonkeyPatch.context() as patch:
        if workers == 1:
            patch.setattr(launch._Workers, "run", lambda crew, _: work(0, crew.jobs, crew.setup, crew.watch))
        result = CliRunner().invoke(main, words)
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


def call(*words, code=0):
    result = CliRunner().invoke(main, [*map(str, words)])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


def predictions(out):
    return {path.parent.name: pd.read_parquet(path) for path in Path(out).glob("*/predictions.parquet")}


def assert_same(left, right):
    assert set(left) == set(right)
    for key, frame in left.items():
        pd.testing.assert_frame_equal(frame, right[key])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What the sweep leaves when nothing happens to it."""
    out = tmp_path_factory.mktemp("undisturbed")
    run(out, *SWEEP)
    answers = predictions(out)
    assert len(answers) == 6
    return answers


def test_a_run_leaves_a_leaderboard_and_the_file_that_repeats_it(tmp_path, finished):
    out = tmp_path / "a folder – ünïcode"
    result = run(out, *SWEEP)
    assert "vanilla" in result.stdout
    assert "[6/6]" in result.stderr
    board = json.loads((out / "quickstart.json").read_text())
    (table,) = board["tables"]
    assert (table["dataset"], table["attribute"], table["rows_tested"]) == ("toy", "site", 48)
    assert {row["method"] for row in table["rows"]} == {"vanilla", "fr", "gr"}
    assert "| fr" in (out / "quickstart.md").read_text()
    first = finished()
    assert len(set(first)) == 6

    again = run(out, *SWEEP)
    assert finished() == first
    assert again.stdout == result.stdout
    toml = tmp_path / "quickstart.toml"
    toml.write_text((out / "quickstart.toml").read_text())
    run(out, toml, "--plugin", TOYS)
    assert finished() == first
    assert not [path for path in out.rglob("*") if path.name.endswith((".tmp", f".{os.getpid()}"))]


def test_a_job_leaves_everything_that_the_record_promises(tmp_path):
    run(tmp_path, *BASE, "--methods", "fr", "--no-baseline")
    (record,) = Store(tmp_path).contents().records
    folder = Store(tmp_path).folder(record.job)
    assert {path.name for path in folder.iterdir()} == {
        *("job.json", "record.json", "predictions.parquet", "log.jsonl", "adapter"),
    }
    frame = pd.read_parquet(folder / "predictions.parquet")
    assert set(frame["split"]) == {"val", "test"}
    assert {"id", "cluster", "target", "answer", "p_0", "p_1", "site", "sex"} <= set(frame)
    assert {"load", "features", "train", "predict"} <= set(record.seconds)
    assert record.steps == 12
    assert record.trainable_parameters > 0
    assert record.versions["torch"] != "not installed"
    assert record.facts["train groups"]["a"] > record.facts["train groups"]["b"]
    assert 0 < record.facts["notes"]["active"] <= 1


def test_a_record_that_cannot_be_believed_is_one_refused_row_in_every_command(tmp_path, finished):
    run(tmp_path, *BASE, "--methods", "fr,gr")
    ran = finished()
    first, second = (
        Store(tmp_path).folder(r.job) for r in Store(tmp_path).contents().records if r.role == "contender"
    )
    path = first / "record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "colour": "red"}))
    (second / "predictions.parquet").write_bytes(next(tmp_path.glob("*/predictions.parquet")).read_bytes()[:-1])
    known = ("--plugin", TOYS)
    reason = "unknown field colour"

    again = run(tmp_path, *BASE, "--methods", "fr,gr", code=1)
    assert reason in again.stderr
    assert "is not what its record describes" in again.stderr
    assert "delete" not in again.output
    assert finished() == ran
    assert (first / "predictions.parquet").exists()
    (table,) = json.loads((tmp_path / "quickstart.json").read_text())["tables"]
    assert [row["method"] for row in table["rows"]] == ["vanilla"]
    assert {one["status"] for one in table["excluded"]} == {"refused", "unreadable"}
    assert any(str(path) in one["reason"] and reason in one["reason"] for one in table["excluded"])

    shown = json.loads(call("status", tmp_path, "--json").stdout)
    assert shown["counts"]["refused"] == 1
    assert reason in call("leaderboard", tmp_path, "--format", "md").stdout
    assert reason in call("show", first, code=2).stderr
    assert "is not what its record describes" in call("show", second, code=2).stderr
    planned = call("plan", *BASE, "--methods", "fr,gr", "--out", tmp_path)
    assert "3 jobs, 0 to run" in " ".join(planned.stdout.split())
    assert reason in planned.stderr
    assert reason in call("probe", tmp_path, *known, "--workers", "1").stderr


def test_failed_methods_are_records_that_say_why_and_the_sweep_goes_on(tmp_path, finished, monkeypatch):
    monkeypatch.setenv("FAIRBENCH_TEST_BRITTLE", "1")
    methods = (*BASE, "--methods", "brittle,diverging,noting")
    result = run(tmp_path, *methods, code=1)
    records = {record.job.method.name: record for record in Store(tmp_path).contents().records}
    assert {name for name, record in records.items() if record.failed} == {"brittle", "diverging"}
    assert records["brittle"].error == "RuntimeError: it broke [as asked]"
    assert "it broke" in (Store(tmp_path).folder(records["brittle"].job) / "traceback.txt").read_text()
    assert (
        "the loss of diverging is nan at step 2 of stage lora; groups in the batch: a" in records["diverging"].error
    )
    assert records["noting"].facts["notes"]["odd"] is None
    assert "it broke [as asked]" in (tmp_path / "quickstart.json").read_text()
    assert "it broke [as asked]" in result.stderr
    assert "--retry-failed" in result.stderr
    assert "it broke" in (tmp_path / "quickstart.md").read_text()

    before = finished()
    run(tmp_path, *methods, code=1)
    assert finished() == before
    monkeypatch.delenv("FAIRBENCH_TEST_BRITTLE")
    run(tmp_path, *methods, "--retry-failed", code=1)
    assert finished()[len(before) :] == [records["brittle"].job.key, records["diverging"].job.key]
    assert [r.job.method.name for r in Store(tmp_path).contents().records if r.failed] == ["diverging"]


MISBEHAVIOUR = {
    "exits in plan": "SystemExit: 0",
    "raises in plan": "ValueError: no plan",
    "GeneratorExit in loss": "GeneratorExit: enough",
    "no UTF-8": "RuntimeError: caf\\udce9",
    "no message": "Silent: its message cannot be shown: RuntimeError",
}


@pytest.mark.parametrize(("how", "error"), MISBEHAVIOUR.items(), ids=MISBEHAVIOUR)
def test_whatever_a_plugin_raises_is_a_failed_record_and_the_sweep_goes_on(tmp_path, monkeypatch, how, error):
    monkeypatch.setenv("FAIRBENCH_TEST_WICKED", how)
    result = run(tmp_path, *BASE, "--methods", "wicked,fr", code=1)
    assert "some jobs failed" in result.stderr
    records = {record.job.method.name: record for record in Store(tmp_path).contents().records}
    assert {name: record.failed for name, record in records.items()} == {
        "vanilla": False,
        "fr": False,
        "wicked": True,
    }
    assert records["wicked"].error == error
    call("plan", *BASE, "--methods", "wicked,fr", "--out", tmp_path)


@pytest.mark.parametrize(
    ("how", "cause"),
    [("is killed", "was ended by signal 9 (SIGKILL)"), ("leaves by os._exit", "ended with status 0")],
)
def test_a_job_that_kills_its_process_comes_last_and_has_failed_the_second_time(tmp_path, monkeypatch, how, cause):
    monkeypatch.setenv("FAIRBENCH_TEST_WICKED", how)
    words = ("--methods", "wicked,fr", "--no-baseline", "--out", tmp_path, "--workers", "1")  # two would race
    result = call("run", *BASE, *words, code=1)
    ended = [line for line in result.stderr.splitlines() if "/2]" in line]
    assert "fr on site" in ended[0]
    records = {record.job.method.name: record for record in Store(tmp_path).contents().records}
    assert records["wicked"].error == f"its process died 2 times: {cause}, then {cause}"
    assert records["fr"].error is None
    monkeypatch.delenv("FAIRBENCH_TEST_WICKED")
    run(tmp_path, *BASE, "--methods", "wicked,fr", "--no-baseline", "--retry-failed")
    assert not any(record.failed for record in Store(tmp_path).contents().records)


def test_a_probe_names_the_job_whose_adapter_is_damaged_and_reads_the_others(tmp_path, monkeypatch):
    run(tmp_path, *BASE, "--methods", "fr")
    store = Store(tmp_path)
    (hurt,) = (record.job for record in store.contents().records if record.role == "contender")
    weights = store.adapter_folder(hurt) / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    monkeypatch.setattr(launch._Workers, "run", lambda crew, _: work(0, crew.jobs, crew.setup, crew.watch))
    result = call("probe", tmp_path, "--plugin", TOYS, code=1)
    assert f"cannot probe {hurt.title}: {weights} is not what its record describes" in " ".join(
        result.stderr.split()
    )
    assert {record.role: record.readable is None for record in store.contents().records} == {
        "baseline": False,
        "contender": True,
    }


def test_a_plugin_that_wanders_about_moves_no_output(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAIRBENCH_TEST_WICKED", "changes folder, forks, leaves threads")
    result = run("here", *BASE, "--methods", "wicked,fr", "--no-baseline", code=1, workers=2)
    assert "written: here/quickstart.md" in result.stdout
    records = {record.job.method.name: record for record in Store("here").contents().records}
    assert records["wicked"].error == "wicked changed what other jobs inherit: the working directory"
    assert records["fr"].error is None
    assert {path.name for path in tmp_path.iterdir()} == {"here"}


def test_a_folder_that_cannot_be_written_to_shows_its_leaderboard(tmp_path, monkeypatch):
    first = run(tmp_path, *BASE, "--methods", "fr")

    def refuse(self, *_, **__):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "write_text", refuse)  # a test may run as root, whom no mode stops
    monkeypatch.setattr(Path, "mkdir", refuse)
    again = run(tmp_path, *BASE, "--methods", "fr")
    assert again.stdout.split("written:")[0] == first.stdout.split("written:")[0]
    assert "not written: cannot write" in again.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--feature-cache", "nan"), "nan is not a finite number"),
        (("--checkpoint-every", "nan"), "nan is not a finite number"),
        (("--set", "lora.epochs=1e308"), "must be at most 100000"),
        (("nested.toml",), "nested.toml is nested too deeply"),
    ],
)
def test_an_absurd_choice_is_one_error(tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    Path("nested.toml").write_text("seeds = " + "[" * 50_000 + "]" * 50_000)
    result = run(tmp_path / "out", *words, *BASE, code=2)
    assert message in result.stderr
    assert result.stderr.count("error:") == 1
    assert not (tmp_path / "out").exists()


def test_a_changed_setting_runs_anew_beside_the_old(tmp_path, finished):
    run(tmp_path, *BASE, "--methods", "fr")
    run(tmp_path, *BASE, "--methods", "fr", "--set", "fr.strength=0.1")
    assert len(finished()) == 3  # the baseline is the same job
    run(tmp_path, *BASE, "--methods", "fr", "--set", "toy.prompt=Dark?")
    assert len(finished()) == 5


def test_a_full_disk_stops_with_one_error_and_keeps_what_is_done(tmp_path, undisturbed):
    out = tmp_path / "small"
    out.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=180k", "tmpfs", out], capture_output=True)
    if mount.returncode:
        pytest.skip("may not mount a small disk here")
    try:
        result = run(out, *SWEEP, code=2)
        assert f"error: the disk that holds {out} is full; finished jobs are safe" in result.stderr
        assert result.stderr.count("error:") == 1
        assert result.stderr.endswith("hint: make room and run the same command again\n")
        done = Store(out).contents().records
        assert 0 < len(done) < 6
        assert not any(record.failed for record in done)
        subprocess.run(["mount", "-o", "remount,size=20m", out], check=True)
        run(out, *SWEEP)
        assert_same(predictions(out), undisturbed)
    finally:
        subprocess.run(["umount", "--lazy", out], check=True)


# ── other processes ──────────────────────────────────────────────────────────────────────────────


def start(out, workers, sweep=None):
    words = (*COMMAND, *(sweep or SWEEP), "--out", str(out), "--workers", str(workers))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(words, **pipes, cwd=out, preexec_fn=hears_ctrl_c)


def wait_for(claim, seconds=200):
    end = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def children(pid):
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def test_two_sweeps_with_three_workers_on_one_folder_run_each_job_once(tmp_path, finished, undisturbed):
    sweeps = [start(tmp_path, workers) for workers in (2, 1)]
    for sweep in sweeps:
        _, errors = sweep.communicate(timeout=250)
        assert sweep.returncode == 0, errors
        assert "[6/6]" in errors  # each sweep counts what the other ran
    assert sorted(finished()) == sorted(undisturbed)
    assert_same(predictions(tmp_path), undisturbed)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks at processes through /proc")
def test_ctrl_c_again_ends_workers_that_hang(tmp_path, monkeypatch):
    """Whoever presses it twice waits for nothing, and leaves no process that holds a job."""
    monkeypatch.setenv("FAIRBENCH_TEST_WICKED", "hangs")
    monkeypatch.setenv("FAIRBENCH_TEST_HUNG", str(tmp_path / "hung"))
    sweep = start(tmp_path, 1, (*BASE, "--methods", "wicked", "--no-baseline"))
    wait_for(lambda: (tmp_path / "hung").exists() or sweep.poll() is not None)
    workers = children(sweep.pid)
    sweep.send_signal(signal.SIGINT)
    time.sleep(8)
    assert sweep.poll() is None  # it gives a training the time to leave what it can go on from
    sweep.send_signal(signal.SIGINT)
    _, errors = sweep.communicate(timeout=60)
    assert sweep.returncode == 130
    assert "waiting up to 60 s for trainings" in errors
    assert errors.endswith("interrupted; the same command goes on\n")
    assert "Traceback" not in errors
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), 20)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks at processes through /proc")
def test_ctrl_c_ends_the_workers_and_the_same_command_goes_on(tmp_path, finished, undisturbed):
    sweep = start(tmp_path, 2)
    wait_for(lambda: finished() or sweep.poll() is not None)
    workers = children(sweep.pid)
    assert workers
    sweep.send_signal(signal.SIGINT)
    _, errors = sweep.communicate(timeout=60)
    assert sweep.returncode == 130
    assert errors.endswith("interrupted; the same command goes on\n")
    assert "Traceback" not in errors
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    run(tmp_path, *SWEEP)
    assert sorted(finished()) == sorted(undisturbed)
    assert_same(predictions(tmp_path), undisturbed)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the drill is for Linux")
@pytest.mark.parametrize("only", ["one bit flipped", "gets its name"])
def test_a_part_of_the_drill_goes_well(tmp_path, only):
    words = [sys.executable, ROOT / "benchmarks" / "faults" / "drill.py", "--folder", tmp_path / "drill"]
    done = subprocess.run([*words, "--only", only, "--share", "0.1", "--seed", "7"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 met wrongly" in done.stdout


def test_the_leaderboard_of_a_run_is_about_the_attributes_asked_for(tmp_path):
    run(tmp_path, *BASE, "--methods", "vanilla")  # which uses none, so that its job names none
    board = json.loads((tmp_path / "quickstart.json").read_text())
    assert [table["attribute"] for table in board["tables"]] == ["site"]
