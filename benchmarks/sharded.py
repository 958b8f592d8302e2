"""Show that a backbone that is divided over processes learns and answers what it does whole.

    python benchmarks/sharded.py [--processes 2,3]
    python benchmarks/sharded.py --memory [--processes 2]

Each case is trained for a few steps by one process, with the whole backbone, and by several, without `--shard`
and with it. The table gives the largest absolute differences from one process of the logged losses, of any trained
weight and of any probability (where texts are written, of the reference's loss), without and with `--shard`, and
whether every answer is the same. Splits divide evenly by no number of processes, and the last batch has one row.

`--memory` loads a decoder of 16 layers of width 1024, whole in one process and divided, and says what each process
holds of them, by how much its resident memory has grown, and by how much it had at most in a training step.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import torch
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import load_file, save_file

from fairbench import plugins
from fairbench.models import sharding
from fairbench.testing.toys import ToyBackbone, ToyDataset, train
from fairbench.training import device as memory


class Words(ToyDataset):
    """The toy's squares, answered in free text."""

    name = "words"
    task = "generate"
    classes = ()
    max_new_tokens = 6

    def table(self) -> pd.DataFrame:
        """Ask for a word, or two."""
        table = super().table()
        table["reference"] = table["target"].where(table["image"] % 2 == 0, "very " + table["target"])
        return table.assign(prompt=self.prompt).drop(columns="target")


@dataclass(frozen=True)
class Case:
    """What is trained, and how; the micro-batch is as large as the batch unless it is said."""

    title: str
    backbone: str
    method: str = "vanilla"
    settings: dict[str, Any] = field(default_factory=dict)
    how: dict[str, Any] = field(default_factory=dict)
    dataset: type[ToyDataset] = ToyDataset


QWEN, LLAVA = "tiny-qwen2.5-vl", "tiny-llava"
CASES = (
    Case("toy, micro-batch 2", "toy-backbone", "fr", how={"micro_batch": 2}),
    Case("Qwen2.5-VL", QWEN, "fr"),
    Case("Qwen2.5-VL, micro-batch 2", QWEN, "fr", how={"micro_batch": 2}),
    Case("Qwen2.5-VL, hidden states read", QWEN, "adversarial", how={"micro_batch": 1}),
    Case("Qwen2.5-VL, two passes a step, mixed images", QWEN, "lisa"),
    Case("Qwen2.5-VL, every linear layer", QWEN, "vanilla", {"targets": ["all-linear"]}),
    Case("Qwen2.5-VL, gradient checkpointing", QWEN, "vanilla", {"checkpointing": True}),
    Case("Qwen2.5-VL, dropout", QWEN, "vanilla", {"dropout": 0.1}, {"batch_size": 8, "micro_batch": 1}),
    Case("Qwen2.5-VL, images not cached", QWEN, "vanilla", how={"features": False}),
    Case("Qwen2.5-VL, best epoch kept", QWEN, "gr", how={"select": "best:worst-group"}),
    Case("Qwen2.5-VL, readout of words", QWEN, "vanilla", {"readout": "words"}),
    Case("Qwen2.5-VL, free text", QWEN, "vanilla", how={"micro_batch": 2}, dataset=Words),
    Case("LLaVA", LLAVA, "hybrid"),
    Case("LLaVA, free text", LLAVA, "vanilla", dataset=Words),
    Case("toy, free text", "toy-backbone", "vanilla", dataset=Words),
    Case("Qwen2.5-VL, bfloat16", QWEN, "vanilla", how={"precision": "bfloat16"}),
)
ROWS = {"rows_per_split": [25, 7, 11]}  # batches of 6: the last one has one row


def learn(case: Case, shard: bool, out: Path) -> None:
    """Train in this process (one of several under torchrun) and leave what came of it in `out`."""
    loaded = plugins.load(("backbone", "method"))
    body = ToyBackbone if case.backbone == ToyBackbone.name else loaded.find("backbone", case.backbone)
    outcome = train(
        loaded.find("method", case.method),
        None,
        body,
        {"dropout": 0.0, **case.settings},
        case.dataset,
        ROWS,
        out=out / "runs",
        shard=shard,
        **{"batch_size": 6, **case.how},
    )
    if int(os.environ.get("RANK", "0")):
        return
    table = outcome.predictions
    numbers = [name for name in table if str(name).startswith("p_") or name == "loss"]
    (log,) = (out / "runs").glob(f"{outcome.record.job.key}/log.jsonl")
    kept = {f"weight {name}": value for name, value in outcome.weights.items()}
    kept["probability"] = torch.tensor(table[numbers].to_numpy(dtype=float)).contiguous()
    kept["loss"] = torch.tensor([json.loads(line)["loss"] for line in log.read_text().splitlines()])
    save_file(kept, out / f"{CASES.index(case)}.safetensors")
    said = table["text" if case.dataset.task == "generate" else "answer"].tolist()
    (out / f"{CASES.index(case)}.json").write_text(json.dumps(said))


