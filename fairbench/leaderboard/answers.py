"""One method's answers by all its seeds, on the same patients in the same order, and what they are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd

from fairbench.leaderboard.remembered import remembered
from fairbench.metrics.disparity import EQUITY
from fairbench.metrics.metric import ACCURACY, FPR, TPR, Metric
from fairbench.predictions.content import content_of
from fairbench.predictions.groups import Groups
from fairbench.predictions.predictions import Predictions
from fairbench.statistics.equity import equity_bounds, judge_equity_scaled
from fairbench.statistics.interaction import interaction
from fairbench.statistics.intervals import MINIMUM, Floats, auroc_limits, auroc_notes, delong, ends, max_minus_min
from fairbench.statistics.learned import (
    auroc_difference,
    auroc_over_chance,
    balanced_difference,
    balanced_over_chance,
)
from fairbench.statistics.paired import Comparison, compare, compare_gaps, values_by_seed
from fairbench.statistics.permutation import Rows, group_rates, judge, worst_bounds
from fairbench.statistics.results import ALPHA, Difference, Estimate, Gap, Interaction
from fairbench.statistics.seeds import FEWEST, SeedPrior, group_priors, seed_priors
from fairbench.statistics.standardised import by_class, standardised_gap

NO_SEED = "no seed in common"
TWO_CLASSES = "defined for two classes only"
NO_CLASSES = "the predictions have no target and answer classes"
Kind = Literal["score", "standardised_gap", "eq_odds_max"]  # the disparity whose rates are looked at
KINDS: tuple[Kind, ...] = ("score", "standardised_gap", "eq_odds_max")
MOST = 10  # contrasts that a board keeps of one comparison


@dataclass(frozen=True)
class SeedPriors:
    """What a table's rows say together of one row's variance between seeds, in one kind of disparity: of each
    measure that is compared, and of each rate's groups.
    """

    measures: Mapping[str, SeedPrior] = field(default_factory=dict)
    rates: tuple[SeedPrior | None, ...] = ()

    @property
    def content(self) -> list[Any]:
        """All that a result depends on, as JSON holds it."""
        return [
            {name: astuple(one) for name, one in self.measures.items()},
            [one and astuple(one) for one in self.rates],
        ]

    @classmethod
    def of(cls, rows: Sequence[Answers], groups: Groups, kind: Kind = "score") -> SeedPriors:
        """Estimate them from the rows of several seeds, on those seeds that all of these have."""
        able = _of_common_seeds([row for row in rows if kind in row.kinds])
        if len(able) < FEWEST:
            return cls()
        measures = seed_priors([row.values_by_seed(groups, kind) for row in able], [row.scores for row in able])
        _, _, weights = rates_of(able[0], able[0], groups, kind)
        rates = [rates_of(row, row, groups, kind)[0] for row in able]
        return cls(measures, group_priors(rates, groups.codes, groups.cluster, len(groups.names), weights))


NO_PRIORS = SeedPriors()


@dataclass(frozen=True, eq=False)
class Answers:
    """Predictions of one method by several seeds; every entry holds the same rows in the same order.

    They are judged by `measure`, a metric that scores every row by a fraction of which more is better.
    """

    seeds: tuple[int, ...]
    predictions: tuple[Predictions, ...]
    measure: Metric = ACCURACY

    @cached_property
    def scores(self) -> Floats:
        """Each row's score, (seeds, n), 0 to 1; of accuracy, whether the answer is right."""
        return np.stack([self.measure.scores(p) for p in self.predictions])

    @cached_property
    def odds(self) -> list[Floats]:
        """Return the two rates of EqOdds, each (seeds, n), NaN outside; empty unless there are two classes."""
        if len(self.predictions[0].classes) != 2:
            return []
        return [np.stack([rate.scores(p) for p in self.predictions]) for rate in (TPR, FPR)]

    @property
    def constant(self) -> bool:
        """Whether every seed gives all rows one answer."""
        return all(p.table["text" if "text" in p.table else "answer"].nunique() == 1 for p in self.predictions)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """In which rates groups may have been moved: those that these answers have."""
        judged_by_class = self.measure is ACCURACY and "target" in self.predictions[0].table
        return (
            "score",
            *(("standardised_gap",) if judged_by_class else ()),
            *(("eq_odds_max",) if self.odds else ()),
        )

    def only(self, seeds: Sequence[int]) -> Answers:
        """Keep some of the seeds, in that order."""
        chosen = tuple(seeds)
        if chosen == self.seeds:
            return self
        if chosen not in self._parts:
            kept = tuple(self.predictions[self.seeds.index(seed)] for seed in chosen)
            self._parts[chosen] = replace(self, seeds=chosen, predictions=kept)
        return self._parts[chosen]

    @cached_property
    def _parts(self) -> dict[tuple[int, ...], Answers]:
        return {}

    @cached_property
    def content(self) -> str:
        """A hash of all that measures and comparisons look at."""
        about = [self.seeds, self.measure.name, self.measure.title, self.predictions[0].classes]
        looked = [
            p.table[[c for c in p.table if c == "target" or str(c).startswith("p_")]] for p in self.predictions
        ]
        about.append([[str(column) for column in table] for table in looked])
        columns = [table[column].to_numpy() for table in looked for column in table]
        return content_of(about, [self.scores, *self.odds, *columns])

    def by(self, measure: Metric) -> Answers:
        """Judge the same answers by another measure."""
        return replace(self, measure=measure)

    def group_scores(self, groups: Groups) -> tuple[Estimate, ...]:
        """The measure in every group, mean of the seeds, with an interval that treats a patient as one unit."""
        return group_rates(self.scores, groups.codes, groups.cluster, groups.names)

    def score(self, groups: Groups) -> Estimate:
        """The measure on all rows, whether or not their group is recorded."""
        return group_rates(self.scores, np.zeros_like(groups.codes), groups.cluster, ("all",))[0]

    def auroc(self, groups: Groups) -> Estimate:
        """AUROC, mean of the seeds', with DeLong limits that take seeds as a sample; of more classes, the mean of
        one-vs-rest.
        """
        first = self.predictions[0]
        if not all(p.has_probabilities for p in self.predictions):
            return Estimate(reason="the predictions have no probabilities")
        positives = [1] if len(first.classes) == 2 else list(range(len(first.classes)))
        each, notes = [], set[str]()
        for index in positives:
            scores = np.stack([p.probability(index) for p in self.predictions])
            one = delong(first.target == index, scores, groups.cluster)
            if one is None:
                return Estimate(reason=f"no {first.classes[index]}, or nothing else, among {len(first):,} rows")
            each.append((one.value, *auroc_limits(one, ALPHA)))
            notes.update(auroc_notes(one))
        value, low, high = np.mean(each, axis=0)
        lower, upper = ends(low, high)
        return Estimate(float(value), lower, upper, notes=tuple(notes))

    def gap(self, groups: Groups, priors: SeedPriors = NO_PRIORS) -> Gap:
        """Largest minus smallest group's value (MaxAccGap), mean of the seeds' gaps, with its evidence."""
        return judge([self.scores], groups.codes, groups.cluster, names=groups.names, priors=priors.rates)

    def standardised_gap(self, groups: Groups, priors: SeedPriors = NO_PRIORS) -> Gap:
        """The gap if every group had the classes' mix of all rows together, tested within class."""
        if "target" not in self.predictions[0].table:
            return Gap(reason=NO_CLASSES)
        target = self.predictions[0].target.astype(np.int64)
        return standardised_gap(
            self.scores, target, groups.codes, groups.cluster, names=groups.names, priors=priors.rates
        )

    def eq_odds_max(self, groups: Groups, priors: SeedPriors = NO_PRIORS) -> Gap:
        """EqOdds(max), mean of the seeds' values, with its evidence."""
        if not self.odds:
            return Gap(reason=TWO_CLASSES)
        for rate, lacking in zip(self.odds, (TPR.undefined, FPR.undefined), strict=True):
            if np.isnan(rate).all():
                return Gap(reason=f"{lacking} among {rate.shape[1]:,} rows")
        return judge(self.odds, groups.codes, groups.cluster, names=groups.names, priors=priors.rates)

    def worst_group(self, groups: Groups) -> Gap:
        """The measure in each seed's worst group, averaged; `group` is the commonest if seeds disagree."""
        values = self.by_group(groups)
        if np.isfinite(values[0]).sum() < 2:
            return Gap(reason="fewer than two groups have rows")
        names = [groups.names[int(place)] for place in np.nanargmin(values, axis=1)]
        commonest = max(names, key=lambda name: (names.count(name), name))
        value = float(np.nanmin(values, axis=1).mean())
        low, high = worst_bounds(Rows.of([self.scores], groups.codes, groups.cluster, groups.names), value)
        return Gap(value, low, high, group=commonest, agreeing=names.count(commonest))

    def equity_scaled(self, groups: Groups, gap: Gap | None = None, priors: SeedPriors = NO_PRIORS) -> Gap:
        """The equity-scaled measure, mean of the seeds' values, beside what chance gives; low is bad."""
        combine, names, known = EQUITY["fairllava"].combine, groups.names, priors.rates
        return judge_equity_scaled(
            self.scores, groups.codes, combine, groups.cluster, gap, names=names, priors=known
        )

    def equity_bounds(self, groups: Groups) -> tuple[float, float] | None:
        """All values of the equity-scaled measure that score and gap allow, computed once."""
        if groups not in self._bounds:
            combine = EQUITY["fairllava"].combine
            self._bounds[groups] = equity_bounds(self.scores, groups.codes, combine, groups.cluster)
        return self._bounds[groups]

    @cached_property
    def _bounds(self) -> dict[Groups, tuple[float, float] | None]:
        return {}

    def learned(self, groups: Groups, control: Answers | None = None) -> tuple[str, Difference]:
        """How much better than chance, or than a control's, they tell classes apart, and by which number.

        By AUROC where both have scores and there are two classes, else by balanced accuracy. Where every seed's own
        model is shown to, p is the largest of theirs: few seeds that differ bound the mean of all that could be
        trained badly, and are no doubt about those that were.
        """
        name, mean = self._told_apart(groups, control)
        if len(self.seeds) == 1 or mean.p is None:
            return name, mean
        each = []
        for seed in self.seeds:
            other = control.only([seed]) if control and len(control.seeds) > 1 else control
            each.append(self.only([seed])._told_apart(groups, other)[1])
        alike = all((one.value or 0) * (mean.value or 0) > 0 for one in each)
        largest = max(1.0 if one.p is None else one.p for one in each) if alike else 1.0
        return name, replace(mean, p=min(mean.p, largest))

    def _told_apart(self, groups: Groups, control: Answers | None) -> tuple[str, Difference]:
        """Return the same of the mean over seeds."""
        every = [*self.predictions, *(control.predictions if control else ())]
        target, cluster = self.predictions[0].target.astype(np.int64), groups.cluster
        if len(self.predictions[0].classes) == 2 and all(p.has_probabilities for p in every):
            if control is None:
                return "AUROC", auroc_over_chance(target, self._positive, cluster)
            return "AUROC", auroc_difference(target, self._positive, control._positive, cluster)
        if control is None:
            return "balanced accuracy", balanced_over_chance(self.scores, target, cluster)
        return "balanced accuracy", balanced_difference(self.scores, control.scores, target, cluster)

    @property
    def _positive(self) -> Floats:
        """Every seed's probability of the positive class, (seeds, n)."""
        return np.stack([p.probability(1) for p in self.predictions]).astype(np.float64)

    def by_group(self, groups: Groups) -> Floats:
        """The measure of every seed in every group, (seeds, groups), NaN where a group has no rows."""
        inside = groups.codes >= 0
        size = len(groups.names)
        n = np.bincount(groups.codes[inside], minlength=size)
        sums = [np.bincount(groups.codes[inside], row[inside], size) for row in self.scores]
        with np.errstate(invalid="ignore"):
            return np.stack(sums) / n

    def values_by_seed(self, groups: Groups, kind: Kind = "score") -> dict[str, Floats]:
        """Every measure that `contrast` compares, by seed, each (seeds,)."""
        rates, _, weights = rates_of(self, self, groups, kind)
        correct = None if kind == "score" else self.scores
        return values_by_seed(rates, groups.codes, correct, "max", EQUITY["fairllava"].combine, weights)

    def plain_gap(self, groups: Groups) -> float | None:
        """Largest minus smallest group's value, mean of the seeds, without evidence."""
        value = float(max_minus_min(self.by_group(groups)).mean())
        return None if np.isnan(value) else value


