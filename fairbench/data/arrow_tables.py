"""Tables that pyarrow reads: parquet, and folders of `datasets.save_to_disk`, with images inside them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from fairbench.data.tables import refuse_twice, whole
from fairbench.errors import FairbenchError
from fairbench.files import whole as whole_file
from fairbench.files import write

SAVED, SAVED_SPLITS = "state.json", "dataset_dict.json"  # what `save_to_disk` leaves beside its files
SHARDS = "*-of-*.parquet"  # a table in several files, as the hub keeps them
SHARD = re.compile(r"(?P<of>.*)-(?P<number>[0-9]+)-of-(?P<count>[0-9]+)(-[0-9a-f]+)?[.]parquet", re.IGNORECASE)
DONE = "columns.json"


def is_saved(folder: Path) -> bool:
    """Whether a folder holds a table: that of `datasets.save_to_disk`, or shards of parquet."""
    return (folder / SAVED).is_file() or (folder / SAVED_SPLITS).is_file() or bool(_shards(folder))


class ArrowTable:
    """A parquet file or a saved folder; raises FairbenchError in the dataset's `name` for one that is damaged.

    `embedded` are its columns of images (structures with `bytes` and `path`, the `Image` feature of Hugging Face
    `datasets`). Where a folder holds several splits, they are the column `split`.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self.parts = self._guarded(lambda: list(_parts(path)))
        if not self.parts:
            raise FairbenchError(f"{name}: {path} holds no table", "is it the folder that save_to_disk wrote?")
        if path.is_dir() and (absent := _absent_shards(file for _, file in self.parts)):
            raise FairbenchError(f"{name}: {path} lacks {absent}", "it is one file of a table: get it, too")
        self.schema = self._guarded(lambda: _schema(self.parts[0][1]))
        refuse_twice(self.schema.names, f"{name}: {path}")
        self.embedded = tuple(field.name for field in self.schema if _is_image(field.type))

    def words(self) -> pd.DataFrame:
        """Return all cells as stripped words, None where empty; of an image its path; lists and bytes left out.

        A class label (the `ClassLabel` feature) is its name. The index counts rows from 1.
        """
        plain = [field.name for field in self.schema if field.name in self.embedded or not _is_nested(field.type)]
        labels = _class_labels(self.schema)
        cells: dict[str, list[str | None]] = {name: [] for name in plain}
        splits: list[str] = []
        for split, batch in self._guarded(lambda: [*self._batches(plain, images=False)]):
            for name in plain:
                values = batch[name].to_pylist()
                cells[name] += [_word(_named(value, labels.get(name)), name, self) for value in values]
            splits += [split] * len(batch)
        index = pd.RangeIndex(1, len(splits) + 1, name="row")
        table = pd.DataFrame(cells, index=index, dtype=object)
        return table.assign(split=splits) if any(splits) and "split" not in table else table

    def unpack(self, columns: Sequence[str], folder: Path) -> dict[str, list[str]]:
        """Write the images of columns as files into a folder, each once, and return every row's file by column.

        The name is empty where a row holds no image.
        """
        done = folder / DONE
        with suppress(OSError, ValueError):  # not yet, or not whole: a system that died amid writing
            known: dict[str, list[str]] = json.loads(done.read_text(encoding="utf-8"))
            return known
        folder.mkdir(parents=True, exist_ok=True)
        names: dict[str, list[str]] = {column: [] for column in columns}
        for _, batch in self._batches(columns, images=True):
            for column, files in names.items():
                files += [_unpacked(cell, folder) for cell in batch[column].to_pylist()]
        write(done, json.dumps(names))
        return names

    def _batches(self, columns: Sequence[str], images: bool) -> Iterator[tuple[str, Any]]:
        """Read some columns piece by piece; of images, without `images`, the path alone where that can be."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        for split, file in self.parts:
            if file.suffix.lower() == ".arrow":
                with pa.memory_map(str(file)) as source:
                    for batch in pa.ipc.open_stream(source):
                        yield split, batch.select(list(columns))
                continue
            inner = [column if images or column not in self.embedded else f"{column}.path" for column in columns]
            with file.open("rb") as raw:
                for batch in pq.ParquetFile(raw).iter_batches(batch_size=256, columns=inner):
                    yield split, batch

    def _guarded(self, read: Any) -> Any:
        import pyarrow as pa

        try:
            return read()
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            kind = "folder of save_to_disk" if self.path.is_dir() else "parquet file"
            raise FairbenchError(
                f"{self.name}: {self.path} is no whole {kind}", "it may have been cut short: get it again"
            ) from error


def _unpacked(cell: Mapping[str, Any] | None, folder: Path) -> str:
    """Write an image into a folder under the name of its content, and return it; nothing where there is none."""
    data = (cell or {}).get("bytes")
    if not data:
        return ""
    path = folder / hashlib.sha256(data).hexdigest()[:32]
    if not path.exists():
        with whole_file(path) as part:
            part.write_bytes(data)
    return path.name


def _parts(path: Path) -> Iterator[tuple[str, Path]]:
    """Yield each file with the split that its folder stands for, if any."""
    if path.is_file():
        yield "", path
        return
    if shards := _shards(path):
        yield from ((shard.name.split("-")[0], shard) for shard in shards)  # train-00000-of-00002.parquet
        return
    if (path / SAVED_SPLITS).is_file():
        for split in json.loads((path / SAVED_SPLITS).read_text(encoding="utf-8"))["splits"]:
            yield from ((split, file) for _, file in _parts(path / Path(split).name))
        return
    for item in json.loads((path / SAVED).read_text(encoding="utf-8"))["_data_files"]:
        yield "", path / Path(item["filename"]).name


def _shards(folder: Path) -> list[Path]:
    """Return the files that a table was divided into, without what macOS leaves beside each (._train-…)."""
    return sorted(path for path in folder.glob(SHARDS) if not path.name.startswith("."))


def _absent_shards(files: Iterable[Path]) -> str:
    """Name the first file that others of its table count and that is not there; "" where all are."""
    found: dict[tuple[str, str], set[int]] = {}
    for file in files:
        if one := SHARD.fullmatch(file.name):
            found.setdefault((one["of"], one["count"]), set()).add(int(one["number"]))
    for (of, count), numbers in found.items():
        for number in range(int(count)):
            if number not in numbers and len(numbers) < int(count):
                return f"{of}-{number:0{len(count)}d}-of-{count}.parquet"
    return ""


def _schema(file: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if file.suffix.lower() == ".arrow":
        with pa.memory_map(str(file)) as source:
            return pa.ipc.open_stream(source).schema
    return pq.read_schema(file)


def _is_image(kind: Any) -> bool:
    import pyarrow.types as types

    if not types.is_struct(kind) or {field.name for field in kind} != {"bytes", "path"}:
        return False
    return bool(types.is_binary(kind.field("bytes").type) or types.is_large_binary(kind.field("bytes").type))


def _is_nested(kind: Any) -> bool:
    import pyarrow.types as types

    return bool(types.is_nested(kind) or types.is_binary(kind) or types.is_large_binary(kind))


def _class_labels(schema: Any) -> dict[str, list[str]]:
    """Return the names of each class label by column, as `datasets` writes them into a schema."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return {name: kind["names"] for name, kind in features.items() if kind.get("_type") == "ClassLabel"}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}  # no such metadata, or another program's


def _named(value: Any, names: Sequence[str] | None) -> Any:
    if isinstance(value, dict):
        return value.get("path")
    if names is None or not isinstance(value, int):
        return value
    return names[value] if 0 <= value < len(names) else None  # datasets writes -1 where there is no label


def _word(value: Any, column: str, table: ArrowTable) -> str | None:
    if isinstance(value, float) and value.is_integer():
        value = whole(value, f"{table.name}: {table.path}: {column}")
    if value is None or value != value:
        return None
    return str(value).strip() or None
