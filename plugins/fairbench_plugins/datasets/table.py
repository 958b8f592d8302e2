"""Anybody's own data: a table (csv, tsv, parquet) and a folder of images, without a line of code."""

from __future__ import annotations

import codecs
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from fairbench import Bins, Count, Dataset, FairbenchError, Fraction, ImageFolder, hookimpl, read_table

Cells = pd.Series  # of str, missing where a cell is empty; its index says which line or row of the file

TEXT, PARQUET = (".csv", ".tsv", ".tab"), (".parquet",)
NONE = "none"  # instead of a column: there is none, whatever the file's columns are called
SPLITS = ("train", "val", "test")
SPELLINGS = {"training": "train", "validation": "val", "valid": "val", "dev": "val", "testing": "test"}
NEGATIVES = {"1": "0", "true": "false", "yes": "no", "y": "n", "positive": "negative"}  # by their positive
ANSWERS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("0", "1"): ("no", "yes"),
    ("false", "true"): ("no", "yes"),
    ("n", "y"): ("no", "yes"),
}
MOST = 40  # classes of a target, or groups of an attribute: more are measurements, or names
EXACT = 2**53  # whole numbers beyond it do not survive as floating point
NUMBER = re.compile(r"[-+]?\d+([.,]\d+)?")
EXAMPLE: Mapping[str, str] = {
    "id_column": "Fallnummer",
    "cluster_column": "Patient",
    "image_column": "Bild",
    "image_path": "Bilder/{image}.png",
    "target_column": "Befund",
    "positive": "malignant",
    "attribute_columns": "sex=Geschlecht,age=Alter",
    "values": "sex: w=female, m=male; target: gutartig=benign, bösartig=malignant",
    "bins": "age: 0-44, 45-64, 65+",
    "unrecorded": "unbekannt,k. A.",
    "prompt": "Is this lesion malignant?",
}  # the settings with which the example is read


@dataclass(frozen=True)
class Content:
    """A table as it was read: what it holds, and what was odd about it."""

    classes: tuple[str, ...]
    attributes: Mapping[str, tuple[str, ...]]
    rows: pd.DataFrame
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


