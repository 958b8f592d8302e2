"""Whether answers beat chance, and equity-scaled scores: against other computations and simulated truth."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from fairbench import FairbenchError
from fairbench.metrics.disparity import EQUITY
from fairbench.statistics.equity import judge_equity_scaled
from fairbench.statistics.learned import (
    auroc_difference,
    auroc_over_chance,
    balanced_difference,
    balanced_over_chance,
    p_at,
)
from fairbench.statistics.paired import compare
from fairbench.statistics.permutation import judge


def test_a_screening_model_has_learned_where_its_accuracy_is_below_a_constants():
    rng = np.random.default_rng(0)
    target = (rng.random(3000) < 0.02).astype(int)
    score = rng.normal(size=3000) + 2.3 * target
    answer = (score > 1.3).astype(int)
    correct = (answer == target).astype(float)
    assert correct.mean() < 1 - target.mean()  # worse than calling nobody ill
    by_score, by_answer = auroc_over_chance(target, score), balanced_over_chance(correct, target)
    assert by_score.value == pytest.approx(roc_auc_score(target, score) - 0.5)
    assert by_answer.value == pytest.approx(balanced_accuracy_score(target, answer) - 0.5)
    assert max(by_score.p, by_answer.p) < 1e-4
    constant = balanced_over_chance((target == 0).astype(float), target)
    assert constant.value == 0
    assert constant.p > 0.3


@pytest.mark.slow
def test_scores_and_answers_at_chance_are_called_better_in_five_percent():
    rng, worlds = np.random.default_rng(1), 300
    rejected = np.zeros(2)
    for _ in range(worlds):
        target, score = (rng.random(200) < 0.1).astype(int), rng.normal(size=200)
        correct = ((score > 0.5) == target).astype(float)
        for place, outcome in enumerate((auroc_over_chance(target, score), balanced_over_chance(correct, target))):
            rejected[place] += outcome.p <= 0.05
            assert (outcome.p <= 0.05) == (outcome.low > 0 or outcome.high < 0)
    assert (rejected <= stats.binom.ppf(0.999, worlds, 0.06)).all()


def test_the_difference_of_two_aurocs_is_delongs():
    """Two bootstraps of the same rows, and a permutation of which method a row's score is from."""
    rng = np.random.default_rng(2)
    target = np.repeat([0, 1], (150, 50))
    a, b = rng.normal(size=(2, 200)) + np.array([[1.2], [0.7]]) * target
    difference = auroc_difference(target, a, b)
    assert difference.value == pytest.approx(roc_auc_score(target, a) - roc_auc_score(target, b))
    draws = []
    for _ in range(500):
        rows = np.r_[rng.integers(0, 150, 150), 150 + rng.integers(0, 50, 50)]
        draws.append(roc_auc_score(target[rows], a[rows]) - roc_auc_score(target[rows], b[rows]))
    assert (difference.high - difference.low) / 2 == pytest.approx(2.01 * np.std(draws), rel=0.12)
    assert auroc_difference(target, b, a).p == pytest.approx(difference.p)
    several = auroc_difference(target, np.tile(a, (3, 1)), b)
    assert several.value == pytest.approx(difference.value)
    assert auroc_difference(target, a, a).p == 1
    with pytest.raises(FairbenchError, match="seeds"):
        auroc_difference(target, np.tile(a, (3, 1)), np.tile(b, (2, 1)))


def test_balanced_accuracies_are_compared_by_weighing_rows():
    rng = np.random.default_rng(3)
    target = (rng.random(400) < 0.2).astype(int)
    yes_a, yes_b = (rng.random((2, 400)) < 0.3 + 0.4 * target).astype(int)
    difference = balanced_difference(yes_a == target, yes_b == target, target)
    by_hand = balanced_accuracy_score(target, yes_a) - balanced_accuracy_score(target, yes_b)
    assert difference.value == pytest.approx(by_hand)
    assert (difference.p <= 0.05) == (difference.low > 0 or difference.high < 0)


def test_p_is_where_the_interval_touches():
    limits = lambda alpha: (1.5 - stats.norm.ppf(1 - alpha / 2), 1.5 + stats.norm.ppf(1 - alpha / 2))  # noqa: E731
    assert p_at(limits, 0.0) == pytest.approx(2 * stats.norm.sf(1.5))


def fairllava(groups, overall):
    return overall[0] / (1 + 100 * (np.nanmax(groups[0], axis=-1) - np.nanmin(groups[0], axis=-1)))


def test_an_equity_scaled_score_stands_beside_its_chance_value_and_is_covered():
    """1536/296/168, all .80: between 9 and 41 by chance, and yet the truth is .80, inside the interval."""
    rng, sizes, worlds = np.random.default_rng(4), (1536, 296, 168), 60
    group, covered, values = np.repeat([0, 1, 2], sizes), 0, []
    for world in range(worlds):
        right = (rng.random(2000) < 0.8).astype(float)
        judged = judge_equity_scaled(right, group, fairllava, repeats=199, seed=world)
        covered += judged.low <= 0.8 <= judged.high + 0.03
        values.append(judged.value)
        assert (judged.p <= 0.05) == (judge([right], group, repeats=199, seed=world).p <= 0.05)
        assert judged.low <= judged.value <= judged.high
    assert covered / worlds >= 0.9
    assert judged.floor_mean == pytest.approx(np.mean(values), rel=0.2)
    assert judged.floor_95 < np.median(values)
    assert judge_equity_scaled(right, np.zeros(2000, int), fairllava).value is None


def test_an_equity_scaled_score_of_several_seeds_is_the_mean_of_every_seeds_own():
    """And so the difference of two methods is the difference of their values."""
    rng, group = np.random.default_rng(5), np.repeat([0, 1, 2], 200)
    a, b = (
        (rng.random((3, 600)) < rates).astype(float) for rates in ([[0.6], [0.75], [0.9]], [[0.8], [0.8], [0.7]])
    )

    def own(right):
        gaps = [np.ptp([row[group == place].mean() for place in range(3)]) for row in right]
        return np.mean([row.mean() / (1 + 100 * gap) for row, gap in zip(right, gaps, strict=True)])

    values = [judge_equity_scaled(right, group, fairllava, repeats=99).value for right in (a, b)]
    assert values == pytest.approx([own(a), own(b)])
    difference = compare([a], [b], group, repeats=99, equity=fairllava).equity_scaled
    assert difference.value == pytest.approx(own(a) - own(b))


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["fairllava", "fairllava-table", "fairclip"])
def test_a_large_group_that_lies_apart_leaves_es_m_covered(preset):
    """The preset that takes the mean of groups' values for M lies outside of the score's limits: 63 % before."""
    rates, sizes, combine = np.array([0.7, 0.9, 0.9]), np.array([3000, 300, 300]), EQUITY[preset].combine
    truth = float(combine([rates], [np.asarray(rates @ sizes / sizes.sum())]))
    group, covered = np.repeat([0, 1, 2], sizes), 0
    for world in range(60):
        right = (np.random.default_rng(world).random(group.size) < rates[group]).astype(float)
        judged = judge_equity_scaled(right, group, combine, repeats=199, seed=world)
        covered += judged.low <= truth <= judged.high
    assert covered / 60 >= 0.9
