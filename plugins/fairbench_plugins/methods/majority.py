"""The answer that needs no model."""

from __future__ import annotations

import pandas as pd

from fairbench import Method, Run, Stage, hookimpl


class Majority(Method):
    """Give every patient the commonest answer of the training split: a method must do better to have learned."""

    name = "majority"
    uses_attributes = False
    control = "the commonest answer, always"

    def plan(self, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        """Train nothing."""
        return ()

    def setup(self, run: Run) -> None:
        """Count the classes."""
        counts = run.train.target.bincount(minlength=len(run.train.classes))
        self.share = (counts / counts.sum()).tolist()

    def adjust(self, validation: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
        """Answer the same for all, with the training split's class shares as probabilities."""
        answer = self.share.index(max(self.share))
        return test.assign(answer=answer, **{f"p_{index}": share for index, share in enumerate(self.share)})


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer the control."""
    return [Majority]
