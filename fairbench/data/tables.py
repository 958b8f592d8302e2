"""Read a dataset's table as words, strictly: a cell that moved or was dropped would be somebody else's."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from fairbench.errors import FairbenchError

SEPARATORS = ",;\t|"
SEPARATED = "columns are separated by commas, semicolons, tabs or |"
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
GZIP, WORKBOOK = b"\x1f\x8b", b"PK\x03\x04"
# What else a file is, by how it begins.
OTHER = {
    WORKBOOK: "a workbook or another archive",
    rb"\xd0\xcf\x11\xe0": "an old workbook (.xls), or one with a password",
    rb"PAR1": "parquet",
    rb"%PDF": "a PDF",
    rb"\s*(\{|\[\s*[\[{])": "JSON",
    rb"(?i)\s*<(!doctype|html|head|meta|table|\?xml)\b": "a web page or XML",
}
SAVED = "save the table as csv, xlsx or parquet, without a password and under a name that ends so"
SAID = re.compile(r'"?sep=(.)"?[ \t]*(?:\r\n|\r|\n)', re.IGNORECASE)  # Excel's own first line says the separator
FORMULA = re.compile(rb"<(?:\w+:)?f[\s/>]")
MERGED = re.compile(rb"<(?:\w+:)?mergeCell\s")
TO_COMPUTE = re.compile(rb'\bfullCalcOnLoad="(?:1|true)"')  # as programs write that compute nothing
EXACT = 2**53  # from it on, neighbouring whole numbers are one floating point number
LONGEST_CELL = 1 << 24  # characters; csv's own limit is shorter than some notes

Columns = Mapping[str, Sequence[str]]  # a column → the names that it may be written with, whatever their capitals


def read_table(
    path: Path, name: str, hint: str, columns: Columns | None = None, encoding: str = "utf-8", lines: bool = True
) -> pd.DataFrame:
    """Read a table of words (csv, tsv, gzipped or not; the first sheet of an xlsx): stripped, None where empty.

    Separators are comma, semicolon, tab or |, or what a first line `sep=` says; UTF-16 and byte order marks are
    recognised. With `columns`, those alone are kept, under the names given. The index says in which line of the
    file a row ends. Without `lines`, no cell may hold a line break, as in files that a program wrote: there, it
    comes of a stray quote. Raises FairbenchError in the dataset's `name` for what cannot be read cell by cell.
    """
    where = f"{name}: {path}"
    if path.suffix.lower() == ".xlsx":
        return _from_sheet(_sheet(path, where, hint), columns, where, hint)
    text = _decoded(path, where, hint, encoding)
    csv.field_size_limit(LONGEST_CELL)
    body, separator, before = _sniffed(text)
    reader = csv.reader(body, delimiter=separator, strict=True)
    numbers, kept = list[int](), list[list[str | None]]()
    try:
        header = [cell.strip() for cell in next(reader, [])]
        chosen = _chosen(header, columns, where, hint)
        for cells in reader:
            if not any(map(str.strip, cells)):  # spreadsheets leave empty rows at the end
                continue
            if len(cells) != len(header):
                raise FairbenchError(
                    f"{where}: line {reader.line_num + before} has {len(cells)} cells, its header {len(header)}",
                    "a separator inside a cell needs quotes; a file that was cut short has to be got again"
                    if len(header) > 1
                    else SEPARATED,
                )
            if not lines and (broken := next((cell for cell in cells if "\n" in cell or "\r" in cell), None)):
                raise FairbenchError(
                    f"{where}: line {reader.line_num + before} ends a cell of several lines, {broken[:20]!r}…",
                    "a stray quote swallows what follows it; use the file as it came",
                )
            numbers.append(reader.line_num + before)
            kept.append([cells[place].strip() or None for place in chosen.values()])
    except csv.Error as error:
        raise FairbenchError(
            f"{where}: line {reader.line_num + before}: {error}", 'a quote inside a cell is written twice: ""'
        ) from error
    return pd.DataFrame(kept, columns=list(chosen), index=pd.Index(numbers, name="line"), dtype=object)


def _sniffed(text: str) -> tuple[io.StringIO, str, int]:
    """Return a text from its header on, what separates its cells, and how many lines stood before."""
    body = io.StringIO(text, newline="")
    if said := SAID.match(text):
        body.seek(said.end())
        return body, said[1], 1
    widths = dict.fromkeys(SEPARATORS, 0)
    for mark in SEPARATORS:
        body.seek(0)
        with suppress(csv.Error):  # reading the rows says what it is, and where
            widths[mark] = len(next(csv.reader(body, delimiter=mark), []))
    body.seek(0)
    return body, max(widths, key=lambda mark: widths[mark]), 0


def _sheet(path: Path, where: str, hint: str) -> list[list[str | None]]:
    """Return the cells of a workbook's first sheet as words: numbers as one types them, dates as in ISO 8601."""
    try:
        with path.open("rb") as file:
            opening = file.read(512)
        if opening.startswith(WORKBOOK):
            parts = _parts(path)
            rows, merged = _cells(path, values=True), _merged(path, parts)
            formulas, stale = _formulas(path, parts)
    except Exception as error:  # zipfile, XML and openpyxl raise nearly anything on damaged input
        raise FairbenchError(f"{where} cannot be read: {error}", f"it may be damaged; {hint}") from error
    if not opening.startswith(WORKBOOK):
        _refuse_other(opening, where)
        raise FairbenchError(f"{where} is no workbook", "a table of text has a name that ends in .csv or .tsv")
    if merged:
        raise FairbenchError(
            f"{where}: {merged} are merged into one cell, of which only the first has the value",
            "unmerge them and write the value into each row that it is true of",
        )
    for cell in (cell for row in rows for cell in row if formulas):
        computed = not stale if cell.value is not None else cell.data_type == "str"  # which may be an empty text
        if not computed and getattr(cell, "coordinate", "") in formulas:  # a cell that was left out has no place
            raise FairbenchError(
                f"{where}: {cell.coordinate} has a formula that was never computed",
                "open it in a spreadsheet program and save it, or write values in place of formulas",
            )
    words = [[_word(cell, where) for cell in row] for row in rows]
    width = max(map(len, words), default=0)  # rows of some programs end at their last cell
    return [row + [None] * (width - len(row)) for row in words]


