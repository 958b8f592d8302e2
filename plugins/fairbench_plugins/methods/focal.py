"""Focal loss: let examples that are already right count less."""

from torch import Tensor

from fairbench import Batch, Method, NonNegative, Outputs, hookimpl

SMALLEST = 1e-6  # below it 1 − p is rounding, and its power would have an infinite gradient for gamma < 1


class Focal(Method):
    """Mean of (1 − p)^gamma · CE, p the probability of the true answer (Lin et al. 2017, arXiv 1708.02002,
    eq. 4). It knows no groups, but a group that is learned worse counts more.
    """

    name = "focal"
    plain_at = {"gamma": 0.0}
    uses_attributes = False
    gamma: NonNegative = 2.0

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        """Mean over the batch of (1 − p)^gamma · CE."""
        return ((1 - out.p_true).clamp_min(SMALLEST) ** self.gamma * out.loss).mean()


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer the method."""
    return [Focal]
