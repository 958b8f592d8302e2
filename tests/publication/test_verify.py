"""A published file by itself: whether it agrees with itself, and what is found where somebody edited it."""

import json
import sys
from dataclasses import replace

import pytest
from boards import PATIENTS, SHARES, copied, job, published, row, said, says, table
from builders import BASE, accuracy_of, add, patients

from fairbench import __version__
from fairbench.cli.publication import _command
from fairbench.jobs.store import Store
from fairbench.leaderboard.readjust import readjust
from fairbench.publication.check import CheckRequest, verdict_on
from fairbench.publication.published import Publication, text
from fairbench.publication.verdict import levels
from fairbench.publication.verify import verify_file
from fairbench.testing.toys import toy_plugins


def found(data, state="differs"):
    """All that a check of the file alone says, by its state."""
    return said(verify_file(Publication.from_json(data)), state)


@pytest.mark.parametrize("which", ["one", "two"])
def test_an_honest_board_agrees_with_itself(honest, which):
    _, publication = honest[which]
    assert said(verify_file(publication)) == []
    assert Publication.from_json(json.loads(text(publication))) == publication


def test_a_published_command_names_no_folder_of_the_machine(monkeypatch):
    words = [
        "/home/me/bin/fairbench",
        "publish",
        "/data/clinic/runs",
        "here/runs",
        "--out=/data/boards",
        "--name",
        "n",
    ]
    monkeypatch.setattr(sys, "argv", words)
    assert _command() == "fairbench publish runs here/runs --out=boards --name n"


def test_no_patients_row_and_no_message_of_an_error_is_published(honest):
    written = text(honest["one"][1])
    assert "smith" not in written
    assert "p17" not in written
    assert {one["status"] for one in table(json.loads(written))["excluded"]} == {"failed"}


def edited_cell(data):
    row(data, "better")["score"]["value"] += 0.05


def edited_interval(data):
    row(data, "better")["gap"]["low"] = 0.05


def edited_group(data):
    row(data, "worse")["groups"][0]["value"] = 0.75


def edited_change(data):
    row(data, "better")["changes"]["score"]["value"] = 0.2


def edited_counts(data):
    """All answers are the targets, in the counts alone."""
    for seed in table(data)["evidence"]["counts"]["better"]:
        for cell in (seed["everyone"], *seed["groups"]):
            negatives, positives = map(sum, cell["answers"])
            cell["answers"] = [[negatives, 0, 0], [0, positives, 0]]
            cell["total"] = cell["squares"] = float(cell["n"])


def other_patients(data):
    """One row is of fewer black patients than the others."""
    seed = table(data)["evidence"]["counts"]["better"][0]
    black = seed["groups"][0]
    wrong = black["answers"][0][1]
    black["answers"][0][1], black["n"] = 0, black["n"] - wrong


def relabelled(data):
    job(data, "better")["method"]["name"] = "mine"


def earlier(data):
    data["jobs"][0]["started"] = "2099-01-01T00:00:00+00:00"


def dropped_row(data):
    table(data)["rows"] = [one for one in table(data)["rows"] if one["label"] != "worse"]


def dropped_row_and_jobs(data):
    """It was never there: no row, no job, no trial; only the comparisons remember."""
    dropped_row(data)
    data["jobs"] = [one for one in data["jobs"] if one["job"]["method"]["name"] != "worse"]
    table(data)["evidence"]["counts"].pop("worse")
    trials = table(data)["trials"]
    trials["methods"] -= 1
    trials["settings"] -= 1
    trials["trainings"] -= len(trials["seeds"])


def dropped_without_trace(data):
    """The comparisons, too, forget it; the p-values were adjusted for it."""
    dropped_row_and_jobs(data)
    evidence = table(data)["evidence"]
    evidence["pairs"] = [one for one in evidence["pairs"] if "worse" not in (one["a"], one["b"])]


def dropped_failure(data):
    table(data).pop("excluded")
    data["jobs"] = [one for one in data["jobs"] if one["job"]["method"]["name"] != "broken"]


def dropped_seed(data):
    mine = row(data, "better")
    mine["seeds"], mine["keys"] = mine["seeds"][:1], mine["keys"][:1]


def smaller_p(data):
    row(data, "better")["changes"]["gap"]["adjusted"] = 0.001


