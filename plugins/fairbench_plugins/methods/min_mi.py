"""FairLLaVA: hide demographic attributes by minimising their mutual information with hidden states."""

import math
import time
from collections.abc import Callable
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from fairbench import (
    Batch,
    Count,
    FairbenchError,
    Method,
    NonNegative,
    Outputs,
    Positive,
    Range,
    Run,
    States,
    hookimpl,
)

SHAPES: dict[str, Callable[[Tensor], Tensor]] = {
    "magnitude": lambda bound: (bound.square() + 1e-6).sqrt() - 1e-3,  # smooth, and 0 at 0
    "clamp": lambda bound: bound.clamp_min(0.0),
    "raw": lambda bound: bound,
}


def vclub(log_q: Tensor, value: Tensor) -> Tensor:
    """Return the variational upper bound of I(z; a) in nats (vCLUB; arXiv 2006.12013), estimated on n patients.

    `log_q` (n, K) is log q(·|z_i), `value` (n,) is a_i: the mean of log q(a_i|z_i) minus the mean of log q(a_j|z_i)
    over all i ≠ j. Exactly zero, with a gradient of zero, where no two values differ.
    """
    n = len(value)
    if len(set(value.tolist())) < 2:
        return log_q.sum() * 0.0
    pairs = log_q[:, value]
    own = pairs.diagonal()
    return own.mean() - (pairs.sum() - own.sum()) / (n * (n - 1))


class Standardise(nn.Module):
    """Move and scale (n, D) states to mean 0 and deviation 1, by their running mean and variance."""

    mean: Tensor
    variance: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.zeros(width))
        self.seen = 0

    def learn(self, states: Tensor) -> None:
        """Take in a batch: an even average at first, then about the last hundred."""
        self.seen += 1
        share = max(1 / self.seen, 0.01)
        self.mean = self.mean + share * (states.mean(0) - self.mean)
        self.variance = self.variance + share * ((states - self.mean).square().mean(0) - self.variance)

    def forward(self, states: Tensor) -> Tensor:
        """Return the states standardised; a coordinate that never differed stays near 0."""
        return (states - self.mean) / (self.variance + 1e-8).sqrt()