class Table(ImageFolder):
    """A table and a folder of images: settings say which column means what.

    `file` lies in the folder (default: the only csv, tsv or parquet there). `*_column` name its columns;
    `id`, `split` and `cluster` may be absent: then an id is the image's name, fairbench divides whole
    clusters (`fractions`, `split_seed`), and every row is a patient of its own. `attribute_columns` may
    rename: `sex=Geschlecht`. `image_path` makes a path of cells: `images/{image}.jpg`. `bins` cut numbers
    (`age: 0-44, 45-64, 65+`), `values` rename cells (`sex: w=female, m=male; target: 1=malignant`), and
    `unrecorded` are the words for what nobody wrote down. `positive` or `order` say which class is which,
    `answers` what a model would say for each. Everything is compared in lower case.
    """

    name = "table"
    title = "A table of one's own"
    licence = "that of its owner"
    citation = "none: data of one's own"
    publishable: ClassVar[str] = "what its owner and its patients have agreed to; fairbench cannot know"

    file: str = ""
    encoding: str = "utf-8"
    id_column: str = "id"
    image_column: str = "image"
    image_path: str = "{image}"
    target_column: str = "target"
    split_column: str = "split"
    cluster_column: str = "cluster"
    attribute_columns: tuple[str, ...] = ()
    bins: str = ""
    values: str = ""
    unrecorded: tuple[str, ...] = ("unknown", "unrecorded", "not recorded", "n/a", "na", "nan", "null")
    positive: str = ""
    order: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    fractions: tuple[Fraction, ...] = (0.7, 0.1, 0.2)
    split_seed: int = 0
    most_groups: Count = MOST

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._kept: tuple[object, Content] | None = None
        if len(self.fractions) != 3 or min(self.fractions) == 0 or abs(sum(self.fractions) - 1) > 1e-9:
            raise FairbenchError(
                f"table.fractions = {list(self.fractions)} are not the shares of train, val and test",
                "give three numbers above 0 that add up to 1, such as 0.7,0.1,0.2",
            )
        if self.order and self.positive:
            raise FairbenchError("table.order and table.positive both say which class is positive", "keep one")
        try:
            codecs.lookup(self.encoding)
        except LookupError:
            raise FairbenchError(f"table.encoding = {self.encoding!r} is unknown", "such as cp1252") from None
        self._columns = dict(_named(item) for item in self.attribute_columns if item)
        self._bins = {name: self._read_bins(items, name) for name, items in self._by_name("bins").items()}
        self._values = {name: dict(map(_pair, items)) for name, items in self._by_name("values").items()}

    @property
    def classes(self) -> tuple[str, ...]:
        """The target column's values, in the order that `order`, `positive` or the words themselves give."""
        return self._content().classes

    @property
    def attributes(self) -> Mapping[str, tuple[str, ...]]:
        """The attribute columns with their values, or their bins."""
        return self._content().attributes

    @property
    def words(self) -> tuple[str, ...]:
        """`answers`, else the classes themselves, else no and yes for codes such as 0 and 1."""
        if self.answers and len(self.answers) != len(self.classes):
            raise FairbenchError(
                f"table.answers names {len(self.answers)} words for {len(self.classes)} classes",
                f"one for each, in this order: {', '.join(self.classes)}",
            )
        return self.answers or ANSWERS.get(self.classes, self.classes)

    @property
    def notes(self) -> tuple[str, ...]:
        """Which columns were read as what, and where the splits come from."""
        return self._content().notes

    def table(self) -> pd.DataFrame:
        """Read the file, map its columns, and look at the images."""
        content = self._content()
        self.warnings.extend(content.warnings)
        found = content.rows
        there = [relative for relative in found["image"] if os.path.lexists(self.path(relative))]
        if not there:
            raise FairbenchError(
                f"table: none of the {len(found):,} images is there, for instance "
                f"{self.path(found['image'].iloc[0])}",
                "--set 'table.image_path=folder/{image}.jpg' says how a path is made of cells",
            )
        return self.readable(found)

    def sources(self) -> Sequence[Path]:
        """Return the table's file."""
        return [self._file()]

    # ── reading ──────────────────────────────────────────────────────────────────────────────────

    def _content(self) -> Content:
        """Read the file, once for as long as neither it nor the settings change."""
        path = self._file()
        status = path.stat()
        key = (str(path), status.st_size, status.st_mtime_ns, json.dumps(self.settings(), sort_keys=True))
        if self._kept is None or self._kept[0] != key:
            self._kept = (key, self._read(path))
        return self._kept[1]

    def _file(self) -> Path:
        if self.root is None or not self.root.is_dir():
            raise FairbenchError(
                f"table: {self.root or 'its folder'} is not a folder",
                "--data table=FOLDER names the folder that holds the table and the images",
            )
        if self.file:
            path = self.path(self.file)
            if not path.is_file():
                raise FairbenchError(f"table: {path} is not a file", f"{self.root} holds {_listing(self.root)}")
            return path
        found = sorted(path for path in self.root.iterdir() if path.suffix.lower() in (*TEXT, *PARQUET))
        if len(found) != 1:
            held = ", ".join(path.name for path in found) or f"no {', '.join((*TEXT, *PARQUET))}"
            raise FairbenchError(
                f"table: which file of {self.root} is the table? It holds {held}",
                "--set table.file=NAME",
            )
        if not found[0].is_file():
            raise FairbenchError(f"table: {found[0]} is not a file", "name another with --set table.file=NAME")
        return found[0]

    def _read(self, path: Path) -> Content:
        if path.suffix.lower() in PARQUET:
            raw = _parquet(path)
        else:
            hint = "--set table.encoding says how it is written (utf-8, cp1252 …)"
            raw = read_table(path, self.name, hint, encoding=self.encoding)
        if raw.empty:
            raise FairbenchError(f"table: {path} has a header and no rows", "is it the right file?")
        needed = {
            "attribute_columns": (self._columns, "who the patients are"),
            "prompt": (self.prompt, "what to ask"),
        }
        for key, (given, what) in needed.items():
            if not given:
                raise FairbenchError(
                    f"table: nothing says {what}", f"--set table.{key}=…; {path} has {', '.join(raw.columns)}"
                )
        images = self._paths(raw, path)
        ids = self._optional(raw, "id_column", path)
        ids = self._unique(images if ids is None else self._whole(ids, path), path)
        cluster = self._optional(raw, "cluster_column", path)
        target = self._whole(self._canonical(self._column(raw, self.target_column, path), "target"), path)
        found = pd.DataFrame(
            {
                "id": ids,
                "cluster": ids if cluster is None else self._whole(cluster, path),
                "image": images,
                "target": target,
            }
        )
        classes = self._classes(target, path)
        attributes: dict[str, tuple[str, ...]] = {}
        for name, column in self._columns.items():
            found[name], attributes[name] = self._groups(name, self._column(raw, column, path), path)
        split = self._optional(raw, "split_column", path)
        found["split"] = (
            self.split_clusters(found, "target", self.fractions, self.split_seed)
            if split is None
            else self._splits(split, path)
        )
        empty = [name for name in SPLITS if not found["split"].eq(name).any()]
        if empty:
            raise FairbenchError(
                f"table: {path} has no rows in {' and '.join(empty)}",
                f"a run needs train, val and test; --set table.split_column={NONE} lets fairbench divide the rows",
            )
        return Content(
            classes,
            attributes,
            found.sort_values("id", ignore_index=True),
            tuple(self._said(path, split, cluster)),
            tuple(self._doubts(attributes, cluster)),
        )

    def _said(self, path: Path, split: Cells | None, cluster: Cells | None) -> Iterator[str]:
        columns = {"target": self.target_column, **self._columns}
        yield f"{path.name}: " + ", ".join(f"{name} = {column}" for name, column in columns.items())
        yield from (f"{name} in bins: {', '.join(bins.names)}" for name, bins in self._bins.items())
        yield f"not recorded: an empty cell, {', '.join(map(_canonical, self.unrecorded))}"
        if split is not None:
            yield f"splits: column {split.name}"
            return
        shares = "/".join(f"{share:.0%}" for share in self.fractions)
        yield (
            f"splits {shares} made by fairbench with seed {self.split_seed}: grouped by "
            f"{'row' if cluster is None else cluster.name}, stratified by target"
        )

    def _doubts(self, attributes: Mapping[str, tuple[str, ...]], cluster: Cells | None) -> Iterator[str]:
        if cluster is None:
            yield (
                "no column says which rows belong to one patient (table.cluster_column), so each row counts as a "
                "patient of its own; where that is wrong, the same patient is trained on and tested on"
            )
        for name, values in attributes.items():
            if len(values) == 1:
                yield f"{name} has one value only ({values[0]}): there is nothing to compare"

    # ── columns ──────────────────────────────────────────────────────────────────────────────────

    def _column(self, raw: pd.DataFrame, name: str, path: Path) -> Cells:
        """Find a column by its name, or by its name in other capitals."""
        near = [column for column in raw.columns if column.lower() == name.lower()]
        found = name if name in raw else near[0] if len(near) == 1 else None
        if found is None:
            keys = [key for key in self.fields() if key.endswith("_column") and getattr(self, key) == name]
            alone = " (columns are separated by comma, semicolon, tab or |)" if len(raw.columns) == 1 else ""
            raise FairbenchError(
                f"table: {path} has no column {name!r}",
                f"it has {', '.join(raw.columns)}{alone}; say which it is: "
                f"--set table.{(*keys, 'attribute_columns')[0]}=…",
            )
        return raw[found]

    def _optional(self, raw: pd.DataFrame, key: str, path: Path) -> Cells | None:
        """Find a column that may be absent as long as nobody asked for it."""
        name = getattr(self, key)
        asked = name != self.fields()[key][1]
        if name == NONE or (not asked and name.lower() not in map(str.lower, raw.columns)):
            return None
        return self._column(raw, name, path)

    def _whole(self, cells: Cells, path: Path) -> Cells:
        """Refuse a column with gaps."""
        gaps = cells.index[cells.isna()]
        if len(gaps):
            raise FairbenchError(
                f"table: {path}: {len(gaps):,} rows have no {cells.name} (the first: {cells.index.name} {gaps[0]})",
                "fill it in, or take those rows out",
            )
        return cells

    def _unique(self, ids: Cells, path: Path) -> Cells:
        """Refuse names that stand for several rows."""
        again = ids[ids.duplicated()]
        if len(again):
            one, two, *_ = ids.index[ids == again.iloc[0]]
            raise FairbenchError(
                f"table: {path}: {again.nunique():,} of {ids.name} stand in several rows, for instance "
                f"{again.iloc[0]!r} in {ids.index.name} {one} and {two}",
                "--set table.id_column=NAME names a column that differs from row to row",
            )
        return ids

    def _canonical(self, cells: Cells, name: str) -> Cells:
        """Write values in one way, rename those in `values`, and leave out what stands for nothing."""
        rename, nothing = self._values.get(name, {}), {"", *map(_canonical, self.unrecorded)}
        known = {text: rename.get(_canonical(text), _canonical(text)) for text in cells.dropna().unique()}
        return cells.map({text: None if value in nothing else value for text, value in known.items()}).astype(
            object
        )

    def _paths(self, raw: pd.DataFrame, path: Path) -> Cells:
        """Make each row's path of its cells."""
        pieces = re.split(r"\{([^{}]*)\}", self.image_path)
        if len(pieces) == 1:
            raise FairbenchError(
                f"table.image_path = {self.image_path!r} is the same for every row", "such as images/{image}.jpg"
            )
        made = pd.Series(pieces[0], index=raw.index, name="image")
        for name, text in zip(pieces[1::2], pieces[2::2], strict=True):
            column = self._column(raw, self.image_column if name == "image" else name, path)
            made = made + self._whole(column, path) + text
        for where, relative in made.items():
            try:
                self.path(relative)
            except FairbenchError as error:
                told = error.message.removeprefix(f"{self.name}: ")
                raise FairbenchError(
                    f"table: {path}: {made.index.name} {where}: {told}",
                    "a path starts in the folder and stays in it",
                ) from error
        return made.rename("image")

    def _splits(self, cells: Cells, path: Path) -> Cells:
        found = self._whole(self._canonical(cells, "split"), path)
        found = found.map(lambda value: SPELLINGS.get(value, value))
        odd = found[~found.isin(SPLITS)]
        if len(odd):
            raise FairbenchError(
                f"table: {path}: {cells.name} is {cells[odd.index[0]]!r} in {cells.index.name} {odd.index[0]}, "
                f"which is not among {', '.join(SPLITS)}",
                f"--set 'table.values=split: {odd.iloc[0]}=train' renames it; table.split_column={NONE} ignores it",
            )
        return found

    def _classes(self, target: Cells, path: Path) -> tuple[str, ...]:
        found = sorted(target.unique())
        if self.order:
            order = tuple(map(_canonical, self.order))
            odd = target[~target.isin(order)]
            if len(odd):
                raise FairbenchError(
                    f"table: {path}: {target.name} is {odd.iloc[0]!r} in {odd.index.name} {odd.index[0]}, "
                    f"which is not among {', '.join(order)}",
                    "add it to table.order, or rename it: --set 'table.values=target: …=…'",
                )
            return order
        if not 2 <= len(found) <= self.most_groups:
            raise FairbenchError(
                f"table: {path}: {target.name} has {_values_of(found)}",
                f"labels have 2 to {self.most_groups}; --set table.target_column=… names their column",
            )
        if len(found) > 2:
            if self.positive:
                raise FairbenchError(
                    f"table.positive = {self.positive!r}, but {path} has {len(found)} classes: {', '.join(found)}",
                    "say their order with table.order, or nothing",
                )
            return tuple(found)
        usual = [name for name in found if NEGATIVES.get(name) in found]
        positive = _canonical(self.positive or "".join(usual))
        if positive not in found:
            raise FairbenchError(
                f"table: {path}: which of {' and '.join(found)} is the positive class?",
                "--set table.positive=NAME",
            )
        return (*(name for name in found if name != positive), positive)

    def _groups(self, name: str, column: Cells, path: Path) -> tuple[Cells, tuple[str, ...]]:
        """Return an attribute's values, row by row and all there are."""
        cells = self._canonical(column, name)
        if cells.isna().all():
            raise FairbenchError(
                f"table: {path}: {column.name} is empty or unrecorded in every row",
                f"leave {name} out of table.attribute_columns, or look at table.unrecorded",
            )
        if name in self._bins:
            bins = self._bins[name]
            known = {text: bins.of(text, years=name == "age") for text in cells.dropna().unique()}
            odd = cells[cells.isin([text for text, found in known.items() if not found])]
            if len(odd):
                raise FairbenchError(
                    f"table: {path}: {column.name} is {odd.iloc[0]!r} in {odd.index.name} {odd.index[0]}, which "
                    f"lies in none of {', '.join(bins.names)}",
                    f"change the bins of {name}, correct the cell, or add it to table.unrecorded",
                )
            return cells.map(known), bins.names
        found = sorted(cells.dropna().unique())
        numbers = [text for text in found if NUMBER.fullmatch(text)]
        if len(found) > self.most_groups or (numbers and len(found) > 10):
            raise FairbenchError(
                f"table: {path}: {column.name} has {_values_of(found)}, too many to compare",
                f"--set 'table.bins={name}: 0-44, 45-64, 65+' cuts numbers; otherwise raise table.most_groups",
            )
        if numbers:
            pairs = ", ".join(f"{text}=…" for text in numbers)
            raise FairbenchError(
                f"table: {path}: {column.name} has the value {numbers[0]}: a number does not say who somebody is",
                f"--set 'table.values={name}: {pairs}' names them",
            )
        return cells, tuple(found)

    def _by_name(self, key: str) -> dict[str, list[str]]:
        """Take `age: 0-44, 45+; sex: m=male` apart: what it says of each attribute, the target or the split."""
        found: dict[str, list[str]] = {}
        for section in filter(str.strip, getattr(self, key).split(";")):
            name, colon, items = section.partition(":")
            known = (*self._columns, *(("target", "split") if key == "values" else ()))
            if not colon or not items.strip() or _canonical(name) not in known:
                raise FairbenchError(
                    f"table.{key}: {section.strip()!r} is not `name: item, item`, or its name is not among "
                    f"{', '.join(known) or 'the attributes, of which there are none'}",
                    "such as 'age: 0-44, 45+'" if key == "bins" else "such as 'sex: w=female, m=male'",
                )
            found[_canonical(name)] = [item.strip() for item in items.split(",")]
        return found

    def _read_bins(self, items: Sequence[str], name: str) -> Bins:
        try:
            return Bins.read(*items)
        except FairbenchError as error:
            raise FairbenchError(f"table.bins: {name}: {error.message}", error.hint) from error

    @classmethod
    def example(cls, folder: Path) -> Mapping[str, str]:
        """Write what a German spreadsheet would: semicolons, CRLF, a BOM, quotes, decimal commas, gaps."""
        generator = np.random.default_rng(0)
        patients = generator.choice([1, 2, 3], 90, p=[0.6, 0.3, 0.1])
        (folder / "Bilder").mkdir(parents=True, exist_ok=True)
        lines = ["Fallnummer;Patient;Bild;Befund;Geschlecht;Alter;Bemerkung"]
        case = 0
        for patient, images in enumerate(patients):
            finding = str(generator.choice(["gutartig", "bösartig"], p=[0.6, 0.4]))
            sex = str(generator.choice(["w", "m", "W", "unbekannt", ""], p=[0.4, 0.42, 0.1, 0.05, 0.03]))
            age = str(generator.choice([str(generator.integers(18, 95)), "44,5", "k. A."], p=[0.9, 0.06, 0.04]))
            for _ in range(images):
                case += 1
                note = '"links; ""alt"""' if case % 7 == 0 else ""
                lines.append(f"2024-{case:04d};P{patient:03d};{case:04d};{finding};{sex};{age};{note}")
                _picture(finding == "bösartig", case, generator).save(folder / "Bilder" / f"{case:04d}.png")
        text = "\r\n".join([*lines, ";" * 6, ""])  # a spreadsheet's empty last row
        (folder / "Faelle.csv").write_bytes(text.encode("utf-8-sig"))
        return EXAMPLE


