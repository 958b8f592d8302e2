"""Predictions of any origin: read right, or refused with a reason."""

import gzip
import json
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairbench import read_predictions
from fairbench.errors import FairbenchError
from fairbench.predictions.align import align
from fairbench.predictions.groups import Groups
from fairbench.predictions.predictions import Predictions
from fairbench.predictions.read import predictions_of
from fairbench.predictions.spelling import alike

GOOD = "id,cluster,target,answer,score,race,gender\n"
ROWS = """a,p1,1,1,0.9,black,f
b,p1,0,1,0.6,,m
c,p2,1,0,0.4,white,
d,p3,0,0,0.1,white,f
e,p4,1,-1,0.5,asian,f
"""


def test_a_csv_is_read_with_its_classes_scores_and_groups(write):
    predictions = read_predictions(write(GOOD + ROWS), ["race", "gender"])
    assert predictions.classes == ("0", "1")
    assert predictions.target.tolist() == [1, 0, 1, 0, 1]
    assert predictions.answer.tolist() == [1, 1, 0, 0, -1]
    assert predictions.probabilities[:, 1].tolist() == [0.9, 0.6, 0.4, 0.1, 0.5]
    assert predictions.clusters().tolist() == [0, 0, 1, 2, 3]


@pytest.mark.parametrize(
    ("attribute", "policy", "names", "codes"),
    [
        ("race", "keep", ("asian", "black", "white", "unrecorded"), [1, 3, 2, 2, 0]),
        ("race", "drop", ("asian", "black", "white"), [1, -1, 2, 2, 0]),
        ("race", "merge:white", ("asian", "black", "white"), [1, 2, 2, 2, 0]),
        (
            "race+gender",
            "keep",
            ("asian×f", "black×f", "white×f", "white×unrecorded", "unrecorded×m"),
            [1, 4, 3, 2, 0],
        ),
        ("race+gender", "drop", ("asian×f", "black×f", "white×f"), [1, -1, -1, 2, 0]),
        ("race+gender", "merge:black×f", ("asian×f", "black×f", "white×f"), [1, 1, 1, 2, 0]),
    ],
)
def test_unrecorded_values_follow_the_policy(write, attribute, policy, names, codes):
    read_codes, names_read = read_predictions(write(GOOD + ROWS), [attribute]).groups(attribute, policy)
    assert (names_read, read_codes.tolist()) == (names, codes)


@pytest.mark.parametrize(
    ("labels", "options", "classes", "target"),
    [
        ("1,0;0,0", {}, ("0", "1"), [1, 0]),
        ("1.0,0.0;0.0,0.0", {}, ("0", "1"), [1, 0]),
        ("True,False;False,False", {}, ("false", "true"), [1, 0]),
        ("yes,no;no,no", {}, ("no", "yes"), [1, 0]),
        ("Malignant,Benign;Benign,Benign", {}, ("Benign", "Malignant"), [1, 0]),
        ("sick,well;well,-1", {"positive": "sick"}, ("well", "sick"), [1, 0]),
        ("1,0;0,0", {"positive": "0"}, ("1", "0"), [0, 1]),
        ("sick,well;well,well", {"classes": ["well", "sick"]}, ("well", "sick"), [1, 0]),
        ("b,a;a,c;c,c", {}, ("a", "b", "c"), [1, 0, 2]),
        ("2,0;0,0;1,1", {}, ("0", "1", "2"), [2, 0, 1]),
        ("yes,yes;yes,yes", {}, ("no", "yes"), [1, 1]),
    ],
)
def test_labels_of_any_spelling_become_class_indices(write, labels, options, classes, target):
    predictions = read_predictions(write("target,answer\n" + labels.replace(";", "\n")), **options)
    assert (predictions.classes, predictions.target.tolist()) == (classes, target)


def test_naming_class_0_as_positive_turns_everything_around(write):
    predictions = read_predictions(write("target,answer,score\n1,-1,0.9\n0,1,0.2\n"), positive="0")
    assert predictions.target.tolist() == [0, 1]
    assert predictions.answer.tolist() == [-1, 0]
    np.testing.assert_allclose(predictions.probability(1), [0.9, 0.2])  # `score` is of the positive, whichever


@pytest.mark.parametrize("labels", [("0", "1"), ("no", "yes"), ("False", "True"), ("benign", "malignant")])
def test_what_a_probability_means_depends_on_neither_spelling_nor_positive(write, labels):
    low, high = labels
    path = write(f"target,answer,p_0,p_1\n{low},{low},.9,.1\n{high},{high},.2,.8\n")
    for positive, other in ((high, low), (low, high)):
        predictions = read_predictions(path, positive=positive)
        assert [name.lower() for name in predictions.classes] == [other.lower(), positive.lower()]
        assert predictions.target.tolist() == predictions.probability(1).round().tolist()
        assert predictions.probability(1).tolist() == ([0.1, 0.8] if positive == high else [0.9, 0.2])


