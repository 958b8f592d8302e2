"""The kit for metrics: whoever keeps the contract passes, and each kind of fault is named."""

import itertools
import re

import numpy as np
import pytest

from fairbench import Metric, Undefined, plugins
from fairbench.testing import METRIC_CHECKS

BUNDLED = [metric for metric in plugins.load(("metric",)).tables["metric"].values() if not metric.checkpoint]


@pytest.mark.parametrize("metric", BUNDLED, ids=lambda metric: metric.name)
def test_a_bundled_metric_passes(metric):
    for check in METRIC_CHECKS:
        check(metric)


def right(rows):
    return (rows.answer == rows.target) * 1.0


def mutant(each=None, over=None, **changes):
    said = {"name": "mine", "title": "Mine", "formula": "share of right answers", "source": "this test"}
    return Metric(**{**said, "needs": ("classes",), **changes}, each=each, over=over)


def zero_without_positives(rows):
    positive = rows.target == 1
    return float((rows.answer[positive] == 1).mean()) if positive.any() else 0.0


def half_for_one_class(rows):
    if len(set(rows.target)) < 2:
        return 0.5
    return right(rows).mean()


def jumps(rows, calls=itertools.count()):
    return np.full(len(rows), next(calls) % 2 / 2) + right(rows) / 2


def relabels(rows):
    rows.table["answer"] = rows.table["target"]
    return right(rows)


def writes_into(rows):
    values = rows.table["answer"].to_numpy()
    values.flags.writeable = True
    values[values < 0] = 0
    return right(rows)


def only_large(rows):
    if len(rows) < 3:
        raise ValueError("too few rows")
    return float(right(rows).mean())


def one_short(rows):
    return right(rows)[1:]


def sorted_by_target(rows):
    return (rows.table["answer"] == rows.table["target"]).loc[rows.table["target"].sort_values().index] * 1.0


def from_the_mean(rows):
    return right(rows) - right(rows).mean() / 2 + 0.5


def by_place(rows):
    return right(rows) * (np.arange(len(rows)) < len(rows) / 2)


def of_first_rows(rows):
    return float(right(rows)[:10].mean())


def one_a_patient(rows):
    return float(right(rows)[rows.table["cluster"].drop_duplicates().index].mean())


def squared_error(rows):
    return 1 - (rows.probability(1) - (rows.target == 1)) ** 2


def never(rows):
    raise Undefined("never defined")


MUTANTS = {
    "a percent in the range of fractions": (mutant(lambda r: 100 * right(r)), "outside 0 to 1"),
    "a name of two words": (mutant(right, name="my metric"), "no word of letters"),
    "a name in capitals": (mutant(right, name="Mine"), "not lower case"),
    "no formula": (mutant(right, formula=" "), "no formula"),
    "an empty range": (mutant(right, low=1.0), "range is empty"),
    "a scale nobody prints": (mutant(right, scale="permille"), "nothing prints"),
    "needs that exclude each other": (mutant(right, needs=("classes", "text")), "no predictions have all"),
    "the wrong direction": (mutant(right, higher_is_better=False), "right answers give 1, wrong ones 0"),
    "no direction at all": (mutant(lambda r: np.full(len(r), 0.5)), "right answers give 0.5, wrong ones 0.5"),
    "0 without positives": (mutant(over=zero_without_positives), "class 0 it is 0.0 whatever"),
    "½ for one class": (mutant(over=half_for_one_class), "it is 0.5 whatever"),
    "another value each time": (mutant(jumps), "changes from call to call|depends on"),
    "changing the answers": (mutant(relabels), "changes the rows"),
    "writing into the answers": (mutant(writes_into), "writes into the rows|changes the rows"),
    "failing on few rows": (mutant(over=only_large), "too few rows"),
    "one score too few": (mutant(one_short), "scores of shape"),
    "scores in another order": (mutant(sorted_by_target), "another order"),
    "a row's score from the others'": (mutant(from_the_mean, high=1.5), "alone: give the whole"),
    "a row's score from its place": (mutant(by_place), "depends on the order|where the row stands"),
    "a value of the first rows": (mutant(over=of_first_rows), "depends on the order"),
    "a column that may be absent": (mutant(over=one_a_patient), "`id` or `cluster`|KeyError"),
    "probabilities not asked for": (mutant(squared_error), "reads probabilities|p_0|KeyError"),
    "never a value": (mutant(never), "no value for answers that are all right"),
    "no number": (mutant(over=lambda r: "high"), "no number"),
}


@pytest.mark.parametrize("fault", MUTANTS)
def test_a_fault_is_caught_and_named(fault):
    metric, message = MUTANTS[fault]
    said = []
    for check in METRIC_CHECKS:
        try:
            check(metric)
        except AssertionError as accusation:
            said.append(str(accusation))
    assert said, "nobody noticed"
    assert all(text.strip() for text in said)
    assert re.search(message, " | ".join(said)), said
