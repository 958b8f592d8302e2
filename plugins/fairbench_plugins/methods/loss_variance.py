"""FairLoRA: penalise the variance of the groups' losses."""

from typing import Annotated, Literal

from torch import Tensor

from fairbench import Batch, GroupMeans, Method, NonNegative, Outputs, Range, Run, hookimpl


class LossVariance(Method):
    """Add the variance of the mean losses of the batch's groups: CE + strength · Var_s[L_s] (FairLoRA,
    arXiv 2410.17358). A batch of one group has none; the record says how many had one. With a `memory` the
    losses are those of about so many batches together.
    """

    name = "loss-variance"
    plain_at = {"strength": 0.0}
    strength: NonNegative = 1.0
    variance: Literal["population", "sample"] = "population"
    memory: Annotated[int, Range(0)] = 0

    def setup(self, run: Run) -> None:
        """Count the groups."""
        self.means = GroupMeans(run.train.counts / len(run.train.group), self.memory)

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        """Mean CE + strength · Var_s[L_s] over the groups that are known."""
        means = self.means(out.loss, batch)
        means = means[~means.isnan()]
        loss = out.loss.mean()
        batch.notes["active"] = float(len(means) > 1)
        if len(means) < 2:
            return loss
        return loss + self.strength * means.var(correction=int(self.variance == "sample"))


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer the method."""
    return [LossVariance]
