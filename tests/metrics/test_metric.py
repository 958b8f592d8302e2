"""Metrics and disparities against other people's code, brute force, and cases worked by hand."""

import math
import re
import warnings

import fairlearn.metrics as theirs
import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st

from fairbench import plugins
from fairbench.errors import FairbenchError
from fairbench.metrics.disparity import EQ_ODDS, EQUITY, disparities, rates
from fairbench.metrics.metric import ACCURACY, FPR, SELECTION_RATE, TPR, Metric, Undefined
from fairbench.metrics.score import score
from fairbench.predictions.predictions import Predictions
from fairbench.statistics.permutation import REDUCTIONS

METRICS = plugins.load(("metric",)).tables["metric"]


def predictions(target, answer, group, classes=("no", "yes"), probabilities=None):
    table = pd.DataFrame({"target": target, "answer": answer, "group": pd.array(list(group), dtype="str")})
    if probabilities is not None:
        table = table.assign(**{f"p_{index}": p for index, p in enumerate(np.asarray(probabilities).T)})
    return Predictions(table, classes, ("group",))


def measure(name, rows, **options):
    return disparities(METRICS.values(), rows.classes, **options)[name].measure(rows, "group")


binary_rows = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 1), st.sampled_from("abcd"), st.integers(0, 20)),
    min_size=2,
    max_size=60,
)


def columns(rows):
    target, answer, group, score = (np.array(column) for column in zip(*rows, strict=True))
    return target, answer, group, score / 20


@settings(max_examples=80, deadline=None)
@given(rows=binary_rows)
def test_disparities_agree_with_fairlearn_wherever_every_rate_is_defined(rows):
    target, answer, group, _ = columns(rows)
    ours = predictions(target, answer, group)
    names = np.unique(group)
    whole = {g: set(target[group == g]) == {0, 1} for g in names}
    if len(names) > 1:
        features = {"y_true": target, "y_pred": answer, "sensitive_features": group}
        assert measure("dp_difference", ours).value == pytest.approx(
            theirs.demographic_parity_difference(**features)
        )
        accuracy = theirs.MetricFrame(metrics=sk.accuracy_score, **features)
        assert measure("max_acc_gap", ours).value == pytest.approx(accuracy.difference())
        assert measure("worst_group", ours).value == pytest.approx(accuracy.group_min())
    if all(whole.values()) and len(names) > 1:
        for name, how in (("eq_odds_max", "worst_case"), ("eq_odds_mean", "mean")):
            difference = measure(name, ours)
            assert difference.value == pytest.approx(theirs.equalized_odds_difference(**features, agg=how))
            assert (difference.coverage, difference.reason, difference.notes) == (
                (len(names), len(names)),
                None,
                (),
            )
    else:  # by brute force: each gap over the groups that have one, undefined with fewer than two
        gaps = []
        for label in (1, 0):
            of_group = [answer[(group == g) & (target == label)] for g in names]
            means = [cell.mean() for cell in of_group if len(cell)]
            gaps.append(max(means) - min(means) if len(means) > 1 else math.nan)
        difference = measure("eq_odds_max", ours)
        assert difference.coverage == (sum(whole.values()), len(names))
        assert difference.reason or difference.notes
        if any(map(math.isnan, gaps)):
            assert difference.value is None
        else:
            assert difference.value == pytest.approx(max(gaps))


