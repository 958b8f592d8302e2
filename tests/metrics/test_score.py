"""Scores as JSON: published tables rebuilt, and other projects' numbers from the same predictions."""

import json
import subprocess
import sys

import fairlearn.metrics as theirs
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairbench import plugins, read_predictions
from fairbench.errors import FairbenchError
from fairbench.metrics.conventions import CONVENTIONS, convert
from fairbench.metrics.metric import Metric
from fairbench.metrics.score import score
from fairbench.predictions.predictions import Predictions
from fairbench.report import json as as_json
from fairbench.statistics.results import Gap

METRICS = list(plugins.load(("metric",)).tables["metric"].values())

# ES-Acc of the glaucoma paper's rows, derived apart from this code from its recovered counts:
# in percent with ΔM = max − min in points, and as a fraction with ΔM = Σ|deviation|.
ES = {
    "zero-shot": (10.137, 0.4818),
    "vanilla": (11.143, 0.5150),
    "fr lambda=0.5": (7.603, 0.5046),
    "gr": (24.498, 0.5253),
    "hybrid": (11.133, 0.5145),
    "fr lambda=0.1": (17.364, 0.5259),
    "fr lambda=1.0": (17.699, 0.5212),
}


def rebuilt(n, correct, path):
    """Write one row per patient, as anybody's csv, and read it back."""
    rows = [
        {"target": "yes", "answer": "yes" if k < correct[group] else "no", "ethnicity": group}
        for group, size in n.items()
        for k in range(size)
    ]
    pd.DataFrame(rows).to_csv(path, index=False)
    return read_predictions(path, ["ethnicity"])


def test_the_glaucoma_papers_tables_1_and_2(shared, tmp_path):
    golden = json.loads((shared / "reference" / "glaucoma_tables_1_2.json").read_text())
    assert len(golden["rows"]) == 7
    for row in golden["rows"]:
        predictions = rebuilt(golden["n"], row["correct"], tmp_path / "p.csv")
        scores = score(predictions, ["ethnicity"])
        ethnicity, published = scores.attributes["ethnicity"].disparities, row["published"]
        assert scores.overall.counts["n"] == 2000
        assert round(100 * scores.overall.metrics["accuracy"].value, 2) == published["accuracy_pct"]
        assert round(100 * ethnicity["max_acc_gap"].value, 2) == published["max_acc_gap_pp"]
        assert ethnicity["max_acc_gap"].coverage == (3, 3)
        percent, fraction = ES[row["method"]]
        assert 100 * ethnicity["es_accuracy"].value == pytest.approx(percent, abs=5e-4)
        fairclip = score(predictions, ["ethnicity"], equity="fairclip").attributes["ethnicity"].disparities
        assert fairclip["es_accuracy"].value == pytest.approx(fraction, abs=5e-5)
        assert ethnicity["tpr_gap"].value == ethnicity["max_acc_gap"].value  # all are positive here
        assert ethnicity["eq_odds_max"].value is None
        assert "no negatives among 76 rows" in ethnicity["eq_odds_max"].reason


def test_a_constant_yes_has_the_prevalence_gap_and_no_eq_odds_gap():
    """On the paper's test set by race: accuracy 51.15, gap 15.60, EqOdds 0."""
    size, positive = {"white": 1537, "black": 305, "asian": 158}, {"white": 748, "black": 196, "asian": 79}
    group = np.repeat(list(size), list(size.values()))
    target = np.concatenate([np.arange(n) < positive[name] for name, n in size.items()]).astype(int)
    table = pd.DataFrame({"target": target, "answer": 1, "race": group})
    scores = score(Predictions(table, ("no", "yes"), ("race",)), ["race"])
    race = scores.attributes["race"]
    assert round(100 * scores.overall.metrics["accuracy"].value, 2) == 51.15
    assert [round(100 * race.groups[g].metrics["accuracy"].value, 2) for g in ("white", "black", "asian")] == [
        48.67,
        64.26,
        50.0,
    ]
    assert round(100 * race.disparities["max_acc_gap"].value, 2) == 15.60
    assert race.disparities["eq_odds_max"].value == 0
    assert race.disparities["dp_difference"].value == 0
    assert race.disparities["worst_group"].group == "white"


