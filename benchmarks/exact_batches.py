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
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from fairbench import Method, Stage, plugins
from fairbench.testing import ToyBackbone, ToyDataset, train

STAGES = (Stage(epochs=1, lr=1e-3, warmup=2, train=("lora", "head")),)
ROWS = {"rows_per_split": [96, 4, 4]}  # twelve steps


def weights(method: str, backbone: str, out: Path, micro: int | None, dropout: float) -> dict[str, torch.Tensor]:
    """Train in this process (one of several under torchrun) and return the trained weights."""
    loaded = plugins.load(("backbone", "method"))
    cls: type[Method] = loaded.find("method", method)
    body = ToyBackbone if backbone == ToyBackbone.name else loaded.find("backbone", backbone)
    settings = {"dropout": dropout}
    outcome = train(cls, None, body, settings, ToyDataset, ROWS, stages=STAGES, micro_batch=micro, out=out)
    return outcome.weights


def run(method: str, backbone: str, micro: int | None, processes: int = 1, dropout: float = 0.0) -> dict[str, Any]:
    """Train in fresh processes and return the weights."""
    with tempfile.TemporaryDirectory() as folder:
        child = [__file__, "--child", json.dumps([method, backbone, micro, dropout]), "--out", folder]
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        command = [sys.executable, *(launcher if processes > 1 else []), *child]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
        return load_file(Path(folder) / "weights.safetensors")


def difference(left: dict[str, Any], right: dict[str, Any]) -> float:
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
        method, backbone, micro, dropout = json.loads(options.child)
        out = Path(options.out)
        found = weights(method, backbone, out, micro, dropout)
        if int(os.environ.get("RANK", "0")) == 0:
            save_file(found, out / "weights.safetensors")
        return
    names = options.methods.split(",") if options.methods else sorted(plugins.load(("method",)).tables["method"])
    start = run("zero-shot", options.backbone, None)
    print("| method | learned | micro 2 | micro 1 | 2 processes | dropout, 2 processes | dropout, again |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in names:
        whole = run(name, options.backbone, None)
        figures = [
            difference(whole, start),
            difference(whole, run(name, options.backbone, 2)),
            difference(whole, run(name, options.backbone, 1)),
            difference(whole, run(name, options.backbone, None, processes=2)),
        ]
        with_dropout = run(name, options.backbone, 4, dropout=0.1)
        figures.append(difference(with_dropout, run(name, options.backbone, 4, processes=2, dropout=0.1)))
        figures.append(difference(with_dropout, run(name, options.backbone, 4, dropout=0.1)))
        print(f"| {name} | " + " | ".join(f"{figure:.1e}" for figure in figures) + " |", flush=True)


if __name__ == "__main__":
    main()