def better_rank(data):
    row(data, "worse")["rank"] = "1"


def lost_flag(data):
    row(data, "worse")["flags"] = []


def another_provider(data):
    row(data, "better")["versions"]["method"] = "fairbench 0.9.9+0123456789ab"


def another_recipe(data):
    row(data, "better")["recipe"]["batch_size"] = 4


def cheaper(data):
    row(data, "better")["train_seconds"] = 1.0


def easier_constant(data):
    table(data)["constant"]["score"] = 0.2


def other_data(data):
    """Another fingerprint, so that it merges with boards of other patients."""
    table(data)["fingerprint"] = "0123456789abcdef"


def other_backbone(data):
    table(data)["backbone"] = "llava-7b"


def no_baseline(data):
    table(data).pop("baseline")


def other_baseline(data):
    table(data)["baseline"] = "worse"


def told_again(data):
    data["board"]["tables"].append(copied(table(data)))


def other_title(data):
    data["board"]["title"] = "The final leaderboard"


def of_somebody_else(data):
    data["publisher"] = "Lab B"


def no_such_answer(data):
    table(data)["constant"]["answer"] = "maybe"


def less_than_the_commonest(data):
    constant = table(data)["constant"]
    constant.update(answer="This is a cat.", one_class=False, score=constant["score"] - 0.01)


def no_probability(data):
    pair = next(one for one in table(data)["evidence"]["pairs"] if "vanilla" not in (one["a"], one["b"]))
    pair["differences"]["score"]["p"] = 2.0


def told_twice(data):
    data["jobs"].append(data["jobs"][0])


def adjusted_again(data):
    """Let every adjusted p-value, rank and flag follow from what is attached, as a forger with this code would."""
    publication = Publication.from_json(data)
    tables = (readjust(publication.board.tables[0]), *publication.board.tables[1:])
    again = replace(publication, board=replace(publication.board, tables=tables))
    data.clear()
    data.update(json.loads(text(again)))


def pairs_without(data, *gone):
    """Forget the comparison of two rows."""
    evidence = table(data)["evidence"]
    evidence["pairs"] = [one for one in evidence["pairs"] if {one["a"], one["b"]} != {*gone}]


def dropped_comparisons(data):
    pairs_without(data, "better", "worse")
    adjusted_again(data)


def invented_differences(data):
    pairs_without(data, "worse", "vanilla")
    for name, value in {"score": 0.3, "gap": -0.1, "worst_group": 0.2}.items():
        row(data, "worse")["changes"][name].update(value=value, low=value - 0.01, high=value + 0.01, p=1e-6)
    adjusted_again(data)


def compared_with_nobody(data):
    """The row says less than the comparisons do."""
    row(data, "worse").update(changes={}, interactions={})
    adjusted_again(data)


def flipped_comparison(data):
    for one in table(data)["evidence"]["pairs"]:
        if {one["a"], one["b"]} == {"better", "worse"}:
            for each in one["differences"].values():
                each["value"], each["low"], each["high"] = -each["value"], -each["high"], -each["low"]
    adjusted_again(data)


def told_twice_in_comparisons(data):
    pairs = table(data)["evidence"]["pairs"]
    pairs.append({**copied(pairs[0]), "a": pairs[0]["b"], "b": pairs[0]["a"]})


def called(data, old, new):
    """Call a row otherwise, wherever it is named."""
    row(data, old)["label"] = new
    counts = table(data)["evidence"]["counts"]
    counts[new] = counts.pop(old)
    for one in table(data)["evidence"]["pairs"]:
        one.update({side: new for side in "ab" if one[side] == old})
    for one in table(data).get("side_effects", []):
        one["label"] = new if one["label"] == old else one["label"]


def under_anothers_name(data):
    called(data, "worse", "worse'")
    called(data, "better", "worse")
    adjusted_again(data)


def praised_in_its_label(data):
    called(data, "better", "better: p < 0.001")
    adjusted_again(data)


def hidden_as_a_control(data):
    one = row(data, "worse")
    table(data)["rows"].remove(one)
    table(data).setdefault("controls", []).append(
        {**one, "rank": "", "changes": {}, "interactions": {}, "flags": []}
    )
    evidence = table(data)["evidence"]
    evidence["pairs"] = [pair for pair in evidence["pairs"] if "worse" not in (pair["a"], pair["b"])]
    adjusted_again(data)


