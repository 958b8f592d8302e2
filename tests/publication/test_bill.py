"""The bill of materials, the version from one place, and the citation."""

import json
import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from builders import call

import fairbench
from fairbench.publication.bill import bill, installed

ROOT = Path(__file__).parents[2]


def test_the_bill_names_all_that_is_required_with_versions_and_licences():
    parts = installed()
    document = bill(parts)
    components = {one["name"]: one for one in document["components"]}
    assert components["torch"]["version"] == version("torch")
    assert {"click", "mpmath"} <= set(components), "what is required of others, too"
    assert "ruff" not in components, "extras do not count unless asked for"
    assert "optuna" in installed(extras=["search"])
    references = {one["bom-ref"] for one in (*document["components"], document["metadata"]["component"])}
    for one in document["dependencies"]:
        assert {one["ref"], *one["dependsOn"]} <= references
    stated = [
        one for one in components.values() if one["licenses"][0].get("license", {}).get("name") != "not stated"
    ]
    assert len(stated) > 0.9 * len(components)


def test_the_commands_print_it():
    assert json.loads(call("sbom").stdout)["bomFormat"] == "CycloneDX"
    assert re.search(rf"^click {re.escape(version('click'))}: BSD", call("sbom", "--licences").stdout, re.MULTILINE)


def test_the_version_stands_in_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"]
    assert project["tool"]["hatch"]["version"]["path"] == "fairbench/__init__.py"
    assert "version" not in (ROOT / "CITATION.cff").read_text().replace("cff-version", "")
    assert re.fullmatch(r"\d+\.\d+\.\d+", fairbench.__version__)


def test_all_extras_are_in_all():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (everything,) = extras["all"]
    assert set(re.search(r"\[(.*)\]", everything)[1].split(",")) == set(extras) - {"all", "dev", "docs"}


@pytest.mark.parametrize("paper", ["2512.03477", "2603.26008"])
def test_the_citation_names_both_papers(paper):
    yaml = pytest.importorskip("yaml")
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    (reference,) = [one for one in cited["references"] if paper in one["url"]]
    assert all({"given-names", "family-names"} == set(author) for author in reference["authors"])
