"""Bins of a number, written as people write them: `<45`, `45-65`, `>=66`."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from fairbench.errors import FairbenchError

OLDEST = 120  # years; more is a typing error
EDGE = r"\d+(?:\.\d+)?"
# How a bin is written, and which of its ends lies outside it: the lower, the upper.
WRITTEN: tuple[tuple[re.Pattern[str], bool, bool], ...] = (
    (re.compile(rf"(?P<low>{EDGE})-(?P<high>{EDGE})"), False, False),
    (re.compile(rf"(?P<low>{EDGE})\+"), False, False),
    (re.compile(rf">=(?P<low>{EDGE})"), False, False),
    (re.compile(rf">(?P<low>{EDGE})"), True, False),
    (re.compile(rf"<=(?P<high>{EDGE})"), False, False),
    (re.compile(rf"<(?P<high>{EDGE})"), False, True),
)
NUMBER = re.compile(r"[-+]?\d+([.,]\d*)?")  # a decimal comma is a spreadsheet's way where commas are decimal
DIGITS = re.compile(r"\d+(?:[.,]\d+)*")
NUMERIC = re.compile(r"\s*[-+<>=]*\s*\d")  # how a number or a range of numbers begins
# Numbers by the mark before their decimals, the other one perhaps between thousands. 1,201 is both.
COUNTED = {
    ",": re.compile(r"\d+(,\d+)?|[1-9]\d{0,2}(\.\d{3})+(,\d+)?"),
    ".": re.compile(r"\d+(\.\d+)?|[1-9]\d{0,2}(,\d{3})+(\.\d+)?"),
}
# DICOM's age string (PS3.5, AS), its zeros left out or not, and the same in words: 060Y, 3 weeks, 61.5 years old.
AGE = re.compile(
    r"(\d{1,3}(?:[.,]\d+)?)(d(?:ays?)?|w(?:ks?|eeks?)?|m(?:os?|onths?)?|y(?:o|rs?|ears?)?)(?:old)?", re.IGNORECASE
)
PER_YEAR = {"D": 365.25, "W": 365.25 / 7, "M": 12.0, "Y": 1.0}


@dataclass(frozen=True)
class Interval:
    """Numbers from `low` to `high`; the ends belong to it unless `above` or `below`."""

    low: float
    high: float
    above: bool = False
    below: bool = False

    def holds(self, value: float) -> bool:
        """Whether a value lies in it."""
        over = value > self.low if self.above else value >= self.low
        return over and (value < self.high if self.below else value <= self.high)


@dataclass(frozen=True)
class Bins:
    """Intervals by name; they may leave gaps, but not overlap. Use `read` to make some.

    Between whole edges completed years count: 65.9 lies in 45-65.
    """

    intervals: tuple[tuple[str, Interval], ...]

    @classmethod
    def read(cls, *written: str) -> Bins:
        """Read bins such as 0-44, 45+, <45, <=45, >45, >=45; raises FairbenchError for others and for overlaps."""
        made = []
        for name in ("".join(item.split()) for item in written):
            if (interval := _interval(name)) is None:
                raise FairbenchError(f"{name!r} is no bin", "write 0-44, 45+, <45, <=45, >45 or >=45")
            made.append((name, interval))
        ordered = sorted(made, key=lambda item: (item[1].low, item[1].above))
        for name, interval in ordered:
            if interval.low > interval.high:
                raise FairbenchError(f"{name} ends before it begins", "write the lower number first")
        for (one, lower), (other, upper) in itertools.pairwise(ordered):
            touching = lower.high == upper.low and not (lower.below or upper.above)
            if lower.high > upper.low or touching:
                raise FairbenchError(f"{one} and {other} overlap", "every number must lie in one bin")
        return cls(tuple(made))

    @property
    def names(self) -> tuple[str, ...]:
        """The bins as they were written."""
        return tuple(name for name, _ in self.intervals)

    @property
    def whole(self) -> bool:
        """Whether all edges are whole numbers, so that completed years count."""
        edges = [edge for _, item in self.intervals for edge in (item.low, item.high) if math.isfinite(edge)]
        return all(float(edge).is_integer() for edge in edges)

    def name(self, value: float) -> str | None:
        """Return the bin of a number, None where it lies in none."""
        value = math.floor(value) if self.whole and math.isfinite(value) else value
        return next((name for name, interval in self.intervals if interval.holds(value)), None)

    def cut(self, numbers: pd.Series[Any]) -> pd.Series[Any]:
        """Return the bin of each number, None where it is missing or lies in none."""
        known = {value: self.name(value) for value in numbers.dropna().unique()}
        return numbers.map(known).astype(object).where(numbers.notna(), None)

    def of(self, text: str, years: bool = False) -> str | None:
        """Return the bin of a number as it was written, None where that is no number, or in none or several.

        A range (90+, >89, 40-50) lies in a bin that holds all of it. With `years`, DICOM's ages (060Y, 018M) and
        those in words (3 weeks) are understood, and nobody is older than 120. 1,201 may be 1201 or 1.201 and is
        no number, unless it is years; `spelt` says what it is in its column.
        """
        text = "".join(text.split())
        if years and (age := AGE.fullmatch(text)):
            unit = age[2][0].upper()
            if unit != "Y" and _is_either(age[1]):
                return None
            value = float(age[1].replace(",", ".")) / PER_YEAR[unit]
            return self.name(value) if value <= OLDEST else None
        if NUMBER.fullmatch(text):
            if not years and _is_either(text.lstrip("-+")):
                return None
            value = float(text.replace(",", "."))
            return self.name(value) if not years or 0 <= value <= OLDEST else None
        span = _interval(text)
        if span is None or (years and span.low > OLDEST):
            return None
        low, high = span.low, span.high
        if span.above:
            low = low + 1 if self.whole and low.is_integer() else math.nextafter(low, np.inf)
        if span.below:
            high = math.nextafter(high, -np.inf)
        one, other = self.name(max(low, 0.0)), self.name(high)
        return one if one == other else None

    @staticmethod
    def spelt(texts: Iterable[str]) -> dict[str, str | None]:
        """Write a column's numbers with points for decimals and nothing between thousands, by what was written.

        None stands for what may be either, such as 1,201, where no other cell (44,5 or 1,234.5) settles it.
        """
        found = {text: DIGITS.findall(text) if NUMERIC.match(text) else [] for text in texts}
        told = {_marks(number) for numbers in found.values() for number in numbers} & set(COUNTED)
        return {text: _spelt(text, told) if numbers else text for text, numbers in found.items()}


def _marks(number: str) -> str:
    """Return the marks that may stand before a number's decimals: one, both, or none where it is no number."""
    return "".join(mark for mark, pattern in COUNTED.items() if pattern.fullmatch(number))


