"""What every table of predictions must hold, checked on the table; an error names the first bad row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from fairbench.errors import FairbenchError

Floats = npt.NDArray[np.float64]

ROUNDED = 0.01  # how far from 1 probabilities may sum in any case,
PER_CLASS = 0.005  # or with each class so much further,
MOST_ROUNDED = 0.03  # up to this
DIGITS = (4, 3, 2)  # that a fraction may show; more make no difference, and fewer than two are too few
HALF_HUNDREDTH = 0.005
SINGLE = 1e-6  # what single precision may be off
LIKELY_HIDDEN, MOST_HIDDEN = 0.8, 0.25  # behind zeros: of all that rounding can hide there, and of the row


def refuse(table: pd.DataFrame, bad: npt.NDArray[np.bool_], path: Path, problem: str, hint: str = "") -> None:
    """Raise if any row is bad. The first is named by its place in the file (its index, from 1) and its id."""
    if not bad.any():
        return
    first = int(bad.argmax())
    name = f" (id `{table['id'].iloc[first]}`)" if "id" in table else ""
    raise FairbenchError(
        f"{path}: {problem} in {bad.sum():,} of {len(bad):,} rows, first in row {table.index[first] + 1}{name}",
        hint,
    )


def check_keys(table: pd.DataFrame, path: Path) -> None:
    """Refuse a row without its id or cluster, and an id that occurs twice."""
    for column in ("id", "cluster"):
        if column in table:
            refuse(table, table[column].isna().to_numpy(), path, f"column `{column}` is empty")
    if "id" in table:
        refuse(
            table,
            table["id"].duplicated().to_numpy(),
            path,
            "the id occurs more than once",
            "one row per patient or image; several images of one patient share a `cluster`, not an `id`",
        )


def check_reference(table: pd.DataFrame, path: Path) -> None:
    """Refuse a row that nobody answered."""
    if "reference" in table:
        empty = (table["reference"].isna() | (table["reference"] == "")).to_numpy()
        refuse(table, empty, path, "column `reference` is empty", "leave out the rows that nobody answered")


def check_probabilities(table: pd.DataFrame, columns: list[str], path: Path) -> None:
    """Refuse what is no probability, and rows whose probabilities of all classes do not sum to 1."""
    total: Any = 0.0
    for column in columns:
        values = table[column].to_numpy()
        outside = ~((values >= 0) & (values <= 1))  # catches NaN too
        refuse(table, outside, path, f"column `{column}` is no probability in [0, 1]")
        total = total + values
    if len(columns) > 1:
        off = np.abs(total - 1) > min(MOST_ROUNDED, max(ROUNDED, PER_CLASS * len(columns))) + 1e-9
        if off.any():
            off[off] = ~_can_be_rounded(table, columns, off)
        refuse(
            table,
            off,
            path,
            f"{', '.join(columns[:3])}{' …' if len(columns) > 3 else ''} do not sum to 1",
            "give the probabilities of all classes, which exclude each other, with enough digits",
        )


def _can_be_rounded(table: pd.DataFrame, columns: list[str], rows: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Say of some rows whether numbers that sum to 1 can have been rounded to theirs, each to the digits it shows.

    A zero shows none: it is taken for as exact as the most exact number of the table.
    """
    values = table.loc[rows, columns].to_numpy(np.float64)
    all_columns = (table[column].to_numpy(np.float64) for column in columns)
    finest = min(_doubt(column[column > 0]).min(initial=HALF_HUNDREDTH) for column in all_columns)
    doubt = np.where(values > 0, _doubt(values), 0).sum(axis=1)
    hidden = np.minimum((values == 0).sum(axis=1) * finest * LIKELY_HIDDEN, MOST_HIDDEN)
    total = values.sum(axis=1)
    return np.asarray((total - doubt <= 1 + SINGLE) & (total + doubt + hidden >= 1 - SINGLE))


def _doubt(values: Floats) -> Floats:
    """Return half a unit of the last digit that each number shows, 0 where they are many."""
    doubt = np.zeros_like(values)
    for digits in DIGITS:
        doubt[np.isclose(values, values.round(digits), rtol=SINGLE, atol=0)] = 0.5 * 10.0**-digits
    return doubt
