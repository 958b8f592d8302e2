"""Counterfactual prompts: what the question says of who asks must not change the answer."""

from torch.nn import functional

from fairbench import Batch, Method, NonNegative, Run, hookimpl


class CounterfactualPrompt(Method):
    """Ask of the same image with one and with another value of an attribute in the question, and pair the logits:
    CE + strength · mean |logits − logits'| (counterfactual logit pairing: Garg et al. 2019, arXiv 1809.10610).
    """

    name = "counterfactual-prompt"
    needs = ("classes",)
    plain_at = {"strength": 0.0}
    strength: NonNegative = 1.0
    sentence: str = "The patient is {}. "

    def setup(self, run: Run) -> None:
        """Know what values there are."""
        self.values = [value for names in run.train.values.values() for value in names]

    def step(self, run: Run, batch: Batch) -> None:
        """Mean CE of the question as it is + strength · what two counterfactual ones change."""
        loss = run.forward(batch).loss.mean()
        if len(self.values) > 1 and self.strength:
            asked = [run.rows.prompts[row] for row in batch.row.tolist()]
            pair = [self.values[(run.step + shift) % len(self.values)] for shift in (0, 1)]
            changed = [run.ask(batch, [self.sentence.format(value) + text for text in asked]) for value in pair]
            one, other = (run.forward(version).scores for version in changed)
            loss = loss + self.strength * functional.l1_loss(one, other)
        run.descend(loss)


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer the method."""
    return [CounterfactualPrompt]
