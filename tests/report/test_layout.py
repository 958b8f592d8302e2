"""Every format says the same, and text from data stays text."""

import csv
import io
import json
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from builders import HOSTILE
from rich.console import Console

from fairbench import report
from fairbench.errors import FairbenchError
from fairbench.leaderboard.board import (
    Board,
    Constant,
    Excluded,
    Flag,
    Group,
    Improvement,
    Row,
    SideEffect,
    Table,
    Trials,
)
from fairbench.publication.published import read_board
from fairbench.report import format, html, terminal
from fairbench.report.blocks import Fold
from fairbench.report.layout import lay_out
from fairbench.report.lead import constant_cells
from fairbench.statistics.results import Contrast, Difference, Estimate, Gap, Interaction
from fairbench.statistics.variance import VarianceParts

UNNOTICED = "even removing the whole gap would go unnoticed"

MOVED = Interaction(
    0.001, 0.002, (Contrast(-0.061, -0.103, -0.02, p=0.001, group="black", against="white", rate="accuracy"),)
)


def row(label, **changes):
    values = {
        "label": label,
        "method": "m",
        "settings": {},
        "recipe": {"select": "last"},
        "attributes": ("race",),
        "seeds": (0, 1),
        "keys": ("k0", "k1"),
        "versions": {"fairbench": "0.1.0"},
        "role": "contender",
        "score": Estimate(0.8125, 0.75, 0.875),
        "auroc": Estimate(0.9, 0.85, 0.95),
        "gap": Gap(0.0625, 0.0, 0.25, coverage=(2, 2), floor_mean=0.03, floor_95=0.1, p=0.0004, adjusted=0.001),
        "eq_odds_max": Gap(reason="no positives among 9 rows", coverage=(1, 2)),
        "equity_scaled": Gap(0.112, floor_mean=0.2, p=0.3, adjusted=0.6),
        "worst_group": Gap(0.75, 0.7, 0.8, group="black", agreeing=2),
        "groups": (Estimate(0.75, 0.7, 0.8), Estimate(0.8125, 0.8, 0.9)),
        "between_groups": Estimate(-0.0016),
        "gap_variance": VarianceParts(0.0004, 0.0012, 2, "more test patients would help"),
        "rank": "1-2",
        "changes": {
            "gap": Difference(-0.026, -0.05, 0.002, p=0.04, adjusted=0.08),
            "score": Difference(-0.1, -0.2, -0.05, p=0.001, adjusted=0.002),
            **{name: Difference(reason="too few") for name in ("worst_group", "best_group", "equity_scaled")},
        },
        "interactions": {"score": MOVED},
        "trade_offs": ("better than vanilla in the gap, worse overall",),
        "trainable": 0.002434,
        "train_seconds": 123.4,
        "peak_memory": 3 * 2**29,
        "flags": (Flag("levelling down", "the change is within noise"),),
    }
    return Row(**values | changes)


def board(name="m", reason="it failed", group="black"):
    table = Table(
        dataset="toy",
        backbone="tiny",
        attribute="race",
        unrecorded="keep",
        fingerprint="abc",
        rows_tested=100,
        clusters=90,
        classes=("no", "yes"),
        groups=(Group(group, 40, 10, 30), Group("white", 60, 30, 30)),
        constant=Constant("no", 0.6, 0.25),
        baseline="vanilla",
        rows=(row("vanilla", role="baseline", changes={}, interactions={}, trade_offs=()), row(name)),
        controls=(row("blank", role="control", stands_for="image-ablated", flags=(), changes={}),),
        excluded=(Excluded(name, 2, "k2", "failed", reason),),
        side_effects=(SideEffect(name, "gender", 0.01, Difference(0.004, -0.01, 0.02, p=0.5, adjusted=1.0)),),
        trials=Trials(2, 3, (0, 1), 6),
        improvement=Improvement(
            Estimate(reason="even removing the whole gap would go unnoticed"), 0.8125, 0.0625, 0.85
        ),
    )
    return Board("Leaderboard", (table,), "0.1.0")


def test_markdown_from_json_is_the_markdown(tmp_path):
    report.write(board(), tmp_path / "b.json")
    again = read_board(tmp_path / "b.json")
    assert again == board()
    for kind in report.FORMATS:
        assert report.render(again, kind) == report.render(board(), kind)


