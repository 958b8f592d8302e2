"""Show that neither micro-batches nor processes change what a method learns.

    python benchmarks/exact_batches.py [--backbone toy-backbone|tiny-qwen2.5-vl|tiny-llava] [--methods fr,gr]

Every method is trained for a few steps at effective batch 8 without dropout, with the whole batch at
once, by 2 and 1 by 1, and on two processes (torchrun, gloo); the table gives the largest absolute
difference of any trained weight from the whole-batch run, beside the largest change that training made.
The last columns switch dropout on: the same micro-batch on one and on two processes, and the same run twice.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from fairbench import Method, Stage, plugins
from fairbench.testing.toys import ToyBackbone, ToyDataset, train

STAGES = (Stage(epochs=1, lr=1e-3, warmup=2, train=("lora", "head")),)
ROWS = {"rows_per_split": [96, 16, 4]}  # twelve steps; whole batches in the validation split too


Weights = dict[str, torch.Tensor]


def learn(methods: list[str], backbone: str, micro: int | None, dropout: float, out: Path) -> None:
    """Train every method in this process (one of several under torchrun) and leave its weights in `out`."""
    loaded = plugins.load(("backbone", "method"))
    body = ToyBackbone if backbone == ToyBackbone.name else loaded.find("backbone", backbone)
    for name in methods:
        method: type[Method] = loaded.find("method", name)
        settings = {"dropout": dropout}
        outcome = train(method, None, body, settings, ToyDataset, ROWS, stages=STAGES, micro_batch=micro, out=out)
        if int(os.environ.get("RANK", "0")) == 0:
            save_file(outcome.weights, out / f"{name}.safetensors")


def run(
    methods: list[str], backbone: str, micro: int | None = None, processes: int = 1, dropout: float = 0.0
) -> dict[str, Weights]:
    """Train in fresh processes and return every method's weights."""
    with tempfile.TemporaryDirectory() as folder:
        child = [__file__, "--child", json.dumps([methods, backbone, micro, dropout]), "--out", folder]
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        command = [sys.executable, *(launcher if processes > 1 else []), *child]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
        return {name: load_file(Path(folder) / f"{name}.safetensors") for name in methods}


def difference(left: Weights, right: Weights) -> float:
    """Return the largest absolute difference."""
    return max((float((left[name] - right[name]).abs().max()) for name in left), default=0.0)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default=ToyBackbone.name)
    parser.add_argument("--methods", default="")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        learn(*json.loads(options.child), Path(options.out))
        return
    names = options.methods.split(",") if options.methods else sorted(plugins.load(("method",)).tables["method"])
    backbone = options.backbone
    start = run(["zero-shot"], backbone)["zero-shot"]
    whole = run(names, backbone)
    with_dropout = run(names, backbone, micro=4, dropout=0.1)
    others = [
        (whole, run(names, backbone, micro=2)),
        (whole, run(names, backbone, micro=1)),
        (whole, run(names, backbone, processes=2)),
        (with_dropout, run(names, backbone, micro=4, processes=2, dropout=0.1)),
        (with_dropout, run(names, backbone, micro=4, dropout=0.1)),
    ]
    print("| method | learned | micro 2 | micro 1 | 2 processes | dropout, 2 processes | dropout, again |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in names:
        figures = [difference(whole[name], start), *(difference(a[name], b[name]) for a, b in others)]
        print(f"| {name} | " + " | ".join(f"{figure:.1e}" for figure in figures) + " |")


if __name__ == "__main__":
    main()
