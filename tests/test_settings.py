"""Settings: what a TOML file, Python or the command line may say, and what is refused, with which words."""

import json
import math
from typing import Annotated, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fairbench
from fairbench import FairbenchError
from fairbench.jobs.job import Stage
from fairbench.settings import (
    Configurable,
    Count,
    Fraction,
    NonNegative,
    Positive,
    Range,
    checked,
    convert,
    describe,
    suggest,
)


class Base(Configurable):
    name = "base"
    fact: ClassVar[int] = 3
    _private: int = 0
    rate: Positive = 1.0


class Example(Base):
    name = "example"
    count: Count = 2
    share: Fraction = 0.5
    mode: Literal["mean", "max"] = "mean"
    level: Literal[1, 2] = 1
    fast: bool = False
    limit: Count | None = None
    names: tuple[str, ...] = ("q", "k")
    sizes: tuple[Count, ...] = (8,)
    needed: str


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("0.1", float, 0.1),
        (3, float, 3.0),
        ("3", int, 3),
        (3.0, int, 3),
        (2**53 + 1, int, 2**53 + 1),
        ("TRUE", bool, True),
        ("no", bool, False),
        (False, bool, False),
        ("3", str, "3"),
        ("max", Literal["mean", "max"], "max"),
        ("2", Literal[1, 2], 2),
        ("none", Count | None, None),
        (None, Count | None, None),
        ("4", Count | None, 4),
        ("4", int | str, 4),
        ("four", int | str, "four"),
        ("a, b", tuple[str, ...], ("a", "b")),
        (["a", "b"], tuple[str, ...], ("a", "b")),
        ("1,2", tuple[Count, ...], (1, 2)),
        (0, NonNegative, 0.0),
    ],
)
def test_what_fits_is_converted(value, kind, expected):
    result = convert(value, kind, "here")
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("value", "kind", "reason"),
    [
        (-1, NonNegative, "fr.strength = -1 must be at least 0"),
        (0, Positive, "must be above 0"),
        ("1.5", Fraction, "must be at most 1"),
        ("nan", NonNegative, "not a finite number"),
        ("inf", float, "not a finite number"),
        (math.inf, int, "not a whole number"),
        ("3.5", int, "not a whole number"),
        (3.5, int, "not a whole number"),
        (True, int, "not a whole number"),
        (True, float, "not a finite number"),
        (1, bool, "not true or false"),
        ("maybe", bool, "not true or false"),
        (3, str, "not text"),
        ("mode", Literal["mean", "max"], "not a choice"),
        (True, Literal[1, 2], "not a choice"),
        (0, Count | None, "must be at least 1"),
        ("1,x", tuple[Count, ...], "'x' is not a whole number"),
        (3, tuple[str, ...], "not a list"),
        ({}, float, "not a finite number"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(value, kind, reason):
    with pytest.raises(FairbenchError) as caught:
        convert(value, kind, "fr.strength")
    assert caught.value.message.startswith("fr.strength = ")
    assert reason in caught.value.message


def test_a_subclass_has_its_bases_settings_and_facts_are_none():
    assert list(Example.fields()) == [
        *("rate", "count", "share", "mode", "level", "fast", "limit", "names", "sizes", "needed"),
    ]


def test_settings_given_as_the_command_line_does_equal_settings_given_as_toml_does():
    words = Example(rate="2", fast="yes", limit="5", names="a,b", sizes="1", mode="max", needed="x")
    values = Example(rate=2, fast=True, limit=5, names=["a", "b"], sizes=[1], mode="max", needed="x")
    assert words.settings() == values.settings()
    assert Example(**json.loads(json.dumps(words.settings()))).settings() == words.settings()


def test_a_missing_setting_is_asked_for():
    with pytest.raises(FairbenchError, match="example needs `needed`") as caught:
        Example()
    assert "--set example.needed=" in caught.value.hint


def test_an_unknown_setting_is_met_with_the_nearest():
    with pytest.raises(FairbenchError, match="no setting of example is called `shar`") as caught:
        Example(shar=1, needed="")
    assert caught.value.hint.startswith("did you mean `share`? there is: count, fast,")


def test_of_very_many_names_the_nearest_is_said_and_how_many_others_there_are():
    many = [f"name-{number}" for number in range(41)]
    assert suggest("plugin", "nam-40", many).hint == "did you mean `name-40`? there are 40 others"
    assert suggest("plugin", "zzz", many).hint.startswith("there is: name-0, name-1, name-10,")


def test_a_name_like_no_other_is_met_with_all():
    assert suggest("method", "zzz", ["b", "a"]).hint == "there is: a, b"
    assert suggest("method", "a", []).hint == "there is: none"


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Positive, "float above 0"),
        (Fraction, "float at least 0 and at most 1"),
        (Count | None, "int at least 1 | none"),
        (Literal["mean", "max"], "mean | max"),
        (tuple[Count, ...], "list of int at least 1"),
        (bool, "bool"),
    ],
)
def test_types_are_described_in_words(kind, text):
    assert describe(kind) == text


