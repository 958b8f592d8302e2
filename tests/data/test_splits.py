"""Splits of several columns: whole clusters, and each class and group in its share, however rare."""

import numpy as np
import pandas as pd
import pytest

from fairbench import FairbenchError
from fairbench.data.splits import folded, limited, split_clusters

FRACTIONS = (0.7, 0.1, 0.2)


def people(seed, count=900, views=3):
    generator = np.random.default_rng(seed)
    patient = generator.integers(0, count // 2, count)
    race = np.array(["white"] * 16 + ["black"] * 3 + ["asian"], dtype=object)[patient % 20]
    return pd.DataFrame(
        {
            "cluster": [f"p{n}" for n in patient],
            "target": np.where(generator.random(count // 2)[patient] < 0.1, "ill", "well"),
            "race": race,
            "sex": np.array(["female", "male", None], dtype=object)[patient % 3],
        }
    )


@pytest.mark.parametrize("seed", range(5))
def test_every_class_and_group_has_its_share_in_every_split(seed):
    table = people(seed)
    table["split"] = split_clusters(table, ("target", "race", "sex"), FRACTIONS, seed)
    assert table.groupby("cluster")["split"].nunique().max() == 1
    biggest = table.groupby("cluster").size().max()
    strata = table.fillna("").groupby(["target", "race", "sex"])
    for column in ("target", "race", "sex"):
        for value, part in table.groupby(table[column].fillna("-")):
            several = strata.ngroups  # each stretch of the line is within one cluster or so of its share
            for name, share in zip(("train", "val", "test"), FRACTIONS, strict=True):
                off = abs((part["split"] == name).sum() - share * len(part))
                assert off <= 2 * biggest * min(several, 4), f"{column} {value} {name}: off by {off:.1f} rows"
    rare = table[(table["race"] == "asian")]
    assert set(rare["split"]) == {"train", "val", "test"}


def test_seed_and_names_alone_decide():
    table = people(0)
    one = split_clusters(table, ("target", "race"), FRACTIONS, 3)
    shuffled = table.sample(frac=1, random_state=1)
    assert split_clusters(shuffled, ("target", "race"), FRACTIONS, 3).sort_index().equals(one)
    assert not split_clusters(table, ("target", "race"), FRACTIONS, 4).equals(one)


@pytest.mark.parametrize("folds", [3, 5])
def test_over_all_folds_every_row_is_tested_once_by_a_model_that_never_saw_its_cluster(folds):
    table, by = people(2), ("target", "race", "sex")
    ways = [folded(table, folds, fold, by) for fold in range(folds)]
    for split in ("test", "val"):
        assert (sum((way == split).astype(int) for way in ways) == 1).all()
    for way in ways:
        assert way.groupby(table["cluster"]).nunique().max() == 1
        assert abs((way == "test").mean() - 1 / folds) < 0.02
        ill = (way[table["target"] == "ill"] == "test").sum()
        assert abs(ill - (table["target"] == "ill").sum() / folds) <= 2 * table.groupby("cluster").size().max() * 4
    shuffled = table.sample(frac=1, random_state=1)
    assert folded(shuffled, folds, 1, by).sort_index().equals(ways[1])
    with pytest.raises(FairbenchError, match="2 clusters cannot be divided into"):
        folded(table[table["cluster"].isin(table["cluster"].unique()[:2])], folds, 0, by)


def test_what_an_attribute_is_called_changes_no_split():
    table = people(1).assign(id=[f"i{n}" for n in range(900)])
    table["split"] = split_clusters(table, ("race", "sex"), FRACTIONS, 0)
    renamed = table.rename(columns={"race": "size", "sex": "order"})
    assert split_clusters(renamed, ("size", "order"), FRACTIONS, 0).equals(table["split"])
    assert set(limited(renamed, 90, ["size", "order"])["id"]) == set(limited(table, 90, ["race", "sex"])["id"])
