"""The five commands for each credentialed dataset run as the page has them, on folders in the official format."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from fairbench import Store
from fairbench.cli.main import main

DOCS = Path(__file__).parents[1] / "docs"
PAGE, DATASETS = ((DOCS / name).read_text(encoding="utf-8") for name in ("credentialed.md", "datasets.md"))
SECTIONS = dict(re.findall(r"^## (\S+)\n+```sh\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE))
SMALLER = ("--methods", "vanilla", "--seeds", "0", "--no-controls", "--workers", "1", "--set", "lora.epochs=0.2")


def call(*words):
    result = CliRunner().invoke(main, list(words))
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.output


def test_each_credentialed_dataset_has_its_five_commands():
    assert set(SECTIONS) == {"harvard-fairvlmed", "fairvision", "mimic-cxr", "padchest"}
    assert {len(block.splitlines()) for block in SECTIONS.values()} == {5}


@pytest.mark.slow
@pytest.mark.parametrize("name", SECTIONS)
def test_a_folder_becomes_a_board_in_five_commands(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call("data", "example", name, "folder")
    commands = [
        shlex.split(line.replace("FOLDER", "folder").replace("qwen2.5-vl-7b", "tiny-llava"))
        for line in SECTIONS[name].splitlines()
    ]
    assert {words[0] for words in commands} == {"fairbench"}
    (_, *check), (_, *sample), (_, *power), (_, *run), (_, *board) = commands
    assert "leaking" in call(*check)
    call(*sample)
    assert Path("sample.png").stat().st_size > 0
    assert "Found means with 80 % power" in call(*power)
    assert " jobs, " in call("plan", *run[1:])
    call(*run, *SMALLER)
    (record,) = Store("runs").contents().records
    assert record.error is None
    call(*board)
    page = Path("board.md").read_text(encoding="utf-8")
    assert f"## {name} · tiny-llava · " in page
    assert "vanilla" in page


def test_the_pages_file_for_a_few_hundred_images_reads_such_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (text,) = re.findall(r"```toml\n(datasets = \[\"table\"\].*?)```", DATASETS, re.DOTALL)
    Path("lesions.toml").write_text(text, encoding="utf-8")
    Path("clinic/images").mkdir(parents=True)
    rows = ["image_id,lesion_id,diagnosis,sex,age"]
    for n in range(60):
        Image.new("RGB", (8, 6), (4 * n, 90, 60)).save(f"clinic/images/i{n}.jpg")
        diagnosis, sex = ("benign", "malignant")[n % 3 == 0], ("male", "female")[n % 2]
        rows.append(f"i{n},l{n // 2},{diagnosis},{sex},{20 + n}")
    Path("clinic/lesions.csv").write_text("\n".join(rows), encoding="utf-8")
    unsaid = CliRunner().invoke(main, ["data", "check", "table", "--data", "table=clinic"])
    printed = re.search(r"^error: (.*)$\n^hint: (.*?); …", DATASETS, re.MULTILINE)
    assert printed[1] in unsaid.output
    assert printed[2] in unsaid.output
    assert "grouped by lesion_id" in " ".join(
        call("data", "check", "lesions.toml", "--data", "table=clinic").split()
    )
    foresee = ("plan", "lesions.toml", "--power", "--data", "table=clinic")
    assert "female 30" not in " ".join(call(*foresee).split())
    assert "female 30" in " ".join(call(*foresee, "--folds", "5").split())