def _parquet(path: Path) -> pd.DataFrame:
    """Read a parquet file as strings; columns of lists, structures and bytes are left out."""
    import pyarrow
    import pyarrow.parquet

    try:
        with path.open("rb") as file:
            table = pyarrow.parquet.ParquetFile(file).read()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise FairbenchError(
            f"table: {path} is no whole parquet file", "it may have been cut short: get it again"
        ) from error
    plain = [field.name for field in table.schema if not _nested(field.type)]
    cells = {name: [_cell(value, name, path) for value in table[name].to_pylist()] for name in plain}
    return pd.DataFrame(cells, index=pd.RangeIndex(1, len(table) + 1, name="row"), dtype=object)


def _nested(kind: Any) -> bool:
    import pyarrow.types as types

    return bool(types.is_nested(kind) or types.is_binary(kind) or types.is_large_binary(kind))


def _cell(value: Any, column: str, path: Path) -> str | None:
    if isinstance(value, float) and value.is_integer():
        if abs(value) > EXACT:
            raise FairbenchError(
                f"table: {path}: {column} is {value:.0f} as floating point, which may have lost its last digits",
                "write whole numbers or text into it",
            )
        value = int(value)
    if value is None or value != value:
        return None
    return str(value).strip() or None


def _canonical(text: str) -> str:
    """Write a value in one way: lower case, single blanks, 1 for 1.0."""
    text = " ".join(text.split()).lower()
    return re.sub(r"^(-?\d+)\.0+$", r"\1", text)


