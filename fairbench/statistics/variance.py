"""Where the variance of a disparity comes from: groups, seeds or the patients who happened to be tested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fairbench.statistics.intervals import Floats, Ints, labelled
from fairbench.statistics.moments import group_moments
from fairbench.statistics.paired import DRAWS, paired
from fairbench.statistics.resampling import bootstrapped, checked, tabulate
from fairbench.statistics.results import Estimate


@dataclass(frozen=True)
class VarianceParts:
    """Variance of one trained model's gap: `seed` from training again, `sample` from other test patients.

    `seed` holds all that differs between seeds on one test set.

    `advice` says which to buy more of; `seed` is None with one seed, and `advice` says so.
    """

    seed: float | None
    sample: float
    seeds: int
    advice: str

    @property
    def seed_share(self) -> float | None:
        """The seed's part of both; None with one seed, or where nothing varies."""
        if self.seed is None or not self.seed + self.sample > 0:
            return None
        return self.seed / (self.seed + self.sample)


def between_group_variance(rates: Sequence[Floats], group: Ints, cluster: Ints | None = None) -> Estimate:
    """How much groups truly differ: variance of their values minus what sampling alone puts there.

    Lum, Zhang and Bower 2022 (2205.05770): the naive variance over groups (divisor groups - 1) exceeds the
    true one by the mean sampling variance of a group's value; subtract its unbiased estimate. Several rates
    are averaged. It may come out negative: then the groups differ less than sampling would make them.
    """
    values, codes, clusters = checked(rates, group, cluster)
    table = tabulate(values, codes, clusters, len(labelled(codes, None)))
    m = group_moments(table)
    corrected = []
    for mean, variance in zip(m.mean, m.variance, strict=True):
        known = ~np.isnan(variance)
        if known.sum() < 2:
            return Estimate(reason="fewer than two groups have two units")
        corrected.append(float(mean[known].var(ddof=1) - variance[known].mean()))
    return Estimate(float(np.mean(corrected)))


def variance_parts(
    rates: Sequence[Floats],
    group: Ints,
    cluster: Ints | None = None,
    reduce: str = "max",
    repeats: int = DRAWS,
    seed: int = 0,
) -> VarianceParts | None:
    """Split the variance of a gap into the seed's part and the test set's; None if the gap is undefined.

    rates: arrays (seeds, n). Crossed random effects (Owen 2007): the bootstrap variance of the seed-mean gap
    is sample + rest/seeds, that of one seed's gap is sample + rest, and the variance between seeds is seed +
    rest.
    """
    pair, _ = paired(rates, rates, group, cluster, None, reduce)
    table, width = pair.table, pair.table.sums.shape[1]
    gaps = pair.measures((table.counts.T @ table.sums)[None], (table.counts.T @ table.sizes)[None])[0, 0, 0]
    if np.isnan(gaps).any():
        return None
    features = np.concatenate([table.sums, table.sizes], axis=1)
    draws = [
        pair.measures(draw[..., :width], draw[..., width:])[:, 0, 0]
        for draw in bootstrapped(table, features, repeats, np.random.default_rng(seed))
    ]
    drawn = np.concatenate(draws)
    one, seeds = float(np.nanvar(drawn, axis=0).mean()), gaps.size
    if seeds == 1:
        return VarianceParts(None, one, 1, "one seed: run at least three to see what training again would change")
    sample = float(np.clip((seeds * np.nanvar(drawn.mean(axis=1)) - one) / (seeds - 1), 0, one))
    between = float(gaps.var(ddof=1))
    buy = "seeds" if between / seeds > sample else "test patients"
    return VarianceParts(between, sample, seeds, f"more {buy} would narrow the gap's uncertainty most")
