"""Every command on a page is one, and does what the page says; those of the tutorial in its order."""

import importlib
import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import click
import pytest
from builders import call, ham10000_example
from PIL import Image

from fairbench.cli.main import main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^ *```sh\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:python -m )?fairbench [^`]+)`")
SIZES = ("fundus-sim.train_size=96", "fundus-sim.test_size=120", "fundus-sim.val_size=20", "lora.epochs=0.5")
SMALL = [word for size in SIZES for word in ("--set", size)]


def commands(page: Path) -> list[list[str]]:
    """The words after `fairbench` of every command that stands in a page's blocks for the shell."""
    text = "\n".join(BLOCK.findall(page.read_text(encoding="utf-8"))).replace("\\\n", " ")
    lines = [shlex.split(line, comments=True) for line in text.splitlines()]
    return [words[words.index("fairbench") + 1 :] for words in lines if "fairbench" in words]


def inline(page: Path) -> list[list[str]]:
    """Those in a sentence, which may leave out what the sentence says."""
    lines = [shlex.split(line) for line in INLINE.findall(page.read_text(encoding="utf-8"))]
    return [words[words.index("fairbench") + 1 :] for words in lines]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_command_on_a_page_exists_with_its_options(page):
    for words in [*commands(page), *inline(page)]:
        command, rest, context = main, list(words), click.Context(main)
        while isinstance(command, click.Group) and rest and rest[0] != "COMMAND":
            command = command.get_command(context, rest[0])
            assert command, f"{page.name}: fairbench {' '.join(words)}: no such command"
            rest = rest[1:]
        if not isinstance(command, click.Group):
            command.make_context("", rest, resilient_parsing=True)  # refuses an option that is not there


def follow_tutorial() -> dict[str, str]:
    """Run the tutorial in the working directory, on fewer patients; return what each command printed."""
    said = {}
    for words in commands(ROOT / "docs" / "tutorial.md"):
        small = [*SMALL, "--workers", "1"] if words[0] == "run" else SMALL if words[0] == "plan" else []
        said[" ".join(words)] = call(*words, *small).output
    return said


@pytest.fixture(scope="module")
def hour(tmp_path_factory):
    """The folder that the tutorial leaves behind, and what it printed."""
    place = tmp_path_factory.mktemp("hour")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("FAIRBENCH_CACHE", str(place / "cache"))
        return place, follow_tutorial()


@pytest.mark.slow
def test_the_tutorial_ends_with_a_board_of_two_laboratories(hour):
    place, said = hour
    assert [text for words, text in said.items() if words.startswith("verify") and "differs: 0" not in text] == []
    both = json.loads((place / "leaderboards" / "both.json").read_text(encoding="utf-8"))
    methods = [job["job"]["method"]["name"] for job in both["jobs"]]
    assert {name: methods.count(name) for name in methods} == {"vanilla": 6, "mine": 3, "gr": 3, "fr": 3}
    assert [part["publisher"] for part in both["parts"]] == ["Lab A", "Lab B"]


NOT_RUN = {
    "serve": "it waits for a browser; tests/report/test_serve.py",
    "--methods endpoint": "it asks a server; tests/plugins/test_endpoint.py",
    "--shard": "several processes; tests/training/test_sharding.py",
}
PLACES = {
    "qwen2.5-vl-7b": "qwen2.5-vl:models/mine",
    "/models/": "models/",
    "table=FOLDER": "table=clinic",
    "FOLDER": "folder",
}


def tried(page: Path) -> list[list[str]]:
    """A page's commands that no other test runs."""
    return [words for words in commands(page) if not any(why in " ".join(words) for why in NOT_RUN)]


OTHERS = [page for page in PAGES if tried(page) and page.stem not in ("tutorial", "credentialed")]


@pytest.fixture(scope="module")
def place(hour, tmp_path_factory):
    """What the pages take for granted: runs, predictions, boards, images, checkpoints."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    equality = importlib.import_module("backbone_equality")
    place = shutil.copytree(hour[0], tmp_path_factory.mktemp("pages") / "place")
    (place / "lab-b").rename(place / "runs")
    for name in ("mine", "theirs", "a", "b", "old", "new"):
        source = "lab-a" if name in ("mine", "a", "old") else "lab-b"
        shutil.copy(place / "leaderboards" / f"{source}.json", place / f"{name}.json")
    for name, case in (("mine", equality.CASES[0]), ("other", equality.CASES[5])):
        (place / "models").mkdir(exist_ok=True)
        equality.save(case, place / "models" / name)
    (guide,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "guide.md").read_text(encoding="utf-8"), re.DOTALL)
    (place / "my_benchmark.toml").write_text(guide[: guide.index("[[made_with]]")], encoding="utf-8")
    ham10000_example(place / "folder", lesions=120)
    (place / "clinic" / "Bilder").mkdir(parents=True)
    rows = ["Fallnummer,Patient,Bild,Befund,Geschlecht,Alter"]
    for n in range(60):
        Image.new("RGB", (8, 6), (4 * n, 90, 60)).save(place / "clinic" / "Bilder" / f"b{n}.png")
        rows.append(f"f{n},p{n // 2},b{n},{('gutartig', 'bösartig')[n % 3 == 0]},{'wm'[n % 2]},{20 + n}")
    (place / "clinic" / "befunde.csv").write_text("\n".join(rows), encoding="utf-8")
    return place


@pytest.mark.slow
@pytest.mark.parametrize("page", OTHERS, ids=lambda page: page.name)
def test_the_commands_of_a_page_do_something(page, hour, place, monkeypatch):
    """Training is planned, not done: the plan refuses all that a run refuses before its first step."""
    monkeypatch.chdir(place)
    for words in tried(page):
        line = " ".join(words)
        if line in hour[1]:
            continue
        for said, meant in PLACES.items():
            words = [word.replace(said, meant) for word in words]
        assert call(*words, *(["--dry-run"] if words[0] == "run" else [])).output, line
