"""What training again changes: the variance that seeds add to groups' values, on one set of patients.

Seeds are a sample as patients are. Groups by seeds are a crossed layout (Owen 2007): a group's mean over seeds
varies because other patients could have been tested, and because other seeds could have been trained.

Three seeds of two methods say next to nothing of that variance; all methods of a table say much more
(`seed_prior`), unless they are unlike each other in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special, stats

from fairbench.statistics.intervals import Floats, Ints
from fairbench.statistics.results import ALPHA

FEWEST = 3  # rows of a table, and seeds of a row, from which a prior is made or to which it is applied
STEP = 4  # steps of a prior's variance in which it doubles
LEAST = 1e-12  # a variance below which seeds do not differ


@dataclass(frozen=True)
class SeedPrior:
    """What the rows of a table say of one row's variance between seeds: `variance`, worth `freedom` degrees of
    freedom beside the row's own.
    """

    variance: float
    freedom: float


@dataclass(frozen=True)
class SeedScatter:
    """Variance of A − B between `seeds`, and the degrees of freedom that it is known with; none of one seed."""

    seeds: int
    variance: float = 0.0
    freedom: float = np.inf

    @classmethod
    def of(cls, own: Floats, prior: SeedPrior | None = None) -> SeedScatter:
        """Of both methods' values by seed, (2, seeds); a `prior` of one method's variance moderates each of theirs.

        The posterior variance (Smyth 2004, equation 2.4) of each method that differs from seed to seed, but never
        less than the two show together: what makes them unlike the others may be theirs alone. Below FEWEST seeds
        the prior is not used: one degree of freedom is too often near 0 to tell who is unlike.
        """
        seeds = own.shape[1]
        if seeds == 1:
            return cls(seeds)
        freedom = seeds - 1
        observed = float((own[0] - own[1]).var(ddof=1))
        if prior is None or seeds < FEWEST:
            return cls(seeds, observed, freedom)
        each = [float(one.var(ddof=1)) for one in own]
        together = freedom + prior.freedom
        moderated = sum((prior.freedom * prior.variance + freedom * one) / together for one in each if one > LEAST)
        return cls(seeds, max(observed, moderated), together)

    @property
    def reach(self) -> float:
        """Half width of the 95 % t interval that the seeds alone would give; 0 with one seed."""
        if self.seeds == 1:
            return 0.0
        return float(stats.t.ppf(1 - ALPHA / 2, self.freedom) * np.sqrt(self.variance / self.seeds))


def seed_prior(variances: Sequence[float], freedom: int, distinct: float) -> SeedPrior | None:
    """Estimate how large, and how alike, the rows' variances between seeds are; None where too few rows tell.

    variances: every row's own, of as many degrees of `freedom`; zeros say nothing. A scaled F is fitted by the
    moments of the logarithms (Smyth 2004, section 6.2): where the variances scatter as chi-squared does, the prior
    is worth much, and where they are unlike, little. It is never worth more than the other `distinct` rows are in
    number, since so few cannot show that rows are alike. It is rounded to the cautious side, so that a row more
    seldom changes what was computed of the others.
    """
    known = np.array([one for one in variances if one > LEAST])
    most = min(distinct, known.size) - 1
    if most < FEWEST - 1 or freedom < FEWEST - 1:
        return None
    half = freedom / 2
    logs = np.log(known)
    unlike = float(logs.var(ddof=1) - special.polygamma(1, half))
    variance, worth = float(known.mean()), most
    if unlike > 0:
        prior = 2 * float(optimize.brentq(lambda x: special.polygamma(1, x) - unlike, 1e-8, 1 + 2 / unlike))
        location = logs.mean() - special.digamma(half) + np.log(half)
        variance = float(np.exp(location + special.digamma(prior / 2) - np.log(prior / 2)))
        worth = min(prior, most)
    worth = np.floor(worth) if worth >= 1 else np.floor(10 * worth) / 10
    return SeedPrior(float(2 ** (np.ceil(STEP * np.log2(variance)) / STEP)), float(worth)) if worth else None


def seed_priors(values: Sequence[Mapping[str, Floats]], scores: Sequence[Floats]) -> dict[str, SeedPrior]:
    """Estimate the prior of every measure from all rows of a table that were trained by the same seeds.

    values: each row's measures by seed, each (seeds,); scores: its rows' scores, (seeds, n), on the same patients.
    """
    trained = [place for place, one in enumerate(scores) if (one != one[0]).any()]
    if len(trained) < FEWEST:
        return {}
    distinct = distinct_rows([scores[place] - scores[place].mean(axis=0) for place in trained])
    freedom = len(scores[trained[0]]) - 1
    made = {
        name: seed_prior([float(values[place][name].var(ddof=1)) for place in trained], freedom, distinct)
        for name in values[trained[0]]
        if all(name in values[place] for place in trained)
    }
    return {name: prior for name, prior in made.items() if prior}


def distinct_rows(deviations: Sequence[Floats]) -> float:
    """How many independent rows tell as much of a variance as these do, which may share their trainings.

    deviations: each row's scores less their mean over seeds, (seeds, n), on the same patients and seeds. Rows² over
    the sum of their squared correlations: a row that only adjusts another's answers counts with it as one.
    """
    flat = np.stack([one.ravel() for one in deviations])
    flat = flat / np.maximum(np.sqrt((flat**2).sum(axis=1, keepdims=True)), 1e-12)
    return float(len(flat) ** 2 / ((flat @ flat.T) ** 2).sum())


@dataclass(frozen=True)
class SeedVariance:
    """Of the mean over seeds: `between`, what training again adds to each group alike, and `within`, (groups,),
    the part of the sampling variance that seeds do not share; both with `freedom` degrees of freedom.
    """

    between: float
    within: Floats
    freedom: float


def seed_variances(
    rates: Sequence[Floats],
    group: Ints,
    cluster: Ints | None,
    groups: int,
    weights: Sequence[float] | None = None,
    contrasts: bool = True,
    priors: Sequence[SeedPrior | None] = (),
) -> list[SeedVariance]:
    """Split the seeds' part off for every rate, or for the weighted sum of the rates; empty with one seed.

    rates: (seeds, n), NaN outside the rate. contrasts: whether only differences between groups matter, so that
    what moves all groups alike is removed. priors: of each of them, what a table's rows say (`group_priors`).
    """
    if len(rates[0]) == 1:
        return []
    parts = rates_by_seed(rates, group, cluster, groups, weights)
    each = [*priors, *[None] * len(parts)]
    return [from_groups(values, within, contrasts, own) for (values, within), own in zip(parts, each, strict=False)]


def rates_by_seed(
    rates: Sequence[Floats], group: Ints, cluster: Ints | None, groups: int, weights: Sequence[float] | None = None
) -> list[tuple[Floats, Floats]]:
    """What `group_seeds` says of every rate, or of the weighted sum of the rates."""
    parts = [group_seeds(rate, group, cluster, groups) for rate in rates]
    if weights is not None:
        values = sum(weight * value for weight, (value, _) in zip(weights, parts, strict=True))
        within = sum(weight**2 * own for weight, (_, own) in zip(weights, parts, strict=True))
        parts = [(np.asarray(values), np.asarray(within))]
    return parts


def group_priors(
    rows: Sequence[Sequence[Floats]],
    group: Ints,
    cluster: Ints | None,
    groups: int,
    weights: Sequence[float] | None = None,
) -> tuple[SeedPrior | None, ...]:
    """For every rate (or the weighted sum) say how far the groups of a table's rows scatter from seed to seed.

    rows: of each row its rates, (seeds, n), by the same seeds. A prior's variance is in units of what `within`
    gives (1: training again adds nothing), since rows of one table have groups of one size.
    """
    trained = [row for row in rows if any(np.nan_to_num(rate - rate[0]).any() for rate in row)]
    if len(trained) < FEWEST:
        return ()
    parts = [rates_by_seed(row, group, cluster, groups, weights) for row in trained]
    distinct = distinct_rows([np.nan_to_num(np.stack([*row]) - np.mean(row, axis=1)[:, None]) for row in trained])
    made = []
    for each in zip(*parts, strict=True):
        residuals = [SeedResiduals.of(values, within, contrasts=True) for values, within in each]
        freedom = residuals[0].freedom
        made.append(seed_prior([one.at(LEAST) / max(freedom, 1) for one in residuals], freedom, distinct))
    return tuple(made)


def group_seeds(scores: Floats, group: Ints, cluster: Ints | None, groups: int) -> tuple[Floats, Floats]:
    """Every seed's group means, (seeds, groups), and the sampling variance peculiar to one seed, (groups,)."""
    keep = (group >= 0) & ~np.isnan(scores[0])
    scores, group = scores[:, keep], group[keep]
    n = np.bincount(group, minlength=groups).astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.stack([np.bincount(group, row, groups) for row in scores]) / n
    own = scores - scores.mean(axis=0)
    own -= (values - values.mean(axis=0))[:, group]
    unit = np.arange(group.size)
    if cluster is not None:
        unit = np.unique(cluster[keep] * np.int64(groups) + group, return_inverse=True)[1].ravel()
    number = int(unit.max(initial=-1)) + 1
    owner = np.zeros(number, dtype=np.int64)
    owner[unit] = group
    square = sum(np.bincount(unit, row, number) ** 2 for row in own)
    units = np.bincount(owner, minlength=groups).astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        within = np.bincount(owner, square, groups) / (len(scores) - 1) / n**2 * units / np.maximum(units - 1, 1)
    return values, within


