"""Divide rows without dividing patients: seeded splits, and a representative few of many rows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

SPLITS = ("train", "val", "test")


def split_clusters(table: pd.DataFrame, by: str, fractions: Sequence[float], seed: int) -> pd.Series[Any]:
    """Assign whole clusters to train, val and test: a random split, stratified by the column `by`.

    Within each stratum (a cluster belongs to that of its least value) clusters stand in an order
    drawn from `seed` and their names alone, and are cut where `fractions` of the rows are reached.
    The result depends neither on the order of the rows nor on the platform.
    """
    clusters = table.groupby("cluster")[by].agg(["min", "size"]).reset_index()
    clusters["order"] = [_hash(f"{seed}:{name}") for name in clusters["cluster"]]
    clusters = clusters.sort_values("order")
    size = clusters.groupby("min")["size"]
    middle = (size.cumsum() - clusters["size"] / 2) / size.transform("sum")
    edges = np.cumsum(fractions)[:-1]
    split = np.asarray(SPLITS, dtype=object)[np.searchsorted(edges, middle.to_numpy())]
    return table["cluster"].map(dict(zip(clusters["cluster"], split, strict=True)))


def limited(table: pd.DataFrame, limit: int, attributes: Sequence[str]) -> pd.DataFrame:
    """Keep about `limit` rows, whole clusters, in the proportions of split, class, size and attributes.

    Clusters are lined up by these, then by a hash of their name, and thinned out evenly along the
    line: every row adds limit/n to what is owed, and a cluster is kept once half of it is owed. So
    the number kept differs from `limit` by less than the largest cluster has rows, except that no
    split is left empty.
    """
    key = ["split", "target", *attributes]
    clusters = table.sort_values("id").groupby("cluster")[key].first().fillna("").astype(str)
    clusters["size"] = table.groupby("cluster").size()
    clusters["order"] = [_hash(str(name)) for name in clusters.index]
    clusters = clusters.sort_values(["split", "target", "size", *attributes, "order"])
    kept, owed = [], 0.0
    for name, size in clusters["size"].items():
        owed += size * limit / len(table)
        if owed >= size / 2:
            kept.append(name)
            owed -= size
    first_of_split = clusters.reset_index().groupby("split")["cluster"].first()
    for split in set(clusters["split"]) - set(clusters.loc[kept, "split"]):
        kept.append(first_of_split[split])
    return table[table["cluster"].isin(kept)]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
