"""The commands that need only saved predictions, from the outside: files in, text and JSON out."""

import json
import subprocess
import sys
from typing import get_args

import builders
import click
import numpy as np
import pandas as pd
import pytest
from builders import scored
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairbench import report
from fairbench.cli import results as commands
from fairbench.errors import FairbenchError
from fairbench.jobs.job import Choice, Job, Record, Stage
from fairbench.jobs.store import Store
from fairbench.leaderboard.compare import compare_predictions
from fairbench.metrics.evidence import score_with_evidence
from fairbench.predictions.predictions import Predictions
from fairbench.report import json as as_json
from fairbench.statistics.results import RankBy

EVIDENCE = {"ci", "floor_mean", "floor_95", "p", "excess", "detectable"}
FEW = {"asian": 2, "black": 1, "white": 2}
RACES = {"asian": 133, "black": 134, "white": 133}
DISPARITIES = {"max_acc_gap", "eq_odds_max", "eq_odds_mean", "dp_difference", "worst_group", "es_accuracy"}


def call(*words):
    """Run a command; expected failures come out as FairbenchError, others as they are."""
    cli = click.Group()
    commands.add_to(cli)
    result = CliRunner().invoke(cli, [str(word) for word in words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_score_has_the_keys_it_promises(write):
    table = scored(RACES)
    printed = json.loads(call("score", write(table), "--attr", "race,gender", "--json"))
    assert printed["n"] == 400
    assert printed["overall"]["accuracy"]["value"] == pytest.approx((table["target"] == table["answer"]).mean())
    assert {*printed["attributes"]} == {"race", "gender"}
    race = printed["attributes"]["race"]
    for name, rows in table.groupby("race"):
        group = race["groups"][name]
        assert {"n", "positives", "negatives", "accuracy", "tpr", "fpr"} <= {*group}
        assert (group["n"], group["positives"]) == (len(rows), rows["target"].sum())
        low, high = group["accuracy"]["ci"]
        assert group["accuracy"]["value"] == pytest.approx((rows["target"] == rows["answer"]).mean())
        assert low < group["accuracy"]["value"] < high
    assert {*race} >= DISPARITIES
    for name in DISPARITIES:
        assert {"value", "coverage", *EVIDENCE} <= {*race[name]}, name
        assert 0 < race[name]["p"] <= 1
        assert race[name]["excess"] == pytest.approx(race[name]["value"] - race[name]["floor_mean"])


def test_score_rebuilds_the_glaucoma_paper(write, shared):
    paper = json.loads((shared / "reference" / "glaucoma_tables_1_2.json").read_text())
    for entry in paper["rows"]:
        right = np.concatenate([np.arange(n) < entry["correct"][g] for g, n in paper["n"].items()])
        table = pd.DataFrame({"target": 1, "answer": right.astype(int)})
        table["ethnicity"] = np.repeat([*paper["n"]], [*paper["n"].values()])
        printed = json.loads(call("score", write(table), "--attr", "ethnicity", "--json"))
        gap = printed["attributes"]["ethnicity"]["max_acc_gap"]
        assert 100 * printed["overall"]["accuracy"]["value"] == pytest.approx(
            entry["published"]["accuracy_pct"], abs=0.005
        )
        assert 100 * gap["value"] == pytest.approx(entry["published"]["max_acc_gap_pp"], abs=0.005)
        assert gap["ci"][0] == 0.0
        assert gap["p"] > 0.5
        assert gap["excess"] < 0
        odds = printed["attributes"]["ethnicity"]["eq_odds_max"]
        assert odds["value"] is None
        assert "no negatives" in odds["reason"]


def test_score_prints_a_table_that_needs_no_colour(write):
    text = call("score", write(scored(RACES)), "--attr", "race")
    assert "\x1b" not in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 120
    for word in ("asian", "MaxAccGap", "EqOdds(max)", "worst", "3 of 3 groups"):
        assert word in text


@pytest.mark.parametrize("convention", commands.CONVENTIONS)
def test_score_speaks_other_projects_conventions(write, convention):
    path = write(scored(RACES))
    printed = json.loads(call("score", path, "--attr", "gender", "--as", convention, "--json"))
    numbers = printed["attributes"]["gender"]
    assert printed["convention"] == convention
    assert numbers
    text = call("score", path, "--attr", "gender", "--as", convention)
    assert all(name in text for name in numbers)


def test_fairlearn_agrees_with_the_convention_called_fairlearn(write):
    fairlearn = pytest.importorskip("fairlearn.metrics")
    table = scored(RACES)
    printed = json.loads(call("score", write(table), "--attr", "race", "--as", "fairlearn", "--json"))
    expected = fairlearn.equalized_odds_difference(
        table["target"], table["answer"], sensitive_features=table["race"]
    )
    assert printed["attributes"]["race"]["equalized_odds_difference"]["value"] == pytest.approx(expected)


def test_the_conventions_offered_are_those_there_are():
    from fairbench.metrics.conventions import CONVENTIONS

    assert {*commands.CONVENTIONS} == {*CONVENTIONS}


def test_unrecorded_values_follow_the_policy(write):
    table = scored(RACES)
    table.loc[:49, "race"] = None
    path = write(table)

    def names(*more):
        printed = json.loads(call("score", path, "--attr", "race", "--json", *more))
        assert printed["n"] == 400
        return {name: group["n"] for name, group in printed["attributes"]["race"]["groups"].items()}

    assert names()["unrecorded"] == 50
    assert sum(names("--unrecorded", "drop").values()) == 350
    assert sum(names("--unrecorded", "merge:white").values()) == 400
    with pytest.raises(FairbenchError, match="policy"):
        names("--unrecorded", "ignore")


def test_compare_is_a_minus_b_on_the_same_rows(write):
    first, second = scored(RACES), scored(RACES)
    flip = np.flatnonzero(second["race"] == "black")[:30]
    second.loc[flip, "answer"] = 1 - second.loc[flip, "target"]
    a, b = write(first, "a.csv"), write(second.sample(frac=1, random_state=3), "b.csv")
    printed = json.loads(call("compare", a, b, "--attr", "race", "--json"))

    def accuracy(table):
        right = table["target"] == table["answer"]
        return right.mean(), right.groupby(table["race"]).mean()

    (all_a, by_a), (all_b, by_b) = accuracy(first), accuracy(second)
    race = printed["attributes"]["race"]
    assert printed["overall"]["accuracy"]["difference"] == pytest.approx(all_a - all_b)
    gap = (by_a.max() - by_a.min()) - (by_b.max() - by_b.min())
    assert race["max_acc_gap"]["difference"] == pytest.approx(gap)
    assert race["worst_group"]["difference"] == pytest.approx(by_a.min() - by_b.min())
    differences = ["max_acc_gap", "standardised_acc_gap", "eq_odds_max", "worst_group", "es_accuracy", "dto"]
    assert set(race) == {*differences, "interaction", "standardised_interaction", "eq_odds_interaction"}
    for one in (printed["overall"]["accuracy"], *(race[name] for name in differences)):
        assert {"difference", "ci", "p"} <= {*one}
        assert one["ci"][0] <= one["difference"] <= one["ci"][1]
        assert 0 < one["p"] <= 1
    assert printed["overall"]["accuracy"]["p"] < 0.01
    back = json.loads(call("compare", b, a, "--attr", "race", "--json"))["attributes"]["race"]
    for name in ("interaction", "standardised_interaction", "eq_odds_interaction"):
        assert back[name]["p"] == race[name]["p"]
        for there, here in zip(race[name]["contrasts"], back[name]["contrasts"], strict=True):
            assert (here["groups"], here["difference"]) == (there["groups"], -there["difference"])
            assert here["ci"] == [-end for end in reversed(there["ci"])]
    text = call("compare", a, b, "--attr", "race")
    assert "A − B" in text
    assert "one seed" in text


def test_a_metric_that_fails_on_one_of_two_files_compares_neither(write, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from fairbench import Metric, hookimpl\n\n"
        "@hookimpl\ndef fairbench_metrics():\n"
        "    return [Metric(name='mine', title='M', formula='m', source='this test',\n"
        "                   each=lambda rows: rows.answer / (0 if rows.answer.all() else 1))]\n"
    )
    right = scored(RACES)
    paths = write(right, "a.csv"), write(right.assign(answer=1), "b.csv")
    for order in (paths, paths[::-1]):
        with pytest.raises(FairbenchError, match="cannot be judged by mine: mine gave inf for row 1"):
            call("compare", *order, "--attr", "race", "--measure", "mine", "--plugin", tmp_path / "mine.py")


def test_texts_are_compared_by_the_metric_that_is_asked_for(tmp_path):
    """Exact answers for all of one, half of the other; by hand per group."""
    people = pd.DataFrame({"id": [f"p{i}" for i in range(40)], "race": ["black", "white"] * 20})
    people["reference"] = "a small cup"
    good, bad = people.assign(text="a small cup"), people.assign(text=["a small cup", "large"] * 20)
    paths = []
    for name, table in (("good", good), ("bad", bad)):
        paths.append(str(tmp_path / f"{name}.parquet"))
        Predictions(table, (), ("race",), "generate").save(paths[-1])
    with_measure = ("compare", *paths, "--attr", "race", "--measure", "exact_match")
    printed = json.loads(call(*with_measure, "--json"))
    assert printed["overall"]["exact_match"]["difference"] == pytest.approx(0.5)
    assert printed["attributes"]["race"]["exact_match_gap"]["difference"] == pytest.approx(-1.0)
    assert printed["attributes"]["race"]["worst_exact_match"]["difference"] == pytest.approx(1.0)
    assert "exact_match_gap" in call(*with_measure)
    with pytest.raises(FairbenchError, match="cannot be judged by accuracy"):
        call("compare", *paths, "--attr", "race")


def test_a_file_compared_with_itself_differs_in_nothing(write):
    path = write(scored(RACES))
    printed = json.loads(call("compare", path, path, "--attr", "race,gender", "--json"))
    for measures in (printed["overall"], *printed["attributes"].values()):
        for one in measures.values():
            assert (one.get("difference", 0), one["p"]) == (0, 1)


def _without_id(table):
    return table.drop(columns="id")


def _other_ids(table):
    return table.assign(id=table["id"].replace("p7", "q7"))


def _other_target(table):
    return table.assign(target=table["target"].where(table["id"] != "p7", 1 - table["target"]))


def _other_group(table):
    return table.assign(race=table["race"].where(table["id"] != "p7", "other"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without_id, "no column `id`"),
        (_other_ids, "not about the same rows.*`p7` is only in A"),
        (_other_target, "disagree about `target` of 1 rows"),
        (_other_group, "disagree about `race`"),
        (lambda table: table.iloc[:-1], "1 ids are only in A"),
    ],
)
def test_compare_refuses_other_rows(write, change, message):
    a, b = write(scored(RACES), "a.csv"), write(change(scored(RACES)), "b.csv")
    with pytest.raises(FairbenchError, match=message):
        call("compare", a, b, "--attr", "race")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="answer"), "answer"),
        (lambda t: t.drop(columns="race"), "race"),
        (lambda t: t.assign(score=t["score"] + 0.9), r"`score` is no probability in \[0, 1\]"),
        (lambda t: t.assign(score=t["score"].where(t["id"] != "p3")), "`score`.* first in row 4"),
        (lambda t: t.assign(target=t["target"].where(t["id"] != "p3")), "`target` is empty in 1 of 400"),
        (lambda t: t.assign(target=t["target"] + 5), "of two classes, but there are 7"),
        (
            lambda t: t.drop(columns="score").assign(target="ill").replace({"answer": {0: "well", 1: "sick"}}),
            "class",
        ),
        (lambda t: t.assign(id="p"), "occurs more than once"),
        (lambda t: t.iloc[:0], "no rows"),
    ],
)
def test_score_refuses_what_it_cannot_trust(write, change, message):
    with pytest.raises(FairbenchError, match=message):
        call("score", write(change(scored(RACES))), "--attr", "race")


