"""RadGraph F1: whether a text names the same entities, in relations or not, as its reference."""

import json
import os
import subprocess
from collections.abc import Iterable
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fairbench import FairbenchError, Metric, Predictions, hookimpl

RADGRAPH, PYTHON = "FAIRBENCH_RADGRAPH", "FAIRBENCH_RADGRAPH_PYTHON"
MODELS = ("radgraph", "radgraph-xl", "modern-radgraph-xl")
OBTAIN = (
    "`hf download StanfordAIMI/RRG_scorers radgraph-xl.tar.gz --local-dir F`, unpack it into F/radgraph-xl, set "
    f"{RADGRAPH}=F/radgraph-xl; `hf download` the model that its config.json names; and, since radgraph needs "
    'transformers below 5, `python -m venv E`, `E/bin/pip install radgraph "transformers<5"`, '
    f"{PYTHON}=E/bin/python"
)
# Both are run by that other Python.
VERSIONS = """
import importlib.metadata, json
print(json.dumps({name: importlib.metadata.version(name) for name in ("radgraph", "transformers")}))
"""
# On the CPU, where radgraph loads its weights with weights_only.
SCORER = """
import json, os, sys
answer, sys.stdout = sys.stdout, sys.stderr  # the library prints
from radgraph import F1RadGraph
job = json.load(sys.stdin)
cache, model = os.path.split(job["folder"])
scorer = F1RadGraph(reward_level="partial", model_type=model, model_cache_dir=cache, cuda=-1)
texts, references = zip(*job["pairs"])
scores = scorer(refs=list(references), hyps=list(texts))[1]
json.dump([float(score) for score in scores], answer)
"""

Pair = tuple[str, str]


class Scorer:
    """RadGraph in a Python of its own, and the scores of the pairs it has seen."""

    def __init__(self, folder: Path, python: str) -> None:
        if folder.name not in MODELS or not (folder / "weights.th").is_file():
            raise FairbenchError(
                f"{RADGRAPH}={folder}: a folder called {' or '.join(MODELS)}, with weights.th in it, is wanted",
                OBTAIN,
            )
        if not python:
            raise FairbenchError(f"{PYTHON} does not name a Python that has radgraph", OBTAIN)
        self.folder, self.python = folder, python
        self.known: dict[Pair, float] = {}

    def scores(self, pairs: list[Pair]) -> npt.NDArray[np.float64]:
        """Score (text, reference) pairs, (n,); a text without words scores 0."""
        new = list(dict.fromkeys(pair for pair in pairs if pair not in self.known and pair[0].strip()))
        if new:
            job = {"folder": str(self.folder.absolute()), "pairs": new}
            self.known.update(zip(new, _asked(self.python, SCORER, json.dumps(job)), strict=True))
        return np.array([self.known.get(pair, 0.0) for pair in pairs], dtype=np.float64)


def _asked(python: str, script: str, job: str = "") -> Any:
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    try:
        done = subprocess.run(
            [python, "-c", script],
            input=job,
            env={**os.environ, **offline},
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(done.stdout)
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise FairbenchError(f"radgraph failed under {python}: {last}", OBTAIN) from error
    except (OSError, ValueError) as error:
        raise FairbenchError(f"{PYTHON}={python}: {error}", OBTAIN) from error


@lru_cache(maxsize=1)
def _scorer(folder: str, python: str) -> Scorer:
    return Scorer(Path(folder), python)


def _chosen() -> Scorer:
    return _scorer(os.environ[RADGRAPH].rstrip("/"), os.environ.get(PYTHON, ""))


def by_row(rows: Predictions) -> npt.NDArray[np.float64]:
    """Score each row by its RadGraph F1, (n,), a fraction."""
    return _chosen().scores(rows.pairs)


def version() -> str:
    """Name the library's version and the checkpoint: another one is another score."""
    scorer = _chosen()
    return f"{_versions(scorer.python)}, {scorer.folder.name} {_digest(scorer.folder)}"


@cache
def _versions(python: str) -> str:
    # Asked without scoring anything: tables that were made before are found by it.
    return ", ".join(f"{name} {version}" for name, version in _asked(python, VERSIONS).items())


@lru_cache(maxsize=1)
def _digest(folder: Path) -> str:
    import hashlib

    with (folder / "weights.th").open("rb") as file:
        return f"sha256 {hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"


@hookimpl
def fairbench_metrics() -> Iterable[Metric]:
    """Offer RadGraph F1."""
    return [
        Metric(
            name="radgraph_f1",
            title="RadGraph F1",
            formula="mean over rows of F1 between the sets of (entity, label, whether it is in any relation); "
            "0 where either has none",
            source="Jain et al. 2021 (arXiv 2106.14463), reward level partial of Delbrouck et al. 2022 "
            "(arXiv 2210.12186)",
            each=by_row,
            scale="fraction",
            needs=("text",),
            checkpoint=RADGRAPH,
            obtain=OBTAIN,
            made_with=version,
        )
    ]
