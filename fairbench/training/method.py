"""The Method contract: six verbs, each with a default that makes plain fine-tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pandas as pd
from torch import Tensor, nn

from fairbench.jobs.job import Stage
from fairbench.settings import Configurable

if TYPE_CHECKING:
    from fairbench.models.batch import Batch, Outputs, States
    from fairbench.training.run import Run


class Method(Configurable, nn.Module):
    """A way of training (or adjusting) a model so that it treats groups alike.

    Annotated class attributes are hyper-parameters. The benchmark, never the method, owns stages,
    batch size, seeds and model selection; the core owns optimizers, precision, clipping, devices
    and micro-batches, so no method writes `zero_grad`, `.to(device)` or `requires_grad`.
    """

    uses_attributes: ClassVar[bool] = True  # False: one training serves every attribute
    group_at_test: ClassVar[bool] = False  # may `adjust` know which group a test patient is in?
    baseline: ClassVar[bool] = False  # joins every run, to be compared with
    control: ClassVar[str] = ""  # for a row that is no contender: what it stands for (majority answer, …)
    optional: ClassVar[bool] = False  # a control that joins a run only when asked for
    sees_images: ClassVar[bool] = True  # False: every image is replaced by a grey one
    reads: ClassVar[States | None] = None  # hidden states `loss` or `step` wants to see, pooled

    def plan(self, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        """Before: the stages to train, given everybody's. An edit is shown on the leaderboard."""
        return stages

    def setup(self, run: Run) -> None:
        """Before: make buffers and submodules, once. Runs under its own random numbers."""

    def draw(self, run: Run) -> Tensor | None:
        """At the start of each stage: the odds of drawing each row, or None for each row once an epoch."""
        return None

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        """During: the scalar that the backbone descends; a statement about the whole effective batch."""
        return out.loss.mean()

    def step(self, run: Run, batch: Batch) -> None:
        """During: one training step; alternating schemes are several `descend` lines."""
        run.descend(self.loss(run.forward(batch, self.reads), batch))

    def adjust(self, validation: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
        """After: the test predictions, revised in the light of validation.

        `test` has no targets, and no attributes unless `group_at_test`.
        """
        return test