@settings(max_examples=60, deadline=None)
@given(rows=binary_rows)
def test_binary_metrics_agree_with_scikit_learn_or_are_undefined(rows):
    target, answer, group, score = columns(rows)
    ours = predictions(target, answer, group, probabilities=np.column_stack([1 - score, score]))
    value = {name: metric.value(ours).value for name, metric in METRICS.items()}
    assert value["accuracy"] == pytest.approx(sk.accuracy_score(target, answer))
    assert value["brier"] == pytest.approx(sk.brier_score_loss(target, score, pos_label=1))
    assert value["selection_rate"] == pytest.approx(theirs.selection_rate(target, answer))
    if set(target) == {0, 1}:
        assert value["auroc"] == pytest.approx(sk.roc_auc_score(target, score))
        assert value["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(target, answer))
        assert value["f1"] == pytest.approx(sk.f1_score(target, answer))
        assert value["macro_f1"] == pytest.approx(sk.f1_score(target, answer, average="macro"))
        assert value["tpr"] == pytest.approx(theirs.true_positive_rate(target, answer))
        assert value["fpr"] == pytest.approx(theirs.false_positive_rate(target, answer))
        fpr, tpr, _ = sk.roc_curve(target, score, drop_intermediate=False)
        assert value["sensitivity_at_90_specificity"] == pytest.approx(tpr[fpr <= 0.1 + 1e-9].max())
    else:
        for name in ("auroc", "balanced_accuracy", "macro_f1", "sensitivity_at_90_specificity"):
            assert value[name] is None


@pytest.mark.parametrize("seed", range(5))
def test_ranking_metrics_agree_with_scikit_learn_on_a_real_sized_set_with_ties(seed):
    draw = np.random.default_rng(seed)
    target, score = draw.integers(0, 2, 500), draw.integers(0, 50, 500) / 50
    ours = predictions(target, target, "a" * 500, probabilities=np.column_stack([1 - score, score]))
    fpr, tpr, _ = sk.roc_curve(target, score, drop_intermediate=False)
    assert METRICS["sensitivity_at_90_specificity"].value(ours).value == tpr[fpr <= 0.1].max()
    assert METRICS["auroc"].value(ours).value == pytest.approx(sk.roc_auc_score(target, score))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.tuples(*[st.integers(1, 9)] * 3)), min_size=3)
)
def test_metrics_of_three_classes_agree_with_scikit_learn(rows):
    target, answer, weights = (np.array(column) for column in zip(*rows, strict=True))
    p = weights / weights.sum(axis=1, keepdims=True)
    ours = predictions(target, answer, "a" * len(target), ("x", "y", "z"), p)
    value = {name: metric.value(ours) for name, metric in METRICS.items()}
    assert value["accuracy"].value == pytest.approx(sk.accuracy_score(target, answer))
    one_hot = np.eye(3)[target]
    assert value["brier"].value == pytest.approx(((p - one_hot) ** 2).sum(axis=1).mean() / 2)
    for name in ("tpr", "fpr", "f1", "selection_rate"):
        assert value[name].value is None
        assert "two classes" in value[name].reason
    if set(target) == {0, 1, 2}:
        assert value["auroc"].value == pytest.approx(sk.roc_auc_score(target, p, multi_class="ovr"))
        assert value["balanced_accuracy"].value == pytest.approx(sk.balanced_accuracy_score(target, answer))
        assert value["macro_f1"].value == pytest.approx(sk.f1_score(target, answer, average="macro"))
    else:
        missing = "xyz"[min({0, 1, 2} - set(target))]
        assert f"no {missing} among" in value["balanced_accuracy"].reason


@settings(max_examples=60, deadline=None)
@given(rows=binary_rows)
def test_calibration_error_is_the_sum_over_bins(rows):
    target, answer, group, score = columns(rows)
    ours = predictions(target, answer, group, probabilities=np.column_stack([1 - score, score]))
    total = 0.0
    for low in range(15):
        cell = [
            (max(s, 1 - s), (s > 0.5) == t) for s, t in zip(score, target, strict=True)
            if low / 15 < max(s, 1 - s) <= (low + 1) / 15
        ]  # fmt: skip
        total += abs(sum(confidence - right for confidence, right in cell))
    assert METRICS["ece"].value(ours).value == pytest.approx(total / len(rows))


@settings(max_examples=60, deadline=None)
@given(rows=binary_rows)
def test_a_group_scores_what_its_rows_alone_score(rows):
    target, answer, group, score = columns(rows)
    ours = predictions(target, answer, group, probabilities=np.column_stack([1 - score, score]))
    codes, names = ours.groups("group")
    for metric in METRICS.values():
        for name, value in zip(names, metric.by_group(ours, codes, len(names)), strict=True):
            alone = metric.value(ours.take(group == name))
            assert value.value == (None if alone.value is None else pytest.approx(alone.value))
            assert (value.rows, value.reason) == (alone.rows, alone.reason)


