"""Rows that a backbone cannot take: found before training, named, and left out as long as they are few."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from PIL import Image

from fairbench.data.dataset import Dataset
from fairbench.data.image_folder import ImageFolder
from fairbench.errors import FairbenchError, named
from fairbench.models.backbone import Backbone

GREY = (128, 128, 128)
Sizes = tuple[tuple[int, int], ...]  # width and height of each image of a row


def refused(dataset: Dataset, table: pd.DataFrame, backbone: Backbone) -> dict[str, str]:
    """Return the id of each row that a backbone cannot prepare, and why.

    What a processor makes of an image fails by its size, so each size is tried once, on grey; sizes are known from
    when files were looked at. Of a dataset without files, the first image stands for all. A question or an answer
    is tried by its tokens: one that stands for the image would be taken for it.
    """
    sizes, texts = dict[Sizes, str](), dict[str, str]()
    faults: dict[str, str] = {}
    for row, size in zip(table.to_dict("records"), _sizes(dataset, table), strict=True):
        if size not in sizes:
            sizes[size] = _tried_image(backbone, size, str(row.get("prompt", dataset.prompt)))
        pixels = ", ".join(f"{width}×{height}" for width, height in size)
        reasons = [f"{pixels} pixels: {sizes[size]}"] if sizes[size] else []
        for column in ("prompt", "reference"):
            if column not in row:
                continue
            text = str(row[column])
            if text not in texts:
                texts[text] = _tried_text(backbone, text)
            reasons += [f"{column}: {texts[text]}"] if texts[text] else []
        if reasons:
            faults[str(row["id"])] = f"{row['image']}, {'; '.join(reasons)}"
    return faults


def accepted(dataset: Dataset, table: pd.DataFrame, backbone: Backbone) -> tuple[pd.DataFrame, list[str]]:
    """Leave out the rows that a backbone cannot take, with a warning.

    Raises FairbenchError where their share exceeds the dataset's `unreadable_share` (of one without: where there
    are any).
    """
    faults = refused(dataset, table, backbone)
    if not faults:
        return table, []
    tolerated = dataset.unreadable_share if isinstance(dataset, ImageFolder) else 0.0
    first = "; ".join(f"{name} ({why})" for name, why in list(faults.items())[:3])
    said = f"{backbone.name} cannot take {len(faults):,} of {len(table):,} rows of {dataset.name}: {first}"
    if len(faults) / len(table) > tolerated:
        raise FairbenchError(
            f"{said}: more than the {tolerated:.2%} that are tolerated",
            f"`fairbench data check {dataset.name} --backbones {backbone.name}` lists them; mend or leave them out",
        )
    return table[~table["id"].astype(str).isin(list(faults))].reset_index(drop=True), [f"{said}: left out"]


def _sizes(dataset: Dataset, table: pd.DataFrame) -> Iterator[Sizes]:
    """Yield the width and height of each row's images."""
    known: dict[str, tuple[int, int]] = {}
    if isinstance(dataset, ImageFolder):
        known = {name: (v.width, v.height) for name, v in dataset.verdicts.items() if v.width}
    first: tuple[int, int] | None = None
    for row in table[[name for name in ("image", "id", "further") if name in table]].to_dict("records"):
        sizes = []
        for name in (row["image"], *row.get("further", ())):
            size = known.get(str(name), first)
            if size is None:
                size = first = dataset.image({**row, "image": name}).size  # type: ignore[dict-item]
            sizes.append(size)
        yield tuple(sizes)


def _tried_image(backbone: Backbone, sizes: Sizes, prompt: str) -> str:
    try:
        backbone.prepare_images([Image.new("RGB", size, GREY) for size in sizes], prompt)
    except Exception as error:  # processors raise anything
        return named(error)
    return ""


def _tried_text(backbone: Backbone, text: str) -> str:
    try:
        ids = backbone.tokenise(text)
    except Exception as error:
        return named(error)
    return "it holds the token that stands for the image" if backbone.image_token_id in ids else ""
