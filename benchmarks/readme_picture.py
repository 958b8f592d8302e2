"""The picture of the quickstart's board in the README: `python benchmarks/readme_picture.py` draws it.

It is made of leaderboards/quickstart.json. A test redraws it, so that it shows what is published.
"""

from dataclasses import replace
from pathlib import Path

from fairbench.leaderboard.sentences import finding
from fairbench.publication.published import read_board
from fairbench.report.charts import KINDS
from fairbench.report.charts.static import picture

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "images" / "quickstart.svg"


def drawn() -> bytes:
    """Draw the trade-off of the published quickstart under its conclusion."""
    (table,) = read_board(ROOT / "leaderboards" / "quickstart.json").tables
    figure = replace(KINDS["pareto"](table, None), title=finding(table)[0])
    return picture(figure, table, ".svg")


if __name__ == "__main__":
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    PICTURE.write_bytes(drawn())
    print(f"wrote {PICTURE.relative_to(ROOT)}")
