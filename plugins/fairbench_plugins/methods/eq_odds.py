"""Equalised odds by randomised thresholds, the cheapest by a linear programme."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.optimize import linprog

from fairbench import Count, Method, Predictions, Run, hookimpl

Floats = NDArray[np.float64]


def mixtures(p: list[Floats], positive: list[NDArray[np.bool_]]) -> list[tuple[Floats, Floats]]:
    """Return each group's thresholds and the odds of using each, (T,): of all that give every group the same true
    and false positive rates, those that get the fewest rows wrong. `p` and `positive` are (n_s,), of both classes.
    """
    cuts = [np.unique(np.concatenate([[-1.0], values])) for values in p]
    above = [values[:, None] > cut for values, cut in zip(p, cuts, strict=True)]
    hits = [answers[true].mean(0) for answers, true in zip(above, positive, strict=True)]
    alarms = [answers[~true].mean(0) for answers, true in zip(above, positive, strict=True)]
    wrong = [(answers != true[:, None]).sum(0) for answers, true in zip(above, positive, strict=True)]
    ends = np.cumsum([len(cut) for cut in cuts])
    rows = np.zeros((3 * len(cuts), ends[-1] + 2))  # for each group: odds sum to 1, both rates are the common ones
    for group, (end, cut) in enumerate(zip(ends, cuts, strict=True)):
        own = slice(end - len(cut), end)
        rows[3 * group, own], rows[3 * group + 1, own], rows[3 * group + 2, own] = 1.0, hits[group], alarms[group]
        rows[3 * group + 1, -2] = rows[3 * group + 2, -1] = -1.0
    cost = np.concatenate([*wrong, [0.0, 0.0]])
    odds = linprog(cost, A_eq=rows, b_eq=np.tile([1.0, 0.0, 0.0], len(cuts)), bounds=(0, 1)).x.clip(0)
    return [(cut, odds[end - len(cut) : end]) for end, cut in zip(ends, cuts, strict=True)]


class EqualisedOdds(Method):
    """Train plainly, then answer every patient by a threshold drawn from those of the group, so that on validation
    all groups have the same true and false positive rates at the least error (Hardt et al. 2016, arXiv 1610.02413,
    sec. 4.2 as a linear programme). Probabilities stay. A group with fewer than `fewest` rows of a class keeps 0.5.
    """

    name = "eq-odds"
    group_at_test = True
    needs = ("two classes",)
    fewest: Count = 20

    def adjust(self, run: Run, validation: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
        """Give the test rows of every group that is large enough randomised answers."""
        members, positive = self._groups(run, validation), validation["target"].to_numpy() == 1
        names = [name for name in sorted(set(members) - {""}) if self._enough(run, name, positive[members == name])]
        if len(names) < 2:
            run.warn("eq-odds: fewer than two groups are large enough, so nothing changes")
            return test
        p = [validation["p_1"].to_numpy()[members == name] for name in names]
        chosen = mixtures(p, [positive[members == name] for name in names])
        answer, members = test["answer"].to_numpy().copy(), self._groups(run, test)
        for name, (cuts, odds) in zip(names, chosen, strict=True):
            own = np.flatnonzero(members == name)
            if len(own):
                drawn = torch.multinomial(torch.as_tensor(odds), len(own), True, generator=run.generator).numpy()
                answer[own] = test["p_1"].to_numpy()[own] > cuts[drawn]
            used = {f"{cut:g}": round(float(share), 6) for cut, share in zip(cuts, odds, strict=True) if share > 0}
            run.facts.setdefault("thresholds", {})[name] = used
        return test.assign(answer=answer)

    def _enough(self, run: Run, name: str, positive: NDArray[np.bool_]) -> bool:
        few = min(positive.sum(), (~positive).sum())
        if few < self.fewest:
            run.warn(f"eq-odds: {name} has {few} validation rows of a class, too few: it keeps 0.5")
        return bool(few >= self.fewest)

    def _groups(self, run: Run, table: pd.DataFrame) -> NDArray[np.object_]:
        """Name each row's group, (n,); empty for rows that are in none."""
        people = Predictions(table, run.train.classes, run.job.attributes)
        codes, names = people.groups("+".join(run.job.attributes), run.job.unrecorded)
        return np.array([*names, ""], dtype=object)[codes]


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer the method."""
    return [EqualisedOdds]