@pytest.mark.parametrize("attributes", [None, ["site"]])
@pytest.mark.parametrize(
    "labels", [("no", "yes"), ("b_sick", "a well"), ("False", "True"), ("00", "01"), ("1", "0")]
)
def test_a_probability_may_be_called_by_its_class(write, labels, attributes):
    first, second = labels
    rows = f"{first},{first},.9,.1,a,.5\n{second},{second},.2,.8,b,.5\n"
    path = write(f"target,answer,p_{first},p_{second},site,p_else\n" + rows)
    for positive in labels:
        predictions = read_predictions(path, attributes, positive=positive)
        assert predictions.classes[1] == positive.lower() if positive in ("True", "False") else positive
        assert predictions.probability(1).tolist() == ([0.9, 0.2] if positive == first else [0.1, 0.8])
        assert ("p_else" in predictions.table) == (attributes is None)


def test_of_classes_without_an_order_nobody_knows_what_p_0_is(write):
    path = write("target,answer,p_0,p_1\nsick,sick,.9,.1\nwell,well,.2,.8\n")
    with pytest.raises(FairbenchError, match="what p_0 is the probability of"):
        read_predictions(path, positive="sick")
    with pytest.raises(FairbenchError, match="the classes sick, well, well name one twice"):
        read_predictions(path, classes=["sick", "well", "well"])
    predictions = read_predictions(path, positive="sick", classes=["sick", "well"])
    assert predictions.classes == ("well", "sick")
    assert predictions.probability(1).tolist() == [0.9, 0.2]


REFUSED = {
    "race,target,answer,p_yes\na,no,no,.4": ("p_yes are not one for each class \\(no, yes\\)", "score"),
    "race,target,answer,p_no,p_yes\na,no,no,.4,high": ("column `p_yes` is not a number", "fractions"),
    "race,target,answer,p_no,p_yes\na,no,no,.4,": ("p_yes.*no probability", ""),
    "race,target,answer,p_no,p_yes\na,no,no,.4,.7": ("do not sum to 1", ""),
    "reference,text,target\nx,x,1": ("no column of .* is called `answer`", ""),
    "target,answr\n1,1": ("no column of .* is called `answer`", "answr"),
    "target,answer,rase\n1,1,a": ("no column of .* is called `race`", "rase"),
    "target,answer,score,race\n1,1,1.2,a": ("score.*no probability.*1 of 1 rows.*row 1", ""),
    "target,answer,score,race\n1,1,0.5,a\n1,1,,a": ("score.*no probability.*1 of 2 rows.*row 2", ""),
    "target,answer,p_0,race\n1,1,0.5,a": ("1 probabilities for 2 classes", ""),
    "target,answer,p_0,p_2,race\n1,1,0.5,.5,a": ("p_0, p_1, … in full", "p_0, p_2"),
    "target,answer,score,p_0,p_1,race\n1,1,.5,.5,.5,a": ("both `score` and `p_0`", "leave one"),
    "target,answer,race\n,1,a": ("`target` is empty in 1 of 1", ""),
    "target,answer,race\n1,,a": ("`answer` is empty in 1 of 1", "write -1"),
    "target,answer,race\n1,None,a": ("`answer` is empty in 1 of 1", "--keep"),
    "target,answer,race\n1,maybe,a": ("mix numbers .1. and names .maybe.", "one kind"),
    "target,answer,race\nno,no,a\nyes,maybe,a": ("unknown class `maybe` in `answer`", "-1"),
    "target,answer,race\n-1,1,a": ("`-1`", "0, 1"),
    "target,answer,race\n0.37,1,a": ("0.37, which is no class", "score"),
    "target,answer,race\nsick,well,a": ("order of the classes sick, well", "positive"),
    "target,answer,race\n1,2,a\n2,2,a": ("class 2 occurs and class 0 does not", "counted from 0"),
    "target,answer,score,race\n0,1,.1,a\n2,1,.1,a": ("`score` is the probability of the positive of two", "p_2"),
    "id,target,answer,race\nx,1,1,a\nx,0,1,a": (
        "the id occurs more than once in 1 of 2 rows.*row 2 .id `x`.",
        "cluster",
    ),
    "id,target,answer,race\n,1,1,a": ("`id` is empty", ""),
    "cluster,target,answer,race\n,1,1,a": ("`cluster` is empty", ""),
    "split,target,answer,race\nval,1,1,a": ("no split of .* is called `test`", "val"),
    "target,answer,race\n0,0,a\n1,1,a\n0,2,a": (
        "unknown class `2` in `answer`.* 1 of 3 rows.* row 3",
        "-1",
    ),
    "target,answer,p_0,p_1,p_2,race\n0,0,.9,.05,.05,a\n1,1,.9,.9,.1,a": (
        "p_0, p_1, p_2 do not sum to 1.* 2",
        "",
    ),
    "target,answer,p_0,p_1,race\n0,0,.5,.4,a": ("p_0, p_1 do not sum to 1 in 1 of 1 rows", "exclude each other"),
    "split,target,answer,race\ntest,1,1,a\n,1,1,b": (
        "`split` is empty in 1 of 2 rows.* row 2",
        "--split all",
    ),
    "target,answer,race,race\n1,1,a,b": ("two columns are called `race`", "rename"),
    "target,answer,race\n": ("no rows", "one row per"),
    "target;answer;score;race\n1;1;0,5;a": ("separated by ';'", "commas"),
    "target\tanswer\trace\n1\t1\ta": ("separated by '.t'", "commas"),
    "PK\x03\x04\x14": ("is a workbook or another archive, not parquet or csv", "csv or parquet"),
    '{"target": 1, "answer": 1}': ("is JSON, not parquet or csv", "csv or parquet"),
    '[{"target": 1}]': ("is JSON, not parquet or csv", "csv or parquet"),
    'target,answer,race,score\n1,1,a,0.5\n1,1,a,"0,5"': ("column `score` holds `0,5`, which is no number", "point"),
    "": ("cannot be read", "header"),
    "target,answer,race\n1,1,a\n1,1,a,b,c,d": ("cannot be read", "header"),
}


