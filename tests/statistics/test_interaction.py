"""Whether a method moved the groups unequally: size, power, coverage, and an independent permutation test."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from simulated import simulation

from fairbench import FairbenchError
from fairbench.statistics.interaction import interaction
from fairbench.statistics.seeds import from_groups
from fairbench.statistics.tail import critical_value, p_value


def paired(rng, sizes, right_a, right_b, agreement):
    """Correctness of two methods that disagree on 1 - agreement of the rows, or as few as their rates allow."""
    group = np.repeat(np.arange(len(sizes)), sizes)
    a, b = np.array(right_a)[group], np.array(right_b)[group]
    apart = np.maximum(1 - agreement, np.abs(a - b) + 0.02)
    better, luck = (apart + a - b) / 2, rng.random(group.size)
    only_a, only_b = luck < better, (luck >= better) & (luck < apart)
    both = rng.random(group.size) < (a - better) / (1 - apart)
    return group, (only_a | both & ~only_b).astype(float), (only_b | both & ~only_a).astype(float)


def simulate(worlds, sizes, right_a, right_b, agreement):
    """Shares of worlds that are rejected, and whose true contrasts are all covered."""
    rng = np.random.default_rng(0)
    moved = np.array(right_a) - np.array(right_b)
    rejected, covered = 0, 0
    for world in range(worlds):
        group, a, b = paired(rng, sizes, right_a, right_b, agreement)
        result = interaction([a], [b], group, repeats=199, seed=world)
        rejected += result.p <= 0.05
        covered += all(c.low <= moved[int(c.group)] - moved[int(c.against)] <= c.high for c in result.contrasts)
        assert (result.p <= 0.05) == any(c.apart for c in result.contrasts)
    return rejected / worlds, covered / worlds


@pytest.mark.parametrize("sizes", [(300, 300, 300), (1537, 305, 158), (5, 8, 10)])
def test_methods_that_move_all_groups_alike_are_told_apart_in_five_percent(sizes):
    worlds = 250
    rejected, covered = simulate(worlds, sizes, [0.8] * 3, [0.75] * 3, 0.85)
    assert stats.binom.ppf(0.001, worlds, 0.04) <= rejected * worlds <= stats.binom.ppf(0.999, worlds, 0.055)
    assert covered == pytest.approx(1 - rejected, abs=0.02)


@pytest.mark.parametrize(("sizes", "share"), [((1500, 30), (0.01, 0.15)), ((1800, 100), (0.0, 0.05))])
def test_a_small_group_whose_answers_change_much_is_not_found_moved_for_that(sizes, share):
    """As thresholds by group do: labels dealt over the whole are too narrow, and err in 17 and 22 %."""
    worlds = 120
    rejected, _, _, covered = simulation.share(simulation.flipped(sizes, share), worlds).mean(axis=0)
    assert rejected * worlds <= stats.binom.ppf(0.999, worlds, 0.055)
    assert covered == pytest.approx(1 - rejected)


def test_power_where_a_gap_is_removed():
    """Issue 10's table: 3 x 300, a gap of 8 points removed, agreement .87: 75 %; the gaps' own test finds 24 %."""
    rejected, covered = simulate(150, (300, 300, 300), [0.75] * 3, [0.75, 0.75, 0.67], 0.87)
    assert rejected == pytest.approx(0.75, abs=0.12)
    assert covered >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / 150)


def test_p_is_the_exact_permutation_probability():
    """Eight patients in groups of 3, 3 and 2: all 560 labellings by hand, with the ridge of one average unit."""
    a, b = np.array([1, 1, 1, 0, 0, 1, 0, 0.0]), np.array([0, 0, 1, 0, 1, 1, 1, 0.0])
    group, d = np.array([0, 0, 0, 1, 1, 1, 2, 2]), a - b

    def largest(labels):
        parts = [d[labels == g] for g in range(3)]
        scatter = [((x - x.mean()) ** 2).sum() for x in parts]
        ridge = sum(scatter) / 8
        variance = [(s + ridge) / x.size / (x.size - 1) for s, x in zip(scatter, parts, strict=True)]
        return max(
            abs(parts[i].mean() - parts[j].mean()) / np.sqrt(variance[i] + variance[j])
            for i, j in itertools.combinations(range(3), 2)
        )

    labellings = set(itertools.permutations(group.tolist()))
    exact = np.mean([largest(np.array(labels)) >= largest(group) - 1e-9 for labels in labellings])
    assert len(labellings) == 560
    result = interaction([a], [b], group, repeats=20_000)
    assert result.p == pytest.approx(exact, abs=0.015)
    assert {(c.group, c.against, round(c.value, 6)) for c in result.contrasts} == {
        ("0", "1", 1.0),
        ("0", "2", round(7 / 6, 6)),
        ("2", "1", round(-1 / 6, 6)),
    }


def test_the_case_of_a_removed_gap(shared):
    frames = [pd.read_csv(shared / f"cases/evidence/gap_removed_{x}.csv") for x in "AB"]
    correct = [(frame.target == frame.answer).to_numpy(float) for frame in frames]
    codes, names = pd.factorize(frames[0].race)
    result = interaction([correct[0]], [correct[1]], codes.astype(np.int64), names=tuple(names))
    assert result.p < 0.001
    assert {(c.group, c.against) for c in result.contrasts if c.apart} == {("c", "a"), ("c", "b")}
    assert [round(abs(c.value), 6) for c in result.contrasts] == [0.12, 0.12, 0]


def test_the_version_of_equalised_odds_finds_the_class_that_moved():
    rng = np.random.default_rng(1)
    group, target = np.repeat([0, 1, 2], 400), rng.random(1200) < 0.3
    yes_b = np.where(target, rng.random(1200) < 0.8, rng.random(1200) < 0.2)
    flips = ~target & (group == 2) & (rng.random(1200) < 0.2)
    yes_a = np.where(flips, True, yes_b)
    rates = [[np.where(target, yes, np.nan), np.where(target, np.nan, yes)] for yes in (yes_a, yes_b)]
    result = interaction(*rates, group, names="xyz")
    top = result.contrasts[0]
    assert result.p < 0.001
    assert (top.group, top.rate) == ("z", "1")
    assert not any(c.apart for c in result.contrasts if c.rate == "0")
    weighted = interaction(*rates, group, weights=[0.3, -0.7])
    assert abs(weighted.contrasts[0].value) == pytest.approx(0.7 * abs(top.value), rel=1e-9)


@pytest.mark.slow
def test_clusters_are_kept_whole_and_may_span_groups():
    """Copies of patients say nothing new; taken as independent rows they would reject far too often."""
    rng = np.random.default_rng(2)
    worlds, alone, spanning = 150, 0, 0
    for world in range(worlds):
        group, a, b = paired(rng, (40, 40, 40), [0.7] * 3, [0.7] * 3, 0.7)
        copies, patient = np.repeat(np.arange(120), 4), np.repeat(np.arange(120), 4)
        alone += interaction([a[copies]], [b[copies]], group[copies], patient, repeats=199, seed=world).p <= 0.05
        eye = np.tile([0, 1], 120)
        rows = np.repeat(np.arange(120), 2)
        spanning += interaction([a[rows]], [b[rows]], eye, rows, repeats=199, seed=world).p <= 0.05
    assert alone / worlds <= stats.binom.ppf(0.999, worlds, 0.055) / worlds
    assert spanning == 0  # both eyes always agree, so that eyes never differ


@pytest.mark.slow
def test_seeds_that_matter_are_a_sample():
    rng = np.random.default_rng(3)
    worlds, rejected, ignored = 120, 0, 0
    group = np.repeat([0, 1, 2], 300)
    for world in range(worlds):
        luck = rng.random(900)
        moved = rng.normal(0, 0.05, (3, 3))  # (seeds, groups): each training moves groups by chance
        a = np.array([luck < 0.75 + row[group] for row in moved], float)
        b = (luck < 0.75).astype(float)
        rejected += interaction([a], [b], group, repeats=199, seed=world).p <= 0.05
        ignored += interaction([a[0]], [b], group, repeats=199, seed=world).p <= 0.05
    assert rejected / worlds <= stats.binom.ppf(0.999, worlds, 0.06) / worlds
    assert ignored / worlds > 0.3  # of one trained model it is true: this model moved the groups unequally


def test_degenerate_input_is_undefined_or_no_difference():
    group = np.array([0, 0, 1, 1, -1])
    a = np.array([1.0, 1, 1, 1, 0])
    same = interaction([a], [a], group)
    assert same.p == 1
    assert same.contrasts[0].low < 0 < same.contrasts[0].high  # four patients are not certainty
    assert interaction([a], [a], np.zeros(5, int)).p is None
    assert "fewer than two" in interaction([a], [a], np.zeros(5, int)).reason
    nan = np.array([1.0, np.nan, 1, np.nan, 1])
    assert interaction([nan], [nan], group).p == 1
    with pytest.raises(FairbenchError, match="same rows"):
        interaction([nan], [a], group)


def test_a_few_draws_tell_how_far_out_in_the_tail_a_value_is():
    rng = np.random.default_rng(4)
    draws = np.abs(rng.standard_normal((3, 10_000))).max(axis=0)
    for value in (4.0, 5.0):
        exact = 1 - (1 - 2 * stats.norm.sf(value)) ** 3
        assert exact <= p_value(draws, value) <= 30 * exact
    heavy = np.abs(rng.standard_t(4, 10_000))
    assert p_value(heavy, 20.0, freedom=4) == pytest.approx(2 * stats.t.sf(20, 4), rel=0.6)
    for size in (199, 999, 2_000):
        some = draws[:size]
        cut = critical_value(some)
        assert p_value(some, cut + 1e-6) <= 0.05 < p_value(some, cut - 1e-6)


def test_the_variance_of_seeds_is_recovered():
    """Paule and Mandel's estimate is the analysis of variance where sampling noise is equal in all groups."""
    rng = np.random.default_rng(5)
    collected = []
    for _ in range(300):
        values = 0.7 + rng.normal(0, 0.03, (3, 4)) + rng.normal(0, 0.01, (3, 4))
        part = from_groups(values, np.full(4, 0.01**2), contrasts=True)
        residual = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()
        by_hand = max(0.0, (residual**2).sum() / 6 - 0.01**2) / 3
        assert part.between == pytest.approx(by_hand, abs=1e-9)
        assert part.freedom == 6
        collected.append(part.between)
    assert np.mean(collected) == pytest.approx(0.03**2 / 3, rel=0.1)
