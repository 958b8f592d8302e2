"""Resampling: draw small cells more often."""

from typing import Literal

from torch import Tensor

from fairbench import Method, Run, hookimpl


class Resample(Method):
    """Draw training rows with replacement so that every group (or class, or group and class) is seen equally
    often (Idrissi et al. 2022, arXiv 2110.14503; MEDFAIR, arXiv 2210.01725).
    """

    name = "resample"
    by: Literal["group", "class", "group-class"] = "group"

    @property
    def needs(self) -> tuple[str, ...]:
        """Classes, where cells are made of them."""
        return () if self.by == "group" else ("classes",)

    def start_stage(self, run: Run) -> Tensor:
        """Odds inversely proportional to the size of the row's cell."""
        return run.train.balance(self.by)


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer the method."""
    return [Resample]