def _named(item: str) -> tuple[str, str]:
    """Split `sex=Geschlecht`; a column alone gives the attribute its name."""
    name, _, column = item.partition("=")
    return _canonical(name), (column or name).strip()


def _pair(item: str) -> tuple[str, str]:
    written, equals, value = item.partition("=")
    if not equals:
        raise FairbenchError(f"table.values: {item!r} is not written=meant", "such as 'sex: w=female, m=male'")
    return _canonical(written), _canonical(value)


def _picture(bad: bool, case: int, generator: np.random.Generator) -> Image.Image:
    """Draw a spot on skin, larger and rougher where it is bad; every fifth in 16-bit grey."""
    noise = generator.normal(0, 6, (48, 64, 3))
    skin = Image.fromarray((np.array([214.0, 160, 140]) + noise).clip(0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(skin)
    for _ in range(6 if bad else 1):
        x, y = 32 + generator.normal(0, 7 * bad), 24 + generator.normal(0, 5 * bad)
        pen.ellipse((x - 7, y - 6, x + 7, y + 6), fill=(96, 58, 48))
    if case % 5:
        return skin
    return Image.fromarray(np.asarray(skin.convert("L")).astype(np.uint16) * 257)


def _values_of(found: Sequence[str]) -> str:
    shown = ", ".join(text if len(text) <= 16 else f"{text[:15]}…" for text in found[:5])
    return (
        f"{len(found):,} values ({shown}{', …' if len(found) > 5 else ''})"
        if len(found) > 1
        else f"one value ({shown})"
    )


def _listing(folder: Path) -> str:
    names = sorted(os.listdir(folder))
    return ", ".join(names[:10]) + (", …" if len(names) > 10 else "") or "nothing"


@hookimpl
def fairbench_datasets() -> Iterable[type[Dataset]]:
    """Offer a table of one's own."""
    return [Table]