def test_one_group_one_class_and_five_rows_are_flagged_not_hidden(write):
    one = scored(RACES).assign(race="black")
    gap = json.loads(call("score", write(one), "--attr", "race", "--json"))["attributes"]["race"]["max_acc_gap"]
    assert gap["value"] is gap["p"] is gap["ci"] is None
    assert "one group" in gap["reason"]

    healthy = scored(RACES).assign(target=0)
    printed = json.loads(call("score", write(healthy), "--attr", "race", "--json"))
    assert printed["overall"]["tpr"]["value"] is None
    assert "no positives" in printed["overall"]["tpr"]["reason"]
    assert printed["attributes"]["race"]["eq_odds_max"]["value"] is None

    few = json.loads(call("score", write(scored(FEW)), "--attr", "gender", "--json"))
    assert any("fewer than 20" in flag for flag in few["attributes"]["gender"]["max_acc_gap"]["flags"])
    for path in (write(one), write(healthy), write(scored(FEW))):
        call("score", path, "--attr", "race")  # and prints


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 2), st.integers(-1, 2), st.sampled_from(["a", "b", "c", None]), st.integers(0, 4)),
        min_size=1,
        max_size=12,
    ),
    classes=st.sampled_from([("no", "yes"), ("x", "y", "z")]),
    probabilities=st.booleans(),
    clustered=st.booleans(),
)
def test_any_small_table_is_scored_and_compared_without_accident(rows, classes, probabilities, clustered):
    last = len(classes) - 1
    table = pd.DataFrame(rows, columns=["target", "answer", "race", "cluster"])
    table["target"], table["answer"] = table["target"].clip(upper=last), table["answer"].clip(upper=last)
    table["id"] = [str(i) for i in range(len(table))]
    table = table if clustered else table.drop(columns="cluster")
    if probabilities:
        for index in range(len(classes)):
            table[f"p_{index}"] = np.where(table["target"] == index, 0.5, 0.5 / last)
    made = Predictions(table, classes, ("race",))
    scores = as_json.scores(score_with_evidence(made, ["race"]))
    for one in scores["attributes"]["race"].values():
        if "coverage" in one:
            assert {*one} >= EVIDENCE
            assert one["value"] is not None or one["reason"]
            assert one["p"] is None or 0 < one["p"] <= 1
    json.dumps([scores, as_json.paired(compare_predictions(made, made, ["race"]))], allow_nan=False)


