"""Coins for the swap test: as many bits as coins, fair, each its own, whether drawn as bits or as binomials."""

import numpy as np

from fairbench.statistics.resampling import Table, coins, permuted, swapped


def test_coins_are_fair_and_independent():
    drawn = coins(37, 40_000, np.random.default_rng(0))
    assert drawn.shape == (40_000, 37)
    assert set(np.unique(drawn)) == {-1.0, 1.0}
    assert np.abs(drawn.mean(axis=0)).max() < 5 / 200
    assert np.abs(np.corrcoef(drawn.T) - np.eye(37)).max() < 5 / 200


def test_many_distinct_differences_have_the_moments_of_the_swap():
    """Means 0 and covariance Σ count · half · halfᵀ, by arithmetic."""
    rng = np.random.default_rng(1)
    counts, half = rng.integers(1, 5, (60, 2)), rng.normal(size=(60, 3))
    table = Table(np.zeros((60, 1)), np.ones((60, 1)), counts, np.zeros(60, dtype=np.int64), False, False)
    sums = np.concatenate([*swapped(table, half, 60_000, rng)])
    for group in range(2):
        expected = (half.T * counts[:, group]) @ half
        assert np.allclose(np.cov(sums[:, group].T), expected, atol=0.03 * np.abs(expected).max())
        assert np.abs(sums[:, group].mean(axis=0)).max() < 5 * np.sqrt(expected.max() / 60_000)


def test_shuffled_sums_are_those_of_the_units_in_each_group():
    """By giving each draw's order of units to the groups, smallest first; and once more, from what was kept."""
    rng = np.random.default_rng(2)
    counts = np.bincount(np.arange(40) % 20 * 3 + rng.integers(0, 3, 40), minlength=60).reshape(20, 3)
    table = Table(np.zeros((20, 1)), np.ones((20, 1)), counts, np.zeros(20, dtype=np.int64), False, False)
    features = rng.normal(size=(20, 5))
    units = np.repeat(np.arange(20), counts.sum(axis=1))
    drawn = np.random.default_rng(3)
    orders = drawn.permuted(np.broadcast_to(units, (500, 40)), axis=1)
    expected, start = np.empty((500, 3, 5)), 0
    for group in np.argsort(counts.sum(axis=0), kind="stable"):
        stop = start + counts[:, group].sum()
        expected[:, group] = features[orders[:, start:stop]].sum(axis=1)
        start = stop
    for _ in range(2):
        again = np.random.default_rng(3)
        (sums,) = permuted(table, features, 500, again)
        assert np.allclose(sums, expected, rtol=0, atol=1e-12)
        assert again.bit_generator.state == drawn.bit_generator.state
