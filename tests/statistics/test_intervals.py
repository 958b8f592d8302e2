"""Intervals against published numbers, brute force and other libraries' formulas."""

import numpy as np
import pytest
from scipy import stats

from fairbench.statistics.intervals import (
    FEW_OF_A_CLASS,
    auroc_limits,
    auroc_notes,
    delong,
    gap_interval,
    pairwise_alpha,
    wilson,
)
from fairbench.statistics.moments import group_moments
from fairbench.statistics.permutation import WIDE, gap_bounds, group_rates, judge
from fairbench.statistics.resampling import tabulate


def test_wilson_agrees_with_scipy():
    for k, n in ((0, 7), (3, 20), (41, 76), (108, 108)):
        theirs = stats.binomtest(k, n).proportion_ci(0.95, "wilson")
        assert wilson(k / n, n) == pytest.approx((theirs.low, theirs.high))
    assert np.isnan(wilson(0.0, 0)).all()


def test_two_groups_give_newcombes_own_example():
    """Newcombe 1998, example (a), method 10: 56/70 against 48/80 gives 0.0524 to 0.3339."""
    p, n = np.array([56 / 70, 48 / 80]), np.array([70, 80])
    low, high = wilson(p, n)
    assert gap_interval(p[None], low[None], high[None]) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_gap_interval_takes_all_pairs_and_all_rates():
    p, n = np.array([[0.5, 0.7, 0.9], [0.2, 0.2, 0.3]]), np.full((2, 3), 100.0)
    low, high = wilson(p, n, pairwise_alpha(3, 2, 0.05))
    by_hand = []
    for r in range(2):
        ends = []
        for i in range(3):
            for j in range(3):
                if i == j:
                    continue
                d = p[r, i] - p[r, j]
                ends.append((d - np.sqrt((p[r, i] - low[r, i]) ** 2 + (high[r, j] - p[r, j]) ** 2),
                             d + np.sqrt((high[r, i] - p[r, i]) ** 2 + (p[r, j] - low[r, j]) ** 2)))  # fmt: skip
        by_hand.append((max(0, *(e[0] for e in ends)), max(e[1] for e in ends)))
    assert gap_interval(p, low, high, "max") == pytest.approx(np.max(by_hand, axis=0))
    assert gap_interval(p, low, high, "mean") == pytest.approx(np.mean(by_hand, axis=0))
    assert pairwise_alpha(3, 2, 0.05) == pytest.approx(0.05 / 6)


def test_delong_is_the_brute_force_and_ties_count_half():
    rng = np.random.default_rng(0)
    y, s = rng.integers(0, 2, 60), rng.integers(0, 6, 60)
    kernel = np.array([[(p > q) + 0.5 * (p == q) for q in s[y == 0]] for p in s[y == 1]])
    result = delong(y, s)
    assert result.value == pytest.approx(kernel.mean())
    variance = kernel.mean(1).var(ddof=1) / kernel.shape[0] + kernel.mean(0).var(ddof=1) / kernel.shape[1]
    assert result.variance == pytest.approx(variance)
    draws = []
    for _ in range(2000):
        i, j = rng.integers(0, len(kernel), len(kernel)), rng.integers(0, kernel.shape[1], kernel.shape[1])
        draws.append(kernel[np.ix_(i, j)].mean())
    assert np.std(draws) == pytest.approx(np.sqrt(result.variance), rel=0.1)
    assert delong(np.ones(5), np.arange(5)) is None


def test_clusters_of_copies_carry_no_new_information():
    rng = np.random.default_rng(1)
    y, s = rng.integers(0, 2, 200), rng.normal(size=200)
    copied, unit = np.repeat(np.arange(200), 4), np.repeat(np.arange(200), 4)
    alone, four = delong(y, s), delong(y[copied], s[copied], unit)
    assert four.value == pytest.approx(alone.value)
    assert four.variance == pytest.approx(alone.variance, rel=0.02)
    correct, group = (s > 0).astype(float), y.astype(np.int64)
    once = group_rates(correct, group)
    many = group_rates(correct[copied], group[copied], unit)
    for a, b in zip(once, many, strict=True):
        assert b.rows == 4 * a.rows
        assert b.low == pytest.approx(a.low, abs=0.005)


def test_perfect_separation_is_not_certainty():
    low, high = auroc_limits(delong([0, 0, 0, 1, 1, 1], [1, 2, 3, 4, 5, 6]), 0.05)
    assert high == 1
    assert low < 0.5


def test_real_scores_get_the_t_interval():
    rng = np.random.default_rng(2)
    x, group = rng.gamma(2, size=40), np.repeat([0, 1], 20)
    mine = group_rates(x, group)[1]
    theirs = stats.ttest_1samp(x[20:], 0).confidence_interval(0.95)
    assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high))


def test_groups_without_rows_are_undefined_and_small_ones_flagged():
    rates = group_rates(np.array([1.0, 0.0, np.nan]), np.array([0, 0, 1]), names=["a", "b"])
    assert rates[1].value is None
    assert rates[1].interval is None
    assert "undefined" in rates[1].reason
    assert "fewer than 20" in rates[0].notes[0]


@pytest.mark.parametrize("truth", [(0.535, 0.535, 0.535), (0.535, 0.385, 0.535), (0.97, 0.97, 0.9)])
def test_gap_interval_covers_at_parity_and_away(truth):
    """4,000 test sets of 1816/76/108: at least 95 % covered, less three Monte-Carlo standard errors."""
    rng = np.random.default_rng(3)
    n = np.array([1816, 76, 108])
    gap, hits, worlds = max(truth) - min(truth), 0, 4000
    p = rng.binomial(n, truth, (worlds, 3)) / n
    low, high = wilson(p, n, pairwise_alpha(3, 1, 0.05))
    for row in range(worlds):
        bottom, top = gap_interval(p[row][None], low[row][None], high[row][None])
        hits += bottom <= gap <= top
    assert hits / worlds > 0.95 - 3 * np.sqrt(0.95 * 0.05 / worlds)


def test_an_eqodds_interval_needs_two_groups_with_each_class():
    group = np.array([0, 0, 1, 1])
    yes = [np.array([1.0, np.nan, np.nan, np.nan]), np.array([np.nan, 0.0, 1.0, 0.0])]
    table = tabulate(yes, group, None, 2)
    assert gap_bounds(group_moments(table), "max") == (None, None)


def test_an_interval_that_is_wider_than_it_need_be_says_so():
    """Few rows that are not 0, and few positives; not a board of 0/1 rows, nor many of either."""
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1], (60, 600))
    scores = np.where(rng.random(660) < 0.9, 0.0, rng.random(660))
    few, many = group_rates(scores, group)
    assert WIDE in few.notes
    assert WIDE not in many.notes
    assert f"0: {WIDE}" in judge([scores], group, repeats=50).notes
    assert not any(WIDE in one.notes for one in group_rates((scores > 0).astype(float), group))
    for positives, said in ((8, (FEW_OF_A_CLASS,)), (80, ())):
        assert auroc_notes(delong(np.arange(300) < positives, rng.random(300))) == said
