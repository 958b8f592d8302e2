"""ROUGE-L: the longest common subsequence of a text and its reference."""

from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import version

import numpy as np
import numpy.typing as npt

from fairbench import Metric, Predictions, hookimpl

REMEMBERED = 1 << 18  # pairs: the same rows are scored overall, by group and by gap


@lru_cache(maxsize=REMEMBERED)
def rouge_l(text: str, reference: str) -> float:
    """Compute ROUGE-L's F of one pair, by rouge-score, without stemming."""
    return float(_scorer().score(reference, text)["rougeL"].fmeasure)


@lru_cache(maxsize=1)
def _scorer():  # type: ignore[no-untyped-def]
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=False)


def by_row(rows: Predictions) -> npt.NDArray[np.float64]:
    """Score each row by its ROUGE-L, (n,), a fraction."""
    return np.array([rouge_l(*pair) for pair in rows.pairs], dtype=np.float64)


def made_with() -> str:
    """Name rouge-score's version and how it is used."""
    return f"rouge-score {version('rouge-score')}, F, no stemming"


@hookimpl
def fairbench_metrics() -> Iterable[Metric]:
    """Offer ROUGE-L."""
    return [
        Metric(
            name="rouge_l",
            title="ROUGE-L",
            formula="mean over rows of 2PR / (P + R); P, R: longest common subsequence / words of text, of "
            "reference; lower case, letters and digits only, no stemming",
            source="Lin 2004 (aclanthology.org/W04-1013), as rouge-score computes it",
            each=by_row,
            scale="fraction",
            needs=("text",),
            made_with=made_with,
        )
    ]