def weigh(shard: bool) -> None:
    """Load a decoder in this process (one of several under torchrun) and say what it holds of it."""
    tiny = plugins.load(("backbone",)).find("backbone", QWEN)
    text = {**tiny.shape["text"], "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 16}
    vision = {**tiny.shape["vision"], "out_hidden_size": 1024}
    shape = {**tiny.shape, "text": text, "vision": vision, "mrope": [32, 48, 48]}
    backbone = type("Wide", (tiny,), {"shape": shape})()
    accelerator = Accelerator(cpu=True)
    backbone.mesh = sharding.everyone(accelerator.device) if shard else None
    before = psutil.Process().memory_info().rss
    backbone.build(("no", "yes"), ("no", "yes"), torch.float32, accelerator.device)
    grown = psutil.Process().memory_info().rss - before
    layers = sharding.layers_of(backbone.language_model, backbone.depth)
    trained = {id(parameter) for parameter in backbone.part("lora")}
    held = 4 * sum(sharding.local(p).numel() for p in layers.parameters() if id(p) not in trained)
    example = backbone.prepare(Image.new("RGB", (112, 112)), "Is it?")
    memory.reset_peak()
    backbone.train(True)
    backbone(backbone.stack([example]), torch.zeros(1, dtype=torch.long)).loss.sum().backward()
    most = memory.peak(accelerator.device) - before
    print(
        f"process {accelerator.process_index}: frozen layers {held >> 20} MiB, resident memory {grown >> 20} MiB "
        f"more, at most {most >> 20} MiB more in a training step"
    )


def run(processes: int, shard: bool, folder: Path) -> None:
    """Train every case in fresh processes."""
    folder.mkdir()
    started(processes, "--child", str(folder), *(["--shard"] if shard else []))


def started(processes: int, *options: str) -> str:
    """Run this script in several processes that torchrun starts, or in one; return what it printed."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    command = [sys.executable, *(launcher if processes > 1 else []), __file__, *options]
    # Large tensors then go back to the system when they are freed, and resident memory is what is held.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def difference(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor], kind: str) -> float:
    """Return the largest absolute difference of what has a kind of name."""
    return max(float((left[name] - right[name]).abs().max()) for name in left if name.startswith(kind))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", default="2,3")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--shard", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        if options.memory:
            weigh(options.shard)
            return
        for case in CASES:
            learn(case, options.shard, Path(options.child))
        return
    if options.memory:
        for count in [1, *map(int, options.processes.split(","))]:
            done = started(count, "--memory", "--child", "none", *(["--shard"] if count > 1 else []))
            print(f"{count} processes:\n{done}")
        return
    print("| trained | processes | loss | weight | probability | answers |\n| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        one = Path(folder) / "one"
        run(1, False, one)
        for count in map(int, options.processes.split(",")):
            whole, parts = Path(folder) / f"{count} whole", Path(folder) / f"{count} sharded"
            run(count, False, whole)
            run(count, True, parts)
            for number, case in enumerate(CASES):
                print(f"| {case.title} | {count} | " + " | ".join(compared(number, one, whole, parts)) + " |")


def compared(number: int, one: Path, whole: Path, parts: Path) -> list[str]:
    """Return a row of the table: what one process left beside what several left, without and with `--shard`."""
    alone, together, sharded = (load_file(path / f"{number}.safetensors") for path in (one, whole, parts))
    cells = [
        f"{difference(alone, together, kind):.1e}, {difference(alone, sharded, kind):.1e}"
        for kind in ("loss", "weight", "probability")
    ]
    said = {(path / f"{number}.json").read_text() for path in (one, whole, parts)}
    return [*cells, "the same" if len(said) == 1 else "others"]


if __name__ == "__main__":
    main()
