"""From class probabilities to the predictions that a job leaves."""

from __future__ import annotations

from typing import Any

import pandas as pd

from fairbench.dataset import Dataset
from fairbench.errors import FairbenchError
from fairbench.method import Method


def frame(dataset: Dataset, table: pd.DataFrame, probabilities: Any) -> pd.DataFrame:
    """Put predictions beside who they are about."""
    result = table[["id", "cluster", "split"]].reset_index(drop=True)
    result["target"] = table["target"].map({c: i for i, c in enumerate(dataset.classes)}).to_numpy()
    result["answer"] = probabilities.argmax(1)
    for index in range(len(dataset.classes)):
        result[f"p_{index}"] = probabilities[:, index]
    for attribute in dataset.attributes:
        result[attribute] = table[attribute].to_numpy()
    return result


def adjusted(
    method: Method, validation: pd.DataFrame, test: pd.DataFrame, attributes: tuple[str, ...]
) -> pd.DataFrame:
    """Let a method revise the test predictions without seeing the targets (nor, mostly, the groups)."""
    hidden = ["target", *(() if method.group_at_test else attributes)]
    revised = method.adjust(validation.copy(), test.drop(columns=hidden))
    scores = [column for column in map(str, test.columns) if column.startswith("p_")]
    lost = {"id", "answer", *scores} - set(map(str, revised.columns))
    if lost:
        raise FairbenchError(f"{method.name}.adjust lost the columns {', '.join(sorted(lost))}")
    if list(revised["id"]) != list(test["id"]):
        raise FairbenchError(f"{method.name}.adjust must return the test rows it was given, in their order")
    if not revised[scores].map(lambda share: 0 <= share <= 1).all(axis=None):
        raise FairbenchError(f"{method.name}.adjust returned a probability outside 0 to 1")
    if not revised["answer"].isin(range(len(scores))).all():
        raise FairbenchError(f"{method.name}.adjust returned an answer that is no class")
    return revised.assign(**{column: test[column].to_numpy() for column in hidden})[list(test.columns)]
