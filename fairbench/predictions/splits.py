"""The rows of one split, however it is spelt."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from fairbench.errors import FairbenchError
from fairbench.predictions.checks import refuse
from fairbench.predictions.spelling import folded
from fairbench.settings import suggest

SPELLINGS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev", "development"),
    "test": ("test", "testing", "holdout", "heldout"),
}
_KNOWN = {spelling: name for name, spellings in SPELLINGS.items() for spelling in spellings}
_SET = re.compile(r"(sub|data|set|split|partition)+$")  # a test set is test
MOST_NAMED = 5  # words in a message


def split_of(word: str) -> str:
    """Return train, val or test for any spelling of them (`Test-Set`, `hold out`), any other word folded."""
    plain = folded(word)
    return _KNOWN.get(_SET.sub("", plain.replace(" ", "")), plain)


def one_split(table: pd.DataFrame, split: str | None, path: Path) -> pd.DataFrame:
    """Keep the rows of one split; a row that is in none is refused, never left out unseen."""
    if table.empty:
        raise FairbenchError(f"{path}: there are no rows", "a predictions file has one row per patient or image")
    if split and split != "test" and "split" not in table:
        raise FairbenchError(f"{path}: there is no column `split`, so no {split} rows", "leave --split out")
    if not split or "split" not in table:
        return table
    hint = "write train, val or test into every row, or read all rows (--split all)"
    refuse(table, table["split"].isna().to_numpy(), path, "column `split` is empty", hint)
    splits = table["split"].cat.remove_unused_categories().cat
    asked, there = split_of(split), [split_of(word) for word in splits.categories]
    codes = splits.codes.to_numpy()
    if asked in SPELLINGS:  # any other word is asked for by whoever knows the file's own
        unknown = np.array([name not in SPELLINGS for name in there])
        counts = np.bincount(codes)
        named = zip(splits.categories, counts, unknown, strict=True)
        listed = [f"`{word:.40}` ({count:,})" for word, count, strange in named if strange]
        more = ", …" if len(listed) > MOST_NAMED else ""
        problem = f"column `split` holds {', '.join(listed[:MOST_NAMED])}{more}, neither train, val nor test,"
        refuse(table, unknown[codes], path, problem, hint)
    if asked not in there:
        raise suggest(f"split of {path}", split, there)
    kept = table[pd.Series(there).eq(asked).to_numpy()[codes]].copy(deep=False)
    kept["split"] = asked
    return kept
