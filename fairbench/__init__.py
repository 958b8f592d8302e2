"""fairbench: which debiasing method makes a medical vision-language model fairer, and is it real?"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what type checkers see; a test keeps it equal to _PUBLIC
    from fairbench.backbone import Backbone as Backbone
    from fairbench.batch import Batch as Batch
    from fairbench.batch import Inputs as Inputs
    from fairbench.batch import Outputs as Outputs
    from fairbench.batch import Rows as Rows
    from fairbench.batch import States as States
    from fairbench.batch import text_positions as text_positions
    from fairbench.checkpoint import checkpoint_fingerprint as checkpoint_fingerprint
    from fairbench.checkpoint import from_checkpoint as from_checkpoint
    from fairbench.dataset import Dataset as Dataset
    from fairbench.dataset import ImageFolder as ImageFolder
    from fairbench.errors import FairbenchError as FairbenchError
    from fairbench.family import Family as Family
    from fairbench.family import Pretrained as Pretrained
    from fairbench.family import Tiny as Tiny
    from fairbench.hookspecs import hookimpl as hookimpl
    from fairbench.images import Unreadable as Unreadable
    from fairbench.images import open_array as open_array
    from fairbench.images import open_image as open_image
    from fairbench.job import Choice as Choice
    from fairbench.job import Job as Job
    from fairbench.job import Record as Record
    from fairbench.job import Stage as Stage
    from fairbench.method import Method as Method
    from fairbench.metric import RATES as RATES
    from fairbench.metric import Metric as Metric
    from fairbench.metric import Undefined as Undefined
    from fairbench.predictions import Predictions as Predictions
    from fairbench.reading import read_words as read_words
    from fairbench.run import Run as Run
    from fairbench.settings import Count as Count
    from fairbench.settings import Fraction as Fraction
    from fairbench.settings import NonNegative as NonNegative
    from fairbench.settings import Positive as Positive
    from fairbench.settings import Range as Range
    from fairbench.store import Store as Store
    from fairbench.tiny import tiny_tokenizer as tiny_tokenizer

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
    "Unreadable": "fairbench.images",
    "open_array": "fairbench.images",
    "open_image": "fairbench.images",
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
    "read_words": "fairbench.reading",
    "Store": "fairbench.store",
    "tiny_tokenizer": "fairbench.tiny",
    "checkpoint_fingerprint": "fairbench.checkpoint",
    "from_checkpoint": "fairbench.checkpoint",
    "Family": "fairbench.family",
    "Pretrained": "fairbench.family",
    "Tiny": "fairbench.family",
}

__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'fairbench' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
