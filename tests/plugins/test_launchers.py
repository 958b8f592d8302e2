"""Whoever gets the jobs done, the same leaderboard comes of it; what is wrong with a launcher is said first."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from builders import call, hears_ctrl_c

from fairbench.benchmark.launcher import Work
from fairbench.benchmark.pull import Setup
from fairbench.errors import FairbenchError
from fairbench.jobs.job import Choice, Job, Stage

ROOT = Path(__file__).parents[2]
TOYS = str(ROOT / "tests" / "toys.py")
TOY = ("toy", "--datasets", "toy", "--backbones", "toy-backbone", "--attr", "site", "--plugin", TOYS)
COST = ("train_seconds", "peak_memory")


def started(out, *words):
    """Start two jobs of the toys in a process of its own, as a user does."""
    command = [sys.executable, "-m", "fairbench", "run", "quickstart", *TOY[1:], "--methods", "fr", "--no-controls"]
    command += ["--set", "lora.epochs=0.5", "--out", str(out), *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, cwd=out.parent, env=environment(), **pipes, preexec_fn=hears_ctrl_c)


def run(out, *words):
    """Run them; return their board but for what it cost."""
    return board_of(out, started(out, *words))


def board_of(out, process):
    _, told = process.communicate(timeout=300)
    assert process.returncode == 0, told
    assert "[2/2]" in told
    board = json.loads((out / "quickstart.json").read_text())
    for table in board["tables"]:
        for row in table["rows"]:
            for name in COST:
                row.pop(name)
    return json.dumps(board)


def environment():
    return os.environ | {"PYTHONPATH": str(ROOT / "tests"), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    return run(tmp_path_factory.mktemp("local") / "runs")


@pytest.fixture
def cluster():
    """A Ray cluster of one node of one CPU."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield cluster
    cluster.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "processes"),
    [
        (("accelerate", "--launch", "processes=2"), 2),
        (("accelerate", "--launch", "processes=2", "--shard"), 2),
        (("slurm", "--launch", "cluster=local", "--launch", "size=2"), 1),
    ],
    ids=["accelerate", "sharded", "slurm"],
)
def test_every_launcher_leaves_the_board_of_this_machine(words, processes, local, tmp_path):
    assert run(tmp_path / "runs", "--launcher", *words) == local
    records = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*/record.json")]
    assert {record["processes"] for record in records} == {processes}


@pytest.mark.slow
def test_a_ray_cluster_of_two_nodes_leaves_the_board_of_this_machine(local, tmp_path, cluster):
    cluster.add_node(num_cpus=1)
    options = ["--launch", f"address={cluster.address}", "--launch", "cpus=1"]
    refused = started(tmp_path / "refused", "--launcher", "ray", *options, "--launch", "more=toy-backbone:gpus:4")
    assert (
        "no node of the cluster has what a job of toy-backbone asks for (cpus=1, gpus=4)"
        in refused.communicate()[1]
    )
    assert run(tmp_path / "runs", "--launcher", "ray", *options) == local


# A tracker that holds every job at its first step until a file says go, and leaves the number of its process.
HELD = """
import os, time
from pathlib import Path
from fairbench import Tracker, hookimpl

FOLDER = Path({folder!r})

class Held(Tracker):
    name = "held"

    def __init__(self, job, folder):
        self.key = job.key

    def log(self, values, step):
        (FOLDER / f"{{self.key}}-{{os.getpid()}}").touch()
        while not (FOLDER / "go").exists():
            time.sleep(0.05)

    def close(self):
        pass

@hookimpl
def fairbench_trackers():
    return [Held]
"""


@pytest.mark.slow
def test_a_node_that_dies_during_a_sweep_costs_it_nothing(tmp_path, cluster):
    """Its job is run again where there is a node, and no finished job is."""
    undisturbed = run(tmp_path / "undisturbed")
    doomed = cluster.add_node(num_cpus=1)
    out, (words, seen) = tmp_path / "runs", _held(tmp_path, cluster)
    process = started(out, *words)
    _until(lambda: len([*seen.iterdir()]) == 2, process)
    begun = {int(path.name.split("-")[-1]): path.name.split("-")[0] for path in seen.iterdir()}
    cluster.remove_node(doomed, allow_graceful=False)
    _until(lambda: len([*filter(_alive, begun)]) < 2, process)
    (killed,) = {number for number in begun if not _alive(number)}
    (seen / "go").touch()
    assert board_of(out, process) == undisturbed
    keys = [path.name.split("-")[0] for path in seen.iterdir() if path.name != "go"]
    assert sorted(keys) == sorted([*begun.values(), begun[killed]])


@pytest.mark.slow
def test_an_interrupted_sweep_leaves_nothing_at_work_on_the_cluster_and_goes_on(tmp_path, cluster):
    """The job under way is no death, and the cluster, which is not the sweep's, goes on."""
    undisturbed = run(tmp_path / "undisturbed")
    out, (words, seen) = tmp_path / "runs", _held(tmp_path, cluster)
    process = started(out, *words)
    _until(lambda: [*seen.iterdir()], process)
    ((key, number),) = (path.name.split("-") for path in seen.iterdir())
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert told.endswith("interrupted; the same command goes on\n")
    for _ in range(100):
        if not _alive(int(number)):
            break
        time.sleep(0.1)
    assert not _alive(int(number))
    assert (out / key / "attempts.txt").read_text() == "begun\n"
    (seen / "go").touch()
    assert board_of(out, started(out, *words)) == undisturbed