def hidden_as_a_failure(data):
    keys = row(data, "worse")["keys"]
    for number, key in enumerate(keys):
        table(data)["excluded"].append(
            {"label": "worse", "seed": number, "key": key, "status": "failed", "reason": "it ended in an error"}
        )
    table(data)["rows"] = [one for one in table(data)["rows"] if one["label"] != "worse"]
    evidence = table(data)["evidence"]
    evidence["pairs"] = [pair for pair in evidence["pairs"] if "worse" not in (pair["a"], pair["b"])]
    evidence["counts"].pop("worse")
    adjusted_again(data)


def failure_of_another_name(data):
    table(data)["excluded"][0]["label"] = "worse"


def a_flag_of_ones_own(data):
    row(data, "worse")["flags"] = [*row(data, "worse").get("flags", []), {"code": "retracted by its authors"}]


def seeds_said_to_lack(data):
    row(data, "worse")["flags"] = [*row(data, "worse").get("flags", []), {"code": "missing seeds", "detail": "7"}]


def another_attribute(data):
    """The title says that groups of sex were looked at; the jobs were trained for race."""
    table(data)["attribute"] = "sex"


def wider_constant(data):
    table(data)["constant"]["gap"] = 0.9


def easier_improvement(data):
    table(data)["improvement"].update(score=0.99, gap=0.001)


def another_order(data):
    table(data)["rows"].reverse()


def withheld_below_what_is_shown(data):
    table(data)["min_cell"] = 100


def more_clusters_than_rows(data):
    table(data)["clusters"] = table(data)["rows_tested"] + 1


def other_squares(data):
    table(data)["evidence"]["counts"]["better"][0]["everyone"]["squares"] -= 1.0


def counts_of_nobody(data):
    counts = table(data)["evidence"]["counts"]
    counts["the best"] = copied(counts["better"])


def another_ranking(data):
    table(data)["ranked_by"] = "gap"
    adjusted_again(data)


def planned_afterwards(data):
    table(data)["primary"] = ["better"]
    adjusted_again(data)


