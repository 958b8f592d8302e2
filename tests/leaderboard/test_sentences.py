"""Sentences say what the numbers say, and no more."""

from types import SimpleNamespace

from fairbench.leaderboard.board import Flag
from fairbench.leaderboard.flags import NOT_LEARNED, learned
from fairbench.leaderboard.sentences import beyond_chance, finding, named
from fairbench.statistics.results import Gap


def gap(adjusted, detectable=0.179):
    return Gap(0.1, p=adjusted, adjusted=adjusted, detectable=detectable)


def test_gaps_within_chance_are_said_to_be_so_with_what_could_have_been_found():
    text = beyond_chance({"MaxAccGap": {"vanilla": gap(0.8), "fr": gap(0.3)}}, "ethnicity", 2000)
    assert text == (
        "No method's gap between groups of ethnicity exceeds what chance gives on 2,000 patients (MaxAccGap);"
        " a true MaxAccGap below 17.9 points may go unnoticed where the least favourable group departs, and a"
        " larger one too among 2 tests."
    )


def test_each_disparity_names_those_whose_gap_is_more_than_chance():
    gaps = {
        "MaxAccGap": {"vanilla": gap(0.01), "fr": gap(0.3)},
        "EqOdds(max)": {"vanilla": gap(0.2), "fr": gap(0.04)},
    }
    text = beyond_chance(gaps, "race", 300, clusters=200)
    assert text.startswith(
        "Between groups of race, MaxAccGap of vanilla and EqOdds(max) of fr exceed what chance gives"
        " on 300 test rows in 200 clusters"
    )


def test_a_p_value_that_was_not_adjusted_supports_no_sentence():
    unadjusted = Gap(0.1, p=0.001, detectable=0.1)
    assert beyond_chance({"MaxAccGap": {"m": unadjusted}}, "race", 10).startswith("No method's gap")


def test_an_undefined_gap_is_said_with_its_reason_and_a_small_group_too():
    nothing = {"MaxAccGap": {"x": Gap(reason="fewer than two groups have rows")}}
    assert (
        beyond_chance(nothing, "race", 5)
        == "No race gap is defined on 5 patients: fewer than two groups have rows."
    )
    small = {"MaxAccGap": {"x": gap(0.5, detectable=None)}}
    assert "some group is too small for any MaxAccGap it holds to be found" in beyond_chance(small, "race", 50)


def test_a_table_in_which_nobody_has_learned_says_nothing_about_fairness():
    idle, able = (
        SimpleNamespace(label=label, flags=flags) for label, flags in (("m", (Flag(NOT_LEARNED),)), ("n", ()))
    )
    assert finding(SimpleNamespace(rows=(idle, idle), attribute="race", baseline="m")) == [
        "No method here is shown to tell patients apart: this table says nothing about fairness."
    ]
    assert learned(able)
    assert not learned(idle)


def test_long_lists_are_counted():
    names = [f"m{i}" for i in range(9)]
    assert named(names, of=12) == "9 rows"
    assert named(names, of=9) == "all 9 rows"
    assert named(names[:2], of=9) == "m0 and m1"
