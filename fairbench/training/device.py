"""Memory of this process, and the name of what it runs on."""

from __future__ import annotations

import contextlib
import ctypes
import platform
import re
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
LARGEST_KEPT = 32 << 20  # bytes; glibc takes no more


def keep_freed_memory() -> None:
    """Let the C library keep what tensors free, where it is glibc, for the next ones.

    Else the memory of each intermediate result goes back to the system and comes anew, page by page: a tenth of a
    training step on a CPU. The process's peak is the same.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)


@contextlib.contextmanager
def strictly(strict: bool) -> Iterator[None]:
    """Let operations raise that have no deterministic form, where it is `strict`; else they warn, as anywhere."""
    torch.set_deterministic_debug_mode("error" if strict else "warn")
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode("warn")


def indeterminate(error: RuntimeError) -> str | None:
    """Return the operation that has no deterministic form, if that is what torch says."""
    named = re.match(r"(\w+) does not have a deterministic implementation", str(error))
    return named and named[1]


def reset_peak() -> None:
    """Start measuring anew, so that a job does not report the peak of the one before it."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):  # Linux only; elsewhere the process's peak so far is reported
        Path("/proc/self/clear_refs").write_text("5")


def peak(device: torch.device) -> int:
    """Return the peak in bytes: allocated on a GPU, else resident in this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def device_name(device: torch.device) -> str:
    """Return what people call the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.machine()}, {torch.get_num_threads()} threads)"
