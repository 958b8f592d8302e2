"""The page about metrics is what the metrics say."""

import os
from pathlib import Path

import pytest

from fairbench import plugins
from fairbench.metrics.reference import document

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_the_page_is_up_to_date():
    bundled = plugins.load(("metric",))
    own = [
        metric for name, metric in bundled.tables["metric"].items() if "fairbench" in bundled.owners["metric", name]
    ]
    page = document(own)
    if os.environ.get("FAIRBENCH_WRITE_DOCS"):
        PAGE.write_text(page)
    if PAGE.read_text() != page:
        pytest.fail("docs/metrics.md is out of date: FAIRBENCH_WRITE_DOCS=1 pytest tests/metrics/test_reference.py")
