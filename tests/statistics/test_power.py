"""What a test set can show: checked by brute force against the very tests that are printed, and closed forms."""

import numpy as np
import pytest

from fairbench import FairbenchError
from fairbench.statistics.interaction import interaction
from fairbench.statistics.paired import compare
from fairbench.statistics.permutation import judge
from fairbench.statistics.power import (
    detectable_accuracy,
    detectable_gap,
    detectable_improvement,
    detectable_interaction,
)

THIRDS, PAPER = (300, 300, 300), (1537, 305, 158)
WORLDS = 250
NEAR = pytest.approx(0.8, abs=0.08)  # three standard errors of 250 worlds at 80 %


def pair(rng, sizes, right_a, right_b, agreement):
    """Correctness of two methods that disagree on 1 - agreement of each group's rows."""
    group = np.repeat(np.arange(len(sizes)), sizes)
    a, b = np.array(right_a)[group], np.array(right_b)[group]
    apart, luck = np.maximum(1 - agreement, np.abs(a - b)), rng.random(group.size)
    better = (apart + a - b) / 2
    both = rng.random(group.size) < (a - better) / (1 - apart)
    first, second = luck < better, (luck >= better) & (luck < apart)
    return group, (first | both & ~second).astype(float), (second | both & ~first).astype(float)


@pytest.mark.slow
@pytest.mark.parametrize(("sizes", "held_by"), [(THIRDS, 1), (PAPER, 2)])
def test_the_detectable_gap_is_detected_four_times_in_five(sizes, held_by):
    rng, detected = np.random.default_rng(0), 0
    size = detectable_gap(sizes, 0.75).value
    group = np.repeat([0, 1, 2], sizes)
    for world in range(WORLDS):
        correct = (rng.random(group.size) < np.where(group == held_by, 0.75 - size, 0.75)).astype(float)
        detected += judge([correct], group, repeats=199, seed=world).p <= 0.05
    assert detected / WORLDS == NEAR


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0, 1])
def test_a_detectable_gap_of_two_rates_is_found_in_either(rate):
    """Of EqOdds: the rate of fewer rows alone used to be asked, and a gap of the other was found in 17 %.

    Nine errors a group are not normal, which makes the largest difference of both rates larger than expected.
    """
    rng, detected, group = np.random.default_rng(3), 0, np.repeat([0, 1, 2], 600)
    positive, base = np.arange(1800) % 100 < 49, np.array([[0.97] * 3, [0.4] * 3])

    def drawn(rates):
        yes = (rng.random(1800) < np.where(positive, rates[0][group], rates[1][group])).astype(float)
        return [np.where(positive, yes, np.nan), np.where(positive, np.nan, yes)]

    size = judge(drawn(base), group, repeats=199).detectable
    moved = base.copy()
    moved[rate, 2] += -size if rate == 0 else size
    for world in range(WORLDS):
        detected += judge(drawn(moved), group, repeats=199, seed=world).p <= 0.05
    assert detected / WORLDS >= 0.62


@pytest.mark.slow
def test_with_several_seeds_the_detectable_gap_is_that_of_their_mean():
    """Seeds that share most of their luck; a mean of seeds used to be taken for rows that hardly vary: 54 %."""
    rng, detected, group = np.random.default_rng(4), 0, np.repeat([0, 1, 2], THIRDS)

    def drawn(gap):
        rate, luck = np.array([0.75, 0.75, 0.75 - gap])[group], rng.random(900)
        return np.array([np.where(rng.random(900) < 0.6, luck, rng.random(900)) < rate for _ in range(3)], float)

    size = float(np.mean([judge([drawn(0.0)], group, repeats=199).detectable for _ in range(10)]))
    for world in range(WORLDS):
        detected += judge([drawn(size)], group, repeats=199, seed=world).p <= 0.05
    assert detected / WORLDS == NEAR


@pytest.mark.parametrize(("sizes", "agreement"), [(THIRDS, 0.87), (PAPER, 0.9)])
def test_the_detectable_interaction_is_detected_four_times_in_five(sizes, agreement):
    rng, detected = np.random.default_rng(1), 0
    size = detectable_interaction(sizes, agreement).value
    for world in range(WORLDS):
        group, a, b = pair(rng, sizes, [0.75] * 3, [0.75, 0.75, 0.75 - size], agreement)
        detected += interaction([a], [b], group, repeats=199, seed=world).p <= 0.05
    assert detected / WORLDS == NEAR


@pytest.mark.slow
@pytest.mark.parametrize(("sizes", "agreement", "gap"), [((1000,) * 3, 0.85, 0.2), (THIRDS, 0.8, 0.3)])
def test_the_detectable_improvement_is_detected_four_times_in_five(sizes, agreement, gap):
    """By the printed p of the difference of two gaps: another test's power used to be printed, 52 to 69 % of 80."""
    rng, detected = np.random.default_rng(2), 0
    cut = detectable_improvement(sizes, 0.75, agreement, gap).value
    for world in range(WORLDS):
        group, a, b = pair(rng, sizes, [0.8, 0.8, 0.8 - gap + cut], [0.8, 0.8, 0.8 - gap], agreement)
        result = compare([a], [b], group, repeats=299, seed=world).gap
        detected += result.p <= 0.05 and result.value < 0
    assert detected / WORLDS == NEAR


def test_two_equal_groups_match_the_textbook():
    """Two proportions near one half, 1,000 each: (1.96 + 0.84) sqrt(2 p q / n)."""
    expected = 2.8016 * np.sqrt(2 * 0.25 / 1000)
    assert detectable_gap([1000, 1000], 0.5).value == pytest.approx(expected, rel=0.05)
    assert detectable_interaction([1000, 1000], 0.9).value == pytest.approx(
        2.8016 * np.sqrt(2 * 0.1 / 1000), rel=0.05
    )


def test_more_patients_detect_less():
    for function in (
        lambda n: detectable_gap([n, n, n // 4], 0.75).value,
        lambda n: detectable_improvement([n, n, n // 4], 0.75, 0.85, 0.5).value,
        lambda n: detectable_interaction([n, n, n // 4], 0.85).value,
        lambda n: detectable_accuracy(n, 0.85),
    ):
        sizes = [function(n) for n in (400, 800, 1600, 6400)]
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[0] > 2 * sizes[-1]


def test_more_agreement_between_methods_detects_less():
    sizes = [detectable_improvement([1000] * 3, 0.75, agreement, 0.3).value for agreement in (0.7, 0.85, 0.95)]
    assert sizes == sorted(sizes, reverse=True)


def test_accuracy_matches_the_paired_test():
    rng = np.random.default_rng(1)
    size, detected = detectable_accuracy(900, 0.8), 0
    for world in range(WORLDS):
        group, a, b = pair(rng, THIRDS, [0.75 + size] * 3, [0.75] * 3, 0.8)
        detected += compare([a], [b], group, repeats=199, seed=world).accuracy.p <= 0.05
    assert detected / WORLDS == NEAR


def test_what_cannot_be_detected_is_none_with_a_reason():
    tiny = detectable_gap([1000, 3], 0.5)
    assert tiny.value is None
    assert "small" in tiny.reason
    assert detectable_gap([100], 0.5).value is None
    assert detectable_gap([100, 100], 1.0).reason == "the rows do not vary"
    assert "whole gap" in detectable_improvement([1816, 76, 108], 0.535, 0.85, 0.038).reason
    assert detectable_interaction([100, 100], 1.0).value is None
    with pytest.raises(FairbenchError):
        detectable_gap([10, -1], 0.5)
