"""The backbone as it comes, told to look at the image alone."""

from __future__ import annotations

import pandas as pd

from fairbench import Method, Run, Stage, hookimpl

PLAIN = "Judge by what the image shows. Do not let the patient's {attributes} influence the answer."


class DebiasedPrompt(Method):
    """Train nothing: put `instruction` before each question, `{attributes}` being what groups are made of
    (self-debiasing by instruction, after arXiv 2302.07459).
    """

    name = "debiased-prompt"

    instruction: str = PLAIN

    def plan(self, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        """Train nothing."""
        return ()

    def adjust(self, run: Run, validation: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
        """Ask every test patient's question after the instruction."""
        told = self.instruction.replace("{attributes}", " and ".join(run.job.attributes))
        shown = [(question.images, f"{told} {question.prompt}".strip()) for question in run.questions]
        run.facts["example of a question"] = shown[0][1]
        return run.answered(test, shown)


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer the method."""
    return [DebiasedPrompt]