class MinMI(Method):
    """Readers learn to tell each attribute of the job from pooled hidden states, and the model learns to
    give away less of what they read (FairLLaVA, arXiv 2603.26008: DAC and DIM): mean CE + Σ_a strength ·
    weight_a · leak_a. Stages that do not train `lora` are plain. With several `readers` for each attribute its
    leak is their mean; every `refresh` steps one of them, in turn, starts anew; `standardise` shows them states
    of mean 0 and deviation 1. docs/min-mi.md compares paper and code.
    """

    name = "min-mi"
    plain_at = {"strength": 0.0}
    strength: NonNegative = 0.5
    weights: tuple[str, ...] = ()
    reader: Literal["linear", "mlp"] = "mlp"
    hidden: Count = 256
    reader_lr: Positive | None = 1e-2
    reader_steps: Count = 5
    readers: Count = 1
    refresh: Annotated[int, Range(0)] = 0
    standardise: bool = False
    schedule: Literal["alternating", "joint"] = "alternating"
    leak: Literal["magnitude", "clamp", "raw"] = "magnitude"
    layers: tuple[Positive | Literal["first", "middle", "last", "mean"], ...] = ("middle",)
    tokens: Literal["image", "text", "all"] = "image"
    pool: Literal["mean", "random-token"] = "mean"
    normalise: bool = True

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)
        self.weight = dict(_weight(text) for text in self.weights)
        if not self.layers:
            raise FairbenchError("min-mi.layers is empty", "name a layer, for instance middle")

    def setup(self, run: Run) -> None:
        """Make a reader for each attribute of the job that has two values to tell apart."""
        width = run.backbone.width
        depths = self._depths(run.backbone.depth)
        self.states = States(depths, self.tokens, self.pool, self.normalise, ends=self.tokens == "image")
        self.attributes = [name for name, values in run.train.values.items() if len(values) > 1]
        self.panel = nn.ModuleList(
            nn.ModuleList(self._reader(width, len(run.train.values[name])) for _ in range(self.readers))
            for name in self.attributes
        )
        self.standard = Standardise(width) if self.standardise else None
        run.facts["reader parameters"] = sum(p.numel() for p in self.panel.parameters())
        for name in run.train.values:
            if name not in self.attributes:
                run.warn(f"min-mi: all training rows have the same {name}, so there is nothing to hide")
            elif self.weight and name not in self.weight:
                run.warn(f"min-mi.weights gives no weight for {name}, which therefore weighs 1")

    def _reader(self, width: int, values: int) -> nn.Module:
        if self.reader == "linear":
            return nn.Linear(width, values)
        return nn.Sequential(nn.Linear(width, self.hidden), nn.GELU(), nn.Linear(self.hidden, values))

    def _depths(self, layers: int) -> tuple[float, ...]:
        """Return the layers as `States` wants them: shares that fall into the middle of each layer's bin."""
        named = {"first": (1.0,), "middle": (0.5,), "last": (float(layers),), "mean": (1.0, 0.5, float(layers))}
        chosen = [named[layer] if isinstance(layer, str) else (layer,) for layer in self.layers]
        numbers = [number for group in chosen for number in group]
        # A share of the depth + 1 states, of which number 0, the embeddings, is no layer's.
        states = [max(1, math.floor((layers + 1) * n)) if n < 1 else n for n in numbers]
        for state in states:
            if state != int(state) or state > layers:
                raise FairbenchError(
                    f"min-mi.layers names layer {state:g} of a model with {layers}",
                    f"use a share of the depth (below 1), a whole number from 1 to {layers}, or a name",
                )
        return tuple((state + 0.5) / (layers + 1) for state in states)

    def step(self, run: Run, batch: Batch) -> None:
        """Take the readers' steps and the model's: the readers first (alternating), or both from where they are."""
        if run.stage is None or "lora" not in run.stage.train:
            run.descend(run.forward(batch).loss.mean())
            return
        out = run.forward(batch, self.states)
        self._prepare(run, out)
        if self.schedule == "alternating":
            self.learn(run, out, batch)
        run.descend(self.loss(out, batch))  # moves the model only: to it the readers are frozen
        if self.schedule == "joint":
            self.learn(run, out, batch)

    def _prepare(self, run: Run, out: Outputs) -> None:
        """Let the scale take in this batch, and let one reader of each attribute forget what it knows."""
        assert out.states is not None
        if self.standard is not None:
            self.standard.learn(out.states.detach().mean(1))
        turn, due = divmod(run.step, self.refresh) if self.refresh else (0, 1)
        if due or not run.step:
            return
        with torch.random.fork_rng([run.device] if run.device.type == "cuda" else []):
            torch.manual_seed(int(torch.randint(1 << 31, (), generator=run.generator)))
            for readers in self.panel:
                for layer in readers[turn % self.readers].modules():  # type: ignore[index]
                    if isinstance(layer, nn.Linear):
                        layer.reset_parameters()

    def learn(self, run: Run, out: Outputs, batch: Batch) -> None:
        """Let every reader take its steps on detached states (DAC); note how well they read new patients."""
        start = time.perf_counter()
        for name, readers in zip(self.attributes, self.panel, strict=True):
            states, value = self._recorded(out, batch, name)
            if len(value) == 0:
                continue
            with torch.no_grad():
                scores = torch.stack([reader(states) for reader in readers])
            loss = functional.cross_entropy(scores.flatten(0, 1), value.repeat(self.readers))
            batch.notes[f"{name} reader loss"] = loss.item()
            batch.notes[f"{name} reader accuracy"] = (scores.argmax(-1) == value).float().mean().item()
            for reader in readers:
                for _ in range(self.reader_steps):
                    run.descend(functional.cross_entropy(reader(states.detach()), value), reader, self.reader_lr)
        batch.notes["reader seconds"] = time.perf_counter() - start

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        """Mean CE + Σ_a strength · weight_a · leak_a (DIM); of several readers, the mean of their leaks."""
        total = out.loss.mean()
        for name, readers in zip(self.attributes, self.panel, strict=True):
            states, value = self._recorded(out, batch, name)
            bounds = [vclub(reader(states).log_softmax(-1), value) for reader in readers]
            batch.notes[f"{name} leak"] = torch.stack(bounds).mean().item()
            leak = torch.stack([SHAPES[self.leak](bound) for bound in bounds]).mean()
            total = total + self.strength * self.weight.get(name, 1.0) * leak
        return total

    def _recorded(self, out: Outputs, batch: Batch, attribute: str) -> tuple[Tensor, Tensor]:
        """Return states (n, D), the mean over layers, and values of the patients whose attribute is recorded."""
        assert out.states is not None
        value = batch.attributes[attribute]
        states = out.states.mean(1)[value >= 0]
        return states if self.standard is None else self.standard(states), value[value >= 0]


def _weight(text: str) -> tuple[str, float]:
    """Read `race=0.2`."""
    name, _, number = text.partition("=")
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    if not name or not 0 <= weight < math.inf:
        raise FairbenchError(f"min-mi.weights: `{text}` is no weight", "write for instance race=0.2,age=0.6")
    return name.strip(), weight


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer the method."""
    return [MinMI]
