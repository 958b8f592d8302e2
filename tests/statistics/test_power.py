"""What a test set can show: checked against the tests themselves and against closed forms."""

import numpy as np
import pytest

from fairbench import FairbenchError
from fairbench.statistics.paired import compare
from fairbench.statistics.permutation import judge
from fairbench.statistics.power import detectable_accuracy, detectable_gap, detectable_improvement


def test_the_detectable_gap_is_detected_four_times_in_five():
    rng = np.random.default_rng(0)
    n = np.array([300, 300, 300])
    size = detectable_gap(n, 0.75).value
    group, found = np.repeat([0, 1, 2], n), 0
    for world in range(400):
        correct = (rng.random(900) < np.where(group == 1, 0.75 - size, 0.75)).astype(float)
        found += judge([correct], group, repeats=199, seed=world).p <= 0.05
    assert found / 400 == pytest.approx(0.8, abs=0.07)


def test_two_equal_groups_match_the_textbook():
    """Two proportions near one half, 1,000 each: (1.96 + 0.84) sqrt(2 p q / n)."""
    expected = 2.8016 * np.sqrt(2 * 0.25 / 1000)
    assert detectable_gap([1000, 1000], 0.5).value == pytest.approx(expected, rel=0.05)


def test_more_patients_detect_less():
    for function in (
        lambda n: detectable_gap([n, n, n // 4], 0.75).value,
        lambda n: detectable_improvement([n, n, n // 4], 0.75, 0.85, 0.3).value,
        lambda n: detectable_accuracy(n, 0.85),
    ):
        sizes = [function(n) for n in (400, 800, 1600, 6400)]
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[0] > 2 * sizes[-1]


def test_more_agreement_between_methods_detects_less():
    sizes = [detectable_improvement([300] * 3, 0.75, agreement, 0.3).value for agreement in (0.7, 0.85, 0.95)]
    assert sizes == sorted(sizes, reverse=True)


def test_accuracy_matches_the_paired_test():
    rng = np.random.default_rng(1)
    size, n = detectable_accuracy(900, 0.8), 900
    group, found = np.repeat([0, 1, 2], 300), 0
    for world in range(300):
        u = rng.random(n)  # A right and B wrong, B right and A wrong, or alike
        a, b = (u < 0.1 + size / 2), (u > 1 - (0.1 - size / 2))
        same = ~(a | b)
        both = rng.random(n) < 0.7
        a, b = np.where(same, both, a), np.where(same, both, b)
        result = compare([a.astype(float)], [b.astype(float)], group, repeats=199, seed=world)
        found += result.accuracy.p <= 0.05
    assert found / 300 == pytest.approx(0.8, abs=0.07)


def test_what_cannot_be_detected_is_none_with_a_reason():
    tiny = detectable_gap([1000, 3], 0.5)
    assert tiny.value is None
    assert "small" in tiny.reason
    assert detectable_gap([100], 0.5).value is None
    assert detectable_gap([100, 100], 1.0).reason == "the rows do not vary"
    assert "whole gap" in detectable_improvement([1816, 76, 108], 0.535, 0.85, 0.038).reason
    with pytest.raises(FairbenchError):
        detectable_gap([10, -1], 0.5)