@dataclass(frozen=True)
class SeedResiduals:
    """How far groups lie from their means over seeds, (seeds, groups), beside the `within` that patients give."""

    residuals: Floats
    within: Floats
    contrasts: bool
    freedom: int

    @classmethod
    def of(cls, values: Floats, within: Floats, contrasts: bool) -> SeedResiduals:
        """Of groups that have rows; values: (seeds, groups), within: (groups,)."""
        known = ~np.isnan(values[0])
        x = values[:, known]
        seeds, groups = x.shape
        return cls(
            x - x.mean(axis=0), within[known], contrasts, (seeds - 1) * (groups - 1 if contrasts else groups)
        )

    def at(self, variance: float) -> float:
        """Sum of squares in units of within + variance; with contrasts, seed means removed."""
        weight = 1 / (self.within + variance)
        moved = (self.residuals * weight).sum(axis=1, keepdims=True) / weight.sum() if self.contrasts else 0.0
        return float(((self.residuals - moved) ** 2 * weight).sum())


def from_groups(values: Floats, within: Floats, contrasts: bool, prior: SeedPrior | None = None) -> SeedVariance:
    """Estimate what seeds add beyond `within`: the variance at which the scatter is what it should be.

    values: (seeds, groups); within: (groups,). Paule and Mandel 1982: Q(v) = sum of squared residuals over
    (within + v) equals its degrees of freedom; 0 where even v = 0 leaves less. Residuals of seeds x groups with
    group means, and with seed means too for contrasts. A `prior` (of contrasts) counts as so many more residuals of
    its scatter; what the row alone shows is never undercut.
    """
    own = SeedResiduals.of(values, within, contrasts)
    seeds = len(values)
    if own.freedom < 1:
        return SeedVariance(0.0, within / seeds, np.inf)
    between = _balanced(own)
    if prior is None or own.freedom < FEWEST - 1:
        return SeedVariance(between / seeds, within / seeds, float(own.freedom))
    between = max(between, _balanced(own, prior))
    return SeedVariance(between / seeds, within / seeds, float(own.freedom + prior.freedom))


def _balanced(own: SeedResiduals, prior: SeedPrior | None = None) -> float:
    """Find the variance between seeds at which residuals, with those of a prior, are as large as expected."""
    worth, usual = (prior.freedom, prior.freedom * prior.variance) if prior else (0.0, 0.0)
    expected = own.freedom + worth

    def scatter(variance: float) -> float:
        return own.at(variance) + usual * float((own.within / (own.within + variance)).mean())

    top = float((own.residuals**2).sum()) + usual * float(own.within.mean())
    if top <= LEAST or scatter(LEAST) <= expected:
        return 0.0
    # scatter(2 * top) is a half or less; at top itself it may be 1 and a rounding more, where freedom is 1.
    return float(optimize.brentq(lambda variance: scatter(variance) - expected, LEAST, 2 * top))
