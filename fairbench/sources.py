"""What a row's gap is made of, and what smaller gap this test set would notice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fairbench.answers import Answers, Groups
from fairbench.evidence import design, group_moments
from fairbench.power import detectable_improvement
from fairbench.resampling import tabulate
from fairbench.table import Improvement
from fairbench.variance import Dispersion, VarianceParts, between_group_variance, variance_parts

UNNOTICED = "even removing the whole gap would go unnoticed"


def dispersion(answers: Answers, groups: Groups) -> Dispersion:
    """Bias-corrected variance of the measure between groups, in squared fractions, mean of the seeds."""
    return between_group_variance([*answers.scores], groups.codes, groups.cluster)


def parts(answers: Answers, groups: Groups) -> VarianceParts | None:
    """Split the variance of the gap between training again and other test rows; None for no gap."""
    return variance_parts([answers.scores], groups.codes, groups.cluster)


def improvement(base: Answers, others: Sequence[Answers], groups: Groups) -> Improvement | None:
    """Smallest cut of the baseline's gap that is found with 80 % power, one trained model of each.

    It follows from what was measured: the baseline's score and gap, mean of its seeds, and the
    median over methods of the share of rows on which method and baseline score alike. None
    where no method shares a seed with the baseline.
    """
    agreements = [shared for other in others if (shared := agreement(base, other)) is not None]
    if not agreements:
        return None
    shared, gap = float(np.median(agreements)), base.gap(groups)
    table = tabulate([base.scores[0]], groups.codes, groups.cluster, len(groups.names))
    score = float(base.scores[:, groups.codes >= 0].mean()) if (groups.codes >= 0).any() else None
    if gap.value is None or score is None:
        return Improvement(None, score, shared, None, gap.reason)
    found = detectable_improvement(design(group_moments(table))[0], score, shared, gap.value)
    reason = UNNOTICED if found.value is None and found.by_group else found.reason
    return Improvement(found.value, score, shared, gap.value, reason)


def agreement(a: Answers, b: Answers) -> float | None:
    """Share of rows on which both are right or both wrong, mean of the seeds both have; None without one."""
    common = [seed for seed in a.seeds if seed in b.seeds]
    return float((a.only(common).scores == b.only(common).scores).mean()) if common else None
