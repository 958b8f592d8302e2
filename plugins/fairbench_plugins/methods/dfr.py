"""Deep feature reweighting: train the last layer again, on held-out rows of every group alike."""

import torch
from torch import Tensor

from fairbench import Method, NonNegative, Positive, Run, Stage, hookimpl


class DFR(Method):
    """Train plainly; then put the readout to zero and train it alone on the validation split, drawing every group ×
    class equally often (Kirichenko et al. 2023, arXiv 2204.02937: DFR on validation rows). The paper fits an
    L1 logistic regression on several balanced subsets; here it is AdamW with weight decay on balanced draws.
    """

    name = "dfr"
    needs = ("head",)
    epochs: Positive = 20.0
    lr: Positive = 1e-2
    weight_decay: NonNegative = 0.01

    def plan(self, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        """Everybody's stages, and the readout on the validation split."""
        last = Stage(
            "last layer", ("head",), self.epochs, self.lr, warmup=0, weight_decay=self.weight_decay, split="val"
        )
        return (*stages, last)

    def start_stage(self, run: Run) -> Tensor | None:
        """Before the last stage, forget the readout and draw all cells of the validation split equally often."""
        assert run.stage is not None
        if run.stage.split == "train":
            return None
        run.load(torch.zeros_like(run.weights()))
        return run.rows.balance("group-class")


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer the method."""
    return [DFR]
