"""Reading predictions: parquet or csv of any origin, checked column by column before anything is computed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from fairbench.errors import FairbenchError
from fairbench.predictions.classes import PROBABILITY, index_classes, plain, refuse
from fairbench.predictions.predictions import Predictions
from fairbench.settings import suggest

ROLES = ("id", "cluster", "split", "target", "answer", "score", "reference", "text", "loss")
FREE_TEXT = ("id", "reference", "text")  # too many different values to be worth coding
MISSING = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None"]  # in a csv, but not in its texts
UNREADABLE = (ValueError, OSError, pa.ArrowException)
_LAZY = csv.ConvertOptions(check_utf8=False)

Columns = list[str]
Choose = Callable[[Columns, dict[str, Any]], Columns]


def read_predictions(
    path: str | os.PathLike[str],
    attributes: Sequence[str] | None = None,
    split: str | None = "test",
    positive: str | None = None,
    classes: Sequence[str] | None = None,
) -> Predictions:
    """Read one split of a predictions file, fairbench's own parquet or anybody's parquet or csv.

    `attributes` (default: all) limits what is read; `positive` names the positive of two classes;
    `classes` names all classes in order. Raises FairbenchError for a file that cannot be trusted.
    """
    path = Path(path)
    wanted: Columns = []

    def choose(columns: Columns, about: dict[str, Any]) -> Columns:
        """Name the columns to read: those with a role, the probabilities, and the attributes asked for."""
        offered = about.get("attributes") or [c for c in columns if _role(c) is None]
        asked = offered if attributes is None else [part for a in attributes for part in a.split("+")]
        text = {"reference", "text"} <= set(columns)
        graded = not text or "target" in columns or "answer" in columns
        for column in [*(("target", "answer") if graded else ()), *asked]:
            if column not in columns:
                raise suggest(f"column of {path}", column, columns)
            if column in asked and _role(column):
                raise suggest(f"attribute of {path}", column, offered)
        wanted.extend(dict.fromkeys(asked))
        roles = [c for c in columns if _role(c) and (text or c not in ("reference", "text", "loss"))]
        return [*roles, *wanted]

    try:
        with path.open("rb") as file:
            parquet = file.read(4) == b"PAR1"
        table, about = (_read_parquet if parquet else _read_csv)(path, choose, split)
    except UNREADABLE as error:
        raise FairbenchError(
            f"{path}: cannot be read as parquet or csv: {str(error).strip()}",
            "give a parquet file, or a csv with a header line, commas and utf-8",
        ) from error
    table = _one_split(table, split, path)
    _check_keys(table, path)
    if "reference" in table:
        refuse(
            (table["reference"].isna() | (table["reference"] == "")).to_numpy(),
            path,
            "column `reference` is empty",
            "leave out the rows that nobody answered",
        )
    named = tuple(classes or about.get("classes") or ())
    if "target" in table:
        table, named = index_classes(table, named, positive, path)
    for column in wanted:
        table[column] = _attribute(table.pop(column))  # attributes stand last
    return Predictions(table.reset_index(drop=True), named, tuple(wanted), about.get("task", "classify"))


def _role(column: str) -> str | None:
    return column if column in ROLES or PROBABILITY.fullmatch(column) else None


def _read_parquet(path: Path, choose: Choose, split: str | None) -> tuple[pd.DataFrame, dict[str, Any]]:
    schema = pq.read_schema(path)
    about = _about(json.loads((schema.metadata or {}).get(b"fairbench", b"{}")), path)
    columns = choose(list(schema.names), about)
    for column in columns:
        if pa.types.is_nested(schema.field(column).type):
            raise FairbenchError(f"{path}: column `{column}` holds lists or records, not single values")
    few = [c for c in columns if c not in FREE_TEXT and pa.types.is_string(schema.field(c).type)]
    keep = [("split", "==", split)] if split and "split" in columns else None
    table = pq.read_table(path, columns=columns, filters=keep, read_dictionary=few)
    if keep and not len(table):  # say below which splits there are
        table = pq.read_table(path, columns=columns, read_dictionary=few)
    return table.to_pandas(self_destruct=True, split_blocks=True, ignore_metadata=True), about


def _about(written: Any, path: Path) -> dict[str, Any]:
    """Check what the file's metadata says about itself: anybody may have written it."""
    lists = [written.get(key, []) for key in ("classes", "attributes")] if isinstance(written, dict) else [0]
    if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in lists):
        raise FairbenchError(f"{path}: its `fairbench` metadata is not what fairbench writes", "write it anew")
    return dict(written)


