"""The commands around a published board, as a clumsy user meets them."""

import pytest
from boards import copied, published, runs, says
from click.testing import CliRunner

from fairbench.cli.main import main
from fairbench.publication.published import read, text


def run(*words, status=0):
    """Run a command; return its two streams, which hold no traceback."""
    result = CliRunner().invoke(main, [*map(str, words)])
    assert isinstance(result.exception, SystemExit | None), result.exception
    assert result.exit_code == status, result.output
    return result.stdout, result.stderr


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Runs of two seeds, with a job that failed."""
    return runs(tmp_path_factory.mktemp("runs"), seeds=(0, 1))


@pytest.fixture
def board(store, tmp_path):
    """A published board by itself."""
    (tmp_path / "board.json").write_text(text(published(store)), encoding="utf-8")
    return tmp_path / "board.json"


@pytest.mark.parametrize(
    "name", ["a/b", "..", ".hidden", "", " ", "a\nb", "a\0b", "-x", "a|b", "x" * 101, "a\u202eb"]
)
def test_a_name_that_is_none_is_refused_before_anything_is_read(tmp_path, name):
    for words in (("publish", tmp_path / "nosuch"), ("merge", __file__, __file__)):
        _, error = run(*words, f"--name={name}", "--out", tmp_path, status=2)
        assert "this is no name of a file" in error
    assert [*tmp_path.iterdir()] == []


def test_whoever_publishes_has_a_name_of_one_line(tmp_path):
    for by in ("Lab\nA", "Lab \udcff", "\u202eLab"):
        assert "this is no line of text" in run("publish", tmp_path, "--name=a", f"--by={by}", status=2)[1]


def test_publishing_says_which_jobs_are_in_no_row(store, tmp_path):
    _, error = run("publish", store.root, "--name=a", "--attr=race", "--out", tmp_path)
    assert "note: broken, seed 0, is in no row: it ended in an error" in error
    assert "smith" not in error


@pytest.mark.slow
def test_json_comes_last_so_that_where_it_is_new_all_is(store, tmp_path):
    (tmp_path / "a.html").mkdir()  # what is written between the two fails
    error = run("publish", store.root, "--name=a", "--attr=race", "--html", "--out", tmp_path, status=2)[1]
    assert "cannot write" in error
    assert not (tmp_path / "a.json").exists()


def test_a_planned_comparison_of_nothing_is_refused(store, board):
    words = store.root, "--attr=race", "--primary=beter"
    for command in (["leaderboard"], ["publish", "--name=a", "--out", board.parent]):
        error = run(*command, *words, status=2)[1]
        assert "no row or method (of --primary) is called `beter`\nhint: did you mean `better`?" in error
    run("leaderboard", store.root, "--attr=race", "--primary=better,broken")  # planned, and it failed


def test_a_published_board_is_shown_without_its_runs(board):
    assert "## toy · tiny · race" in run("leaderboard", board, "--format=md")[0]
    error = run("leaderboard", board, "--attr=race", "--min-cell=5", "--plugin=mine.py", status=2)[1]
    assert "is a leaderboard as it was built\nhint: give --attr, --min-cell, --plugin with its runs" in error
    drawn = "plot", board, "--kind=groups", "--out", board.with_suffix(".svg")
    assert "--plugin with its runs" in run(*drawn, "--plugin=mine.py", status=2)[1]


def test_a_published_board_holds_the_values_of_single_seeds(board):
    """Each trained model is drawn from its counts, and the mean of the points is the row's value."""
    from fairbench.leaderboard.details import published as details

    shown = read(board).board
    for row in (*shown.tables[0].rows, *shown.tables[0].controls):
        points = details(shown)[0].rows[row.label].seeds
        assert [one.seed for one in points] == [0, 1]
        assert sum(one.score for one in points) / 2 == pytest.approx(row.score.value)
        assert sum(one.gap for one in points) / 2 == pytest.approx(row.gap.value)
    for kind, missing in (("loss", "losses need"), ("calibration", "curves of scores need")):
        error = run("plot", board, f"--kind={kind}", "--out", board.with_suffix(".svg"), status=2)[1]
        assert f"{missing} the folder of runs\nhint: choose another --kind" in error