@pytest.mark.parametrize("text", REFUSED)
def test_a_bad_file_is_refused_with_the_column_and_a_way_out(write, text):
    message, hint = REFUSED[text]
    with pytest.raises(FairbenchError, match=message) as refusal:
        read_predictions(write(text), ["race"])
    assert hint in refusal.value.hint


def test_a_missing_file_and_a_torn_parquet_are_refused(write, tmp_path):
    with pytest.raises(FairbenchError, match=r"cannot read .*absent\.parquet: No such file"):
        read_predictions(tmp_path / "absent.parquet")
    with pytest.raises(FairbenchError, match="cannot be read"):
        read_predictions(write("PAR1 and then nonsense"))


def test_parquet_with_lists_is_refused(tmp_path):
    pd.DataFrame({"target": [[1], [0]], "answer": [1, 0]}).to_parquet(tmp_path / "p.parquet")
    with pytest.raises(FairbenchError, match="lists, records or bytes"):
        read_predictions(tmp_path / "p.parquet")


@pytest.mark.parametrize("about", ["[1]", '{"classes": "no,yes"}', '{"attributes": [1]}', "{"])
def test_parquet_with_strange_metadata_is_refused(tmp_path, about):
    table = pa.table({"target": [1, 0], "answer": [1, 0]}).replace_schema_metadata({"fairbench": about})
    pq.write_table(table, tmp_path / "p.parquet")
    with pytest.raises(FairbenchError, match=r"metadata|cannot be read"):
        read_predictions(tmp_path / "p.parquet")


def test_unknown_attributes_policies_and_groups_name_the_nearest(write):
    predictions = read_predictions(write(GOOD + ROWS), ["race"])
    with pytest.raises(FairbenchError, match=r"attribute.*`rac`") as refusal:
        predictions.groups("rac")
    assert "`race`" in refusal.value.hint
    with pytest.raises(FairbenchError, match="policy"):
        predictions.groups("race", "ignore")
    with pytest.raises(FairbenchError, match="group of race") as refusal:
        predictions.groups("race", "merge:whit")
    assert "`white`" in refusal.value.hint
    with pytest.raises(FairbenchError, match="twice"):
        predictions.groups("race+race")


def test_a_continuous_attribute_is_refused_not_tabulated(write):
    rows = "\n".join(f"1,1,{age}.5" for age in range(1001))
    with pytest.raises(FairbenchError, match="1,001 groups") as refusal:
        read_predictions(write("target,answer,age\n" + rows), ["age"]).groups("age")
    assert "bin" in refusal.value.hint


TYPES = [
    (pa.array([1, None, 2]), ["1", None, "2"]),
    (pa.array([1.0, None, 2.0]), ["1", None, "2"]),
    (pa.array([1.5, float("nan"), 2.0]), ["1.5", None, "2"]),
    (pa.array([True, None, False]), ["true", None, "false"]),
    (pa.array(["007", "7", "02139"]), ["007", "7", "02139"]),
    (pa.array(["1.0", "2.0", ""]), ["1", "2", None]),
    (pa.array([2**60, 2**60 + 1, None]), [str(2**60), str(2**60 + 1), None]),
    (pa.array(["a", None, "b"]).dictionary_encode(), ["a", None, "b"]),
    (pa.array([" NA", "none", "<NA>"]), [None, None, None]),
    (pa.array(["Unknown", "n/a", "x "], pa.large_string()), [None, None, "x"]),
    (pa.array(["#N/A", "?", "N.A."]), [None, None, None]),
    (pa.array([-0.0, 0.0, 1.5]), ["0", "0", "1.5"]),
    (pa.array(["-0.0", "0.0", "-1.5"]), ["0", "0", "-1.5"]),
    (pa.array([1.0, None, 2.0]).cast(pa.float16()), ["1", None, "2"]),
]