def test_the_json_has_the_promised_keys_and_reasons_for_what_is_null():
    table = pd.DataFrame(
        {
            "target": [1, 0, 1, 0, 0],
            "answer": [1, 0, 0, 1, -1],
            "p_0": [0.1, 0.8, 0.6, 0.3, 0.5],
            "p_1": [0.9, 0.2, 0.4, 0.7, 0.5],
            "race": pd.array(["a", "a", "b", None, None], dtype="str"),
        }
    )
    printed = as_json.scores(score(Predictions(table, ("no", "yes"), ("race",)), ["race"], METRICS))
    assert json.loads(json.dumps(printed, allow_nan=False)) == printed
    race = printed["attributes"]["race"]
    assert race["unrecorded"] == {"policy": "keep", "rows": 2}
    assert (printed["n"], printed["positives"], printed["negatives"], printed["unparsed"]) == (5, 2, 3, 1)
    assert {"n": 1, "positives": 1, "negatives": 0}.items() <= race["groups"]["b"].items()
    assert race["groups"]["b"]["accuracy"] == {"value": 0.0, "ci": None}
    assert race["groups"]["b"]["fpr"] == {"value": None, "ci": None, "reason": "no negatives among 1 row"}
    assert race["groups"]["b"]["auroc"]["reason"] == "no negatives among 1 row"
    assert race["groups"]["a"]["auroc"]["value"] == 1
    assert (race["max_acc_gap"]["value"], race["max_acc_gap"]["coverage"]) == (1.0, [3, 3])
    assert (race["worst_group"]["value"], race["worst_group"]["group"]) == (0.0, "b")
    assert (race["eq_odds_max"]["value"], race["eq_odds_max"]["coverage"]) == (1.0, [1, 3])
    assert race["eq_odds_max"]["flags"] == [
        "left out: b (no negatives among 1 row), unrecorded (no positives among 2 rows)"
    ]
    assert race["es_accuracy"]["preset"] == "fairllava"
    assert {"eq_odds_mean", "dp_difference", "auroc_gap", "ece_gap", "brier_gap"} <= race.keys()


def test_policies_change_groups_but_not_the_overall_values():
    table = pd.DataFrame(
        {"target": [1, 1, 1], "answer": [1, 0, 0], "race": pd.array(["a", "b", None], dtype="str")}
    )
    predictions = Predictions(table, ("no", "yes"), ("race",))
    by_policy = {policy: score(predictions, ["race"], policy=policy) for policy in ("keep", "drop", "merge:a")}
    assert {outcome.overall.metrics["accuracy"].value for outcome in by_policy.values()} == {1 / 3}
    sizes = {
        policy: {name: group.counts["n"] for name, group in outcome.attributes["race"].groups.items()}
        for policy, outcome in by_policy.items()
    }
    assert sizes == {
        "keep": {"a": 1, "b": 1, "unrecorded": 1},
        "drop": {"a": 1, "b": 1},
        "merge:a": {"a": 2, "b": 1},
    }


def test_answers_in_words_are_scored_by_row_like_any_other(tmp_path):
    """No classes at all: the report is of the text metric and its gaps, and of nothing else."""
    path = tmp_path / "p.csv"
    path.write_text("id,reference,text,race\na,no mass,no mass,x\nb,a mass,no mass,x\nc,a mass,,y\nd,None,None,\n")
    exact = Metric(
        name="exact_match",
        title="Exact match",
        formula="share of texts that are the reference",
        source="any textbook",
        each=lambda rows: (rows.table["text"] == rows.table["reference"]).to_numpy(dtype=float),
        needs=("text",),
    )
    scores = score(read_predictions(path, ["race"]), ["race"], [exact])
    race = scores.attributes["race"]
    assert scores.overall.metrics["exact_match"].value == 0.5
    assert "accuracy" not in scores.overall.metrics  # nor any other metric of classes
    assert race.groups["unrecorded"].metrics["exact_match"].value == 1  # "None" is a text
    assert race.disparities["exact_match_gap"] == Gap(1.0, coverage=(3, 3))
    assert "eq_odds_max" not in race.disparities


def two_groups(tpr=(0.5, 1.0), fpr=(0.5, 0.25)):
    """Four positives and four negatives in each group, answered at the given rates."""
    rows = [
        {"target": label, "answer": int(k < 4 * rate), "race": group}
        for group, rates in (("a", (fpr[0], tpr[0])), ("b", (fpr[1], tpr[1])))
        for label, rate in enumerate(rates)
        for k in range(4)
    ]
    return Predictions(pd.DataFrame(rows), ("no", "yes"), ("race",))


