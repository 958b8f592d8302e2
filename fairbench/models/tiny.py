"""A family's real architecture with drawn weights, small enough for tests and a first run."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from fairbench.models.family import Family


class Tiny(Family):
    """A family's real architecture with random weights from a fixed seed: needs no download and learns little."""

    chat: ClassVar[str]  # the chat's format, which with the shape decides what the model is

    @abstractmethod
    def make_processor(self) -> Any:
        """Make tokenizer and processor in code."""

    def load(self, dtype: torch.dtype) -> None:
        """Draw the weights, always the same."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.construct()
        self.model.to(dtype)
        self.ready(self.make_processor())

    def attach(self, classes: Sequence[str], words: Sequence[str], generates: bool = False) -> None:
        """Add what is trained; where it `generates`, widen the language-model head tenfold.

        As drawn, a random head this narrow gives no token more than 5 %, whatever the hidden states say.
        """
        super().attach(classes, words, generates)
        if generates:
            self.model.get_output_embeddings().weight.data.mul_(10.0)

    def fingerprint(self) -> str:
        """Hash shape and chat: the weights follow from the shape."""
        return hashlib.sha256(json.dumps([self.shape, self.chat], sort_keys=True).encode()).hexdigest()[:16]
