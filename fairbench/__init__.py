"""fairbench: which debiasing method makes a medical vision-language model fairer, and is it real?"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what type checkers see; a test keeps it equal to _PUBLIC
    from fairbench.data.dataset import Dataset as Dataset
    from fairbench.data.dataset import ImageFolder as ImageFolder
    from fairbench.data.images import Unreadable as Unreadable
    from fairbench.data.images import open_array as open_array
    from fairbench.data.images import open_image as open_image
    from fairbench.errors import FairbenchError as FairbenchError
    from fairbench.hookspecs import hookimpl as hookimpl
    from fairbench.jobs.job import Choice as Choice
    from fairbench.jobs.job import Job as Job
    from fairbench.jobs.job import Record as Record
    from fairbench.jobs.job import Stage as Stage
    from fairbench.jobs.store import Store as Store
    from fairbench.metrics.metric import RATES as RATES
    from fairbench.metrics.metric import Metric as Metric
    from fairbench.metrics.metric import Undefined as Undefined
    from fairbench.models.backbone import Backbone as Backbone
    from fairbench.models.batch import Batch as Batch
    from fairbench.models.batch import Inputs as Inputs
    from fairbench.models.batch import Outputs as Outputs
    from fairbench.models.batch import Rows as Rows
    from fairbench.models.batch import States as States
    from fairbench.models.batch import text_positions as text_positions
    from fairbench.models.byte_tokenizer import tiny_tokenizer as tiny_tokenizer
    from fairbench.models.checkpoint import checkpoint_fingerprint as checkpoint_fingerprint
    from fairbench.models.checkpoint import from_checkpoint as from_checkpoint
    from fairbench.models.huggingface import Family as Family
    from fairbench.models.huggingface import Pretrained as Pretrained
    from fairbench.models.huggingface import Tiny as Tiny
    from fairbench.predictions.predictions import Predictions as Predictions
    from fairbench.predictions.read import read_predictions as read_predictions
    from fairbench.predictions.read import read_words as read_words
    from fairbench.settings import Count as Count
    from fairbench.settings import Fraction as Fraction
    from fairbench.settings import NonNegative as NonNegative
    from fairbench.settings import Positive as Positive
    from fairbench.settings import Range as Range
    from fairbench.training.method import Method as Method
    from fairbench.training.run import Run as Run

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
    "Choice": "fairbench.jobs.job",
    "Job": "fairbench.jobs.job",
    "Record": "fairbench.jobs.job",
    "Stage": "fairbench.jobs.job",
    "Dataset": "fairbench.data.dataset",
    "ImageFolder": "fairbench.data.dataset",
    "Unreadable": "fairbench.data.images",
    "open_array": "fairbench.data.images",
    "open_image": "fairbench.data.images",
    "Backbone": "fairbench.models.backbone",
    "Batch": "fairbench.models.batch",
    "Inputs": "fairbench.models.batch",
    "Outputs": "fairbench.models.batch",
    "States": "fairbench.models.batch",
    "text_positions": "fairbench.models.batch",
    "Method": "fairbench.training.method",
    "Rows": "fairbench.models.batch",
    "Run": "fairbench.training.run",
    "Metric": "fairbench.metrics.metric",
    "RATES": "fairbench.metrics.metric",
    "Undefined": "fairbench.metrics.metric",
    "Predictions": "fairbench.predictions.predictions",
    "read_words": "fairbench.predictions.read",
    "read_predictions": "fairbench.predictions.read",
    "Store": "fairbench.jobs.store",
    "tiny_tokenizer": "fairbench.models.byte_tokenizer",
    "checkpoint_fingerprint": "fairbench.models.checkpoint",
    "from_checkpoint": "fairbench.models.checkpoint",
    "Family": "fairbench.models.huggingface",
    "Pretrained": "fairbench.models.huggingface",
    "Tiny": "fairbench.models.huggingface",
}

__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'fairbench' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
