"""Class labels of any spelling (0/1, true/false, names) become class indices, or an error says why not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from fairbench.errors import FairbenchError
from fairbench.predictions.predictions import UNPARSED, IntArray
from fairbench.settings import suggest

NEGATIVE_POSITIVE = (
    ("no", "yes"),
    ("false", "true"),
    ("negative", "positive"),
    ("benign", "malignant"),
    ("absent", "present"),
    ("normal", "abnormal"),
)
MOST_CLASSES = 1000
PROBABILITY = re.compile(r"p_(0|[1-9][0-9]{0,3})")
_INTEGER = re.compile(r"-?[0-9]{1,9}(\.0*)?")
_FRACTION = re.compile(r"-?[0-9]*\.[0-9]+([eE][-+]?[0-9]+)?")


class Labels(NamedTuple):
    """One column of class labels: which distinct value each row has, the values, and whether all count."""

    codes: IntArray
    names: list[str]
    numeric: bool


def _labels(table: pd.DataFrame, column: str, path: Path) -> Labels:
    values = table[column]
    refuse(
        values.isna().to_numpy(),
        path,
        f"column `{column}` is empty",
        f"write {UNPARSED} for an answer that named no class" if column == "answer" else "",
    )
    coded = values.astype("category").cat.remove_unused_categories()
    numeric = pd.api.types.is_numeric_dtype(coded.cat.categories) and coded.cat.categories.dtype != bool
    names = [plain(value) for value in coded.cat.categories]
    for name in names:
        if _FRACTION.fullmatch(name):
            raise FairbenchError(
                f"{path}: column `{column}` holds {name}, which is no class",
                "classes are whole numbers from 0, true and false, or names; probabilities go in `score`",
            )
    return Labels(coded.cat.codes.to_numpy(), names, bool(numeric))


def plain(value: Any) -> str:
    """Spell a value the same way whether it came as 1, 1.0, "1.0", True or "True"."""
    text = str(value).strip()
    if text in ("True", "False"):
        return text.lower()
    return str(int(float(text))) if _INTEGER.fullmatch(text) else text


def index_classes(
    table: pd.DataFrame, declared: tuple[str, ...], positive: str | None, path: Path
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Replace targets and answers by class indices and `score` by p_0, p_1; return the classes in order."""
    columns = {column: _labels(table, column, path) for column in ("target", "answer")}
    count = _count_probabilities(list(table.columns), path)
    classes = declared or _find_classes(columns, count, positive, path)
    if count and count != len(classes):
        raise FairbenchError(f"{path}: {count} probabilities for {len(classes)} classes ({', '.join(classes)})")
    for column, labels in columns.items():
        index = [_class_of(name, classes, labels.numeric, column, path) for name in labels.names]
        table[column] = np.array(index, dtype=np.int16)[labels.codes]
    _check_probabilities(table, classes, count, path)
    if positive is not None:
        classes = _put_positive_last(table, classes, positive, path)
    return table, classes


def _count_probabilities(columns: list[str], path: Path) -> int:
    found = sorted(int(match[1]) for match in map(PROBABILITY.fullmatch, columns) if match)
    if found != list(range(len(found))):
        there = ", ".join(f"p_{index}" for index in found)
        raise FairbenchError(f"{path}: the probabilities must be p_0, p_1, … in full", f"found {there}")
    if found and "score" in columns:
        raise FairbenchError(f"{path}: both `score` and `p_0`… are there", "leave one of them out")
    return len(found)


