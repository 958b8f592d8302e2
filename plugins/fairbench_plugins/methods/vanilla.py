"""Plain fine-tuning: what every other method is measured against."""

from fairbench import Method, hookimpl


class Vanilla(Method):
    """Mean cross-entropy, whoever the patient is (arXiv 2512.03477, eq. 3)."""

    name = "vanilla"
    uses_attributes = False
    role = "baseline"


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer the method."""
    return [Vanilla]
