"""The page in a real Chromium: what a reader does with it, and that it asks nobody for anything.

Debian's `chromium` and the Python package playwright; FAIRBENCH_CHROMIUM names another browser. Without them
these tests are skipped and say so.
"""

import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from builders import HOSTILE, scored_runs

from fairbench import report
from fairbench.leaderboard.build import build
from fairbench.leaderboard.details import details
from fairbench.publication.published import read_board
from fairbench.report.serve import Server

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: no browser test")
CHROMIUM = os.environ.get("FAIRBENCH_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium found (apt install chromium): no browser test"),
]
QUICKSTART = Path(__file__).parents[2] / "leaderboards" / "quickstart.json"

CONTRAST = Path(__file__).with_name("contrast.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def quickstart():
    return read_board(QUICKSTART)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The page of runs, with all that stands behind them."""
    store = scored_runs(tmp_path_factory.mktemp("runs"))
    board = build(store)
    path = tmp_path_factory.mktemp("page") / "runs.html"
    report.write(board, path, None, details(store, board))
    return path


@pytest.fixture
def visit(chromium, tmp_path):
    """Open a board or a file, and see afterwards that nothing was complained of and nobody was asked."""
    said, asked, contexts = [], [], []

    def visit(what, **options):
        path = what
        if not isinstance(what, Path):
            path = tmp_path / "board.html"
            report.write(what, path)
        context = chromium.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        asked.remove(path.as_uri())
        return page

    yield visit
    for context in contexts:
        context.close()
    assert said == []
    assert asked == []


def all_drawn(page):
    panels = page.locator(".panel")
    for place in range(panels.count()):
        panels.nth(place).scroll_into_view_if_needed()
        panels.nth(place).locator("svg").wait_for()
    page.locator(".panel:not([data-drawn])").first.wait_for(state="detached")
    return panels.count()


def column(page, place, table="table.lead"):
    return page.locator(f"{table} tbody tr:visible").evaluate_all(
        f"rows => rows.map(r => r.cells[{place}].textContent)"
    )


def test_everything_is_drawn_and_no_network_is_asked(visit, runs):
    page = visit(runs)
    assert all_drawn(page) == 2 + 2 + 1 + 2 + 2 + 1 + 1  # as in KINDS, and the map of attributes
    first = page.locator(".panel").first
    assert "fair" in first.get_attribute("aria-label")
    assert first.locator("svg text", has_text="plain").count() >= 1
    texts = page.locator("figure.change svg text").all_text_contents()
    assert "black (n = 300)" in texts


def test_the_pages_own_policy_forbids_every_connection(chromium, runs):
    page = chromium.new_page()
    page.goto(runs.as_uri())
    for address in ("https://example.org", "http://127.0.0.1:9", runs.as_uri()):
        assert page.evaluate(f"fetch('{address}').catch((error) => error.name)") == "TypeError"
    assert page.evaluate("document.querySelector('meta[http-equiv]').content").startswith("default-src 'none'")
    ran = page.evaluate(
        "() => { const made = document.createElement('script'); made.textContent = 'window.ran = 1';"
        " document.body.append(made); return window.ran; }"
    )
    assert ran is None
    page.close()


def test_scores_are_drawn_of_the_method_that_is_chosen(visit, runs):
    page = visit(runs)
    all_drawn(page)
    figure = page.locator("figure.calibration")
    assert figure.locator("option").all_text_contents() == ["plain", "fair"]
    before = figure.locator("svg").first.inner_html()
    figure.locator("select").select_option("fair")
    page.wait_for_timeout(300)
    assert figure.locator("svg").first.inner_html() != before


def test_a_heading_sorts_by_number_up_and_down(visit, quickstart):
    page = visit(quickstart)
    sorts = page.locator("table.lead thead button", has_text="EqOdds")
    sorts.click()
    header = page.locator("table.lead thead th", has_text="EqOdds")
    assert header.get_attribute("aria-sort") == "ascending"
    place = header.evaluate("cell => cell.cellIndex")
    values = [float(text.split()[0]) for text in column(page, place)]
    assert values == sorted(values)
    sorts.click()
    assert header.get_attribute("aria-sort") == "descending"
    assert [float(text.split()[0]) for text in column(page, place)] == sorted(values, reverse=True)
    assert page.locator("table.lead tfoot tr").inner_text().startswith("\talways")


def test_signs_and_digits_after_the_point_count(visit, quickstart):
    page = visit(quickstart)
    page.locator("summary", has_text="What changed against").click()
    table = "details[open] table:has(caption:text('Difference to vanilla'))"
    lowest = 0
    for place in range(1, 9):
        page.locator(f"{table} thead button").nth(place).click()
        said = [text.split(" ")[0].replace("−", "-").replace("<", "") for text in column(page, place, table)]
        values = [float(text) for text in said]
        assert values == sorted(values), place
        lowest = min(lowest, *values)
    assert lowest < 0


def test_the_filter_narrows_tables_and_drawings_and_says_so(visit, quickstart):
    page = visit(quickstart)
    all_drawn(page)
    page.locator("summary", has_text="Groups").click()
    page.get_by_label("Filter methods").fill("resample")
    page.locator("output", has_text="1 of 5").wait_for()
    assert column(page, 1) == ["resample(by=group-class)"]
    assert column(page, 0, "details[open] table:has(caption:text('by group'))") == ["resample(by=group-class)"]
    page.wait_for_timeout(300)
    named = page.locator("figure.groups svg .role-axis-label text").all_text_contents()
    assert [text for text in named if not text[0].isdigit()] == ["resample(by=group-class)"]
    page.get_by_label("Filter methods").fill("")
    page.locator("output", has_text="").wait_for(state="attached")
    page.wait_for_timeout(300)
    assert len(column(page, 1)) == 5


def test_the_drawer_tells_a_row_and_the_keyboard_is_enough(visit, quickstart):
    page = visit(quickstart)
    names = page.locator("table.lead .name button")
    names.nth(4).focus()
    page.keyboard.press("Enter")
    drawer = page.get_by_role("dialog", name="gr")
    text = drawer.inner_text()
    for part in ("a method that is ranked", "Settings", "fairbench", "epochs 4.0", "Against vanilla"):
        assert part in text, part
    assert drawer.evaluate("node => node.contains(document.activeElement)")
    page.keyboard.press("Tab")
    assert not page.locator("section.table").first.evaluate("node => node.contains(document.activeElement)")
    page.keyboard.press("Escape")
    assert not drawer.is_visible()
    assert names.nth(4).evaluate("node => node === document.activeElement")
    page.locator("table.lead thead button").first.focus()
    page.keyboard.press("Space")
    assert page.locator("table.lead thead th").first.get_attribute("aria-sort") == "ascending"


def test_keys_alone_reach_everything_in_order(visit, quickstart):
    page = visit(quickstart)
    seen = []
    for _ in range(30):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.textContent.trim() || document.activeElement.id"))
    assert seen[0] == "To the results"
    for wanted in ("filter-0", "Rank", "fr", "vanilla (baseline)"):
        assert wanted in seen


def test_hostile_names_stay_text(visit, quickstart):
    (table,) = quickstart.tables
    group = replace(table.groups[0], name=HOSTILE)
    rows = tuple(replace(row, label=f"{HOSTILE}{row.label}", settings={HOSTILE: HOSTILE}) for row in table.rows)
    named = replace(table, attribute=HOSTILE, groups=(group, *table.groups[1:]), rows=rows, baseline=rows[1].label)
    page = visit(replace(quickstart, title=f"</title></script>{HOSTILE}", tables=(named,)))
    all_drawn(page)
    page.locator("figure.groups .mark-symbol path").nth(3).hover(force=True)
    assert "<script>" in page.locator("#vg-tooltip-element").inner_text()
    page.locator("table.lead .name button").first.click()
    assert "<script>alert(1)</script>" in page.get_by_role("dialog").inner_text()
    assert page.locator("body script:not([type])").count() == 2
    assert page.locator("a[href^=javascript]").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_read(visit, runs, scheme):
    page = visit(runs, color_scheme=scheme)
    all_drawn(page)
    page.evaluate("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
    ratio, text = page.evaluate(CONTRAST)
    assert ratio >= 4.5, f"{text!r} has a contrast of {ratio:.2f}"


@pytest.mark.parametrize("width", [360, 1000])
@pytest.mark.parametrize("what", ["runs", "quickstart"])
def test_all_stands_within_the_page_and_its_panel(visit, request, what, width):
    """A phone scrolls nothing sideways; no word of a drawing reaches beyond its panel."""
    page = visit(request.getfixturevalue(what), viewport={"width": width, "height": 740}, has_touch=width < 400)
    all_drawn(page)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    for box in page.locator(".panel svg").evaluate_all("all => all.map(s => s.getBoundingClientRect().right)"):
        assert box <= width + 1
    beyond = page.locator(".panel").evaluate_all(
        """panels => panels.flatMap(panel => [...panel.querySelectorAll('text')].filter(
          text => text.getBoundingClientRect().right > panel.getBoundingClientRect().right + 8
        ).map(text => text.textContent))"""
    )
    assert beyond == []


def test_print_opens_what_is_folded_and_draws_all(visit, runs):
    page = visit(runs)
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.locator(".panel:not([data-drawn])").first.wait_for(state="detached")
    assert page.locator("details:not([open])").count() == 0
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_five_thousand_rows_are_usable(visit, quickstart):
    """Each act ends within a second of the browser's own time, on a machine that does nothing else."""
    (table,) = quickstart.tables
    others = [row for row in table.rows if row.label != table.baseline]
    made = [replace(others[n % 4], label=f"{others[n % 4].label} {n}") for n in range(4999)]
    rows = (next(row for row in table.rows if row.label == table.baseline), *made)
    page = visit(replace(quickstart, tables=(replace(table, rows=rows),)))
    page.locator(".panel[data-drawn]").first.wait_for()
    assert len(column(page, 1)) == 200
    spent = page.evaluate(
        "() => { const start = performance.now(); sort(document.querySelectorAll('table.lead thead th')[3]);"
        " document.body.offsetHeight; return performance.now() - start; }"
    )
    assert spent < 3000
    page.locator(".filter input").fill("hybrid 12")
    page.locator("output", has_text=" of 5,000").wait_for()
    page.locator("table.lead tr[data-row]:visible .name button").first.click()
    assert "hybrid 12" in page.locator("dialog").inner_text()
    page.keyboard.press("Escape")
    page.locator(".filter input").fill("")
    page.locator("button.more:visible").click()
    assert page.locator("table.lead tbody tr:visible").count() == 5000


def test_a_sweep_is_watched_and_new_results_come_by_themselves(chromium, tmp_path):
    store = scored_runs(tmp_path / "runs")
    job = replace(store.contents().records[0].job, seed=7)
    store.prepare(job)
    store.log_file(job).write_text(
        '{"stage": "a", "step": 0, "loss": 0.75}\n{"stage": "a", "step": 10, "loss": 0.5}\n'
    )
    with Server(store, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = chromium.new_page()
        said = []
        page.on("console", lambda message: said.append(message.text))
        with store.lease(job):
            page.goto(server.address)
            page.get_by_text("4 of 5 jobs have ended").wait_for()
            assert "step 10, loss 0.500" in page.locator("#live .running").inner_text()
            page.locator("#live figure svg").wait_for()
        store.save(replace(store.contents().records[0], job=job, error="out of luck"))
        page.get_by_text("All 5 jobs have ended").wait_for()
        page.locator("#live .failed", has_text="out of luck").wait_for()
        server.shutdown()
    page.get_by_text("The server has ended").wait_for()
    page.close()
    assert [text for text in said if "ERR_CONNECTION_REFUSED" not in text] == []
