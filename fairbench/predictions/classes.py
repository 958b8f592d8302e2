"""Class labels of any spelling (0/1, true/false, names) become class indices, or an error says why not."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fairbench.errors import FairbenchError
from fairbench.predictions.checks import check_probabilities, refuse
from fairbench.predictions.predictions import UNPARSED, IntArray, Predictions
from fairbench.predictions.spelling import folded
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
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,8})(\.0*)?")  # 007 is a name
_FRACTION = re.compile(r"-?[0-9]*\.[0-9]+([eE][-+]?[0-9]+)?")


def plain(word: str) -> str:
    """Spell a class label the same way whether it came as 1, 1.0, "1.0", True or "True"."""
    if word.lower() in ("true", "false"):
        return word.lower()
    return str(int(float(word))) if _INTEGER.fullmatch(word) else word


def named_probability(column: str) -> str | None:
    """Return the class that a column called p_CLASS names, in any capitals; None for a column of another name."""
    name = column.strip()
    return name[2:] if name.casefold().startswith("p_") else None


def index_classes(
    table: pd.DataFrame,
    declared: tuple[str, ...],
    positive: str | None,
    path: Path,
    attributes: Collection[str] = (),
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Replace targets and answers, coded words, by class indices; return the classes in order.

    What p_0, p_1 … mean never depends on `positive`, which is put last afterwards; `score` is the probability
    of the positive, whichever that is, and becomes p_0 and p_1, as p_no and p_yes do where these are the classes.
    Probabilities that are neither, and not among the `attributes` asked for by name, are refused.
    """
    columns = {column: _labels(table, column, path) for column in ("target", "answer")}
    count = _count_probabilities(list(table.columns), path)
    classes = tuple(map(plain, declared)) or _infer_classes(table, columns, count, positive, path)
    if len(set(classes)) < len(classes):
        said = f"{path}: the classes {', '.join(classes)} name one twice"
        raise FairbenchError(said, "name each once (--classes)")
    probabilities = [f"p_{index}" for index in range(count)]
    if not count:
        table, probabilities = _by_class(table, classes, path)
        if not probabilities and "score" not in table:
            _refuse_unused(table, classes, path, attributes)
    if count and count != len(classes):
        raise FairbenchError(
            f"{path}: {count} probabilities for {len(classes)} classes ({', '.join(classes)})",
            "give p_0, p_1, … of every class, or name all classes in order (--classes)",
        )
    labels = {name for names, _ in columns.values() for name in names} - {str(UNPARSED)}
    named = labels <= set(classes) or not all(map(_INTEGER.fullmatch, labels))
    for column, (names, codes) in columns.items():
        index = [_class_of(name, classes, named, column, path) for name in names]
        table[column] = np.array(index, dtype=np.int16)[codes]
    check_probabilities(table, probabilities, path)  # under the file's own names
    table = table.rename(columns={name: f"p_{index}" for index, name in enumerate(probabilities)})
    indexed = Predictions(table, classes)
    indexed = indexed if positive is None else indexed.with_positive(plain(positive))
    return _with_score(indexed.table, indexed.classes, path), indexed.classes


def _labels(table: pd.DataFrame, column: str, path: Path) -> tuple[list[str], IntArray]:
    """Return a column's distinct labels, and which of them each row has."""
    hint = f"write {UNPARSED} for an answer that named no class, or --keep a word that is a class"
    refuse(table, table[column].isna().to_numpy(), path, f"column `{column}` is empty", hint)
    values = table[column].cat.remove_unused_categories().cat
    names = [plain(word) for word in values.categories]
    for name in names:
        if _FRACTION.fullmatch(name):
            raise FairbenchError(
                f"{path}: column `{column}` holds {name}, which is no class",
                "classes are whole numbers from 0, true and false, or names; probabilities go in `score`",
            )
    return names, values.codes.to_numpy()


def _count_probabilities(columns: list[str], path: Path) -> int:
    there = sorted(int(match[1]) for match in map(PROBABILITY.fullmatch, columns) if match)
    if there != list(range(len(there))):
        listed = ", ".join(f"p_{index}" for index in there)
        raise FairbenchError(f"{path}: the probabilities must be p_0, p_1, … in full", f"there is {listed}")
    if there and "score" in columns:
        raise FairbenchError(f"{path}: both `score` and `p_0`… are there", "leave one of them out")
    return len(there)


def _by_class(table: pd.DataFrame, classes: tuple[str, ...], path: Path) -> tuple[pd.DataFrame, list[str]]:
    """Read p_no, p_yes … as numbers where these are the classes; return the columns in the classes' order."""
    named = {c: plain(c[2:]) for c in map(str, table) if c.startswith("p_")}
    own = {column: name for column, name in named.items() if name in classes}
    if not own:
        return table, []
    lacking = [name for name in classes if name not in own.values()]
    if lacking or len(own) > len(classes):
        raise FairbenchError(
            f"{path}: the probabilities {', '.join(own)} are not one for each class ({', '.join(classes)})",
            "give those of all classes, or that of the positive of two as `score`",
        )
    ordered = sorted(own, key=lambda column: classes.index(own[column]))
    return table.assign(**{column: _as_numbers(table[column], path) for column in ordered}), ordered


