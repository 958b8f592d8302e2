"""Reading predictions of anybody's: parquet or csv, checked column by column before anything is computed."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from fairbench.errors import FairbenchError
from fairbench.predictions.checks import check_keys, check_reference, refuse
from fairbench.predictions.classes import PROBABILITY, index_classes
from fairbench.predictions.missing import MISSING
from fairbench.predictions.predictions import Predictions
from fairbench.predictions.spelling import coded, numbers, texts, words
from fairbench.settings import suggest

KEYS = ("id", "cluster")  # too many different values to be worth coding
CODED = ("split", "target", "answer")
FREE_TEXT = ("reference", "text")
NUMBERS = ("score", "loss")
ROLES = (*KEYS, *CODED, *FREE_TEXT, *NUMBERS)
SPLIT_SPELLINGS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
NO_NUMBER = ["NaN", *{form for word in MISSING for form in (word, word.upper(), word.title())}]
NOT_A_NUMBER = re.compile(r"In CSV column #(\d+): CSV conversion error to double: invalid value '(.*?)'", re.DOTALL)
OTHER = {b"PK\x03\x04": "a workbook or another archive", b'{"': "JSON", b"[{": "JSON"}  # by how a file begins
UNREADABLE = (ValueError, OSError, pa.ArrowException)

Columns = list[str]


@dataclass(frozen=True)
class _Asked:
    """What is to be read of a file, and how."""

    path: Path
    attributes: tuple[str, ...] | None
    keep: Collection[str]

    def choose(self, columns: Columns) -> tuple[Columns, Columns]:
        """Name the columns to read that have a role, and the attributes; refuse what is not there once."""
        offered = [
            c for c in columns if c and _role(c) is None
        ]  # numbers of rows, as pandas writes them, have no name
        wanted = offered if self.attributes is None else list(self.attributes)
        text = set(FREE_TEXT) <= set(columns)
        graded = not text or "target" in columns or "answer" in columns
        for column in [*(("target", "answer") if graded else ()), *wanted]:
            if column not in columns:
                raise suggest(f"column of {self.path}", column, columns)
            if column in wanted and _role(column):
                raise suggest(f"attribute of {self.path}", column, offered)
        roles = [c for c in columns if _role(c) and (text or c not in (*FREE_TEXT, "loss"))]
        if not any(c == "score" or PROBABILITY.fullmatch(c) for c in columns):
            roles += [
                c for c in offered if c.startswith("p_") and c not in wanted
            ]  # perhaps of a class by its name
        for column in (*roles, *wanted):
            if columns.count(column) > 1:
                raise FairbenchError(f"{self.path}: two columns are called `{column}`", "rename one of them")
            if column in wanted and "+" in column:
                raise FairbenchError(
                    f"{self.path}: the column `{column}` has a + in its name, which joins attributes", "rename it"
                )
        return roles, wanted


def _opening(path: Path) -> bytes:
    """Return a file's first four bytes; raises FairbenchError where they say that it is neither parquet nor csv."""
    with path.open("rb") as file:
        opening = file.read(4)
    kind = next((kind for start, kind in OTHER.items() if opening.startswith(start)), None)
    if kind:
        raise FairbenchError(f"{path} is {kind}, not parquet or csv", "write the table to a csv or parquet file")
    return opening


def read_predictions(
    path: str | os.PathLike[str],
    attributes: Sequence[str] | None = None,
    split: str | None = "test",
    positive: str | None = None,
    classes: Sequence[str] | None = None,
    keep: Collection[str] = (),
) -> Predictions:
    """Read one split of anybody's predictions file, parquet or csv; fairbench's own as `Predictions.load` does.

    `attributes` (default: all) limits what is read, several joined by + count each; `positive` names the
    positive of two classes; `classes` names all classes in order; `keep` are words of `missing.MISSING` that
    are names in this file. Raises FairbenchError for a file that cannot be trusted.
    """
    path = Path(path)
    parts = None if attributes is None else tuple(dict.fromkeys(p for a in attributes for p in a.split("+")))
    asked = _Asked(path, parts, keep)
    try:
        parquet = _opening(path) == b"PAR1"
        if parquet and b"fairbench" in (pq.read_schema(path).metadata or {}):
            return _own(path, parts, split, positive, classes)
        table, wanted = (_read_parquet if parquet else _read_csv)(asked)
    except UNREADABLE as error:
        if isinstance(error, OSError) and error.strerror:  # the system's word, not that of a reader of a format
            raise FairbenchError(f"cannot read {path}: {error.strerror}", "name a predictions file") from error
        raise FairbenchError(
            f"{path}: cannot be read as parquet or csv: {str(error).strip():.300}",
            "give a parquet file, or a csv with a header line, commas and utf-8",
        ) from error
    return _checked(table, wanted, path, split, positive, tuple(classes or ()))


