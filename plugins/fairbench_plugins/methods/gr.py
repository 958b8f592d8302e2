"""GR-LoRA: weigh groups by inverse frequency; Hybrid-LoRA: that and the soft accuracy gap."""

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


class GR(Method):
    """Weigh each group by w_s = min(N/N_s, cap), counted on the training split (arXiv 2512.03477, eq. 8).

    `per-sample` multiplies each example's loss by its w_s, which balances what groups contribute; `equation`
    estimates eq. 8, Σ_s w_s · E[loss in s], without bias; `micro-mean` and `group-mean` put the means of every
    two examples, and of the batch, in the place of the expectation. `normalise` keeps vanilla's scale: where
    every loss is 1, the weighted loss averages 1.
    """

    name = "gr"
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

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        """L_GR, in the chosen reading."""
        loss: Tensor = self.weighted(out.loss, batch)
        return loss


class Hybrid(GR):
    """GR's loss plus FR's penalty (arXiv 2512.03477, eq. 9); the settings are theirs."""

    name = "hybrid"
    strength: NonNegative = 0.5
    memory: Annotated[int, Range(0)] = 0

    def setup(self, run: Run) -> None:
        """Count the groups."""
        super().setup(run)
        self.means = GroupMeans(run.train.counts / len(run.train.group), self.memory)

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        """L_GR + strength · soft MaxAccGap."""
        means = self.means(out.p_true, batch)
        means = means[~means.isnan()]
        batch.notes["active"] = float(len(means) > 1)
        loss = super().loss(out, batch)
        return loss + self.strength * (means.max() - means.min()) if len(means) > 1 else loss


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer both."""
    return [GR, Hybrid]
