"""Hybrid-LoRA: inverse-frequency weights and the soft accuracy gap together."""

from typing import Annotated, Literal

from torch import Tensor

from fairbench import (
    Batch,
    GroupMeans,
    InverseFrequency,
    Method,
    NonNegative,
    Outputs,
    Positive,
    Range,
    Run,
    hookimpl,
)


class Hybrid(Method):
    """GR's loss plus FR's penalty (arXiv 2512.03477, eq. 9); the settings are theirs."""

    name = "hybrid"
    strength: NonNegative = 0.5
    memory: Annotated[int, Range(0)] = 0
    cap: Positive = 10.0
    reading: Literal["per-sample", "equation", "micro-mean", "group-mean"] = "per-sample"
    by: Literal["group", "group-class"] = "group"
    normalise: bool = True

    @property
    def needs(self) -> tuple[str, ...]:
        """Classes, where cells are made of them."""
        return () if self.by == "group" else ("classes",)

    def setup(self, run: Run) -> None:
        """Count the groups."""
        size = run.job.batch_size
        self.weighted = InverseFrequency(run.train, self.by, self.cap, self.reading, self.normalise, size)
        self.means = GroupMeans(run.train.counts / len(run.train.group), self.memory)

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        """L_GR + strength · soft MaxAccGap."""
        means = self.means(out.p_true, batch)
        means = means[~means.isnan()]
        loss: Tensor = self.weighted(out.loss, batch)
        batch.notes["active"] = float(len(means) > 1)
        return loss + self.strength * (means.max() - means.min()) if len(means) > 1 else loss


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer the method."""
    return [Hybrid]
