"""Boards of several laboratories joined, told apart and set beside each other."""

import json
from dataclasses import replace

import pytest
from boards import RACE, SHARES, copied, published, row, runs, said, table

from fairbench.errors import FairbenchError
from fairbench.leaderboard.readjust import readjust
from fairbench.publication.against_runs import verify_runs
from fairbench.publication.check import CheckRequest, verdict_on
from fairbench.publication.difference import difference
from fairbench.publication.merge import merge
from fairbench.publication.publish import publish
from fairbench.publication.published import Publication, text
from fairbench.publication.verify import verify_file
from fairbench.report import render
from fairbench.testing.toys import toy_plugins

pytestmark = pytest.mark.slow  # boards of several laboratories are computed again and again


@pytest.fixture(scope="module")
def labs(tmp_path_factory):
    """Lab A tried `better`, Lab B `worse`, both beside the same baseline with the same answers."""
    folder = tmp_path_factory.mktemp("labs")
    of = {"Lab A": ("vanilla", "better"), "Lab B": ("vanilla", "worse")}
    stores = {}
    for lab, names in of.items():
        methods = {name: SHARES[name] if name in names else None for name in SHARES}
        stores[lab] = runs(folder / lab, seeds=(0, 1), methods={k: v for k, v in methods.items() if v})
    return {lab: (store, published(store, lab[-1], lab)) for lab, store in stores.items()}


@pytest.fixture(scope="module")
def merged(labs):
    return merge([one for _, one in labs.values()], "both", "fairbench merge")


def test_two_labs_make_one_table(merged):
    (joined,) = merged.board.tables
    assert {r.label: r.origin for r in joined.rows} == {
        "vanilla": "Lab A, Lab B",
        "better": "Lab A",
        "worse": "Lab B",
    }
    assert [part.publisher for part in merged.parts] == ["Lab A", "Lab B"]
    assert joined.trials.methods == 4  # three rows, and one that failed
    assert "Lab A, Lab B" in render(merged.board, "md")


def test_multiplicity_is_counted_over_all_labs(labs, merged):
    """Holm over six tests instead of three: twice the smallest p, by hand."""
    alone = labs["Lab A"][1].board.tables[0]
    joined = merged.board.tables[0]
    mine = {name: next(r for r in t.rows if r.label == "better") for name, t in (("A", alone), ("all", joined))}
    p = {key: one.p for key, one in mine["A"].changes.items() if key in ("score", "worst_group", "gap")}
    smallest = min(p, key=p.get)
    assert mine["A"].changes[smallest].adjusted == pytest.approx(min(1, 3 * p[smallest]))
    assert mine["all"].changes[smallest].adjusted > mine["A"].changes[smallest].adjusted
    assert mine["all"].changes[smallest].adjusted <= 6 * p[smallest] + 1e-12
    assert mine["all"].gap.adjusted >= mine["A"].gap.adjusted


def test_rows_of_two_labs_are_not_ordered_by_what_nobody_tested(merged):
    """`better` and `worse` were never compared: only the baseline stands between them."""
    pairs = {frozenset((one.a, one.b)) for one in merged.board.tables[0].evidence.pairs}
    assert pairs == {frozenset(("vanilla", "better")), frozenset(("vanilla", "worse"))}


def test_adjusting_a_board_of_one_lab_anew_changes_nothing(honest):
    for _, publication in honest.values():
        assert readjust(publication.board.tables[0]) == publication.board.tables[0]


def test_a_third_lab_verifies_the_merge(labs, merged, tmp_path):
    """By itself, beside one lab's runs, and against the boards that were merged; an edit is found."""
    assert said(verify_file(merged)) == []
    found = verify_runs(merged, [labs["Lab A"][0]])
    assert said(found) == []
    assert any("worse" in one for one in said(found, "unchecked"))
    paths = []
    for lab, (_, one) in labs.items():
        paths.append(tmp_path / f"{lab}.json")
        paths[-1].write_text(text(one))
    request = CheckRequest(tmp_path / "both.json", parts=paths)
    assert verdict_on(merged, request, toy_plugins()).differs == ()
    data = copied(merged)
    row(data, "worse")["changes"]["score"]["low"] += 0.01
    assert verdict_on(Publication.from_json(data), request, toy_plugins()).differs


