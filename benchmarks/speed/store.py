"""Many finished jobs: what `status`, `leaderboard` and `plan` take over a folder of them.

Command:  python benchmarks/speed/store.py [--jobs 40000] [--rows 300] [--seeds 100000] [--keep FOLDER]
Cost:     for 40,000 jobs about 2 GiB of disk and the minutes that it prints; --jobs 2000 --seeds 5000 for a look
Expect:   the second `status`, and the `leaderboard` after one new job, in seconds: what did not change is not
          computed again. The first `leaderboard` computes every table's evidence, all cores busy.

The jobs are made up: 20 methods x 5 attributes x 5 seeds on as many pairs of dataset and backbone as it takes, a
quarter of the methods using no attribute. Every job has a record and a predictions file of its own; answers are
drawn so that a method has its own accuracy and gap. Every command runs in a process of its own, as a user runs it;
its memory is the largest of that process and its children, each.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

import fairbench
from fairbench.jobs.job import Choice, Job, Record, Stage
from fairbench.jobs.store import PREDICTIONS, RECORD, write_json
from fairbench.predictions.predictions import Predictions

METHODS, SEEDS = 20, 5
ATTRIBUTES = {"sex": 2, "race": 3, "age": 4, "site": 2, "language": 3}
FREE = 4  # one method in so many uses no attribute
PLANNED = """
datasets = ["fundus-sim"]
backbones = ["tiny-llava"]
methods = ["gr"]
attributes = ["race"]
baseline = false
controls = false
"""
# Said last of all, when the processes that computed tables have been waited for: until then they count for nothing.
MEASURED = """
import atexit, resource, sys
from fairbench.cli.main import main
def say():
    used = [resource.getrusage(one) for one in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu, peak = sum(one.ru_utime + one.ru_stime for one in used), max(one.ru_maxrss for one in used)
    print("USED", cpu, peak, file=sys.stderr)
atexit.register(say)
main(sys.argv[1:])
"""


def table(rows: int, rng: np.random.Generator) -> pd.DataFrame:
    """Draw the patients of one test set: who they are and what is true of them."""
    people = pd.DataFrame({"id": [f"p{n:05d}" for n in range(rows)], "split": "test"})
    people["target"] = rng.integers(0, 2, rows).astype(np.int16)
    for name, values in ATTRIBUTES.items():
        people[name] = np.array([f"{name} {value}" for value in range(values)])[rng.integers(0, values, rows)]
    return people


def answered(people: pd.DataFrame, method: int, rng: np.random.Generator) -> pd.DataFrame:
    """Draw one job's answers: the higher the method's number, the better for all but one group."""
    right = np.where(people["race"] == "race 2", 0.65, 0.7 + 0.01 * method)
    correct = rng.random(len(people)) < right
    answer = np.where(correct, people["target"], 1 - people["target"])
    p = np.clip(np.where(answer == 1, 0.75, 0.25) + rng.normal(0, 0.1, len(people)), 0.01, 0.99)
    return people.assign(answer=answer.astype(np.int16), p_0=(1 - p).astype("f4"), p_1=p.astype("f4"))


def jobs_of(dataset: str, backbone: str, seeds: int = SEEDS) -> Iterator[tuple[int, Job]]:
    """Yield the jobs of one dataset and backbone, each with its method's number."""
    stages = (Stage(), Stage("adapt", epochs=1.0))
    for method in range(METHODS):
        ways = [()] if method % FREE == 0 else [(name,) for name in ATTRIBUTES]
        chosen = Choice(f"method-{method:02d}", {}, "fairbench 0.2.0+0123456789ab")
        for way in ways:
            for seed in range(seeds):
                yield method, Job(
                    Choice(dataset, {}, "fairbench 0.2.0+0123456789ab", "5" * 16),
                    Choice(backbone, {}, "fairbench 0.2.0+0123456789ab", "7" * 16),
                    chosen, stages, way, seed,
                )  # fmt: skip


def write(root: Path, job: Job, method: int, people: pd.DataFrame, rng: np.random.Generator) -> None:
    """Write one finished job as the store does, without waiting for the disk."""
    folder = root / job.key
    folder.mkdir(parents=True)
    answers = Predictions(answered(people, method, rng), ("no", "yes"), tuple(ATTRIBUTES))
    answers.save(folder / PREDICTIONS)
    record = Record(
        job, "2026-01-01T00:00:00+00:00", {"load": 1.0, "train": 60.0 + method, "predict": 5.0},
        steps=300, peak_memory=1 << 30, trainable_parameters=10_000, total_parameters=1_000_000,
        device="made up", micro_batch=8, role="baseline" if method == 0 else "contender",
        stages=job.stages, versions={"fairbench": fairbench.__version__, "torch": "made up"},
        files={PREDICTIONS: hashlib.sha256((folder / PREDICTIONS).read_bytes()).hexdigest()},
    )  # fmt: skip
    write_json(folder / RECORD, record.to_json())


def fill(root: Path, count: int, rows: int) -> Callable[[], None]:
    """Write `count` jobs; return what writes one more, a further seed of the first dataset and backbone."""
    os.fsync = lambda descriptor: None
    rng, written, first = np.random.default_rng(0), 0, None
    for number in itertools.count():
        people = table(rows, rng)
        for method, job in jobs_of(f"dataset-{number // 8}", f"backbone-{number % 8}"):
            if written == count:
                assert first is not None
                return partial(write, root, *first, rng)
            if method == 1 and first is None:
                first = replace(job, seed=SEEDS), method, people
            write(root, job, method, people, rng)
            written += 1
    raise AssertionError


def timed(*words: str) -> tuple[float, float, float]:
    """Run `fairbench WORDS`; return its seconds, its CPU seconds, and the peak of its largest process in GiB."""
    start = time.perf_counter()
    command = [sys.executable, "-c", MEASURED, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(done.stderr)
    cpu, peak = done.stderr.split("USED")[-1].split()
    return seconds, float(cpu), int(peak) / 2**20


def report(name: str, *words: str) -> None:
    seconds, cpu, peak = timed(*words)
    print(f"  {name:32s} {seconds:8.1f} s   {cpu:8.1f} s of CPU   {peak:5.2f} GiB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=40_000)
    parser.add_argument("--rows", type=int, default=300, help="patients of a test set")
    parser.add_argument("--seeds", type=int, default=100_000, help="seeds that are planned")
    parser.add_argument("--keep", type=Path, help="make the folder here and leave it")
    options = parser.parse_args()
    print(f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f},", end=" ")
    print(f"Python {platform.python_version()}, numpy {np.__version__}, fairbench {fairbench.__version__}")
    root = options.keep or Path(tempfile.mkdtemp())
    os.environ["FAIRBENCH_CACHE"] = str(root / ".cache")
    runs = root / "runs"
    try:
        start = time.perf_counter()
        more = fill(runs, options.jobs, options.rows)
        print(f"{options.jobs:,} jobs of {options.rows} rows, made in {time.perf_counter() - start:.0f} s")
        report("status, first", "status", str(runs))
        report("status, again", "status", str(runs))
        board = ("leaderboard", str(runs), "--format", "json", "--out", str(root / "board.json"))
        report("leaderboard, first", *board)
        report("leaderboard, again", *board)
        more()
        report("leaderboard, after one new job", *board)
        plan = root / "seeds.toml"
        plan.write_text(f"{PLANNED}seeds = {[*range(options.seeds)]}\n")
        report(f"plan of {options.seeds:,} seeds", "plan", str(plan), "--out", str(root / "none"))
    finally:
        if not options.keep:
            shutil.rmtree(root)


if __name__ == "__main__":
    main()
