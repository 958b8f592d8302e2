"""What every metric must do: checks whose names are accusations, on small tables of answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import pandas as pd

from fairbench.metrics.metric import NEEDS, Metric, Undefined
from fairbench.predictions.predictions import FloatArray, IntArray, Predictions
from fairbench.statistics.results import Estimate

CLOSE = 1e-9
WORDS = ("no", "acute", "effusion", "small", "left", "right", "pleural", "opacity", "heart", "normal", "edema")

How = Literal["guessed", "right", "wrong"]


def toy_predictions(
    n: int = 40,
    classes: int = 2,
    how: How = "guessed",
    seed: int = 0,
    target: int | None = None,
    text: bool = False,
) -> Predictions:
    """Make rows with answers, probabilities and clusters, or with texts; guessed, all right or all wrong.

    `target` gives all rows that class. Some guessed answers name no class.
    """
    draw = np.random.default_rng((n, classes, seed))
    table = pd.DataFrame({"id": [f"i{k}" for k in range(n)], "cluster": np.arange(n) // 2})
    if text:
        reports = [" ".join(draw.choice(WORDS, 6)) for _ in range(n)]
        table["reference"] = reports
        if how == "right":
            table["text"] = reports
        else:
            table["text"] = ["zebra"] * n if how == "wrong" else [" ".join(draw.choice(WORDS, 5)) for _ in range(n)]
        return Predictions(table, (), (), "generate")
    truth: IntArray = draw.integers(0, classes, n) if target is None else np.full(n, target)
    answer = {"right": truth, "wrong": (truth + 1) % classes, "guessed": draw.integers(-1, classes, n)}[how]
    p: FloatArray = draw.dirichlet(np.ones(classes), n).round(2)
    if how != "guessed":
        p = np.full((n, classes), 0.04 / (classes - 1))
        p[np.arange(n), answer] = 0.96
    p[:, 0] = 1 - p[:, 1:].sum(axis=1)
    table["target"], table["answer"] = truth, answer
    table = table.assign(**{f"p_{index}": p[:, index] for index in range(classes)})
    return Predictions(table, tuple(f"class {index}" for index in range(classes)))


def _fitting(metric: Metric, n: int = 40, how: How = "guessed", seed: int = 0) -> list[Predictions]:
    """Make the kinds of rows that have all that the metric needs."""
    kinds = [toy_predictions(n, classes, how, seed) for classes in (2, 3)]
    kinds.append(toy_predictions(n, 2, how, seed, text=True))
    return [rows for rows in kinds if all(NEEDS[need][0](rows) for need in metric.needs)]


def _many(metric: Metric) -> Iterator[Predictions]:
    for n in (1, 2, 3, 40):
        for how in ("guessed", "right", "wrong"):
            for seed in range(3 if how == "guessed" else 1):
                yield from _fitting(metric, n, how, seed)


def _same(left: Estimate, right: Estimate) -> bool:
    if left.value is None or right.value is None:
        return left.value is right.value
    return bool(abs(left.value - right.value) <= CLOSE)


def check_says_what_it_is(metric: Metric) -> None:
    """Its name is one lower-case word, and its title, formula, source, range and scale are given."""
    assert metric.name.isidentifier(), f"the name `{metric.name}` is no word of letters, digits and _"
    assert metric.name == metric.name.lower(), f"the name `{metric.name}` is not lower case"
    for said in ("title", "formula", "source"):
        assert getattr(metric, said).strip(), f"it has no {said}"
    assert metric.low < metric.high, f"its range is empty: {metric.low:g} to {metric.high:g}"
    assert metric.scale in ("percent", "fraction", "number"), f"nothing prints the scale `{metric.scale}`"
    assert _fitting(metric), f"no predictions have all that it needs: {', '.join(metric.needs)}"


def check_gives_a_number_or_a_reason(metric: Metric) -> None:
    """On any rows it gives a finite number in its range, one score a row, or a reason; it never fails."""
    for rows in _many(metric):
        value = metric.value(rows)
        assert value.value is not None or value.reason, "it gives neither a value nor a reason"
        faulty = value.value is None and str(value.reason).startswith(metric.name)
        assert not faulty, f"on {len(rows)} rows, {value.reason}"


def check_higher_is_better_as_it_says(metric: Metric) -> None:
    """Answers that are all right are better than answers that are all wrong, in the direction it declares."""
    if metric.higher_is_better is None:
        return
    for right, wrong in zip(_fitting(metric, how="right"), _fitting(metric, how="wrong"), strict=True):
        best, worst = metric.value(right).value, metric.value(wrong).value
        assert best is not None, f"it has no value for answers that are all right: {metric.value(right).reason}"
        assert worst is not None, f"it has no value for answers that are all wrong: {metric.value(wrong).reason}"
        said = f"higher_is_better is {metric.higher_is_better}: right answers give {best:g}, wrong ones {worst:g}"
        assert (best > worst) if metric.higher_is_better else (best < worst), said


def check_makes_up_no_value(metric: Metric) -> None:
    """Where the answers cannot matter it is undefined: an empty denominator is never 0, ½ or 1."""
    if "text" in metric.needs:
        return
    for classes in (2, 3):
        for target in range(classes):
            answers: tuple[How, ...] = ("right", "wrong", "guessed")
            tables = [toy_predictions(12, classes, how, target=target) for how in answers]
            values = [metric.value(rows).value for rows in tables]
            made_up = values[0] is not None and len(set(values)) == 1
            only = f"with no rows but of {tables[0].classes[target]}"
            assert not made_up, f"{only} it is {values[0]} whatever is answered"


def check_needs_what_it_says(metric: Metric) -> None:
    """Without what it says it needs it is undefined, and with it, it needs nothing else."""
    for rows in _fitting(metric):
        bare = metric.value(Predictions(rows.table.drop(columns=["id", "cluster"]), rows.classes, (), rows.task))
        assert _same(metric.value(rows), bare), "it depends on `id` or `cluster`, which may not be there"
        if rows.has_probabilities and "probabilities" not in metric.needs:
            less = [c for c in rows.table if not str(c).startswith("p_")]
            value = metric.value(Predictions(rows.table[less], rows.classes, (), rows.task))
            assert _same(metric.value(rows), value), "it reads probabilities and does not say so in `needs`"


def check_order_changes_nothing(metric: Metric) -> None:
    """In another order of the rows every row has the same score, and all of them the same value."""
    for rows in _fitting(metric):
        order = np.random.default_rng(1).permutation(len(rows))
        assert _same(metric.value(rows), metric.value(rows.take(order))), "its value depends on the order of rows"
        if metric.each is not None:
            before, after = _scores(metric, rows)[order], _scores(metric, rows.take(order))
            alike = np.allclose(before, after, atol=CLOSE, equal_nan=True)
            assert alike, "a row's score depends on where the row stands"


def _scores(metric: Metric, rows: Predictions) -> FloatArray:
    try:
        return metric.scores(rows)
    except Undefined:
        return np.full(len(rows), np.nan)


def check_a_row_stands_alone(metric: Metric) -> None:
    """A row's score is the same alone as among others, as the exact tests on groups suppose."""
    if metric.each is None:
        return
    for rows in _fitting(metric):
        together = _scores(metric, rows)
        alone = np.concatenate([_scores(metric, rows.take(np.array([k]))) for k in range(len(rows))])
        unlike = ~np.isclose(together, alone, atol=CLOSE, equal_nan=True)
        assert not unlike.any(), (
            f"row {int(unlike.argmax()) + 1} scores {together[unlike][0]:g} among {len(rows)} rows and"
            f" {alone[unlike][0]:g} alone: give the whole number by `over`"
        )


def check_same_value_twice(metric: Metric) -> None:
    """The same rows have the same value, to the last bit."""
    for rows in _fitting(metric):
        assert metric.value(rows) == metric.value(rows), "its value changes from call to call"


def check_leaves_the_rows_alone(metric: Metric) -> None:
    """It reads the rows and changes nothing in them, which other metrics read after it."""
    measure = metric.each or metric.over
    assert measure is not None
    for rows in _fitting(metric):
        before, refused = rows.table.copy(deep=True), ""
        try:
            measure(rows)
        except Undefined:
            continue
        except ValueError as error:
            refused = str(error)
        assert "read-only" not in refused, "it writes into the rows it was given"
        assert rows.table.equals(before), "it changes the rows it was given"


METRIC_CHECKS: tuple[Callable[[Metric], None], ...] = (
    check_says_what_it_is,
    check_gives_a_number_or_a_reason,
    check_higher_is_better_as_it_says,
    check_makes_up_no_value,
    check_needs_what_it_says,
    check_order_changes_nothing,
    check_a_row_stands_alone,
    check_same_value_twice,
    check_leaves_the_rows_alone,
)
