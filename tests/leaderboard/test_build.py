"""Leaderboards built from small made-up runs, whose truth is known."""

import json
import re
import subprocess
import sys
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
from builders import BASE, GROUPS, accuracy_of, add, patients

from fairbench.errors import FairbenchError
from fairbench.jobs.conversion import to_json
from fairbench.jobs.job import Choice, Job, Record, Stage
from fairbench.jobs.store import Store
from fairbench.leaderboard.answers import Answers, contrast, interaction_with
from fairbench.leaderboard.board import Board, FurtherMeasure, MeasuredRow
from fairbench.leaderboard.build import build, gather
from fairbench.leaderboard.collect import joined, load
from fairbench.leaderboard.sentences import finding, notes
from fairbench.leaderboard.suppression import withhold
from fairbench.leaderboard.tables import Options
from fairbench.metrics.metric import Metric, registry
from fairbench.predictions.groups import Groups
from fairbench.predictions.predictions import Predictions
from fairbench.report import render
from fairbench.statistics.ranking import opposite
from fairbench.statistics.results import Difference, Gap

# A metric that scores rows by something else than right or wrong.
OVERLAP = Metric(
    name="overlap",
    title="Overlap",
    formula="share of the reference's words",
    source="this test",
    each=lambda rows: np.array(
        [
            np.isin(r.split(), t.split()).mean()
            for t, r in zip(rows.table["text"], rows.table["reference"], strict=True)
        ]
    ),
    needs=("text",),
)


def wrote(store, name, words, *, about=None, seed=0):
    """Leave a record and texts that hold `words[i]` of the four words of the reference."""
    table = patients(GROUPS).drop(columns="target")
    table["reference"] = "a b c d"
    table["text"] = [" ".join("abcd"[:n]) for n in words]
    attributes = () if about else ("race",)
    job = Job(Choice("toy", {}, "", "d"), Choice("tiny", {}, "", "w"), Choice(name), (Stage(),), attributes, seed)
    store.prepare(job)
    predictions = Predictions(table, (), ("race", "gender"), "generate")
    predictions.save(store.folder(job) / "predictions.parquet")
    about = {"measure": "overlap", **(about or {})}
    store.save(Record(job, "2026-11-21", {"train": 1.0}, 1, 1, 1, 1, versions={"fairbench": "0"}, **about))


def test_texts_are_judged_by_the_measure_that_their_dataset_names(store):
    rng = np.random.default_rng(0)
    worse, better = rng.integers(0, 3, 1000), rng.integers(2, 5, 1000)
    worse[300:] += 2  # white patients get two words more
    wrote(store, "vanilla", worse, about=BASE)
    wrote(store, "fair", better)
    whole = replace(OVERLAP, name="whole", title="Whole", each=lambda rows: (rows.table["text"] == "a b c d") * 1.0)
    (table,) = build(store, metrics=(OVERLAP, whole)).tables
    rows = {row.label: row for row in table.rows}
    (beside,) = table.further
    assert [row.label for row in beside.rows] == [row.label for row in table.rows]
    measured = {row.label: row for row in beside.rows}
    assert measured["vanilla"].score.value == pytest.approx((worse == 4).mean())
    assert measured["vanilla"].gap.value == pytest.approx((worse[300:] == 4).mean() - (worse[:300] == 4).mean())
    assert measured["fair"].change.value == pytest.approx(
        measured["fair"].gap.value - measured["vanilla"].gap.value
    )
    assert measured["vanilla"].change.value is None
    gap = worse[300:].mean() / 4 - worse[:300].mean() / 4
    assert table.measure.title == "Overlap"
    assert rows["vanilla"].score.value == pytest.approx(worse.mean() / 4)
    assert rows["vanilla"].gap.value == pytest.approx(gap)
    assert rows["vanilla"].gap.p < 0.001 < rows["fair"].gap.p
    assert rows["fair"].changes["gap"].adjusted < 0.05
    assert rows["vanilla"].equity_scaled.value == pytest.approx(worse.mean() / 4 / (1 + 100 * gap))
    assert [rows[name].rank for name in ("fair", "vanilla")] == ["1", "2"]
    assert table.constant.answer == "a b c d"
    assert rows["vanilla"].auroc.value is None
    page = render(Board("b", (table,), "0"), "md")
    assert "Overlap gap (points)" in page
    assert "**By Whole**" in page
    assert "MaxAccGap**:" not in page
    assert "- **Overlap**: " in page
    assert "MaxAccGap (points)" not in page


def test_a_table_is_not_judged_by_what_scores_no_rows(store):
    vanilla(store)
    rate = Metric(name="f", title="F", formula="", source="", over=lambda rows: 1.0)
    with pytest.raises(FairbenchError, match="cannot be judged by f"):
        build(store, metrics=(rate,), measure="f")
    with pytest.raises(FairbenchError, match="no metric is called `acuracy`"):
        build(store, measure="acuracy")


def test_a_row_that_the_measure_cannot_score_is_left_out_with_the_reason(store):
    vanilla(store)
    add(store, "all", accuracy_of({"black": 1.0, "white": 1.0}, seed=1))

    def half(rows):
        return (rows.answer == rows.target) / (0 if (rows.answer == rows.target).all() else 2)

    mine = Metric(name="half", title="Half", formula="", source="", each=half)
    table, rows = only(build(store, metrics=(mine,), measure="half"))
    assert {*rows} == {"vanilla"}
    assert [(one.label, one.status, one.reason) for one in table.excluded] == [
        ("all", "refused", "half gave inf for row 1, outside 0 to 1")
    ]


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs")


