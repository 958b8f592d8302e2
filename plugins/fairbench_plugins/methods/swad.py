"""SWAD: average the weights over the valley of the validation loss."""

import numpy as np
import torch
from torch import Tensor

from fairbench import Batch, Count, Method, Positive, Predictions, Run, hookimpl


def valley(losses: list[float], patience: int, overfit: int, tolerance: float) -> tuple[int, int]:
    """Return the first and last of the evaluations to average: from the first that none of the next `patience` − 1
    beats, to before the loss stays above `tolerance` times the mean of these for `overfit` evaluations; the last
    one alone where there is no such start (arXiv 2102.08604, algorithm 1).
    """
    for start in range(len(losses) - patience + 1):
        window = losses[start : start + patience]
        if window[0] == min(window):
            limit = tolerance * float(np.mean(window))
            for end in range(start + patience, len(losses) - overfit + 1):
                if min(losses[end : end + overfit]) > limit:
                    return start, end - 1
            return start, len(losses) - 1
    return len(losses) - 1, len(losses) - 1


class SWAD(Method):
    """Average the weights after every step, over the steps between which the validation loss has settled and begins
    to rise (Cha et al. 2021, arXiv 2102.08604). It knows no groups. The loss is looked at `evaluations` times in a
    stage; the steps before each look are one average, as in the authors' code.
    """

    name = "swad"
    uses_attributes = False
    evaluations: Count = 10
    patience: Count = 3
    overfit: Count = 6
    tolerance: Positive = 1.2

    def start_stage(self, run: Run) -> None:
        """Begin to collect."""
        self.losses: list[float] = []
        self.averages: list[Tensor] = []
        self.steps = 0

    def step(self, run: Run, batch: Batch) -> None:
        """Train plainly; add the weights to the running average, and look at the validation loss now and then."""
        super().step(run, batch)
        weights = run.weights()
        self.mean = weights if self.steps == 0 else self.mean + (weights - self.mean) / (self.steps + 1)
        self.steps += 1
        done = run.step + 1
        if done * self.evaluations // run.steps > run.step * self.evaluations // run.steps:
            self.averages.append(self.mean)
            self.losses.append(mean_loss(run.answers("val")))
            self.steps = 0

    def end_stage(self, run: Run) -> None:
        """Put the average over the valley in place of the last weights."""
        first, last = valley(self.losses, self.patience, self.overfit, self.tolerance)
        run.load(torch.stack(self.averages[first : last + 1]).mean(0))
        run.facts.setdefault("averaged", []).append([first + 1, last + 1, len(self.losses)])


def mean_loss(answers: Predictions) -> float:
    """Return the mean cross-entropy in nats, or of written answers the mean loss of the references."""
    if "loss" in answers.table:
        return float(answers.table["loss"].mean())
    shares = answers.table[[f"p_{c}" for c in range(len(answers.classes))]].to_numpy()
    return float(-np.log(shares[np.arange(len(shares)), answers.target].clip(1e-12)).mean())


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer the method."""
    return [SWAD]