def _held(folder, cluster):
    """Return the words that run jobs on a cluster and hold them at their first step, and where they say so."""
    plugin, seen = folder / "held.py", folder / "seen"
    plugin.write_text(HELD.format(folder=str(seen)))
    seen.mkdir()
    words = ("--launcher", "ray", "--launch", f"address={cluster.address}", "--plugin", str(plugin))
    return (*words, "--track", "held"), seen


def _until(holds, process):
    while not holds():
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)


def _alive(number):
    try:
        return "Z" not in Path(f"/proc/{number}/stat").read_text().rpartition(")")[2]
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (("--launcher", "raj"), "no launcher is called `raj`", "did you mean `ray`?"),
        (("--launch", "cpus=2"), "processes here have no settings", "name a --launcher"),
        (("--launcher", "ray", "--workers", "2"), "--workers is for processes here", "fairbench list ray"),
        (("--launcher", "ray", "--launch", "cpus"), "--launch cpus has no value", "cpus=VALUE"),
        (("--launcher", "ray", "--launch", "cpu=1"), "no setting of ray is called `cpu`", "did you mean `cpus`?"),
        (
            ("--launcher", "ray", "--launch", "more=toy-backbone:gpus:all"),
            "BACKBONE:RESOURCE:NUMBER",
            "llava-7b:gpus:2",
        ),
        (("--launcher", "ray", "--launch", "more=toy:gpus:2"), "more names toy", "jobs of toy-backbone"),
        (("--launcher", "slurm", "--launch", "hours=-1"), "slurm.hours = '-1' must be above 0", ""),
        (("--launcher", "accelerate"), "accelerate needs to know on what", "processes=2"),
        (("--shard",), "processes that share a job, and here is one", "by a launcher that does"),
        (("--shard", "--launcher", "ray"), "--launcher ray starts one for each", "by a launcher that does"),
        (
            ("--shard", "--launcher", "accelerate", "--launch", "processes=1"),
            "over several processes",
            "processes=2",
        ),
    ],
)
def test_what_is_wrong_with_a_launcher_is_said_before_anything_runs(words, message, hint, tmp_path):
    text = call("run", *TOY[1:], "--methods", "fr", "--out", tmp_path / "runs", *words, code=2).stderr
    assert message in text
    assert hint in text
    assert not list(tmp_path.glob("runs/*/job.json"))


@pytest.mark.parametrize("name", ["ray", "submitit"])
def test_an_extra_that_is_missing_is_named(name, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, name, None)
    launcher = {"submitit": "slurm"}.get(name, name)
    words = ("--methods", "fr", "--out", tmp_path / "runs", "--launcher", launcher)
    assert f"pip install fairbench[{launcher}]" in call("run", *TOY[1:], *words, code=2).stderr


def some_work(out):
    parts = [Choice(name, {}, "v", "f") for name in ("toy", "toy-backbone", "vanilla")]
    jobs = tuple(Job(*parts, (Stage(),), (), seed) for seed in range(2))
    return Work(jobs, Setup(str(out), {"toy": out / "data"}, (TOYS,)))


def test_work_is_written_and_read_whole(tmp_path):
    work = some_work(tmp_path / "runs")
    command = work.command()
    assert command[1:3] == ["-m", "fairbench.benchmark.work"]
    assert Work.read(Path(command[3])) == work


def test_accelerate_is_not_started_for_ever_where_no_job_ends(monkeypatch, tmp_path):
    """As where a finished job's probe fails: the process says 0, and the job is left."""
    from fairbench_plugins.launchers.accelerate import Accelerate

    starts = []
    monkeypatch.setattr(Accelerate, "starter", lambda self: starts.append(1) or ["-c", "pass"])
    monkeypatch.setattr(Work, "left", lambda self: ["one"])
    monkeypatch.setattr(Work, "follow", lambda self, watch, ended: None)
    with pytest.raises(FairbenchError, match="status 0, and no job with it"):
        Accelerate(processes=2).launch(some_work(tmp_path), lambda event: None)
    assert starts == [1]


def test_slurm_asks_for_what_was_said(tmp_path, monkeypatch):
    """As sbatch would see it: the script of the array, from submitit's own Slurm executor."""
    import submitit
    from fairbench_plugins.launchers.slurm import Element, Slurm

    seen = {}
    monkeypatch.setattr(submitit.SlurmExecutor, "affinity", classmethod(lambda cls: 1))

    def submit(self, command):
        seen["script"] = self._make_submission_file_text(command, "0")
        raise KeyboardInterrupt

    monkeypatch.setattr(submitit.SlurmExecutor, "_submit_command", submit)
    launcher = Slurm(partition="gpu", hours="1.5", cpus="6", gpus="2", memory="64", other="account=lab")
    with pytest.raises(KeyboardInterrupt):
        launcher.submit(some_work(tmp_path / "runs"))
    asked = seen["script"]
    for line in ("partition=gpu", "time=90", "cpus-per-task=6", "gpus-per-node=2", "mem=64GB", "account=lab",
                 "array=0-1%2", "signal=USR2@120"):  # fmt: skip
        assert f"#SBATCH --{line}" in asked, asked
    again = Element().checkpoint(["true"])
    assert isinstance(again.function, Element)
    assert again.args == (["true"],)


def test_an_element_ends_its_process_in_order_and_names_a_failure():
    from fairbench_plugins.launchers.slurm import Element

    element = Element()
    with pytest.raises(RuntimeError, match="status 3"):
        element([sys.executable, "-c", "raise SystemExit(3)"])
    script = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); time.sleep(60)"
    element.process = subprocess.Popen([sys.executable, "-c", f"print('up', flush=True); {script}"])
    time.sleep(1)
    element.checkpoint([])
    assert element.process.returncode in (7, -signal.SIGTERM)
