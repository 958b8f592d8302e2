"""GR-LoRA: weigh groups by inverse frequency."""

from typing import Literal

from torch import Tensor

from fairbench import Batch, Method, Outputs, Positive, Run, hookimpl


class GR(Method):
    """Weigh each group by w_s = min(N/N_s, cap), counted on the training split (arXiv 2512.03477, eq. 8).

    `group-mean` is the equation as written: Σ_s w_s · mean loss of group s. `per-sample` weighs each
    example, which is what the paper's remarks on minority-only batches describe. `normalise` divides by
    the weights' total (their mean over examples), so that the loss keeps vanilla's scale.
    """

    name = "gr"
    cap: Positive = 10.0
    reading: Literal["group-mean", "per-sample"] = "group-mean"
    normalise: bool = True

    def setup(self, run: Run) -> None:
        """Count the groups."""
        self.register_buffer("weights", run.train.inverse_frequency(self.cap, self.reading, self.normalise))

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        """L_GR, in the chosen reading."""
        return batch.weighted(out.loss, self.weights, self.reading)


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer the method."""
    return [GR]