def predictions_of(
    data: object,
    attributes: Sequence[str] | None = None,
    split: str | None = "test",
    positive: str | None = None,
    classes: Sequence[str] | None = None,
    keep: Collection[str] = (),
) -> Predictions:
    """Take predictions from memory as `read_predictions` does from a file, with the same checks.

    `data` is a frame of pandas, polars or any library that speaks Arrow, or a mapping of column names to
    arrays. Raises FairbenchError for what cannot be trusted.
    """
    path = Path("the given data")
    parts = None if attributes is None else tuple(dict.fromkeys(p for a in attributes for p in a.split("+")))
    asked = _Asked(path, parts, keep)
    table = _as_arrow(data)
    roles, wanted = asked.choose(list(table.column_names))
    frame = _spelt(table.select([*roles, *wanted]), asked)
    return _checked(frame, wanted, path, split, positive, tuple(classes or ()))


def _as_arrow(data: object) -> pa.Table:
    try:
        if isinstance(data, pd.DataFrame):
            return _frame_as_arrow(data)
        if isinstance(data, Mapping):
            return pa.table({str(name): pd.Series(column) for name, column in data.items()})
        if hasattr(data, "__arrow_c_stream__"):
            return pa.table(data)
    except UNREADABLE as error:
        said = " ".join(str(error).split())
        raise FairbenchError(
            f"the given data are no table: {said}", "give columns of one type and one length"
        ) from error
    raise FairbenchError(
        f"a {type(data).__name__} is no table", "give a path, a frame of pandas or polars, or a mapping of arrays"
    )


def _frame_as_arrow(frame: pd.DataFrame) -> pa.Table:
    """Take an index that has a name as a column, and spell the intervals that `pandas.cut` makes."""
    named = [name for name in frame.index.names if name is not None and name not in frame.columns]
    frame = (frame.reset_index(level=named) if named else frame).rename(columns=str)
    for name, kind in frame.dtypes.items():
        of = kind.categories.dtype if isinstance(kind, pd.CategoricalDtype) else kind
        if isinstance(of, pd.IntervalDtype):
            frame = frame.assign(**{str(name): frame[name].astype(object).map(str, na_action="ignore")})
    return pa.Table.from_pandas(frame, preserve_index=False)


def _checked(
    table: pd.DataFrame,
    wanted: Columns,
    path: Path,
    split: str | None,
    positive: str | None,
    classes: tuple[str, ...],
) -> Predictions:
    """Keep one split, refuse what cannot be trusted, and replace labels by class indices."""
    table = _one_split(table, split, path)
    check_keys(table, path)
    check_reference(table, path)
    if "target" in table:
        table, classes = index_classes(table, classes, positive, path)
    wanted = [column for column in wanted if column in table]
    last = [*(c for c in map(str, table) if _role(c) and c not in wanted), *wanted]
    task = "classify" if "target" in table else "generate"
    return Predictions(table[last].reset_index(drop=True), classes, tuple(wanted), task)


def _own(
    path: Path,
    attributes: tuple[str, ...] | None,
    split: str | None,
    positive: str | None,
    classes: Sequence[str] | None,
) -> Predictions:
    own = Predictions.load(path, attributes, split)
    if classes and tuple(classes) != own.classes:
        raise FairbenchError(
            f"{path}: its classes are {', '.join(own.classes)} and not {', '.join(classes)}",
            "fairbench's own files name their classes: leave out --classes",
        )
    return own if positive is None else own.with_positive(positive)


def _role(column: str) -> str | None:
    return column if column in ROLES or PROBABILITY.fullmatch(column) else None


