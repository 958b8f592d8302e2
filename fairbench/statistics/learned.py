"""Whether answers are worth more than chance: AUROC where there are scores, balanced accuracy otherwise.

Accuracy against a constant answer condemns every screening model: at 2 % prevalence a model of AUROC .95 that
calls anybody ill is less accurate than one that calls nobody.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import optimize, stats

from fairbench.errors import FairbenchError
from fairbench.statistics.intervals import Floats, Ints, auroc_limits, delong, influence
from fairbench.statistics.moments import group_moments, limits_with_seeds
from fairbench.statistics.paired import mean_difference
from fairbench.statistics.permutation import Rows
from fairbench.statistics.results import ALPHA, Difference
from fairbench.statistics.standardised import by_class

SMALLEST = 1e-12  # p-values are not told apart below it


def auroc_over_chance(target: Ints, score: Floats, cluster: Ints | None = None) -> Difference:
    """AUROC minus one half, with DeLong's interval and the p at which that interval touches 0.

    target: (n,) 0/1; score: (n,) or (seeds, n), whose mean AUROC is taken.
    """
    ours = delong(target, score, cluster)
    if ours is None:
        return Difference(reason="one class is missing")
    low, high = auroc_limits(ours, ALPHA)
    p = p_at(lambda alpha: auroc_limits(ours, alpha), 0.5)
    return Difference(ours.value - 0.5, low - 0.5, high - 0.5, p=p)


def balanced_over_chance(correct: Floats, target: Ints, cluster: Ints | None = None) -> Difference:
    """Balanced accuracy (the mean of the classes' accuracies) minus 1 / classes, which any constant answer gets.

    correct: (n,) or (seeds, n); target: (n,) class codes. p is where the interval touches 0.
    """
    everyone = np.zeros(np.asarray(target).shape, dtype=np.int64)
    rates, shares = by_class(correct, target, everyone)
    if len(rates) < 2:
        return Difference(reason="one class is missing")
    chance = 1 / len(shares)
    rows = Rows.of(rates, everyone, cluster, None, [chance] * len(rates))
    m, parts = group_moments(rows.table), rows.seed_parts(contrasts=False)

    def limits(alpha: float) -> tuple[float, float]:
        _, low, high = limits_with_seeds(m, alpha, rows.weights, parts)
        return float(low[0, 0]), float(high[0, 0])

    value, (low, high) = float(m.mean[:, 0].mean()), limits(ALPHA)
    return Difference(value - chance, low - chance, high - chance, p=p_at(limits, chance))


def auroc_difference(target: Ints, a: Floats, b: Floats, cluster: Ints | None = None) -> Difference:
    """AUROC of A minus that of B on the same rows (DeLong 1988); a, b: (n,) or (seeds, n), one seed against many.

    t with the degrees of freedom of the smaller class; the seeds' scatter is added with its own.
    """
    positive = np.asarray(target).astype(bool)
    if positive.all() or not positive.any():
        return Difference(reason="one class is missing")
    first, second = np.atleast_2d(a), np.atleast_2d(b)
    seeds = max(len(first), len(second))
    if {len(first), len(second)} - {1, seeds}:
        raise FairbenchError("A and B have different numbers of seeds", "compare the seeds both have")
    values, parts = np.empty(seeds), np.empty((seeds, positive.size))
    for seed in range(seeds):
        (x, own), (y, other) = (influence(positive, rows[min(seed, len(rows) - 1)]) for rows in (first, second))
        values[seed], parts[seed] = x - y, own - other
    freedom = min(
        one.freedom for one in (delong(positive, first, cluster), delong(positive, second, cluster)) if one
    )
    unit = np.arange(positive.size) if cluster is None else np.unique(cluster, return_inverse=True)[1].ravel()
    scatter = np.bincount(unit, parts.mean(axis=0))
    smaller = min(positive.sum(), (~positive).sum())
    patients = np.sqrt((scatter**2).sum() * (freedom + 1) / freedom + 1 / (4 * smaller**2 * unit.size))
    training = float(values.std(ddof=1) / np.sqrt(seeds)) if seeds > 1 else 0.0

    def limits(alpha: float) -> tuple[float, float]:
        reach = stats.t.ppf(1 - alpha / 2, freedom) * patients
        if seeds > 1:
            reach = np.hypot(reach, stats.t.ppf(1 - alpha / 2, seeds - 1) * training)
        return max(-1.0, values.mean() - reach), min(1.0, values.mean() + reach)

    low, high = limits(ALPHA)
    return Difference(float(values.mean()), float(low), float(high), p=p_at(limits, 0.0))


def balanced_difference(a: Floats, b: Floats, target: Ints, cluster: Ints | None = None) -> Difference:
    """Balanced accuracy of A minus that of B, whole clusters swapped; a, b: correctness (n,) or (seeds, n)."""
    classes, place, count = np.unique(np.asarray(target), return_inverse=True, return_counts=True)
    weight = place.size / (classes.size * count[place.ravel()])
    return mean_difference(np.asarray(a) * weight, np.asarray(b) * weight, cluster)


def p_at(limits: Callable[[float], tuple[float, float]], null: float) -> float:
    """The error alpha at which an interval first touches `null`: p <= alpha exactly where it leaves it out."""

    def inside(log_alpha: float) -> float:
        low, high = limits(float(np.exp(log_alpha)))
        return float(min(null - low, high - null))

    least, most = np.log(SMALLEST), np.log(1 - 1e-9)
    if not np.isfinite(inside(np.log(ALPHA))) or inside(most) >= 0:
        return 1.0
    if inside(least) <= 0:
        return SMALLEST
    return float(np.exp(optimize.brentq(inside, least, most, xtol=1e-10)))
