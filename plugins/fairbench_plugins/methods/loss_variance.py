"""FairLoRA: penalise the variance of the groups' losses."""

from typing import Literal

from torch import Tensor

from fairbench import Batch, Method, NonNegative, Outputs, hookimpl


class LossVariance(Method):
    """Add the variance of the mean losses of the batch's groups: CE + strength · Var_s[L_s] (FairLoRA,
    arXiv 2410.17358). A batch of one group has none; the record says how many had one.
    """

    name = "loss-variance"
    strength: NonNegative = 1.0
    variance: Literal["population", "sample"] = "population"

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        """Mean CE + strength · Var_s[L_s] over the groups that are there."""
        active = batch.present() > 1
        batch.notes["active"] = float(active)
        if not active:
            return out.loss.mean()
        means = batch.by_group(out.loss)
        variance = means[~means.isnan()].var(correction=int(self.variance == "sample"))
        return out.loss.mean() + self.strength * variance


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer the method."""
    return [LossVariance]