def vanilla(store, black=0.65, white=0.9, correct=None, **more):
    shares = correct or {"black": black, "white": white}
    groups = GROUPS if correct is None else more["table"].groupby("race", sort=False).size().to_dict()
    return add(store, "vanilla", accuracy_of(shares, groups), attributes=(), about=BASE, **more)


def only(board):
    (table,) = board.tables
    return table, {row.label: row for row in table.rows}


def codes(row):
    return {flag.code for flag in row.flags}


@pytest.mark.slow
def test_the_glaucoma_paper_is_a_seven_way_tie(store, shared):
    paper = json.loads((shared / "reference" / "glaucoma_tables_1_2.json").read_text())
    table = patients(paper["n"]).rename(columns={"race": "ethnicity"}).drop(columns="gender")
    for entry in paper["rows"]:
        name, _, strength = entry["method"].partition(" lambda=")
        correct = np.concatenate([np.arange(n) < entry["correct"][g] for g, n in paper["n"].items()])
        table["answer"] = np.where(correct, table["target"], 1 - table["target"])
        settings = {"strength": float(strength)} if strength else {}
        job = Job(Choice("d"), Choice("b"), Choice(name, settings), (), ("ethnicity",))
        store.prepare(job)
        Predictions(table, ("no", "yes"), ("ethnicity",)).save(store.folder(job) / "predictions.parquet")
        store.save(Record(job, "2026", role="baseline" if name == "vanilla" else "contender"))

    outcome, rows = only(build(store))

    conclusion, chance, *_ = finding(outcome)
    assert conclusion == (
        "vanilla is not shown to treat groups of ethnicity unequally. Nothing here is shown to be fairer than"
        " vanilla."
    )
    assert chance.startswith(
        "No method's gap between groups of ethnicity exceeds what chance gives on 2,000 patients"
    )
    assert {row.rank for row in build(store, ranking="gap").tables[0].rows} == {"1-7"}
    assert {name: row.rank for name, row in rows.items() if row.rank != "1-6"} == {"zero-shot": "7"}  # accuracy
    for entry in paper["rows"]:
        name, _, strength = entry["method"].partition(" lambda=")
        row = rows[f"{name}(strength={strength})" if strength else name]
        assert 100 * row.score.value == pytest.approx(entry["published"]["accuracy_pct"], abs=0.005)
        assert 100 * row.gap.value == pytest.approx(entry["published"]["max_acc_gap_pp"], abs=0.005)
        assert 100 * row.gap.floor_mean == pytest.approx(7.3, abs=0.2)  # derived in the reference
        assert row.gap.p > 0.5
        assert not row.changes or row.changes["gap"].adjusted > 0.5
    assert (outcome.trials.methods, outcome.trials.settings, outcome.trials.trainings) == (5, 7, 7)


def test_a_true_difference_of_25_points_is_found(store):
    vanilla(store, black=0.65, white=0.9)
    add(store, "fair", accuracy_of({"black": 0.9, "white": 0.9}, seed=1))
    add(store, "idle", accuracy_of({"black": 0.66, "white": 0.9}, seed=2))

    table, rows = only(build(store))

    assert [row.label for row in table.rows] == ["fair", "vanilla", "idle"]
    assert [row.rank for row in table.rows] == ["1", "2-3", "2-3"]
    change = rows["fair"].changes["gap"]
    assert change.value == pytest.approx(-0.25)
    assert change.low < -0.25 < change.high < 0
    assert change.adjusted < 0.01
    assert rows["fair"].changes["worst_group"].value == pytest.approx(0.25)
    assert rows["vanilla"].gap.p < 0.001 < rows["fair"].gap.p
    text = " ".join(finding(table))
    assert "MaxAccGap of vanilla and idle and EqOdds(max) of vanilla and idle exceed" in text
    assert "fair (25.0 points) has a smaller MaxAccGap than vanilla" in text
    assert "fair (7.5 points) gained accuracy." in text
    assert "fair moved black up by 25.0 points" in text
    assert text.startswith(
        "vanilla treats groups of race unequally, beyond chance: MaxAccGap of 25.0 points and EqOdds(max) of"
    )
    assert (
        "Shown to treat groups more alike than vanilla, with no loss shown in accuracy, worst group or gaps: fair."
        in text
    )
    assert not codes(rows["fair"])


