"""LISA: selective mixing, within a class across groups or within a group across classes."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fairbench import Batch, Fraction, Method, Positive, Run, hookimpl


class LISA(Method):
    """Train on blends of two patients, λ · one + (1 − λ) · another with λ ~ Beta(alpha, alpha), and the same blend
    of their losses: of one class and different groups with probability `within_class`, else of one group and
    different classes (Yao et al. 2022, arXiv 2201.00299, algorithm 1). Without a partner a patient stays whole.
    """

    name = "lisa"
    needs = ("classes",)
    alpha: Positive = 2.0
    within_class: Fraction = 0.5

    def partners(self, run: Run, batch: Batch, crossing: bool) -> tuple[Tensor, Tensor]:
        """Draw a partner for each row of the batch, (B,), and say who has one, (B,)."""
        rows, own = run.rows, batch.row.cpu()
        same, other = (rows.target, rows.group) if crossing else (rows.group, rows.target)
        fits = (same[own, None] == same) & (other[own, None] != other) & (rows.group[own, None] >= 0)
        fits &= (rows.group >= 0) & (rows.target >= 0)
        has = fits.any(1)
        odds = torch.where(has[:, None], fits, True).double()
        return torch.multinomial(odds, 1, generator=run.generator)[:, 0], has

    def step(self, run: Run, batch: Batch) -> None:
        """Descend the mean of λ · CE with the patient's class + (1 − λ) · CE with the partner's."""
        crossing = float(torch.rand((), generator=run.generator)) < self.within_class
        chosen, has = self.partners(run, batch, crossing)
        draws = np.random.default_rng(int(torch.randint(2**62, (), generator=run.generator)))
        share = torch.tensor(draws.beta(self.alpha, self.alpha, len(has))).float().where(has, 1.0).to(run.device)
        other = run.batch(chosen)
        out = run.forward(batch.mixed(other, share))
        theirs = functional.cross_entropy(out.scores, other.target, reduction="none")
        batch.notes["mixed"] = float(has.float().mean())
        run.descend((share * out.loss + (1 - share) * theirs).mean())


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer the method."""
    return [LISA]