@pytest.mark.slow  # it draws
def test_the_page_and_the_figure_of_a_published_board_show_its_seeds(board):
    run("plot", board, "--kind=seeds", "--out", board.with_suffix(".svg"))
    assert "<svg" in board.with_suffix(".svg").read_text(encoding="utf-8")
    page = run("leaderboard", board, "--format=html")[0]
    assert "What would training again change?" in page
    assert "the values of single seeds need" not in page
    assert "losses need the folder of runs" in page


def test_options_of_verify_that_would_do_nothing_are_refused(board):
    assert "add --out FILE" in run("verify", board, "--by=Reviewer 2", status=2)[1]
    assert "was not merged of --parts" in run("verify", board, "--parts", board, status=2)[1]
    assert "--rerun and --retrain read" in run("verify", board, "--data", "nosuch=/x", status=2)[1]


def test_what_a_table_is_about_is_part_of_a_difference(store, board):
    data = copied(published(store))
    table = data["board"]["tables"][0]
    table["groups"][0]["n"], table["min_cell"], table["ranked_by"] = 7, 20, "gap"
    other = board.with_name("other.json")
    other.write_text(text(type(read(board)).from_json(data)), encoding="utf-8")
    lines = run("diff", board, other)[0].splitlines()
    for expected in (
        "groups: black 60, white 140 → black 7, ",
        "withheld below: 10 → 20",
        "ranked by: dominance → gap",
    ):
        says(lines, expected)


def test_a_board_of_another_version_is_named_when_merged(store, board):
    data = copied(published(store, publisher="Lab B"))
    data["board"]["fairbench"] = "9.9"
    other = board.with_name("other.json")
    other.write_text(text(type(read(board)).from_json(data)), encoding="utf-8")
    _, error = run("merge", board, other, "--name=both", "--out", board.parent)
    assert "note: the board of Lab B was computed by fairbench 9.9, not" in error


def test_a_scaffold_has_a_name_that_stays_in_its_folder(tmp_path):
    for kind in ("benchmark", "method"):
        for name in ("../x", "x" * 61):
            assert "cannot be a name" in run("new", kind, name, "--into", tmp_path / "into", status=2)[1]
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("kind", "change", "line"),
    [
        ("md", ("Shown to", "Said to"), "published .*as good as|Said to"),
        ("md", ("| vanilla", "| vanilla the first"), ".*vanilla the first"),
        ("csv", ("better", "best"), ".*best"),
    ],
    ids=["a sentence", "a cell", "a spreadsheet"],
)
def test_what_lies_beside_the_json_says_the_same(store, tmp_path, kind, change, line):
    run("publish", store.root, "--name=a", "--attr=race", "--csv", "--by=Lab A", "--out", tmp_path)
    assert f"  a.{kind}: it says what the JSON says" in run("verify", tmp_path / "a.json")[0]
    beside = tmp_path / f"a.{kind}"
    honest = beside.read_text(encoding="utf-8")
    changed = honest.replace(*change, 1)
    beside.write_text(
        changed if changed != honest else honest + "It is shown to be as good as any.\n", encoding="utf-8"
    )
    says(run("verify", tmp_path / "a.json", status=1)[0].splitlines(), rf"a\.{kind}, line \d+: {line}")


def test_a_check_on_record_is_in_what_lies_beside_it(store, tmp_path):
    run("publish", store.root, "--name=a", "--attr=race", "--by=Lab A", "--out", tmp_path)
    run("verify", tmp_path / "a.json", "--runs", store.root, "--out", tmp_path / "a.json", "--by=Reviewer 2")
    assert "predictions attached" in (tmp_path / "a.md").read_text(encoding="utf-8")
    run("verify", tmp_path / "a.json")
