"""Plain fine-tuning on shuffled answers."""

from dataclasses import replace

import torch

from fairbench import Method, Run, hookimpl


class LabelShuffled(Method):
    """Train on targets in random order: what is left is what the protocol leaks (arXiv 1611.03530)."""

    name = "label-shuffled"
    uses_attributes = False
    needs = ("classes",)  # written answers stand in the examples
    role = "control on request"
    stands_for = "trained on shuffled answers"

    def setup(self, run: Run) -> None:
        """Shuffle the targets, once."""
        shuffled = torch.randperm(len(run.train.target))
        run.train = replace(run.train, target=run.train.target[shuffled])


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer the control."""
    return [LabelShuffled]