@pytest.fixture
def runs(tmp_path):
    """Give two finished jobs, a failed one and one that was interrupted."""
    store = Store(tmp_path / "runs")
    jobs = []
    for name, error in (("vanilla", None), ("fr", None), ("gr", "the loss is not finite"), ("hybrid", None)):
        job = Job(Choice("toy"), Choice("tiny"), Choice(name), (Stage(),), () if name == "vanilla" else ("race",))
        folder = store.prepare(job)
        table = scored(RACES).assign(split="test").rename(columns={"score": "p_1"})
        table["p_0"] = 1 - table["p_1"]
        Predictions(table, ("no", "yes"), ("race", "gender")).save(folder / "predictions.parquet")
        store.save(
            Record(job, "2026", {"train": 1.0}, role="baseline" if name == "vanilla" else "contender", error=error)
        )
        jobs.append(job)
    (store.folder(jobs[-1]) / "record.json").unlink()
    return store, jobs


def test_leaderboard_prints_every_format_and_writes_files(runs, tmp_path):
    store, _ = runs
    assert "vanilla (baseline)" in call("leaderboard", store.root)
    assert call("leaderboard", store.root, "--format", "md", "--title", "Mine").startswith("# Mine")
    data = json.loads(call("leaderboard", store.root, "--format", "json"))
    assert [row["label"] for row in data["tables"][0]["rows"]] == ["vanilla", "fr"]
    assert {(entry["label"], entry["status"]) for entry in data["tables"][0]["excluded"]} == {
        ("gr", "failed"),
        ("hybrid", "unfinished"),
    }
    assert call("leaderboard", store.root, "--out", tmp_path / "board.html") == ""  # notes go to stderr
    assert (tmp_path / "board.html").read_text().startswith("<!doctype html>")
    assert "gender" in call("leaderboard", store.root, "--attr", "gender", "--min-cell", "10")


