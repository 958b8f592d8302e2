"""FR-LoRA: penalise the soft accuracy gap."""

from typing import Annotated

from torch import Tensor

from fairbench import Batch, GroupMeans, Method, NonNegative, Outputs, Range, Run, hookimpl


class FR(Method):
    """Add the gap in mean true-class probability between the best and worst group of the batch
    (soft MaxAccGap; arXiv 2512.03477, eq. 4-6). A batch of one group has no gap; the record says how
    many had one. With a `memory` the gap is that of about so many batches together.
    """

    name = "fr"
    plain_at = {"strength": 0.0}
    strength: NonNegative = 0.5
    memory: Annotated[int, Range(0)] = 0

    def setup(self, run: Run) -> None:
        """Count the groups."""
        self.means = GroupMeans(run.train.counts / len(run.train.group), self.memory)

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        """L_vanilla + strength · (max_s Acc_soft − min_s Acc_soft)."""
        means = self.means(out.p_true, batch)
        means = means[~means.isnan()]
        loss = out.loss.mean()
        batch.notes["active"] = float(len(means) > 1)
        return loss + self.strength * (means.max() - means.min()) if len(means) > 1 else loss


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer the method."""
    return [FR]
