"""Ranks: Holm by hand, dominance, tiers, trade-offs, and how often they separate what is alike or is worse."""

from itertools import combinations

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from fairbench import FairbenchError
from fairbench.statistics.paired import compare
from fairbench.statistics.ranking import dominance, holm, rank
from fairbench.statistics.results import Difference


def difference(value, p):
    return Difference(value, value - 1, value + 1, p=p)


def test_holm_by_hand():
    assert holm([0.01, 0.04, None, 0.03]) == pytest.approx([0.03, 0.06, None, 0.06])
    assert holm([]) == []


def test_holm_is_that_of_statsmodels():
    p = np.random.default_rng(0).random(40).round(2)
    assert holm(p.tolist()) == list(multipletests(p, method="holm")[1])


def test_a_method_ranks_below_another_only_if_the_comparison_says_so():
    pairs = {
        ("a", "b"): difference(-0.1, 0.001),
        ("a", "c"): difference(-0.1, 0.9),
        ("c", "b"): difference(0.0, 0.5),
    }
    texts = {row.name: row.text for row in rank(["a", "b", "c"], pairs)}
    assert texts == {"a": "1-2", "b": "2-3", "c": "1-3"}
    with pytest.raises(FairbenchError, match="never compared"):
        rank(["a", "d"], pairs)


def everything(score, worst_group, gap):
    """Three differences of A − B; each (value, p)."""
    return {"score": difference(*score), "worst_group": difference(*worst_group), "gap": difference(*gap)}


def test_better_in_one_and_worse_in_none_stands_above():
    same = (0.0, 1.0)
    order = dominance(
        ["fair", "plain", "broken", "other"],
        {
            ("fair", "plain"): everything(same, (0.1, 1e-6), (-0.1, 1e-6)),
            ("fair", "broken"): everything((0.3, 1e-9), (0.2, 1e-9), same),
            ("plain", "broken"): everything((0.3, 1e-9), (0.1, 0.04), (0.2, 1e-6)),  # fair by failing
            ("fair", "other"): everything(same, same, same),
            ("plain", "other"): everything(same, (-0.1, 0.2), (0.1, 0.03)),  # not after adjustment
            ("other", "broken"): everything((0.3, 1e-9), same, same),
        },
    )
    assert order.trade_offs == {("plain", "broken")}
    assert order.better["plain", "broken"] == {"score"}
    assert order.better["broken", "plain"] == {"gap"}
    assert order.above == {("fair", "plain"), ("fair", "broken"), ("other", "broken")}
    assert [(row.name, row.text, row.tier) for row in order.ranks] == [
        ("fair", "1-2", 1),
        ("plain", "2-4", 2),
        ("broken", "3-4", 2),
        ("other", "1-3", 1),
    ]
    assert order.adjusted["plain", "other"]["gap"] > 0.05


def test_primary_comparisons_are_a_family_of_their_own():
    tests = {pair: {"gap": difference(-0.1, 0.02)} for pair in combinations("abcdef", 2)}
    assert not dominance("abcdef", tests, {"gap": False}).above
    order = dominance("abcdef", tests, {"gap": False}, primary=[("b", "a")])
    assert order.above == {("a", "b")}
    assert order.adjusted["a", "b"]["gap"] == 0.02
    circle = {
        ("a", "b"): {"x": difference(1, 0)},
        ("b", "c"): {"x": difference(1, 0)},
        ("c", "a"): {"x": difference(1, 0)},
    }
    assert {row.tier for row in dominance("abc", circle, {"x": True}).ranks} == {1}


def board(rng, rates):
    """Ranking of methods that share most of their luck; rates: method -> accuracies of three groups of 300."""
    group, luck = np.repeat([0, 1, 2], 300), rng.random(900)
    answers = {}
    for name, rate in rates.items():
        own = np.where(rng.random(900) < 0.8, luck, rng.random(900))
        answers[name] = (own < np.array(rate)[group]).astype(float)
    tests = {}
    for a, b in combinations(answers, 2):
        compared = compare([answers[a]], [answers[b]], group, repeats=499)
        tests[a, b] = {"score": compared.accuracy, "worst_group": compared.worst_group, "gap": compared.gap}
    return dominance(list(answers), tests)


@pytest.mark.slow
def test_ten_identical_methods_are_not_separated():
    """Under 5 % of boards by design; of 12 boards, two would be one in eight at 5 %."""
    rng = np.random.default_rng(0)
    separated = sum(bool(board(rng, {f"m{i}": (0.75,) * 3 for i in range(10)}).above) for _ in range(12))
    assert separated <= 1


def test_fifteen_rows_still_see_a_gap_of_fifty_points():
    """Ranks used to die here: p >= 1/2001 times 105 pairs."""
    rng = np.random.default_rng(1)
    rates = {f"m{i}": (0.95, 0.45, 0.95) for i in range(14)} | {"fair": (0.95, 0.95, 0.95)}
    order = board(rng, rates)
    assert {pair for pair in order.above if "fair" in pair} == {("fair", f"m{i}") for i in range(14)}
    assert [row.text for row in order.ranks if row.name == "fair"] == ["1"]
