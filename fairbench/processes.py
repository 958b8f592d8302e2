"""Processes of this machine: how many serve, and how they start."""

import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import SpawnContext
from types import ModuleType


def cores() -> int:
    """Return how many CPU cores this process may use, which on a shared node is fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def spawning() -> Iterator[SpawnContext]:
    """Give what starts processes; they import fairbench, and not the script that called it.

    Python's own spawning runs the caller's script again in every child, which for one without
    `if __name__ == "__main__"` starts the whole work again, and for one that came by a pipe fails.
    """
    caller = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield multiprocessing.get_context("spawn")
    finally:
        sys.modules["__main__"] = caller
