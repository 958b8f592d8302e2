"""Files from strangers: every field is checked, sizes are bounded, and every text is escaped where it is shown."""

import json
from pathlib import Path

import jsonschema
import pytest
from boards import copied, row, said, table

from fairbench.errors import FairbenchError
from fairbench.publication import schema as schema_module
from fairbench.publication.published import FORMAT, Publication, read
from fairbench.publication.schema import schema_of
from fairbench.publication.verify import verify_file
from fairbench.report import render

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
    "nested without end": (
        lambda d: row(d, "better")["settings"].update(x=json.loads("[" * 400 + "]" * 400)),
        "nested too deeply",
    ),
}
NO_JSON = {
    '{"format": "x", "format": "fairbench-publication-1"}': "stands twice",
    '{"format": NaN}': "NaN is no number",
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


def test_every_text_of_a_stranger_is_escaped_wherever_it_is_shown(honest):
    data = copied(honest["two"][1])
    bad = "<img src=x>|\\input{/etc/passwd}"
    mine = row(data, "better")
    mine["origin"] = mine["label"] = bad
    mine["versions"]["method"] = f"{bad} 1.0"
    board = Publication.from_json(data).board
    assert "<img" not in render(board, "md").replace("\\<img", "")
    assert "<img src=x" not in render(board, "html")
    assert "\\input" not in render(board, "tex")
