"""Intervals of metrics that are no mean over rows: against sklearn, a bootstrap, simulation, and by hand."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from boards import runs
from builders import call, scored
from scipy import stats
from sklearn.metrics import matthews_corrcoef

from fairbench import Metric, Predictions, Undefined, plugins
from fairbench.leaderboard.build import build
from fairbench.metrics.jackknife import BIASED, STILL, Jackknife
from fairbench.predictions.groups import Groups
from fairbench.publication.publish import publish
from fairbench.publication.published import Choices
from fairbench.report import render
from fairbench.statistics.results import Gap


def mcc(rows):
    if len(np.unique(rows.target)) < 2:
        raise Undefined("one class only")
    return float(matthews_corrcoef(rows.target, rows.answer))


ABOUT = {
    "name": "mcc",
    "title": "MCC",
    "formula": "phi",
    "source": "Matthews 1975",
    "low": -1.0,
    "scale": "fraction",
}
MCC = Metric(**ABOUT, over=mcc, needs=("classes",))
PLUGIN = f"""
from sklearn.metrics import matthews_corrcoef
from fairbench import Metric, hookimpl

@hookimpl
def fairbench_metrics():
    over = lambda rows: float(matthews_corrcoef(rows.target, rows.answer))
    return [Metric(**{ABOUT!r}, over=over, needs=("classes",))]
"""


def world(n, seed, right=(0.9, 0.7)):
    """Two groups, answered right with these chances."""
    rng = np.random.default_rng(seed)
    group, target = rng.integers(0, 2, n), rng.integers(0, 2, n)
    correct = rng.random(n) < np.array(right)[group]
    table = pd.DataFrame({"target": target, "answer": np.where(correct, target, 1 - target)})
    return Predictions(table.assign(sex=np.array(["f", "m"])[group]), ("no", "yes"), ("sex",))


def moved(predictions, seeds=1):
    return Jackknife.of(MCC, [predictions] * seeds, Groups.of(predictions.table, "sex"))


@pytest.mark.slow
def test_values_are_sklearns_and_errors_a_bootstraps():
    predictions = world(600, 1)
    found, table = moved(predictions), predictions.table
    rng, draws = np.random.default_rng(2), []
    for _ in range(1500):
        rows = rng.integers(0, 600, 600)
        draws.append(matthews_corrcoef(table["target"].to_numpy()[rows], table["answer"].to_numpy()[rows]))
    assert found.overall.value == pytest.approx(matthews_corrcoef(table["target"], table["answer"]))
    female = table[table["sex"] == "f"]
    assert found.groups[0].value == pytest.approx(matthews_corrcoef(female["target"], female["answer"]))
    low, high = found.overall.interval
    assert (high - low) / 2 == pytest.approx(2.02 * np.std(draws), rel=0.3)


def test_rows_of_one_patient_move_together():
    """Every row twice is no more evidence: the interval stays as wide."""
    one = world(300, 3)
    table = pd.concat([one.table.assign(cluster=np.arange(300))] * 2, ignore_index=True)
    twice = moved(Predictions(table, one.classes, ("sex",)))
    alone = moved(Predictions(one.table.assign(cluster=np.arange(300)), one.classes, ("sex",)))
    assert np.ptp(twice.overall.interval) == pytest.approx(np.ptp(alone.overall.interval))


def test_what_cannot_be_bounded_has_no_interval():
    """Nine patients; or a value that is undefined without some of them."""
    assert moved(world(9, 5)).overall.interval is None
    table = world(40, 6).table.assign(target=0)
    table.loc[0, "target"] = 1
    found = moved(Predictions(table, ("no", "yes"), ("sex",)))
    assert found.overall.value is not None
    assert found.overall.interval is None


def test_what_no_part_of_the_rows_moves_is_not_certain():
    """Twenty-four right answers are no proof of a perfect reader."""
    table = pd.DataFrame({"target": [0, 1] * 12, "answer": [0, 1] * 12, "sex": ["f", "f", "m", "m"] * 6})
    found = moved(Predictions(table, ("no", "yes"), ("sex",)))
    assert (found.overall.value, found.overall.interval) == (1.0, None)
    assert STILL in found.overall.notes
    assert found.gap(Gap(0.0)).interval is None


def test_what_chance_alone_makes_larger_has_no_interval():
    """A calibration error of a perfectly calibrated model: the jackknife left out the truth half of the time."""
    rough = replace(MCC, smooth=False)
    found = Jackknife.of(rough, [world(200, 1)], Groups.of(world(200, 1).table, "sex"))
    assert (found.overall.interval, BIASED in found.overall.notes) == (None, True)
    assert found.gap(_gap(found)).interval is None
    assert not plugins.load(("metric",)).tables["metric"]["ece"].smooth


def test_seeds_are_a_sample():
    """Trained again a model is another: what seeds scatter widens the interval of their mean."""
    table = world(600, 1).table
    seeds = [table]
    for chance in (0.0, 0.1):
        again = np.random.default_rng(int(10 * chance)).random(600) < chance
        seeds.append(table.assign(answer=np.where(again, 1 - table["answer"], table["answer"])))
    each = [Predictions(one, ("no", "yes"), ("sex",)) for one in seeds]
    found = Jackknife.of(MCC, each, Groups.of(table, "sex"))
    values = [matthews_corrcoef(one["target"], one["answer"]) for one in seeds]
    assert found.overall.value == pytest.approx(np.mean(values))
    reach = stats.t.ppf(0.975, 2) * np.std(values, ddof=1) / np.sqrt(3)
    alone = np.ptp(moved(each[0]).overall.interval) / 2
    assert np.ptp(found.overall.interval) / 2 == pytest.approx(np.hypot(reach, alone), rel=0.1)


@pytest.mark.slow
def test_intervals_cover_the_truth():
    """200 worlds of 200 patients; the truth from one of 400,000. The gap's may cover more: it is simultaneous."""
    truth = the_truth()
    inside = np.zeros(3)
    for seed in range(200):
        found = moved(world(200, seed))
        gap = found.gap(_gap(found))
        ends = (found.overall.interval, found.groups[0].interval, gap.interval)
        inside += [low <= one <= high for (low, high), one in zip(ends, truth, strict=True)]
    assert (inside / 200 >= 0.9).all(), inside
    assert (inside[:2] / 200 <= 0.985).all(), inside


