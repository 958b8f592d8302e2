"""Bring two tables of predictions about the same patients into one order."""

from __future__ import annotations

import pandas as pd

from fairbench.errors import FairbenchError
from fairbench.predictions.predictions import Predictions


def align(reference: Predictions, other: Predictions, names: tuple[str, str] = ("A", "B")) -> Predictions:
    """Bring `other` into the row order of `reference`, matched by id.

    Raises FairbenchError where ids, classes, targets or attribute values are not the same.
    """
    first, second = names
    for name, table in ((first, reference.table), (second, other.table)):
        if "id" not in table:
            raise FairbenchError(
                f"{name} has no column `id`", "rows are matched by id: add one per patient or image"
            )
    if reference.classes != other.classes:
        raise FairbenchError(
            f"{first} has the classes {', '.join(reference.classes)}, {second} {', '.join(other.classes)}",
            "compare predictions of the same task; name the positive with --positive",
        )
    left, right = pd.Index(reference.table["id"]), pd.Index(other.table["id"])
    place = right.get_indexer(left)
    only_left, only_right = left[place < 0], right[left.get_indexer(right) < 0]
    if only_left.size or only_right.size:
        example = (
            f"`{only_left[0]}` is only in {first}" if only_left.size else f"`{only_right[0]}` is only in {second}"
        )
        raise FairbenchError(
            f"{first} and {second} are not about the same rows: {only_left.size:,} ids are only in {first} and"
            f" {only_right.size:,} only in {second} ({example})",
            "compare predictions on the same test split",
        )
    ordered = other.take(place)
    same = [c for c in ("target", "reference") if c in reference.table and c in other.table]
    for column in (*same, *(a for a in reference.attributes if a in other.attributes)):
        mine, theirs = (t.table[column].astype(object).to_numpy() for t in (reference, ordered))
        unlike = (mine != theirs) & ~((mine != mine) & (theirs != theirs))  # both missing is the same
        if unlike.any():
            raise FairbenchError(
                f"{first} and {second} disagree about `{column}` of {int(unlike.sum()):,} rows,"
                f" first id `{left[int(unlike.argmax())]}`",
                "compare predictions on the same version of the data",
            )
    return ordered
