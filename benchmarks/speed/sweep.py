"""A whole sweep beside a practitioner's script that is run once for each method, attribute and seed, in CPU time.

    python benchmarks/speed/sweep.py [--sweeps quickstart crossed] [--share 0.125] [--no-controls]
                                     [--backbone tiny-llava] [--peer trainer]

Cost:     at an eighth of the quickstart's rows about a minute of CPU for `quickstart`, four for `crossed`
Expect:   docs/performance.md

fairbench is its own command, with one worker: everything from starting Python to the written leaderboard counts,
and so do the controls and the reference that join by themselves, unless --no-controls. Of the script
(practitioner.py) a start, steps and batches of answers are timed before and after, and multiplied: all its runs do
the same work. It compares nothing, and its pictures lie in memory.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile

import torch
from practitioner import BATCH, PEERS, ROWS, Script, environment

METHODS = ("vanilla", "fr", "gr", "hybrid", "resample")
TRAIN, VALIDATION, TEST, EPOCHS = 1400, 100, 3000, 4
BACKBONES = {"tiny-llava": "quickstart", "tiny-qwen2.5-vl": "qwen"}  # the script's shapes
SWEEPS = {"quickstart": (("race",), 1), "crossed": (("race", "gender", "ethnicity"), 3)}


class Timed:
    """What one run of the script takes, from samples."""

    def __init__(self, backbone: str, peer: str, train: int, answered: int) -> None:
        self.steps = EPOCHS * -(-train // BATCH)
        self.batches = -(-answered // ROWS)
        self.script = Script(BACKBONES[backbone], self.steps, peer)
        self.start = self.script.ask("start")
        self.spent: dict[str, list[float]] = {"step": [], "answer": []}

    def sample(self) -> None:
        """Take some steps and answer some batches."""
        for what, times in (("step", 12), ("answer", 6)):
            self.spent[what] += [self.script.ask(what) for _ in range(times)]

    @property
    def run(self) -> float:
        """The CPU seconds of one run."""
        step, answer = (statistics.median(self.spent[what]) for what in ("step", "answer"))
        return self.start + self.steps * step + self.batches * answer


def fairbench(name: str, backbone: str, rows: dict[str, int], controls: bool) -> float:
    """Return the CPU seconds of a sweep by fairbench's command."""
    attributes, seeds = SWEEPS[name]
    with tempfile.TemporaryDirectory() as folder:
        words = ["--attr", ",".join(attributes), "--seeds", ",".join(map(str, range(seeds))), "--out", folder]
        words += ["--backbones", backbone]
        words += [] if controls else ["--no-controls"]
        words += ["--set", "lora.min_steps=0"]  # as many epochs as the script, however few the rows
        for setting, count in rows.items():
            words += ["--set", f"fundus-sim.{setting}={count}"]
        command = [sys.executable, "-m", "fairbench", "run", "quickstart", *words, "--workers", "1"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        environ = {**os.environ, "OMP_NUM_THREADS": "1", "FAIRBENCH_CACHE": folder}
        done = subprocess.run(command, env=environ, capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweeps", nargs="+", default=[*SWEEPS], choices=[*SWEEPS])
    parser.add_argument("--share", type=float, default=0.125, help="of the quickstart's rows")
    parser.add_argument("--no-controls", action="store_true")
    parser.add_argument("--backbone", default="tiny-llava", choices=[*BACKBONES])
    parser.add_argument("--peer", default="trainer", choices=[*PEERS])
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(environment())
    named = {"train_size": TRAIN, "val_size": VALIDATION, "test_size": TEST}
    rows = {name: round(options.share * count) for name, count in named.items()}
    for name in options.sweeps:
        attributes, seeds = SWEEPS[name]
        runs = len(METHODS) * len(attributes) * seeds
        script = Timed(options.backbone, options.peer, rows["train_size"], rows["val_size"] + rows["test_size"])
        script.sample()
        ours = fairbench(name, options.backbone, rows, not options.no_controls)
        script.sample()
        script.script.process.terminate()
        theirs = runs * script.run
        print(f"{name}: {', '.join(METHODS)} by {', '.join(attributes)}, seeds {seeds}; {options.backbone}; {rows}")
        each = f"{script.run:.1f} s ({script.start:.1f} s to start)"
        print(f"  {options.peer:10s} {theirs:8.1f} s = {runs} runs of {each}")
        print(f"  fairbench  {ours:8.1f} s, all of the command{'' if options.no_controls else ', with controls'}")
        print(f"  ratio      {theirs / ours:8.2f}")


if __name__ == "__main__":
    main()
