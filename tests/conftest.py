"""Tests see one thread, no network, a cache of their own, and reference data only where it lies."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("FAIRBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.delenv("FAIRBENCH_DATA", raising=False)
    monkeypatch.delenv("FAIRBENCH_PLUGINS", raising=False)


@pytest.fixture
def shared():
    folder = Path(os.environ.get("FAIRBENCH_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"reference data not found at {folder}; set FAIRBENCH_SHARED to its folder")
    return folder


@pytest.fixture
def write(tmp_path):
    """Write a text, or a table as csv, into the test's own folder; return its path."""

    def write(content, name="predictions.csv"):
        path = tmp_path / name
        if isinstance(content, str):
            path.write_text(content, encoding="utf-8")
        else:
            content.to_csv(path, index=False)
        return path

    return write
