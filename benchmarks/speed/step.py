"""One job's training step and test row beside a practitioner's script, on one thread, in CPU time.

    python benchmarks/speed/step.py [--shapes quickstart middle] [--steps 40] [--method vanilla] [--peer trainer]

Cost:     about a minute for `quickstart`, five for `middle`
Expect:   docs/performance.md

The script is transformers' Trainer and PEFT, or a plain loop (practitioner.py), in a process of its own: pictures
in memory, prepared by the processor and seen by the vision tower at every step. fairbench runs a real job; whenever
it reports a step or a batch of answers, the script takes its own step, so both see the same machine at the same
time. Medians.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from PIL import Image
from practitioner import PEERS, PROMPT, ROWS, Flops, Script, environment, matmul_rate, pictures, shapes

from fairbench import Backbone, Dataset, plugins
from fairbench.jobs.job import Choice, Job
from fairbench.jobs.store import Store
from fairbench.testing.toys import toy_plugins
from fairbench.training.worker import Worker


class Pictures(Dataset):
    """Noise, in memory: what is in a picture takes no time."""

    name = "pictures"
    title, licence, citation = "Pictures", "CC0", "none"
    prompt: str = PROMPT
    classes: ClassVar[tuple[str, ...]] = ("no", "yes")
    attributes: ClassVar = {"site": ("a", "b")}
    rows_per_split: tuple[int, ...] = (640, 32, 640)

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.images = pictures()

    def table(self) -> pd.DataFrame:
        """Draw targets and sites."""
        split = np.repeat(["train", "val", "test"], self.rows_per_split)
        random, names = np.random.default_rng(1), [f"r{i}" for i in range(len(split))]
        return pd.DataFrame(
            {
                "id": names,
                "cluster": names,
                "split": split,
                "image": np.arange(len(split)) % len(self.images),
                "target": random.choice(["no", "yes"], len(split)),
                "site": random.choice(["a", "b"], len(split)),
            }
        )

    def image(self, row: Any) -> Image.Image:
        """Return one picture."""
        return self.images[row["image"]]


class Beside:
    """What watches a job: it times what fairbench does between two reports, then lets the script do the same."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.spent: dict[str, list[float]] = defaultdict(list)
        self.inside = 0.0  # of it, in passes forward and backward
        self.last = time.process_time()

    def __call__(self, phase: str, done: int, total: int, loss: float | None) -> None:
        """Hear of a step or a batch of answers."""
        now = time.process_time()
        if done and phase in ("train", "predict test"):
            self.spent[f"fairbench {phase}"].append(now - self.last)
            self.spent[f"passes {phase}"].append(self.inside)
            self.spent[f"script {phase}"].append(self.script.ask("step" if phase == "train" else "answer"))
            self.spent["rate"].append(matmul_rate())
        self.inside, self.last = 0.0, time.process_time()

    def median(self, name: str) -> float:
        """Return the median of what was timed, without the first."""
        return statistics.median(self.spent[name][1:])


@contextmanager
def passes_counted(beside: Beside, flops: list[int]) -> Iterator[None]:
    """Count the time within passes forward and backward, and once the operations of a training step."""
    forward, backward = Backbone.forward, torch.autograd.backward

    def counted(function: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            start = time.process_time()
            if len(flops) < 2 and torch.is_grad_enabled():
                with Flops() as counter:
                    result = function(*arguments, **named)
                if counter.get_total_flops():
                    flops.append(counter.get_total_flops())
            else:
                result = function(*arguments, **named)
            beside.inside += time.process_time() - start
            return result

        return call

    Backbone.forward, torch.autograd.backward = counted(forward), counted(backward)
    try:
        yield
    finally:
        Backbone.forward, torch.autograd.backward = forward, backward


def measure(shape: str, kind: type[Backbone], method: str, steps: int, peer: str) -> None:
    """Run one job beside the script and print both."""
    loaded = plugins.load()
    settings = {"rows_per_split": [16 * steps, ROWS, ROWS * steps // 2]}
    data = Pictures(**settings)
    toys = toy_plugins(loaded.find("method", method), kind, Pictures)
    job = Job(
        Choice(data.name, settings, fingerprint=data.fingerprint()),
        Choice(kind.name),
        Choice(method),
        stages=tuple(stage.__class__(**{**vars(stage), "epochs": 1.0}) for stage in kind.recipe),
        attributes=("site",),
        batch_size=16,
    )
    beside, flops = Beside(Script(shape, steps, peer)), []
    with tempfile.TemporaryDirectory() as folder, passes_counted(beside, flops):
        record = Worker(Store(folder), toys, {}, beside).run(job)
    if record.error:
        raise SystemExit(record.error)
    show(beside, sum(flops))


def show(beside: Beside, flops: int) -> None:
    """Print medians, ratios, and shares of the rate of a matrix product."""
    rate = beside.median("rate")
    for phase, scale, unit in (("train", 1, "a step"), ("predict test", ROWS, "a test row")):
        ours, theirs = (1000 * beside.median(f"{who} {phase}") / scale for who in ("fairbench", "script"))
        inside = 1000 * beside.median(f"passes {phase}") / scale
        print(
            f"  {unit:12s} script {theirs:8.2f} ms   fairbench {ours:8.2f} ms   ratio {theirs / ours:5.2f}", end=""
        )
        print(f"   of it outside of passes {100 * (1 - inside / ours):4.1f} %")
    for who, count in (("script", beside.script.ask("flops")), ("fairbench", flops)):
        spent = beside.median(f"{who} train")
        print(f"  {who:12s} {count / 1e9:6.2f} GFLOP a step, {100 * count / spent / rate:3.0f} %", end="")
        print(f" of a matrix product's {rate / 1e9:.0f} GFLOP/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=["quickstart", "middle"], help="quickstart, middle, qwen")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--method", default="vanilla")
    parser.add_argument("--peer", default="trainer", choices=[*PEERS])
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(environment())
    kinds = shapes()
    for shape in options.shapes:
        print(f"{shape}: {kinds[shape].name}, batches of 16, {options.method}; the script is a {options.peer}")
        measure(shape, kinds[shape], options.method, options.steps, options.peer)


if __name__ == "__main__":
    main()
