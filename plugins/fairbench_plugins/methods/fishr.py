"""Fishr: the readout's gradients vary alike in every group."""

import torch
from torch import Tensor
from torch.nn import functional

from fairbench import Batch, Fraction, Method, NonNegative, Outputs, Run, States, hookimpl


class Fishr(Method):
    """Bring together the variances of the groups' per-patient gradients at the readout: CE + strength · mean over
    groups of ‖v_s − mean v‖² (Rame et al. 2022, arXiv 2109.02934, eq. 4), v_s a moving average over steps with
    the factor `ema` (their section 3.2). A patient's gradient is (p − y) ⊗ h, for the bias p − y.
    """

    name = "fishr"
    plain_at = {"strength": 0.0}
    needs = ("head",)
    strength: NonNegative = 1.0
    ema: Fraction = 0.95

    def setup(self, run: Run) -> None:
        """Keep a variance for each group, none yet."""
        size = len(run.train.classes) * (run.backbone.width + 1)
        self.register_buffer("past", torch.full((len(run.train.groups), size), torch.nan))

    def variances(self, out: Outputs, batch: Batch) -> dict[int, Tensor]:
        """Return each group's variance of the gradient, (C · (D + 1),), for groups with two patients or more."""
        assert out.states is not None
        error = out.scores.softmax(-1) - functional.one_hot(batch.target.clamp_min(0), out.scores.shape[1])
        state = functional.pad(out.states[:, 0], (0, 1), value=1.0)
        gradients = (error[:, :, None] * state[:, None]).flatten(1)
        members = {g: (batch.group == g) & (batch.target >= 0) for g in range(batch.n_groups)}
        return {g: gradients[own].var(0, correction=0) for g, own in members.items() if own.sum() > 1}

    def step(self, run: Run, batch: Batch) -> None:
        """Mean CE + strength · spread of the averaged variances; its gradient is that of this step's share."""
        out = run.forward(batch, States((1.0,), "last"))
        means = []
        for group, now in self.variances(out, batch).items():
            past = self.past[group]
            means.append(now if past.isnan().all() else self.ema * past + (1 - self.ema) * now)
            self.past[group] = means[-1].detach()
        spread = torch.stack(means).var(0, correction=0).sum() if len(means) > 1 else out.loss.sum() * 0.0
        batch.notes["spread"] = spread.item()
        run.descend(out.loss.mean() + self.strength * spread)


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer the method."""
    return [Fishr]
