"""Hybrid-LoRA: inverse-frequency weights and the soft accuracy gap together."""

from typing import Literal

from torch import Tensor

from fairbench import Batch, Method, NonNegative, Outputs, Positive, Run, hookimpl


class Hybrid(Method):
    """GR's loss plus FR's penalty (arXiv 2512.03477, eq. 9).

    Normalised weights are the default: un-normalised ones sum to about 21 on the paper's data and would
    shrink the pull of `strength` by as much, so that it could not be compared with FR's.
    """

    name = "hybrid"
    strength: NonNegative = 0.5
    cap: Positive = 10.0
    reading: Literal["group-mean", "per-sample"] = "group-mean"
    normalise: bool = True

    def setup(self, run: Run) -> None:
        """Count the groups."""
        self.register_buffer("weights", run.train.inverse_frequency(self.cap, self.reading, self.normalise))

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        """L_GR + strength · soft MaxAccGap."""
        batch.notes["active"] = float(batch.present() > 1)
        return batch.weighted(out.loss, self.weights, self.reading) + self.strength * batch.gap(out.p_true)


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer the method."""
    return [Hybrid]
