"""The Method contract: verbs with defaults that make plain fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pandas as pd
from PIL import Image
from torch import Tensor, nn

from fairbench.jobs.job import Stage
from fairbench.settings import Configurable
from fairbench.training.needs import Need

if TYPE_CHECKING:
    from fairbench.models.batch import Batch, Outputs
    from fairbench.training.run import Run

# What a row is on a leaderboard: ranked; what the others are compared with, which joins every run; a control, which
# has learned nothing from patients, stands under the table, and joins every run or only one that asks for it; or a
# reference, which has learned without the method's training, stands there too, and joins every run.
Role = Literal["contender", "baseline", "control", "control on request", "reference"]


class Method(Configurable, nn.Module):
    """A way of training (or adjusting) a model so that it treats groups alike.

    Annotated class attributes are hyper-parameters. The benchmark, never the method, owns stages,
    batch size, seeds and model selection; the core owns optimizers, precision, clipping, devices
    and micro-batches, so no method writes `zero_grad`, `.to(device)` or `requires_grad`.
    """

    uses_attributes: ClassVar[bool] = True  # False: one training serves every attribute
    group_at_test: ClassVar[bool] = False  # may `adjust` know which group a test patient is in?
    role: ClassVar[Role] = "contender"
    needs: ClassVar[tuple[Need, ...]] = ()  # of the task and the backbone; checked before anything trains
    plain_at: ClassVar[Mapping[str, Any]] = {}  # settings with which it is plain fine-tuning, to the last bit
    stands_for: ClassVar[str] = ""  # a control's, printed beside it: what a contender must beat

    def fingerprint(self) -> str:
        """Before: a hash of the folder that NAME:FOLDER gives it (`takes_folder`), part of the job's key."""
        return ""

    def plan(self, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        """Before: the stages to train, given everybody's. An edit is shown on the leaderboard."""
        return stages

    def view(self, image: Image.Image) -> Image.Image:
        """Before: the image that the model is shown, in training and at test, given the patient's."""
        return image

    def setup(self, run: Run) -> None:
        """Before: make buffers and submodules, once. Runs under its own random numbers."""

    def start_stage(self, run: Run) -> Tensor | None:
        """At the start of each stage; may return the odds (N,) of drawing each row, else each once an epoch."""
        return None

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        """During: the scalar that the backbone descends; a statement about the whole effective batch."""
        return out.loss.mean()

    def step(self, run: Run, batch: Batch) -> None:
        """During: one training step; alternating schemes are several `descend` lines."""
        run.descend(self.loss(run.forward(batch), batch))

    def end_stage(self, run: Run) -> None:
        """At the end of each stage: restore or average weights. What is left is the last epoch's, for selection."""

    def answer_questions(self, run: Run) -> Sequence[str] | None:
        """After: what is written in answer to each of `run.questions`, in place of the backbone's answers."""
        return None

    def adjust(self, run: Run, validation: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
        """After: the test predictions, revised in the light of validation.

        `test` has no targets, and no attributes unless `group_at_test`.
        """
        return test
