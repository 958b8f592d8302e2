"""Divide rows without dividing patients: seeded splits, and a representative few of many rows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from fairbench.errors import FairbenchError

SPLITS = ("train", "val", "test")


def split_clusters(
    table: pd.DataFrame, by: str | Sequence[str], fractions: Sequence[float], seed: int
) -> pd.Series[Any]:
    """Assign whole clusters to train, val and test: a random split, stratified by the column `by`, or by several.

    Within each stratum (a cluster belongs to that of its least value) clusters stand in an order
    drawn from `seed` and their names alone, and are cut where `fractions` of the rows are reached.
    The result depends neither on the order of the rows nor on the platform.

    Strata of several columns may hold few clusters, which a cut of each would all put into the largest split. So
    their clusters stand in one line, stratum by stratum, and each goes where most rows are lacking: any stretch of
    the line, and so each stratum, gets its `fractions` to within one cluster.
    """
    if not isinstance(by, str):
        return _spread(table, by, fractions, seed)
    clusters = table.groupby("cluster")[by].agg(["min", "size"]).reset_index()
    clusters["order"] = [_hash(f"{seed}:{name}") for name in clusters["cluster"]]
    clusters = clusters.sort_values("order")
    size = clusters.groupby("min")["size"]
    middle = (size.cumsum() - clusters["size"] / 2) / size.transform("sum")
    edges = np.cumsum(fractions)[:-1]
    split = np.asarray(SPLITS, dtype=object)[np.searchsorted(edges, middle.to_numpy())]
    return table["cluster"].map(dict(zip(clusters["cluster"], split, strict=True)))


def check_folds(table: pd.DataFrame, folds: int) -> None:
    """Raise FairbenchError where there are fewer clusters than folds."""
    if (clusters := table["cluster"].nunique()) < folds:
        raise FairbenchError(f"{clusters:,} clusters cannot be divided into {folds:,} folds", "ask for fewer folds")


def folded(table: pd.DataFrame, folds: int, fold: int, by: Sequence[str], seed: int = 0) -> pd.Series[Any]:
    """Assign whole clusters to train, val and test anew, in one of `folds` ways of which each tests other rows.

    Over all ways every row is tested once and validated once, by models that were trained on none of its cluster.
    The parts are equal in the columns `by`, to within one cluster of any stratum, and depend neither on the order
    of the rows nor on the platform. Raises FairbenchError where there are fewer clusters than folds.
    """
    check_folds(table, folds)
    part = _dealt(table, by, [1 / folds] * folds, seed)
    names = {fold: "test", (fold + 1) % folds: "val"}
    return part.map(lambda number: names.get(number, "train"))


def _spread(table: pd.DataFrame, by: Sequence[str], fractions: Sequence[float], seed: int) -> pd.Series[Any]:
    return _dealt(table, by, fractions, seed).map(dict(enumerate(SPLITS)))


def _dealt(table: pd.DataFrame, by: Sequence[str], fractions: Sequence[float], seed: int) -> pd.Series[Any]:
    """Number each row's part; parts get their `fractions` of the rows, and of any stratum, to within a cluster."""
    strata = table[list(by)].fillna("").astype(str).assign(cluster=table["cluster"])
    sizes = table.groupby("cluster").size()
    clusters = _lined_up(strata.groupby("cluster").min(), [_hash(f"{seed}:{name}") for name in sizes.index])
    lacking, place = np.zeros(len(fractions)), np.empty(len(clusters), dtype=np.int64)
    for number, size in enumerate(sizes[clusters.index]):
        lacking += size * np.asarray(fractions)
        place[number] = lacking.argmax()
        lacking[place[number]] -= size
    return table["cluster"].map(dict(zip(clusters.index, place, strict=True)))


def limited(table: pd.DataFrame, limit: int, attributes: Sequence[str]) -> pd.DataFrame:
    """Keep about `limit` rows: whole clusters, in the proportions of splits, classes and attributes.

    Clusters are lined up by split, class, attributes, size and a hash of their name, and taken at even
    distances along the line, so that any stretch of it keeps its share to within one cluster. All have
    the same chance whatever their size. A split that would be left empty keeps its first cluster.
    """
    key = [column for column in ("split", "target", *attributes) if column in table]
    clusters = table.sort_values("id").groupby("cluster")[key].first().fillna("").astype(str)
    sizes = table.groupby("cluster").size()
    clusters = _lined_up(clusters, sizes, [_hash(str(name)) for name in clusters.index])
    passed = (np.arange(len(clusters) + 1) * limit + len(table) // 2) // len(table)
    kept = clusters[np.diff(passed) > 0]
    alone = clusters[~clusters["split"].isin(kept["split"])].drop_duplicates("split")
    return table[table["cluster"].isin([*kept.index, *alone.index])]


def _lined_up(clusters: pd.DataFrame, *further: Any) -> pd.DataFrame:
    """Sort clusters by their columns, whatever those are called, and then by what is `further` known of each."""
    beside = pd.DataFrame(dict(enumerate(further)), clusters.index)
    line = pd.concat([clusters, beside], axis=1, ignore_index=True)
    return clusters.loc[line.sort_values([*line]).index]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
