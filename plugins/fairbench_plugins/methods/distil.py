"""Distillation from a balanced teacher: learn its doubts along with the answers."""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from fairbench import Batch, Fraction, Method, Outputs, Positive, Run, Stage, hookimpl


class Distil(Method):
    """Train a teacher on evenly drawn cells, start again, and train on all rows towards its softened probabilities:
    (1 − share) · CE + share · T² · KL(teacher ‖ model), both at temperature T (Hinton et al. 2015, arXiv
    1503.02531; a teacher of the same size as in Furlanello et al. 2018, arXiv 1805.04770). `share` 0: no teacher.
    """

    name = "distil"
    plain_at = {"share": 0.0}
    needs = ("classes",)
    share: Fraction = 0.5
    temperature: Positive = 2.0
    by: Literal["group", "class", "group-class"] = "group-class"

    def plan(self, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        """Everybody's stages, for the teacher and for the model."""
        self.teaching = len(stages) if self.share else 0
        return (*(replace(stage, name=f"teacher {stage.name}") for stage in stages[: self.teaching]), *stages)

    def start_stage(self, run: Run) -> Tensor | None:
        """Draw evenly for the teacher; then keep its logits of every training row, (N, C), and start again."""
        if run.stage_number < self.teaching:
            return run.train.balance(self.by)
        if self.teaching and run.stage_number == self.teaching:
            table = run.answers("train").table
            shares = torch.tensor(table[[f"p_{c}" for c in range(len(run.train.classes))]].to_numpy())
            self.logits = shares.clamp_min(1e-12).log().float().to(run.device)
            run.restart()
        return None

    def step(self, run: Run, batch: Batch) -> None:
        """Train the teacher plainly, the model towards it."""
        out = run.forward(batch)
        taught = self.teaching and run.stage_number >= self.teaching
        run.descend(self.towards(out, self.logits[batch.row]) if taught else out.loss.mean())

    def towards(self, out: Outputs, logits: Tensor) -> Tensor:
        """Return (1 − share) · CE + share · T² · KL, over the batch."""
        teacher, model = (x.div(self.temperature).log_softmax(-1) for x in (logits, out.scores))
        apart = functional.kl_div(model, teacher, log_target=True, reduction="batchmean")
        return (1 - self.share) * out.loss.mean() + self.share * self.temperature**2 * apart


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer the method."""
    return [Distil]
