"""Reading predictions of anybody's: parquet or csv, checked column by column before anything is computed."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from fairbench.errors import FairbenchError
from fairbench.predictions.checks import check_keys, check_reference
from fairbench.predictions.classes import PROBABILITY, index_classes
from fairbench.predictions.columns import FREE_TEXT, KEYS, NUMBERS, Columns, ReadRequest, role
from fairbench.predictions.missing import MISSING
from fairbench.predictions.predictions import Predictions
from fairbench.predictions.spelling import coded, keys, numbers, texts, typed
from fairbench.predictions.splits import one_split

NO_NUMBER = ["NaN", *{form for word in MISSING for form in (word, word.upper(), word.title())}]
NOT_A_NUMBER = re.compile(r"In CSV column #(\d+): CSV conversion error to double: invalid value '(.*?)'", re.DOTALL)
OTHER = {  # by how a file begins
    b"PK\x03\x04": "a workbook or another archive",
    b"\xd0\xcf\x11\xe0": "an old workbook",
    b'{"': "JSON",
    b"[{": "JSON",
}
WIDE = {  # encodings in which letters take several bytes; UTF-32 begins as UTF-16 does
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
AS_UTF8 = "save it as csv in UTF-8 (a spreadsheet offers `CSV UTF-8`)"
SEPARATOR = re.compile(r'"?sep=.?"?', re.IGNORECASE)
UNREADABLE = (ValueError, OSError, pa.ArrowException)


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
    request = ReadRequest.of(path, attributes, keep)
    try:
        parquet = _opening(path) == b"PAR1"
        if parquet and b"fairbench" in (pq.read_schema(path).metadata or {}):
            return _own(path, request.attributes, split, positive, classes)
        table, wanted = (_read_parquet if parquet else _read_csv)(request)
    except UNREADABLE as error:
        if isinstance(error, OSError) and error.strerror:  # the system's word, not that of a reader of a format
            raise FairbenchError(f"cannot read {path}: {error.strerror}", "name a predictions file") from error
        raise _not_utf8(path, error) or FairbenchError(
            f"{path}: cannot be read as parquet or csv: {str(error).strip():.300}",
            "give a parquet file, or a csv with a header line, commas and utf-8",
        ) from error
    return _checked(table, wanted, request, split, positive, tuple(classes or ()))


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
    request = ReadRequest.of(Path("the given data"), attributes, keep)
    table = _as_arrow(data)
    roles, wanted = request.choose(list(table.column_names))
    frame = _spelt(table.select([*roles, *wanted]), request)
    return _checked(frame, wanted, request, split, positive, tuple(classes or ()))


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
    request: ReadRequest,
    split: str | None,
    positive: str | None,
    classes: tuple[str, ...],
) -> Predictions:
    """Keep one split, refuse what cannot be trusted, and replace labels by class indices."""
    table = one_split(table, split, request.path)
    check_keys(table, request.path)
    check_reference(table, request.path)
    if "target" in table:
        table, classes = index_classes(table, classes, positive, request.path, request.attributes or ())
    wanted = [column for column in wanted if column in table]
    last = [*(c for c in map(str, table) if role(c) and c not in wanted), *wanted]
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


def _read_parquet(request: ReadRequest) -> tuple[pd.DataFrame, Columns]:
    schema = pq.read_schema(request.path)
    roles, wanted = request.choose(list(schema.names))
    few = [c for c in (*roles, *wanted) if _kind(c) is coded and pa.types.is_string(schema.field(c).type)]
    table = pq.read_table(request.path, columns=[*roles, *wanted], read_dictionary=few)
    return _spelt(table, request), wanted


def _read_csv(request: ReadRequest) -> tuple[pd.DataFrame, Columns]:
    """Read strictly: pandas would drop the surplus fields of a row, and so shift its columns, unseen."""
    parse = csv.ParseOptions(newlines_in_values=True)
    _check_header(request.path)
    with pa.input_stream(request.path, compression="detect") as file:
        lazy = csv.ConvertOptions(check_utf8=False)
        names = csv.open_csv(file, parse_options=parse, convert_options=lazy).schema.names
    roles, wanted = request.choose(names)
    few = pa.dictionary(pa.int32(), pa.string())
    types = {numbers: pa.float64(), texts: pa.string(), keys: pa.string(), coded: few}
    convert = csv.ConvertOptions(
        include_columns=[*roles, *wanted],
        column_types={column: types[_kind(column)] for column in (*roles, *wanted)},
        null_values=NO_NUMBER,  # of numbers only: texts and names are looked at later
    )
    try:
        with pa.input_stream(request.path, compression="detect") as file:
            table = csv.read_csv(file, parse_options=parse, convert_options=convert)
    except pa.ArrowInvalid as error:
        if not (said := NOT_A_NUMBER.search(str(error))):
            raise
        problem = f"{request.path}: column `{names[int(said[1])]}` holds `{said[2]}`, which is no number"
        raise FairbenchError(problem, "write fractions with a decimal point") from error
    return _spelt(typed(table, [column for column in FREE_TEXT if column in roles]), request), wanted


def _check_header(path: Path) -> None:
    """Refuse another encoding and other separators than commas, as spreadsheets of many countries write them."""
    with pa.input_stream(path, compression="detect") as file:
        header = file.read(1 << 16).partition(b"\n")[0]
    marked = next((name for mark, name in WIDE.items() if header.startswith(mark)), "")
    halved = len(header) > 1 and not (any(header[:64:2]) and any(header[1:64:2]))  # as Latin letters are in UTF-16
    if marked or halved:
        raise FairbenchError(f"{path} is written in {marked or 'UTF-16'}, not in UTF-8", AS_UTF8)
    line = header.decode(errors="replace").lstrip("\ufeff").rstrip("\r")
    if SEPARATOR.fullmatch(line):
        raise FairbenchError(
            f"{path}: its first line is {line!r}, which only Excel understands, not the names of the columns",
            "delete that line; columns are separated by commas, with points in numbers",
        )
    if "," not in line and (other := re.search(r"[;\t|]", line)):
        raise FairbenchError(
            f"{path}: its columns are separated by {other[0]!r}", "separate them by commas, with points in numbers"
        )


def _not_utf8(path: Path, error: Exception) -> FairbenchError | None:
    """Say where a csv ceases to be UTF-8, where an error is about that."""
    if not (isinstance(error, UnicodeDecodeError) or "invalid UTF8" in str(error)):
        return None
    with pa.input_stream(path, compression="detect") as file:
        data = file.read()
    try:
        data.decode()
    except UnicodeDecodeError as found:
        byte, line = data[found.start], data[: found.start].count(b"\n") + 1
        where = f"byte 0x{byte:02x} in line {line:,}"
        return FairbenchError(f"{path} is not written in UTF-8 but perhaps in Latin-1: {where}", AS_UTF8)
    return None


def _kind(column: str) -> Callable[..., object]:
    """Return what reads a column of this name."""
    if PROBABILITY.fullmatch(column) or column in NUMBERS:
        return numbers
    return texts if column in FREE_TEXT else keys if column in KEYS else coded


def _spelt(table: pa.Table, request: ReadRequest) -> pd.DataFrame:
    """Give every column the one spelling of its kind; the index is the row in the file, from 0."""
    columns = {}
    for name in table.column_names:
        where, kind = f"{request.path}: column `{name}`", _kind(name)
        column = table.column(name)
        if kind is numbers:
            columns[name] = numbers(column, where)
        elif kind is coded:
            columns[name] = pd.Series(coded(column, where, request.keep))
        else:
            spelt = texts(column, where) if kind is texts else keys(column, where, request.keep)
            columns[name] = spelt.to_pandas()
    return pd.DataFrame(columns, copy=False)
