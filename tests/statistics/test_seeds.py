"""What the rows of a table say together of the variance between seeds: it is known, and never invented."""

import numpy as np
import pytest
from scipy import stats
from simulated import drawn

from fairbench.statistics.paired import compare
from fairbench.statistics.seeds import (
    SeedPrior,
    SeedScatter,
    distinct_rows,
    from_groups,
    group_priors,
    seed_prior,
    seed_priors,
)

ROUNDED = 2**0.25  # a prior's variance is rounded up by at most this


def test_a_prior_is_that_of_which_the_variances_were_drawn():
    """4,000 rows of four degrees of freedom, whose own variances are scaled inverse chi-squared."""
    rng = np.random.default_rng(0)
    true = 2.0 * 6 / rng.chisquare(6, 4000)
    prior = seed_prior(true * rng.chisquare(4, 4000) / 4, 4, 4000)
    assert prior.freedom in (5, 6, 7)
    assert 1.9 <= prior.variance <= 2.1 * ROUNDED


def test_rows_alike_are_worth_their_number_and_unlike_ones_little():
    rng = np.random.default_rng(1)
    alike = [seed_prior(rng.chisquare(2, 12) / 2, 2, 12) for _ in range(200)]
    unlike = [seed_prior(rng.chisquare(2, 12) / 2 * 100.0 ** np.arange(-6, 6), 2, 12) for _ in range(200)]
    assert max(one.freedom for one in alike) == 11
    assert np.median([one.freedom for one in alike]) == 11
    assert max(one.freedom if one else 0 for one in unlike) < 1


@pytest.mark.parametrize(
    ("variances", "freedom", "distinct"),
    [([1.0, 2.0], 2, 2), ([1.0, 2.0, 3.0], 1, 3), ([1.0, 2.0, 3.0], 2, 2.9), ([1.0, 0.0, 0.0, 2.0], 2, 4)],
    ids=["two rows", "two seeds", "rows that share a training", "rows that do not move"],
)
def test_few_rows_or_seeds_make_no_prior(variances, freedom, distinct):
    assert seed_prior(variances, freedom, distinct) is None


def test_rows_of_one_training_count_once():
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(2, 3, 5000))
    assert distinct_rows([a, a, a]) == pytest.approx(1)
    assert distinct_rows([a, b, a]) == pytest.approx(9 / 5, rel=0.02)
    assert distinct_rows([a, b, rng.normal(size=(3, 5000))]) == pytest.approx(3, rel=0.02)


def test_the_scatter_of_a_pair_is_moderated_and_never_less_than_its_own():
    prior, own = SeedPrior(4.0, 6.0), np.array([[0.0, 1.0, 2.0], [5.0, 5.0, 5.0]])
    one_moves = SeedScatter.of(own, prior)
    assert one_moves == SeedScatter(3, (6 * 4.0 + 2 * 1.0) / 8, 8.0)
    both_move = SeedScatter.of(np.array([own[0], [0.0, 2.0, 4.0]]), prior)
    assert both_move.variance == pytest.approx((24 + 2) / 8 + (24 + 8) / 8)
    assert SeedScatter.of(np.array([own[0], -20 * own[0]]), prior).variance == 441
    assert SeedScatter.of(own[:, :2], prior) == SeedScatter.of(own[:, :2])
    assert SeedScatter.of(own[:, :1], prior) == SeedScatter(1)
    alone = SeedScatter.of(own)
    assert alone.reach == pytest.approx(stats.t.ppf(0.975, 2) / np.sqrt(3))


def test_groups_are_moderated_and_never_scatter_less_than_their_own():
    """By hand, where all groups have one sampling variance q: Q(v) = S / (q + v); a prior adds d·s·q / (q + v)."""
    rng = np.random.default_rng(3)
    q, prior = 0.02**2, SeedPrior(3.0, 5.0)
    for spread in (0.0, 0.02, 0.1):
        values = 0.7 + rng.normal(0, np.hypot(spread, 0.02), (3, 2))
        square = ((values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()) ** 2).sum()
        moderated = (square + 5 * 3 * q) / (2 + 5) - q
        part = from_groups(values, np.full(2, q), True, prior)
        assert part.between == pytest.approx(max(0.0, moderated, square / 2 - q) / 3, abs=1e-9)
        assert part.freedom == 7
    assert from_groups(values[:2], np.full(2, q), True, prior).freedom == 1


def test_three_seeds_of_many_methods_find_what_they_could_not_alone():
    """12 methods, one 5 points worse: alone its seeds leave two degrees of freedom."""
    rng, group = np.random.default_rng(4), np.repeat([0, 1], 1000)
    luck, every = rng.random(2000), []
    for method in range(12):
        rate, own = 0.75 if method else 0.70, np.where(rng.random(2000) < 0.8, luck, rng.random(2000))
        runs = [np.where(rng.random(2000) < 0.9, own, rng.random(2000)) < rate for _ in range(3)]
        every.append(np.array(runs, float))
    values = [{"score": one.mean(axis=1)} for one in every]
    priors = seed_priors(values, every)
    of_seeds = np.array([one.mean(axis=1).var(ddof=1) for one in every])
    assert of_seeds.mean() / 2 <= priors["score"].variance <= of_seeds.mean() * 2
    alone, known = (compare([every[1]], [every[0]], group, priors=p).accuracy for p in (None, priors))
    assert known.p < 0.05 / 66 < alone.p
    assert known.value == alone.value
    assert known.low > 0


def test_rows_without_training_are_no_evidence_of_its_variance():
    """A model that is only asked gives every seed the same answers."""
    rng = np.random.default_rng(5)
    trained = [(rng.random((3, 400)) < 0.7).astype(float) for _ in range(4)]
    asked = [np.tile(rng.random(400) < 0.7, (3, 1)).astype(float) for _ in range(4)]
    group = np.arange(400) % 2
    scores = [*trained, *asked]
    values = [{"score": one.mean(axis=1)} for one in scores]
    assert seed_priors(values, scores) == seed_priors(values[:4], trained) != {}
    assert group_priors([[one] for one in scores], group, None, 2) == group_priors(
        [[one] for one in trained], group, None, 2
    )
    assert group_priors([[one] for one in asked], group, None, 2) == ()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("row", "gaps", "changes"),
    [("2x1000, half with gap .08, SD .2 points", 0.85, 0.75), ("3x667, half with gap .08, SD .2 points", 0.7, 0.7)],
)
def test_gaps_and_changes_of_three_seeds_are_found(row, gaps, changes):
    """Without what the rows say together: 55 and 25 % of those of two groups."""
    found = drawn("changes", row, 12)
    assert found["gaps found"] >= gaps
    assert found["changes found"] >= changes


@pytest.mark.slow
@pytest.mark.parametrize("spread", ["SD .2 points", "half of SD 2 points", "one of SD 3 points"])
def test_methods_that_seeds_move_unlike_much_are_not_called_different(spread):
    found = drawn("changes", f"2x1000, twelve fair, {spread}", 40)
    assert found["a fair one's gap found"] <= 0.13
    assert found["a change where there is none"] <= 0.13


@pytest.mark.slow
def test_a_method_that_is_worse_is_placed_below_the_others_and_no_other_is():
    found = drawn("seeds", "one 5 points worse, SD .2 points", 4)
    assert found["others falsely separated"] <= 0.25
    assert found["the odd one placed against the others"] >= 0.5