def test_a_lab_may_bring_controls_alone(labs, tmp_path):
    """They had vanished from a merged board without a word."""
    control = {"seeds": (0, 1), "methods": {"blank": {"black": 0.5, "white": 0.5}}, "about": {"role": "control"}}
    alone = published(runs(tmp_path / "same", **control), "C", "Lab C")
    for order in ((labs["Lab A"][1], alone), (alone, labs["Lab A"][1])):
        joined = merge(order, "both", "")
        (whole,) = joined.board.tables
        assert {one.label for one in whole.rows} == {"vanilla", "better"}
        assert [(one.label, one.origin) for one in whole.controls] == [("blank", "Lab C")]
        assert whole.baseline == "vanilla"
        found = verify_file(joined)
        assert said(found) == []
        assert not any("counts" in one for one in said(found, "unchecked"))
    apart = published(runs(tmp_path / "other", **control, fingerprint="data-2"), "C", "Lab C")
    assert "another data fingerprint" in merge((labs["Lab A"][1], apart), "both", "").board.tables[1].apart


def test_a_baseline_that_came_out_otherwise_stands_beside_the_first(labs, tmp_path):
    other = published(
        runs(tmp_path, seeds=(0, 1), methods={"vanilla": SHARES["worse"], "worse": SHARES["worse"]}), "B", "B"
    )
    joined = merge([labs["Lab A"][1], other], "both", "")
    assert {r.label for r in joined.board.tables[0].rows} == {"vanilla", "better", "vanilla [B]", "worse"}
    assert said(verify_file(joined)) == []


@pytest.mark.parametrize(
    ("about", "expected"),
    [
        ({"fingerprint": "data-2"}, r"another data fingerprint (data-2, there data-1)"),
        ({"batch_size": 4}, r"another batch size (4, there 8)"),
    ],
)
def test_other_settings_stand_apart_and_say_in_what(labs, tmp_path, about, expected):
    other = published(runs(tmp_path, seeds=(0, 1), **about), "C", "Lab C")
    joined = merge([labs["Lab A"][1], other], "both", "")
    first, second = joined.board.tables
    assert first.apart == ""
    assert expected in second.apart
    assert "Lab C" in second.apart
    assert expected.split("(")[0] in render(joined.board, "terminal").replace("\n", " ")
    assert said(verify_file(joined)) == []


def test_a_lab_stands_once_in_a_merge_were_it_inside_another(labs, merged):
    for both in ((merged, labs["Lab A"][1]), (labs["Lab B"][1], merged)):
        with pytest.raises(FairbenchError, match="two of the boards are of Lab"):
            merge(both, "nested", "fairbench merge")


def test_what_cannot_be_merged_is_refused(labs):
    first = labs["Lab A"][1]
    with pytest.raises(FairbenchError, match="at least two"):
        merge([first], "x", "")
    with pytest.raises(FairbenchError, match="two of the boards are of Lab A"):
        merge([first, first], "x", "")
    data = json.loads(text(labs["Lab B"][1]))
    table(data).pop("evidence")
    with pytest.raises(FairbenchError, match="Lab B has no counts attached"):
        merge([first, Publication.from_json(data)], "x", "")


def test_small_groups_of_one_lab_stay_withheld_in_the_whole(labs):
    store = labs["Lab B"][0]
    strict = publish([store], "B", replace(RACE, min_cell=100), command="", publisher="strict")
    joined = merge([labs["Lab A"][1], strict], "both", "")
    black = joined.board.tables[0].groups[0]
    assert (black.name, black.n) == ("black", None)
    cells = [seed.groups[0] for seeds in joined.board.tables[0].evidence.counts.values() for seed in seeds]
    assert set(cells) == {None}


def test_what_moved_between_two_boards(honest, labs):
    old, new = honest["one"][1].board, honest["two"][1].board
    moved = {(one.row, one.what): one for one in difference(old, new)}
    assert moved["better", "made by"]
    assert moved["better", "EqOdds(max)"].beyond_noise is False
    assert ("better", "score") not in moved, "both were made to be right as often"
    assert difference(old, old) == []
    rows = {one.row for one in difference(labs["Lab A"][1].board, labs["Lab B"][1].board) if one.what == "row"}
    assert rows == {"better", "worse"}
    data = copied(honest["one"][1])
    row(data, "better")["score"] |= {"value": 0.2, "low": 0.1, "high": 0.3}
    far = {(one.row, one.what): one for one in difference(old, Publication.from_json(data).board)}
    assert far["better", "score"].beyond_noise
