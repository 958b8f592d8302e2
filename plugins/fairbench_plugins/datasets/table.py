"""Anybody's own data: a table (csv, tsv, xlsx, parquet) and a folder of images, without a line of code."""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from fairbench import (
    MISSING,
    ArrowTable,
    Bins,
    Count,
    Dataset,
    FairbenchError,
    FileIndex,
    Fraction,
    ImageFolder,
    alike,
    cache_folder,
    hookimpl,
    is_missing,
    is_saved,
    read_table,
)

Cells = pd.Series  # of str, missing where a cell is empty; its index says which line or row of the file

# What cannot be read, but says so more clearly than that there is no table.
UNREAD = (".xls", ".xlsm", ".xlsb", ".ods", ".json", ".jsonl")
TEXT, ARROW = (".csv", ".tsv", ".tab", ".csv.gz", ".tsv.gz", ".xlsx"), (".parquet", ".arrow")
NONE = "none"  # instead of a column: there is none, whatever the file's columns are called
SPLITS = ("train", "val", "test")
SPELLINGS = {"training": "train", "validation": "val", "valid": "val", "dev": "val", "testing": "test"}
NEGATIVES = {"1": "0", "true": "false", "yes": "no", "y": "n", "positive": "negative"}  # by their positive
ANSWERS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("0", "1"): ("no", "yes"),
    ("false", "true"): ("no", "yes"),
    ("n", "y"): ("no", "yes"),
}
OPTIONAL = ("id_column", "split_column", "cluster_column")
MOST = 40  # classes of a target, or groups of an attribute: more are measurements, or names
NUMBER = re.compile(r"[-+]?\d+([.,]\d+)?")
LISTED = "|"  # between the labels of a cell that holds several
IMAGE, TARGET, WHICH, FILE = "\0image", "\0target", "\0which", "\0file"  # columns of our own: no file holds NUL
TRUE, FALSE = ("1", "yes", "y", "true", "x"), ("0", "no", "n", "false")
# What spreadsheets write in place of a result that they have not: #REF!, #DIV/0!, in German #BEZUG! and #NV.
ERROR = re.compile(r"#(?:[\w/]+[!?]|nv|getting_data)|err:\d{3}", re.IGNORECASE)
SHORTENED = re.compile(r"\d([.,]\d+)?E\+\d\d", re.IGNORECASE)  # a long number as spreadsheets show it: 1.23E+17
# Words that two spellings of one group may be; both in one column are cautioned.
SAME = (
    ("f", "female", "woman", "women", "w", "weiblich", "femme", "mujer"),
    ("m", "male", "man", "men", "männlich", "homme", "hombre"),
    ("white", "caucasian", "white or caucasian"),
    ("black", "african american", "black or african american"),
    ("y", "yes", "true", "1"),
    ("n", "no", "false", "0"),
)
# Words that may stand for a missing value, beside those that do.
DOUBTFUL = (
    "-", "--", "?", ".", "x", "u", "unk", "missing", "declined", "not reported", "not specified", "unspecified",
    "not available", "prefer not to say", "not applicable", "-1", "9", "99", "999",
)  # fmt: skip
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
    own_splits: bool  # whether a column says who is in which split


