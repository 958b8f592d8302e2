"""What a reader must know before trusting a row: codes, what they mean, and who gets them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from fairbench.leaderboard.board import Flag, Row
from fairbench.leaderboard.row import Contender
from fairbench.leaderboard.seeds import constant, contrast
from fairbench.predictions.groups import Groups
from fairbench.statistics.intervals import Floats
from fairbench.statistics.results import ALPHA, Difference, Estimate

NOT_LEARNED = "has not learned"

# What a flag means, in one sentence. The keys are printed in the table, the sentences under it.
LEGEND = {
    NOT_LEARNED: "Its answers are no better than always giving the commonest answer, or than the same"
    " training on blank images, beyond noise; its gap says nothing about fairness.",
    "levelling down": "Its gap is smaller than the baseline's because the best-off group lost more than the"
    " worst-off group gained.",
    "worst group worse": "Its worst group fares worse than the baseline's worst group, beyond noise.",
    "stale": "It was made with another version of fairbench or of a plugin than the newest rows; run it again"
    " before comparing it.",
    "other recipe": "It was trained with other stages, batch size, precision or selection than the baseline, so"
    " a difference need not come from the method.",
    "† own stages": "The method changed the stages of training that the benchmark gives to all.",
    "‡ knows groups": "The method may know which group a test patient is in when it adjusts its answers.",
    "§ validation rows": "The method trained on the validation split, so it has seen more patients than the others,"
    " and what is chosen on that split afterwards (an epoch, a threshold) is not chosen on new patients.",
    "missing seeds": "Other rows have seeds that this row lacks; comparisons use only the seeds both have.",
    "partial": "A group had no rows to compute a rate from and is left out of the gap.",
}


def missing(row: Row, seeds: Sequence[int]) -> Iterable[Flag]:
    """Flag the seeds that others of the table have and this row lacks."""
    lacking = [seed for seed in seeds if seed not in row.seeds]
    if lacking:
        yield Flag("missing seeds", ", ".join(map(str, lacking)))


def not_learned(contender: Contender, controls: Sequence[Contender], groups: Groups) -> Iterable[Flag]:
    """Flag a row whose answers do not beat the constant answer, or a control's, beyond noise.

    A control that shares no seed with the row cannot be compared; `missing seeds` says so.
    """
    best = constant(contender.answers.predictions[0], contender.answers.measure)
    references = {"always giving the commonest answer": best}
    references |= {f"the control {c.label}": c.answers for c in controls if not c.answers.constant}
    unbeaten = []
    for name, reference in references.items():
        found = contrast(contender.answers, reference, groups, repeats=2_000).accuracy
        if found.value is None or found.p is None:
            continue
        if found.value <= 0 or found.p > ALPHA:
            unbeaten.append(name)
    if unbeaten:
        auroc = contender.answers.auroc(groups)
        ranks_well = auroc.low is not None and auroc.low > 0.5
        note = "; its scores do rank patients better than chance" if ranks_well else ""
        yield Flag(NOT_LEARNED, f"no better than {' and '.join(unbeaten)}{note}")


def against_baseline(row: Row, base: Row | None, moved: Mapping[str, Difference]) -> Iterable[Flag]:
    """Flag a gap that shrank by levelling down, a worse worst group, and another recipe than the baseline's."""
    if base is None or row.label == base.label:
        return
    gap, worst = moved["gap"], moved["worst_group"]
    if gap.value is not None and gap.value < 0:
        mine, theirs = _known(row.groups), _known(base.groups)
        best_lost, worst_gained = theirs.max() - mine.max(), mine.min() - theirs.min()
        if best_lost > max(0.0, worst_gained):
            sure = gap.significant
            yield Flag("levelling down", "" if sure else "the change is within noise")
    if worst.significant and (worst.value or 0) < 0:
        yield Flag("worst group worse")
    if row.recipe != base.recipe:
        unlike = [key for key in row.recipe if row.recipe[key] != base.recipe.get(key)]
        yield Flag("other recipe", ", ".join(key.replace("_", " ") for key in unlike))


def _known(groups: Sequence[Estimate]) -> Floats:
    return np.array([group.value for group in groups if group.value is not None])
