"""Bring two tables of predictions about the same patients into one order."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from fairbench.errors import FairbenchError
from fairbench.predictions.predictions import Predictions


def align(
    reference: Predictions, other: Predictions, names: tuple[str, str] = ("A", "B")
) -> tuple[Predictions, Predictions]:
    """Bring `other` into the row order of `reference`, matched by id; return both, with the same clusters.

    Clusters that only one of them has hold for both: rows of one id are of one patient. Raises FairbenchError
    where ids, classes, targets, attribute values or clusters are not the same.
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
    return _same_clusters(reference, ordered, names)


def _same_clusters(
    left: Predictions, right: Predictions, names: tuple[str, str]
) -> tuple[Predictions, Predictions]:
    """Give both the clusters that either has; refuse two divisions of the rows that differ."""
    if "cluster" not in left.table and "cluster" not in right.table:
        return left, right
    if "cluster" in left.table and "cluster" in right.table:
        divisions = pd.DataFrame({"left": left.clusters(), "right": right.clusters()})
        pairs = divisions.drop_duplicates()
        if len(pairs) > pairs["left"].nunique() or len(pairs) > pairs["right"].nunique():
            torn = pairs["left"].duplicated(keep=False) | pairs["right"].duplicated(keep=False)
            example = left.table["id"].iloc[pairs.index[torn.to_numpy()][0]]
            raise FairbenchError(
                f"{names[0]} and {names[1]} disagree about which rows belong to one patient (`cluster`), for"
                f" instance of id `{example}`",
                "compare predictions with the same clusters, or leave the column out of one of them",
            )
        return left, right
    codes = (left if "cluster" in left.table else right).clusters()
    both = (replace(each, table=each.table.assign(cluster=codes)) for each in (left, right))
    first, second = both
    return first, second