# A perfect classifier, where group b has no positives. Seven libraries make seven things of cases like it.
PERFECT = predictions([1, 0, 1, 0, 0, 0], [1, 0, 1, 0, 0, 0], "aaabbb")


def test_fairlearn_calls_a_perfect_classifier_maximally_unfair_and_we_do_not():
    target, answer = PERFECT.target, PERFECT.answer
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        their = theirs.equalized_odds_difference(target, answer, sensitive_features=list("aaabbb"))
    assert their == 1.0
    outcome = measure("eq_odds_max", PERFECT)
    assert (outcome.value, outcome.coverage) == (None, (1, 2))
    assert outcome.reason == "fewer than two groups with a value: b (no positives among 3 rows)"


@pytest.mark.parametrize("name", ["eq_odds_max", "eq_odds_mean"])
@pytest.mark.parametrize("empty", [0, 1])
def test_aif360_and_aequitas_call_it_perfect_and_we_do_not(name, empty):
    """Python's max(0.0, nan) is 0.0, and pandas skips NaN; either rate may be the empty one."""
    target = np.array([0, 1, 0, 1, 1 - empty, 1 - empty])
    outcome = measure(name, predictions(target, target, "aaaabb"))
    assert outcome.value is None
    assert ("no positives" if empty else "no negatives") in outcome.reason


def test_ffb_hides_a_real_gap_behind_an_empty_cell_and_we_show_it():
    """Group b has no positives, and is accused falsely every time: their 0 is our undefined and FPR gap 1."""
    rows = predictions([1, 0, 0, 0], [1, 0, 1, 1], "aabb")
    assert measure("eq_odds_max", rows).value is None
    assert measure("fpr_gap", rows).value == 1.0


def test_medfair_skips_an_undefined_auc_silently_and_we_say_who_is_left_out():
    p = np.array([0.9, 0.1, 0.8, 0.9, 0.7, 0.2])
    rows = predictions([1, 0, 0, 1, 1, 1], [1, 0, 1, 1, 1, 0], "aabbcc", probabilities=np.column_stack([1 - p, p]))
    outcome = measure("worst_auroc", rows)
    assert (outcome.value, outcome.group, outcome.coverage) == (1.0, "a", (2, 3))
    assert outcome.notes == ("left out: c (no negatives among 2 rows)",)


def test_fairmedfm_dies_when_a_group_has_one_class_and_one_answer_and_we_do_not():
    rows = predictions([1, 0, 0, 0], [1, 1, 0, 0], "aabb")
    codes, _ = rows.groups("group")
    assert [value.value for value in TPR.by_group(rows, codes, 2)] == [1.0, None]
    assert measure("max_acc_gap", rows).value == 0.5


def test_subpopbench_makes_up_a_rate_for_an_empty_class_and_we_leave_it_out():
    rows = predictions([1, 1, 1, 0, 0], [1, 0, 1, 0, 0], "aabcc")
    outcome = measure("worst_tpr", rows)
    assert (outcome.value, outcome.group, outcome.coverage) == (0.5, "a", (2, 3))


def test_fairclip_measures_prevalence_where_we_measure_the_model():
    """With more than two classes their arguments are swapped: a constant answer must have no EqOdds gap."""
    target = np.array([0, 0, 1, 2, 0, 1, 1, 2])
    constant = predictions(target, np.zeros(8, int), "aaaabbbb", ("x", "y", "z"))
    perfect = predictions(target, target, "aaaabbbb", ("x", "y", "z"))
    assert measure("eq_odds_ovr_max", constant).value == 0.0
    assert measure("eq_odds_ovr_max", perfect).value == 0.0
    missing_y = np.where((constant.groups("group")[0] == 1) & (target == 1), 0, target)
    assert measure("eq_odds_ovr_max", predictions(target, missing_y, "aaaabbbb", ("x", "y", "z"))).value == 1.0