def test_a_gap_beyond_chance_of_several_images_a_patient_is_said_of_clusters(store):
    twice = patients(GROUPS).assign(cluster=np.arange(1000) // 2)
    vanilla(store, black=0.9)
    add(store, "m", accuracy_of({"black": 0.4, "white": 0.9}))
    one = finding(only(build(store, attributes=["race"]))[0])[1]
    assert "MaxAccGap of m and EqOdds(max) of m exceed what chance gives on 1,000 patients" in one
    for name, correct in (("vanilla", {"black": 0.9, "white": 0.9}), ("m", {"black": 0.4, "white": 0.9})):
        add(store, name, accuracy_of(correct), table=twice, fingerprint="d2", started="2026-12")
    table, _ = only(build(store, attributes=["race"]))
    assert "exceed what chance gives on 1,000 test rows in 500 clusters" in finding(table)[1]


def test_the_corrected_variance_between_groups_is_unbiased_by_hand(store):
    vanilla(store)
    add(store, "equal", accuracy_of({"black": 0.8, "white": 0.8}))
    _, rows = only(build(store))
    own = 0.65 * 0.35 / 299 + 0.9 * 0.1 / 699  # p (1 - p) / (n - 1), unbiased of a mean's variance
    expected = np.var([0.65, 0.9], ddof=1) - own / 2
    assert rows["vanilla"].between_groups.value == pytest.approx(expected)
    sampling = 0.16 * (1 / 299 + 1 / 699) / 2
    assert rows["equal"].between_groups.value == pytest.approx(-sampling)


def test_seeds_and_samples_are_told_apart(store):
    """`shaky` trains to another gap every time; `steady` gives the same answers every time."""
    for seed, black in enumerate((0.5, 0.7, 0.9)):
        vanilla(store, seed=seed)
        add(store, "shaky", accuracy_of({"black": black, "white": 0.9}), seed=seed)
        add(store, "steady", accuracy_of({"black": 0.5, "white": 0.9}), seed=seed)
    add(store, "once", accuracy_of({"black": 0.5, "white": 0.9}))
    _, rows = only(build(store))
    shaky, steady, once = (rows[name].gap_variance for name in ("shaky", "steady", "once"))
    assert shaky.seed == pytest.approx(np.var([0.4, 0.2, 0.0], ddof=1))
    assert "more seeds" in shaky.advice
    assert steady.seed == pytest.approx(0)
    assert "more test patients" in steady.advice
    assert once.seed is None
    assert "at least three" in once.advice
    textbook = 0.5 * 0.5 / 300 + 0.9 * 0.1 / 700  # the variance of a difference of two means
    assert steady.sample == pytest.approx(textbook, rel=0.1)
    assert once.sample == pytest.approx(textbook, rel=0.1)


def test_the_detectable_improvement_is_of_what_was_measured(store):
    vanilla(store)
    base, other = accuracy_of({"black": 0.65, "white": 0.9}), accuracy_of({"black": 0.7, "white": 0.9}, seed=1)
    add(store, "m", other)
    improvement = only(build(store))[0].improvement
    assert improvement.score == pytest.approx(base.mean())
    assert improvement.agreement == pytest.approx((base == other).mean())
    assert improvement.gap == pytest.approx(0.25)
    # A cut of the gap by d is a shift of the difference of two paired means; z from the normal table.
    deviation = np.sqrt((1 - improvement.agreement) * (1 / 300 + 1 / 700))
    assert improvement.cut.value == pytest.approx((1.96 + 0.84) * deviation, rel=0.15)


def test_no_detectable_improvement_says_so(store):
    vanilla(store, black=0.88)
    add(store, "m", accuracy_of({"black": 0.7, "white": 0.9}, seed=1))
    board = build(store)
    assert only(board)[0].improvement.cut.value is None
    assert "80 % power, whichever group holds the gap: even removing the whole gap would go" in render(board, "md")


def test_turning_a_comparison_round_is_comparing_the_other_way():
    there = Difference(0.1, -0.02, 0.3, p=0.2)
    assert opposite(there) == Difference(-0.1, -0.3, 0.02, p=0.2)
    assert opposite(opposite(there)) == there
    assert opposite(Difference(reason="why")).reason == "why"


def test_levelling_down_is_marked_and_levelling_up_is_not(store):
    vanilla(store)
    add(store, "down", accuracy_of({"black": 0.65, "white": 0.66}, seed=1))
    add(store, "up", accuracy_of({"black": 0.85, "white": 0.89}, seed=2))
    _, rows = only(build(store))
    assert "levelling down" in codes(rows["down"])
    assert "levelling down" not in codes(rows["up"])
    assert [c.group for c in rows["down"].interactions["score"].contrasts] == ["white"]  # it went down
    assert rows["down"].interactions["score"].contrasts[0].high < 0
    assert rows["down"].changes["gap"].adjusted < 0.05


def test_a_trade_off_is_marked_and_not_ordered(store):
    """`even` fails everybody alike: its gap is smaller, its accuracy and worst group are lower."""
    vanilla(store)
    add(store, "even", accuracy_of({"black": 0.55, "white": 0.56}, seed=1))
    _, rows = only(build(store))
    assert {row.rank for row in rows.values()} == {"1-2"}
    assert rows["even"].trade_offs == ("better than vanilla in the gap, worse overall and in the worst group",)
    assert "even gained in one respect and lost in another" in finding(only(build(store))[0])[0]
    by = {ranking: only(build(store, ranking=ranking))[1] for ranking in ("gap", "score", "worst-group", "dto")}
    ranks = {ranking: (ranked["vanilla"].rank, ranked["even"].rank) for ranking, ranked in by.items()}
    assert ranks == {"gap": ("2", "1"), "score": ("1", "2"), "worst-group": ("1", "2"), "dto": ("1", "2")}


def test_the_first_sentence_warns_of_whom_the_tests_show_to_be_less_fair(store):
    """`wide` helps the better-off group and harms the other, at the same accuracy."""
    vanilla(store)
    add(store, "wide", accuracy_of({"black": 0.5, "white": 0.999}, seed=1))
    said = finding(only(build(store))[0])[0]
    warning = "Shown to treat them less alike: wide."
    assert said.endswith(f". Nothing here is shown to treat groups more alike than vanilla. {warning}")
    add(store, "even", accuracy_of({"black": 0.9, "white": 0.9}, seed=2))
    said = finding(only(build(store))[0])[0]
    assert ". Shown to treat groups more alike than vanilla" in said
    assert said.endswith(f": even. {warning}")


def test_who_is_only_more_accurate_is_not_said_to_treat_groups_more_alike(store):
    vanilla(store, black=0.7, white=0.7)
    add(store, "better", accuracy_of({"black": 0.9, "white": 0.9}, seed=1))
    said = finding(only(build(store))[0])[0]
    assert said.endswith(
        "Nothing here is shown to treat groups more alike than vanilla. Shown to serve the worst-served group"
        " better, with no loss shown: better."
    )


def test_planned_comparisons_are_adjusted_among_themselves(store):
    vanilla(store, black=0.8)
    for seed in range(6):
        add(store, f"m{seed}", accuracy_of({"black": 0.8 + 0.012 * seed, "white": 0.9}, seed=seed))
    rows = only(build(store))[1]
    table, planned = only(build(store, primary=["m5"]))
    assert table.primary == ("m5",)
    assert any("Planned comparisons with vanilla, adjusted among themselves: m5." in note for note in notes(table))
    for name, criteria in (("m5", 3), ("m4", 18 * 3)):  # 21 pairs, of which one is planned
        change = planned[name].changes["gap"]
        assert change.adjusted <= min(1, criteria * change.p) + 1e-9
    assert planned["m5"].changes["gap"].adjusted < rows["m5"].changes["gap"].adjusted


def test_ranks_may_count_eq_odds_too(store):
    table = patients(GROUPS)
    ill, black = (table["target"] == 1).to_numpy(), (table["race"] == "black").to_numpy()
    number = np.arange(len(table))
    uneven = np.where(black, np.where(ill, number % 10 < 4, True), number % 10 < 8)
    vanilla(store, table=table, correct={"black": 0.7, "white": 0.8})
    add(store, "odd", uneven, table=table)
    assert "eq_odds_max" in only(build(store, ranking="dominance-odds"))[1]["odd"].changes
    (row,) = [r for r in build(store, ranking="dominance-odds").tables[0].rows if r.label == "odd"]
    assert row.changes["eq_odds_max"].value > 0.2
    assert row.changes["eq_odds_max"].significant
    assert row.rank == "2"


def screened(groups, prevalence, sensitivity, specificity):
    """Patients of whom a share is ill in every group, answered at one sensitivity and specificity."""
    table = patients(groups)
    table["target"] = np.concatenate([np.arange(n) < round(prevalence[g] * n) for g, n in groups.items()]).astype(
        int
    )
    right = np.zeros(len(table), dtype=bool)
    for (_, target), rows in table.groupby(["race", "target"]).groups.items():
        right[rows] = np.arange(len(rows)) < round((sensitivity if target else specificity) * len(rows))
    return table, right


def test_a_screening_model_has_learned_though_a_constant_is_more_accurate(store):
    table, right = screened({"black": 1000, "white": 1000}, {"black": 0.02, "white": 0.02}, 0.9, 0.9)
    add(store, "screen", right, table=table)
    outcome, rows = only(build(store))
    assert rows["screen"].score.value < outcome.constant.score
    assert "has not learned" not in codes(rows["screen"])


def test_a_gap_that_the_mix_of_classes_makes_is_flagged_as_such(store):
    table, right = screened({"black": 1000, "white": 1000}, {"black": 0.12, "white": 0.25}, 0.5, 0.95)
    add(store, "m", right, table=table)
    outcome, rows = only(build(store))
    row = rows["m"]
    assert (
        "the MaxAccGap of m is not shown to exceed chance; always answering “no” shows 13.0 points."
        in finding(outcome)[2]
    )
    assert row.gap.adjusted < 0.01
    assert row.standardised_gap.value == pytest.approx(0, abs=0.01)
    assert "case mix" in codes(row)
    add(store, "vanilla", right, attributes=(), about=BASE, table=table)
    said = finding(only(build(store))[0])[0]
    assert said.startswith("vanilla is not shown to treat groups of race unequally.")


def test_a_worst_group_of_the_unrecorded_is_flagged(store):
    table = patients({"black": 300, "white": 300, "other": 60})
    table["race"] = table["race"].where(table["race"] != "other")
    right = np.concatenate([np.arange(300) < 240, np.arange(300) < 240, np.arange(60) < 20])
    add(store, "m", right, table=table)
    row = only(build(store))[1]["m"]
    assert row.worst_group.group == "unrecorded"
    assert "unrecorded worst" in codes(row)


def test_a_worst_group_that_got_worse_is_marked(store):
    vanilla(store)
    add(store, "harm", accuracy_of({"black": 0.4, "white": 0.9}, seed=1))
    _, rows = only(build(store))
    assert "worst group worse" in codes(rows["harm"])


def test_seeds_are_averaged_gap_by_gap(store):
    shares = [{"black": 0.6, "white": 0.8}, {"black": 0.8, "white": 0.7}, {"black": 0.7, "white": 0.7}]
    for seed, share in enumerate(shares):
        add(store, "m", accuracy_of(share, seed=seed), seed=seed)
        vanilla(store, seed=seed)
    table, rows = only(build(store))
    row = rows["m"]
    assert row.seeds == (0, 1, 2)
    assert row.gap.value == pytest.approx((0.2 + 0.1 + 0.0) / 3)
    assert row.worst_group.value == pytest.approx((0.6 + 0.7 + 0.7) / 3)
    assert row.groups[0].value == pytest.approx(0.7)
    assert row.changes["gap"].value == pytest.approx(0.1 - 0.25)
    assert row.gap.low <= row.gap.value <= row.gap.high
    assert row.groups[0].low < 0.7 < row.groups[0].high
    assert any("mean over them" in note for note in notes(table))
    assert table.groups[0].n == 300  # patients, not patients times seeds


def test_aurocs_of_seeds_that_differ_are_bounded_as_a_sample():
    """The interval of three trainings is that of their mean, not the mean of their intervals."""
    rng, target = np.random.default_rng(0), np.arange(2000) % 2
    each = []
    for apart in (0.5, 1.0, 1.5):
        score = 1 / (1 + np.exp(-(apart * target + rng.normal(size=2000))))
        table = pd.DataFrame({"target": target, "answer": target, "p_0": 1 - score, "p_1": score})
        each.append(Predictions(table, ("no", "yes")))
    everyone = Groups.everyone(each[0].table)
    together = Answers((0, 1, 2), tuple(each)).auroc(everyone)
    alone = [Answers((0,), (one,)).auroc(everyone) for one in each]
    assert together.value == pytest.approx(np.mean([one.value for one in alone]))
    assert together.low < min(one.value for one in alone) < max(one.value for one in alone) < together.high


def test_all_rows_say_together_how_far_seeds_scatter(store):
    """Of one row three seeds leave two degrees of freedom for two groups; tests use those of all rows."""
    rng, n = np.random.default_rng(0), sum(GROUPS.values())
    luck, white = rng.random(n), np.arange(n) >= GROUPS["black"]
    rates = {
        "vanilla": (0.7, 0.8),
        "fair": (0.8, 0.8),
        "fairer": (0.8, 0.8),
        "worst": (0.6, 0.8),
        "other": (0.7, 0.8),
    }
    for name, (black, other) in rates.items():
        for seed in range(3):
            drawn = np.where(rng.random(n) < 0.9, luck, rng.random(n))
            about = BASE if name == "vanilla" else {}
            add(store, name, drawn < np.where(white, other, black), seed=seed, about=about)
    (table,) = build(store).tables
    rows = {row.label: row for row in table.rows}
    groups = Groups.of(patients(GROUPS), "race", "keep")
    answers = {}
    for name in rows:
        mine = sorted((r for r in store.contents().records if r.job.method.name == name), key=lambda r: r.job.seed)
        answers[name] = Answers((0, 1, 2), tuple(store.predictions(record) for record in mine))
    for name in ("vanilla", "worst"):
        assert rows[name].gap.p < answers[name].gap(groups).p / 3
    alone = interaction_with(answers["fair"], answers["vanilla"], groups)
    assert rows["fair"].interactions["score"].p < alone.p / 3
    assert rows["fair"].interactions["score"].significant
    assert rows["fair"].changes["gap"].p < contrast(answers["fair"], answers["vanilla"], groups).gap.p


def test_eq_odds_of_several_seeds_matches_a_plain_computation(store):
    gaps = []
    for seed in range(2):
        correct = accuracy_of({"black": 0.6, "white": 0.8}, seed=seed)
        vanilla(store, seed=seed)
        add(store, "m", correct, seed=seed)
        rows = patients(GROUPS).assign(right=correct)
        rates = rows.groupby(["target", "race"])["right"].mean().unstack()  # TPR, and 1 - FPR
        gaps.append((rates.max(axis=1) - rates.min(axis=1)).max())
    odds = only(build(store))[1]["m"].eq_odds_max
    assert odds.value == pytest.approx(np.mean(gaps))
    assert odds.low <= odds.value <= odds.high
    assert 0 < odds.floor_mean < odds.floor_95 < odds.value
    assert (odds.p <= 0.05) == (odds.low > 0)  # two seeds that share nothing say little about a third


def test_failed_unfinished_unreadable_and_missing_seeds_are_shown(store):
    for seed in range(2):
        vanilla(store, seed=seed)
    right = accuracy_of({"black": 0.7, "white": 0.9})
    add(store, "m", right)
    add(store, "m", right, seed=1, error="the loss is not finite at step 3")
    broken = add(store, "torn", right)
    (store.folder(broken) / "predictions.parquet").write_bytes(b"PAR1 torn")
    waiting = add(store, "slow", right)
    (store.folder(waiting) / "record.json").unlink()

    table, rows = only(build(store))

    assert {(a.label, a.seed, a.status) for a in table.excluded} == {
        ("m", 1, "failed"),
        ("torn", 0, "unreadable"),
        ("slow", 0, "unfinished"),
    }
    assert any("not finite at step 3" in a.reason for a in table.excluded)
    assert "missing seeds" in codes(rows["m"])
    assert rows["m"].changes["gap"].value is not None  # on the seed both have
    assert table.trials.trainings == 5


@dataclass(frozen=True)
class LaterBoard(Board):
    licence: str = "CC0"


def test_a_board_survives_json_and_a_new_field_with_a_default(store):
    vanilla(store)
    add(store, "m", accuracy_of({"black": 0.7, "white": 0.9}))
    board = build(store)
    written = json.loads(json.dumps(board.to_json()))
    assert Board.from_json(written) == board
    assert LaterBoard.from_json(written).licence == "CC0"
    for bad in ({**written, "colour": "red"}, {**written, "tables": "none"}, [], {"title": "x"}):
        with pytest.raises(FairbenchError, match="is not a leaderboard"):
            Board.from_json(bad)


def test_a_table_of_failures_says_so(store):
    add(store, "m", None, error="out of memory")
    table, rows = only(build(store))
    assert not rows
    assert "No job of this table finished" in finding(table)[0]


def test_old_versions_are_marked_and_other_data_refused(store):
    right = accuracy_of({"black": 0.7, "white": 0.9})
    vanilla(store, started="2026-11-20")
    add(store, "old", right, version="their-plugin 1.0", started="2026-11-01")
    add(store, "new", right, version="their-plugin 2.0", started="2026-11-20")
    add(store, "ancient", right, versions={"fairbench": "0.0.1"}, started="2026-11-01")
    add(store, "elsewhere", right, fingerprint="data-0", started="2026-11-01")

    table, rows = only(build(store))

    assert {label for label, row in rows.items() if "stale" in codes(row)} == {"old", "ancient"}
    assert "their-plugin 1.0, now 2.0" in next(f.detail for f in rows["old"].flags if f.code == "stale")
    assert [(a.label, a.status) for a in table.excluded] == [("elsewhere", "refused")]
    assert "elsewhere" not in rows


def test_rows_of_other_recipes_or_versions_are_never_averaged(store):
    vanilla(store)
    right = accuracy_of({"black": 0.7, "white": 0.9})
    add(store, "m", right, seed=0, started="2026-11-22")
    add(store, "m", right, seed=1, batch_size=16)
    add(store, "m", right, seed=2, version="fairbench 0.0.9")
    _, rows = only(build(store))
    assert {row.seeds for label, row in rows.items() if label.startswith("m")} == {(0,), (1,), (2,)}
    assert "other recipe" in codes(rows["m [batch size 16]"])
    assert "stale" in codes(rows["m [method fairbench 0.0.9]"])


def test_other_patients_are_refused(store):
    vanilla(store, started="2026-12-01")
    fewer = {"black": 300, "white": 699}
    add(store, "m", accuracy_of({"black": 0.7, "white": 0.9}, fewer), table=patients(fewer))
    table, _ = only(build(store))
    assert table.excluded[0].status == "refused"
    assert "not about the same rows" in table.excluded[0].reason


def test_rows_are_matched_by_id_whatever_their_order(store):
    vanilla(store, started="2026-12-01")
    right = accuracy_of({"black": 0.7, "white": 0.9})
    add(store, "m", right)
    shuffled = patients(GROUPS).sample(frac=1, random_state=0)
    add(store, "shuffled", right[shuffled.index], table=shuffled)
    _, rows = only(build(store))
    assert rows["m"].changes["score"] == rows["shuffled"].changes["score"]


def test_a_row_that_beats_no_control_has_not_learned(store):
    vanilla(store)
    commonest = patients(GROUPS)["target"].value_counts(normalize=True).max()
    add(
        store,
        "blank",
        accuracy_of({"black": 0.7, "white": 0.7}),
        attributes=(),
        about={"role": "control", "stands_for": "image-ablated"},
    )
    add(store, "guesses", accuracy_of({"black": 0.53, "white": 0.53}, seed=3))
    add(store, "as-blank", accuracy_of({"black": 0.71, "white": 0.7}, seed=4))

    table, rows = only(build(store))

    assert table.constant.score == pytest.approx(commonest)
    assert "blank" not in rows
    assert [row.label for row in table.controls] == ["blank"]
    assert {label for label, row in rows.items() if "has not learned" in codes(row)} == {"guesses", "as-blank"}
    (detail,) = [flag.detail for flag in rows["as-blank"].flags if flag.code == "has not learned"]
    assert "the control blank" in detail
    assert "commonest" not in detail
    assert table.trials.methods == 3  # controls are not tries


def test_a_row_of_one_answer_makes_no_finding(store):
    """Its scores may rank patients; its EqOdds of 0 would make it the fairest of all."""
    vanilla(store)
    people = patients(GROUPS)
    add(store, "always", (people["target"] == 1).to_numpy().astype(float), attributes=("race",))
    table, rows = only(build(store))
    assert "one answer" in codes(rows["always"])
    assert rows["always"].eq_odds_max.adjusted is None
    said = finding(table)
    assert "always" not in said[0]
    assert any("one answer" in sentence or "not shown to tell" in sentence for sentence in said[1:])


def test_where_every_seeds_model_has_learned_the_row_has(store):
    """The mean over all that could be trained has 1 degree of freedom with two seeds, and says nothing."""
    vanilla(store)
    for seed, right in ((0, 0.72), (1, 0.88)):
        add(store, "varies", accuracy_of({"black": right, "white": right}, seed=seed), seed=seed)
    _, rows = only(build(store))
    assert "has not learned" not in codes(rows["varies"])


def test_where_all_are_of_one_class_nothing_shows_that_a_row_has_learned(store):
    people = patients(GROUPS).assign(target=1)
    vanilla(store, table=people)
    add(store, "mine", accuracy_of({"black": 0.7, "white": 0.9}), table=people)
    _, rows = only(build(store))
    for row in rows.values():
        (detail,) = [flag.detail for flag in row.flags if flag.code == "has not learned"]
        assert detail.endswith("is undefined on these rows, so nothing shows that it has")


def test_a_row_below_a_reference_is_flagged_and_has_learned_all_the_same(store):
    vanilla(store)
    good = {"black": 0.95, "white": 0.95}
    about = {"role": "reference", "stands_for": "a regression"}
    add(store, "regression", accuracy_of(good, seed=5), attributes=(), about=about)
    add(store, "weak", accuracy_of({"black": 0.75, "white": 0.75}, seed=3))
    add(store, "as-good", accuracy_of(good, seed=4))

    table, rows = only(build(store))

    assert [row.label for row in table.controls] == ["regression"]
    assert "below a reference" in codes(rows["weak"])
    assert "below a reference" not in codes(rows["as-good"])
    assert not any("has not learned" in codes(row) for row in rows.values())
    (detail,) = [flag.detail for flag in rows["weak"].flags if flag.code == "below a reference"]
    assert "points lower than that of regression" in detail


def test_attributes_get_their_own_tables_and_intersections(store):
    vanilla(store)
    right = accuracy_of({"black": 0.7, "white": 0.9})
    add(store, "m", right)
    add(store, "m", right, attributes=("gender",))
    add(store, "both", right, attributes=("race", "gender"))

    tables = {table.attribute: table for table in build(store).tables}

    assert [*tables] == ["gender", "race", "race+gender"]
    assert {row.label for row in tables["race"].rows} == {"vanilla", "m", "both for race+gender"}
    assert {row.label for row in tables["race+gender"].rows} == {"vanilla", "both"}
    assert {group.name for group in tables["race+gender"].groups} == {
        f"{race}×{gender}" for race in ("black", "white") for gender in ("female", "male")
    }
    (effect,) = tables["race"].side_effects
    assert (effect.label, effect.attribute) == ("m", "gender")
    by_gender = patients(GROUPS).assign(right=right).groupby("gender")["right"].mean()
    assert effect.gap == pytest.approx(by_gender.max() - by_gender.min())
    assert tables["race+gender"].side_effects == ()


def test_without_training_for_attributes_every_attribute_has_a_table(store):
    vanilla(store)
    assert [table.attribute for table in build(store).tables] == ["race", "gender"]
    assert [table.attribute for table in build(store, attributes=["gender"]).tables] == ["gender"]


def test_a_method_trained_for_several_attributes_stands_in_the_table_of_each(store):
    vanilla(store)
    add(store, "m", accuracy_of({"black": 0.7, "white": 0.9}))
    add(store, "m", accuracy_of({"black": 0.8, "white": 0.9}, seed=1), attributes=("race", "gender"))
    tables = {table.attribute: table for table in build(store, attributes=["race", "gender", "race+gender"]).tables}
    assert {row.label for row in tables["race"].rows} == {"vanilla", "m", "m for race+gender"}
    assert {row.label for row in tables["gender"].rows} == {"vanilla", "m for race+gender"}
    assert {row.label for row in tables["race+gender"].rows} == {"vanilla", "m"}
    gaps = {row.label: row.gap.value for row in tables["race"].rows}
    assert gaps["m for race+gender"] == pytest.approx(0.1)
    assert gaps["m"] == pytest.approx(0.2)


def test_methods_that_step_outside_the_rules_are_marked(store):
    vanilla(store)
    right = accuracy_of({"black": 0.7, "white": 0.9})
    add(store, "longer", right, about={"stages": ()})
    add(store, "as-told", right, about={"stages": (Stage(),)})
    add(store, "peeks", right, about={"adjusts_with_group": True})
    add(store, "looks", right, about={"looks": 3})
    _, rows = only(build(store))
    assert "† own stages" in codes(rows["longer"])
    assert not {"† own stages", "‡ knows groups"} & codes(rows["as-told"])
    assert "‡ knows groups" in codes(rows["peeks"])
    assert "¶ chooses on validation" in codes(rows["looks"]) - codes(rows["peeks"])


def test_no_baseline_no_differences(store):
    add(store, "m", accuracy_of({"black": 0.7, "white": 0.9}))
    table, rows = only(build(store))
    assert table.baseline is None
    assert not rows["m"].changes
    assert any("no baseline" in sentence for sentence in finding(table))


def test_one_group_and_one_class_are_undefined_not_zero(store):
    table = patients({"black": 40, "white": 0})
    table["target"] = 1
    add(store, "m", np.arange(40) < 20, table=table)
    _, rows = only(build(store))
    row = rows["m"]
    assert row.gap.value is None
    assert row.eq_odds_max.value is None
    assert row.auroc.value is None
    assert row.worst_group.value is None
    assert all(x.reason for x in (row.gap, row.eq_odds_max, row.auroc, row.worst_group))


def test_only_the_keys_asked_for(store):
    key = vanilla(store).key
    add(store, "m", accuracy_of({"black": 0.7, "white": 0.9}))
    assert [*only(build(store, keys={key}, attributes=["race"]))[1]] == ["vanilla"]


def test_a_folder_without_results_is_an_error(store):
    with pytest.raises(FairbenchError, match="not a folder of runs"):
        build(store)
    store.root.mkdir()
    with pytest.raises(FairbenchError, match="no job"):
        build(store)


def test_small_cells_are_withheld_and_cannot_be_worked_out(store):
    groups = {"black": 8, "other": 60, "white": 700}
    vanilla(store, table=patients(groups), correct={"black": 0.5, "other": 0.6, "white": 0.9})
    add(store, "m", accuracy_of({"black": 1.0, "other": 0.8, "white": 0.9}, groups), table=patients(groups))
    table, rows = only(build(store, min_cell=11))
    counts = {group.name: group for group in table.groups}
    assert counts["black"].n is None
    assert counts["other"].n is None  # else 768 - 700 - 60 gives it back
    assert counts["white"].n == 700
    for row in rows.values():
        assert [value.value is None for value in row.groups] == [True, True, False]
        assert row.worst_group.group in (None, "white")
        assert row.between_groups.value is None
        assert not {"black", "other"} & {
            name for one in row.interactions.values() for c in one.contrasts for name in (c.group, c.against)
        }


def _reworded(rows, least, of=""):
    return f"<{int(rows)} persons>" if rows < least else None


def test_small_cells_are_withheld_however_they_are_worded(store, monkeypatch):
    """Everything that is said of a group of 8 says so in new words: nothing of it may be published."""
    groups = {"black": 8, "other": 60, "white": 700}
    for module in ("permutation", "auroc"):
        monkeypatch.setattr(f"fairbench.statistics.{module}.warning", _reworded)
    vanilla(store, table=patients(groups), correct={"black": 0.5, "other": 0.6, "white": 0.9})
    open_board = build(store, attributes=["race"])
    assert "<8 persons>" in json.dumps(open_board.to_json())  # what there is to withhold
    closed = build(store, attributes=["race"], min_cell=11)
    for form in ("json", "md", "csv", "html", "terminal"):
        text = render(closed, form)
        assert "persons" not in text
        assert not re.search(r"black[^|\n]{0,12}\b(8|n = 8)\b", text)


def test_a_withheld_group_is_named_by_no_note_beside_a_further_measure_and_no_flag(store):
    people = patients({"black": 40, "white": 400, None: 8})
    add(store, "vanilla", people["race"].notna().to_numpy(), attributes=(), table=people, about=BASE)
    (table,) = build(store, attributes=["race"]).tables
    (row,) = table.rows
    note = Gap(0.1, notes=("not recorded: only 8 rows (fewer than 20)",))
    beside = FurtherMeasure(table.measure, (MeasuredRow(row.label, row.score, note, note, Difference()),))
    assert "unrecorded worst" in codes(row)
    closed = withhold(replace(table, further=(beside,)), 11)
    assert "8 rows" not in json.dumps(to_json(closed.further))
    assert "unrecorded worst" not in codes(closed.rows[0])


def test_the_same_runs_give_the_same_board_and_json_gives_it_back(store):
    vanilla(store)
    add(store, "m", accuracy_of({"black": 0.7, "white": 0.9}), settings={"strength": 0.5})
    board = build(store)
    assert board == build(store)
    written = json.loads(json.dumps(board.to_json(), allow_nan=False))
    assert Board.from_json(written) == board
    with pytest.raises(FairbenchError, match="not a leaderboard"):
        Board.from_json({"tables": [{"rows": 3}]})


def test_nothing_here_imports_torch(store):
    vanilla(store)
    program = (
        "import sys; from fairbench import report; from fairbench.leaderboard.build import build;"
        "from fairbench.jobs.store import Store;"
        f"report.render(build(Store({str(store.root)!r})), 'md');"
        "print(*{'torch', 'transformers', 'peft', 'accelerate'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


def test_a_control_of_other_seeds_says_nothing_about_a_row(store):
    control = {"about": {"role": "control", "stands_for": "blank images"}, "attributes": ()}
    for seed in (0, 1):
        add(store, "vanilla", accuracy_of({"black": 0.9, "white": 0.9}, seed=seed), seed=seed, about=BASE)
        add(store, "ablated", accuracy_of({"black": 0.6, "white": 0.6}, seed=seed), seed=seed + 2, **control)
    (table,) = build(store).tables
    assert [flag.code for flag in table.rows[0].flags] == ["missing seeds"]


def test_folds_of_a_training_are_one_set_of_answers_over_all_patients(tmp_path):
    """Cut into folds and joined, answers are judged as they would be in one piece."""
    apart, together = Store(tmp_path / "apart"), Store(tmp_path / "together")
    people = patients(GROUPS)
    fold = np.random.default_rng(3).integers(0, 3, len(people))
    for number, (name, about) in enumerate((("vanilla", BASE), ("fair", {}))):
        for seed in (0, 1):
            right = accuracy_of({"black": 0.7, "white": 0.8 + 0.02 * number}, seed=seed)
            add(together, name, right, table=people, seed=seed, about=about)
            for part in range(3):
                here = fold == part
                how = {"seed": seed, "about": about, "folds": 3, "fold": part}
                add(apart, name, right[here], table=people[here], **how)
    (one,), (whole,) = build(apart).tables, build(together).tables
    assert (one.folds, one.rows_tested, one.clusters) == (3, 1000, 1000)
    assert (one.trials.trainings, whole.trials.trainings) == (12, 4)
    for left, right in zip(one.rows, whole.rows, strict=True):
        assert (left.label, left.seeds, len(left.keys)) == (right.label, (0, 1), 6)
        assert left.score.value == pytest.approx(right.score.value)
        assert left.gap.value == pytest.approx(right.gap.value)
        assert left.score.low == pytest.approx(right.score.low, abs=0.002)
    assert "Test splits of 3 folds together: 1,000 rows" in render(build(apart), "md")
    again = Store(tmp_path / "again")  # a fold that was run in two folders is there once
    half = people[fold == 0].assign(gender="male")
    add(
        again,
        "fair",
        np.arange(len(half)) % 2 == 0,
        table=half,
        folds=3,
        fold=0,
        started="2026-11-20T10:00:00+00:00",
    )
    (both,) = gather([apart, again], Options(registry(()))).tables
    assert [(row.label, row.score) for row in both.rows] == [(row.label, row.score) for row in one.rows]
    assert [(one.status, one.reason) for one in both.excluded] == [("refused", "a newer job did the same")]


def test_a_column_called_fold_stays_what_it_is_when_folds_are_joined(store):
    people = patients(GROUPS).assign(fold="left")
    for part in range(3):
        add(store, "vanilla", True, table=people[part::3], folds=3, fold=part)
    ((whole,), _) = joined([load(store, record) for record in store.contents().records])
    assert set(whole.predictions.table["fold"]) == {"left"}


def test_a_training_that_lacks_a_fold_is_not_in_the_table(tmp_path):
    store, people = Store(tmp_path), patients(GROUPS)
    fold = np.arange(len(people)) % 3
    right = accuracy_of({"black": 0.7, "white": 0.8})
    for name, parts in (("vanilla", (0, 1, 2)), ("fair", (0, 2))):
        for part in parts:
            here = fold == part
            add(
                store,
                name,
                right[here],
                table=people[here],
                about=BASE if len(parts) == 3 else {},
                folds=3,
                fold=part,
            )
    add(store, "vanilla", right, table=people, about=BASE)  # of no folds: another table
    plain, folded = build(store).tables
    assert [row.label for row in plain.rows] == ["vanilla"]
    assert [row.label for row in folded.rows] == ["vanilla"]
    assert {(one.label, one.reason) for one in folded.excluded} == {("fair", "of 3 folds there is no 2")}
