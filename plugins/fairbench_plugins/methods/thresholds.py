"""A threshold for each group, chosen on the validation split."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd

from fairbench import Count, Fraction, Groups, Method, Run, hookimpl

OVERALL = 0.5  # the threshold that everybody has: the likelier of two classes is the answer


class Cuts:
    """Every way to cut one group's validation rows in two by the probability of the positive class."""

    def __init__(self, p: Any, positive: Any, criterion: str) -> None:
        values = np.unique(p)
        between = np.minimum((values[:-1] + values[1:]) / 2, np.nextafter(values[1:], 0))
        self.cut = np.concatenate([[-1.0], between, [1.0]])
        self.overall = int((values <= OVERALL).sum())
        self.cut[self.overall] = OVERALL
        hits = (positive.sum() - np.searchsorted(np.sort(p[positive]), self.cut, "right")).astype(int)
        alarms = (~positive).sum() - np.searchsorted(np.sort(p[~positive]), self.cut, "right")
        self.right = hits + (~positive).sum() - alarms
        count, self.of = {
            "sensitivity": (hits, int(positive.sum())),
            "positive-rate": (hits + alarms, len(p)),
        }.get(criterion, (self.right, len(p)))
        self.rate = count / max(self.of, 1)

    def best(self, low: float, high: float) -> float:
        """Return the most accurate cut with a rate from `low` to `high`; of equals, the nearest to the overall."""
        allowed = np.flatnonzero((low <= self.rate) & (self.rate <= high))
        order = np.lexsort((np.abs(self.cut[allowed] - OVERALL), -self.right[allowed]))
        return float(self.cut[allowed[order[0]]])


def closest(groups: list[Cuts], loss: float) -> tuple[float, float]:
    """Return the narrowest range of rates that holds a cut of every group, where together the most accurate
    ones get at most `loss` more rows wrong than the overall threshold does.
    """
    rates = np.unique(np.concatenate([group.rate for group in groups]))
    right = np.full((len(groups), len(rates)), -np.inf)
    for row, group in zip(right, groups, strict=True):
        np.maximum.at(row, np.searchsorted(rates, group.rate), group.right)
    needed = sum(group.right[group.overall] for group in groups) - loss - 1e-9
    best, chosen = (np.inf, 0.0), (0.0, 1.0)
    for low in range(len(rates)):
        end = np.searchsorted(rates, rates[low] + best[0] + 1e-9, "right")
        total = np.maximum.accumulate(right[:, low:end], axis=1).sum(axis=0)
        enough = np.flatnonzero(total >= needed)
        if len(enough):
            high = low + enough[0]
            candidate = (round(rates[high] - rates[low], 9), -total[enough[0]])
            if candidate < best:
                best, chosen = candidate, (rates[low], rates[high])
    return chosen


class Thresholds(Method):
    """Train plainly, then answer with a threshold for each group that equalises a rate over the groups of the
    validation split, for at most `cost` of its accuracy (equal opportunity and its kin without randomised
    answers: Hardt et al. 2016, arXiv 1610.02413). Probabilities stay as they are.
    """

    name = "thresholds"
    group_at_test = True
    needs = ("two classes",)
    criterion: Literal["sensitivity", "positive-rate", "accuracy", "worst-group"] = "sensitivity"
    cost: Fraction = 0.02
    fewest: Count = 20

    def adjust(self, run: Run, validation: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
        """Give the test rows of every group that is large enough the answers of its own threshold."""
        members, positive = self._groups(run, validation), validation["target"].to_numpy() == 1
        cuts: dict[str, Cuts] = {}
        for name in sorted(set(members) - {""}):
            p = validation["p_1"].to_numpy()[members == name]
            group = Cuts(p, positive[members == name], self.criterion)
            if group.of >= self.fewest:
                cuts[name] = group
            else:
                what = "positive validation rows" if self.criterion == "sensitivity" else "validation rows"
                run.warn(f"thresholds: {name} has {group.of} {what}, too few: it keeps {OVERALL}")
        if self.criterion == "worst-group":
            low, high = 0.0, 1.0
        elif len(cuts) > 1:
            low, high = closest(list(cuts.values()), self.cost * len(validation))
        else:
            run.warn("thresholds: fewer than two groups are large enough, so nothing changes")
            return test
        chosen = {name: group.best(low, high) for name, group in cuts.items()}
        run.facts["thresholds"] = chosen
        answer, members = test["answer"].to_numpy().copy(), self._groups(run, test)
        for name, cut in chosen.items():
            answer[members == name] = test["p_1"].to_numpy()[members == name] > cut
        return test.assign(answer=answer)

    def _groups(self, run: Run, table: pd.DataFrame) -> Any:
        """Name each row's group, (n,); empty for rows that are in none."""
        groups = Groups.of(table, "+".join(run.job.attributes), run.job.unrecorded)
        return np.array([*groups.names, ""], dtype=object)[groups.codes]


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer the method."""
    return [Thresholds]