def test_gaps_of_opposite_sign_do_not_cancel():
    """AIF360's average odds would be 0: TPR 1 against ½, FPR ½ against 1."""
    rows = predictions([1, 1, 0, 0] * 2, [1, 1, 1, 0, 1, 0, 1, 1], "aaaabbbb")
    assert measure("eq_odds_mean", rows).value == 0.5
    assert measure("eq_odds_max", rows).value == 0.5


def test_unparsed_answers_are_wrong_and_select_nobody():
    rows = predictions([1, 1, 0, 0], [1, -1, -1, 1], "aabb")
    assert [metric.value(rows).value for metric in (ACCURACY, TPR, FPR, SELECTION_RATE)] == [
        0.25,
        0.5,
        0.5,
        0.5,
    ]


@pytest.mark.parametrize("group", ["aaaa", [None] * 4])
def test_one_group_has_no_disparity(group):
    rows = predictions([1, 0, 1, 0], [1, 0, 1, 1], "aaaa")
    rows.table["group"] = pd.array(list(group), dtype="str")
    for rule in disparities(METRICS.values()).values():
        outcome = rule.measure(rows, "group", "keep" if group == "aaaa" else "drop")
        assert outcome.value is None
        assert outcome.reason == ("only one group: a" if group == "aaaa" else "no groups")


@pytest.mark.parametrize(
    ("preset", "value"), [("fairllava", 0.7 / 41), ("fairllava-table", 0.6 / 41), ("fairclip", 0.5)]
)
def test_equity_scaling_by_hand(preset, value):
    """Accuracy .8 on 15 rows and .4 on 5: .7 overall, groups .4 apart, and .1 and .3 off the whole."""
    right = [1] * 12 + [0] * 3 + [1] * 2 + [0] * 3
    rows = predictions([1] * 20, right, "a" * 15 + "b" * 5)
    outcome = disparities(equity=preset)["es_accuracy"]
    assert outcome.preset == preset
    assert outcome.measure(rows, "group").value == pytest.approx(value)


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(FairbenchError, match="fairlava") as refusal:
        disparities(equity="fairlava")
    assert "fairllava" in refusal.value.hint


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(rows=binary_rows, equity=st.sampled_from(list(EQUITY)))
def test_what_evidence_resamples_is_the_disparity_itself(rows, equity):
    target, answer, group, score = columns(rows)
    ours = predictions(target, answer, group, probabilities=np.column_stack([1 - score, score]))
    codes, names = ours.groups("group")
    for rule in disparities(METRICS.values(), equity=equity).values():
        if not rule.row_scored:
            with pytest.raises(FairbenchError, match="not made of means"):
                rates(rule, ours)
            continue
        value = rule.measure(ours, "group").value
        try:
            scores, reduce = rates(rule, ours)
        except Undefined:
            assert value is None
            continue
        members = [[score[(codes == g) & ~np.isnan(score)] for g in range(len(names))] for score in scores]
        means = np.array([[cell.mean() if len(cell) else np.nan for cell in cells] for cells in members])
        sizes = np.array([[len(cell) for cell in cells] for cells in members])
        if isinstance(reduce, str):
            if value is not None:
                assert REDUCTIONS[reduce](means[None], sizes[None])[0] == pytest.approx(value)
        else:
            twice = reduce(np.stack([means, means]), np.stack([sizes, sizes]))
            assert twice.shape == (2,)
            assert math.isnan(twice[0]) if value is None else twice[1] == pytest.approx(value)


def test_every_rule_of_eq_odds_is_made_of_both_rates():
    rows = predictions([1, 0, 1, 0], [1, 0, 1, 1], "aabb")
    for rule in EQ_ODDS:
        scores, reduce = rates(rule, rows)
        np.testing.assert_array_equal(scores, [[1, np.nan, 1, np.nan], [np.nan, 0, np.nan, 1]])
        assert reduce in ("max", "mean")


def test_a_metric_must_be_declared_consistently():
    about = {"name": "m", "title": "M", "formula": "", "source": ""}
    with pytest.raises(FairbenchError, match="either `each` or `over`"):
        Metric(**about)
    with pytest.raises(FairbenchError, match="needs `scores`"):
        Metric(**about, over=lambda rows: 0.0, needs=("scores",))


