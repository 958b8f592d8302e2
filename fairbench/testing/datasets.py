"""What every dataset must do: checks whose names are accusations."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from fairbench.data.dataset import Dataset, rows


def check_rows_keep_the_contract(dataset: Dataset) -> None:
    """Its table passes every check of the core, twice with the same content."""
    pd.testing.assert_frame_equal(rows(dataset), rows(dataset))
    assert dataset.fingerprint() == dataset.fingerprint()


def check_images_are_rgb(dataset: Dataset) -> None:
    """Every split's first image opens as RGB."""
    for _, part in rows(dataset).groupby("split"):
        assert dataset.image(part.iloc[0].to_dict()).mode == "RGB"  # type: ignore[arg-type]


DATASET_CHECKS: tuple[Callable[[Dataset], None], ...] = (check_rows_keep_the_contract, check_images_are_rgb)
