"""Intervals for metrics that are no mean over rows (MCC, F1, AUROC of several classes): the jackknife.

Clusters are divided at random into blocks; the metric is computed without each block, and how much that moves it
says how much other patients would have (Tukey 1958; Shao and Wu 1989 for blocks). It asks nothing of a metric but
that it is smooth in the rows, and costs as many calls as there are blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from scipy import stats

from fairbench.metrics.metric import Floats, Metric
from fairbench.predictions.groups import Groups, Ints
from fairbench.predictions.predictions import Predictions
from fairbench.statistics.results import ALPHA, Estimate, Gap

BLOCKS = 40
FEWEST = 10  # clusters of a group below which it has no interval
NO_TEST = "not a mean over rows: no exact test"
BIASED = "chance alone makes it larger, the more the fewer rows there are, so it has no interval"
STILL = "leaving out any part of the rows does not move it, so there is no interval"


@dataclass(frozen=True, eq=False)
class Jackknife:
    """One metric on rows and without each block of them; several seeds' values are averaged.

    `estimates` are of all rows and then of every group; `each` their values by seed, (seeds, 1 + groups);
    `without` is (blocks, 1 + groups), NaN where undefined; `freedom` (1 + groups) the degrees of freedom, 0 where
    there are too few clusters.
    """

    metric: Metric
    estimates: tuple[Estimate, ...]
    each: Floats
    without: Floats
    freedom: Ints

    @classmethod
    def of(cls, metric: Metric, seeds: Sequence[Predictions], groups: Groups, seed: int = 0) -> Jackknife:
        """Compute the metric as often as needed; every entry of `seeds` holds the same rows in the same order."""
        n = len(groups.codes)
        cluster = np.arange(n) if groups.cluster is None else groups.cluster
        count = int(cluster.max(initial=-1)) + 1
        blocks = min(BLOCKS, max(count, 1))
        block = np.random.default_rng(seed).permutation(np.arange(count) % blocks)[cluster]
        places = np.arange(n)
        alone = [_estimates(metric, [one], groups, places) for one in seeds]
        estimates = tuple(_mean(place) for place in zip(*alone, strict=True))
        each = np.array([[_plain(one) for one in of_seed] for of_seed in alone])
        without = [
            [_plain(one) for one in _estimates(metric, seeds, groups, places[block != b])] for b in range(blocks)
        ]
        inside = [np.unique(cluster), *(np.unique(cluster[groups.codes == g]) for g in range(len(groups.names)))]
        freedom = np.array([min(len(one), blocks) - 1 if len(one) >= FEWEST else 0 for one in inside])
        return cls(metric, estimates, each, np.array(without), freedom)

    @property
    def overall(self) -> Estimate:
        """The value on all rows, with its interval."""
        return self._bounded(0)

    @property
    def groups(self) -> tuple[Estimate, ...]:
        """Every group's value with its interval."""
        return tuple(self._bounded(place) for place in range(1, len(self.estimates)))

    def _bounded(self, place: int) -> Estimate:
        one, error = self.estimates[place], self._error(self.without[:, place])
        if one.value is None or error is None or self.freedom[place] < 1:
            return one
        if not self.metric.smooth or error == 0:
            return replace(one, notes=(*one.notes, STILL if self.metric.smooth else BIASED))
        reach = _reach(error, self.freedom[place], self.each[:, place], ALPHA)
        low, high = max(one.value - reach, self.metric.low), min(one.value + reach, self.metric.high)
        return replace(one, low=min(low, one.value), high=max(high, one.value))

    def _error(self, values: Floats) -> float | None:
        """Standard error from the values without each block; None where one of them is undefined."""
        if np.isnan(values).any() or len(values) < 2:
            return None
        return float(np.sqrt((len(values) - 1) / len(values) * ((values - values.mean()) ** 2).sum()))

    def gap(self, gap: Gap) -> Gap:
        """Give the largest minus the smallest group's value an interval: simultaneous over pairs (Bonferroni), so
        that it covers the true gap; it has no exact test.
        """
        known = [p for p in range(1, len(self.estimates)) if self.estimates[p].value is not None]
        pairs = [*combinations(known, 2)]
        gap = replace(gap, notes=(*gap.notes, NO_TEST))
        ends = [self._apart(a, b, len(pairs)) for a, b in pairs]
        if gap.value is None or not ends or None in ends:
            return gap
        low, high = (max(one[end] for one in ends if one) for end in (0, 1))
        return replace(gap, low=min(max(low, 0.0), gap.value), high=max(high, gap.value))

    def _apart(self, a: int, b: int, tests: int) -> tuple[float, float] | None:
        first, second = self.estimates[a].value, self.estimates[b].value
        error = self._error(self.without[:, a] - self.without[:, b])
        freedom = min(self.freedom[a], self.freedom[b])
        if not error or first is None or second is None or freedom < 1 or not self.metric.smooth:
            return None
        reach = _reach(error, freedom, self.each[:, a] - self.each[:, b], ALPHA / tests)
        return abs(first - second) - reach, abs(first - second) + reach


def _reach(error: float, freedom: int, seeds: Floats, alpha: float) -> float:
    """Half of an interval from the rows' standard error and, added by squares, that of the mean of the seeds."""
    half = float(stats.t.ppf(1 - alpha / 2, freedom)) * error
    if seeds.size == 1:
        return half
    t = stats.t.ppf(1 - alpha / 2, seeds.size - 1)
    return float(np.hypot(half, t * seeds.std(ddof=1) / np.sqrt(seeds.size)))


def _estimates(metric: Metric, seeds: Sequence[Predictions], groups: Groups, rows: Ints) -> tuple[Estimate, ...]:
    """The metric on some rows, all together and by group, mean of the seeds; undefined where one seed's is."""
    each = []
    for predictions in seeds:
        own = predictions.take(rows)
        each.append([metric.value(own), *metric.by_group(own, groups.codes[rows], len(groups.names))])
    return tuple(_mean(place) for place in zip(*each, strict=True))


def _plain(one: Estimate) -> float:
    return np.nan if one.value is None else one.value


def _mean(seeds: Sequence[Estimate]) -> Estimate:
    undefined = next((one for one in seeds if one.value is None), None)
    if undefined is not None:
        return undefined
    return replace(seeds[0], value=float(np.mean([one.value for one in seeds if one.value is not None])))