def test_a_toml_table_is_checked_against_a_dataclass():
    assert checked(Stage, {"lr": "1e-3", "train": "lora,head"}, "stage") == {"lr": 1e-3, "train": ("lora", "head")}
    with pytest.raises(FairbenchError, match="no key of stage is called `epoch`") as caught:
        checked(Stage, {"epoch": 1}, "stage")
    assert "did you mean `epochs`?" in caught.value.hint


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"lr": -1}, "stage.lr = -1 must be above 0"),
        ({"decay": "sudden"}, "not a choice"),
        ({"lr_scale": 3}, "lr_scale must be a table"),
        ({"lr_scale": {"head": "x"}}, "stage.lr_scale.head = 'x' is not a finite number"),
        ({"lr_scale": {"head": -1}}, "must be at least 0"),
        ("lora", "stage must be a table"),
    ],
)
def test_a_stage_refuses_what_it_is_not(values, reason):
    with pytest.raises(FairbenchError, match=reason):
        Stage.read(values)


KINDS = (int, float, bool, str, Count, Fraction, Count | None, Literal["a", 1], tuple[float, ...], int | str)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@given(ANYTHING, st.sampled_from(KINDS))
def test_any_value_converts_to_something_json_can_carry_or_is_refused(value, kind):
    try:
        result = convert(value, kind, "here")
    except FairbenchError:
        return
    json.dumps(result, allow_nan=False)
    assert convert(result, kind, "here") == result


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_survives_the_command_line(number):
    assert convert(repr(number), float, "here") == number


@given(st.integers(-5, 5), st.integers(-5, 5), st.integers(-6, 6), st.booleans())
def test_a_range_refuses_exactly_what_lies_outside(low, high, value, above):
    inside = (low < value if above else low <= value) and value <= high
    try:
        convert(value, Annotated[int, Range(low, high, above)], "here")
        accepted = True
    except FairbenchError:
        accepted = False
    assert accepted == inside


@pytest.mark.parametrize(
    ("contract", "setting"),
    [
        ("Dataset", "alias"),  # set by every contract's __init__
        ("Dataset", "root"),
        ("Dataset", "warnings"),  # set by this one's
        ("Dataset", "name"),  # a fact that is read before there are settings
        ("Dataset", "image"),  # a verb
        ("ImageFolder", "verdicts"),  # of a class in between
        ("Backbone", "model"),
        ("Backbone", "width"),
        ("Method", "loss"),
        ("Method", "training"),  # of torch's Module
        ("Method", "parameters"),
    ],
)
def test_a_setting_named_like_an_attribute_of_its_contract_is_refused(contract, setting):
    base = getattr(fairbench, contract)
    attributes = {"__annotations__": {setting: "str"}, setting: "x", "name": "mine", "__module__": __name__}
    with pytest.raises(FairbenchError, match=f"mine has a setting called `{setting}`, and .* has an attribute"):
        type("Mine", (base,), attributes)


def test_a_setting_may_be_given_another_default_and_a_fact_become_one():
    class Mine(fairbench.Dataset):
        name = "mine"
        prompt: str = "Is it ill?"
        label: str = "x"
        max_new_tokens: int = 8

    assert Mine.fields()["prompt"][1] == "Is it ill?"
