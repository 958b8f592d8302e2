"""Exact match: the text is the reference, but for case, spaces and the final punctuation."""

import unicodedata
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from fairbench import Metric, Predictions, hookimpl

FINAL = ".!?,;: "


def normal(text: str) -> str:
    """Fold case and compatible characters (NFKC), join words by one space, drop punctuation at the end.

    A text of nothing but punctuation keeps it, for it is not the empty one.
    """
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return folded.rstrip(FINAL) or folded


def by_row(rows: Predictions) -> npt.NDArray[np.float64]:
    """Score 1 for each row whose text is its reference once both are normal, (n,)."""
    return np.array([normal(text) == normal(reference) for text, reference in rows.pairs], dtype=np.float64)


@hookimpl
def fairbench_metrics() -> Iterable[Metric]:
    """Offer exact match."""
    return [
        Metric(
            name="exact_match",
            title="Exact match",
            formula="share of rows whose text is the reference, after NFKC, case folding, single spaces, and "
            f"without final {FINAL.strip()}",
            source="Rajpurkar et al. 2016 (arXiv 1606.05250), keeping articles and inner punctuation",
            each=by_row,
            needs=("text",),
        )
    ]
