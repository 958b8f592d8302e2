"""The documents say what is: links, code, copied files, commands, contracts, the example in the README."""

import ast
import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from builders import call
from click import Group, Option

from fairbench import Backbone, Dataset, Method, Stage, hookspecs, report
from fairbench import plugins as plugin_loader
from fairbench.benchmark import benchmark as benchmarks
from fairbench.cli.main import main
from fairbench.publication.published import read, read_board
from fairbench.settings import REQUIRED, describe

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("leaderboards/*.md"))]
METHODS = plugin_loader.load(("method",)).tables["method"]


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page that are in one language."""
    return re.findall(rf"^ *```{language}\n(.*?)^ *```$", text(page), re.MULTILINE | re.DOTALL)


def marked(page: str, mark: str) -> str:
    """The fenced block that stands under a mark."""
    return re.search(rf"^{re.escape(mark)}\n```\w+\n(.*?)^```$", text(page), re.MULTILINE | re.DOTALL)[1]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        goal = (page.parent / path).resolve() if path else page
        assert goal.exists(), f"{page.name}: {target} leads nowhere"
        assert not anchor or anchor in anchors(goal), f"{page.name}: {target}: no such heading"


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/plugins.md"])
def test_python_blocks_compile(page):
    written = blocks(page, "python")
    assert written
    for code in written:
        compile(code, page, "exec")


def test_the_whole_plugin_is_the_real_file():
    file = "plugins/fairbench_plugins/methods/fr.py"
    assert marked("CONTRIBUTING.md", f"<!-- file: {file} -->") == text(file)


QUICK = 'python -m pytest -q -n auto -m "not slow"'


def test_ci_runs_what_the_readme_says():
    """The commands are not repeated in .ci/run: it takes them from the README, by this very function."""
    script = text(".ci/run")
    assert QUICK.replace("not slow", "slow").replace('"', "") in script, "CI runs the slow tests too"
    function = re.search(r"^readme\(\) \{.*?^\}$", script, re.MULTILINE | re.DOTALL)[0]
    for name, ends in (("run", ".venv/bin/fairbench run\n"), ("test", f".venv/bin/{QUICK}\n")):
        assert f'"$(readme {name})"' in script
        command = f"{function}\nreadme {name}"
        done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout == marked("README.md", f"<!-- command: {name} -->")
        assert done.stdout.startswith("python3 -m venv .venv && ")
        assert done.stdout.endswith(f" && {ends}")
        assert done.stdout.count("\n") == 1, "one line to copy"
    assert "pip install" not in script


def test_the_readme_quotes_the_leaderboard_that_was_made():
    (first,) = re.findall(r"^> (\*\*.*\*\*)$", text("README.md"), re.MULTILINE)
    assert re.search(r"^\*\*.*\*\*$", text("leaderboards/quickstart.md"), re.MULTILINE)[0] == first


BOARDS = [path for path in sorted((ROOT / "leaderboards").glob("*.json")) if not path.name.endswith(".schema.json")]


@pytest.mark.parametrize("board", BOARDS, ids=lambda path: path.stem)
def test_published_leaderboards_are_what_their_data_say(board):
    assert board.with_suffix(".md").read_text(encoding="utf-8") == report.render(read_board(board), "md")


@pytest.mark.slow
@pytest.mark.parametrize("board", BOARDS, ids=lambda path: path.stem)
def test_published_leaderboards_can_be_verified(board):
    names = [part.name for part in read(board).parts]
    parts = [word for name in names for word in ("--parts", board.parent / "parts" / f"{name}.json")]
    told = call("verify", board, *parts).stdout
    assert told.startswith("differs: 0\n")
    assert ("merge of the parts: they give this board" in told) == bool(parts)


def test_the_example_of_chance_on_the_page_that_says_why():
    """Shuffle 1,070 right answers over the groups of arXiv 2512.03477, Table 1, by counting alone."""
    generator = np.random.default_rng(0)
    sizes = np.array([1816, 76, 108])
    right = generator.multivariate_hypergeometric(sizes, 1070, size=100_000)
    gap = 100 * np.ptp(right / sizes, axis=1)
    assert f"of {gap.mean():.1f} points on average" in " ".join(text("docs/why.md").split())
    observed = {name: 100 * np.ptp(np.array(counts) / sizes) for name, counts in PUBLISHED.items()}
    assert {name: f"{value:.2f}" for name, value in observed.items()} == {"vanilla": "3.80", "gr": "1.17"}
    assert all(value < gap.mean() for value in observed.values())


PUBLISHED = {"vanilla": [970, 43, 57], "gr": [965, 41, 57]}


def options_of(group: Group, path: str) -> Iterator[tuple[str, Option]]:
    for name, command in group.commands.items():
        yield from options_of(command, f"{path} {name}") if isinstance(command, Group) else ()
        yield from ((f"{path} {name}", one) for one in command.params if isinstance(one, Option))


def test_every_option_says_what_it_is_for():
    assert [(path, one.opts) for path, one in options_of(main, "fairbench") if not one.help] == []


def test_every_command_and_option_of_run_is_in_the_guide():
    guide = text("docs/guide.md")
    for name, command in main.commands.items():
        assert f"`fairbench {name}`" in guide
        for inner in command.commands if isinstance(command, Group) else ():
            assert f"`fairbench {name} {inner}" in guide
    options = [option for parameter in main.commands["run"].params for option in parameter.opts]
    assert [option for option in options if option.startswith("--") and f"`{option}" not in guide] == []


@pytest.mark.parametrize("code", blocks("docs/guide.md", "toml"))
def test_the_benchmark_in_the_guide_is_one(code):
    said = tomllib.loads(code)
    assert {choice.name for choice in benchmarks.parse(said, "guide", "docs/guide.md").methods} <= set(METHODS)
    assert {*said, "name"} == set(benchmarks.Benchmark.__dataclass_fields__), "the guide shows every key"


def signatures(owner: object, names: list[str]) -> list[str]:
    """Functions as their source declares them: `def name(arguments) -> result`."""
    body = ast.parse(inspect.getsource(owner)).body
    body = body[0].body if inspect.isclass(owner) else body
    return [
        f"`def {node.name}({ast.unparse(node.args)}) -> {ast.unparse(node.returns)}`"
        for node in body
        if isinstance(node, ast.FunctionDef) and node.name in names
    ]


def abstract(owner: type) -> list[str]:
    """What a class leaves to those who inherit."""
    return [name for name, value in vars(owner).items() if getattr(value, "__isabstractmethod__", False)]


CONTRACTS = {
    "hooks": signatures(hookspecs, [name for name in dir(hookspecs) if name.startswith("fairbench_")]),
    "verbs": signatures(
        Method, ["plan", "view", "setup", "start_stage", "loss", "step", "end_stage", "answer_questions", "adjust"]
    ),
    "backbone": signatures(Backbone, [*abstract(Backbone), "projector"]),
    "dataset": signatures(Dataset, [*abstract(Dataset), "words", "notes", "stamp", "fingerprint"]),
}


@pytest.mark.parametrize(("what", "count"), [("hooks", 8), ("verbs", 9), ("backbone", 11), ("dataset", 8)])
def test_the_contract_is_documented_with_its_signatures(what, count):
    page = text("docs/plugins.md").replace(r"\|", "|")
    assert len(CONTRACTS[what]) == count
    assert [signature for signature in CONTRACTS[what] if signature not in page] == []


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_explained_with_its_settings(name):
    (section,) = re.findall(rf"(?ms)^## {re.escape(name)}\n(.*?)(?=^## |\Z)", text("docs/methods.md"))
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", section, re.MULTILINE))
    fields = METHODS[name].fields()
    shown = {REQUIRED: "required", "": "empty"}
    assert rows == {key: str(shown.get(default, default)) for key, (_, default) in fields.items()}
    assert fields or "No settings" in section
    choices = {option for kind, _ in fields.values() for option in describe(kind).split(" | ") if "-" in option}
    assert all(f"`{option}`" in text("docs/methods.md") for option in choices)


def marks(kind: type[Method]) -> set[str]:
    """What a board puts after the name of a method with default settings."""
    method = kind(**{name: "x" for name, (_, default) in kind.fields().items() if default is REQUIRED})
    told = (Stage("lora", ("lora", "head"), epochs=1, lr=1e-3),)
    planned = method.plan(told)
    holds = {
        "†": kind.role in ("contender", "baseline") and planned != told,
        "‡": kind.group_at_test,
        "§": any(stage.split == "val" for stage in planned),
        "¶": 'run.answers("val")' in inspect.getsource(kind),
    }
    return {mark for mark, held in holds.items() if held}


def test_every_method_stands_in_the_first_table_as_it_is():
    table = text("docs/methods.md").partition("## vanilla")[0]
    rows = re.findall(r"^\| \[`([\w-]+)`\]\(#\1\) \|(.*)\|$", table, re.MULTILINE)
    said = {name: [cell.strip() for cell in row.split("|")] for name, row in rows}
    assert len(rows) == len(said)
    assert {name: (role, uses != "no", {*marked.split()}) for name, (role, _, uses, marked, _) in said.items()} == {
        name: (kind.role, kind.uses_attributes, marks(kind)) for name, kind in METHODS.items()
    }


def test_every_dataset_is_named_on_the_page_of_datasets():
    names = plugin_loader.load(("dataset",)).tables["dataset"]
    assert [name for name in names if f"`{name}`" not in text("docs/datasets.md")] == []


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", ".ci/mkdocs.yml", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    public = text("fairbench/__init__.pyi").count("\nfrom .")
    page = (tmp_path / "reference.html").read_text(encoding="utf-8")
    assert page.count('<h3 id="fairbench.') >= public > 50
    for path in tmp_path.rglob("*.html"):
        fetched = re.findall(
            r'<(?:script|link|img)[^>]*(?:src|href)="(https?:[^"]*)"', path.read_text(encoding="utf-8")
        )
        assert not [url for url in fetched if "canonical" not in url], path


def test_every_method_of_the_table_says_in_its_own_section_when_it_works():
    page = text("docs/methods.md")
    table = page.partition("<!-- measured:when-it-works -->")[2].partition("<!-- /measured -->")[0]
    sections = {part.partition("\n")[0]: " ".join(part.split()) for part in page.split("\n## ")}
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines()[2:]]
    assert {re.match(r"[\w-]+", method.strip("`"))[0] for _, method, *_ in rows} >= {
        "gr",
        "dfr",
        "min-mi",
        "eq-odds",
    }
    for setting, method, _, plain, own, seeds in rows:
        before, after = plain.partition(" (")[0], own.partition(" (")[0]
        section = sections[re.match(r"[\w-]+", method.strip("`"))[0]]
        said = section.partition("*When it works*:")[2]
        assert f"[{setting}](#when-it-works), {method}:" in said
        assert f"{before} → {after}" in said
        assert f"better in {seeds} seeds" in said
