"""Files from strangers: every field is checked, sizes are bounded, and every text is escaped where it is shown."""

import json
from pathlib import Path

import jsonschema
import pytest
from boards import copied, row, said, says, table
from click.testing import CliRunner

from fairbench.cli.main import main
from fairbench.errors import FairbenchError
from fairbench.publication import schema as schema_module
from fairbench.publication.cards import cards
from fairbench.publication.check import CheckRequest, verdict_on
from fairbench.publication.published import FORMAT, Publication, read
from fairbench.publication.schema import schema_of
from fairbench.publication.verify import verify_file
from fairbench.report import render
from fairbench.testing.toys import toy_plugins

NAME = f"{FORMAT}.schema.json"
SHIPPED = [Path(__file__).parents[2] / "leaderboards" / NAME, Path(schema_module.__file__).with_name(NAME)]
HOSTILE = {
    "another field": (lambda d: d.update(extra=1), "extra"),
    "a field of a row": (lambda d: row(d, "better").update(note="<script>"), r"rows\[\d\].*note"),
    "a number as text": (lambda d: row(d, "better")["score"].update(value="0.9"), r"score\.value"),
    "a text that is huge": (lambda d: d.update(name="a" * 30_000), "name: .*too long"),
    "no board": (lambda d: d.pop("board"), "'board' is a required property"),
    "an unknown level": (lambda d: row(d, "better").update(trust="certified"), "trust"),
    "another format": (lambda d: d.update(format="fairbench-publication-9"), "no published leaderboard"),
    "a row short of a group": (lambda d: row(d, "better")["groups"].pop(), "row better: it has values of 1 groups"),
    "a row twice": (lambda d: table(d)["rows"].append(row(d, "better")), "row better: two rows of the table"),
    "a group twice": (
        lambda d: table(d)["groups"].__setitem__(1, table(d)["groups"][0]),
        "two groups are called so",
    ),
    "short of a difference": (
        lambda d: row(d, "better")["changes"].pop("gap"),
        "row better: it is compared with the baseline, and not in gap",
    ),
    "stages that are a word": (
        lambda d: row(d, "better")["recipe"].update(stages="joint"),
        "row better: recipe.stages is 'joint', not the stages",
    ),
    "stages that are words": (
        lambda d: row(d, "better")["recipe"].update(stages=["joint"]),
        "row better: recipe.stages is",
    ),
    "short of who was moved": (lambda d: row(d, "better").update(interactions={}), "and not in whom it moved"),
    "no reading of a probe": (
        lambda d: d["jobs"][0].update(readable={"race": {"x": 1}}),
        "readable.race is not what a probe leaves",
    ),
    "half a character": (lambda d: d.update(publisher="\ud800"), "surrogates not allowed"),
    "no whole number": (lambda d: table(d).update(rows_tested=1.5), r"rows_tested: 1\.5 is not of type"),
    "a fault below a choice": (
        lambda d: table(d)["evidence"]["counts"]["better"][0]["everyone"].update(n="many"),
        r"evidence\.counts\.better\[0\]\.everyone\.n: 'many' is not of type",
    ),
    "nested without end": (
        lambda d: row(d, "better")["settings"].update(x=json.loads("[" * 400 + "]" * 400)),
        "nested too deeply",
    ),
}
NO_JSON = {
    '{"format": "x", "format": "fairbench-publication-1"}': "stands twice",
    '{"format": NaN}': "NaN is no number",
    '{"format": -1e301}': "-1e301 is beyond what any measure is",
    f'{{"format": {"9" * 400}}}': "9999 is beyond what any measure is",
    "[" * 100_000: "nested too deeply",
    "not json": "is not JSON",
}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name)
def test_the_schema_that_is_shipped_is_that_of_the_code(path):
    shipped = json.loads(path.read_text(encoding="utf-8"))
    assert shipped == schema_of(Publication, FORMAT)
    jsonschema.Draft202012Validator.check_schema(shipped)


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_no_publication_is_refused_with_its_place(honest, tmp_path, case):
    change, expected = HOSTILE[case]
    data = copied(honest["two"][1])
    change(data)
    (tmp_path / "x.json").write_text(json.dumps(data))
    with pytest.raises(FairbenchError, match=expected):
        read(tmp_path / "x.json")


@pytest.mark.parametrize("written", NO_JSON, ids=NO_JSON.values())
def test_what_is_no_json_of_ours_is_refused(tmp_path, written):
    (tmp_path / "x.json").write_text(written)
    with pytest.raises(FairbenchError, match=NO_JSON[written]):
        read(tmp_path / "x.json")