def _find_classes(columns: dict[str, Labels], count: int, positive: str | None, path: Path) -> tuple[str, ...]:
    """Infer the classes from the labels that occur."""
    names = {name for labels in columns.values() for name in labels.names} - {str(UNPARSED)}
    numbers = {name for name in names if _INTEGER.fullmatch(name)}
    if numbers == names:
        largest = max([1, count - 1, *map(int, names)])
        if largest >= MOST_CLASSES or (largest > 1 and not count and "0" not in names):
            raise FairbenchError(
                f"{path}: class {largest} occurs{'' if '0' in names else ' and class 0 does not'}",
                "classes are counted from 0; give p_0, p_1, … or name the classes",
            )
        return tuple(map(str, range(largest + 1)))
    if numbers:
        mixed = f"numbers ({min(numbers)}) and names ({min(names - numbers)})"
        raise FairbenchError(f"{path}: `target` and `answer` mix {mixed}", "use one kind in both columns")
    stray = names - set(columns["target"].names)
    if stray and len(names) > 2:
        raise FairbenchError(
            f"{path}: unknown class `{min(stray)}` in `answer`: no target has it",
            f"write {UNPARSED} for an answer that named no class, or name all classes",
        )
    return _order_names(names, count, positive, path)


def _order_names(names: set[str], count: int, positive: str | None, path: Path) -> tuple[str, ...]:
    if positive is not None and len(names | {positive}) == 2:
        return (*(names - {positive}), positive)
    for pair in NEGATIVE_POSITIVE:
        if {name.lower() for name in names} <= set(pair):
            spelt = {name.lower(): name for name in names}
            return tuple(spelt.get(name, name) for name in pair)
    if len(names) > 2 and not count:
        return tuple(sorted(names))
    raise FairbenchError(
        f"{path}: the order of the classes {', '.join(sorted(names))} is unknown",
        "name the positive one of two classes (positive), or all classes in order (classes)",
    )


def _class_of(name: str, classes: tuple[str, ...], numeric: bool, column: str, path: Path) -> int:
    if name in classes and not numeric:
        return classes.index(name)
    least = UNPARSED if column == "answer" else 0
    if _INTEGER.fullmatch(name) and least <= int(name) < len(classes):
        return int(name)
    raise suggest(f"class (in column `{column}` of {path})", name, classes)


def _check_probabilities(table: pd.DataFrame, classes: tuple[str, ...], count: int, path: Path) -> None:
    """Check every probability; turn `score` into p_0 and p_1."""
    for column in ["score"] if "score" in table else [f"p_{index}" for index in range(count)]:
        if not pd.api.types.is_float_dtype(table[column]) and not pd.api.types.is_integer_dtype(table[column]):
            raise FairbenchError(f"{path}: column `{column}` is not a number")
        values = table[column].to_numpy()
        outside = ~((values >= 0) & (values <= 1))  # catches NaN too
        refuse(outside, path, f"column `{column}` is no probability in [0, 1]")
    if "score" in table:
        if len(classes) != 2:
            raise FairbenchError(
                f"{path}: `score` is the probability of class 1 of two, but there are {len(classes)} classes",
                f"give p_0 to p_{len(classes) - 1}",
            )
        table["p_1"] = table.pop("score")
        table["p_0"] = 1 - table["p_1"]


def _put_positive_last(table: pd.DataFrame, classes: tuple[str, ...], positive: str, path: Path) -> tuple[str, ...]:
    if len(classes) != 2:
        raise FairbenchError(f"{path}: a positive class needs two classes, and there are {len(classes)}")
    if positive not in classes:
        raise suggest(f"class of {path}", positive, classes)
    if positive == classes[1]:
        return classes
    for column in ("target", "answer"):
        values = table[column].to_numpy()
        table[column] = np.where(values == UNPARSED, UNPARSED, 1 - values).astype(np.int16)
    if "p_0" in table:
        table[["p_0", "p_1"]] = table[["p_1", "p_0"]].to_numpy()
    return classes[::-1]


def refuse(bad: npt.NDArray[np.bool_], path: Path, problem: str, hint: str = "") -> None:
    """Raise if any row is bad, counting the rows of this split from 1."""
    if bad.any():
        raise FairbenchError(
            f"{path}: {problem} in {bad.sum():,} of {len(bad):,} rows, first in row {int(bad.argmax()) + 1}",
            hint,
        )


def first_named(text: str, words: Sequence[str]) -> int:
    """Return which of some words or phrases stands first in a text, as whole words in any case; -1 for none."""
    found = []
    for index, word in enumerate(words):
        match = re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE)
        if match:
            found.append((match.start(), -len(word), index))
    return min(found)[2] if found else -1
