"""Curves on a grid: against thresholds tried one by one, and against sums that must come out."""

import numpy as np
import pytest

from fairbench.statistics.curves import BINS, GRID, reliability, roc
from fairbench.statistics.intervals import proportion_limits


def drawn(n=400, seeds=2, seed=0):
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 2, n)
    noise = rng.normal(size=(seeds, n))
    return target, 1 / (1 + np.exp(-(1.5 * target - 0.75 + noise)))


def test_roc_is_what_every_threshold_gives_averaged_over_seeds():
    target, score = drawn()
    grid, true = roc(target, score)
    assert grid == pytest.approx(np.arange(GRID) / (GRID - 1))
    expected = []
    for one in score:
        cuts = [np.inf, *np.sort(one)[::-1]]
        points = [((one >= c)[target == 0].mean(), (one >= c)[target == 1].mean()) for c in cuts]
        expected.append([np.interp(f, *zip(*points, strict=True)) for f in grid])
    assert true[1:] == pytest.approx(np.mean(expected, axis=0)[1:])
    assert (true[0], true[-1]) == (0, 1)


def test_a_constant_score_ranks_nobody():
    target, _ = drawn()
    grid, true = roc(target, np.full((1, target.size), 0.5))
    assert true == pytest.approx(grid)


def test_reliability_counts_every_row_once_and_adds_up():
    target, score = drawn()
    parts = reliability(target, score, None, least=20)
    rows = np.array([part.rows for part in parts])
    assert len(parts) == BINS
    assert rows.sum() == target.size
    assert (rows @ [part.observed for part in parts]) / target.size == pytest.approx(target.mean())
    assert (rows @ [part.score for part in parts]) / target.size == pytest.approx(score.mean())
    assert all(part.low <= part.observed <= part.high for part in parts)
    lowest = np.argsort(score, axis=1)[:, : parts[0].rows]
    assert parts[0].observed == pytest.approx(target[lowest].mean())


@pytest.mark.parametrize(("n", "parts"), [(19, 0), (20, 1), (59, 2), (5000, BINS)])
def test_no_part_of_a_calibration_curve_is_small(n, parts):
    target, score = drawn(n, seeds=1)
    found = reliability(target, score, None, least=20)
    assert len(found) == parts
    assert all(part.rows >= 20 for part in found)


def test_one_seeds_limits_are_those_of_a_proportion():
    target, score = drawn(seeds=1)
    part = reliability(target, score, None, least=20)[3]
    low, high = proportion_limits(part.observed, part.rows)
    assert (part.low, part.high) == (pytest.approx(float(low)), pytest.approx(float(high)))


def test_rows_of_one_patient_count_as_one_and_seeds_as_none():
    """Ten copies of every row: the limits are those of the rows without the copies, not ten times as sure."""
    target, score = drawn(n=300, seeds=1)
    once = reliability(target, score, None, least=20)
    tenfold = reliability(target.repeat(10), score.repeat(10, axis=1), np.arange(300).repeat(10), least=200)
    assert len(tenfold) == len(once) == BINS
    for one, ten in zip(once, tenfold, strict=True):
        assert (ten.observed, ten.rows) == (pytest.approx(one.observed), 10 * one.rows)
        assert ten.high - ten.low >= 0.99 * (one.high - one.low)
    thrice = reliability(target, score.repeat(3, axis=0), None, least=20)
    assert [p.low for p in thrice] == pytest.approx([p.low for p in once])
    assert [p.high for p in thrice] == pytest.approx([p.high for p in once])
