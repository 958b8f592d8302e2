"""Reweighting: let small cells count more."""

from typing import Literal

from torch import Tensor

from fairbench import Batch, Method, Outputs, Run, hookimpl


class Reweight(Method):
    """Weigh each example's loss so that every group (or class, or group and class) has the same total
    (Idrissi et al. 2022, arXiv 2110.14503); the weights' mean is 1.
    """

    name = "reweight"
    by: Literal["group", "class", "group-class"] = "group"

    @property
    def needs(self) -> tuple[str, ...]:
        """Classes, where cells are made of them."""
        return () if self.by == "group" else ("classes",)

    def setup(self, run: Run) -> None:
        """Count the cells."""
        self.register_buffer("weights", run.train.balance(self.by))

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        """Weighted mean cross-entropy."""
        return (self.weights[batch.row] * out.loss).mean()


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer the method."""
    return [Reweight]