@pytest.mark.parametrize(("column", "words"), TYPES)
def test_a_value_is_spelt_alike_whatever_type_and_file_it_comes_in(tmp_path, column, words):
    table = pa.table({"target": [0, 1, 1], "answer": [0, 1, 0], "site": column})
    pq.write_table(table, tmp_path / "p.parquet")
    table.to_pandas(ignore_metadata=True).to_csv(tmp_path / "p.csv", index=False)
    for path in (tmp_path / "p.parquet", tmp_path / "p.csv"):
        if path.suffix == ".csv" and pa.types.is_integer(column.type) and column.null_count and words[0] != "1":
            continue  # pandas itself would lose the digits on the way into the csv
        predictions = read_predictions(path, ["site"]).table["site"]
        assert [word if isinstance(word, str) else None for word in predictions] == words


def test_an_index_is_read_where_it_has_a_name_and_no_row_number_is_an_attribute(write):
    frame = pd.DataFrame({"id": ["b", "a"], "target": [0, 1], "answer": [0, 1], "sex": ["f", "m"]})
    named = predictions_of(frame.set_index(["id", "sex"]))
    assert (named.attributes, named.table["id"].tolist()) == (("sex",), ["b", "a"])
    assert predictions_of(frame.set_index("sex", drop=False)).attributes == ("sex",)
    assert read_predictions(write(frame.to_csv())).attributes == ("sex",)


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        (pa.array([(1, 2, 3)] * 2, pa.month_day_nano_interval()), "`x` is of the type month_day_nano_interval"),
        (pa.array([[1], [2]]), "`x` holds lists"),
    ],
)
def test_types_without_a_spelling_are_refused_from_memory_too(column, problem):
    with pytest.raises(FairbenchError, match=problem):
        predictions_of(pa.table({"target": [0, 1], "answer": [0, 1], "x": column}))


def test_scores_of_huge_whole_numbers_are_no_probabilities():
    with pytest.raises(FairbenchError, match="`score` is no probability"):
        predictions_of({"target": [0, 1], "answer": [0, 1], "score": np.array([2**64 - 1] * 2, np.uint64)})


def test_binned_ages_are_groups():
    """By pandas.cut, whose intervals Arrow cannot spell."""
    age = pd.cut(pd.Series([20.0, 50.0, None]), [0, 40, 80])
    people = {"target": [0, 1, 1], "answer": [0, 1, 0]}
    for column in (age, age.astype(pd.IntervalDtype("float64"))):
        assert predictions_of(pd.DataFrame({**people, "age": column})).groups("age")[1][2] == "unrecorded"
    assert predictions_of(pd.DataFrame({**people, "age": age})).groups("age")[1][:2] == ("(0, 40]", "(40, 80]")


def test_a_word_for_missing_that_is_a_name_can_be_kept(write):
    path = write("target,answer,country\n0,0,NA\n1,1,None\n1,0,DE\n")
    assert read_predictions(path).groups("country")[1] == ("DE", "unrecorded")
    assert read_predictions(path, keep=["na"]).groups("country")[1] == ("DE", "NA", "unrecorded")


@pytest.mark.parametrize("column", ["id", "cluster"])
def test_floats_too_large_to_tell_apart_are_no_keys(tmp_path, column):
    keys = np.array([2.0**53, 2.0**53 + 2])
    pd.DataFrame({column: keys, "target": [0, 1], "answer": [0, 1]}).to_parquet(tmp_path / "p.parquet")
    with pytest.raises(FairbenchError, match=f"`{column}` holds numbers above 2.53"):
        read_predictions(tmp_path / "p.parquet", [])


def test_texts_of_whole_numbers_stay_whole_beside_a_null(tmp_path):
    table = pa.table({"text": pa.array([1, None, 3]), "reference": ["1", "NA", "4"]})
    pq.write_table(table, tmp_path / "p.parquet")
    assert read_predictions(tmp_path / "p.parquet", []).pairs == [("1", "1"), ("", "NA"), ("3", "4")]


@pytest.mark.parametrize(
    ("split", "spellings"),
    [
        (
            "test",
            [
                "test",
                "Test",
                " TESTING",
                "test set",
                "Test-Set",
                "test_split",
                "Hold-out",
                "held out",
                "holdout set",
            ],
        ),
        ("val", ["val", "Validation", "dev", "validation set", "DEV_SET", "development data"]),
        ("train", ["train", "Training", "train-set", "training data"]),
    ],
)
def test_splits_have_many_spellings(write, split, spellings):
    rows = "".join(f"{word},1,1,a\n" for word in (*spellings, "train", "val", "test"))
    predictions = read_predictions(write("split,target,answer,race\n" + rows), split=split)
    assert len(predictions) == len(spellings) + 1
    assert set(predictions.table["split"]) == {split}


def test_a_split_that_is_none_of_the_three_is_read_by_its_own_name(write):
    path = write("split,target,answer,race\nfold 3,1,1,a\nFold_3,0,1,a\nfold 4,1,1,a\n")
    assert [len(read_predictions(path, split=split)) for split in ("fold 3", "fold 4", None)] == [2, 1, 3]


