"""Do the same in other processes, where Python orders its sets and hashes its strings in another way."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fairbench import plugins
from fairbench.data.dataset import Dataset, digest, rows
from fairbench.models.backbone import Backbone
from fairbench.testing.toys import STAGES, train
from fairbench.training.isolation import checksum
from fairbench.training.isolation import frozen as frozen_tensors
from fairbench.training.method import Method

CHILD = "import sys; from fairbench.testing.elsewhere import answer; answer(*sys.argv[1:])"
# A tenth of the usual learning rate: rounding stays small even where a method plans ten times the rate of others.
GENTLE = (replace(STAGES[0], lr=STAGES[0].lr / 10),)


def weights(*methods: type[Method], processes: int = 2) -> dict[str, dict[str, Tensor]]:
    """Train methods on the toys in other processes, gently; return each one's weights by its name."""
    with tempfile.TemporaryDirectory() as folder:
        _ask("learn", [_address(method) for method in methods], folder, processes)
        return {method.name: load_file(Path(folder, f"{method.name}.safetensors")) for method in methods}


def contents(dataset: Dataset) -> str:
    """Read a dataset in another process; return the digest of its rows and its fingerprint."""
    what = {**_address(type(dataset)), "settings": dataset.settings(), "root": _root(dataset)}
    return _ask("read", [what])


def frozen(backbone: type[Backbone]) -> str:
    """Build a backbone in another process; return the digest of its frozen weights and its fingerprint."""
    return _ask("build", [_address(backbone)])


def identity(subject: Dataset | Backbone) -> str:
    """Return what `contents` and `frozen` return, for a dataset or a built backbone of this process."""
    if isinstance(subject, Dataset):
        return f"{digest(rows(subject))} {subject.fingerprint()}"
    sums = sorted((name, *checksum(tensor).tolist()) for name, tensor in frozen_tensors(subject))
    return f"{hashlib.sha256(repr(sums).encode()).hexdigest()[:16]} {subject.fingerprint()}"


def built(backbone: type[Backbone], dtype: torch.dtype = torch.float32) -> Backbone:
    """Build a backbone for two classes."""
    return backbone().build(("no", "yes"), ("no", "yes"), dtype, torch.device("cpu"), generates=False)


def _root(dataset: Dataset) -> str | None:
    root = getattr(dataset, "root", None)
    return None if root is None else str(root)


def _address(kind: type) -> dict[str, Any]:
    """Say where another process finds a class."""
    assert "<locals>" not in kind.__qualname__, "define it at the top of a module: another process looks there"
    return {"file": sys.modules[kind.__module__].__file__, "module": kind.__module__, "name": kind.__qualname__}


def _ask(what: str, subjects: Sequence[dict[str, Any]], folder: str = "", processes: int = 1) -> str:
    several = ("-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}")
    with tempfile.TemporaryDirectory() as scripts:
        script = Path(scripts, "child.py")
        script.write_text(CHILD)
        command = [sys.executable, *(several if processes > 1 else ()), str(script)]
        ended = subprocess.run(
            [*command, what, json.dumps(subjects), folder],
            env={
                **os.environ,
                "PYTHONHASHSEED": "12" if os.environ.get("PYTHONHASHSEED") == "11" else "11",
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                "OMP_NUM_THREADS": "1",
            },
            capture_output=True,
            text=True,
            check=False,
        )
    assert ended.returncode == 0, f"it fails in another process: {_reason(ended.stderr)}"
    return ended.stdout.strip().rpartition("\n")[2]


def _reason(trace: str) -> str:
    """Return the first line that names an exception: of several processes, those after it are its consequences."""
    named = [line for line in trace.splitlines() if "Error" in line.partition(":")[0]]
    return named[0].strip() if named else trace.strip()[-300:]


def answer(what: str, subjects: str, folder: str) -> None:
    """Do what was asked, in this other process, and print the answer."""
    for subject in json.loads(subjects):
        kind = _found(subject)
        if what == "learn":
            learned = train(kind, stages=GENTLE, out=Path(folder, f"runs-{kind.name}")).weights
            if os.environ.get("RANK", "0") == "0":
                save_file(learned, Path(folder, f"{kind.name}.safetensors"))
        elif what == "read":
            dataset = kind(**subject["settings"])
            if subject["root"] is not None:
                dataset.root = Path(subject["root"])
            print(identity(dataset))
        else:
            print(identity(built(kind)))


def _found(subject: dict[str, Any]) -> Any:
    try:
        module = importlib.import_module(subject["module"])
    except ImportError:
        module = plugins.import_file(Path(subject["file"]))
    for name in subject["name"].split("."):
        module = getattr(module, name)
    return module
