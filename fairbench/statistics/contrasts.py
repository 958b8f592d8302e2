"""The largest studentised difference between two groups, and its distribution when labels are permuted.

One distribution gives a test and all simultaneous intervals: its upper 5 % point is the critical value of
every pairwise difference, so that p <= .05 exactly where some interval leaves 0 out (a max-t procedure;
Westfall and Young 1993). Any statistic is exact when group labels are exchangeable; studentising keeps the
level where groups scatter differently at equal means (Chung and Romano 2013), if groups are large. In a small
group that scatters much beside a large one that hardly does, a draw deals the small group what the large one has,
and the draws are too narrow: so two groups that scatter UNLIKE are not found apart either where their own scatter
does not show it (Welch 1947, with Bonferroni's share of the pairs).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from fairbench.statistics.intervals import Floats, Ints
from fairbench.statistics.moments import group_features, unit_counts
from fairbench.statistics.resampling import Table, affordable, permuted, rounded
from fairbench.statistics.results import ALPHA
from fairbench.statistics.seeds import SeedVariance
from fairbench.statistics.tail import CLOSE, critical_value, p_value

PAIRS = 40_000_000  # differences between two groups that are computed at most, in all draws together
FEWEST = 2_000  # draws that are made whatever they cost
UNLIKE = 3.0  # times another's a group's scatter per unit, from which on the draws alone are not trusted
NORMAL = 1.96  # critical value where no draw differs from another: units that all agree are not certainty


@dataclass(frozen=True)
class Cells:
    """Mean of every rate in every group and the variance of that mean: (draws, rates, groups), NaN where empty.

    The variance is an estimate under the null for single 0/1 rows (pooled over groups), else each group's own.
    """

    mean: Floats
    variance: Floats

    def combined(self, weights: Sequence[float] | None) -> Cells:
        """Take the weighted sum of the rates as one rate; undefined in a group that lacks one of them."""
        if weights is None:
            return self
        w = np.asarray(weights, float)[None, :, None]
        return Cells((w * self.mean).sum(1, keepdims=True), (w**2 * self.variance).sum(1, keepdims=True))


@dataclass(frozen=True)
class MaxT:
    """The observed largest t of every rate, its draws under the null, the critical value and p.

    largest: (rates,); draws: (draws, rates); observed: the Cells with the seeds' variance added; freedom: (rates,
    pairs), degrees of freedom of every pair's difference by the two groups' own scatter, infinite where the draws
    are trusted.
    """

    observed: Cells
    largest: Floats
    draws: Floats
    p: float
    critical: float
    freedom: Floats

    def reach(self) -> Floats:
        """How many standard errors every pair's interval reaches, (rates, pairs)."""
        share = ALPHA / max(1, self.freedom.size)
        own = np.where(np.isinf(self.freedom), 0.0, stats.t.ppf(1 - share / 2, self.freedom))
        quantile: Floats = np.maximum(self.critical, own)
        return quantile

    def by_scatter(self) -> Floats:
        """P of every pair by the two groups' own scatter alone, times the number of pairs; (rates, pairs)."""
        p = np.minimum(1.0, self.freedom.size * 2 * stats.t.sf(pairwise_t(self.observed), self.freedom))
        return np.where(np.isinf(self.freedom), 0.0, p)


