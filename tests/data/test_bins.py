"""Bins of numbers: edges to the number, ages as hospitals write them."""

import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairbench import Bins, FairbenchError

AGES = Bins.read("0-39", "40-59", "60+")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("060Y", "60+"), ("018M", "0-39"), ("90+", "60+"), (">89", "60+"), ("40-50", "40-59"), ("30-50", None),
        ("411Y", None), ("411", None), ("120", "60+"), ("-3", None), ("59,9", "40-59"), ("003D", "0-39"),
        ("012w", "0-39"), ("<40", "0-39"), ("<=40", None), ("59+", None), (">59", "60+"), (">=60", "60+"),
        ("3 weeks", "0-39"), ("61.5 years old", "60+"), ("480 mos", "40-59"), ("9 x", None), ("12 moons", None),
        ("sixty", None), ("", None), ("1e3", None), ("nan", None), (">300", None),
    ],
)  # fmt: skip
def test_ages_as_written(text, expected):
    assert AGES.of(text, years=True) == expected


def test_what_is_no_age_has_no_oldest_and_no_units():
    weights = Bins.read("<25", "25-29.9", ">=30")
    assert [weights.of(text) for text in ("411", "24.99", "29.95", "29,9", "060Y")] == [
        ">=30", "<25", None, "25-29.9", None
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("column", "spelt"),
    [
        (("300", "1,201"), ("300", None)),
        (("-1,201", "<1,000"), (None, None)),
        (("44,5", "1,201", "1.201", "<1,000"), ("44.5", "1.201", "1201", "<1.000")),
        (("44.5", "1,201", "1,234,567", "1,000+"), ("44.5", "1201", "1234567", "1000+")),
        (("1.234,5", "1,201"), ("1234.5", "1.201")),
        (("0,201", "1,201"), ("0.201", "1.201")),
        (("44,5", "44.5", "1,201", "1.201"), ("44,5", "44.5", None, None)),
        (("1.201", "18.512", "3"), ("1.201", "18.512", "3")),
        (("12.03.1970", "room 1,201", "44,5"), ("12.03.1970", "room 1,201", "44.5")),
    ],
)
def test_a_comma_before_three_digits_means_what_its_column_says(column, spelt):
    assert Bins.spelt(column) == dict(zip(column, spelt, strict=True))


def test_alone_such_a_comma_makes_no_number_but_years():
    bins = Bins.read("0-39", "40+")
    assert [bins.of(text) for text in ("1,201", "100,000", "-1,201", "1,2", "0,201", "1.201")] == [
        None, None, None, "0-39", "0-39", "0-39"
    ]  # fmt: skip
    assert [bins.of(text, years=True) for text in ("44,512", "44,512 years", "1,500 days")] == ["40+", "40+", None]


@given(st.floats(0, 200), st.sampled_from([("<45", "45-65", ">=66"), ("<=44", ">44"), ("0-9", "10-199", "200+")]))
def test_completed_years_lie_in_one_bin(value, written):
    years, bin_name = math.floor(value), Bins.read(*written).name(value)
    edges = {"<45": (0, 44), "45-65": (45, 65), ">=66": (66, 200), "<=44": (0, 44), ">44": (45, 200),
             "0-9": (0, 9), "10-199": (10, 199), "200+": (200, 200)}  # fmt: skip
    assert [name for name in written if edges[name][0] <= years <= edges[name][1]] == [bin_name]


def test_a_column_is_cut_and_what_is_missing_stays_missing():
    bins = AGES.cut(pd.Series([39.9, 40, None, -1, 61]))
    assert [None if pd.isna(item) else item for item in bins] == ["0-39", "40-59", None, None, "60+"]


@pytest.mark.parametrize(
    ("written", "message"),
    [(("0-45", "45+"), "0-45 and 45. overlap"), (("50-40",), "ends before it begins"), (("young",), "is no bin"),
     (("0-9", "0-9"), "overlap")],
)  # fmt: skip
def test_bins_that_cannot_be(written, message):
    with pytest.raises(FairbenchError, match=message):
        Bins.read(*written)
