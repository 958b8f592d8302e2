"""Did a method move the groups unequally? The question with power, beside the difference of two gaps.

For every patient d = A − B, mean over the seeds that both have. The groups' means of d are compared pair by
pair: "A moved black patients up by 6.1 points against white". Group labels are permuted over d (clusters kept
whole), and the largest studentised difference gives the p-value and all intervals at once. It is no test of a
smaller gap: it also speaks up where two methods have equal gaps between different groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fairbench.statistics.contrasts import MaxT, max_t, pairs, pairwise_t
from fairbench.statistics.intervals import Floats, Ints, labelled
from fairbench.statistics.paired import same_rows
from fairbench.statistics.ranking import opposite
from fairbench.statistics.resampling import tabulate
from fairbench.statistics.results import Contrast, Interaction
from fairbench.statistics.seeds import SeedPrior, seed_variances
from fairbench.statistics.tail import p_value

MOST = 200  # contrasts that are listed; of more, those with the largest t


def interaction(
    a: Sequence[Floats],
    b: Sequence[Floats],
    group: Ints,
    cluster: Ints | None = None,
    weights: Sequence[float] | None = None,
    repeats: int = 10_000,
    seed: int = 0,
    names: Sequence[str] | None = None,
    rates: Sequence[str] | None = None,
    priors: Sequence[SeedPrior | None] = (),
) -> Interaction:
    """Test whether A − B differs between groups, and bound every pairwise difference.

    a, b: per rate an array (seeds, n) or (n,) of row scores, NaN where a row does not enter the rate (in both
    alike): [correct]; [answered yes on positives, on negatives] for the version of EqOdds, whose labels are
    permuted within the true class; any metric that scores rows. A method with one seed is set against every
    seed of the other. group: (n,) codes, -1 = not recorded; cluster: (n,). weights: compare the weighted sum
    of the rates instead, such as the classes' accuracies by the pooled class mix (`standardised.by_class`).
    names, rates: what contrasts call groups and rates; without them, their numbers. Of more than MOST contrasts
    those with the largest t are listed. priors: what a table's methods say of each rate (`seeds.group_priors`); a
    difference of two scatters by as much more than its patients give as one method does.

    Exact with one seed where d is exchangeable between groups, and asymptotically where it only has equal
    means; cautious between groups that scatter unlike (`contrasts.UNLIKE`). A cluster that spans groups counts as
    one unit in each, which is cautious. Raises FairbenchError
    where the rows or seeds of A and B differ.
    """
    left, right, codes, clusters = same_rows(a, b, group, cluster)
    labels, differences = labelled(codes, names), [x - y for x, y in zip(left, right, strict=True)]
    means = [rate.mean(axis=0) for rate in differences]
    table = tabulate(means, codes, clusters, len(labels))
    present = (table.counts.T @ table.sizes > 0).T
    if weights is not None:
        present = np.atleast_2d(present.all(axis=0))
    if (present.sum(axis=1) < 2).any():
        reason = "fewer than two groups have rows" + (" of every rate" if len(means) > 1 else "")
        return Interaction(reason=reason)
    extra = seed_variances(differences, codes, clusters, len(labels), weights, priors=priors)
    test = max_t(table, weights, extra, repeats, seed)
    freedom = min((part.freedom for part in extra), default=np.inf)
    limit = 2 * max(float(np.nanmax(np.abs(rate))) for rate in (*a, *b)) if len(table.sums) else np.inf
    moved = _moved(means, codes, len(labels), weights)
    titles = [str(number) for number in range(len(moved))] if rates is None else rates
    return Interaction(test.p, contrasts=contrasts(test, moved, labels, titles, limit, freedom))


def contrasts(
    test: MaxT, moved: Floats, labels: Sequence[str], rates: Sequence[str], limit: float, freedom: float = np.inf
) -> tuple[Contrast, ...]:
    """List the pairs, largest t first, each said of the group that was moved further; moved: (rates, groups).

    Intervals are cut at ± limit, which no difference can exceed.
    """
    mean, variance = test.observed.mean[0], test.observed.variance[0]
    first, second = pairs(mean.shape[1])
    difference, error = mean[:, first] - mean[:, second], np.sqrt(variance[:, first] + variance[:, second])
    t, widths, by_scatter = pairwise_t(test.observed), test.reach(), test.by_scatter()
    known = np.argwhere(~np.isnan(difference))
    order = known[np.argsort(-t[known[:, 0], known[:, 1]], kind="stable")][:MOST]
    every = test.draws.max(axis=1)
    listed = []
    for rate, pair in order:
        up, down = first[pair], second[pair]
        if difference[rate, pair] < 0:
            up, down = down, up
        value, reach = float(abs(difference[rate, pair])), float(widths[rate, pair] * error[rate, pair])
        low, high = max(value - reach, -limit), min(value + reach, limit)
        p = max(p_value(every, float(t[rate, pair]), freedom), float(by_scatter[rate, pair]))
        one = Contrast(value, low, high, p=p, group=labels[up], against=labels[down], rate=rates[rate])
        if abs(moved[rate, up]) < abs(moved[rate, down]):
            one = replace(opposite(one), group=one.against, against=one.group)
        listed.append(one)
    return tuple(listed)


def _moved(means: Sequence[Floats], codes: Ints, groups: int, weights: Sequence[float] | None) -> Floats:
    """Mean of d in every group, (rates, groups)."""
    rows = []
    for mean in means:
        keep = (codes >= 0) & ~np.isnan(mean)
        size = np.bincount(codes[keep], minlength=groups)
        with np.errstate(invalid="ignore"):
            rows.append(np.bincount(codes[keep], mean[keep], groups) / size)
    moved = np.stack(rows)
    return moved if weights is None else (np.asarray(weights)[:, None] * moved).sum(axis=0, keepdims=True)
