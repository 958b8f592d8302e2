"""What a check finds: what differs, what could not be checked, and what was checked and holds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

State = Literal["differs", "unchecked", "holds"]
RELATIVE, ABSOLUTE = 1e-6, 1e-9  # what another machine's arithmetic may change
MOST = 20  # differences that are listed of one comparison
Place = tuple[str, ...]


@dataclass(frozen=True)
class Finding:
    """One thing that a check found: where, and what; `row` is the table's number and the row's label, if one."""

    state: State
    where: str
    what: str
    row: tuple[int, str] | None = None


def compared(published: Any, again: Any, where: str, row: tuple[int, str] | None = None) -> Iterator[Finding]:
    """Set two JSON-like objects side by side, and tell of every number or text that differs, the first MOST."""
    unlike = [*_unlike(published, again, ())]
    for place, mine, theirs in unlike[:MOST]:
        yield Finding(
            "differs",
            ": ".join(filter(None, [where, ".".join(place)])),
            f"published {mine}, recomputed {theirs}",
            row,
        )
    if len(unlike) > MOST:
        yield Finding("differs", where, f"and {len(unlike) - MOST} more", row)


def _unlike(a: Any, b: Any, place: Place) -> Iterator[tuple[Place, str, str]]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in dict.fromkeys([*a, *b]):
            yield from _unlike(a.get(key), b.get(key), (*place, str(key)))
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        for number, (left, right) in enumerate(zip(a, b, strict=True)):
            yield from _unlike(left, right, (*place, str(number)))
    elif not same(a, b):
        yield place, shown(a), shown(b)


def same(a: Any, b: Any) -> bool:
    """Whether two values are equal but for the last digits of a number."""
    if isinstance(a, int | float) and isinstance(b, int | float) and float in (type(a), type(b)):
        return math.isclose(a, b, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    return bool(a == b)


def shown(value: Any) -> str:
    """Write a value for a line of a report."""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def collected(where: str, what: str, findings: Iterable[Finding]) -> list[Finding]:
    """Return what one check finds; where that is nothing, say that it holds."""
    return [*findings] or [Finding("holds", where, what)]