def shared_seeds(a: Answers, b: Answers) -> tuple[Answers, Answers] | None:
    """Both on the seeds that both have; one with a single seed as it is; None where there is nothing to pair."""
    common = [seed for seed in a.seeds if seed in b.seeds]
    if common:
        return a.only(common), b.only(common)
    return (a, b) if min(len(a.seeds), len(b.seeds)) == 1 else None


def priors_of(rows: Sequence[Answers], groups: Groups) -> dict[Kind, SeedPriors]:
    """Say by all rows of a table how much training again moves one, in every kind of disparity."""
    return {kind: SeedPriors.of(rows, groups, kind) for kind in KINDS}


def _of_common_seeds(rows: Sequence[Answers]) -> list[Answers]:
    """Keep the rows of at least FEWEST seeds, by the seeds that all of these have; none where these are fewer."""
    able = [row for row in rows if len(row.seeds) >= FEWEST]
    common = [seed for seed in able[0].seeds if all(seed in row.seeds for row in able)] if able else []
    return [row.only(common) for row in able] if len(common) >= FEWEST else []


def contrast(
    a: Answers,
    b: Answers,
    groups: Groups,
    kind: Kind = "score",
    repeats: int = 10_000,
    priors: SeedPriors = NO_PRIORS,
) -> Comparison:
    """Compare A minus B on the seeds both have; the gap is MaxAccGap, that at the pooled mix of classes
    (`standardised_gap`), or EqOdds(max) (`eq_odds_max`).

    A method with one seed is set against every seed of the other. No seed in common is undefined. `priors` are of
    the rows that the two stand among.
    """
    pair = shared_seeds(a, b)
    if pair is None:
        nothing = Difference(reason=NO_SEED)
        return Comparison(nothing, nothing, nothing, 0)
    return _contrast(*pair, groups, kind, repeats, priors)


