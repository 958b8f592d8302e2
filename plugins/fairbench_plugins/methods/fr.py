"""FR-LoRA: penalise the soft accuracy gap."""

from torch import Tensor

from fairbench import Batch, Method, NonNegative, Outputs, hookimpl


class FR(Method):
    """Add the gap in mean true-class probability between the best and worst group of the batch
    (soft MaxAccGap; arXiv 2512.03477, eq. 4-6). A batch of one group has no gap; the record says how
    many had one.
    """

    name = "fr"
    strength: NonNegative = 0.5

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        """L_vanilla + strength · (max_s Acc_soft − min_s Acc_soft)."""
        batch.notes["active"] = float(batch.present() > 1)
        return out.loss.mean() + self.strength * batch.gap(out.p_true)


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer the method."""
    return [FR]
