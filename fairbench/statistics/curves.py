"""Curves of a score: how well it ranks (ROC) and how far it can be believed (calibration), on grids of few points.

What is returned are means over a grid, no threshold of anybody's score: enough to draw, too little to tell a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from sklearn.metrics import roc_curve

from fairbench.statistics.intervals import Floats, Ints, proportion_limits

GRID = 21  # false positive rates at which a ROC curve is given
BINS = 10  # parts of equal size into which scores are cut for calibration


@dataclass(frozen=True)
class Reliability:
    """One part of the rows by score: the mean score, the share that was positive with 95 % limits, the rows."""

    score: float
    observed: float
    low: float
    high: float
    rows: int


def roc(target: Ints, score: Floats) -> tuple[Floats, Floats]:
    """Return false and true positive rates on a grid of GRID points, seeds averaged at equal false positive rate.

    target: (n,), 1 = positive, of both kinds; score: (seeds, n), higher = more likely positive. Vertical averaging
    of Fawcett 2006.
    """
    grid = np.linspace(0, 1, GRID)
    curves = []
    for one in score:
        false, true, _ = roc_curve(target, one)
        curves.append(np.interp(grid, false, true))
        curves[-1][0] = 0.0  # the curve's foot, where interpolation would take the top of a vertical step
    return grid, np.mean(curves, axis=0)


def reliability(target: Ints, probability: Floats, least: int) -> tuple[Reliability, ...]:
    """Cut rows into at most BINS parts of equal size by their probability, each of at least `least` rows.

    target: (n,), 1 = positive; probability: (seeds, n), fractions; each seed is cut by itself, and the parts of
    the same place are averaged. The limits treat a part as rows drawn once: seeds add none. Empty with fewer
    rows than `least`.
    """
    seeds, n = probability.shape
    parts = min(BINS, n // max(1, least))
    if parts == 0:
        return ()
    edges = np.linspace(0, n, parts + 1).round().astype(int)
    order = np.argsort(probability, axis=1, kind="stable")
    scores, observed = np.empty((2, seeds, parts))
    for seed in range(seeds):
        for part, (start, end) in enumerate(pairwise(edges)):
            chosen = order[seed, start:end]
            scores[seed, part], observed[seed, part] = probability[seed, chosen].mean(), target[chosen].mean()
    rows = np.diff(edges)
    low, high = proportion_limits(observed.mean(axis=0), rows)
    values = zip(scores.mean(axis=0), observed.mean(axis=0), low, high, rows, strict=True)
    return tuple(Reliability(float(a), float(b), float(c), float(d), int(n)) for a, b, c, d, n in values)