@remembered(Comparison)
def _contrast(a: Answers, b: Answers, groups: Groups, kind: Kind, repeats: int, priors: SeedPriors) -> Comparison:
    left, right, weights = rates_of(a, b, groups, kind)
    correct = None if kind == "score" else (a.scores, b.scores)
    equity, bounds = EQUITY["fairllava"].combine, (a.equity_bounds(groups), b.equity_bounds(groups))
    names, cluster, known = groups.names, groups.cluster, priors.measures
    return compare(
        left, right, groups.codes, cluster, correct, "max", repeats, 0, names, equity, weights, bounds, known
    )


def gap_contrast(
    a: Answers,
    b: Answers,
    groups: Groups,
    kind: Kind = "score",
    repeats: int = 10_000,
    priors: SeedPriors = NO_PRIORS,
) -> Difference:
    """Return what `contrast` says of the gap, and compute nothing else."""
    pair = shared_seeds(a, b)
    return _gap_contrast(*pair, groups, kind, repeats, priors) if pair else Difference(reason=NO_SEED)


@remembered(Difference)
def _gap_contrast(
    a: Answers, b: Answers, groups: Groups, kind: Kind, repeats: int, priors: SeedPriors
) -> Difference:
    left, right, weights = rates_of(a, b, groups, kind)
    correct = None if kind == "score" else (a.scores, b.scores)
    names, cluster = groups.names, groups.cluster
    return compare_gaps(
        left, right, groups.codes, cluster, correct, "max", repeats, 0, names, weights, priors.measures
    )