BY_HAND = {  # TPR ½ and 1, FPR ½ and ¼, accuracy ½ and 7/8 (11/16 overall), selection ½ and 5/8
    "fairlearn": {"equalized_odds_difference": 0.5, "equalized_odds_difference(agg=mean)": 0.375},
    "medfair": {"EqOdd": 0.625, "EqOpp0": 0.5, "EqOpp1": 0.75, "DP": 0.875, "accuracy worst": 0.5},
    "ffb": {"eodd": 75.0, "eopp": 50.0, "dp": 12.5},
    "fairclip": {
        "DEOdds": 0.5,
        "ES-accuracy": 0.6875 / 1.375,
        "accuracy std disparity": 0.1875 / 0.6875,
        "accuracy max disparity": 0.375 / 0.6875,
    },
    "fairllava": {"Δaccuracy": 37.5, "ES-accuracy": 68.75 / 38.5, "ES-accuracy (table)": 68.75 / 38.5},
}


@pytest.mark.parametrize("name", CONVENTIONS)
def test_other_projects_numbers_by_hand(name):
    converted = convert(two_groups(), ["race"], name).attributes["race"]
    assert {key: converted[key][1].value for key in BY_HAND[name]} == pytest.approx(BY_HAND[name])


def test_other_projects_numbers_are_those_of_answers_of_this_kind():
    names = convert(two_groups(), ["race"], "fairclip", METRICS).attributes["race"]
    assert "ES-f1" in names
    assert not any("bleu" in name or "rouge" in name for name in names)


@pytest.mark.filterwarnings("error")
def test_a_number_relative_to_nothing_is_undefined():
    wrong = Predictions(
        pd.DataFrame({"target": [0, 1, 1], "answer": [1, 0, 0], "race": ["a", "a", "b"]}), ("no", "yes"), ("race",)
    )
    converted = convert(wrong, ["race"], "fairclip").attributes["race"]
    for name in ("accuracy std disparity", "accuracy max disparity"):
        gap = converted[name][1]
        assert (gap.value, gap.reason) == (None, "it divides by an overall value that is 0 or undefined")
    assert converted["DEOdds"][1].reason == "fewer than two groups with a value: b (no negatives among 1 row)"


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1), st.sampled_from("abc")), min_size=12, max_size=60))
def test_as_fairlearn_is_fairlearn(rows):
    corners = [(target, target, group) for target in (0, 1) for group in "abc"]  # so that every rate is defined
    target, answer, group = map(list, zip(*rows, *corners, strict=True))
    table = pd.DataFrame({"target": target, "answer": answer, "g": group})
    converted = convert(Predictions(table, ("no", "yes"), ("g",)), ["g"], "fairlearn").attributes["g"]
    features = {"y_true": target, "y_pred": answer, "sensitive_features": group}
    for key, function, options in (
        ("demographic_parity_difference", theirs.demographic_parity_difference, {}),
        ("equalized_odds_difference", theirs.equalized_odds_difference, {}),
        ("equalized_odds_difference(agg=mean)", theirs.equalized_odds_difference, {"agg": "mean"}),
        ("equal_opportunity_difference", theirs.equal_opportunity_difference, {}),
        ("accuracy_score_difference", theirs.accuracy_score_difference, {}),
        ("accuracy_score_group_min", theirs.accuracy_score_group_min, {}),
    ):
        assert converted[key][1].value == pytest.approx(function(**features, **options))


def test_binary_only_conventions_refuse_three_groups_with_a_reason():
    rows = two_groups()
    third = Predictions(rows.table.assign(race=["a", "b", "c", "a"] * 4), rows.classes, rows.attributes)
    for name, key in (("medfair", "EqOdd"), ("ffb", "eodd")):
        converted = convert(third, ["race"], name).attributes["race"][key][1]
        assert (converted.value, converted.reason) == (None, "defined for two groups, and there are 3")


def test_fairclip_leaves_rows_without_the_attribute_out_of_everything():
    rows = two_groups()
    extra = pd.DataFrame({"target": [1] * 8, "answer": [0] * 8, "race": None})
    more = Predictions(pd.concat([rows.table, extra], ignore_index=True), rows.classes, rows.attributes)
    assert convert(more, ["race"], "fairclip") == convert(rows, ["race"], "fairclip")


def test_an_unknown_convention_names_the_nearest():
    with pytest.raises(FairbenchError, match="fairclp") as refusal:
        convert(two_groups(), ["race"], "fairclp")
    assert "`fairclip`" in refusal.value.hint


def test_scoring_imports_neither_torch_nor_scikit_learn():
    code = (
        "import sys; from fairbench import plugins; import fairbench.metrics.score, fairbench.metrics.conventions;"
        "import fairbench.metrics.reference, fairbench.predictions.read; plugins.load(('metric',)).tables;"
        "print([name for name in ('torch', 'transformers', 'sklearn') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