@pytest.mark.parametrize("strange", ["tset", "Test-2", "0", "external", "set"])
def test_no_row_vanishes_for_a_split_that_nobody_knows(write, strange):
    path = write(f"split,target,answer,race\ntest,1,1,a\n{strange},0,1,a\nval,1,1,a\n{strange},1,1,a\n")
    for split in ("test", "val"):
        with pytest.raises(
            FairbenchError, match=rf"`split` holds `{strange}` \(2\).* in 2 of 4 rows, first in row 2"
        ):
            read_predictions(path, split=split)
    assert len(read_predictions(path, split=None)) == 4


def test_names_that_hold_the_joining_sign_do_not_collide():
    table = pd.DataFrame({"a": ["x×y", "x", '"q'], "b": ["z", "y×z", "z"]})
    groups = Groups.of(table, "a+b")
    assert groups.names == ('"\\"q"×z', '"x×y"×z', 'x×"y×z"')
    assert groups.codes.tolist() == [1, 2, 0]
    assert Groups.of(table, "a").names == ('"q', "x", "x×y")


def test_groups_need_no_answers(write):
    table = pd.DataFrame({"race": ["b", None, "a"], "cluster": ["p", "p", "q"]})
    assert Groups.of(table, "race", "drop").codes.tolist() == [1, -1, 0]
    assert Groups.of(table, "race", "drop").cluster.tolist() == [0, 0, 1]
    assert Groups.everyone(table.assign(cluster=["p", "r", "q"])).cluster is None
    with pytest.raises(FairbenchError, match="column of this table is called `rac`"):
        Groups.of(table, "rac")


BROKEN = {
    "answer": ([0, 5], "`answer` is no class of 2 in 1 of 2 rows, first in row 2 .id `b`."),
    "target": ([-1, 0], "`target` is no class of 2"),
    "target ": (["x", "y"], "`target` is no class of 2"),
    "id": (["a", "a"], "the id occurs more than once"),
    "p_1": ([0.9, 0.5], "p_0, p_1 do not sum to 1"),
    "p_0": (["0.9", "a lot"], "there is no column `p_0` of numbers"),
}


@pytest.mark.parametrize("column", BROKEN)
def test_our_own_file_is_read_as_it_is_or_refused(tmp_path, column):
    table = pd.DataFrame({"id": ["a", "b"], "target": [0, 1], "answer": [0, -1], "p_0": [0.9, 0.5]})
    table["p_1"] = 1 - table["p_0"]
    Predictions(table.assign(race=["NA", "007"]), ("x", "y"), ("race",)).save(tmp_path / "p.parquet")
    predictions = Predictions.load(tmp_path / "p.parquet")
    assert predictions.groups("race")[1] == ("007", "NA")  # nothing is guessed
    assert read_predictions(tmp_path / "p.parquet", positive="x").classes == ("y", "x")
    with pytest.raises(FairbenchError, match="its classes are x, y"):
        read_predictions(tmp_path / "p.parquet", classes=["y", "x"])
    value, message = BROKEN[column]
    Predictions(table.assign(**{column.strip(): value}), ("x", "y")).save(tmp_path / "p.parquet")
    with pytest.raises(FairbenchError, match=message):
        Predictions.load(tmp_path / "p.parquet")
    Predictions(table.drop(columns="p_1"), ("x", "y")).save(tmp_path / "p.parquet")
    with pytest.raises(FairbenchError, match="there is no column `p_1` of numbers"):
        Predictions.load(tmp_path / "p.parquet")


def test_a_split_that_no_row_says_is_not_taken_for_all_rows(tmp_path):
    table = pd.DataFrame({"target": [0, 1], "answer": [0, 1], "race": ["a", "b"]})
    predictions = Predictions(table, ("x", "y"), ("race",))
    predictions.save(tmp_path / "p.parquet")
    assert len(Predictions.load(tmp_path / "p.parquet", split="test")) == 2
    for read in (
        lambda: Predictions.load(tmp_path / "p.parquet", split="val"),
        lambda: predictions.of_split("val"),
    ):
        with pytest.raises(FairbenchError, match="there is no column `split`"):
            read()
    with pytest.raises(FairbenchError, match="no rows of the split 'train'"):
        Predictions(table.assign(split="test"), ("x", "y"), ("race",)).of_split("train")


def shuffled(clusters_a, clusters_b):
    rows = pd.DataFrame({"id": list("abcd"), "target": [0, 1, 0, 1], "answer": [0, 1, 1, 1]})
    a, b = rows.copy(), rows.copy()
    if clusters_a:
        a["cluster"] = list(clusters_a)
    if clusters_b:
        b["cluster"] = list(clusters_b)
    return Predictions(a, ("0", "1")), Predictions(b.iloc[::-1], ("0", "1"))


