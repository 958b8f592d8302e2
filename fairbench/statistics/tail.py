"""p-values and critical values from draws of a statistic, beyond what counting draws can resolve.

Counting gives no p below 1 / (draws + 1), so a table of fifteen methods, whose 105 pairs share 5 %, could
never tell two of them apart. Where fewer than COUNTED draws reach the observed value, the tail is continued
from the largest draws instead (Knijnenburg et al. 2009, with the shape known rather than fitted).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fairbench.statistics.results import ALPHA

Floats = NDArray[np.float64]

COUNTED = 10  # draws beyond the observed value that make counting precise enough
TAIL = 0.025  # share of the draws that the tail is continued from
CLOSE = 1e-9  # draws that differ by less than this from the observed value are ties


def p_value(draws: Floats, observed: float, freedom: float = np.inf) -> float:
    """Probability under the null of a value at least `observed`; never 0; draws: (n,).

    (k + 1) / (n + 1) where k >= COUNTED draws reach it (Phipson and Smyth 2010). Else the tail above the draws'
    97.5th percentile u goes on as a generalised Pareto with the mean excess seen there: exponential (heavier
    than the normal tail of the statistics used here, hence cautious), or of index `freedom` for a t.
    """
    reached = int(np.count_nonzero(draws >= observed - CLOSE * max(1.0, abs(observed))))
    counted = (1 + reached) / (draws.size + 1)
    if reached >= COUNTED or not np.isfinite(observed):
        return float(counted)
    start = float(np.quantile(draws, 1 - TAIL))
    excess = draws[draws > start] - start
    if excess.size < COUNTED or freedom <= 1:
        return float(counted)
    shape = 1 / freedom
    scale = excess.mean() * (1 - shape)
    far = (observed - start) / scale
    beyond = np.exp(-far) if shape == 0 else (1 + shape * far) ** -freedom
    return float(min(counted, (1 + excess.size) / (draws.size + 1) * beyond))


def critical_value(draws: Floats, alpha: float = ALPHA) -> float:
    """The value that an observed one must exceed for its counted p to be `alpha` or less; draws: (n,)."""
    allowed = int(np.floor(alpha * (draws.size + 1) + CLOSE)) - 1
    if allowed < 0:
        return float("inf")
    value = float(np.partition(draws, -1 - allowed)[-1 - allowed])
    return value + CLOSE * max(1.0, abs(value))
