"""The words that stand for a missing value, the same in csv, in parquet and in the `table` dataset."""

from __future__ import annotations

from collections.abc import Collection

from fairbench.errors import FairbenchError

MISSING = (
    "",
    "na",
    "n/a",
    "#n/a",
    "n.a.",
    "?",
    "<na>",
    "nan",
    "nat",
    "none",
    "null",
    "unknown",
    "unrecorded",
    "not recorded",
)


def is_missing(word: str, keep: Collection[str] = ()) -> bool:
    """Say whether a word, in any case and with any space around it, means that nothing was recorded.

    `keep` are words of the list that are names in this table, such as NA for Namibia.
    """
    plain = word.strip().casefold()
    return plain in MISSING and (not plain or plain not in {name.strip().casefold() for name in keep})


def kept(keep: Collection[str]) -> tuple[str, ...]:
    """Return the words to keep; raises FairbenchError for one that is kept anyway, as it stands for a name."""
    words = (keep,) if isinstance(keep, str) else tuple(keep)
    for word in words:
        if not word.strip() or not is_missing(word):
            raise FairbenchError(
                f"`{word}` is no word for a missing value, so there is nothing to keep",
                f"keep one of: {', '.join(filter(None, MISSING))}; every other word is a name already",
            )
    return words
