"""What stands behind a board's rows, against what the predictions say."""

from dataclasses import replace

import numpy as np
import pytest
from builders import scored_runs

from fairbench.leaderboard.build import build
from fairbench.leaderboard.details import POINTS, details, loss_curve


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return scored_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def board(store):
    return build(store)


def frames(store, name):
    return [store.predictions(r).table for r in store.contents().records if r.job.method.name == name]


def test_seeds_are_each_models_own_score_and_gap(store, board):
    (one,) = details(store, board)
    found = {value.seed: value for value in one.rows["fair"].seeds}
    for record in store.contents().records:
        if record.job.method.name == "fair":
            table = store.predictions(record).table
            right = table["target"] == table["answer"]
            by_group = right.groupby(table["race"], observed=True).mean()
            assert found[record.job.seed].score == pytest.approx(right.mean())
            assert found[record.job.seed].gap == pytest.approx(by_group.max() - by_group.min())


def test_changes_are_paired_within_the_group(store, board):
    (one,) = details(store, board)
    fair, plain = (
        np.mean([(f["target"] == f["answer"]).astype(float).to_numpy() for f in frames(store, name)], axis=0)
        for name in ("fair", "plain")
    )
    race = frames(store, "fair")[0]["race"].to_numpy()
    names = [group.name for group in board.tables[0].groups]
    for name, change in zip(names, one.rows["fair"].changes, strict=True):
        assert change.value == pytest.approx((fair - plain)[race == name].mean())
        assert change.low <= change.value <= change.high
    assert one.rows["plain"].changes == ()


def test_curves_need_enough_rows_of_both_classes(store, board):
    (one,) = details(store, board)
    counts = {g.name: min(g.positives, g.negatives) for g in board.tables[0].groups}
    assert counts["asian"] < 20
    assert [curve.group for curve in one.rows["fair"].curves] == ["black", "white"]
    assert all(part.rows >= 20 for curve in one.rows["fair"].curves for part in curve.calibration)


def test_what_a_board_withholds_is_not_behind_it(store):
    board = build(store, min_cell=100)
    withheld = {group.name for group in board.tables[0].groups if group.n is None}
    assert withheld == {"asian", "black"}
    (one,) = details(store, board)
    changes = dict(zip([g.name for g in board.tables[0].groups], one.rows["fair"].changes, strict=True))
    assert {name for name, change in changes.items() if change.value is None} == withheld
    assert {curve.group for curve in one.rows["fair"].curves} == {"white"}


def test_a_row_that_lost_a_job_has_nothing_behind_it(store, board):
    (table,) = board.tables
    rows = tuple(replace(row, keys=(*row.keys[:1], "0" * 16)) if row.label == "fair" else row for row in table.rows)
    (one,) = details(store, replace(board, tables=(replace(table, rows=rows),)))
    assert "fair" not in one.rows
    assert "plain" in one.rows


def test_loss_curves_go_through_all_stages_and_stay_short(store):
    points = loss_curve(store, store.contents().records[0].job)
    assert len(points) == POINTS
    steps = [step for step, _ in points]
    assert steps == sorted(steps)
    assert points[-1][0] == 300  # the second stage's first step comes after the 300 of the first
    weights = [len(part) for part in np.array_split(np.arange(301), POINTS)]
    whole = np.mean([*(1 / (1 + np.arange(300))), 9.0])
    assert np.average([loss for _, loss in points], weights=weights) == pytest.approx(whole)
