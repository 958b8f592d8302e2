"""The backbone as it comes."""

from fairbench import Method, Stage, hookimpl


class ZeroShot(Method):
    """No training. With readout `words` this asks the model; with `head` it is a random linear head, as in
    arXiv 2512.03477, Table 1.
    """

    name = "zero-shot"
    uses_attributes = False

    def plan(self, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        """Train nothing."""
        return ()


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer the method."""
    return [ZeroShot]
