"""The Metric contract: what is measured on a set of rows, overall and in every group."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from fairbench.errors import FairbenchError, named
from fairbench.predictions.predictions import FloatArray, IntArray, Predictions
from fairbench.statistics.results import Estimate

Floats = npt.NDArray[np.float64]
Each = Callable[[Predictions], FloatArray]
ROUNDING = 1e-9  # how far outside its range a metric may come out
Over = Callable[[Predictions], float]


class Undefined(Exception):
    """Raised by a metric that has no value on these rows; the text is the reason, such as "no positives"."""


# What a metric may need of the predictions: the test, and the reason to give when it fails.
NEEDS: dict[str, tuple[Callable[[Predictions], bool], str]] = {
    "classes": (lambda rows: "target" in rows.table, "the predictions have no target and answer classes"),
    "two classes": (lambda rows: len(rows.classes) == 2, "defined for two classes only"),
    "probabilities": (lambda rows: rows.has_probabilities, "the predictions have no probabilities"),
    "text": (lambda rows: {"text", "reference"} <= {*rows.table}, "the predictions have no text and reference"),
}
KINDS = ("classes", "text")  # needs that say which kind of answers a metric is about


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One number about a set of rows, made of a score for `each` row or computed `over` them all.

    `each(rows)` returns (n,) floats, NaN where a row does not enter the denominator; the metric is the mean
    of the others. Give it whenever the metric is such a mean: exact tests work on row scores. `over(rows)`
    returns the number itself, for all that are no means (AUROC); it is not `smooth` where chance alone moves it one
    way, as it does a sum of absolute values, and then has no interval. Either raises `Undefined(reason)` when
    there is no value; so does anything else that they raise, scores of another length, order or type, and
    values outside `low` to `high`. Values are fractions wherever `high` is 1; `scale` says how they are printed
    (`percent`, `fraction` or `number`). `higher_is_better` is None where there is no better (a selection
    rate). `undefined` is the reason when no row enters `each`'s denominator. A metric that is measured by a
    model names in `checkpoint` the environment variable with that model's place on disk, and in `obtain` how
    to get it. `made_with()` gives the versions that the value depends on. Raises FairbenchError when declared
    inconsistently.
    """

    name: str
    title: str
    formula: str
    source: str
    each: Each | None = None
    over: Over | None = None
    smooth: bool = True
    low: float = 0.0
    high: float = 1.0
    higher_is_better: bool | None = True
    scale: str = "percent"
    needs: tuple[str, ...] = ()
    undefined: str = "no rows"
    checkpoint: str = ""
    obtain: str = ""
    made_with: Callable[[], str] | None = None

    def __post_init__(self) -> None:
        if (self.each is None) == (self.over is None):
            raise FairbenchError(
                f"metric `{self.name}` must give either `each` or `over`",
                "`each` scores rows, `over` gives a number that is no mean",
            )
        if unknown := set(self.needs) - set(NEEDS):
            raise FairbenchError(
                f"metric `{self.name}` needs `{min(unknown)}`, which nothing provides",
                f"it may need: {', '.join(NEEDS)}",
            )

    def listed_for(self, rows: Predictions) -> bool:
        """Say whether a report on these rows lists the metric, defined or not.

        It does not where the metric is about answers of another kind, or measured by a model that was not
        asked for by setting its environment variable.
        """
        kind = all(NEEDS[need][0](rows) for need in self.needs if need in KINDS)
        return kind and (not self.checkpoint or bool(os.environ.get(self.checkpoint)))

    def scores(self, rows: Predictions) -> Floats:
        """Score every row, (n,), NaN where it does not enter; raises Undefined when there is no score."""
        self._check_needs(rows)
        if self.each is None:
            raise Undefined(f"{self.name} is not a mean over rows")
        return self._believable(self._call(self.each, rows), rows)

    def value(self, rows: Predictions) -> Estimate:
        """Compute the metric over all rows."""
        return self.by_group(rows, np.zeros(len(rows), dtype=np.int32), 1)[0]

    def by_group(self, rows: Predictions, codes: IntArray, count: int) -> tuple[Estimate, ...]:
        """Compute the metric in each of `count` groups; rows whose code is -1 are in none."""
        try:
            if self.each is not None:
                return _means(self.scores(rows), codes, count, self.undefined)
            self._check_needs(rows)
        except Undefined as reason:
            sizes = np.bincount(codes[codes >= 0], minlength=count)
            return tuple(Estimate(reason=str(reason), rows=int(n)) for n in sizes)
        return tuple(self._over(rows.take(group)) for group in _members(codes, count))

    def _over(self, rows: Predictions) -> Estimate:
        assert self.over is not None
        n = len(rows)
        if n == 0:
            return Estimate(reason="no rows", rows=0)
        try:
            value = float(self._call(self.over, rows))
        except Undefined as reason:
            return Estimate(reason=f"{reason} among {rows_of(n)}", rows=n)
        except (TypeError, ValueError):
            return Estimate(reason=f"{self.name} came out as no number", rows=n)
        if not math.isfinite(value):
            return Estimate(reason=f"{self.name} came out as {value}", rows=n)
        if not self.low - ROUNDING <= value <= self.high + ROUNDING:
            return Estimate(
                reason=f"{self.name} came out as {value:g}, outside {self.low:g} to {self.high:g}", rows=n
            )
        return Estimate(value, rows=n)

    def versions(self) -> str:
        """Say what a value depends on beside the rows; empty where nothing is known."""
        try:
            return str(self.made_with()) if self.made_with else ""
        except (Exception, SystemExit) as error:
            return f"not known: {named(error)}"

    def _call(self, function: Callable[[Predictions], Any], rows: Predictions) -> Any:
        """Call a plugin's function on rows of its own; whatever it raises makes this metric undefined, no other."""
        try:
            return function(replace(rows, table=rows.table.copy(deep=False)))
        except Undefined:
            raise
        except FairbenchError as error:
            raise Undefined("; ".join(filter(None, (f"{self.name}: {error.message}", error.hint)))) from error
        except (Exception, SystemExit) as error:
            raise Undefined(f"{self.name} failed: {named(error)}") from error

    def _believable(self, given: Any, rows: Predictions) -> Floats:
        """Take a plugin's row scores as numbers, one for each row in the rows' order, all in the metric's range."""
        if isinstance(given, pd.Series) and not given.index.equals(rows.table.index):
            raise Undefined(f"{self.name} gave its scores in another order than the rows")
        try:
            scores = np.asarray(given, dtype=np.float64)
        except (TypeError, ValueError):
            raise Undefined(f"{self.name} gave no numbers") from None
        if scores.shape != (len(rows),):
            raise Undefined(f"{self.name} gave scores of shape {scores.shape} for {rows_of(len(rows))}")
        outside = (scores < self.low - ROUNDING) | (scores > self.high + ROUNDING)
        if outside.any():
            first = f"{scores[outside][0]:g} for row {int(outside.argmax()) + 1}"
            raise Undefined(f"{self.name} gave {first}, outside {self.low:g} to {self.high:g}")
        return scores

    def _check_needs(self, rows: Predictions) -> None:
        for need in self.needs:
            met, reason = NEEDS[need]
            if not met(rows):
                raise Undefined(reason)
        if self.checkpoint and not os.environ.get(self.checkpoint):
            raise Undefined(f"{self.checkpoint} is not set to its model on disk; {self.obtain}")


