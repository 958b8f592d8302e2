"""What is released: a wheel and a source archive that install and run outside the repository, without it."""

import importlib.util
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import fairbench

ROOT = Path(__file__).parents[1]


def build(kind, source, out):
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(out)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (built,) = [path for path in out.iterdir() if path.name.endswith({"wheel": ".whl", "sdist": ".tar.gz"}[kind])]
    return built


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A wheel that was made from the unpacked source archive, by which both are tried, with no git and no tag."""
    folder = tmp_path_factory.mktemp("release")
    archive = build("sdist", ROOT, folder)
    with tarfile.open(archive) as packed:
        packed.extractall(folder / "source", filter="data")
    (source,) = (folder / "source").iterdir()
    return build("wheel", source, folder), source


@pytest.mark.slow
def test_the_archive_holds_what_a_release_needs(released):
    wheel, source = released
    assert wheel.name == f"fairbench-{fairbench.__version__}-py3-none-any.whl"
    for name in ("LICENSE", "CITATION.cff", "README.md", "CHANGELOG.md", "constraints.txt", "tests", "benchmarks"):
        assert (source / name).exists(), name
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.endswith("fairbench-publication-1.schema.json") for name in names)
    assert not [name for name in names if "/runs/" in name or name.endswith(".parquet")]


@pytest.mark.slow
def test_the_wheel_runs_in_a_clean_environment(released, tmp_path):
    """What it depends on is shared with this one; of fairbench there is nothing but the wheel."""
    wheel, _ = released
    environment, home = tmp_path / "environment", tmp_path / "home"
    home.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin" / "python"
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "shared.pth").write_text(str(Path(importlib.util.find_spec("torch").origin).parents[1]))
    install = ["-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([sys.executable, *install], check=True, capture_output=True)
    toys = home / "toys.py"
    toys.write_bytes((ROOT / "tests" / "toys.py").read_bytes())
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def ran(*words):
        command = [str(environment / "bin" / "fairbench"), *map(str, words)]
        done = subprocess.run(command, cwd=home, env=kept, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = [str(python), "-c", "import fairbench; print(fairbench.__file__)"]
    found = subprocess.run(where, cwd=home, env=kept, capture_output=True, text=True, check=True)
    assert found.stdout.startswith(str(site))
    assert "quickstart" in ran("list", "benchmarks")
    toy = ("--datasets", "toy", "--backbones", "toy-backbone", "--attr", "site", "--plugin", toys)
    ran("run", *toy, "--methods", "fr", "--no-controls", "--workers", "1", "--name", "tiny")
    ran("publish", "runs", "--name", "tiny", "--plugin", toys)
    assert "differs: 0" in ran("verify", "leaderboards/tiny.json", "--runs", "runs", "--plugin", toys)
