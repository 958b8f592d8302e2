"""Gradient surgery between groups: what one group's step would undo of another's is left out."""

import torch
from torch import Tensor

from fairbench import Batch, Method, Run, hookimpl


def projected(gradients: list[Tensor], generator: torch.Generator) -> Tensor:
    """Return the mean of gradients (P,), each freed of what points against the others, in random order."""
    total = torch.zeros_like(gradients[0])
    for gradient in gradients:
        for other in torch.randperm(len(gradients), generator=generator).tolist():
            against = (gradient @ gradients[other]).clamp_max(0.0)
            gradient = gradient - against / gradients[other].square().sum().clamp_min(1e-12) * gradients[other]
        total += gradient
    return total / len(gradients)


class PCGrad(Method):
    """Project conflicting gradients, each group being a task (Yu et al. 2020, arXiv 2001.06782, algorithm 1)."""

    name = "pcgrad"

    def step(self, run: Run, batch: Batch) -> None:
        """One gradient for each group in the batch, projected, averaged, applied."""
        out = run.forward(batch)
        losses = batch.by_group(out.loss)
        gradients = [run.gradient(loss) for loss in losses[~losses.isnan()]]
        run.apply(projected(gradients or [run.gradient(out.loss.mean())], run.generator))


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer the method."""
    return [PCGrad]
