"""Predictions: one row per patient or image, the only thing that scores, evidence and leaderboards need."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from fairbench.errors import FairbenchError
from fairbench.settings import suggest

UNRECORDED = "unrecorded"
UNPARSED = -1  # an answer that names no class: wrong, and counted
MOST_GROUPS = 1000

IntArray = npt.NDArray[np.integer[Any]]
FloatArray = npt.NDArray[np.floating[Any]]


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

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as parquet under a temporary name, then rename: readers see all of it or nothing."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = Path(path)
        about = {"classes": self.classes, "attributes": self.attributes, "task": self.task}
        table = pa.Table.from_pandas(self.table, preserve_index=False)
        table = table.replace_schema_metadata({"fairbench": json.dumps(about)})
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            pq.write_table(table, part, compression="zstd")
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)

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
    def pairs(self) -> list[tuple[str, str]]:
        """What was written and what should have been, of every row; a missing text is an empty one."""
        written = (self.table[column].fillna("").astype(str) for column in ("text", "reference"))
        return list(zip(*written, strict=True))

    def take(self, rows: npt.NDArray[Any]) -> Predictions:
        """Keep the chosen rows, by position or by a boolean mask."""
        return replace(self, table=self.table.iloc[rows])

    def clusters(self) -> IntArray:
        """Which cluster each row belongs to, (n,), codes from 0; every row its own where none is known."""
        if "cluster" not in self.table:
            return np.arange(len(self), dtype=np.int32)
        return pd.factorize(self.table["cluster"])[0].astype(np.int32)

    def groups(self, attribute: str, policy: str = "keep") -> tuple[IntArray, tuple[str, ...]]:
        """Which group each row belongs to: codes (n,), -1 = left out of group statistics, and their names.

        `attribute` is one attribute or several joined by + (intersections, named like black×female).
        `policy` for unrecorded values: `keep` (a group of its own, "unrecorded"), `drop` (in no group),
        or `merge:NAME` (into the group NAME). Groups are those present, by name, unrecorded ones last.
        Raises FairbenchError for an unknown attribute, policy or group, or for more than 1,000 groups.
        """
        columns = self._attributes(attribute)
        codes, names = _cross(columns)
        whole = self.recorded(attribute)
        if policy == "keep":
            return codes, names
        if policy != "drop" and not policy.startswith("merge:"):
            raise FairbenchError(
                f"no policy for unrecorded values is called `{policy}`", "use keep, drop or merge:GROUP"
            )
        codes, names = _compact(np.where(whole, codes, -1), names)
        if policy == "drop":
            return codes, names
        into = policy.removeprefix("merge:")
        if into not in names:
            raise suggest(f"group of {attribute} (to merge unrecorded values into)", into, names)
        return np.where(whole, codes, names.index(into)).astype(np.int32), names

    def recorded(self, attribute: str) -> npt.NDArray[np.bool_]:
        """Say of every row whether the attribute (every one of several joined by +) is recorded, (n,)."""
        recorded = np.ones(len(self), dtype=np.bool_)
        for part in self._attributes(attribute):
            recorded &= part.cat.codes.to_numpy() >= 0
        return recorded

    def _attributes(self, joined: str) -> list[pd.Series[Any]]:
        parts = joined.split("+")
        if len(set(parts)) < len(parts):
            raise FairbenchError(f"attribute `{joined}` names the same attribute twice")
        return [self._attribute(part) for part in parts]

    def _attribute(self, name: str) -> pd.Series[Any]:
        if name not in self.attributes:
            raise suggest("attribute of these predictions", name, self.attributes)
        column = self.table[name]
        if not isinstance(column.dtype, pd.CategoricalDtype):
            column = column.astype("category")
        column = column.cat.remove_unused_categories()
        _few_enough(len(column.cat.categories), name)
        return column


def _cross(columns: list[pd.Series[Any]]) -> tuple[IntArray, tuple[str, ...]]:
    """Group codes of the combinations of values that occur."""
    codes: IntArray = np.zeros(len(columns[0]), dtype=np.int32)
    names: tuple[str, ...] = ("",)
    for column in columns:
        values = [str(value) for value in column.cat.categories] + [UNRECORDED]
        order = [*sorted(set(values) - {UNRECORDED}), UNRECORDED]
        place = np.array([order.index(value) for value in values], dtype=np.int32)
        codes = codes * len(order) + place[column.cat.codes.to_numpy()]  # code -1 is the last: unrecorded
        names = tuple(f"{left}×{right}" if left else right for left in names for right in order)
        codes, names = _compact(codes, names)
        _few_enough(len(names), "an intersection")
    return codes, names


def _few_enough(count: int, attribute: str) -> None:
    if count > MOST_GROUPS:
        raise FairbenchError(
            f"`{attribute}` makes {count:,} groups, more than the {MOST_GROUPS:,} that can be compared",
            "bin a continuous attribute (such as age) into a few named groups first",
        )


def _compact(codes: IntArray, names: tuple[str, ...]) -> tuple[IntArray, tuple[str, ...]]:
    """Leave out the groups without rows."""
    used = np.bincount(codes[codes >= 0], minlength=len(names)) > 0
    renumbered = np.append(np.cumsum(used) - 1, -1).astype(np.int32)  # code -1 stays -1
    return renumbered[codes], tuple(name for name, there in zip(names, used, strict=True) if there)
