"""Tilted risk: attend more to the groups that do badly, smoothly."""

from torch import Tensor

from fairbench import Batch, Method, Outputs, Positive, hookimpl


class Tilted(Method):
    """Log-mean-exp of the groups' mean losses: their mean as `tilt` goes to 0, the worst as it grows
    (tilted empirical risk minimisation over groups; Li et al. 2021, arXiv 2007.01162).
    """

    name = "tilted"
    tilt: Positive = 2.0

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        """log(mean over groups of exp(tilt · loss of the group)) / tilt."""
        risks = batch.by_group(out.loss)
        risks = risks[~risks.isnan()]
        if not len(risks):
            return out.loss.mean()
        return (self.tilt * risks).exp().mean().log() / self.tilt


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer the method."""
    return [Tilted]
