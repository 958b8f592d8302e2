"""What `probe` prints: what was read of the hidden states of several jobs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console

from fairbench.report.console import table
from fairbench.report.format import fraction, p_value, percent, plain


def show(jobs: Iterable[tuple[str, Mapping[str, Any]]], console: Console) -> None:
    """Print what the probes of several jobs found (`fairbench.statistics.probe.read`), attribute by attribute."""
    rows = []
    for title, attributes in jobs:
        for attribute, one in attributes.items():
            ends = "" if "reason" in one else f" [{percent(one['low'])}, {percent(one['high'])}]"
            value = plain(one["reason"]) if "reason" in one else percent(one["value"]) + ends
            cells = (percent(one.get("chance")), fraction(one.get("auroc")), p_value(one.get("p")))
            rows.append((title, attribute, value, *cells, f"{one['layer']}, {one['tokens']}"))
    columns = ("Job", "Attribute", "Balanced accuracy (%)>", "Chance>", "AUROC>", "p>", "Layer, tokens")
    table(console, columns, rows)