def test_markdown_shows_values_with_their_units():
    text = report.render(board(), "md")
    assert "| Rank | Method | Acc (%) | AUROC | MaxAccGap (points) | EqOdds(max) (points) | ES-Acc (%) |" in text
    assert (
        "| 1-2 | vanilla (baseline) | 81.2 | 0.900 | 6.2 \\! | – | 11.2 | black (75.0) | levelling down |" in text
    )
    assert "| 1-2 ⇄ | m | 81.2 ↓ | 0.900 | 6.2 \\! ≠ | – | 11.2 | black (75.0) | levelling down |" in text
    assert "| always “no” | 60.0 | 0.500 | 25.0 | – | 2.3 |" in text  # 60 / (1 + 25); EqOdds is undefined for all
    assert "\\! worse than chance gives on these patients; ↓ lower than the baseline's; ≠" in text
    assert (
        "m moved black down by 6.1 points \\[2.0, 10.3\\] against white in accuracy, though its MaxAccGap is not"
        in text
    )
    assert "m (10.0 points) lost accuracy." in text
    assert "Nothing here is shown to be fairer than vanilla.**" in text
    assert "| m | accuracy | black | −6.1 \\[−10.3, −2.0\\] | white | 0.002 |" in text
    assert "| m | better than vanilla in the gap, worse overall |" in text
    assert "6.2 \\[0.0, 25.0\\] | 3.0 | 10.0 | \\<0.001" in text
    assert "−2.6 \\[−5.0, +0.2\\] | 0.080" in text
    assert "black (n = 40)" in text
    assert "| – | – | – | – | −4.0 |" in text  # after an undefined EqOdds: no p-value
    assert "| m | 2 | 2.0 | 3.5 | 25.0 | more test patients would help |" in text
    assert "even removing the whole gap would go unnoticed. For one trained model of each" in text
    assert "accuracy of 81.2 % where the group is recorded and gap of 6.2 points, and 85.0 % of rows" in text
    assert "| m | 0, 1 | 0.24 | 123 | 1.50 |" in text
    assert "Undefined (EqOdds(max)): no positives among 9 rows." in text
    assert "1 of them beyond the first of their method" in text
    assert "it failed" in text
    assert "Its best-off group lost, beyond noise" in text  # the legend explains the flag that is used
    assert "another version" not in text  # and no other


def cells_of_markdown(text):
    """Split pipe tables the way GitHub does: at pipes that no backslash escapes."""
    for line in text.splitlines():
        if line.startswith("|"):
            yield line.replace("\\\\", "").replace("\\|", "").count("|") - 1


def test_hostile_text_cannot_leave_its_markdown_cell():
    plain, hostile = (report.render(b, "md") for b in (board(), board(HOSTILE, HOSTILE, HOSTILE)))
    assert list(cells_of_markdown(hostile)) == list(cells_of_markdown(plain))
    assert "<script" not in hostile.replace("\\<", "")
    assert "`x`" not in hostile.replace("\\`", "")
    assert not any(line.startswith("# head") for line in hostile.splitlines())


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.open = set(), []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_html_is_well_formed_and_inert():
    page = Page()
    text = html.render(board(HOSTILE, HOSTILE, HOSTILE))
    page.feed(text)
    assert page.open == []
    assert not page.tags & {"script", "img", "a", "iframe", "link"}
    assert "http" not in text
    assert "&lt;script&gt;" in text


def test_csv_holds_the_unrounded_values_and_no_formula():
    lines = list(csv.DictReader(io.StringIO(report.render(board(HOSTILE, HOSTILE, HOSTILE), "csv"))))
    assert [line["role"] for line in lines] == ["baseline", "contender", "control: image-ablated", "failed"]
    assert {line["measure"] for line in lines} == {"accuracy"}
    assert float(lines[0]["score.value"]) == 0.8125
    assert float(lines[1]["vs_baseline.gap.adjusted"]) == 0.08
    assert lines[1]["eq_odds_max.reason"] == "no positives among 9 rows"
    assert float(lines[1]["between_groups.value"]) == -0.0016
    assert float(lines[1]["gap_variance.sample"]) == 0.0012
    assert int(lines[0]["group:white.n"]) == 60
    assert float(lines[0]["group:white.accuracy"]) == 0.8125
    assert all(not value.startswith(("=", "+", "@")) for line in lines for value in line.values())


def test_json_is_strict_and_complete():
    data = json.loads(report.render(board(), "json"), parse_constant=pytest.fail)
    (table,) = data["tables"]
    assert table["rows"][1]["keys"] == ["k0", "k1"]
    assert table["rows"][1]["recipe"] == {"select": "last"}
    assert table["fingerprint"] == "abc"


def test_the_terminal_needs_no_colour_and_fits():
    text = report.render(board(HOSTILE, HOSTILE, HOSTILE), "terminal")
    assert "\x1b" not in text
    assert "‮" not in text
    assert max(map(len, text.splitlines())) <= 120


