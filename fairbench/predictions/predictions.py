"""Predictions: one row per patient or image, the only thing that scores, evidence and leaderboards need."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from fairbench.errors import FairbenchError
from fairbench.predictions.checks import check_keys, check_probabilities, check_reference, refuse
from fairbench.predictions.groups import Groups, Ints, clusters, recorded
from fairbench.settings import suggest

UNPARSED = -1  # an answer that names no class: wrong, and counted

IntArray = npt.NDArray[np.integer[Any]]
FloatArray = npt.NDArray[np.floating[Any]]

ANEW = "write it anew with `Predictions.save`; predictions of other origin need no such metadata"


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model answered for every patient, and who the patients are.

    `table` holds `target` (class index), `answer` (class index, -1 = unparsed), and where known `id`,
    `cluster` (patient or lesion), `split`, `p_0`..`p_{C-1}` (probabilities, fractions), `reference`, `text`,
    `loss`, and one column per attribute (missing = not recorded). With two classes, class 1 is the positive.
    """

    table: pd.DataFrame
    classes: tuple[str, ...]
    attributes: tuple[str, ...] = ()
    task: str = "classify"

    def save(self, path: str | os.PathLike[str], made_by: Mapping[str, str] | None = None) -> None:
        """Write as parquet under a temporary name, then rename: readers see all of it or nothing.

        `made_by` goes into the file: which job made it, when and on what, for whoever checks (`maker`).
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = Path(path)
        about: dict[str, Any] = {"classes": self.classes, "attributes": self.attributes, "task": self.task}
        table = pa.Table.from_pandas(self.table, preserve_index=False)
        about |= {"made_by": dict(made_by)} if made_by else {}
        table = table.replace_schema_metadata({"fairbench": json.dumps(about)})
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            pq.write_table(table, part, compression="zstd")
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], attributes: Sequence[str] | None = None, split: str | None = None
    ) -> Predictions:
        """Read one split (default: all) of what `save` wrote, as it stands there: nothing is guessed.

        `attributes` (default: all) limits what is read. Raises FairbenchError for a file that `save` did not
        write, or whose rows contradict what it says about itself.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = Path(path)
        try:
            schema = pq.read_schema(path)
            about = saved_with(schema.metadata or {}, path)
            columns = [name for name in schema.names if name not in about["attributes"]]
            wanted = list(about["attributes"] if attributes is None else attributes)
            for name in wanted:
                if name not in about["attributes"]:
                    raise suggest(f"attribute of {path}", name, about["attributes"])
            if "split" not in columns and split not in (None, "test"):
                raise FairbenchError(
                    f"{path}: there is no column `split`", "leave the split out: all rows are read"
                )
            rows = [("split", "==", split)] if split and "split" in columns else None
            read = pq.read_table(path, columns=[*columns, *wanted], filters=rows, read_dictionary=wanted)
        except (ValueError, OSError, pa.ArrowException) as error:
            raise FairbenchError(f"{path}: cannot be read as predictions: {str(error).strip()}", ANEW) from error
        table = read.to_pandas(self_destruct=True, split_blocks=True, ignore_metadata=True)
        saved = cls(table, tuple(about["classes"]), tuple(wanted), about["task"])
        saved._check(path)
        return saved

    def _check(self, path: Path) -> None:
        table, count = self.table, len(self.classes)
        if table.empty:
            raise FairbenchError(f"{path}: there are no rows of this split", ANEW)
        needed = {"classify": ("target", "answer"), "generate": ("text", "reference")}[self.task]
        for column in needed:
            if column not in table:
                raise FairbenchError(f"{path}: there is no column `{column}`", ANEW)
        for column, least in (("target", 0), ("answer", UNPARSED)):
            if column in table:
                values = table[column].to_numpy()
                whole = pd.api.types.is_integer_dtype(table[column].dtype)
                outside = ~((values >= least) & (values < count)) if whole else np.ones(len(table), dtype=bool)
                refuse(table, outside, path, f"column `{column}` is no class of {count}", ANEW)
        check_keys(table, path)
        check_reference(table, path)
        if self.has_probabilities:
            columns = [f"p_{index}" for index in range(count)]
            for column in columns:
                if column not in table or not pd.api.types.is_numeric_dtype(table[column].dtype):
                    raise FairbenchError(f"{path}: there is no column `{column}` of numbers", ANEW)
            check_probabilities(table, columns, path)

    def of_split(self, split: str | None) -> Predictions:
        """Return the rows of one split, None for all; where no row says its split, all are of the test split.

        Raises FairbenchError where there are no rows of it.
        """
        if split is None or ("split" not in self.table and split == "test"):
            return self
        if "split" not in self.table:
            raise FairbenchError("there is no column `split`", "leave the split out: all rows are taken")
        chosen = (self.table["split"] == split).to_numpy()
        if not chosen.any():
            known = ", ".join(map(str, self.table["split"].unique()))
            raise FairbenchError(f"there are no rows of the split {split!r}", f"there are {known}")
        return self.take(chosen)

    def with_positive(self, name: str) -> Predictions:
        """Return the same answers with the class `name`, one of two, as the positive: class 1."""
        if len(self.classes) != 2:
            raise FairbenchError(
                f"a positive class needs two classes, and there are {len(self.classes)}", "leave out --positive"
            )
        if name not in self.classes:
            raise suggest("class of these predictions", name, self.classes)
        if name == self.classes[1]:
            return self
        table = self.table.copy(deep=False)
        for column in ("target", "answer"):
            values = table[column].to_numpy()
            table[column] = np.where(values == UNPARSED, UNPARSED, 1 - values).astype(np.int16)
        if self.has_probabilities:
            table[["p_0", "p_1"]] = table[["p_1", "p_0"]].to_numpy()
        return replace(self, table=table, classes=self.classes[::-1])

    def __len__(self) -> int:
        return len(self.table)

    @property
    def target(self) -> IntArray:
        """The true class index of every row, (n,)."""
        return self.table["target"].to_numpy()

    @property
    def answer(self) -> IntArray:
        """The answered class index of every row, (n,); -1 where the answer named no class."""
        return self.table["answer"].to_numpy()

    @property
    def has_probabilities(self) -> bool:
        """Whether the rows carry a probability for every class."""
        return "p_0" in self.table

    def probability(self, index: int) -> FloatArray:
        """Return the probability of one class, (n,), a fraction."""
        return self.table[f"p_{index}"].to_numpy()

    @property
    def probabilities(self) -> FloatArray:
        """The probabilities of all classes, (n, C), fractions."""
        return self.table[[f"p_{index}" for index in range(len(self.classes))]].to_numpy()

    @property
    def contradicted(self) -> float:
        """The share of rows, a fraction of those whose answer names a class, in which another is more probable."""
        named = self.answer != UNPARSED
        chances, rows = self.probabilities[named], np.arange(int(named.sum()))
        return float((chances[rows, self.answer[named]] < chances.max(axis=1)).mean()) if len(rows) else 0.0

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """What was written and what should have been, of every row; a missing text is an empty one."""
        written = (self.table[column].fillna("").astype(str) for column in ("text", "reference"))
        return list(zip(*written, strict=True))

    def take(self, rows: npt.NDArray[Any]) -> Predictions:
        """Keep the chosen rows, by position or by a boolean mask."""
        return replace(self, table=self.table.iloc[rows])

    def clusters(self) -> Ints:
        """Which cluster each row belongs to, (n,), codes from 0; every row its own where none is known."""
        return clusters(self.table)

    def groups(self, attribute: str, policy: str = "keep") -> tuple[Ints, tuple[str, ...]]:
        """Return each row's group, codes (n,), -1 = in none, and the groups' names; see `Groups.of`."""
        groups = Groups.of(self._known(attribute), attribute, policy)
        return groups.codes, groups.names

    def recorded(self, attribute: str) -> npt.NDArray[np.bool_]:
        """Say of every row whether the attribute (every one of several joined by +) is recorded, (n,)."""
        return recorded(self._known(attribute), attribute)

    def _known(self, joined: str) -> pd.DataFrame:
        for part in joined.split("+"):
            if part not in self.attributes:
                raise suggest("attribute of these predictions", part, self.attributes)
        return self.table


def maker(path: Path) -> dict[str, str]:
    """Return what `save` was told of who made a file, empty where it was told nothing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        made_by = saved_with(pq.read_schema(path).metadata or {}, path).get("made_by", {})
    except (ValueError, OSError, pa.ArrowException) as error:
        raise FairbenchError(f"{path}: cannot be read as predictions: {str(error).strip()}", ANEW) from error
    return {str(key): str(value) for key, value in made_by.items()} if isinstance(made_by, dict) else {}


def saved_with(metadata: Mapping[bytes, bytes], path: Path) -> dict[str, Any]:
    """Return what a file's metadata say about itself, checked: anybody may have written them."""
    about = json.loads(metadata.get(b"fairbench", b"null"))
    if not isinstance(about, dict) or about.get("task") not in ("classify", "generate"):
        raise FairbenchError(f"{path}: its `fairbench` metadata is not what fairbench writes", ANEW)
    for key in ("classes", "attributes"):
        names = about.get(key)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise FairbenchError(f"{path}: its `fairbench` metadata is not what fairbench writes", ANEW)
    return about
