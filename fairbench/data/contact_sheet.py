"""A sheet of small pictures with who and what they show, to look at before anything is trained on them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from fairbench.data.dataset import SPLITS, Dataset, rows
from fairbench.errors import FairbenchError
from fairbench.predictions.groups import UNRECORDED
from fairbench.settings import suggest

ACROSS = 8  # pictures in a line
SIDE = 144  # pixels that a picture may be wide or high
GAP = 12
TEXT, HEADING, TITLE = 13, 16, 20  # heights of letters
LINE = 1.35  # of a letter's height, from line to line
INK, FAINT, PAPER, MOUNT = "#1a1a1a", "#5f5f5f", "#ffffff", "#ececec"


def sample(dataset: Dataset, count: int, by: str | None = None, split: str | None = None) -> pd.DataFrame:
    """Choose rows to look at: the same ones each time, of as many splits, classes, groups and clusters as fit.

    With `by`, an attribute, each of its values gets the same number. Raises FairbenchError where there are none.
    """
    if by is not None and by not in dataset.attributes:
        raise suggest(f"attribute of {dataset.name}", by, dataset.attributes)
    table = _among(dataset, split)
    if table.empty:
        raise FairbenchError(f"{dataset.name} has no rows in {split}")
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


def draw(dataset: Dataset, chosen: pd.DataFrame, by: str | None = None, split: str | None = None) -> Image.Image:
    """Draw what `sample` chose under a heading for each split (or value of `by`), captions under each picture."""
    table = _among(dataset, split)
    width = ACROSS * (SIDE + GAP) + GAP
    blocks = [
        _words(
            [dataset.title, f"{len(chosen):,} of {len(table):,} rows{f' of {split}' if split else ''}"],
            width,
            TITLE,
        ),
        *_sections(dataset, chosen, by, table, width),
        _words([notice(dataset)], width, TEXT, FAINT),
    ]
    sheet = Image.new("RGB", (width, sum(block.height for block in blocks)), PAPER)
    top = 0
    for block in blocks:
        sheet.paste(block, (0, top))
        top += block.height
    return sheet


def notice(dataset: Dataset) -> str:
    """Say what may be done with pictures of this dataset."""
    return (
        f"These are the data's own images (licence: {dataset.licence}; may be published: {dataset.publishable}). "
        "Unless that allows images, this sheet must not leave your hands."
    )


def write(sheet: Image.Image, path: Path) -> None:
    """Write a sheet as PNG; raises FairbenchError for a file of another name or a place that cannot be written."""
    if path.suffix.lower() != ".png":
        raise FairbenchError(f"{path}: a contact sheet is a PNG", f"call it {path.with_suffix('.png').name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path, "PNG")
    except OSError as error:
        raise FairbenchError(f"cannot write {path}: {error.strerror or error}", "choose another --out") from error


def _sections(
    dataset: Dataset, chosen: pd.DataFrame, by: str | None, table: pd.DataFrame, width: int
) -> Iterator[Image.Image]:
    traits = [trait for trait in ("target", *dataset.attributes) if trait in chosen]
    named = chosen[by or "split"].fillna(UNRECORDED)
    everybody = table[by or "split"].fillna(UNRECORDED).value_counts()
    for value in (*(dataset.attributes[by] if by else SPLITS), UNRECORDED):
        part = chosen[named == value].sort_values([*traits, "id"])
        if len(part):
            yield _words([f"{by or 'split'} {value}: {len(part):,} of {everybody[value]:,} rows"], width, HEADING)
            for start in range(0, len(part), ACROSS):
                yield _shelf(dataset, part.iloc[start : start + ACROSS].to_dict("records"), traits, by, width)


def _shelf(
    dataset: Dataset, records: list[dict[Any, Any]], traits: list[str], by: str | None, width: int
) -> Image.Image:
    """Draw one line of pictures with their captions."""
    captions = [_caption(record, traits, by) for record in records]
    pictures = [dataset.image(record) for record in records]
    for picture in pictures:
        picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    tall, line = max(picture.height for picture in pictures), round(TEXT * LINE)
    shelf = Image.new("RGB", (width, tall + GAP + max(map(len, captions)) * line + GAP), PAPER)
    pen, font = ImageDraw.Draw(shelf), ImageFont.load_default(TEXT)
    for place, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        left = GAP + place * (SIDE + GAP)
        pen.rectangle((left, 0, left + SIDE - 1, tall - 1), fill=MOUNT)
        shelf.paste(picture, (left + (SIDE - picture.width) // 2, (tall - picture.height) // 2))
        for number, text in enumerate(caption):
            pen.text((left, tall + GAP // 2 + number * line), _fitted(text, font), INK if number else FAINT, font)
    return shelf


def _caption(record: Mapping[Any, Any], traits: list[str], by: str | None) -> list[str]:
    said = [trait for trait in traits if trait not in ("target", by)]
    lines = [f"{trait} {UNRECORDED if pd.isna(record[trait]) else record[trait]}" for trait in said]
    shown = [str(record["target"])] if "target" in traits else []
    return [str(record["id"]), *shown, *([f"split {record['split']}"] if by else []), *lines]


def _fitted(text: str, font: Any) -> str:
    """Shorten a line to the width of a picture."""
    text = " ".join(text.split())
    while len(text) > 1 and font.getlength(text) > SIDE:
        text = f"{text.removesuffix('…')[:-1]}…"
    return text


def _words(lines: list[str], width: int, size: int, ink: str = INK) -> Image.Image:
    """Write lines over the whole width, the first in `size`, those after it smaller."""
    written = [
        (part, height)
        for line, height in zip(lines, [size, *[TEXT] * (len(lines) - 1)], strict=True)
        for part in wrap(line, int((width - 2 * GAP) / (0.55 * height)))
    ]
    block = Image.new("RGB", (width, GAP + sum(round(height * LINE) for _, height in written) + GAP // 2), PAPER)
    pen = ImageDraw.Draw(block)
    top = GAP
    for text, height in written:
        pen.text((GAP, top), text, ink, ImageFont.load_default(height))
        top += round(height * LINE)
    return block