def own_cells(sums: Floats, units: Floats) -> Cells:
    """Means and each group's own variance, from sums (draws, groups, 5·rates) of `group_features`.

    One average unit's scatter is added to every group, so that a small group whose rows happen to agree does
    not look infinitely certain; where no unit differs from another at all, one whole row's.
    """
    s, n, ss, sn, nn = np.split(sums.transpose(0, 2, 1), 5, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = s / n
        scatter = np.maximum(ss - 2 * mean * sn + mean**2 * nn, 0)
        usual = np.nansum(scatter, axis=2, keepdims=True) / units.sum(axis=1)[None, :, None]
        usual = np.where(usual > 1e-12, usual, 1.0)
        variance = (scatter + usual) / n**2 * units / np.maximum(units - 1, 1)
    return Cells(mean, variance)


def pooled_cells(sums: Floats) -> Cells:
    """Means of single 0/1 rows and their variance were all groups alike; sums: (draws, groups, 2·rates)."""
    s, n = np.split(sums.transpose(0, 2, 1), 2, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = s.sum(axis=2, keepdims=True) / n.sum(axis=2, keepdims=True)
        return Cells(s / n, np.where(n > 0, rate * (1 - rate) / n, np.nan))


def max_t(
    table: Table,
    weights: Sequence[float] | None = None,
    seeds: Sequence[SeedVariance] = (),
    repeats: int = 10_000,
    seed: int = 0,
    together: str = "max",
    pooled: bool = False,
) -> MaxT:
    """Test that all groups have the same mean in every rate (or in the weighted sum of the rates).

    seeds: what training again adds, per rate (of the sum, with weights); the draws then add a t of its degrees
    of freedom for the part that seeds do not share. together: "max" takes the largest t of all rates, "mean"
    the rates' average; then `critical` is for that average. pooled: take one variance for all groups, which
    is right for single 0/1 rows, whose variance follows from their mean.
    """
    table = rounded(table)
    groups, rates = table.counts.shape[1], 1 if weights is not None else table.sums.shape[1]
    afford = max(FEWEST, PAIRS // max(1, rates * groups * (groups - 1) // 2))
    draws = affordable(table, min(repeats, afford))
    columns = np.concatenate([table.sums, table.sizes], axis=1) if pooled else group_features(table)

    def cells(sums: Floats) -> Cells:
        return (pooled_cells(sums) if pooled else own_cells(sums, unit_counts(table))).combined(weights)

    own = cells((table.counts.T @ columns)[None])
    rng = np.random.default_rng(seed)
    noise = SeedNoise.of(own, seeds)
    observed = own if noise is None else Cells(own.mean, own.variance + noise.between)
    drawn = []
    for sums in permuted(table, columns, draws, rng):
        drawn.append(largest(cells(sums), noise, rng))
    null = np.concatenate(drawn)
    top = largest(observed)[0]
    one, all_draws = (top.mean(), null.mean(1)) if together == "mean" else (top.max(), null.max(1))
    freedom = min((part.freedom for part in seeds), default=np.inf)
    critical = critical_value(all_draws) if all_draws.max() > CLOSE else NORMAL
    exact = pooled or together == "mean"
    scatter = np.full((rates, len(pairs(groups)[0])), np.inf) if exact else pairs_freedom(own, table, noise)
    test = MaxT(observed, top, null, p_value(all_draws, float(one), freedom), critical, scatter)
    return test if np.isinf(scatter).all() else replace(test, p=smallest(test, freedom))


def smallest(test: MaxT, freedom: float) -> float:
    """The smallest p of any pair, by the draws and by the two groups' own scatter: the pairs by falling t."""
    every, t, own = test.draws.max(axis=1), pairwise_t(test.observed).ravel(), test.by_scatter().ravel()
    least = 1.0
    for pair in np.argsort(-t, kind="stable"):
        by_draws = p_value(every, float(t[pair]), freedom)
        if by_draws >= least:  # and no later pair's is smaller
            break
        least = min(least, max(by_draws, float(own[pair])))
    return least


@dataclass(frozen=True)
class SeedNoise:
    """How the seeds' part enters drawn t values; arrays (1, rates, groups), freedom (rates,).

    between: variance of a group's seed mean from training again; rest: that and the part of its patients'
    sampling that differs between seeds; shared: what is left of the sampling variance.
    """

    between: Floats
    rest: Floats
    shared: Floats
    freedom: Floats

    @classmethod
    def of(cls, own: Cells, seeds: Sequence[SeedVariance]) -> SeedNoise | None:
        """None where there is one seed."""
        if not seeds:
            return None
        between = np.array([part.between for part in seeds])[None, :, None] * np.ones_like(own.mean)
        within = np.stack([part.within for part in seeds])[None]
        rest = between + np.minimum(within, own.variance)
        shared = np.maximum(own.variance - within, 0)
        return cls(between, rest, shared, np.array([part.freedom for part in seeds]))


def largest(cells: Cells, noise: SeedNoise | None = None, rng: np.random.Generator | None = None) -> Floats:
    """Largest |t| over all pairs of groups, (draws, rates); pairs with an empty group do not count."""
    mean, variance = np.nan_to_num(cells.mean), np.where(np.isnan(cells.mean), np.inf, cells.variance)
    if noise is None:
        top = np.zeros(mean.shape[:2])
        for t in _pairwise(mean, variance):
            np.maximum(top, (t * t).max(axis=2), out=top)
        return np.sqrt(top)
    assert rng is not None
    freedom = np.where(np.isinf(noise.freedom), 1e9, noise.freedom)
    stretch = np.sqrt(freedom / rng.chisquare(freedom, (len(mean), freedom.size)))[..., None]
    added = rng.standard_normal(mean.shape) * np.sqrt(np.nan_to_num(noise.rest)) * stretch
    total = np.where(np.isnan(noise.rest), np.inf, noise.rest + noise.shared)
    shared = np.nan_to_num(noise.shared)
    top = np.zeros(mean.shape[:2])
    both = zip(_pairwise(mean, variance), _pairwise(added, total), strict=True)
    for first, (t, u) in enumerate(both):
        every = total[..., first, None] + total[..., first + 1 :]
        every[every == 0] = np.inf  # nothing varies between these two, and t is 0 as it stands
        t *= np.sqrt((shared[..., first, None] + shared[..., first + 1 :]) / every)
        t += u
        np.maximum(top, np.abs(t, out=t).max(axis=2), out=top)
    return top


def _pairwise(mean: Floats, variance: Floats) -> Iterator[Floats]:
    """Differences of one group and all later ones in standard errors, group by group so that memory stays small."""
    for first in range(mean.shape[2] - 1):
        difference = mean[:, :, first, None] - mean[:, :, first + 1 :]
        error = variance[:, :, first, None] + variance[:, :, first + 1 :]
        error[error == 0] = np.inf
        difference /= np.sqrt(error, out=error)
        yield difference


def pairs_freedom(own: Cells, table: Table, noise: SeedNoise | None) -> Floats:
    """Degrees of freedom of the difference of pairs that scatter UNLIKE, (rates, pairs), by Satterthwaite (1946).

    own: Cells of one draw, (1, rates, groups). A group's variance has one degree fewer than it has units (of a sum
    of rates: of the rate that has fewest), the seeds' part its own.
    """
    first, second = pairs(own.mean.shape[2])
    units = unit_counts(table)
    if len(units) > own.mean.shape[1]:
        units = units.min(axis=0, keepdims=True)
    freedom = np.maximum(units - 1, 1)
    parts = [(own.variance[0], freedom)]
    if noise is not None:
        seeds = np.broadcast_to(noise.freedom[:, None], freedom.shape)
        parts = [(noise.shared[0], freedom), (noise.rest[0], seeds)]
    total, square = np.zeros((2, len(own.mean[0]), first.size))
    for variance, degrees in parts:
        for side in (first, second):
            total += variance[:, side]
            square += variance[:, side] ** 2 / degrees[:, side]
    with np.errstate(divide="ignore", invalid="ignore"):
        together = np.where(square > 0, total**2 / square, 1.0)
        unit = own.variance[0] * units
        ratio = unit[:, first] / unit[:, second]
        unlike = np.maximum(ratio, 1 / ratio) >= UNLIKE
    trusted: Floats = np.where(unlike, together, np.inf)
    return trusted


def pairwise_t(cells: Cells) -> Floats:
    """|t| of every pair of one draw, (rates, pairs); 0 where a group is empty or nothing varies."""
    first, second = pairs(cells.mean.shape[2])
    mean, variance = cells.mean[0], cells.variance[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.abs(mean[:, first] - mean[:, second]) / np.sqrt(variance[:, first] + variance[:, second])
    known: Floats = np.nan_to_num(t, nan=0.0, posinf=0.0)
    return known


def pairs(groups: int) -> tuple[Ints, Ints]:
    """All pairs of groups, the first before the second."""
    first, second = np.triu_indices(groups, 1)
    return first.astype(np.int64), second.astype(np.int64)
