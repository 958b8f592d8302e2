"""A method in a distribution of its own: installed by pip, found, run and ranked, with no change to the core."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fairbench import testing

HERE = Path(__file__).parent
SOURCE = HERE / "third_party" / "fairbench-tilted"


@pytest.mark.slow
def test_an_installed_method_is_found_run_and_ranked(tmp_path):
    for needed in ("pip", "hatchling"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed")
    source, site = shutil.copytree(SOURCE, tmp_path / "source"), tmp_path / "site"
    install = (
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        str(site),
        str(source),
    )
    subprocess.run([sys.executable, *install], check=True, capture_output=True)

    words = (
        *("run", "--datasets", "toy", "--backbones", "toy-backbone", "--attr", "site", "--methods", "tilted"),
        *("--set", "tilted.tilt=3", "--plugin", str(HERE / "toys.py"), "--out", str(tmp_path / "runs")),
        *("--workers", "1"),
    )
    code = f"""
from fairbench.cli.main import main
for words in (["list", "methods"], {words!r}):
    try:
        main(words)
    except SystemExit as end:
        assert not end.code
"""
    path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}
    )
    assert done.returncode == 0, done.stderr
    assert "fairbench-tilted" in done.stdout
    (table,) = json.loads((tmp_path / "runs" / "quickstart.json").read_text())["tables"]
    assert {row["label"] for row in table["rows"]} == {"vanilla", "tilted(tilt=3.0)"}
    versions = {json.loads(path.read_text())["method"]["version"] for path in tmp_path.glob("runs/*/job.json")}
    assert any(version.startswith("fairbench-tilted 0.3.0+") for version in versions)


@pytest.mark.slow
def test_it_passes_the_conformance_kit():
    spec = importlib.util.spec_from_file_location("fairbench_tilted", SOURCE / "fairbench_tilted.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    for check in testing.METHOD_CHECKS:
        check(module.Tilted)