@pytest.mark.parametrize(("left", "right"), [("ppqq", ""), ("", "7733"), ("ppqq", "7733")])
def test_clusters_that_one_file_has_hold_for_both(left, right):
    a, b = align(*shuffled(left, right))
    assert b.table["id"].tolist() == list("abcd")
    assert a.clusters().tolist() == b.clusters().tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(("left", "right"), [("ppqq", "7333"), ("ppqq", "7777"), ("pqrs", "7733")])
def test_clusters_that_disagree_are_refused(left, right):
    with pytest.raises(FairbenchError, match="disagree about which rows belong to one patient"):
        align(*shuffled(left, right))


def test_only_the_asked_split_and_columns_are_read(tmp_path):
    table = pd.DataFrame(
        {"split": ["val", "test"], "target": [1, 0], "answer": [1, 1], "race": ["a", "b"], "note": ["x", "y"]}
    )
    table.to_parquet(tmp_path / "p.parquet")
    predictions = read_predictions(tmp_path / "p.parquet", ["race"])
    assert predictions.table.columns.tolist() == ["split", "target", "answer", "race"]
    assert predictions.groups("race")[1] == ("b",)
    assert len(read_predictions(tmp_path / "p.parquet", ["race"], split=None)) == 2


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ([1.0, 2.0, None], [1, 2, 3]),
        ([-1.0, -0.0, None], [-1, 0, 3]),
        ([1.0, 2.5, None], ["1", "2.5", "3"]),
        ([1, 2, 2], [1.0, 2.0, 3.5]),
    ],
)
def test_texts_that_are_numbers_are_alike_from_csv_and_parquet(tmp_path, text, reference):
    table = pd.DataFrame({"text": text, "reference": reference})
    table.to_parquet(tmp_path / "p.parquet")
    table.to_csv(tmp_path / "p.csv", index=False)
    pairs = read_predictions(tmp_path / "p.csv", []).pairs
    assert pairs == read_predictions(tmp_path / "p.parquet", []).pairs
    assert [one == other for one, other in pairs] == [True, True, False]


@pytest.mark.parametrize(
    ("text", "reference", "pairs"),
    [
        ("1.0,2", "1.0,2", [("1.0", "1.0"), ("2", "2")]),  # written so by a model
        ("1.0,about 2", "1,2.0", [("1.0", "1"), ("about 2", "2.0")]),
        ("1.0,2.0", "1.0,two", [("1", "1"), ("2", "two")]),  # what was equal stays equal
        ("1e-05,2.0", "1e-05,2", [("1e-05", "1e-05"), ("2", "2")]),
    ],
)
def test_texts_that_are_more_than_numbers_are_kept(write, text, reference, pairs):
    rows = zip(text.split(","), reference.split(","), strict=True)
    path = write("text,reference\n" + "".join(",".join(row) + "\n" for row in rows))
    assert read_predictions(path, []).pairs == pairs


@pytest.mark.parametrize("pair", [("1", "1.0"), ("2.50", "2.5"), ("-3.", "-3")])
def test_one_number_in_two_spellings_is_no_second_cluster_or_group(write, pair):
    for key in ("id", "cluster"):
        path = write(f"{key},target,answer,race\n{pair[0]},0,0,a\n7,1,1,a\n{pair[1]},0,1,b\n")
        with pytest.raises(FairbenchError, match=rf"`{key}` holds `{pair[0]}` and `{pair[1]}`, which may be one"):
            read_predictions(path, ["race"])
    assert alike(["7", "007", *pair]) == [pair]


@pytest.mark.parametrize("keys", [["1", "2.0"], ["1.1", "1.10a"], ["007", "7.0"], ["a", "1.0"]])
def test_keys_that_are_not_the_same_stay_as_they_are_written(write, keys):
    path = write("id,target,answer,race\n" + "".join(f"{key},0,0,a\n" for key in keys))
    assert read_predictions(path, ["race"]).table["id"].tolist() == keys


def softmax(classes, spread, rows=500):
    logits = np.random.default_rng(classes).normal(0, spread, (rows, classes))
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def of_classes(probabilities):
    classes = np.arange(probabilities.shape[1])
    target = np.resize(classes, len(probabilities))
    named = {f"p_{index}": probabilities[:, index] for index in classes}
    return {"target": target, "answer": target, **named}