def test_a_metric_that_returns_nan_is_undefined_and_says_so():
    metric = Metric(name="m", title="M", formula="", source="", over=lambda rows: math.nan)
    assert metric.value(PERFECT).value is None
    assert "nan" in metric.value(PERFECT).reason


def breaks(rows):
    raise KeyError("no such\ncolumn")


def leaves(rows):
    raise SystemExit(0)


def spoils(rows):
    del rows.table["group"]
    rows.table["target"] = 0
    return np.zeros(len(rows))


FAULTY = {  # a plugin's function, and what is said of its metric
    "raises": (breaks, "m failed: KeyError: 'no such\\\\ncolumn'"),
    "exits": (leaves, "m failed: SystemExit: 0"),
    "short": (lambda rows: np.ones(3), r"m gave scores of shape \(3,\) for 6 rows"),
    "square": (lambda rows: np.ones((6, 1)), r"shape \(6, 1\)"),
    "one": (lambda rows: 1.0, r"shape \(\)"),
    "words": (lambda rows: ["yes"] * 6, "m gave no numbers"),
    "nothing": (lambda rows: None, r"shape \(\)"),
    "percent": (lambda rows: np.array([0, 1, 0, 1, 258, 0.0]), "m gave 258 for row 5, outside 0 to 1"),
    "infinite": (lambda rows: np.full(6, np.inf), "m gave inf for row 1, outside 0 to 1"),
    "sorted": (lambda rows: rows.table["target"].sort_values() * 1.0, "another order than the rows"),
}
ROWS = predictions([0, 1, 0, 1, 0, 1], [0, 1, 1, 1, 0, 0], "aaabbb")


@pytest.mark.parametrize("fault", FAULTY)
def test_a_metric_that_goes_wrong_is_undefined_by_name_and_the_rest_goes_on(fault):
    each, reason = FAULTY[fault]
    faulty = Metric(name="m", title="M", formula="", source="", each=each)
    scores = score(ROWS, ["group"], [faulty])
    assert re.search(reason, scores.overall.metrics["m"].reason)
    assert scores.overall.metrics["m"].value is None
    assert scores.overall.metrics["accuracy"].value == pytest.approx(4 / 6)
    assert scores.attributes["group"].disparities["m_gap"].value is None
    assert scores.attributes["group"].disparities["max_acc_gap"].value == 0


@pytest.mark.parametrize(
    ("over", "reason"),
    [
        (breaks, "m failed: KeyError"),
        (lambda rows: 258, "m came out as 258, outside 0 to 1"),
        (lambda rows: np.ones(2), "m came out as no number"),
        (lambda rows: None, "m came out as no number"),
    ],
)
def test_a_number_over_rows_that_goes_wrong_is_undefined_by_name(over, reason):
    value = Metric(name="m", title="M", formula="", source="", over=over).value(ROWS)
    assert value.value is None
    assert reason in value.reason


def test_a_metric_cannot_change_the_rows_that_others_see():
    scores = score(ROWS, ["group"], [Metric(name="m", title="M", formula="", source="", each=spoils)])
    assert scores.attributes["group"].groups["a"].counts["positives"] == 1
    assert scores.overall.metrics["accuracy"].value == pytest.approx(4 / 6)


def test_what_a_value_depends_on_may_be_unknown():
    def gone():
        raise OSError("no disk")

    metric = Metric(name="m", title="M", formula="", source="", over=lambda rows: 0.5, made_with=gone)
    assert score(ROWS, [], [metric]).made_with == {"m": "not known: OSError: no disk"}


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_stays_in_its_range_and_says_why_it_has_no_value(name):
    metric, draw = METRICS[name], np.random.default_rng(3)
    for n in (1, 2, 5, 40):
        target, answer, p = draw.integers(0, 2, n), draw.integers(-1, 2, n), draw.random(n)
        for probabilities in (np.column_stack([1 - p, p]), None):
            value = metric.value(predictions(target, answer, "a" * n, probabilities=probabilities))
            if value.value is None:
                assert value.reason
            else:
                assert metric.low <= value.value <= metric.high
