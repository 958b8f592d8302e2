"""What was measured and compared before on the very same answers, so that a new job costs its own comparisons only.

A table that changed is made anew, and its numbers are recalled where they rest on the same content: a result is
kept by its function and a hash of all its arguments, in one entry of the cache a table, under a hash of the code,
the libraries and the options that made it. What a table did not use any more is not kept.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import zlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

from fairbench.cache import Cache
from fairbench.jobs.conversion import departures, from_json

KIND = "comparisons"
P = ParamSpec("P")
T = TypeVar("T")


class _Memory:
    """Results by name: those `known` from the last time, and those `used` this time."""

    def __init__(self, known: dict[str, Any]) -> None:
        self.known, self.used = known, dict[str, Any]()


_MEMORY: ContextVar[_Memory | None] = ContextVar("memory", default=None)


@contextlib.contextmanager
def remembering(name: str) -> Iterator[None]:
    """Recall what was kept under `name` for what is computed within, and keep there what that used."""
    cache = Cache()
    _, value = cache.read(KIND, [name]).get(name, ("", b""))
    memory = _Memory(json.loads(zlib.decompress(value)) if value else {})
    token = _MEMORY.set(memory)
    try:
        yield
    finally:
        _MEMORY.reset(token)
    if memory.used.keys() == memory.known.keys():
        cache.touch(KIND, [name])
    elif memory.used:
        cache.write(KIND, {name: ("", zlib.compress(json.dumps(memory.used).encode()))})


def remembered(kind: type[T]) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Compute a function of type `kind` once for equal arguments: plain values, or what has a `content`.

    Its result has to follow from them and from nothing else. Outside of `remembering` it is computed each time.
    """

    def wrap(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def call(*arguments: P.args, **named: P.kwargs) -> T:
            memory = _MEMORY.get()
            if memory is None:
                return function(*arguments, **named)
            said = [getattr(one, "content", one) for one in (*arguments, *named.values())]
            about = [function.__qualname__, *named, *said]
            name = hashlib.sha256(json.dumps(about).encode()).hexdigest()
            if name in memory.used or name in memory.known:
                kept = memory.used[name] = memory.used.get(name, memory.known.get(name))
                return from_json(kind, kept)
            result = function(*arguments, **named)
            memory.used[name] = departures(result)
            return result

        return call

    return wrap
