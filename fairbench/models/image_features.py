"""Image features as a transformers model returns them, as rows to keep, and back again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

FRAME = "visual_indicator_features"


def rows_of(value: Any) -> Tensor:
    """Return features, in whatever pieces, as (tokens, width)."""
    pieces = [value] if isinstance(value, Tensor) else list(value)
    return torch.cat([piece.reshape(-1, piece.shape[-1]) for piece in pieces])


def pieces_of(output: Any) -> list[tuple[Any, Any]]:
    """Return a model's image features and then those for deeper layers, each with the layer it names, or None."""
    pooled = getattr(output, "pooler_output", None)
    pieces = [(None, output.last_hidden_state if pooled is None else pooled)]
    for value in getattr(output, "deepstack_features", None) or ():
        tagged = isinstance(value, tuple) and isinstance(value[0], int)
        pieces.append(value if tagged else (None, value))
    return pieces


def flattened(output: Any) -> Tensor:
    """Return a model's image features, (tokens, width), with those for deeper layers to the right of them."""
    return torch.cat([rows_of(value) for _, value in pieces_of(output)], -1)


class Form:
    """In what pieces a model returns its image features, learnt from one image."""

    def __init__(self, output: Any) -> None:
        self.name = "last_hidden_state" if getattr(output, "pooler_output", None) is None else "pooler_output"
        self.layers, values = zip(*pieces_of(output), strict=True)
        self.widths = [rows_of(value).shape[-1] for value in values]
        # Of a tensor all axes but the first; None: a list of the images' tensors.
        self.axes = [tuple(value.shape[1:]) if isinstance(value, Tensor) else None for value in values]
        # Ovis2's embeddings of the tokens that frame an image, which are the same for every image.
        frame = getattr(output, FRAME, None)
        self.constant = {} if frame is None else {FRAME: frame}

    def restore(self, features: Tensor) -> Any:
        """Return what the model's forward pass takes in place of pixels."""
        parts = zip(torch.split(features, self.widths, -1), self.axes, strict=True)
        first, *deeper = ([rows] if axes is None else rows.reshape(-1, *axes) for rows, axes in parts)
        named = zip(self.layers[1:], deeper, strict=True)
        layers = [value if layer is None else (layer, value) for layer, value in named]
        return SimpleNamespace(**{self.name: first}, deepstack_features=layers, **self.constant)
