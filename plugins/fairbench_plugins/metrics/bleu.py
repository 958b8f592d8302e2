"""BLEU: how many of a text's n-grams stand in the reference, per row and over a corpus."""

from collections.abc import Callable, Iterable
from functools import lru_cache
from importlib.metadata import version
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fairbench import Metric, Predictions, hookimpl

ORDERS = (1, 4)
REMEMBERED = 1 << 18  # pairs: the same rows are scored overall, by group and by gap


class Counts(NamedTuple):
    """What BLEU is made of: n-grams of orders 1 to 4 that match, and all of them; tokens of text and reference."""

    matching: tuple[int, ...]
    total: tuple[int, ...]
    length: int
    reference_length: int


@lru_cache(maxsize=REMEMBERED)
def counts(text: str, reference: str) -> Counts:
    """Count one pair's n-grams as sacrebleu does, with its tokenizer 13a, case kept."""
    scored = _scorer().sentence_score(text, [reference])
    return Counts(tuple(scored.counts), tuple(scored.totals), scored.sys_len, scored.ref_len)


@lru_cache(maxsize=1)
def _scorer():  # type: ignore[no-untyped-def]
    from sacrebleu import BLEU

    return BLEU(effective_order=True)


def by_row(order: int) -> Callable[[Predictions], npt.NDArray[np.float64]]:
    """Score each row by the BLEU of its own text, orders longer than the text left out (effective order)."""

    def each(rows: Predictions) -> npt.NDArray[np.float64]:
        return np.array([_bleu(counts(*pair), order, effective=True) for pair in rows.pairs], dtype=np.float64)

    return each


def of_corpus(order: int) -> Callable[[Predictions], float]:
    """Compute one BLEU from the n-gram counts of all rows together."""

    def over(rows: Predictions) -> float:
        columns = zip(*(counts(*pair) for pair in rows.pairs), strict=True)
        matching, total, length, reference_length = (np.sum(column, axis=0).tolist() for column in columns)
        return _bleu(Counts(matching, total, length, reference_length), order, effective=False)

    return over


def _bleu(counts: Counts, order: int, effective: bool) -> float:
    from sacrebleu import BLEU

    percent = BLEU.compute_bleu(
        correct=list(counts.matching[:order]),
        total=list(counts.total[:order]),
        sys_len=counts.length,
        ref_len=counts.reference_length,
        smooth_method="exp",
        effective_order=effective,
        max_ngram_order=order,
    ).score
    return float(min(percent / 100, 1.0))  # sacrebleu gives 100.00000000000004 to a text that is the reference


def signature() -> str:
    """Name sacrebleu's version and the rest of its signature."""
    return f"sacrebleu {version('sacrebleu')}, 1 reference, case kept, tokenizer 13a, smoothing exp"


@hookimpl
def fairbench_metrics() -> Iterable[Metric]:
    """Offer BLEU-1 and BLEU-4, by row and of the corpus."""
    source = "Papineni et al. 2002 (doi:10.3115/1073083.1073135), as sacrebleu computes it (arXiv 1804.08771)"
    how = "brevity penalty × geometric mean of n-gram precisions, n ≤ {}"
    for order in ORDERS:
        yield Metric(
            name=f"bleu_{order}",
            title=f"BLEU-{order}",
            formula=f"mean over rows of sentence BLEU: {how.format(order)}, exp smoothing, orders longer than "
            "the text left out; case kept, tokenizer 13a",
            source=source,
            each=by_row(order),
            needs=("text",),
            made_with=signature,
        )
        yield Metric(
            name=f"corpus_bleu_{order}",
            title=f"Corpus BLEU-{order}",
            formula=f"{how.format(order)}, n-grams and lengths summed over rows; case kept, tokenizer 13a",
            source=source,
            over=of_corpus(order),
            needs=("text",),
            made_with=signature,
        )
