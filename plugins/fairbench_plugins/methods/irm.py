"""Invariant risk minimisation: one readout that is best in every group."""

from torch import Tensor
from torch.nn import functional

from fairbench import Batch, Fraction, Method, NonNegative, Outputs, Run, hookimpl


class IRM(Method):
    """Add the squared slope of each group's risk at a scale w = 1 of the scores: CE + λ · mean over groups of
    (d R_s(w · scores) / dw)² (IRMv1: Arjovsky et al. 2019, arXiv 1907.02893, eq. 4). The square is estimated
    without bias from pairs of different patients, as their appendix D does with two halves; λ is `strength`, and
    at most 1 in the first share `anneal` of a stage.
    """

    name = "irm"
    plain_at = {"strength": 0.0}
    needs = ("classes",)
    strength: NonNegative = 1.0
    anneal: Fraction = 0.25

    def penalty(self, out: Outputs, batch: Batch) -> Tensor:
        """Return the squared slope, averaged over the groups with two patients or more; 0 where there is none."""
        expected = (out.scores.softmax(-1) * out.scores).sum(-1)
        slope = expected - out.scores.gather(1, batch.target.clamp_min(0)[:, None])[:, 0]  # d CE / dw at w = 1
        member = functional.one_hot(batch.group.clamp_min(0), batch.n_groups).to(slope)
        member = member * ((batch.group >= 0) & (batch.target >= 0))[:, None]
        count, total, squares = member.sum(0), slope @ member, slope.square() @ member
        pairs = (total.square() - squares) / (count * (count - 1)).clamp_min(1)
        return pairs.sum() / (count > 1).sum().clamp_min(1)

    def step(self, run: Run, batch: Batch) -> None:
        """Mean CE + λ · penalty."""
        out = run.forward(batch)
        weight = self.strength if run.progress >= self.anneal else min(self.strength, 1.0)
        penalty = self.penalty(out, batch)
        batch.notes["penalty"] = penalty.item()
        run.descend(out.loss.mean() + weight * penalty)


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer the method."""
    return [IRM]