def unfolded(blocks):
    for block in blocks:
        yield from unfolded(block.blocks) if isinstance(block, Fold) else [block]


def test_what_leads_is_open_and_the_rest_is_folded_away():
    """One table and a few sentences lead; a terminal shows the rest when it is asked to."""
    page, file = html.render(board()), io.StringIO()
    before = page[: page.index("<details>")]
    assert before.count("<table>") == 1
    assert page.count("<details>") == page.count("</details>") > 4
    assert report.render(board(), "md").count("<details>") == page.count("<details>")
    terminal.show(board(), Console(file=file, width=120, color_system=None))
    assert "Cost of one training" not in file.getvalue()
    assert "`fairbench leaderboard RUNS --full` shows more: Is it more than chance?;" in file.getvalue()
    assert "Cost of one training" in report.render(board(), "terminal")


def test_a_table_without_rows_says_of_every_job_why_it_is_in_none():
    """Openly, in every format that is read: there is nothing else to see."""
    (table,) = board(reason="out of memory").tables
    alone = Board("Leaderboard", (replace(table, rows=(), controls=(), baseline=None),), "0.1.0")
    file = io.StringIO()
    terminal.show(alone, Console(file=file, width=120, color_system=None))
    texts = [file.getvalue(), *(report.render(alone, kind) for kind in ("terminal", "md", "html"))]
    for text in texts:
        assert text.count("out of memory") == 1
        assert text.index("Not in this table") < text.index("Jobs and data")


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_no_number_is_cut_on_any_usual_terminal(width):
    file = io.StringIO()
    terminal.show(board(), Console(file=file, width=width, color_system=None), full=True)
    text = file.getvalue()
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    if width >= 120:
        for block in unfolded(lay_out(board())):
            for line in getattr(block, "rows", ()):
                for place, cell in enumerate(line):
                    assert not block.is_number(place) or cell in text


def test_groups_are_split_over_grids_when_there_are_many():
    one = board()
    (table,) = one.tables
    many = tuple(Group(f"g{i}", 10, 5, 5) for i in range(12))
    rows = tuple(row(r.label, groups=(Estimate(0.5, 0.4, 0.6),) * 12) for r in table.rows)
    wide = Board("b", (Table(**{**vars(table), "groups": many, "rows": rows, "controls": ()}),), "0.1.0")
    text = report.render(wide, "md")
    assert "part 1 of 3" in text
    assert all(f"g{i} (n = 10)" in text for i in range(12))


def test_files_choose_their_format_by_name(tmp_path):
    for suffix, start in ((".md", "# L"), (".html", "<!doctype"), (".json", "{"), (".csv", "dataset,")):
        report.write(board(), tmp_path / "deep" / f"b{suffix}")
        assert (tmp_path / "deep" / f"b{suffix}").read_text().startswith(start)
    with pytest.raises(FairbenchError, match="cannot tell the format"):
        report.write(board(), tmp_path / "b.doc")
    with pytest.raises(FairbenchError, match="no format is called"):
        report.render(board(), "pdf")
    with pytest.raises(FairbenchError, match="cannot write"):
        report.write(board(), tmp_path / "deep", "md")


def test_numbers_for_people():
    assert [format.p_value(p) for p in (None, 0.00004, 0.0123, 0.5)] == ["–", "<0.001", "0.012", "0.50"]
    assert [format.share(x) for x in (None, 0, 0.002434, 1.0, 0.00000012)] == ["–", "0", "0.24", "100", "0.000012"]
    assert format.signed(Difference(-0.0001, -0.2, 0.1)) == "0.0 [−20.0, +10.0]"
    assert format.plain("a\r\nb\tc\x00‮d") == "a b c d"


def test_an_answer_for_each_question_has_no_rates_of_one_answer():
    table = board().tables[0]
    ours = [replace(one, eq_odds_max=Gap(0.2), auroc=Estimate(0.9)) for one in table.rows]
    one, several = (
        constant_cells(replace(table, rows=tuple(ours), constant=Constant("no", 0.6, 0.25, one_class=alone)))
        for alone in (True, False)
    )
    rates = "AUROC>", "EqOdds(max) (points)>"
    assert [one[title] for title in rates] == ["0.500", "0.0"]
    assert not {several[title] for title in rates} & {"0.500", "0.0"}


def test_findings_stand_one_to_a_line_under_the_conclusion():
    text = report.render(board(), "md")
    conclusion = text.index("Nothing here is shown")
    points = [line for line in text[conclusion : text.index("| Rank |")].splitlines() if line.startswith("- ")]
    assert [point.split()[1] for point in points] == ["Between", "No", "m", "m"]
    assert html.render(board()).count("<li>") == len(points)
