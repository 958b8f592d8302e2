"""Coins for the swap test: as many bits as coins, fair, each its own, whether drawn as bits or as binomials."""

import numpy as np

from fairbench.statistics.resampling import Table, coins, swapped


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