TAMPERINGS = {
    dropped_comparisons: ("two", r"better, worse: they are not compared, and both are ranked"),
    invented_differences: ("two", r"worse: a difference in .*score.*, with which it was not so compared"),
    compared_with_nobody: ("two", r"worse: differences, and those behind the ranks: score: published nothing"),
    flipped_comparison: ("two", r"(better, worse|worse, better): score: published .*, recomputed"),
    told_twice_in_comparisons: ("two", r"they are compared twice"),
    under_anothers_name: ("two", r"· worse: its jobs are of better"),
    praised_in_its_label: ("two", r"better: p < 0.001: its jobs are of better"),
    hidden_as_a_control: ("two", r"worse: it stands among the controls, and is a contender"),
    hidden_as_a_failure: ("two", r"it is called failed, and its record says that it ended well"),
    failure_of_another_name: ("two", r"left out: label: published worse, recomputed broken"),
    a_flag_of_ones_own: ("two", r"worse: no flag is called retracted by its authors"),
    seeds_said_to_lack: ("two", r"worse: flags of its making"),
    another_attribute: ("two", r"better: its jobs are of better for race"),
    wider_constant: ("two", r"always “yes”: gap: published 0\.9, recomputed"),
    easier_improvement: ("two", r"improvement, and the baseline: score: published 0\.99, recomputed"),
    another_order: ("two", r"order: 0: published"),
    withheld_below_what_is_shown: ("two", r"black has fewer than 100 rows"),
    more_clusters_than_rows: ("two", r"201 clusters of 200 rows"),
    other_squares: ("two", r"better · seed 0: .*scores that add up to"),
    counts_of_nobody: ("two", r"the best: counts are attached, and it is no row"),
    another_ranking: ("two", r"choices: ranked_by: published gap, recomputed dominance"),
    planned_afterwards: ("two", r"primary, and the publication's choices"),
    edited_cell: ("two", r"better: score: published 0\.835, recomputed 0\.785"),
    edited_interval: ("one", r"better: gap\.low: published 0\.05, recomputed"),
    edited_group: ("two", r"worse: groups\.0: published 0\.75, recomputed 0\.4"),
    edited_change: ("two", r"better: minus vanilla: score: published 0\.2, recomputed 0\.045"),
    edited_counts: ("two", r"better: score: published 0\.785, recomputed 1"),
    other_patients: ("two", r"better · seed 0: answers that add up to|holds? more rows|its counts are of"),
    relabelled: ("two", r"better: there is no job \w+: a job's key is the hash of what it is"),
    earlier: ("two", r"it began at '2099.*after the board was published"),
    dropped_row: ("two", r"\(worse on race .*\): it is in no table, though it was run"),
    dropped_row_and_jobs: ("two", r"worse was compared with .*, and is no row"),
    dropped_without_trace: ("two", r"adjusted|changes\."),
    dropped_failure: ("two", r"trials, published and listed: trainings: published 7, recomputed 6"),
    dropped_seed: ("two", r"better on race.*seed 1.*: it is in no table"),
    smaller_p: ("two", r"better: changes\.gap: published 0\.001, recomputed"),
    better_rank: ("two", r"worse: rank: published 1, recomputed (2-)?3"),
    lost_flag: ("two", r"worse: flags"),
    another_provider: (
        "two",
        r"better: versions\.method: published fairbench 0\.9\.9",
    ),
    another_recipe: ("two", r"better: recipe\.batch_size: published 4, recomputed 8"),
    cheaper: ("two", r"better: train_seconds: published 1, recomputed 12"),
    easier_constant: ("two", r"always “\w+”"),
    told_twice: ("two", r"it is listed twice"),
    other_data: ("two", r"of its jobs: fingerprint: published 0123456789abcdef"),
    other_backbone: ("two", r"of its jobs: backbone: published llava-7b"),
    no_baseline: ("two", r"baseline: published nothing, and rows of that role are \['vanilla'\]"),
    other_baseline: ("two", r"baseline: published worse"),
    told_again: ("two", r"two tables are about it"),
    other_title: ("two", r"title, and the publication's name: published The final"),
    of_somebody_else: ("two", r"better: origin, and who publishes: published Lab A, recomputed Lab B"),
    no_such_answer: ("two", r"always “maybe”: published 0\.\d+, recomputed 0"),
    less_than_the_commonest: ("two", r"always “This is a cat.”: published 0\.515, and always “yes” is right for"),
    no_probability: ("two", r"worse.*score: p is 2"),
}


@pytest.mark.parametrize("tamper", TAMPERINGS, ids=lambda tamper: tamper.__name__)
def test_a_file_that_was_tampered_with_is_found(honest, tamper):
    which, expected = TAMPERINGS[tamper]
    data = copied(honest[which][1])
    tamper(data)
    assert data != copied(honest[which][1])
    says(found(data), expected)


def test_what_a_file_alone_cannot_show_is_said(honest):
    """A forger who recomputes everything is believed, and the reader is told what was not looked at."""
    unchecked = " ".join(found(copied(honest["two"][1]), "unchecked"))
    for word in ("intervals and p-values", "AUROC", "that the answers are those of the models"):
        assert word in unchecked


def test_code_that_calls_itself_fairbenchs_own_is_compared_with_it(tmp_path):
    store, people = Store(tmp_path), patients(PATIENTS)
    add(store, "vanilla", accuracy_of(SHARES["vanilla"], PATIENTS), table=people, about=BASE)
    version = f"fairbench {__version__}+{'0' * 12}"
    add(store, "mine", accuracy_of(SHARES["better"], PATIENTS), table=people, version=version)
    says(
        said(verify_file(published(store), toy_plugins())),
        f"method mine: fairbench {__version__} has no such method",
    )


def test_a_level_is_what_a_check_saw_and_not_what_a_row_says(honest, tmp_path):
    data = copied(honest["two"][1])
    row(data, "better")["trust"] = "retrained"
    publication = Publication.from_json(data)
    verdict = verdict_on(publication, CheckRequest(tmp_path / "x.json"), toy_plugins())
    assert {trust for _, _, trust in levels(publication, verdict)} == {"counts attached"}
    says(said(verdict.findings, "unchecked"), "row better: it is said to be retrained; this check saw it counts")
