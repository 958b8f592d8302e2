"""One spelling for a column of words whatever wrote it: text, whole numbers, floats, true and false, categories."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from fairbench.errors import FairbenchError
from fairbench.predictions.missing import MISSING

_EXACT = 2**53  # beyond it, neighbouring whole numbers are one float
_POINTED = r"^-?[0-9]+\.[0-9]*$"  # as a float is written down, whole or not
_FLOAT_OR_NONE = r"^(-?[0-9]+(\.[0-9]*|(\.[0-9]+)?[eE][-+]?[0-9]+)|[Nn]a[Nn])?$"
_ENDING = re.compile(r"^([-+]?[0-9]+)(?:\.0*|(\.[0-9]*[1-9])0+)$")  # 1.0 and 1.50: what says nothing is not kept


def coded(column: pa.ChunkedArray, where: str, keep: Collection[str] = ()) -> pd.Categorical:
    """Code a column as its distinct words; code -1 where it is null or a word for a missing value.

    `keep` are words for a missing value that are names here. Codes such as 007 stay as they are written.
    Raises FairbenchError, saying `where`, for numbers that their type cannot tell apart.
    """
    if not pa.types.is_dictionary(column.type):
        column = _written(column, where).dictionary_encode()
    whole = column.unify_dictionaries().combine_chunks()
    names = words(pa.chunked_array([whole.dictionary]), where, keep).to_pylist()
    known = pd.Index(dict.fromkeys(name for name in names if name is not None), dtype=object)
    place = np.append(known.get_indexer(pd.Index(names, dtype=object)), -1)
    codes = whole.indices.fill_null(len(names)).to_numpy(zero_copy_only=False)
    return pd.Categorical.from_codes(place[codes], known)


def words(column: pa.ChunkedArray, where: str, keep: Collection[str] = ()) -> pa.ChunkedArray:
    """Spell every value of a column as a word, null where it is missing; see `coded`. Of floats, 1.0 is 1."""
    spelt = _recorded(pc.utf8_trim_whitespace(_written(column, where)), keep)
    if _all_match(spelt, _POINTED):
        return _without_point(spelt)
    if _all_match(spelt, r"^([Tt]rue|TRUE|[Ff]alse|FALSE)$"):
        return pc.utf8_lower(spelt)
    return spelt


def keys(column: pa.ChunkedArray, where: str, keep: Collection[str] = ()) -> pa.ChunkedArray:
    """Spell ids and clusters as `words` does; raises FairbenchError for one number spelt in two ways."""
    spelt = words(column, where, keep)
    if _any_match(spelt, _POINTED):
        names = (name for name in pc.unique(spelt).to_pylist() if name is not None)
        if same := _sets(names, _plain_number):
            raise FairbenchError(
                f"{where} holds `{same[0][0]}` and `{same[0][1]}`, which may be one", "spell a number in one way"
            )
    return spelt


def texts(column: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    """Return free text as it is written; of other types, spelt as `words` does."""
    written = _written(column, where)
    return written if _is_text(column.type) else words(written, where)


def typed(table: pa.Table, columns: Sequence[str]) -> pa.Table:
    """Spell the whole numbers in a csv's texts as parquet's: where one column holds floats alone, 1.0 is 1 in all.

    A csv states no types, and pandas writes whole numbers as floats where one is missing.
    """
    pointed = (name for name in columns if _any_match(table.column(name), _POINTED))
    if any(_all_match(table.column(name), _FLOAT_OR_NONE) for name in pointed):
        for name in columns:
            place = table.column_names.index(name)
            table = table.set_column(place, name, _without_point(table.column(name)))
    return table


def numbers(column: pa.ChunkedArray, where: str) -> pd.Series[Any]:
    """Return floats, NaN where null; raises FairbenchError, saying `where`, for a column of anything else."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_null)
    if not any(kind(column.type) for kind in kinds):
        raise FairbenchError(f"{where} is not a number", "write decimal fractions, as numbers")
    if not pa.types.is_floating(column.type):
        column = column.cast(pa.float64(), safe=False)  # whole numbers above 2^53 lose digits that no score needs
    return pd.Series(column.to_numpy())


def _written(column: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    """Write each value down: of floats that are all whole, without their point."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.cast(column.type.storage_type)
    if pa.types.is_nested(column.type) or pa.types.is_binary(column.type):
        raise FairbenchError(f"{where} holds lists, records or bytes, not single values", "leave it out")
    if pa.types.is_float16(column.type):
        column = column.cast(pa.float32())
    if pa.types.is_floating(column.type):
        column = pc.add(column, pa.scalar(0.0, column.type))  # -0.0 is 0.0
        if pc.any(pc.greater_equal(pc.abs(column), float(_EXACT))).as_py():
            raise FairbenchError(
                f"{where} holds numbers above 2^53 as floats, in which neighbours are one", "write them as text"
            )
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
        if pc.all(pc.equal(pc.floor(column), column)).as_py():
            column = column.cast(pa.int64())
    try:
        return column.cast(pa.string())
    except pa.ArrowNotImplementedError as error:
        raise FairbenchError(f"{where} is of the type {column.type}", "write its values as text") from error


def _is_text(kind: Any) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _recorded(spelt: pa.ChunkedArray, keep: Collection[str]) -> pa.ChunkedArray:
    """Make null what is a word for a missing value."""
    kept = {name.strip().casefold() for name in keep}
    absent = pa.array([word for word in MISSING if not word or word not in kept])
    return pc.if_else(pc.is_in(pc.utf8_lower(spelt), value_set=absent), pa.scalar(None, pa.string()), spelt)


def _without_point(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Spell floats that are whole without their point, and -0 as 0, as `_written` does; other cells stay."""
    column = pc.replace_substring_regex(column, r"^-(0+)\.0*$", r"\1")
    return pc.replace_substring_regex(column, r"^(-?[0-9]+)\.0*$", r"\1")


def _all_match(column: pa.ChunkedArray, pattern: str) -> bool:
    matches = pc.match_substring_regex(column, pattern)
    return len(column) > column.null_count and bool(pc.all(matches).as_py())


def _any_match(column: pa.ChunkedArray, pattern: str) -> bool:
    return bool(pc.any(pc.match_substring_regex(column, pattern)).as_py())


def alike(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Return the names that differ in capitals, signs, spaces, accents' encoding, what is not seen, or a number's
    spelling alone.
    """
    return _sets(names, lambda name: folded(_plain_number(name)))


def folded(name: str) -> str:
    """Return a name without capitals and what is not seen, a space for each run of spaces, hyphens, underscores."""
    shown = (letter for letter in name if unicodedata.category(letter) != "Cf")
    plain = unicodedata.normalize("NFKC", "".join(shown)).casefold()
    return re.sub(r"[\s_\-\u2010-\u2015]+", " ", plain).strip()


def _plain_number(name: str) -> str:
    return _ENDING.sub(r"\1\2", name)


def _sets(names: Iterable[str], key: Callable[[str], str]) -> list[tuple[str, ...]]:
    """Return the names that share a key with another, each set once."""
    sets: dict[str, list[str]] = {}
    for name in names:
        sets.setdefault(key(name), []).append(name)
    return [tuple(same) for same in sets.values() if len(same) > 1]
