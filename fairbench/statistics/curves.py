"""Curves of a score: how well it ranks (ROC) and how far it can be believed (calibration), on grids of few points.

What is returned are means over a grid, no threshold of anybody's score: enough to draw, too little to tell a row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_curve

from fairbench.statistics.intervals import Floats, Ints
from fairbench.statistics.moments import group_moments, limits
from fairbench.statistics.resampling import tabulate
from fairbench.statistics.results import ALPHA

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


def reliability(target: Ints, probability: Floats, cluster: Ints | None, least: int) -> tuple[Reliability, ...]:
    """Cut rows into at most BINS parts of equal size by their probability, each of at least `least` rows.

    target: (n,), 1 = positive; probability: (seeds, n), fractions; cluster: (n,), whose rows are not independent,
    or None. Each seed is cut by itself, and values and limits of the parts of the same place are averaged: seeds
    make no interval narrower. Empty with fewer rows than `least`.
    """
    seeds, n = probability.shape
    parts = min(BINS, n // max(1, least))
    if parts == 0:
        return ()
    rows = np.diff(np.linspace(0, n, parts + 1).round().astype(int))
    place = np.repeat(np.arange(parts), rows)
    found = np.zeros((4, parts))
    for one in probability:
        part = np.empty(n, dtype=np.int64)
        part[np.argsort(one, kind="stable")] = place
        moments = group_moments(tabulate([target.astype(np.float64)], part, cluster, parts))
        low, high = limits(moments, ALPHA)
        found += np.stack([np.bincount(part, one) / rows, moments.mean[0], low[0], high[0]]) / seeds
    values = zip(*found.tolist(), rows.tolist(), strict=True)
    return tuple(Reliability(*one) for one in values)
