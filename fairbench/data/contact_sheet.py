"""A sheet of small pictures with who and what they show, to look at before anything is trained on them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import shorten, wrap
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fairbench.data.dataset import SPLITS, Dataset, rows
from fairbench.errors import FairbenchError
from fairbench.files import whole
from fairbench.predictions.groups import UNRECORDED
from fairbench.settings import suggest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ACROSS = 8  # pictures in a line
DPI = 100
SIDE = 144  # pixels that a picture may be wide or high
LETTER, LEADING, HEADING = 11, 1.25, 40  # height of letters, from line to line, of a heading
WIDEST = 24  # letters of a caption's line


def sample(dataset: Dataset, count: int, by: str | None = None, split: str | None = None) -> pd.DataFrame:
    """Choose rows to look at: the same ones each time, of as many splits, classes, groups and clusters as fit.

    With `by`, an attribute, each of its values gets the same number. Raises FairbenchError where there are none.
    """
    if by is not None and by not in dataset.attributes:
        raise suggest(f"attribute of {dataset.name}", by, dataset.attributes)
    table = _among(dataset, split)
    if table.empty:
        raise FairbenchError(f"{dataset.name} has no rows in {split}", "choose another split, or raise the limit")
    table = table.assign(_order=[hashlib.sha256(str(name).encode()).hexdigest() for name in table["id"]])
    table = table.sort_values("_order").drop(columns="_order").reset_index(drop=True)
    traits = ["split", *(["target"] if "target" in table else []), *dataset.attributes]
    if by is None:
        return _spread(table, traits, count)
    parts = [part for _, part in table.groupby(table[by].fillna(UNRECORDED))]
    return pd.concat([_spread(part, traits, -(-count // len(parts))) for part in parts])


def _spread(table: pd.DataFrame, traits: list[str], count: int) -> pd.DataFrame:
    """Take the row whose traits were shown least so far, again and again."""
    codes = [pd.factorize(table[trait], use_na_sentinel=False)[0] for trait in [*traits, "cluster"]]
    shown = [np.zeros(code.max() + 1) for code in codes]
    weights = [1.0] * len(traits) + [2.0 * len(table)]  # a second view of one patient only when all were shown
    chosen: list[int] = []
    taken = np.zeros(len(table))
    for _ in range(min(count, len(table))):
        seen = sum(weight * times[code] for weight, times, code in zip(weights, shown, codes, strict=True))
        row = int(np.argmin(seen + taken))
        taken[row] = np.inf
        chosen.append(row)
        for times, code in zip(shown, codes, strict=True):
            times[code[row]] += 1
    return table.iloc[chosen]


def _among(dataset: Dataset, split: str | None) -> pd.DataFrame:
    table = rows(dataset)
    return table[table["split"].eq(split)] if split else table


def draw(dataset: Dataset, chosen: pd.DataFrame, by: str | None = None, split: str | None = None) -> Figure:
    """Draw what `sample` chose under a heading for each split (or value of `by`), captions under each picture."""
    from matplotlib.figure import Figure

    table = _among(dataset, split)
    traits = [trait for trait in ("target", *dataset.attributes) if trait in chosen]
    sections = list(_sections(dataset, chosen, by, table, traits))
    lines = [-(-len(part) // ACROSS) for _, part in sections]
    line = SIDE + LETTER * LEADING * (2 + len(traits) + (by is not None))
    heights = [2 * HEADING, *(HEADING + count * line for count in lines)]
    figure = Figure(figsize=(ACROSS * SIDE * 1.1 / DPI, sum(heights) / DPI), dpi=DPI)
    title, *parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    said = f"{dataset.title}: {len(chosen):,} of {len(table):,} rows{f' of {split}' if split else ''}"
    title.suptitle("\n".join(wrap(f"{said}. {notice(dataset)}", ACROSS * WIDEST)), **_plain(LETTER))
    for part, (heading, rows_of), count in zip(parts, sections, lines, strict=True):
        part.suptitle(heading, x=0.01, ha="left", **_plain(1.3 * LETTER))
        axes = part.subplots(count, ACROSS, squeeze=False, gridspec_kw={"hspace": line / SIDE - 1, "wspace": 0.1})
        part.subplots_adjust(
            left=0.01, right=0.99, bottom=(line - SIDE) / line / count, top=1 - HEADING / (HEADING + count * line)
        )
        for axis in axes.flat:
            axis.set_axis_off()
        for axis, record in zip(axes.flat, rows_of.to_dict("records"), strict=False):
            picture = dataset.image(record)  # type: ignore[arg-type]
            picture.thumbnail((SIDE, SIDE))
            axis.imshow(picture)
            caption = "\n".join(shorten(text, WIDEST, placeholder="…") for text in _caption(record, traits, by))
            axis.text(0, -0.03, caption, va="top", transform=axis.transAxes, **_plain(LETTER))
    return figure


def _plain(size: float) -> dict[str, Any]:
    """Say how to write text that comes from data: as it is, never as mathematics; `size` in pixels."""
    return {"fontsize": size * 72 / DPI, "parse_math": False, "linespacing": LEADING}


def notice(dataset: Dataset) -> str:
    """Say what may be done with pictures of this dataset."""
    return (
        f"These are the data's own images (licence: {dataset.licence}; may be published: {dataset.publishable}). "
        "Unless that allows images, this sheet must not leave your hands."
    )


def write(sheet: Figure, path: Path) -> None:
    """Write a sheet as PNG; raises FairbenchError for a file of another name or a place that cannot be written."""
    if path.suffix.lower() != ".png":
        raise FairbenchError(f"{path}: a contact sheet is a PNG", f"call it {path.with_suffix('.png').name}")
    with whole(path) as part:
        sheet.savefig(part, format="png", dpi=DPI)


def _sections(
    dataset: Dataset, chosen: pd.DataFrame, by: str | None, table: pd.DataFrame, traits: list[str]
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Return each heading with the rows under it."""
    named = chosen[by or "split"].fillna(UNRECORDED)
    everybody = table[by or "split"].fillna(UNRECORDED).value_counts()
    for value in (*(dataset.attributes[by] if by else SPLITS), UNRECORDED):
        part = chosen[named == value].sort_values([*traits, "id"])
        if len(part):
            yield f"{by or 'split'} {value}: {len(part):,} of {everybody[value]:,} rows", part


def _caption(record: Mapping[Any, Any], traits: list[str], by: str | None) -> list[str]:
    said = [trait for trait in traits if trait not in ("target", by)]
    lines = [f"{trait} {UNRECORDED if pd.isna(record[trait]) else record[trait]}" for trait in said]
    shown = [str(record["target"])] if "target" in traits else []
    return [str(record["id"]), *shown, *([f"split {record['split']}"] if by else []), *lines]
