"""Accuracy by the pooled class mix: a gap that prevalence alone cannot make.

Two groups with the same sensitivity and specificity differ in accuracy when one has more patients with the
disease. Direct standardisation gives every group the class mix of all patients together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fairbench.errors import FairbenchError
from fairbench.statistics.intervals import Floats, Ints
from fairbench.statistics.permutation import judge
from fairbench.statistics.results import Gap
from fairbench.statistics.seeds import SeedPrior


def by_class(correct: Floats, target: Ints, group: Ints) -> tuple[list[Floats], tuple[float, ...]]:
    """The accuracy of every class as a rate, and the classes' shares among rows whose group is recorded.

    correct: (n,) or (seeds, n); target: (n,) class codes; both results go to `judge` or `interaction`. Raises
    FairbenchError where the target does not fit the rows.
    """
    scores, classes, groups = np.asarray(correct, float), np.asarray(target), np.asarray(group)
    if classes.shape != groups.shape or scores.shape[-1:] != groups.shape:
        raise FairbenchError("`target` must have one class per row of `group`")
    recorded = groups >= 0
    present = np.unique(classes[recorded])
    rates = [np.where(classes == one, scores, np.nan) for one in present]
    shares = [float((classes[recorded] == one).mean()) for one in present]
    return rates, tuple(shares)


def standardised_gap(
    correct: Floats,
    target: Ints,
    group: Ints,
    cluster: Ints | None = None,
    repeats: int = 10_000,
    seed: int = 0,
    names: Sequence[str] | None = None,
    priors: Sequence[SeedPrior | None] = (),
) -> Gap:
    """Largest minus smallest group's accuracy, each group weighted to the pooled class mix; tested within class.

    Arguments as in `by_class` and `judge`. A group that lacks a class has no such accuracy and is left out.
    """
    rates, shares = by_class(correct, target, group)
    if not rates:
        return Gap(reason="no group has rows", coverage=(0, len(names or ())))
    return judge(rates, group, cluster, repeats=repeats, seed=seed, names=names, weights=shares, priors=priors)
