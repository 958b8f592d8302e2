"""Plain fine-tuning on blank images."""

from PIL import Image

from fairbench import Method, hookimpl


class ImageAblated(Method):
    """Train as the baseline does, but on grey pictures: a method must do better to have looked at the patient."""

    name = "image-ablated"
    uses_attributes = False
    role = "control"
    stands_for = "trained and tested on blank images"

    def view(self, image: Image.Image) -> Image.Image:
        """A grey picture of the same size."""
        return Image.new("RGB", image.size, (128, 128, 128))


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer the control."""
    return [ImageAblated]