def _gap(found):
    values = [one.value for one in found.groups]
    return Gap(max(values) - min(values))


def the_truth():
    table = world(400_000, 999).table
    each = [matthews_corrcoef(part["target"], part["answer"]) for _, part in table.groupby("sex")]
    return matthews_corrcoef(table["target"], table["answer"]), each[0], abs(each[0] - each[1])


def test_score_gives_values_intervals_and_a_gap_with_one(write):
    path = write(scored({"a": 80, "b": 80}))
    found = json.loads(call("score", path, "--attr", "race", "--json", "--plugin", write(PLUGIN, "mcc.py")).stdout)
    for one in (found["overall"]["mcc"], found["attributes"]["race"]["groups"]["a"]["mcc"]):
        low, high = one["ci"]
        assert low < one["value"] < high
    gap = found["attributes"]["race"]["mcc_gap"]
    assert gap["ci"][0] <= gap["value"] <= gap["ci"][1]
    assert gap["p"] is None
    assert "not a mean over rows: no exact test" in gap["flags"]


@pytest.mark.slow
def test_a_board_shows_it_beside_and_publishes_it(tmp_path):
    store = runs(tmp_path, seeds=(0, 1))
    (table,) = build(store, attributes=["race"], metrics=[MCC], also=["mcc"]).tables
    (further,) = table.further
    better = next(row for row in further.rows if row.label == "better")
    assert better.score.low < better.score.value < better.score.high
    assert better.gap.low <= better.gap.value <= better.gap.high
    assert "By MCC" in render(build(store, attributes=["race"], metrics=[MCC], also=["mcc"]), "md")
    board = publish([store], "x", Choices(("race",), also=("mcc",)), [MCC], command="").board
    assert board.tables[0].further == table.further
