"""A table that changed recalls what rests on the same answers, and never what rests on others."""

import time

import numpy as np
import pytest
from builders import patients

from fairbench.cache import Cache
from fairbench.jobs.job import Choice, Job, Record, Stage
from fairbench.jobs.store import PREDICTIONS, Store
from fairbench.leaderboard import answers, remembered
from fairbench.leaderboard.build import build
from fairbench.predictions.predictions import Predictions
from fairbench.report import render

GROUPS = {"black": 30, "white": 50}
METHODS = ("plain", "fair", "fairer")


def add(store, name, seed=0, draw=0, race=None):
    """One finished job, whose answers are drawn by its method, its seed and `draw`."""
    parts = [Choice(part, {}, "fairbench 0.2.0", "1") for part in ("toy", "tiny", name)]
    job = Job(*parts, (Stage(),), (), seed)
    folder = store.prepare(job)
    table = patients(GROUPS)
    rng = np.random.default_rng([seed, draw, *name.encode()])
    table["answer"] = np.where(rng.random(len(table)) < 0.8, table["target"], 1 - table["target"])
    table["race"] = table["race"] if race is None else race
    Predictions(table, ("no", "yes"), ("race",)).save(folder / PREDICTIONS)
    role = "baseline" if name == "plain" else "contender"
    store.save(Record(job, "2026-11-21T10:00:00+00:00", {"train": 2.0}, 10, role=role))


@pytest.fixture
def built(tmp_path, monkeypatch):
    """Build the board of a store, with the cache in a folder; return it and how many comparisons it computed."""
    monkeypatch.setattr("fairbench.cache.FRESH", 0.0)
    calls = []
    for name in ("compare", "compare_gaps", "interaction"):
        original = getattr(answers, name)
        monkeypatch.setattr(answers, name, lambda *a, _of=original, **more: calls.append(0) or _of(*a, **more))

    def board(store, cache="cache"):
        monkeypatch.setenv("FAIRBENCH_CACHE", str(tmp_path / cache))
        time.sleep(0.02)
        calls.clear()
        return render(build(store), "json"), len(calls)

    return board


@pytest.fixture
def store(tmp_path):
    """Three methods of one seed."""
    store = Store(tmp_path / "runs")
    for name in METHODS:
        add(store, name)
    return store


def test_a_new_method_costs_its_own_comparisons(store, built):
    _, first = built(store)
    add(store, "fairest")
    grown, more = built(store)
    assert (grown, first + more) == built(store, "empty")
    assert more > 0


def test_a_new_seed_that_no_other_row_has_costs_no_comparison(store, built):
    _, first = built(store)
    add(store, "fair", seed=1)
    grown, more = built(store)
    assert more == 0
    assert (grown, first) == built(store, "empty")


@pytest.mark.parametrize("change", ["answers", "groups"])
def test_other_answers_or_groups_under_the_same_names_are_compared_anew(store, built, change):
    built(store)
    mixed = np.array(["white", "black"])[np.arange(sum(GROUPS.values())) % 2]
    for name in METHODS:
        add(store, name, **{"answers": {"draw": 1}, "groups": {"race": mixed}}[change])
    assert built(store) == built(store, "empty")


def test_what_a_table_no_longer_uses_is_let_go(store, built):
    built(store)
    (first,) = Cache().read(remembered.KIND).values()
    add(store, "plain", draw=1)
    built(store)
    (second,) = Cache().read(remembered.KIND).values()
    assert first != second
    assert len(second[1]) < 1.2 * len(first[1])