def _read_csv(path: Path, choose: Choose, split: str | None) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read strictly: pandas would drop the surplus fields of a row, and so shift its columns, unseen."""
    parse = csv.ParseOptions(newlines_in_values=True)
    with pa.input_stream(path, compression="detect") as file:
        names = csv.open_csv(file, parse_options=parse, convert_options=_LAZY).schema.names
    columns = choose(names, {})
    convert = csv.ConvertOptions(
        include_columns=columns,
        column_types={column: _csv_type(column) for column in columns},
        null_values=MISSING,
    )
    with pa.input_stream(path, compression="detect") as file:
        table = csv.read_csv(file, parse_options=parse, convert_options=convert)
    frame = table.to_pandas(self_destruct=True, split_blocks=True)
    for column in frame.select_dtypes("category"):
        categories = frame[column].cat
        frame[column] = categories.remove_categories([m for m in MISSING if m in categories.categories])
    return frame, {}


def _csv_type(column: str) -> pa.DataType:
    if PROBABILITY.fullmatch(column) or column in ("score", "loss"):
        return pa.float64()
    return pa.string() if column in FREE_TEXT else pa.dictionary(pa.int32(), pa.string())


def _one_split(table: pd.DataFrame, split: str | None, path: Path) -> pd.DataFrame:
    if split and "split" in table:
        there = sorted(map(str, table["split"].dropna().unique()))
        table = table[table["split"] == split]
        if table.empty and there:
            raise suggest(f"split of {path}", split, there)
    if table.empty:
        raise FairbenchError(f"{path}: there are no rows", "a predictions file has one row per patient or image")
    return table.copy(deep=False)


def _check_keys(table: pd.DataFrame, path: Path) -> None:
    """Raise for a row without its id or cluster, and for an id that occurs twice."""
    for column in ("id", "cluster"):
        if column in table:
            refuse((table[column].isna() | (table[column] == "")).to_numpy(), path, f"column `{column}` is empty")
    if "id" in table:
        table["id"] = table["id"].astype(str)
        again = table["id"].duplicated().to_numpy()
        if again.any():
            raise FairbenchError(
                f"{path}: id `{table['id'].iloc[int(again.argmax())]}` occurs more than once"
                f" ({again.sum():,} such rows)",
                "one row per patient or image; several images of one patient share a `cluster`, not an `id`",
            )


def _attribute(column: pd.Series[Any]) -> pd.Series[Any]:
    """Spell attribute values as strings; an empty value is not recorded."""
    coded = column.astype("category").cat.remove_unused_categories()
    names = pd.Index([plain(value) for value in coded.cat.categories], dtype=object)
    kept = names[names != ""].unique()
    place = np.append(kept.get_indexer(names), -1)  # code -1 stays -1
    return pd.Series(pd.Categorical.from_codes(place[coded.cat.codes.to_numpy()], kept), index=column.index)


def read_words(path: Path, name: str, hint: str) -> pd.DataFrame:
    """Read a dataset's table, separated by commas, semicolons or tabs, as stripped words; empty is missing.

    Raises FairbenchError for a file that cannot be read, in the dataset's name and with its hint.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
        separator = max(",;\t", key=header.count)
        table = pd.read_csv(path, sep=separator, dtype=object, encoding="utf-8-sig", index_col=False)
    except (OSError, ValueError) as error:
        raise FairbenchError(f"{name}: cannot read {path}: {error}", hint) from error
    table.columns = [str(column).strip() for column in table.columns]
    return table.map(lambda cell: cell.strip() or None if isinstance(cell, str) else None)