def _refuse_unused(table: pd.DataFrame, classes: tuple[str, ...], path: Path, attributes: Collection[str]) -> None:
    """Refuse what can only be probabilities but names no class: nobody would see that they are ignored."""
    named = {c: named_probability(c) for c in map(str, table) if c not in attributes}
    known = set(map(folded, classes))
    unused = [c for c, name in named.items() if name and (folded(name) in known or _fractions(table[c]))]
    if unused:
        names = ", ".join(f"p_{name}" for name in classes)
        raise FairbenchError(
            f"{path}: {', '.join(unused)} would be ignored: they name none of the classes ({', '.join(classes)})",
            f"call probabilities {names}, or name the classes as they do (--classes); rename what is none",
        )


def _fractions(column: pd.Series) -> bool:
    """Whether a coded column holds numbers from 0 to 1 and nothing else."""
    numbers = pd.to_numeric(column.cat.categories.to_series(), errors="coerce")
    return bool(len(numbers) and numbers.between(0, 1).all())


def _as_numbers(column: pd.Series, path: Path) -> pd.Series:
    try:
        levels = column.cat.categories.astype(float).to_numpy()
    except ValueError as error:
        problem = f"{path}: column `{column.name}` is not a number: {error}"
        raise FairbenchError(problem, "write fractions") from error
    codes = column.cat.codes.to_numpy()  # -1 where there is nothing
    return pd.Series(np.append(levels, np.nan)[codes], index=column.index)


def _infer_classes(
    table: pd.DataFrame,
    columns: dict[str, tuple[list[str], IntArray]],
    count: int,
    positive: str | None,
    path: Path,
) -> tuple[str, ...]:
    """Infer the classes from the labels that occur, and refuse answers that name none of them."""
    targets = set(columns["target"][0])
    names = (targets | set(columns["answer"][0])) - {str(UNPARSED)}
    digits = {name for name in names if _INTEGER.fullmatch(name)}
    if digits and digits != names:
        mixed = f"numbers ({min(digits)}) and names ({min(names - digits)})"
        raise FairbenchError(f"{path}: `target` and `answer` mix {mixed}", "use one kind in both columns")
    if digits:
        largest = max([1, count - 1, *map(int, targets)])
        if largest >= MOST_CLASSES or (largest > 1 and not count and "0" not in names):
            raise FairbenchError(
                f"{path}: class {largest} occurs{'' if '0' in names else ' and class 0 does not'}",
                "classes are counted from 0; give p_0, p_1, … or name the classes (--classes)",
            )
        classes = tuple(map(str, range(largest + 1)))
        stray = names - set(classes) - targets
    else:
        stray = names - targets if len(names) > 2 else set()
        classes = () if stray else _order_names(names, count, positive, path)
    if stray:
        words, codes = columns["answer"]
        unknown = np.isin(codes, [place for place, word in enumerate(words) if word in stray])
        refuse(
            table,
            unknown,
            path,
            f"unknown class `{min(stray)}` in `answer`, which no target has,",
            f"write {UNPARSED} for an answer that named no class, or name all classes in order (--classes)",
        )
    return classes


def _order_names(names: set[str], count: int, positive: str | None, path: Path) -> tuple[str, ...]:
    for pair in NEGATIVE_POSITIVE:
        if {name.lower() for name in names} <= set(pair):
            spelt = {name.lower(): name for name in names}
            return tuple(spelt.get(name, name) for name in pair)
    if positive is not None and not count and len(names | {positive}) == 2:
        return (*(names - {positive}), positive)
    if len(names) > 2 and not count:
        return tuple(sorted(names))
    raise FairbenchError(
        f"{path}: the order of the classes {', '.join(sorted(names))} is unknown"
        + (", and with it what p_0 is the probability of" if count else ""),
        "name all classes in order (--classes)" + ("" if count else ", or the positive one of two (--positive)"),
    )


def _class_of(name: str, classes: tuple[str, ...], named: bool, column: str, path: Path) -> int:
    if named and name in classes:
        return classes.index(name)
    if name == str(UNPARSED) and column == "answer":
        return UNPARSED
    if not named and 0 <= int(name) < len(classes):
        return int(name)
    raise suggest(f"class (in column `{column}` of {path})", name, classes)


def _with_score(table: pd.DataFrame, classes: tuple[str, ...], path: Path) -> pd.DataFrame:
    """Make p_0 and p_1 of `score`, where there is one."""
    if "score" not in table:
        return table
    if len(classes) != 2:
        raise FairbenchError(
            f"{path}: `score` is the probability of the positive of two classes, but there are {len(classes)}",
            f"give p_0 to p_{len(classes) - 1}",
        )
    check_probabilities(table, ["score"], path)
    score = table["score"].to_numpy()
    return table.drop(columns="score").assign(p_0=1 - score, p_1=score)


def first_named(text: str, words: Sequence[str]) -> int:
    """Return which of some words or phrases stands first in a text, as whole words in any case; -1 for none."""
    places = []
    for index, word in enumerate(words):
        match = re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE)
        if match:
            places.append((match.start(), -len(word), index))
    return min(places)[2] if places else -1
