"""What a test set can show is read off the data, not off a trained model."""

from dataclasses import replace

import pytest
from rich.console import Console

from fairbench.benchmark.power_plan import Assumed, foresee, show
from fairbench.errors import FairbenchError
from fairbench.testing import ToyDataset

ASSUMED = Assumed(accuracy=0.8, agreement=0.85, gap=0.1)


def toy(rows, attribute="sex", policy="drop"):
    return foresee(ToyDataset(rows_per_split=[8, 8, rows]), attribute, policy, ASSUMED)


def test_more_patients_show_smaller_differences():
    small, large = toy(200), toy(3000)
    assert large.gap < small.gap
    assert large.accuracy < small.accuracy
    assert large.interaction < small.interaction < small.gap  # what agrees on 85 % of patients varies less
    assert large.floor_mean < small.floor_mean < small.floor_95
    # Two groups of about 1,500: a two-sided z test at 80 % power needs 2.8 standard errors.
    sizes = [count for _, count in large.groups]
    assert large.gap == pytest.approx(2.8 * (0.8 * 0.2 * sum(1 / n for n in sizes)) ** 0.5, rel=0.1)


def test_only_test_rows_count():
    assert toy(200).rows == 200
    assert sum(count for _, count in toy(200).groups) == 200


def test_what_cannot_be_shown_is_none_with_a_reason():
    planned = toy(24, attribute="site")
    assert planned.improvement is None
    assert planned.reasons


def test_names_are_shown_as_they_are(capsys):
    show([replace(toy(200), attribute="age[years]")], ASSUMED, Console(width=200))
    assert "age[years]" in capsys.readouterr().out


def test_assumptions_are_shares():
    with pytest.raises(FairbenchError, match=r"--agreement = 1\.5 must be at most 1"):
        Assumed(accuracy=0.8, agreement=1.5, gap=0.1)
