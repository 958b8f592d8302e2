"""What the numbers of `score` and `compare` mean, printed below them on request."""

from __future__ import annotations

from rich.console import Console

from fairbench.report.console import heading, notes
from fairbench.report.layout import TERMS

SCORE = ("MaxAccGap", "ES-Acc", "[low, high]", "By chance", "MaxAccGap at one class mix")
COMPARE = ("MaxAccGap", "ES-Acc", "[low, high]", "MaxAccGap at one class mix", "Moved against")
OF_SCORE = (
    "excess: The value less what chance gives on average: what chance does not explain. Negative is common.",
    "detectable: The smallest true gap that this test set finds 4 times in 5, whichever group holds it.",
    "p: At most .05 exactly where the interval leaves out 0.",
)
OF_COMPARE = (
    "A − B: On the same patients. p is at most .05 exactly where the interval leaves out 0; it comes from swapping"
    " the two methods' answers patient by patient, and from the scatter of both where they were observed.",
    "Distance to the optimum: From a score of 1 and a gap of 0; less is better.",
)


def score(console: Console) -> None:
    """Say what `score` prints."""
    _print(SCORE, OF_SCORE, console)


def compare(console: Console) -> None:
    """Say what `compare` prints."""
    _print(COMPARE, OF_COMPARE, console)


def _print(names: tuple[str, ...], own: tuple[str, ...], console: Console) -> None:
    meanings = dict(TERMS)
    heading(console, "What these numbers mean")
    notes(
        console,
        [*(f"{name}: {meanings[name]}" for name in names), *own, "docs/evidence.md says how they come about"],
    )
