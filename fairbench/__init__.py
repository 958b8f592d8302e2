"""fairbench: which debiasing method makes a medical vision-language model fairer, and is it real?"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Public names are imported on first use, so that reading predictions never imports torch (PEP 562).
_PUBLIC = {
    "FairbenchError": "fairbench.errors",
    "hookimpl": "fairbench.hookspecs",
    "Count": "fairbench.settings",
    "Fraction": "fairbench.settings",
    "NonNegative": "fairbench.settings",
    "Positive": "fairbench.settings",
    "Range": "fairbench.settings",
    "Choice": "fairbench.job",
    "Job": "fairbench.job",
    "Record": "fairbench.job",
    "Stage": "fairbench.job",
    "Dataset": "fairbench.dataset",
    "ImageFolder": "fairbench.dataset",
    "Backbone": "fairbench.backbone",
    "Batch": "fairbench.batch",
    "Inputs": "fairbench.batch",
    "Outputs": "fairbench.batch",
    "States": "fairbench.batch",
    "text_positions": "fairbench.batch",
    "Method": "fairbench.method",
    "Rows": "fairbench.batch",
    "Run": "fairbench.run",
    "Metric": "fairbench.metric",
    "RATES": "fairbench.metric",
    "Undefined": "fairbench.metric",
    "Predictions": "fairbench.predictions",
    "Store": "fairbench.store",
    "tiny_tokenizer": "fairbench.tiny",
    "checkpoint_fingerprint": "fairbench.checkpoint",
    "from_checkpoint": "fairbench.checkpoint",
}

__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'fairbench' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