@pytest.mark.parametrize(
    "change", [{"n": 10**12}, {"total": -5.0}, {"answers": [[-1, 0, 0], [0, 0, 0]]}, {"answers": [[1]]}], ids=str
)
def test_impossible_counts_are_found_before_rows_are_made_of_them(honest, change):
    """A billion rows, or less than none, must not be expanded."""
    data = copied(honest["two"][1])
    table(data)["evidence"]["counts"]["better"][0]["groups"][0].update(change)
    assert any("better · seed 0" in one for one in said(verify_file(Publication.from_json(data))))


def test_more_rows_than_anybody_tested_are_not_made_up(honest):
    """All groups withheld, and a number of rows for which no memory would do."""
    data = copied(honest["two"][1])
    whole = table(data)
    whole["rows_tested"] = whole["clusters"] = 10**12
    for seeds in whole["evidence"]["counts"].values():
        for one in seeds:
            one["everyone"] = {"n": 10**12, "total": 1.0, "squares": 1.0}
            one["groups"] = [None for _ in one["groups"]]
    says(
        said(verify_file(Publication.from_json(data)), "unchecked"), "are more than the 20,000,000 that are counted"
    )


@pytest.mark.parametrize(
    ("change", "state", "expected"),
    [
        (lambda d: table(d)["evidence"].update(counts={}), "unchecked", "better: no counts are attached"),
        (lambda d: table(d)["evidence"]["counts"].update(better=[]), "unchecked", "better: no counts are attached"),
        (lambda d: d.update(published="9999-12-31T23:59:59-14:00"), "differs", "is no time that has been"),
        (lambda d: d["jobs"][0].update(started="9999-12-31T23:59:59-14:00"), "differs", "after the board was"),
        (lambda d: d["jobs"][0].update(started=""), "differs", "it began at '', which is no time"),
    ],
    ids=["no counts", "no seeds", "published after all time", "begun after all time", "no time"],
)
def test_what_no_lab_writes_is_said_and_breaks_nothing(honest, change, state, expected):
    data = copied(honest["two"][1])
    change(data)
    says(said(verify_file(Publication.from_json(data)), state), expected)


def test_a_name_in_a_file_is_no_path(honest, tmp_path):
    """Predictions are looked for beside the file that is checked, whatever it calls itself."""
    data = copied(honest["two"][1]) | {"name": "../../other", "predictions": True}
    verdict = verdict_on(Publication.from_json(data), CheckRequest(tmp_path / "x.json"), toy_plugins())
    says(said(verdict.findings, "unchecked"), "^predictions: x.predictions is not beside the file")


def test_no_text_of_a_stranger_begins_a_line_of_its_own(honest, tmp_path):
    data = copied(honest["two"][1])
    table(data)["dataset"] = "toy\nrows:\n  race · evil: retrained\u2028"
    (tmp_path / "x.json").write_text(json.dumps(data))
    (tmp_path / "y.json").write_text(json.dumps(copied(honest["two"][1])))
    for words in (["verify", "x.json"], ["diff", "x.json", "y.json"]):
        lines = (
            CliRunner().invoke(main, [words[0], *(str(tmp_path / one) for one in words[1:])]).stdout.splitlines()
        )
        assert not any(line.startswith("  race · evil") for line in lines), lines


def test_every_text_of_a_stranger_is_escaped_wherever_it_is_shown(honest):
    data = copied(honest["two"][1])
    bad = "<img src=x>|\\input{/etc/passwd}"
    mine = row(data, "better")
    mine["origin"] = mine["label"] = bad
    mine["versions"]["method"] = f"{bad} 1.0"
    data["board"]["fairbench"] = "1\n\\input{/etc/passwd}\n=====\n"
    table(data)["measure"] = {"name": "m", "title": "m\n=====\nwww.example.org", "gap": "g\n", "about": "a\n# b"}
    for one in data["jobs"]:
        one["steps"] = 1
        one["job"]["dataset"]["fingerprint"] = bad
    mine["keys"] = [record.job.key for record in Publication.from_json(data).jobs]  # they hold the fingerprint
    publication = Publication.from_json(data)
    written = dict(cards(publication))
    assert set(written) == set(mine["keys"])
    for card in written.values():
        assert "=====" not in card.splitlines()
        body = card.split("---\n", 2)[2]
        assert "<img" not in body.replace("\\<img", "")
        assert "www.example" not in body
    board = publication.board
    assert not any(line.startswith(("=====", "# b", "\\input")) for line in render(board, "md").splitlines())
    assert not any(line.startswith("\\input") for line in render(board, "tex").splitlines())
    assert "www.example" not in render(board, "md")
    assert "<img" not in render(board, "md").replace("\\<img", "")
    assert "<img src=x" not in render(board, "html")
    assert "\\input" not in "".join(line for line in render(board, "tex").splitlines() if not line.startswith("%"))
