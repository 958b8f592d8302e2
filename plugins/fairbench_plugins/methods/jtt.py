"""Just Train Twice: the second time, what the first got wrong counts more."""

from dataclasses import replace
from typing import Annotated, Literal

import torch
from torch import Tensor

from fairbench import Batch, Method, Outputs, Range, Run, Stage, hookimpl


class JTT(Method):
    """Train plainly for a `share` of each stage, look at every training row once, start again from scratch, and
    train with the rows that came out wrong weighing `up_weight` times as much (Liu et al. 2021,
    arXiv 2107.09044, algorithm 1). It knows no groups. With `up_weight` 1 there is nothing to look for.
    """

    name = "jtt"
    plain_at = {"up_weight": 1.0}
    uses_attributes = False
    up_weight: Annotated[float, Range(1)] = 6.0
    share: Annotated[float, Range(0, 1, above=True)] = 0.4
    using: Literal["draw", "weight"] = "draw"
    look = -2  # the number of the stage that looks: none, unless `plan` makes one

    def plan(self, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        """A shorter first training, a look, and then everybody's stages."""
        if self.up_weight == 1:
            return stages
        self.look = len(stages)
        shorter = [replace(stage.share(self.share), name=f"first {stage.name}") for stage in stages]
        return (*shorter, replace(stages[-1], name="look", epochs=1, min_steps=0), *stages)

    def setup(self, run: Run) -> None:
        """Give every row the weight 1."""
        self.register_buffer("wrong", torch.zeros(len(run.train.target), dtype=torch.bool))
        self.register_buffer("weights", torch.ones(len(run.train.target)))

    def start_stage(self, run: Run) -> Tensor | None:
        """Between the two trainings, forget the first and weigh the rows; the weights' mean is 1."""
        if run.stage_number == self.look + 1:
            run.note({"wrong": float(self.wrong.float().mean())})
            run.restart()
            weights = 1 + (self.up_weight - 1) * self.wrong
            self.weights = weights / weights.mean()
        even = bool((self.weights == self.weights[0]).all())
        return None if even or self.using == "weight" else self.weights

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        """Mean CE, weighted unless the weights are in the drawing."""
        return (self.weights[batch.row] * out.loss).mean() if self.using == "weight" else out.loss.mean()

    def step(self, run: Run, batch: Batch) -> None:
        """Train, or look without dropout and without learning."""
        if run.stage_number != self.look:
            super().step(run, batch)
            return
        run.backbone.train(False)
        with torch.no_grad():
            out = run.forward(batch)
        if out.scores.shape[1]:  # else answers are written
            self.wrong[batch.row] = out.scores.argmax(-1) != batch.target
        else:
            self.wrong[batch.row] = out.p_true < 0.5


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer the method."""
    return [JTT]