def _read_parquet(asked: _Asked) -> tuple[pd.DataFrame, Columns]:
    schema = pq.read_schema(asked.path)
    roles, wanted = asked.choose(list(schema.names))
    few = [c for c in (*roles, *wanted) if _kind(c) is coded and pa.types.is_string(schema.field(c).type)]
    table = pq.read_table(asked.path, columns=[*roles, *wanted], read_dictionary=few)
    return _spelt(table, asked), wanted


def _read_csv(asked: _Asked) -> tuple[pd.DataFrame, Columns]:
    """Read strictly: pandas would drop the surplus fields of a row, and so shift its columns, unseen."""
    parse = csv.ParseOptions(newlines_in_values=True)
    _check_commas(asked.path)
    with pa.input_stream(asked.path, compression="detect") as file:
        lazy = csv.ConvertOptions(check_utf8=False)
        names = csv.open_csv(file, parse_options=parse, convert_options=lazy).schema.names
    roles, wanted = asked.choose(names)
    few = pa.dictionary(pa.int32(), pa.string())
    types = {numbers: pa.float64(), texts: pa.string(), words: pa.string(), coded: few}
    convert = csv.ConvertOptions(
        include_columns=[*roles, *wanted],
        column_types={column: types[_kind(column)] for column in (*roles, *wanted)},
        null_values=NO_NUMBER,  # of numbers only: texts and names are looked at later
    )
    try:
        with pa.input_stream(asked.path, compression="detect") as file:
            return _spelt(csv.read_csv(file, parse_options=parse, convert_options=convert), asked), wanted
    except pa.ArrowInvalid as error:
        if not (said := NOT_A_NUMBER.search(str(error))):
            raise
        problem = f"{asked.path}: column `{names[int(said[1])]}` holds `{said[2]}`, which is no number"
        raise FairbenchError(problem, "write fractions with a decimal point") from error


def _check_commas(path: Path) -> None:
    """Refuse a file whose columns are separated by anything else, as spreadsheets of many countries write it."""
    with pa.input_stream(path, compression="detect") as file:
        header = file.read(1 << 16).partition(b"\n")[0].decode(errors="replace")
    if "," not in header and (other := re.search(r"[;\t|]", header)):
        raise FairbenchError(
            f"{path}: its columns are separated by {other[0]!r}", "separate them by commas, with points in numbers"
        )


def _kind(column: str) -> Callable[..., object]:
    """Return what reads a column of this name."""
    if PROBABILITY.fullmatch(column) or column in NUMBERS:
        return numbers
    return texts if column in FREE_TEXT else words if column in KEYS else coded


def _spelt(table: pa.Table, asked: _Asked) -> pd.DataFrame:
    """Give every column the one spelling of its kind; the index is the row in the file, from 0."""
    columns = {}
    for name in table.column_names:
        where, kind = f"{asked.path}: column `{name}`", _kind(name)
        column = table.column(name)
        if kind is numbers:
            columns[name] = numbers(column, where)
        elif kind is coded:
            columns[name] = pd.Series(coded(column, where, asked.keep))
        else:
            spelt = texts(column, where) if kind is texts else words(column, where, asked.keep)
            columns[name] = spelt.to_pandas()
    return pd.DataFrame(columns, copy=False)


def _one_split(table: pd.DataFrame, split: str | None, path: Path) -> pd.DataFrame:
    """Keep the rows of one split, however it is spelt; a row that is in none is refused, never left out unseen."""
    if table.empty:
        raise FairbenchError(f"{path}: there are no rows", "a predictions file has one row per patient or image")
    if split and split != "test" and "split" not in table:
        raise FairbenchError(f"{path}: there is no column `split`, so no {split} rows", "leave --split out")
    if not split or "split" not in table:
        return table
    hint = "write train, val or test into every row, or read all rows (--split all)"
    refuse(table, table["split"].isna().to_numpy(), path, "column `split` is empty", hint)
    splits = table["split"].cat
    known = {spelling: name for name, spellings in SPLIT_SPELLINGS.items() for spelling in spellings}
    there = [known.get(word.casefold(), word.casefold()) for word in splits.categories]
    if split not in there:
        raise suggest(f"split of {path}", split, there)
    kept = table[pd.Series(there).eq(split).to_numpy()[splits.codes.to_numpy()]].copy(deep=False)
    kept["split"] = split
    return kept
