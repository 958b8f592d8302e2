"""Adversarial debiasing: unlearn what an adversary reads."""

import math
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from fairbench import Batch, Count, Fraction, Method, NonNegative, Positive, Run, States, hookimpl


class Adversarial(Method):
    """An adversary learns to tell each attribute of the job from pooled hidden states, while the model descends
    CE − λ·CE_adversary: gradient reversal (Ganin & Lempitsky 2015, arXiv 1409.7495, eq. 1-3), with
    λ = strength · (2 / (1 + exp(−rise · p)) − 1) over the share p of the stage. States are of length 1 unless
    `normalise` is off: else the model throws an adversary off with ever larger ones, and hides nothing.
    """

    name = "adversarial"
    plain_at = {"strength": 0.0}
    strength: NonNegative = 1.0
    rise: Positive = 10.0
    adversary: Literal["linear", "mlp"] = "mlp"
    hidden: Count = 128
    adversary_lr: Positive = 1e-2
    adversary_steps: Count = 5
    depth: Fraction = 0.5
    tokens: Literal["image", "text", "all"] = "image"
    normalise: bool = True

    def setup(self, run: Run) -> None:
        """Make an adversary for each attribute of the job."""
        values = run.train.values.values()
        self.adversaries = nn.ModuleList(self._adversary(run.backbone.width, len(names)) for names in values)

    def _adversary(self, width: int, values: int) -> nn.Module:
        if self.adversary == "linear":
            return nn.Linear(width, values)
        return nn.Sequential(nn.Linear(width, self.hidden), nn.ReLU(), nn.Linear(self.hidden, values))

    def misreading(self, states: Tensor, batch: Batch) -> Tensor:
        """Sum the adversaries' mean cross-entropies (nats) on the (B, D) states of patients with a record."""
        total = states.sum() * 0.0
        for (name, value), adversary in zip(batch.attributes.items(), self.adversaries, strict=True):
            entropy = functional.cross_entropy(adversary(states), value, ignore_index=-1, reduction="sum")
            mean = entropy / (value >= 0).sum().clamp_min(1)
            batch.notes[f"{name} adversary loss"] = mean.item()
            total = total + mean
        return total

    def step(self, run: Run, batch: Batch) -> None:
        """Move both at once, as a reversal layer does: each against the other as it was before the step.

        The adversary may take further steps on the same states.
        """
        out = run.forward(batch, States((self.depth,), self.tokens, normalise=self.normalise))
        assert out.states is not None
        states = out.states.flatten(1)
        weight = self.strength * (2 / (1 + math.exp(-self.rise * run.progress)) - 1)
        run.descend(out.loss.mean() - weight * self.misreading(states, batch))
        for _ in range(self.adversary_steps):
            run.descend(self.misreading(states.detach(), batch), self.adversaries, self.adversary_lr)


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer the method."""
    return [Adversarial]