@pytest.mark.parametrize("digits", [2, 3, 4, 17])
@pytest.mark.parametrize("spread", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("classes", [2, 7, 20, 100])
def test_probabilities_may_be_rounded(classes, spread, digits):
    honest = softmax(classes, spread)
    assert len(predictions_of(of_classes(honest.round(digits)))) == 500
    assert len(predictions_of(of_classes(honest.round(digits).astype(np.float32)))) == 500


def test_whatever_rounding_does_to_equal_probabilities_is_read():
    """A 64th is 0.02 and sums to 1.28, a 67th 0.01 and sums to 0.67; smoothed labels lose a tenth to zeros."""
    smoothed = [np.eye(count) * 0.9 + 0.1 / count for count in (30, 100)]
    for honest in (*(np.full((count, count), 1 / count) for count in (8, 64, 67)), *smoothed):
        assert len(predictions_of(of_classes(honest.round(2))))
    two_digits = np.vectorize(lambda value: float(f"{value:.2g}"))
    assert len(predictions_of(of_classes(two_digits(softmax(7, 0.5)))))


def rows_of(classes, *shares):
    """Rows of some shares of the probability beside zeros, one for each class."""
    return np.stack([np.roll([*shares, *[0.0] * (classes - len(shares))], index) for index in range(classes)])


@pytest.mark.parametrize(
    "wrong",
    [
        rows_of(20, 0.6, 0.5),
        rows_of(100, 0.6, 0.5),
        rows_of(100, 0.9, 0.6),
        rows_of(100, 0.6),
        rows_of(20, 0.5, 0.4),
        softmax(20, 1.0) * 1.1,
        softmax(100, 1.0) * 0.9,
        (softmax(100, 1.0) * 1.1).round(4),
        np.where(np.arange(500)[:, None] == 7, 0.015, softmax(100, 1.0)),  # one row alone
    ],
    ids=str,
)
def test_rounding_excuses_no_more_than_it_can_do(wrong):
    with pytest.raises(FairbenchError, match="p_0, p_1, p_2 … do not sum to 1") as refusal:
        predictions_of(of_classes(wrong))
    assert "digits" in refusal.value.hint


@pytest.mark.parametrize(
    ("header", "column", "role"),
    [
        ("target,answer,race,Score", "Score", "score"),
        ("target,answer,race,CLUSTER", "CLUSTER", "cluster"),
        ("target,answer,race, id", " id", "id"),
        ("target,answer,race,Split", "Split", "split"),
        ("Target,answer,race,score", "Target", "target"),
        ("Text,reference,race,loss", "Text", "text"),
        ("target,answer,race,P_0", "P_0", "p_0"),
    ],
)
def test_a_role_in_other_capitals_is_not_ignored_unseen(write, header, column, role):
    path = write(f"{header}\n1,1,a,0.5\n0,1,b,0.5\n")
    for attributes in (None, ["race"]):
        with pytest.raises(FairbenchError, match=f"the column `{column}` would not be read as `{role}`") as refusal:
            read_predictions(path, attributes)
        assert f"`{role}`" in refusal.value.hint


@pytest.mark.parametrize(
    ("header", "attributes"),
    [
        ("target,answer,race,Cluster", ["Cluster"]),  # asked for by that name
        ("target,answer,cluster,CLUSTER", None),
        ("target,answer,race,Text", ["race"]),  # a text alone has no role
        ("target,answer,race,p_stage", ["race"]),  # words
        ("target,answer,score,p_value", []),
    ],
)
def test_a_column_that_only_looks_like_a_role_is_an_attribute_or_nothing(write, header, attributes):
    assert len(read_predictions(write(f"{header}\n1,1,0.5,T1\n0,1,0.5,T2\n"), attributes)) == 2


@pytest.mark.parametrize("attributes", [None, ["race"]])
@pytest.mark.parametrize(
    ("labels", "columns"),
    [
        ("no,yes", "p_No,p_Yes"),
        ("no,yes", "P_no,P_yes"),
        ("0,1", "p_no,p_yes"),
        ("0,1", "p_neg,p_pos"),
        ("no,yes", "p_negative,p_positive"),
    ],
)
def test_probabilities_of_no_class_are_not_ignored_unseen(write, labels, columns, attributes):
    low, high = labels.split(",")
    path = write(f"target,answer,{columns},race\n{low},{low},.9,.1,a\n{high},{high},.2,.8,b\n")
    with pytest.raises(
        FairbenchError, match=f"{columns.replace(',', ', ')} would be ignored.*{low}, {high}"
    ) as refusal:
        read_predictions(path, attributes)
    assert f"p_{low}, p_{high}" in refusal.value.hint
    assert len(read_predictions(path, columns.split(","))) == 2  # asked for as attributes
    if labels == "0,1":
        named = read_predictions(path, ["race"], classes=[name[2:] for name in columns.split(",")])
        assert named.probability(1).tolist() == [0.1, 0.8]


@pytest.mark.parametrize("word", ["XX", "n.v.t.", "", " "])
def test_only_a_word_for_missing_can_be_kept(write, word):
    path = write("target,answer,country\n0,0,NA\n1,1,DE\n")
    with pytest.raises(FairbenchError, match=f"`{word}` is no word for a missing value") as refusal:
        read_predictions(path, keep=["NA", word])
    assert "na, n/a, #n/a" in refusal.value.hint
    with pytest.raises(FairbenchError, match="nothing to keep"):
        predictions_of({"target": [0, 1], "answer": [0, 1], "country": ["NA", "DE"]}, keep=[word])
    assert read_predictions(path, keep="NA").groups("country")[1] == ("DE", "NA")


SAVED = "target,answer,city\n0,0,K\u00f6ln\n1,1,Ulm\n"
OTHERWISE = {
    "UTF-16": (SAVED.encode("utf-16"), "is written in UTF-16"),
    "UTF-16 without a mark": (SAVED.encode("utf-16-le"), "is written in UTF-16"),
    "UTF-16, big-endian": (SAVED.encode("utf-16-be"), "is written in UTF-16"),
    "UTF-32": (SAVED.encode("utf-32"), "is written in UTF-32"),
    "Latin-1": (SAVED.encode("latin-1"), "not written in UTF-8 but perhaps in Latin-1: byte 0xf6 in line 2"),
    "Latin-1 in the header": (SAVED.replace("city", "St\u00e4dte").encode("latin-1"), "byte 0xe4 in line 1"),
    "Excel": (b"sep=;\r\n" + SAVED.replace(",", ";").encode(), "its first line is 'sep=;'"),
    "Excel with commas": (b"sep=,\n" + SAVED.encode(), "its first line is 'sep=,'"),
    "Excel with a mark": ("\ufeffsep=\t\n".encode() + SAVED.encode(), "its first line is 'sep=.*only Excel"),
    "an old workbook": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), "is an old workbook, not parquet or csv"),
}


