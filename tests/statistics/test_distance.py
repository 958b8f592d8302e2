"""Two methods by their distance to the optimum, and by their gaps at one class mix."""

import numpy as np
import pytest
from scipy import stats

from fairbench.statistics.paired import compare, compare_gaps
from fairbench.statistics.standardised import by_class, standardised_gap

THIRDS = np.repeat([0, 1, 2], 1000)


def answers(rng, a, b, group=THIRDS):
    luck = rng.random(group.size)
    again = np.where(rng.random(group.size) < 0.7, luck, rng.random(group.size))
    return (luck < np.array(a)[group]).astype(float), (again < np.array(b)[group]).astype(float)


def distance(right, group):
    means = [right[group == one].mean() for one in np.unique(group)]
    return np.hypot(1 - right.mean(), np.ptp(means))


def test_it_is_the_difference_of_two_distances_and_its_mirror_image():
    a, b = answers(np.random.default_rng(0), (0.7, 0.75, 0.8), (0.8, 0.8, 0.6))
    there, back = (compare([x], [y], THIRDS, repeats=500).distance for x, y in ((a, b), (b, a)))
    assert there.value == pytest.approx(distance(a, THIRDS) - distance(b, THIRDS))
    assert (back.value, back.low, back.high, back.p) == (-there.value, -there.high, -there.low, there.p)
    assert there.low < there.value < there.high


def test_methods_at_one_distance_are_told_apart_in_five_percent_whatever_makes_it():
    """A: 70 % for all. B: 80 % on average, and a gap of √(.3² − .2²): both are .3 away."""
    gap = np.sqrt(0.05)
    b = (0.8 + gap / 3, 0.8 + gap / 3, 0.8 - 2 * gap / 3)
    rng, rejected, covered, test_sets = np.random.default_rng(1), 0, 0, 120
    for seed in range(test_sets):
        one = compare([(x := answers(rng, (0.7,) * 3, b))[0]], [x[1]], THIRDS, repeats=299, seed=seed).distance
        rejected += one.p <= 0.05
        covered += one.low <= 0 <= one.high
        assert (one.p <= 0.05) == (one.low > 0 or one.high < 0)
    assert rejected <= stats.binom.ppf(0.999, test_sets, 0.05)
    assert covered == test_sets - rejected


def test_patients_in_two_groups_count_once():
    """Two eyes of a patient, answered alike: eyes as groups say no more than patients do."""
    rng = np.random.default_rng(2)
    a, b = ((rng.random(60) < rate).astype(float) for rate in (0.8, 0.6))
    eye, patient = np.tile([0, 1], 60), np.repeat(np.arange(60), 2)
    one = compare([np.repeat(a, 2)], [np.repeat(b, 2)], eye, patient, repeats=2_000)
    assert one.distance.value == pytest.approx(-one.accuracy.value)  # no gap in either
    assert one.distance.p == pytest.approx(one.accuracy.p, abs=0.03)


def test_the_gap_at_one_class_mix_is_compared_as_it_is_measured():
    rng = np.random.default_rng(3)
    target = (rng.random(3000) < np.array([0.1, 0.3, 0.5])[THIRDS]).astype(int)
    ill = np.where(target, 0.5, 0.95)
    a, b = ((rng.random(3000) < ill - worse * (THIRDS == 2)).astype(float) for worse in (0.0, 0.25))
    (left, weights), (right, _) = (by_class(x, target, THIRDS) for x in (a, b))
    one = compare(left, right, THIRDS, correct=(a, b), repeats=999, weights=weights)
    values = [standardised_gap(x, target, THIRDS, repeats=199).value for x in (a, b)]
    assert one.gap.value == pytest.approx(values[0] - values[1])
    assert one.gap.p < 0.01
    assert one.gap.high < 0
    same = compare(left, left, THIRDS, correct=(a, a), repeats=999, weights=weights).gap
    assert (same.value, same.p) == (0, 1)


def test_no_interval_leaves_what_a_difference_of_gaps_can_be():
    rng = np.random.default_rng(4)
    group, target = np.repeat([0, 1, 2], 5), np.arange(15) % 2
    yes = [(rng.random(15) < 0.5).astype(float) for _ in range(2)]
    a, b = ([np.where(target == one, x, np.nan) for one in (1, 0)] for x in yes)
    one = compare(a, b, group, correct=tuple((x == target).astype(float) for x in yes), repeats=300)
    for difference in (one.gap, one.worst_group, one.best_group, one.accuracy):
        assert -1 <= difference.low <= difference.value <= difference.high <= 1
    assert one.gap.high - one.gap.low > 1.5  # without the bounds it would be wider than they are


@pytest.mark.parametrize("kind", ["score", "odds", "class mix"])
def test_gaps_compared_alone_are_the_gaps_of_the_whole_comparison(kind):
    rng = np.random.default_rng(5)
    target = rng.integers(0, 2, THIRDS.size)
    a, b = (
        np.stack(seeds) for seeds in zip(*(answers(rng, (0.7,) * 3, (0.8, 0.8, 0.6)) for _ in "abc"), strict=True)
    )
    odds = [[np.where(target == one, x, np.nan) for one in (1, 0)] for x in (a, b)]
    left, right = ([a], [b]) if kind == "score" else odds
    about = {
        "group": THIRDS,
        "cluster": np.arange(THIRDS.size) // 2,
        "correct": None if kind == "score" else (a, b),
        "weights": (0.3, 0.7) if kind == "class mix" else None,
        "repeats": 300,
    }
    assert compare_gaps(left, right, **about) == compare(left, right, **about).gap
    swapped = {**about, "correct": about["correct"] and about["correct"][::-1]}
    assert compare_gaps(right, left, **swapped) == compare(right, left, **swapped).gap