class Table(ImageFolder):
    """A table and a folder of images: settings say which column means what.

    `file` lies in the folder (default: the only table there). `*_column` name its columns; `id`, `split` and
    `cluster` may be absent: then an id is the image's name, fairbench divides whole clusters (`fractions`,
    `split_seed`), and every row is a patient of its own. Several `image_column`s make a row for each image, or
    with `together` one row that shows all of them, in their order.
    `attribute_columns` may rename: `sex=Geschlecht`. `image_path` makes a path of cells: `images/{image}.jpg`;
    what does not lie there is looked for by its name. `finding` asks for one label of a cell that lists several,
    `one_hot` for the one column of several that says yes. `only` keeps rows (`View: PA, AP; Age: 18+; Label: *`).
    `bins` cut numbers (`age: 0-44, 45-64, 65+`), `values` rename cells (`sex: w=female; target: "1, old"=ill`),
    `unrecorded` adds to the words for what nobody wrote down, `recorded` takes such words as values. `positive` or
    `order` say which class is which, `answers` what a model says for each. Everything is compared in lower case.
    """

    name = "table"
    licence = "that of its owner"
    citation = "none: data of one's own"
    publishable: ClassVar[str] = "what its owner and its patients have agreed to; fairbench cannot know"

    title: str = "A table of one's own"
    file: str = ""
    encoding: str = "utf-8"
    id_column: str = "id"
    image_column: tuple[str, ...] = ("image",)
    image_path: str = "{image}"
    together: bool = False
    target_column: tuple[str, ...] = ("target",)
    finding: str = ""
    one_hot: tuple[str, ...] = ()
    split_column: str = "split"
    cluster_column: str = "cluster"
    attribute_columns: tuple[str, ...] = ()
    only: str = ""
    bins: str = ""
    values: str = ""
    unrecorded: tuple[str, ...] = ()
    recorded: tuple[str, ...] = ()
    positive: str = ""
    order: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    fractions: tuple[Fraction, ...] = (0.7, 0.1, 0.2)
    split_seed: int = 0
    most_groups: Count = MOST

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._kept: tuple[object, Content] | None = None
        self._unpacked: Path | None = None  # where the images lie that the table itself holds
        self._check_settings()
        self._columns = _once((_named(item) for item in self.attribute_columns if item), "attribute_columns")
        self._bins = {name: self._read_bins(items, name) for name, items in self._by_name("bins").items()}
        renamed = self._by_name("values").items()
        self._values = {name: _once(map(_pair, items), f"values: {name}") for name, items in renamed}

    def _check_settings(self) -> None:
        if len(self.fractions) != 3 or min(self.fractions) == 0 or abs(sum(self.fractions) - 1) > 1e-9:
            raise FairbenchError(
                f"table.fractions = {list(self.fractions)} are not the shares of train, val and test",
                "give three numbers above 0 that add up to 1, such as 0.7,0.1,0.2",
            )
        if self.order and self.positive:
            raise FairbenchError("table.order and table.positive both say which class is positive", "keep one")
        if self.finding and self.one_hot:
            raise FairbenchError("table.finding and table.one_hot both say what the target is", "keep one")
        rows = 1 if self.together else len(self.image_column)
        if len(self.target_column) not in (1, rows):
            raise FairbenchError(
                f"table.target_column names {len(self.target_column)} and image_column {len(self.image_column)}",
                "name one for all images of a row, or one for each (of those that are not `together`)",
            )
        if self.together and len(self.image_column) == 1:
            raise FairbenchError(
                "table.together = true, and image_column names one", "name several columns of images"
            )
        for key in ("order", "answers"):
            words = [" ".join(word.split()).casefold() for word in getattr(self, key)]
            if len({*words, ""}) <= len(words):
                raise FairbenchError(
                    f"table.{key}: {', '.join(map(repr, getattr(self, key)))} are not words that all differ",
                    "one for each class, of which no two are the same in lower case",
                )
        try:
            "".encode(self.encoding)
        except LookupError as error:  # which says of hex and its like that they encode no text
            raise FairbenchError(f"table.encoding = {self.encoding!r}: {error}", "such as cp1252") from None

    @property
    def classes(self) -> tuple[str, ...]:
        """The target column's values, in the order that `order`, `positive` or the words themselves give."""
        return self._content().classes

    @property
    def own_splits(self) -> bool:  # type: ignore[override]
        """Whether a column says who is in which split."""
        return self._content().own_splits

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
        """Which columns were read as what, what was left out, and where the splits come from."""
        return self._content().notes

    def table(self) -> pd.DataFrame:
        """Read the file, map its columns, and look at the images."""
        content = self._content()
        self.warnings.extend(content.warnings)
        if not self.unseen and not any(os.path.lexists(self.path(image)) for image in content.rows["image"]):
            raise FairbenchError(
                f"table: none of the {len(content.rows):,} images is there, for instance "
                f"{self.path(content.rows['image'].iloc[0])}",
                "--set 'table.image_path=folder/{image}.jpg' says how a path is made of cells",
            )
        return self.readable(content.rows)

    def images(self) -> Path:
        """Return the root, or where the images of the table itself were unpacked."""
        return self._unpacked or super().images()

    def sources(self) -> Sequence[Path]:
        """Return the table's file, or the files of its folder."""
        path = self._file()
        return sorted(path.iterdir()) if path.is_dir() else [path]

    # ── reading ──────────────────────────────────────────────────────────────────────────────────

    def _content(self) -> Content:
        """Read the file, once for as long as neither it nor the settings change."""
        path = self._file()
        status = path.stat()
        settings = json.dumps(self.settings(), sort_keys=True)
        key = (str(path), status.st_size, status.st_mtime_ns, settings, self.unseen)
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
            path = self.root / self.path(self.file).relative_to(self.images())
            if not path.is_file() and not is_saved(path):
                raise FairbenchError(f"table: {path} is not a file", f"{self.root} holds {_listing(self.root)}")
            return path
        for folder in (self.root, self.root / "data"):
            if is_saved(folder):
                return folder
        # Neither what a spreadsheet leaves beside an open file (~$t.xlsx) nor what macOS does (._t.csv).
        seen = [path for path in self.root.iterdir() if not path.name.startswith(("~$", "."))]
        kinds = ((*TEXT, *ARROW), UNREAD)
        named = [sorted(path for path in seen if path.name.lower().endswith(kind)) for kind in kinds]
        tables = named[0] or named[1]
        if len(tables) != 1:
            held = ", ".join(path.name for path in tables) or f"no {', '.join((*TEXT, *ARROW))}"
            raise FairbenchError(
                f"table: which file of {self.root} is the table? It holds {held}",
                "--set table.file=NAME",
            )
        if not tables[0].is_file():
            raise FairbenchError(f"table: {tables[0]} is not a file", "name another with --set table.file=NAME")
        return tables[0]

    def _raw(self, path: Path) -> tuple[pd.DataFrame, dict[str, list[str]]]:
        """Return the table's cells and, of the columns of images that it holds itself, the unpacked files."""
        self._unpacked = None
        if path.is_file() and path.suffix.lower() not in ARROW:
            hint = "--set table.encoding says how it is written (utf-8, cp1252 …)"
            return read_table(path, self.name, hint, encoding=self.encoding), {}
        table = ArrowTable(path, self.name)
        raw = table.words()
        wanted = {name.lower() for name in self.image_column}
        inside = [name for name in table.embedded if name.lower() in wanted]
        if not inside or self.unseen:
            return raw, {}
        stamps = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for _, file in table.parts]
        digest = hashlib.sha256(repr((stamps, inside)).encode(errors="surrogateescape")).hexdigest()[:16]
        folder = cache_folder("unpacked", digest)
        unpacked = {name.lower(): files for name, files in table.unpack(inside, folder).items() if any(files)}
        if not unpacked:  # paths alone: the images lie beside the table
            return raw, {}
        if lacking := sorted(wanted - set(unpacked)):
            raise FairbenchError(
                f"table: {path} holds the images of {', '.join(sorted(unpacked))} itself, of {lacking[0]} paths",
                "write all of them into the table, or all as files",
            )
        self._unpacked = folder
        # An image that has no path beside it goes by its file's name: `only` can ask for those that are there.
        for name in inside:
            there = pd.Series(unpacked[name.lower()], index=raw.index, dtype=object).replace("", None)
            raw[name] = raw[name].where(raw[name].notna(), there).where(there.notna(), None)
        return raw, unpacked

    def _read(self, path: Path) -> Content:
        raw, unpacked = self._raw(path)
        if raw.empty:
            raise FairbenchError(f"table: {path} has a header and no rows", "is it the right file?")
        self._refuse_unsaid(raw, path)
        raw = raw.assign(**{f"{FILE}{column}": files for column, files in unpacked.items()})
        left = list(self._idle(raw, path))
        raw = self._chosen(raw, path, left)
        raw = self._each_image(raw, path, left)
        target = self._target(raw, path, left)
        if self.one_hot:
            raw, target = self._labelled(raw, target, left)
        target = self._whole(target, path, raw.get(TARGET))
        return self._assembled(raw, target, path, left)

    def _refuse_unsaid(self, raw: pd.DataFrame, path: Path) -> None:
        """Where the patients or the question are not named yet, name all that is not, to be said at once."""
        unsaid = {} if self._columns else {"attribute_columns": "who the patients are"}
        unsaid |= {} if self.prompt.strip() else {"prompt": "what to ask"}
        if not unsaid:
            return
        there = {column.lower() for column in raw.columns}
        if not self.one_hot and not there & {name.lower() for name in self.target_column}:
            unsaid["target_column"] = "which column is the label"
        if "{image}" in self.image_path and not there & {name.lower() for name in self.image_column}:
            unsaid["image_column"] = "which names the image"
        raise FairbenchError(
            f"table: nothing says {', '.join(unsaid.values())}",
            f"{' '.join(f'--set table.{key}=…' for key in unsaid)}; {path} has {', '.join(raw.columns)}",
        )

    def _assembled(self, raw: pd.DataFrame, target: Cells, path: Path, left: list[str]) -> Content:
        """Put the columns of a table together that has the right rows."""
        names = self._paths(raw, path)
        ids = self._who(raw, "id_column", path)
        cluster = self._who(raw, "cluster_column", path)
        several = len(self.image_column) > 1 and not self.together
        if cluster is None and several:
            cluster = (ids if ids is not None else raw.index.to_series().astype(str)).rename("row")
        if ids is None:
            ids = names
        elif several:
            ids = (ids + "-" + raw[WHICH]).rename(ids.name)
        ids = self._unique(ids, path)
        images = self._placed(raw, names, left)
        rows = pd.DataFrame({"id": ids, "image": images, "target": target})
        if self.together:
            rows["further"] = self._further(raw, path, left)
        rows["cluster"] = ids if cluster is None else cluster
        classes = self._classes(target, path)
        attributes: dict[str, tuple[str, ...]] = {}
        for name, column in self._columns.items():
            rows[name], attributes[name] = self._groups(name, self._column(raw, column, path), path)
        split = self._optional(raw, "split_column", path)
        rows["split"] = (
            self.split_clusters(rows, ("target", *attributes), self.fractions, self.split_seed)
            if split is None
            else self._splits(split, path)
        )
        if empty := [name for name in SPLITS if not rows["split"].eq(name).any()]:
            count = rows["cluster"].nunique()
            raise FairbenchError(
                f"table: {path} has no rows in {' and '.join(empty)}",
                f"a run needs train, val and test; --set table.split_column={NONE} lets fairbench divide the rows"
                if split is not None
                else f"its {count:,} clusters are too few for table.fractions = {list(self.fractions)}",
            )
        return Content(
            classes,
            attributes,
            rows.sort_values("id", ignore_index=True),
            tuple(self._said(path, split, cluster)),
            (*left, *self._doubts(classes, attributes, cluster, raw), *self._doubtful_names(cluster)),
            split is not None,
        )

    def _said(self, path: Path, split: Cells | None, cluster: Cells | None) -> Iterator[str]:
        target = self.one_hot or self.target_column
        columns = {"target": " or ".join(target), **self._columns}
        yield f"{path.name}: " + ", ".join(f"{name} = {column}" for name, column in columns.items())
        if self.finding:
            yield f"yes = {self.finding} among the labels of {' or '.join(target)}"
        yield from (f"{name} in bins: {', '.join(bins.names)}" for name, bins in self._bins.items())
        words = [word for word in (*MISSING[1:], *map(_canonical, self.unrecorded)) if self._is_nothing(word)]
        yield f"not recorded: an empty cell, {', '.join(words)}"
        if split is not None:
            yield f"splits: column {split.name}"
            return
        shares = "/".join(f"{share:.0%}" for share in self.fractions)
        yield (
            f"splits {shares} made by fairbench with seed {self.split_seed}: grouped by "
            f"{'row' if cluster is None else cluster.name}, stratified by target and attributes"
        )

    def _doubts(
        self,
        classes: tuple[str, ...],
        attributes: Mapping[str, tuple[str, ...]],
        cluster: Cells | None,
        raw: pd.DataFrame,
    ) -> Iterator[str]:
        """Say what can hardly be meant."""
        if cluster is None:
            likely = [str(name) for name in raw if 0.2 * len(raw) < raw[name].nunique() < raw[name].count()]
            named = [name for name in likely if name not in (IMAGE, TARGET, *self._columns.values())]
            yield (
                "no column says which rows belong to one patient (table.cluster_column), so each row counts as a "
                "patient of its own; where that is wrong, the same patient is trained on and tested on"
                + (f"; is it {' or '.join(named)}, which few rows share?" if named else "")
            )
        for name, values in attributes.items():
            if len(values) == 1:
                yield f"{name} has one value only ({values[0]}): there is nothing to compare"
        for name, values in {"target": classes, **attributes}.items():
            if listed := [value for value in values if LISTED in value]:
                way = "table.finding=NAME asks for one label" if name == "target" else "table.values renames them"
                yield f"{name} has combinations such as {listed[0]!r}, each a group of its own: {way}"
            sets = (*SAME, *_same_numbers(values), *alike(values))
            for same in dict.fromkeys(tuple(value for value in values if value in words) for words in sets):
                if len(same) > 1:
                    pair = f"{name}: {same[0]}={same[1]}"
                    yield f"{name} has {' and '.join(same)}, which may be one group: --set 'table.values={pair}'"
            for value in values:
                if value in DOUBTFUL and name not in self._bins and value not in map(_canonical, self.recorded):
                    yield f"{name} has {value!r}, which may stand for nothing: --set 'table.unrecorded={value}'"

    def _doubtful_names(self, cluster: Cells | None) -> Iterator[str]:
        """Say which patients may be one that is written in two ways, or none at all."""
        first: dict[str, str] = {}
        for name in () if cluster is None else cluster.unique():
            plain = re.sub(r"^0+(?=\d+$)", "", _canonical(name))
            if plain in first:
                yield f"cluster has {first[plain]!r} and {name!r}, which count as two: write alike what is one"
                break
            first[plain] = name
        for word in sorted(set(DOUBTFUL) & set(first) - set(map(_canonical, self.recorded))):
            if not word.isdigit() and word not in ("u", "x"):  # 9 and X may well be somebody
                yield f"cluster has {word!r}, which may stand for nothing: --set 'table.unrecorded={word}'"

    # ── rows ─────────────────────────────────────────────────────────────────────────────────────

    def _idle(self, raw: pd.DataFrame, path: Path) -> Iterator[str]:
        """Say which renamings change nothing, because no cell holds what they rename."""
        if not self._values:
            return
        split = self._optional(raw, "split_column", path)
        columns: dict[str, tuple[str, ...]] = {name: (column,) for name, column in self._columns.items()}
        columns |= {"target": self.target_column, "split": () if split is None else (str(split.name),)}
        for name, renamed in self._values.items():
            if name == "target" and self.one_hot:
                words = set(self.one_hot)
            else:
                cells = [self._column(raw, column, path) for column in columns[name]]
                words = {text for column in cells for text in column.dropna().unique()}
            held = set(map(_canonical, words))
            if name == "target" and self.finding:
                held = held.union(*map(_labels, words))
            for written, meant in renamed.items():
                if written not in held:
                    shown = ", ".join(sorted(held)[:5]) or "nothing"
                    yield f"table.values: {name} is nowhere {written!r}, to be renamed {meant!r}: it has {shown}"

    def _chosen(self, raw: pd.DataFrame, path: Path, left: list[str]) -> pd.DataFrame:
        """Keep the rows that `only` asks for, and say how many each of its columns left out."""
        whole, total = raw, len(raw)
        for section in _split(self.only, ";"):
            name, colon, items = section.partition(":")
            wanted = [_bare(item) for item in _split(items, ",")]
            if not colon or not wanted:
                raise FairbenchError(
                    f"table.only: {section!r} is not `column: item, item`",
                    "such as 'View: PA, AP; Age: 18+; Label: *'",
                )
            name = _bare(name)
            cells = self._column(whole, self._columns.get(_canonical(name), name), path)
            keep = raw[cells.name].isin(self._asked(cells, wanted, path, left)).to_numpy()
            if not keep.all():
                left.append(f"{int((~keep).sum()):,} of {total:,} rows left out by {name}: {', '.join(wanted)}")
            raw = raw[keep]
            if raw.empty:
                seen = ", ".join(map(repr, cells.dropna().unique()[:5])) or "nothing"
                raise FairbenchError(f"table.only: no row has {section!r}", f"{name} has {seen}")
        return raw

    def _asked(self, cells: Cells, wanted: Sequence[str], path: Path, left: list[str]) -> set[str]:
        """Return the cells to keep: recorded, among the items that are wanted, and none of those with a `!`."""
        recorded = {text for text in cells.dropna().unique() if not self._is_nothing(_canonical(text))}
        kept = set() if any(not item.startswith("!") for item in wanted) else set(recorded)
        for item in sorted(wanted, key=lambda item: item.startswith("!")):
            refused = item.startswith("!")
            meant = self._meant(cells, item.removeprefix("!").strip(), path)
            meant = meant if refused else meant & recorded
            kept = kept - meant if refused else kept | meant
            if not meant:
                seen = ", ".join(map(repr, sorted(recorded)[:5])) or "nothing"
                left.append(
                    f"table.only: {item!r} changes nothing: no cell of {cells.name} is meant by it ({seen})"
                )
        return kept

    def _meant(self, cells: Cells, item: str, path: Path) -> set[str]:
        """Return the cells that an item of `only` stands for: a value, a range of numbers, or * for all."""
        texts = set(cells.dropna().unique())
        if item == "*":
            return texts
        same = {text for text in texts if _canonical(text) == _canonical(item)}
        try:
            bins = Bins.read(item)
        except FairbenchError:
            return same  # no range, but a word
        age = str(cells.name).lower() in ("age", self._columns.get("age", "age").lower())
        spelt = self._spelt(cells, path, age)
        # Elsewhere than among ages a number is what it is, and 060Y is still an age.
        ways = (True,) if age else (False, True)
        return same | {text for text in texts if any(bins.of(spelt[text], years=years) for years in ways)}

    def _spelt(self, cells: Cells, path: Path, age: bool) -> dict[str, str]:
        """Write the numbers of a column in one way; refuse one that may be two, except years: nobody is 1201."""
        spelt = Bins.spelt(cells.dropna().unique())
        for text, number in spelt.items():
            if number is None and not age:
                raise FairbenchError(
                    f"table: {path}: {_at(cells, text)}, which may be {re.sub('[.,]', '', text)} or "
                    f"{text.replace(',', '.')}",
                    "no other cell tells: write the numbers of this column without marks between thousands",
                )
        return {text: text if number is None else number for text, number in spelt.items()}

    def _each_image(self, raw: pd.DataFrame, path: Path, left: list[str]) -> pd.DataFrame:
        """Make a row for each column of images that is not shown together with the first; leave empty ones out."""
        columns = self.image_column[:1] if self.together else self.image_column
        targets = self.target_column * (len(columns) // len(self.target_column))
        parts = []
        for image, target in zip(columns, targets, strict=True):
            asked: dict[str, Any] = {} if self.one_hot else {TARGET: self._column(raw, target, path)}
            used = re.search(r"\{image\}", self.image_path) is not None or len(self.image_column) > 1
            own = self._held(raw, image)
            if FILE in own:
                cells = own[FILE].replace("", None)
            else:
                cells = pd.Series(None, index=raw.index, dtype=object)
                if used:
                    cells = self._recorded(self._column(raw, image, path))
            parts.append(own.assign(**{IMAGE: cells, WHICH: image, **asked}))
        if len(parts) == 1:
            return parts[0]
        made = pd.concat(parts)
        empty = made[IMAGE].isna().to_numpy()
        if empty.any():
            left.append(f"{int(empty.sum()):,} of {len(made):,} images are named by no cell and were left out")
        return made[~empty]

    def _held(self, raw: pd.DataFrame, column: str) -> pd.DataFrame:
        """Give rows the files of a column whose images the table holds itself."""
        files = f"{FILE}{column.lower()}"
        return raw.assign(**{FILE: raw[files]}) if files in raw else raw

    def _further(self, raw: pd.DataFrame, path: Path, left: list[str]) -> list[tuple[str, ...]]:
        """Return the images that each row shows after its first, without those that no cell names."""
        shown: dict[Any, list[str]] = {where: [] for where in raw.index}
        for name in self.image_column[1:]:
            own = self._held(raw, name)
            held = FILE in own
            cells = own[FILE].replace("", None) if held else self._recorded(self._column(raw, name, path))
            there = own[cells.notna()].assign(**{IMAGE: cells[cells.notna()]})
            for where, place in self._placed(there, self._paths(there, path), left).items():
                shown[where].append(place)
        if lacking := sum(len(names) < len(self.image_column) - 1 for names in shown.values()):
            left.append(f"{lacking:,} of {len(shown):,} rows lack some of their images and show the others")
        return [tuple(shown[where]) for where in raw.index]

    def _target(self, raw: pd.DataFrame, path: Path, left: list[str]) -> Cells:
        """Return each row's class as it is written, missing where none is recorded."""
        if self.one_hot:
            rename = self._values.get("target", {})
            said = pd.DataFrame({
                _canonical(name): self._says(self._column(raw, name, path), path) for name in self.one_hot
            })  # fmt: skip
            one = said.sum(axis=1) == 1
            labels = said.idxmax(axis=1).astype(object).map(lambda name: rename.get(name, name))
            return labels.where(one & ~labels.map(self._is_nothing), None).rename("target")
        cells = raw[TARGET].rename(" or ".join(self.target_column))
        return self._found(cells, path, left) if self.finding else self._canonical(cells, "target")

    def _says(self, cells: Cells, path: Path) -> Cells:
        """Return which cells of a one-hot column say yes; one without a word says no."""
        known = {text: _canonical(text) for text in cells.dropna().unique()}
        odd = [text for text, word in known.items() if word not in (*TRUE, *FALSE) and not self._is_nothing(word)]
        if odd:
            raise FairbenchError(
                f"table: {path}: {_at(cells, odd[0])}, which is neither yes ({', '.join(TRUE)}) nor no "
                f"({', '.join(FALSE)})",
                f"correct it, or leave such rows out: --set 'table.only={cells.name}: !{odd[0]}'",
            )
        return cells.map({text: word in TRUE for text, word in known.items()}).fillna(False).astype(bool)

    def _found(self, cells: Cells, path: Path, left: list[str]) -> Cells:
        """Say whether the finding is among the labels of each cell, missing where the cell tells of none."""
        wanted, rename = _canonical(self.finding), self._values.get("target", {})
        listed = {text: self._renamed(text) for text in cells.dropna().unique()}
        known = sorted({label for labels in listed.values() for label in labels if not self._is_nothing(label)})
        if wanted not in known:
            raise FairbenchError(
                f"table: {path}: no row of {cells.name} lists {self.finding!r}", f"it lists {', '.join(known[:20])}"
            )
        for text, labels in listed.items():
            pieces = [piece for piece in map(_canonical, re.split(r"[^\w -]+", text)) if piece]
            if wanted not in labels and wanted in (rename.get(piece, piece) for piece in pieces):
                raise FairbenchError(
                    f"table: {path}: {_at(cells, text)}, where no {LISTED} parts {self.finding!r} from the rest",
                    f"write {LISTED} between labels, or say what it means: --set 'table.values=target: "
                    f'"{_bare(_canonical(text))}"={LISTED.join(pieces)}\'',
                )
        inside = re.compile(rf"(?<![^\W_]){re.escape(wanted)}(?![^\W_])")
        if near := [label for label in known if label != wanted and inside.search(label)]:
            left.append(
                f"{cells.name} lists {', '.join(near[:5])}, which is not {wanted} and counts as no: where it is "
                f"meant, --set 'table.values=target: {near[0]}={wanted}'"
            )
        if doubtful := [label for label in known if label in set(DOUBTFUL) - set(map(_canonical, self.recorded))]:
            left.append(
                f"{cells.name} lists {doubtful[0]!r}, which may stand for nothing and counts as no: --set "
                f"'table.unrecorded={doubtful[0]}'"
            )
        untold = {text for text, labels in listed.items() if not labels or any(map(self._is_nothing, labels))}
        said = {
            text: "yes" if wanted in labels else None if text in untold else "no" for text, labels in listed.items()
        }
        return cells.map(said).astype(object)

    def _renamed(self, text: str) -> frozenset[str]:
        """Return the labels of a cell as `values` renames them, the cell as a whole or each of its labels."""
        rename = self._values.get("target", {})
        if (whole := _canonical(text)) in rename:
            return _labels(rename[whole])
        return frozenset(rename.get(label, label) for label in _labels(text))

    def _labelled(self, raw: pd.DataFrame, target: Cells, left: list[str]) -> tuple[pd.DataFrame, Cells]:
        """Leave out the rows in which not exactly one of the one-hot columns says yes."""
        whole = target.notna().to_numpy()
        if not whole.all():
            columns = ", ".join(self.one_hot)
            left.append(f"{int((~whole).sum()):,} of {len(raw):,} rows with none or several of {columns} left out")
        return raw[whole], target[whole]

    # ── columns ──────────────────────────────────────────────────────────────────────────────────

    def _column(self, raw: pd.DataFrame, name: str, path: Path) -> Cells:
        """Find a column by its name, or by its name in other capitals."""
        near = [column for column in raw.columns if _letters(column) == _letters(name)]
        there = name if name in raw else near[0] if len(near) == 1 else None
        if there is None:
            settings = {key: getattr(self, key) for key in self.fields() if key.endswith("_column")}
            keys = [key for key, value in settings.items() if name in (value, *np.atleast_1d(value))]
            named = [column for column in raw.columns if "\0" not in column]
            alone = " (columns are separated by comma, semicolon, tab or |)" if len(named) == 1 else ""
            raise FairbenchError(
                f"table: {path} has no column {name!r}",
                f"it has {', '.join(named)}{alone}; say which it is: "
                f"--set table.{(*keys, 'attribute_columns')[0]}=…",
            )
        for text in raw[there].dropna().unique():
            if ERROR.fullmatch(text) and not self._is_nothing(_canonical(text)):
                raise FairbenchError(
                    f"table: {path}: {_at(raw[there], text)}, a spreadsheet's error in place of a value",
                    f"mend the formula, or take it for not recorded: --set 'table.unrecorded={text}'",
                )
        return raw[there]

    def _who(self, raw: pd.DataFrame, key: str, path: Path) -> Cells | None:
        """Find a column of ids or of patients, in which a word for nothing is nobody's name."""
        cells = self._optional(raw, key, path)
        if cells is None:
            return None
        if short := [text for text in cells.dropna().unique() if SHORTENED.fullmatch(text)]:
            raise FairbenchError(
                f"table: {path}: {_at(cells, short[0])}, a number that a spreadsheet has cut short",
                "export the column as text",
            )
        return self._whole(self._recorded(cells), path, cells)

    def _recorded(self, cells: Cells) -> Cells:
        """Leave out what stands for nothing, and the rest as it is written."""
        known = {text: None if self._is_nothing(_canonical(text)) else text for text in cells.dropna().unique()}
        return cells.map(known).astype(object)

    def _optional(self, raw: pd.DataFrame, key: str, path: Path) -> Cells | None:
        """Find a column that may be absent as long as nobody asked for it; one used otherwise is not meant."""
        name = getattr(self, key)
        if name == NONE:
            return None
        if name == self.fields()[key][1]:
            used = {column.lower() for column in (*self._columns.values(), *self.target_column, *self.image_column)}
            used |= {str(getattr(self, other)).lower() for other in OPTIONAL if other != key}
            if name.lower() in used or name.lower() not in map(str.lower, raw.columns):
                return None
        return self._column(raw, name, path)

    def _whole(self, cells: Cells, path: Path, written: Cells | None = None) -> Cells:
        """Refuse a column with gaps; `written` is what stands there where a word means nothing."""
        gaps = cells.index[cells.isna()]
        if len(gaps):
            name = cells.name if "\0" not in str(cells.name) else self.image_column[0]
            words = [] if written is None else list(written[cells.isna()].dropna().unique())
            meant = next((f"!{word}" for word in words if not self._is_nothing(_canonical(word))), "*")
            raise FairbenchError(
                f"table: {path}: {len(gaps):,} rows have no {name} (the first: {cells.index.name} {gaps[0]})",
                f"fill it in, or leave those rows out: --set 'table.only={name}: {meant}'"
                + (f"; {words[0]!r} means nothing, unless table.recorded says otherwise" if words else ""),
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

    def _is_nothing(self, value: str) -> bool:
        """Whether a canonical value stands for what nobody wrote down."""
        return is_missing(value, self.recorded) or value in map(_canonical, self.unrecorded)

    def _canonical(self, cells: Cells, name: str) -> Cells:
        """Write values in one way, rename those in `values`, and leave out what stands for nothing."""
        rename, known = self._values.get(name, {}), dict[str, str | None]()
        for text in cells.dropna().unique():
            value = rename.get(_canonical(text), _canonical(text))
            known[text] = None if self._is_nothing(value) else value
        return cells.map(known).astype(object)

    def _paths(self, raw: pd.DataFrame, path: Path) -> Cells:
        """Make each row's path of its cells, as the table says it."""
        if FILE in raw:
            self._whole(raw[IMAGE], path)
            named = path.name + " row " + raw.index.to_series().astype(str)
            return (named if self.together or len(self.image_column) == 1 else named + "-" + raw[WHICH]).rename(
                "image"
            )
        pieces = re.split(r"\{([^{}]*)\}", self.image_path)
        if len(pieces) == 1:
            raise FairbenchError(
                f"table.image_path = {self.image_path!r} is the same for every row", "such as images/{image}.jpg"
            )
        made = pd.Series(pieces[0], index=raw.index, name="image")
        for name, text in zip(pieces[1::2], pieces[2::2], strict=True):
            column = raw[IMAGE] if name == "image" else self._column(raw, name, path)
            made = made + self._whole(column, path).str.replace("\\", "/") + text
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

    def _placed(self, raw: pd.DataFrame, names: Cells, left: list[str]) -> Cells:
        """Return where each image lies: where the table says, else the one file of that name in the folder."""
        if FILE in raw:
            return raw[FILE]
        lost = [] if self.unseen else [name for name in names.unique() if not os.path.lexists(self.path(name))]
        if not lost:
            return names
        index = FileIndex(self.images())
        places = {name: place for name in lost if (place := index.find(name))}
        several = {name: files for name in lost if name not in places and (files := index.several(name))}
        if places:
            left.append(
                f"{len(places):,} of {len(names):,} images were found by their names, not where the table says"
            )
        for name, files in list(several.items())[:1]:
            left.append(
                f"{len(several):,} image names stand for several files, such as {name}: {', '.join(files[:3])}"
            )
        # Names that are no UTF-8 can stand in a column of objects alone.
        return pd.Series([places.get(name, name) for name in names], index=names.index, dtype=object)

    def _splits(self, cells: Cells, path: Path) -> Cells:
        splits = self._whole(self._canonical(cells, "split"), path)
        splits = splits.map(lambda value: SPELLINGS.get(value, value))
        odd = splits[~splits.isin(SPLITS)]
        if len(odd):
            raise FairbenchError(
                f"table: {path}: {cells.name} is {cells[odd.index[0]]!r} in {cells.index.name} {odd.index[0]}, "
                f"which is not among {', '.join(SPLITS)}",
                f"--set 'table.values=split: {odd.iloc[0]}=train' renames it; table.split_column={NONE} ignores it",
            )
        return splits

    def _classes(self, target: Cells, path: Path) -> tuple[str, ...]:
        names = sorted(target.unique())
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
        if "-1" in names:
            raise FairbenchError(
                f"table: {path}: {target.name} has the value -1, which in CheXpert's files means uncertain",
                "say what it is: --set 'table.values=target: -1=uncertain, …', or leave it out with table.only",
            )
        if not 2 <= len(names) <= self.most_groups:
            raise FairbenchError(
                f"table: {path}: {target.name} has {_values_of(names)}",
                f"labels have 2 to {self.most_groups}; --set table.target_column=… names their column"
                + (
                    "; table.finding=NAME asks for one of several in a cell"
                    if any(LISTED in x for x in names)
                    else ""
                ),
            )
        if len(names) > 2:
            if self.positive:
                raise FairbenchError(
                    f"table.positive = {self.positive!r}, but {path} has {len(names)} classes: {', '.join(names)}",
                    "say their order with table.order, or nothing",
                )
            return tuple(names)
        usual = [name for name in names if NEGATIVES.get(name) in names]
        positive = _canonical(self.positive or "".join(usual))
        if positive not in names:
            raise FairbenchError(
                f"table: {path}: which of {' and '.join(names)} is the positive class?",
                "--set table.positive=NAME",
            )
        return (*(name for name in names if name != positive), positive)

    def _groups(self, name: str, column: Cells, path: Path) -> tuple[Cells, tuple[str, ...]]:
        """Return an attribute's values, row by row and all there are."""
        if name in self._bins:
            renamed = column.map(_canonical, "ignore").isin(self._values.get(name, {}))
            column = column.where(renamed, column.map(self._spelt(column[~renamed], path, name == "age")))
        cells = self._canonical(column, name)
        if cells.isna().all():
            raise FairbenchError(
                f"table: {path}: {column.name} is empty or unrecorded in every row",
                f"leave {name} out of table.attribute_columns, or look at table.unrecorded",
            )
        if name in self._bins:
            bins = self._bins[name]
            known = {text: bins.of(text, years=name == "age") for text in cells.dropna().unique()}
            odd = cells[cells.isin([text for text, name in known.items() if not name])]
            if len(odd):
                raise FairbenchError(
                    f"table: {path}: {column.name} is {odd.iloc[0]!r} in {odd.index.name} {odd.index[0]}, which "
                    f"lies in none of {', '.join(bins.names)}",
                    f"change the bins of {name}, correct the cell, or add it to table.unrecorded",
                )
            return cells.map(known), bins.names
        names = sorted(cells.dropna().unique())
        numbers = [text for text in names if NUMBER.fullmatch(text)]
        if len(names) > self.most_groups or (numbers and len(names) > 10):
            raise FairbenchError(
                f"table: {path}: {column.name} has {_values_of(names)}, too many to compare",
                f"--set 'table.bins={name}: 0-44, 45-64, 65+' cuts numbers; otherwise raise table.most_groups",
            )
        if numbers:
            pairs = ", ".join(f"{text}=…" for text in numbers)
            raise FairbenchError(
                f"table: {path}: {column.name} has the value {numbers[0]}: a number does not say who somebody is",
                f"--set 'table.values={name}: {pairs}' names them",
            )
        return cells, tuple(names)

    def _by_name(self, key: str) -> dict[str, list[str]]:
        """Take `age: 0-44, 45+; sex: m=male` apart: what it says of each attribute, the target or the split."""
        said: dict[str, list[str]] = {}
        for section in _split(getattr(self, key), ";"):
            name, colon, items = section.partition(":")
            known = (*self._columns, *(("target", "split") if key == "values" else ()))
            if not colon or not items.strip() or _canonical(name) not in known:
                raise FairbenchError(
                    f"table.{key}: {section.strip()!r} is not `name: item, item`, or its name is not among "
                    f"{', '.join(known) or 'the attributes, of which there are none'}",
                    "such as 'age: 0-44, 45+'" if key == "bins" else "such as 'sex: w=female, m=male'",
                )
            if _canonical(name) in said:
                raise FairbenchError(f"table.{key} has two sections for {_canonical(name)}", "make them one")
            said[_canonical(name)] = _split(items, ",")
        return said

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


def _split(text: str, mark: str) -> list[str]:
    """Split a setting at a mark, but not inside double quotes."""
    if text.count('"') % 2:
        raise FairbenchError(
            f"table: {text!r} has a quote that never ends", 'write "…" around what holds a separator'
        )
    pieces = re.findall(rf'(?:"[^"]*"|[^{mark}"])+', text)
    return [piece.strip() for piece in pieces if piece.strip()]


def _bare(text: str) -> str:
    return text.replace('"', "").strip()


def _letters(text: str) -> str:
    """Write letters in lower case and each as one character: some systems make two of ü."""
    return unicodedata.normalize("NFC", text.lower())


def _once(pairs: Iterable[tuple[str, str]], where: str) -> dict[str, str]:
    """Make a mapping of pairs; refuse a name that means two things."""
    said: dict[str, str] = {}
    for name, meant in pairs:
        if said.setdefault(name, meant) != meant:
            raise FairbenchError(f"table.{where}: {name!r} is {said[name]!r} and {meant!r}", "keep one")
    return said


def _canonical(text: str) -> str:
    """Write a value in one way: lower case, single blanks, 1 for 1.0."""
    text = _letters(" ".join(text.split()))
    return re.sub(r"^(-?\d+)\.0+$", r"\1", text)


def _named(item: str) -> tuple[str, str]:
    """Split `sex=Geschlecht`; a column alone gives the attribute its name."""
    name, _, column = item.partition("=")
    if not name.strip():
        raise FairbenchError(
            f"table.attribute_columns: {item!r} names no attribute", "such as sex=Geschlecht, or sex"
        )
    return _canonical(name), (column.strip() or name.strip())


def _pair(item: str) -> tuple[str, str]:
    written, *meant = _split(item, "=")
    if len(meant) != 1:
        raise FairbenchError(f"table.values: {item!r} is not written=meant", "such as 'sex: w=female, m=male'")
    return _canonical(_bare(written)), _canonical(_bare(meant[0]))


def _at(cells: Cells, text: str) -> str:
    """Say what a cell is, and where."""
    return f"{cells.name} is {text!r} in {cells.index.name} {cells.index[cells == text][0]}"


def _labels(text: str) -> frozenset[str]:
    """Return the labels of a cell that lists several, such as Effusion|Mass."""
    return frozenset(map(_canonical, filter(str.strip, text.split(LISTED))))


def _same_numbers(values: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield the spellings of each number, such as 1, 01 and 1,0."""
    numbers: dict[float, list[str]] = {}
    for value in filter(NUMBER.fullmatch, values):
        numbers.setdefault(float(value.replace(",", ".")), []).append(value)
    yield from map(tuple, numbers.values())


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


def _values_of(values: Sequence[str]) -> str:
    shown = ", ".join(text if len(text) <= 16 else f"{text[:15]}…" for text in values[:5])
    return (
        f"{len(values):,} values ({shown}{', …' if len(values) > 5 else ''})"
        if len(values) > 1
        else f"one value ({shown})"
    )


def _listing(folder: Path) -> str:
    names = sorted(os.listdir(folder))
    return ", ".join(names[:10]) + (", …" if len(names) > 10 else "") or "nothing"


@hookimpl
def fairbench_datasets() -> Iterable[type[Dataset]]:
    """Offer a table of one's own."""
    return [Table]
