"""Steps and answers of a decoder of 7 billion random weights on one GPU, beside what the arithmetic expects.

    python benchmarks/speed/seven_billion.py [--batches 8 2 1] [--steps 12] [--shape 7b|tiny]

Cost:     more than two minutes of one GPU of 80 GB; `--shape tiny` tries the script out on a CPU
Expect:   docs/performance.md

A real job for each size of a batch, its image features seen once as always and then at every step: Qwen2.5-VL-7B's
layers with a vocabulary of 264, images of 448 pixels (256 tokens), LoRA of rank 32, bfloat16. Wall time between two
reports of the job, with the device's queue empty at both; medians. The rate of a matrix product is measured on the
same device.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable

import torch
from practitioner import environment
from step import Pictures

from fairbench import Backbone, Stage, plugins
from fairbench.jobs.job import Choice, Job
from fairbench.jobs.store import Store
from fairbench.jobs.worker_options import WorkerOptions
from fairbench.testing.toys import toy_plugins
from fairbench.training.predict import BATCH
from fairbench.training.worker import Worker

ANSWERED = 6  # batches of answers
STAGE = Stage(name="lora", train=("lora", "head"), epochs=1, lr=1e-4, warmup=0)


def kind(shape: str) -> type[Backbone]:
    """Return tiny-qwen2.5-vl, or the same with the layers of 7b and of its vision tower."""
    backbones = plugins.load(["backbone"]).tables["backbone"]
    tiny, full = backbones["tiny-qwen2.5-vl"], backbones["qwen2.5-vl-7b"]
    if shape == "tiny":
        return tiny

    def load(self: Backbone, dtype: torch.dtype) -> None:
        torch.set_default_dtype(dtype)
        try:
            with torch.device("cuda"):
                self.construct()
        finally:
            torch.set_default_dtype(torch.float32)
        self.ready(self.make_processor())

    special = ("vocab_size", "bos_token_id", "eos_token_id")
    text = {**full.shape["text"], **{name: tiny.shape["text"][name] for name in special}}
    sizes = {**tiny.shape, "text": text, "vision": full.shape["vision"], "mrope": full.shape["mrope"]}
    pixels = {"min_pixels": 448 * 448, "max_pixels": 448 * 448}
    return type("Random7B", (tiny,), {"name": "random-7b", "shape": sizes, "load": load, **pixels})


class Clock:
    """What watches a job: the seconds between two of its reports of one phase."""

    def __init__(self) -> None:
        self.spent: dict[str, list[float]] = defaultdict(list)
        self.phase, self.last = "", 0.0

    def __call__(self, phase: str, done: int, total: int, loss: float | None) -> None:
        """Hear of a step or a batch of answers."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        if phase == self.phase and done:
            self.spent[phase].append(now - self.last)
        self.phase, self.last = phase, now

    def median(self, phase: str) -> float:
        """Return the median seconds, without the first, which warms up."""
        return statistics.median(self.spent[phase][1:])


def rate(side: int, dtype: torch.dtype, device: str, repeats: int = 10) -> float:
    """Return the operations per second of a square matrix product."""
    a, b = (torch.randn(side, side, dtype=dtype, device=device) for _ in range(2))
    seconds = []
    for _ in range(repeats):
        seconds.append(_timed(lambda: a @ b))
    return 2 * side**3 / statistics.median(seconds)


def _timed(work: Callable[[], object]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(worker: Worker, clock: Clock, backbone: type[Backbone], batch: int, steps: int) -> None:
    """Run one job and print its step, its row and its memory."""
    settings = {"rows_per_split": [batch * steps, batch, BATCH * ANSWERED]}
    data = Pictures(**settings)
    job = Job(
        Choice(data.name, settings, fingerprint=data.fingerprint()),
        Choice(backbone.name),
        Choice("vanilla"),
        stages=(STAGE,),
        attributes=("site",),
        batch_size=batch,
        precision="bfloat16" if torch.cuda.is_available() else "float32",
    )
    clock.spent.clear()
    record = worker.run(job)
    if record.error:
        raise SystemExit(record.error)
    step, row = clock.median("train"), clock.median("predict test") / BATCH
    print(
        f"{batch:3d} images  step {1000 * step:8.1f} ms   answer {1000 * row:7.1f} ms a row   "
        f"peak {record.peak_memory / 2**30:5.1f} GiB",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=("7b", "tiny"), default="7b")
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 2, 1])
    parser.add_argument("--steps", type=int, default=12)
    options = parser.parse_args()
    gpu = torch.cuda.is_available()
    print(environment().replace("CPU time", torch.cuda.get_device_name() if gpu else "CPU, wall time"))
    product = rate(8192, torch.bfloat16, "cuda") if gpu else rate(512, torch.float32, "cpu")
    print(f"a matrix product runs at {product / 1e12:.2f} TFLOP/s", flush=True)
    backbone, clock = kind(options.shape), Clock()
    toys = toy_plugins(plugins.load().find("method", "vanilla"), backbone, Pictures)
    for title, kept in (("image features seen once", 2**33), ("images seen at every step", 0)):
        print(title)
        with tempfile.TemporaryDirectory() as folder:
            worker = Worker(Store(folder), toys, {}, clock, WorkerOptions(feature_bytes=kept, loaders=2))
            for batch in options.batches:
                measure(worker, clock, backbone, batch, options.steps)
            worker.forget()


if __name__ == "__main__":
    main()