@pytest.mark.parametrize("asked", ["--full", "--explain"])
@pytest.mark.parametrize("idle", [("--format", "md"), ("--out", "board.txt")])
def test_more_on_a_terminal_is_refused_where_nothing_is_shown_on_one(runs, asked, idle):
    with pytest.raises(FairbenchError, match=f"^{asked} adds to the tables on a terminal, and does nothing beside"):
        call("leaderboard", runs[0].root, asked, *idle)


def test_the_choices_of_the_command_line_are_those_that_there_are():
    """They stand there a second time, so that `--help` imports neither reports nor statistics."""
    assert set(commands.FORMATS) == set(report.FORMATS)
    assert get_args(RankBy) == commands.RANKINGS


def test_status_tells_the_states_apart(runs):
    store, jobs = runs
    printed = json.loads(call("status", store.root, "--json"))
    assert printed["counts"] == {"finished": 2, "failed": 1, "refused": 0, "under way": 0, "interrupted": 1}
    assert "the loss is not finite" in call("status", store.root)
    with store.lease(jobs[-1]):
        assert json.loads(call("status", store.root, "--json"))["counts"]["under way"] == 1
    assert json.loads(call("status", store.root, "--json"))["counts"]["interrupted"] == 1


def test_show_draws_one_job(runs):
    store, jobs = runs
    text = call("show", store.folder(jobs[1]))
    rates = scored(RACES).assign(right=lambda t: t["target"] == t["answer"]).groupby("race")["right"].mean()
    for name, rate in rates.items():
        line = next(line for line in text.splitlines() if line.strip().startswith(name) and "●" in line)
        assert f"{100 * rate:.1f}" in line
    assert "chance" in text
    asian = scored(RACES)[lambda t: (t["race"] == "asian") & (t["target"] == 0)]
    assert any(
        line.split() == ["asian", "no", *map(str, (len(asian), *(asian["answer"].value_counts()[[0, 1]])))]
        for line in text.splitlines()
    )
    assert "the loss is not finite" in call("show", store.folder(jobs[2]))
    with pytest.raises(FairbenchError, match=r"has no record\.json"):
        call("show", store.root / "nothing")


