"""Plain fine-tuning on blank images."""

from fairbench import Method, hookimpl


class ImageAblated(Method):
    """Train as the baseline does, but on grey pictures: a method must do better to have looked at the patient."""

    name = "image-ablated"
    uses_attributes = False
    sees_images = False
    control = "trained and tested on blank images"


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer the control."""
    return [ImageAblated]