def _cells(path: Path, values: bool) -> list[tuple[Any, ...]]:
    """Return all cells of a workbook's first sheet, with values or with formulas."""
    import openpyxl

    book = openpyxl.load_workbook(path, read_only=True, data_only=values)
    sheet = book.worksheets[0]
    sheet.reset_dimensions()  # some programs write them too small, and the rest would be cut off
    rows = list(sheet.iter_rows())
    book.close()
    return rows


def _parts(path: Path) -> dict[str, bytes]:
    """Return the XML of a workbook and of its sheets, by its name in the archive."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist() if re.match(r"xl/work.*\.xml$", name)}


def _formulas(path: Path, parts: Mapping[str, bytes]) -> tuple[set[str], bool]:
    """Return the places of all formulas, and whether what stands there was never computed."""
    if not any(map(FORMULA.search, parts.values())):
        return set(), False
    stale = any(TO_COMPUTE.search(part) for name, part in parts.items() if "/worksheets/" not in name)
    return {cell.coordinate for row in _cells(path, values=False) for cell in row if cell.data_type == "f"}, stale


def _merged(path: Path, parts: Mapping[str, bytes]) -> str:
    """Return the first range of merged cells of a workbook's first sheet that is not empty, or ""."""
    import openpyxl

    if not any(map(MERGED.search, parts.values())):
        return ""
    book = openpyxl.load_workbook(path)  # whole in memory: only so openpyxl knows of merged cells
    sheet = book.worksheets[0]
    ranges = [one for one in sheet.merged_cells.ranges if one.start_cell.value is not None]
    return str(min(ranges, key=lambda one: (one.min_row, one.min_col))) if ranges else ""


def _word(cell: Any, where: str) -> str | None:
    value = cell.value  # a number is a floating point one, however its digits were written
    if type(value) is int or (isinstance(value, float) and value.is_integer()):
        value = whole(value, f"{where}: {cell.coordinate}")
    return None if value is None else str(value).strip() or None


def whole(value: float, what: str) -> int:
    """Return a whole number that came as floating point; raises FairbenchError where digits may be lost."""
    if abs(value) >= EXACT:
        raise FairbenchError(
            f"{what} is {int(value)} as floating point, which may have lost its last digits",
            "write whole numbers or text into it",
        )
    return int(value)


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
    _refuse_other(data, where)
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


def _refuse_other(data: bytes, where: str) -> None:
    """Say what a file is that is no text, or none that is a table."""
    kind = next(
        (kind for start, kind in OTHER.items() if re.match(start, data.removeprefix(codecs.BOM_UTF8))), None
    )
    if kind:
        raise FairbenchError(f"{where} is {kind}, not a table of text", SAVED)


def refuse_twice(header: Sequence[str], where: str) -> None:
    """Raise FairbenchError where two columns have one name."""
    if twice := [name for name in header if name and header.count(name) > 1]:
        raise FairbenchError(f"{where} has two columns called {twice[0]!r}", "rename one of them")


def _chosen(header: list[str], columns: Columns | None, where: str, hint: str) -> dict[str, int]:
    """Return the place of each column to keep."""
    named = [cell for cell in header if cell]
    lower = [cell.lower() for cell in header]
    refuse_twice(header, where)
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
