"""LoRA as PEFT defines, initialises and stores it, computed with fewer operations.

Layers that read one input (q, k and v of an attention, gate and up of an MLP) share one product with their frozen
weights, one with their A matrices, and one dropout mask. Without dropout, outputs and gradients are PEFT's; with it
the masks differ from PEFT's, which draws one for every layer, and have the same distribution.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeGuard

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.nn import functional

from fairbench.models.batch import last_position

ADAPTER = "default"
# What reads one input in the attention and the MLP of transformers' decoders.
SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


def dropped(x: Tensor, share: float) -> Tensor:
    """Set a share of the elements to 0 and scale the others up, as dropout does.

    On a CPU drawing a number for each element costs more than the product it masks, so 16 random bits decide about
    each: the share is met to 1/65536.
    """
    if x.device.type != "cpu":
        return functional.dropout(x, share)
    bits = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    cut = min(round(share * 65536), 65535)  # a share next to 1 would drop all and divide by 0
    kept = (bits[: x.numel()] >= cut - 32768).view(x.shape)
    return x * kept.to(x.dtype).mul_(65536 / (65536 - cut))


class SharedInput:
    """The LoRA layers that read one input: the first that is called computes for all of them."""

    def __init__(self, layers: list[LoraLinear], stacked: bool) -> None:
        self.layers = layers
        self.stack = _stacked(layers) if stacked else None
        self.widths = [layer.out_features for layer in layers]
        self.input: Tensor | None = None
        self.waiting: dict[int, Tensor] = {}

    def __call__(self, index: int, x: Tensor) -> Tensor:
        """Return what layer `index` makes of x, (…, in) → (…, out)."""
        if self.input is not x or index not in self.waiting:
            self.input, self.waiting = x, dict(enumerate(self.compute(x)))
        result = self.waiting.pop(index)
        if not self.waiting:
            self.input = None  # lets go of the graph
        return result

    def compute(self, x: Tensor) -> list[Tensor]:
        """Return every layer's output, (…, out) each."""
        first = self.layers[0]
        frozen = self.frozen(x)
        share = getattr(first.lora_dropout[ADAPTER], "p", 0.0)
        low = x.to(first.lora_A[ADAPTER].weight.dtype)
        low = dropped(low, share) if share and first.training else low
        low = functional.linear(low, torch.cat([layer.lora_A[ADAPTER].weight for layer in self.layers]))
        parts = torch.split(low, [layer.r[ADAPTER] for layer in self.layers], -1)
        return [
            base + layer.scaling[ADAPTER] * layer.lora_B[ADAPTER](part).to(base.dtype)
            for base, layer, part in zip(frozen, self.layers, parts, strict=True)
        ]

    def frozen(self, x: Tensor) -> Sequence[Tensor]:
        """Return what every layer's frozen weights make of x, (…, out) each."""
        if self.stack is None:
            return [layer.get_base_layer()(x) for layer in self.layers]
        return torch.split(functional.linear(x, *self.stack), self.widths, -1)


def _stacked(layers: list[LoraLinear]) -> tuple[Tensor, Tensor | None]:
    """Put the frozen weights of layers below each other, and let the layers keep views: no byte is held twice."""
    bases = [layer.get_base_layer() for layer in layers]
    weight = torch.cat([base.weight.data for base in bases])
    for base, part in zip(bases, torch.split(weight, [base.out_features for base in bases]), strict=True):
        base.weight.data = part
    biases = [base.bias for base in bases]
    if all(bias is None for bias in biases):
        return weight, None
    return weight, torch.cat(
        [b.bias.data if b.bias is not None else weight.new_zeros(b.out_features) for b in bases]
    )


def share_inputs(language_model: nn.Module, stacked: bool = True) -> None:
    """Make LoRA layers that read one input compute together; what PEFT alone can do (quantised bases) stays its.

    Frozen weights that come and go (sharded ones) must not be `stacked`: each layer then makes its own product.
    """
    for parent in language_model.modules():
        for names in SIBLINGS:
            offered = [getattr(parent, name, None) for name in names]
            layers = [layer for layer in offered if plain(layer)]
            if layers and len({layer.in_features for layer in layers}) == 1:
                shared = SharedInput(layers, stacked)
                for index, layer in enumerate(layers):
                    layer.forward = _bound(shared, index)


def plain(layer: Any) -> TypeGuard[LoraLinear]:
    """Whether a module is PEFT's LoRA on an ordinary linear layer, with nothing further switched on."""
    return (
        type(layer) is LoraLinear and type(layer.get_base_layer()) is nn.Linear and not any(layer.use_dora.values())
    )


def _bound(shared: SharedInput, index: int) -> Any:
    def forward(x: Tensor, *_: Any, **__: Any) -> Tensor:
        return shared(index, x)

    return forward


@contextmanager
def last_token_only(language_model: nn.Module, mask: Tensor | None) -> Iterator[None]:
    """Let the last layer's MLP run on the last real token of every row alone, where nothing else is read.

    mask (B, T): the attention mask; None leaves everything as it is. The other tokens' final states are then
    not the model's, and nobody may look at them. A layer without `mlp`, or with experts, is left alone.
    """
    layers = getattr(language_model, "layers", None)
    mlp = getattr(layers[-1], "mlp", None) if mask is not None and layers is not None else None
    if mask is None or mlp is None or hasattr(mlp, "experts"):
        yield
        return
    rows, last = torch.arange(len(mask), device=mask.device), last_position(mask)
    hooks = [
        mlp.register_forward_pre_hook(lambda _, inputs: (inputs[0][rows, last],)),
        mlp.register_forward_hook(
            lambda _, __, read: read.new_zeros(*mask.shape, read.shape[-1]).index_put((rows, last), read)
        ),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
