"""fairbench: which debiasing method makes a medical vision-language model fairer, and is it real?"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Public names are imported on first use, so that reading predictions never imports torch (PEP 562).
_PUBLIC = {
    "FairbenchError": "fairbench.errors",
    "hookimpl": "fairbench.hookspecs",
}

__all__ = [*_PUBLIC, "__version__"]  # noqa: PLE0604 (names are served by __getattr__)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'fairbench' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
