"""Read a dataset's table as words, strictly: a cell that moved or was dropped would be somebody else's."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from fairbench.errors import FairbenchError

SEPARATORS = ",;\t|"
SEPARATED = "columns are separated by commas, semicolons, tabs or |"
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
GZIP = b"\x1f\x8b"
LONGEST_CELL = 1 << 24  # characters; csv's own limit is shorter than some notes

Columns = Mapping[str, Sequence[str]]  # a column → the names that it may be written with, whatever their capitals


def read_table(
    path: Path, name: str, hint: str, columns: Columns | None = None, encoding: str = "utf-8", lines: bool = True
) -> pd.DataFrame:
    """Read a table of words (csv, tsv, gzipped or not; the first sheet of an xlsx): stripped, None where empty.

    Separators are comma, semicolon, tab or |; UTF-16 and byte order marks are recognised. With `columns`, those
    alone are kept, under the names given. The index says in which line of the file a row ends. Without `lines`, no
    cell may hold a line break, as in files that a program wrote: there, it comes of a stray quote. Raises
    FairbenchError in the dataset's `name` for what cannot be read cell by cell.
    """
    where = f"{name}: {path}"
    if path.suffix.lower() == ".xlsx":
        return _from_sheet(_sheet(path, where, hint), columns, where, hint)
    text = _decoded(path, where, hint, encoding)
    first = text[: text.find("\n") + 1] or text
    csv.field_size_limit(LONGEST_CELL)
    separator = max(SEPARATORS, key=lambda mark: len(next(csv.reader([first], delimiter=mark), [])))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    numbers, kept = list[int](), list[list[str | None]]()
    try:
        header = [cell.strip() for cell in next(reader)]
        chosen = _chosen(header, columns, where, hint)
        for cells in reader:
            if not any(map(str.strip, cells)):  # spreadsheets leave empty rows at the end
                continue
            if len(cells) != len(header):
                raise FairbenchError(
                    f"{where}: line {reader.line_num} has {len(cells)} cells, its header {len(header)}",
                    "a separator inside a cell needs quotes; a file that was cut short has to be got again"
                    if len(header) > 1
                    else SEPARATED,
                )
            if not lines and (broken := next((cell for cell in cells if "\n" in cell), None)):
                raise FairbenchError(
                    f"{where}: line {reader.line_num} ends a cell of several lines, {broken[:20]!r}…",
                    "a stray quote swallows what follows it; use the file as it came",
                )
            numbers.append(reader.line_num)
            kept.append([cells[place].strip() or None for place in chosen.values()])
    except csv.Error as error:
        raise FairbenchError(
            f"{where}: line {reader.line_num}: {error}", 'a quote inside a cell is written twice: ""'
        ) from error
    return pd.DataFrame(kept, columns=list(chosen), index=pd.Index(numbers, name="line"), dtype=object)


def _sheet(path: Path, where: str, hint: str) -> list[list[str | None]]:
    """Return the cells of a workbook's first sheet as words: numbers as one types them, dates as in ISO 8601."""
    import openpyxl

    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        rows = [list(row) for row in book.worksheets[0].iter_rows(values_only=True)]
        book.close()
    except Exception as error:  # zipfile, XML and openpyxl raise nearly anything on damaged input
        raise FairbenchError(f"{where} cannot be read: {error}", f"it may be damaged; {hint}") from error
    whole = [[int(cell) if isinstance(cell, float) and cell.is_integer() else cell for cell in row] for row in rows]
    words = [[None if cell is None else str(cell).strip() or None for cell in row] for row in whole]
    width = max(map(len, words), default=0)  # rows of some programs end at their last cell
    return [row + [None] * (width - len(row)) for row in words]


def _from_sheet(cells: list[list[str | None]], columns: Columns | None, where: str, hint: str) -> pd.DataFrame:
    if not cells or not any(cells[0]):
        raise FairbenchError(f"{where} is empty", f"it needs a header and rows; {hint}")
    header = [cell or "" for cell in cells[0]]
    chosen = _chosen(header, columns, where, hint)
    filled = [(number, row) for number, row in enumerate(cells[1:], 2) if any(row)]
    for number, row in filled:
        if stray := [cell for cell, name in zip(row, header, strict=False) if cell and not name]:
            raise FairbenchError(f"{where}: row {number} has {stray[0]!r} in a column without a name", "name it")
    kept = [[row[place] for place in chosen.values()] for _, row in filled]
    return pd.DataFrame(
        kept, columns=list(chosen), index=pd.Index([n for n, _ in filled], name="row"), dtype=object
    )


def _decoded(path: Path, where: str, hint: str, encoding: str) -> str:
    """Return the text of a file, whole and not empty."""
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if data.startswith(GZIP) else data
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise FairbenchError(f"{where} cannot be read: {reason}", f"it may be damaged; {hint}") from error
    marked = next((spelt for mark, spelt in MARKS.items() if data.startswith(mark)), encoding)
    try:
        text = data.decode(marked)
    except UnicodeError as error:
        at = f" (from byte {error.start + 1:,} on)" if isinstance(error, UnicodeDecodeError) else ""
        raise FairbenchError(f"{where} is not written in {marked}{at}", hint) from error
    if "\0" in text:
        raise FairbenchError(f"{where} holds NUL bytes: it is no text file", "save it as csv or parquet")
    if not text.strip():
        raise FairbenchError(f"{where} is empty", f"it needs a header and rows; {hint}")
    return text


def _chosen(header: list[str], columns: Columns | None, where: str, hint: str) -> dict[str, int]:
    """Return the place of each column to keep."""
    named = [cell for cell in header if cell]
    lower = [cell.lower() for cell in header]
    twice = [cell for cell in named if header.count(cell) > 1]
    if twice:
        raise FairbenchError(f"{where} has two columns called {twice[0]!r}", "rename one of them")
    if columns is None:
        return {cell: place for place, cell in enumerate(header) if cell}
    places = {
        column: next((lower.index(name.lower()) for name in names if name.lower() in lower), None)
        for column, names in columns.items()
    }
    if missing := [column for column, place in places.items() if place is None]:
        raise FairbenchError(
            f"{where} lacks the columns {', '.join(missing)}; it has {', '.join(named) or 'nothing'}",
            f"{SEPARATED}; {hint}",
        )
    return {column: place for column, place in places.items() if place is not None}
