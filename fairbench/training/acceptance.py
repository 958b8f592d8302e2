"""Rows that a backbone cannot take: found before training, named, and left out as long as they are few."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from PIL import Image

from fairbench.data.dataset import Dataset
from fairbench.data.image_folder import ImageFolder
from fairbench.errors import FairbenchError
from fairbench.models.backbone import Backbone

GREY = (128, 128, 128)


def refused(dataset: Dataset, table: pd.DataFrame, backbone: Backbone) -> dict[str, str]:
    """Return the id of each row that a backbone cannot prepare, and why.

    What a processor makes of an image fails by its size, so each size is tried once, on grey; sizes are known from
    when files were looked at. Of a dataset without files, the first image stands for all. A question or an answer
    is tried by its tokens: one that stands for the image would be taken for it.
    """
    sizes, texts = dict[tuple[int, int], str](), dict[str, str]()
    found: dict[str, str] = {}
    for row, size in zip(table.to_dict("records"), _sizes(dataset, table), strict=True):
        if size not in sizes:
            sizes[size] = _tried_image(backbone, size, str(row.get("prompt", dataset.prompt)))
        reasons = [f"{size[0]}×{size[1]} pixels: {sizes[size]}"] if sizes[size] else []
        for column in ("prompt", "reference"):
            if column not in row:
                continue
            text = str(row[column])
            if text not in texts:
                texts[text] = _tried_text(backbone, text)
            reasons += [f"{column}: {texts[text]}"] if texts[text] else []
        if reasons:
            found[str(row["id"])] = f"{row['image']}, {'; '.join(reasons)}"
    return found


def accepted(dataset: Dataset, table: pd.DataFrame, backbone: Backbone) -> tuple[pd.DataFrame, list[str]]:
    """Leave out the rows that a backbone cannot take, with a warning.

    Raises FairbenchError where their share exceeds the dataset's `unreadable_share` (of one without: where there
    are any).
    """
    found = refused(dataset, table, backbone)
    if not found:
        return table, []
    tolerated = dataset.unreadable_share if isinstance(dataset, ImageFolder) else 0.0
    first = "; ".join(f"{name} ({why})" for name, why in list(found.items())[:3])
    said = f"{backbone.name} cannot take {len(found):,} of {len(table):,} rows of {dataset.name}: {first}"
    if len(found) / len(table) > tolerated:
        raise FairbenchError(
            f"{said}: more than the {tolerated:.2%} that are tolerated",
            f"`fairbench data check {dataset.name} --backbones {backbone.name}` lists them; mend or leave them out",
        )
    return table[~table["id"].astype(str).isin(list(found))].reset_index(drop=True), [f"{said}: left out"]


def _sizes(dataset: Dataset, table: pd.DataFrame) -> Iterator[tuple[int, int]]:
    """Yield each row's width and height."""
    known: dict[str, tuple[int, int]] = {}
    if isinstance(dataset, ImageFolder):
        known = {name: (v.width, v.height) for name, v in dataset.verdicts.items() if v.width}
    first: tuple[int, int] | None = None
    for row in table[["image", *(["id"] if "id" in table else [])]].to_dict("records"):
        size = known.get(str(row["image"]), first)
        if size is None:
            size = first = dataset.image(row).size  # type: ignore[arg-type]
        yield size


def _tried_image(backbone: Backbone, size: tuple[int, int], prompt: str) -> str:
    try:
        backbone.prepare(Image.new("RGB", size, GREY), prompt)
    except Exception as error:  # processors raise anything
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return ""


def _tried_text(backbone: Backbone, text: str) -> str:
    try:
        ids = backbone.tokenise(text)
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return "it holds the token that stands for the image" if backbone.image_token_id in ids else ""
