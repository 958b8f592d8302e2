"""METEOR: words matched by form, stem or synonym, with a penalty for scattered matches."""

import os
from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fairbench import FairbenchError, Metric, Predictions, hookimpl

WORDNET = "FAIRBENCH_WORDNET"
OBTAIN = f"`python -m nltk.downloader -d F wordnet`, and set {WORDNET}=F"
REMEMBERED = 1 << 18  # pairs: the same rows are scored overall, by group and by gap


@lru_cache(maxsize=REMEMBERED)
def meteor(text: str, reference: str, folder: str) -> float:
    """Compute METEOR of one pair by nltk, words split by its TreebankWordTokenizer, synonyms from `folder`."""
    from nltk.tokenize import TreebankWordTokenizer
    from nltk.translate.meteor_score import single_meteor_score

    split = TreebankWordTokenizer().tokenize
    return float(single_meteor_score(split(reference), split(text), wordnet=_wordnet(folder)))


@lru_cache(maxsize=1)
def _wordnet(folder: str):  # type: ignore[no-untyped-def]
    """Open WordNet in a folder of nltk data, and nowhere else."""
    import nltk
    from nltk.corpus import wordnet

    if not any((Path(folder) / "corpora" / name).exists() for name in ("wordnet", "wordnet.zip")):
        raise FairbenchError(f"{WORDNET}={folder} holds no corpora/wordnet", OBTAIN)
    nltk.data.path.insert(0, folder)
    try:
        wordnet.ensure_loaded()
    except (OSError, LookupError, ValueError) as error:
        raise FairbenchError(f"{WORDNET}={folder}: nltk cannot read its WordNet: {error}", OBTAIN) from error
    return wordnet


def by_row(rows: Predictions) -> npt.NDArray[np.float64]:
    """Score each row by its METEOR, (n,), a fraction."""
    return np.array([meteor(*pair, os.environ[WORDNET]) for pair in rows.pairs], dtype=np.float64)


def made_with() -> str:
    """Name nltk's version, and WordNet by its hash."""
    return f"nltk {version('nltk')}, WordNet sha256 {_digest(os.environ[WORDNET])}"


@lru_cache(maxsize=1)
def _digest(folder: str) -> str:
    import hashlib
    import zipfile

    unpacked = Path(folder) / "corpora" / "wordnet"  # where nltk looks first
    root = unpacked if unpacked.is_dir() else zipfile.Path(unpacked.with_suffix(".zip"), "wordnet/")
    state = hashlib.sha256()
    for file in sorted(root.iterdir(), key=lambda file: file.name):
        state.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    return state.hexdigest()[:16]


@hookimpl
def fairbench_metrics() -> Iterable[Metric]:
    """Offer METEOR."""
    return [
        Metric(
            name="meteor",
            title="METEOR",
            formula="mean over rows of (1 − ½ (chunks / matches)³) · PR / (0.9 P + 0.1 R); words match by form, "
            "Porter stem or WordNet synonym",
            source="Lavie & Agarwal 2007 (aclanthology.org/W07-0734), as nltk computes it; not METEOR 1.5",
            each=by_row,
            scale="fraction",
            needs=("text",),
            checkpoint=WORDNET,
            obtain=OBTAIN,
            made_with=made_with,
        )
    ]
