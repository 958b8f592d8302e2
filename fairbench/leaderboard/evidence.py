"""What a table's numbers can be recomputed from, once it is published: counts, and never a patient's row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from fairbench.leaderboard.board import Cell, Evidence, Pair, SeedCounts
from fairbench.leaderboard.row import Contender
from fairbench.predictions.groups import Groups
from fairbench.predictions.predictions import Predictions
from fairbench.statistics.results import Difference


def evidence_of(
    contenders: Sequence[Contender],
    groups: Groups,
    pairs: Mapping[tuple[str, str], Mapping[str, Difference]],
) -> Evidence:
    """Count every row's answers, and list the comparisons behind the ranks."""
    counts = {
        c.label: tuple(_counted(c, place, groups) for place in range(len(c.answers.seeds))) for c in contenders
    }
    return Evidence(counts, tuple(Pair(a, b, differences) for (a, b), differences in pairs.items()))


def _counted(contender: Contender, place: int, groups: Groups) -> SeedCounts:
    answers = contender.answers
    predictions, scores = answers.predictions[place], answers.scores[place]

    def cell(chosen: npt.NDArray[np.bool_]) -> Cell:
        mine = scores[chosen]
        return Cell(int(chosen.sum()), float(mine.sum()), float((mine**2).sum()), _answers(predictions, chosen))

    inside = tuple(cell(groups.codes == group) for group in range(len(groups.names)))
    return SeedCounts(answers.seeds[place], cell(np.ones(len(scores), dtype=np.bool_)), inside)


def _answers(predictions: Predictions, chosen: npt.NDArray[np.bool_]) -> tuple[tuple[int, ...], ...] | None:
    """Count the chosen rows by class and answer; an answer that names no class, -1, is in the last column."""
    if "target" not in predictions.table:
        return None
    count = len(predictions.classes)
    places = predictions.target[chosen].astype(np.int64) * (count + 1) + predictions.answer[chosen] % (count + 1)
    table = np.bincount(places, minlength=count * (count + 1)).reshape(count, count + 1)
    return tuple(tuple(map(int, row)) for row in table)