def test_help_imports_nothing_heavy():
    program = (
        "import sys, click; from fairbench.cli import results; cli = click.Group(); results.add_to(cli);"
        "cli(['score', '--help'], standalone_mode=False);"
        "print('heavy:', *{'numpy', 'pandas', 'scipy', 'rich', 'pyarrow', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy:"


def test_scoring_imports_no_torch(write):
    program = (
        "import sys, click; from fairbench.cli import results; cli = click.Group(); results.add_to(cli);"
        f"cli(['score', {str(write(scored(RACES)))!r}, '--attr', 'race'], standalone_mode=False);"
        "print('heavy:', *{'torch', 'transformers', 'peft', 'accelerate'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy:"


def test_groups_that_may_be_one_are_named(write):
    rows = [
        f"{group},{n % 2},{n % 2}"
        for n in range(12)
        for group in ("White", "white", "African-American", "asian", "mixed", "mixed\u200b")
    ]
    rows[2] = rows[2].replace("-", "_")
    path = write("\n".join(["race,target,answer", *rows]))
    told = builders.call("score", path, "--attr", "race").stderr
    assert "race has White and white, which may be one group" in told
    assert "African-American and African_American" in told or "African_American and African-American" in told
    assert "race has mixed and mixed\\u200b, which may be one group" in told, "what is not seen is written out"
    assert "asian" not in told


def test_probabilities_that_are_not_those_of_the_answers_are_cautioned(write):
    frame = pd.DataFrame({"race": ["a", "b"] * 10, "target": ["no", "yes"] * 10, "answer": ["no", "yes"] * 10})
    chance = np.where(frame["answer"] == "yes", 0.9, 0.2)
    for order, warned in ((("p_0", "p_1"), False), (("p_1", "p_0"), True)):
        path = write(frame.assign(**dict(zip(order, (1 - chance, chance), strict=True))))
        told = builders.call("score", path, "--attr", "race").stderr
        assert ("in 100% of the rows another class than the answer is the most probable" in told) == warned
        assert ("(p_0 of no and p_1 of yes)" in told) == warned


def test_an_attribute_and_a_split_that_are_not_there_are_refused(write):
    path = write(scored(RACES).drop(columns="split", errors="ignore"))
    for words in (("score", path), ("compare", path, path)):
        assert "--attr names no attribute" in builders.call(*words, "--attr", ",", code=2).stderr
        assert (
            "no column `split`, so no val rows"
            in builders.call(*words, "--attr", "race", "--split", "val", code=2).stderr
        )
