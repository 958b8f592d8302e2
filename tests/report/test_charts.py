"""Drawings say what the board says: values in percent and points, verdicts, colours, and what is missing."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders import HOSTILE, sampled, scored_runs
from click.testing import CliRunner

from fairbench.cli.look import FIGURES
from fairbench.cli.main import main
from fairbench.errors import FairbenchError
from fairbench.leaderboard.board import Board
from fairbench.leaderboard.build import build
from fairbench.leaderboard.details import TableDetails, details
from fairbench.publication.published import read_board
from fairbench.report.charts import KINDS
from fairbench.report.charts.heat import heat
from fairbench.report.charts.static import WRITERS, composed, picture
from fairbench.report.charts.theme import PAPER, SCREEN, SERIES, mark

QUICKSTART = Path(__file__).parents[2] / "leaderboards" / "quickstart.json"


@pytest.fixture(scope="module")
def table():
    return read_board(QUICKSTART).tables[0]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return scored_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def made(runs):
    board = build(runs)
    return board.tables[0], details(runs, board)[0]


def test_the_command_offers_every_figure():
    assert tuple(KINDS) == FIGURES


def test_the_trade_off_draws_every_row_where_its_numbers_are(table):
    accuracy_gap, odds = KINDS["pareto"](table, None).panels
    for panel, field in ((accuracy_gap, "gap"), (odds, "eq_odds_max")):
        for row, record in zip(table.rows, panel.records, strict=True):
            gap = getattr(row, field)
            drawn = [record[key] for key in ("x", "low", "high", "y", "bottom", "top")]
            told = [gap.value, gap.low, gap.high, row.score.value, row.score.low, row.score.high]
            assert drawn == pytest.approx([100 * value for value in told], abs=0.01)
    verdicts = {record["method"]: record["verdict"] for record in odds.records}
    assert verdicts == {
        "fr": "smaller gap shown",
        "resample(by=group-class)": "smaller gap shown",
        "gr": "larger gap shown",
        "hybrid": "no difference shown",
        "vanilla": "baseline",
    }
    assert {record["verdict"] for record in accuracy_gap.records} == {"no difference shown", "baseline"}


def test_names_cover_neither_each_other_nor_a_point():
    """On real data with twelve rows, most of them close together; who is shown to differ bears a name."""
    for table in read_board(QUICKSTART.with_name("ham10000.json")).tables:
        for panel in KINDS["pareto"](table, None).panels:
            layers = panel.spec(PAPER, 400, panel.records)["layer"]
            (_, right), (low, high) = (layers[-1]["encoding"][axis]["scale"]["domain"] for axis in "xy")
            points = [(400 * r["x"] / right, 360 * (high - r["y"]) / (high - low)) for r in panel.records]
            boxes = []
            for record, (x, _) in zip(panel.records, points, strict=True):
                if "label" in record:
                    width = 6 * len(record["method"])
                    left = x + 10 if record["side"] == "right" else x - 10 - width
                    boxes.append((left, left + width, 360 * (high - record["label"]) / (high - low)))
            assert len(boxes) >= min(4, len(panel.records))
            for place, (left, end, y) in enumerate(boxes):
                assert left >= 0
                assert end <= 400
                for a, b, other in boxes[:place]:
                    assert abs(y - other) >= 13.9 or end < a or b < left
                assert not [1 for px, py in points if left < px < end and abs(py - y) < 6]
            shown = [r for r in panel.records if r["verdict"] in ("baseline", "smaller gap shown")]
            assert "label" in shown[0]


def test_changes_have_intervals_only_where_they_were_computed(made):
    table, details = made
    with_runs, without = (KINDS["change"](table, one).panels[0].records for one in (details, None))
    assert [record["value"] for record in with_runs] == pytest.approx([r["value"] for r in without], abs=0.01)
    assert all("low" in record for record in with_runs)
    assert {record["series"] for record in without if "low" in record} == {"all patients"}
    assert "need the runs" in KINDS["change"](table, None).note


@pytest.mark.parametrize("kind", sampled(FIGURES, count=2))
def test_every_figure_is_drawn_in_every_format(made, kind):
    table, details = made
    figure = KINDS[kind](table, details)
    spec = composed(figure, table)
    assert "var(--" not in json.dumps(spec)
    for suffix, start in ((".svg", b"<svg"), (".pdf", b"%PDF"), (".png", b"\x89PNG")):
        assert picture(figure, table, suffix).startswith(start)
    assert "infinite" not in json.dumps(spec).lower()
    assert f"n = {table.rows_tested:,} test rows" in spec["title"]["subtitle"]


def test_what_cannot_be_drawn_says_why(table):
    reasons = {kind: draw(table, None).missing for kind, draw in KINDS.items() if not draw(table, None).panels}
    assert set(reasons) == {"seeds", "calibration", "loss"}
    with pytest.raises(FairbenchError, match="nothing to draw: the values of single seeds need the folder of runs"):
        picture(KINDS["seeds"](table, None), table, ".png")
    one_seed = KINDS["seeds"](table, TableDetails({}))
    assert one_seed.missing == "every method has one seed here"
    with pytest.raises(FairbenchError, match=r"cannot draw a file that ends in \.gif"):
        picture(KINDS["pareto"](table, None), table, ".gif")


def test_thirty_six_groups_are_told_apart():
    assert len({mark(place) for place in range(36)}) == 36


def test_the_colours_are_told_apart_by_the_colour_blind():
    """Simulated after Viénot et al. 1999: to no eye, red- or green-blind, do two come closer than 15 in CIELAB."""
    linear = [[((int(c[i : i + 2], 16) / 255 + 0.055) / 1.055) ** 2.4 for i in (1, 3, 5)] for c in SERIES]
    to_lms = np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]])
    protan = np.array([[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]])
    deutan = np.array([[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]])
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    for eye in (np.eye(3), protan, deutan):
        seen = np.clip(np.array(linear) @ (np.linalg.inv(to_lms) @ eye @ to_lms).T, 0, 1)
        f = np.cbrt(seen @ to_xyz.T / [0.9505, 1, 1.089])
        lab = np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)
        apart = np.linalg.norm(lab[:, None] - lab[None], axis=2)
        assert apart[np.triu_indices(len(SERIES), 1)].min() > 15


def test_the_heat_map_has_a_cell_for_each_method_and_attribute(table):
    """Also for attributes that it was not trained for; a table of its own says more, and goes before."""
    trained = replace(table, attribute="gender", rows=table.rows[:2])
    (panel,) = heat(Board("b", (trained, table), "0")).panels
    cells = {(one["method"], one["where"]): one["value"] for one in panel.records}
    assert set(cells) == {(r.label, a) for r in table.rows for a in ("race", "gender", "ethnicity")} - {
        ("vanilla", a) for a in ("race", "gender", "ethnicity")
    }
    (fr, _), effects = trained.rows, {(one.label, one.attribute): one.change for one in table.side_effects}
    assert cells["fr", "gender"] == pytest.approx(100 * fr.changes["gap"].value, abs=0.01)
    assert cells["gr", "gender"] == pytest.approx(100 * effects["gr", "gender"].value, abs=0.01)
    assert panel.spec(SCREEN, "container", panel.records)["height"] == 4 * 30


def test_names_are_data_and_never_part_of_an_expression(table):
    rows = tuple(replace(row, label=f"{row.label}{HOSTILE}'\"") for row in table.rows)
    named = replace(table, rows=rows, baseline=f"{table.baseline}{HOSTILE}'\"")
    for draw in KINDS.values():
        for panel in draw(named, None).panels:
            spec = panel.spec(PAPER, 300, panel.records)
            assert not [one for one in expressions(spec) if "alert" in one]


def expressions(spec):
    """Everything in a drawing that Vega would evaluate."""
    if isinstance(spec, dict):
        for key, value in spec.items():
            if key in ("expr", "test", "filter", "calculate", "signal", "labelExpr") and isinstance(value, str):
                yield value
            yield from expressions(value)
    elif isinstance(spec, list):
        for value in spec:
            yield from expressions(value)


def plotted(*words):
    result = CliRunner().invoke(main, ["plot", *map(str, words)])
    return result.exit_code, result.output


def test_plot_draws_from_runs_and_from_a_published_board(runs, tmp_path):
    for suffix in WRITERS:
        code, said = plotted(runs.root, "--kind", "calibration", "--out", tmp_path / "deep" / f"f{suffix}")
        assert (code, said) == (0, f"wrote {tmp_path}/deep/f{suffix}\n")
    assert plotted(QUICKSTART, "--kind", "groups", "--out", tmp_path / "g.svg")[0] == 0
    text = (tmp_path / "g.svg").read_text()
    assert "black (n = 446)" in text
    assert "Accuracy (%)" in text


def test_plot_says_what_to_choose(runs, tmp_path):
    out = tmp_path / "f.png"
    code, said = plotted(runs.root, "--kind", "pareto", "--attr", "race,gender", "--out", out)
    assert code == 2
    assert "has several tables\nhint: choose one by --table: 1 race · toy · tiny; 2 gender · toy · tiny" in said
    assert plotted(runs.root, "--kind", "pareto", "--attr", "race,gender", "--table", 2, "--out", out)[0] == 0
    code, said = plotted(QUICKSTART, "--kind", "loss", "--out", out)
    assert (code, said.splitlines()[1]) == (2, "hint: choose another --kind")
    assert plotted(QUICKSTART, "--kind", "pareto", "--attr", "race", "--out", out)[0] == 2


def test_the_readmes_picture_is_what_is_published():
    path = QUICKSTART.parents[1] / "benchmarks" / "readme_picture.py"
    spec = importlib.util.spec_from_file_location("readme_picture", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.PICTURE.read_bytes() == script.drawn(), "run `python benchmarks/readme_picture.py`"
    assert script.PICTURE.stat().st_size < 200_000