@pytest.mark.parametrize("kind", OTHERWISE)
@pytest.mark.parametrize("packed", [False, True])
def test_a_file_that_a_spreadsheet_wrote_says_what_it_is(tmp_path, kind, packed):
    data, message = OTHERWISE[kind]
    path = tmp_path / ("p.csv.gz" if packed and kind != "an old workbook" else "p.csv")
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    with pytest.raises(FairbenchError, match=message) as refusal:
        read_predictions(path, ["city"])
    assert re.search(r"UTF-8|delete that line|csv or parquet", refusal.value.hint)


def test_utf_8_with_a_mark_is_read_and_so_is_latin_1_in_a_column_that_nobody_needs(tmp_path):
    (tmp_path / "p.csv").write_bytes(SAVED.encode("utf-8-sig"))
    assert read_predictions(tmp_path / "p.csv").groups("city")[1] == ("K\u00f6ln", "Ulm")
    (tmp_path / "p.csv").write_bytes(SAVED.encode("latin-1"))
    assert len(read_predictions(tmp_path / "p.csv", [])) == 2


names = st.one_of(st.none(), st.sampled_from(["black", "white", "×odd+name ", "Ünicode", "7"]))
rows_of = st.lists(
    st.tuples(st.integers(0, 2), st.integers(-1, 2), st.floats(0, 1, width=32), names),
    min_size=1,
    max_size=30,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=rows_of)
def test_what_is_saved_is_what_is_read(tmp_path, rows):
    target, answer, p, race = zip(*rows, strict=True)
    n = len(rows)
    table = pd.DataFrame(
        {
            "id": [f"i{k}" for k in range(n)],
            "cluster": "c",
            "split": "test",
            "target": target,
            "answer": answer,
            "p_0": np.float32(p),
            "p_1": np.float32(1) - np.float32(p),
            "p_2": np.zeros(n, np.float32),
            "race": pd.array(race, dtype="str"),
        }
    )
    before = Predictions(table, ("x", "y", "1"), ("race",), "classify")
    before.save(tmp_path / "p.parquet")
    after = Predictions.load(tmp_path / "p.parquet")
    assert (after.classes, after.attributes, after.task) == (before.classes, before.attributes, before.task)
    np.testing.assert_array_equal(after.target, before.target)
    np.testing.assert_array_equal(after.answer, before.answer)
    np.testing.assert_array_equal(after.probabilities, before.probabilities)
    assert [name if isinstance(name, str) else None for name in after.table["race"]] == [*race]
    assert [file.name for file in tmp_path.iterdir()] == ["p.parquet"]  # nothing half-written stays


cells = st.sampled_from(
    ["0", "1", "-1", "yes", "no", "True", "", "0.5", "1e400", "nan", "inf", "٣", '"', ",", "x\0y"]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.lists(st.lists(cells, min_size=1, max_size=5).map(",".join), max_size=6).map("\n".join))
def test_any_text_is_read_or_refused_but_never_a_crash(tmp_path, body):
    path = tmp_path / "p.csv"
    path.write_text("target,answer,score,race\n" + body)
    try:
        predictions = read_predictions(path, ["race"])
    except FairbenchError:
        return
    assert len(predictions)
    assert predictions.target.min() >= 0
    assert predictions.target.max() < len(predictions.classes)
    assert predictions.probabilities.min() >= 0
    assert predictions.probabilities.max() <= 1


def test_the_parquet_says_its_classes_in_its_metadata(tmp_path):
    table = pd.DataFrame({"target": [0, 1], "answer": [0, 1], "race": ["a", None]})
    Predictions(table, ("no", "yes"), ("race",)).save(tmp_path / "p.parquet")
    about = json.loads(pq.read_schema(tmp_path / "p.parquet").metadata[b"fairbench"])
    assert about == {"classes": ["no", "yes"], "attributes": ["race"], "task": "classify"}
