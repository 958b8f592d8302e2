"""Two methods to train: plain fine-tuning, and one that uses every verb of a run."""

import torch

from fairbench import Method


class Plain(Method):
    """Plain fine-tuning."""

    name = "plain"


class Everything(Plain):
    """Each verb of a run in one step, so that a difference between processes or micro-batches anywhere shows."""

    name = "everything"

    def step(self, run, batch):
        partner = run.batch(torch.randint(len(run.train.target), (len(batch.row),), generator=run.generator))
        mixed = run.forward(batch.mixed(partner, torch.linspace(0.2, 1.0, len(batch.row))))
        asked = run.forward(run.ask(batch, [f"Dark {i % 2}?" for i in range(len(batch.row))]))
        first = run.gradient(mixed.loss.mean() + asked.p_true.var(correction=0))
        start = run.weights()
        run.load(start + 0.01 * first / first.norm())
        second = run.gradient(run.forward(batch).loss.mean())
        run.load(start)
        run.apply(second - 0.1 * first)
