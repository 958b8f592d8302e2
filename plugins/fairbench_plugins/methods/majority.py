"""The answer that needs no model."""

from __future__ import annotations

import pandas as pd

from fairbench import Method, Run, Stage, hookimpl


class Majority(Method):
    """Give every patient the commonest answer of the training split: a method must do better to have learned."""

    name = "majority"
    uses_attributes = False
    role = "control"
    stands_for = "the commonest answer, always"

    def plan(self, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        """Train nothing."""
        return ()

    def setup(self, run: Run) -> None:
        """Count the classes."""
        train = run.train
        if train.references:
            self.answers = pd.Series(train.references).groupby(list(train.prompts)).agg(_commonest)
            self.answer = _commonest(pd.Series(train.references))
            return
        counts = train.target.bincount(minlength=len(train.classes))
        self.share = (counts / counts.sum()).tolist()

    def adjust(self, run: Run, validation: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
        """Answer all alike: the commonest class, with the training split's shares as probabilities.

        In words it is the commonest answer to the same question, or of all where a question is new.
        """
        if "text" in test:
            return test.assign(text=test["prompt"].map(self.answers).fillna(self.answer))
        answer = self.share.index(max(self.share))
        return test.assign(answer=answer, **{f"p_{index}": share for index, share in enumerate(self.share)})


def _commonest(texts: pd.Series) -> str:
    return str(texts.mode()[0])


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer the control."""
    return [Majority]
