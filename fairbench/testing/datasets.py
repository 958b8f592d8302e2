"""What every dataset must do: checks whose names say what is promised."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from itertools import islice

import numpy as np
import pandas as pd
import torch
from PIL import Image

from fairbench.data.dataset import Dataset, columns, rows
from fairbench.data.splits import SPLITS
from fairbench.testing import elsewhere

SEEN = 100  # images of a split that are opened, evenly over its rows


def check_says_what_it_is(dataset: Dataset) -> None:
    """Its title, licence and citation are there, and a question for every row."""
    for what in ("title", "licence", "citation"):
        assert getattr(type(dataset), what, ""), f"it has no {what}"
    table = rows(dataset)
    asked = table["prompt"].str.strip().ne("").all() if "prompt" in table else dataset.prompt.strip()
    assert asked, "a row has no question: set `prompt`, or give each row its own"


def check_rows_keep_the_contract(dataset: Dataset) -> None:
    """Its table passes every check of the core, twice with the same content."""
    rows(dataset)
    first, second = dataset.table(), dataset.table()
    assert first.equals(second), "reading it twice gives two tables"


def check_every_split_can_be_used(dataset: Dataset) -> None:
    """There are rows to train, validate and test on; in training and test, every class and some known groups."""
    table = rows(dataset)
    for split in SPLITS:
        part = table[table["split"] == split]
        assert len(part), f"no row is of split {split}"
        if split == "val":
            continue
        lacking = sorted(set(dataset.classes) - set(part["target"])) if "target" in part else []
        assert not lacking, f"split {split} has no row of class {', '.join(lacking)}"
        for attribute in dataset.attributes:
            known = table[attribute].notna().any()
            assert not known or part[attribute].notna().any(), f"{attribute} is known for nobody in split {split}"


def check_order_and_fingerprint_are_the_same_elsewhere(dataset: Dataset) -> None:
    """Another process, which hashes strings in another way, reads the same rows in the same order."""
    here, there = elsewhere.identity(dataset).split(" "), elsewhere.contents(dataset).split(" ")
    assert here[0] == there[0], "another process reads its rows differently: sort what is listed or put into a set"
    assert here[1] == there[1], "its fingerprint differs from process to process"


def check_fingerprint_follows_the_content(dataset: Dataset) -> None:
    """Its fingerprint changes with another question, with fewer rows, and with other answers in its folder.

    What needs no folder follows from its code and settings, so its fingerprint may be theirs.
    """
    settings, known = dataset.settings(), dataset.fingerprint()
    half = {**settings, "limit": len(rows(dataset)) // 2}
    others = {
        "another question": _like(dataset, type(dataset), {**settings, "prompt": "Well?"}),
        "fewer rows": _like(dataset, type(dataset), half),
    }
    if dataset.folder is not None:
        answers = [name for name in ("target", "reference") if name in columns(dataset)]
        others |= {f"another {name}": _like(dataset, _moved(type(dataset), name), settings) for name in answers}
    for change, other in others.items():
        assert other.fingerprint() != known, f"its fingerprint is the same with {change}"


def _moved(kind: type[Dataset], column: str) -> type[Dataset]:
    """Return a kind of dataset in which each row has what its neighbour had in one column."""

    class Moved(kind):  # type: ignore[misc, valid-type]
        def table(self) -> pd.DataFrame:
            table: pd.DataFrame = super().table()
            return table.assign(**{column: np.roll(table[column], 1)})

    return Moved


def _like(dataset: Dataset, kind: type[Dataset], settings: Mapping[str, object]) -> Dataset:
    """Make a dataset of another kind or with other settings, of the same folder."""
    other = kind(**settings)
    if (root := getattr(dataset, "root", None)) is not None:
        other.root = root
    return other


def _pictures(dataset: Dataset, part: pd.DataFrame) -> dict[str, bytes]:
    """Open images evenly over some rows; return their pixels by the rows' ids."""
    step = max(1, len(part) // SEEN)
    some = islice(part.iloc[::step].to_dict("records"), SEEN)
    return {str(row["id"]): dataset.image(row).tobytes() for row in some}  # type: ignore[arg-type]


def check_images_are_rgb(dataset: Dataset) -> None:
    """Every split's first image opens as RGB."""
    for split, part in rows(dataset).groupby("split"):
        image = dataset.image(part.iloc[0].to_dict())  # type: ignore[arg-type]
        assert isinstance(image, Image.Image), f"an image of split {split} is a {type(image).__name__}"
        assert image.mode == "RGB", f"an image of split {split} is {image.mode}, not RGB"


def check_an_image_is_its_rows_own(dataset: Dataset) -> None:
    """A row's image is the same whenever it is opened, and whatever its answer and its groups are."""
    for _, part in rows(dataset).groupby("split"):
        row = part.iloc[0].to_dict()
        first = dataset.image(row).tobytes()  # type: ignore[arg-type]
        for seed in (1, 2):
            random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
            again = dataset.image(row).tobytes()  # type: ignore[arg-type]
            assert again == first, "an image is another one each time it is opened"
        other = dict(row)
        if "target" in row:
            other["target"] = next((name for name in dataset.classes if name != row["target"]), row["target"])
        for name, values in dataset.attributes.items():
            other[name] = next((value for value in values if value != row[name]), None)
        painted = dataset.image(other).tobytes()  # type: ignore[arg-type]
        assert painted == first, "an image depends on its row's answer or groups, and not on `image` alone"


def check_images_are_not_all_alike(dataset: Dataset) -> None:
    """Images differ, and not half of those to test on are also there to train on."""
    table = rows(dataset).drop_duplicates(["split", "image"])
    train, test = (set(_pictures(dataset, table[table["split"] == split]).values()) for split in ("train", "test"))
    assert len(train | test) > 1, "all images are the same"
    assert 2 * len(test & train) <= len(test), f"{len(test & train)} of {len(test)} test images are training images"


def check_the_question_does_not_tell_the_answer(dataset: Dataset) -> None:
    """Neither ids nor questions name the row's class and no other."""
    table = rows(dataset)
    if "target" not in table or len(dataset.classes) < 2:
        return
    names = {name.lower() for name in dataset.classes}
    for column in {"id", "prompt"} & set(table):
        told = table[column].str.lower().map(lambda text: {name for name in names if name in text})
        alone = [
            len(said) == 1 and said == {target.lower()} for said, target in zip(told, table["target"], strict=True)
        ]
        assert np.mean(alone) < 0.9, f"the column {column} tells the answer, as in {table[column].iloc[0]!r}"


DATASET_CHECKS: tuple[Callable[[Dataset], None], ...] = (
    check_says_what_it_is,
    check_rows_keep_the_contract,
    check_every_split_can_be_used,
    check_order_and_fingerprint_are_the_same_elsewhere,
    check_fingerprint_follows_the_content,
    check_images_are_rgb,
    check_an_image_is_its_rows_own,
    check_images_are_not_all_alike,
    check_the_question_does_not_tell_the_answer,
)