def rates_of(
    a: Answers, b: Answers, groups: Groups, kind: Kind
) -> tuple[list[Floats], list[Floats], tuple[float, ...] | None]:
    """Return both methods' rates that a disparity is made of, and the weights of their sum where it is of a sum."""
    if kind == "eq_odds_max":
        return a.odds, b.odds, None
    if kind == "score":
        return [a.scores], [b.scores], None
    target = a.predictions[0].target.astype(np.int64)
    (left, weights), (right, _) = (by_class(one.scores, target, groups.codes) for one in (a, b))
    return left, right, weights


def interaction_with(
    a: Answers, b: Answers, groups: Groups, kind: Kind = "score", priors: SeedPriors = NO_PRIORS
) -> Interaction:
    """Say whether A moved the groups unequally against B: in their measure, in accuracy at the pooled mix of
    classes (`standardised_gap`), or in TPR and FPR (`eq_odds_max`). Of the contrasts those are kept whose
    interval leaves out 0, else the clearest alone.
    """
    pair = shared_seeds(a, b)
    return _interaction(*pair, groups, kind, priors) if pair else Interaction(reason=NO_SEED)


@remembered(Interaction)
def _interaction(a: Answers, b: Answers, groups: Groups, kind: Kind, priors: SeedPriors) -> Interaction:
    title = a.measure.title.lower()
    titles = {
        "score": (title,),
        "standardised_gap": (f"{title} at one class mix",),
        "eq_odds_max": (TPR.title.lower(), FPR.title.lower()),
    }[kind]
    left, right, weights = rates_of(a, b, groups, kind)
    tested = interaction(
        left, right, groups.codes, groups.cluster, weights, names=groups.names, rates=titles, priors=priors.rates
    )
    apart = tuple(one for one in tested.contrasts if one.apart)[:MOST]
    return replace(tested, contrasts=apart or tested.contrasts[:1])


def constant(predictions: Predictions, measure: Metric = ACCURACY) -> Answers:
    """The commonest answer, given to all rows: what a model that looks at nothing could give.

    A question that is put to at least MINIMUM rows has a commonest answer of its own.
    """
    table = predictions.table
    asked = table["prompt"] if "prompt" in table else pd.Series("", index=table.index)
    asked = asked.where(asked.map(asked.value_counts()) >= MINIMUM, "")
    for answer, truth in (("text", "reference"), ("answer", "target")):
        if truth in table:
            table = table.assign(**{answer: table.groupby(asked)[truth].transform(lambda given: given.mode()[0])})
    kept = [column for column in table if not str(column).startswith("p_")]
    return Answers((0,), (replace(predictions, table=table[kept]),), measure)