def _is_either(number: str) -> bool:
    """Whether a number's comma may stand before decimals or between thousands."""
    return "," in number and len(_marks(number)) > 1


def _spelt(text: str, told: set[str]) -> str | None:
    """Write the numbers of a cell in one way; `told` are the marks of decimals that its column shows."""
    if len(told) == 1:
        (mark,), (thousand,) = told, set(COUNTED) - told
        plain = {number: number.replace(thousand, "").replace(mark, ".") for number in DIGITS.findall(text)}
        return DIGITS.sub(lambda found: plain[found[0]] if mark in _marks(found[0]) else found[0], text)
    # A point is every program's mark of decimals, unless the column has shown that a comma is one, too.
    doubtful = [number for number in DIGITS.findall(text) if not number.isdigit() and len(_marks(number)) > 1]
    return None if any(told or _is_either(number) for number in doubtful) else text


def _interval(text: str) -> Interval | None:
    """Read an interval; without a lower end it starts anywhere, without an upper it goes on for ever."""
    for pattern, above, below in WRITTEN:
        if match := pattern.fullmatch(text):
            ends = {key: float(edge) for key, edge in match.groupdict().items()}
            return Interval(ends.get("low", -np.inf), ends.get("high", np.inf), above, below)
    return None


# Bins of age by the paper that uses them, in completed years.
AGE_BINS = {
    "fairllava": Bins.read("<45", "45-65", ">=66"),  # FairLLaVA writes [0, 44], (44, 65], (65, ∞)
    "fairmedfm": Bins.read("<60", ">=60"),
    "medfair2": Bins.read("<=60", ">60"),
    "medfair5": Bins.read("0-19", "20-39", "40-59", "60-79", ">=80"),
}