def rows_of(count: int) -> str:
    """Say a number of rows."""
    return "1 row" if count == 1 else f"{count:,} rows"


def _means(scores: Floats, codes: IntArray, count: int, lacking: str) -> tuple[Estimate, ...]:
    """Average the scores that are no NaN, per group."""
    entered = ~np.isnan(scores) & (codes >= 0)
    sums = np.bincount(codes[entered], weights=scores[entered], minlength=count)
    n = np.bincount(codes[entered], minlength=count)
    sizes = np.bincount(codes[codes >= 0], minlength=count)
    return tuple(
        Estimate(float(sums[g] / n[g]), rows=int(n[g]))
        if n[g]
        else Estimate(reason=f"{lacking} among {rows_of(int(sizes[g]))}" if sizes[g] else "no rows", rows=0)
        for g in range(count)
    )


def _members(codes: IntArray, count: int) -> Sequence[IntArray]:
    """List the rows of every group, from one sort rather than one scan per group."""
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.searchsorted(codes[order], np.arange(count + 1)))[1:-1]


def answered(index: int, of_class: bool) -> Each:
    """Score whether the answer is class `index`, on the rows of that class or on all the others."""

    def each(rows: Predictions) -> FloatArray:
        return np.where((rows.target == index) == of_class, rows.answer == index, np.nan)

    return each


# The rates that disparities are made of. Unparsed answers (-1) are wrong, and select nobody.
ACCURACY = Metric(
    name="accuracy",
    title="Accuracy",
    formula="share of rows whose answer is the target",
    source="any textbook; unparsed answers count as wrong",
    each=lambda rows: (rows.answer == rows.target).astype(np.float64),
    needs=("classes",),
)
TPR = Metric(
    name="tpr",
    title="True positive rate (sensitivity)",
    formula="share of positives answered positive",
    source="Hardt, Price, Srebro 2016 (arXiv 1610.02413)",
    each=answered(1, of_class=True),
    needs=("classes", "two classes"),
    undefined="no positives",
)
FPR = Metric(
    name="fpr",
    title="False positive rate (1 − specificity)",
    formula="share of negatives answered positive",
    source="Hardt, Price, Srebro 2016 (arXiv 1610.02413)",
    each=answered(1, of_class=False),
    higher_is_better=False,
    needs=("classes", "two classes"),
    undefined="no negatives",
)
SELECTION_RATE = Metric(
    name="selection_rate",
    title="Selection rate",
    formula="share of rows answered positive",
    source="Dwork et al. 2012 (arXiv 1104.3913)",
    each=lambda rows: (rows.answer == 1).astype(np.float64),
    higher_is_better=None,
    needs=("classes", "two classes"),
)
RATES = (ACCURACY, TPR, FPR, SELECTION_RATE)


def registry(metrics: Iterable[Metric]) -> dict[str, Metric]:
    """Return the four rates and `metrics` by name; one of the same name stands in for a rate."""
    return {metric.name: metric for metric in (*RATES, *metrics)}
