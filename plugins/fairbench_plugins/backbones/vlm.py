"""Any vision-language model that transformers holds: `vlm:FOLDER`, with its own processor and chat template."""

from __future__ import annotations

from typing import Any

from PIL import Image

from fairbench import Backbone, FairbenchError, Pretrained, Stage, hookimpl, load_processor

# The prompt of models that were never tuned to chat, by their type.
FORMATS = {"paligemma": "<image>{prompt}"}


class VisionLanguageModel(Pretrained):
    """A checkpoint of any architecture that answers after tokens of an image: docs/backbones.md lists them.

    `chat` is its prompt's format, with the image's token and `{prompt}`, where it has no chat template.
    """

    name = "vlm"
    format_setting = "chat"
    recipe = (Stage(name="lora", train=("lora", "head"), epochs=3, lr=1e-4, warmup=100),)

    chat: str = ""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        if self.chat and "{prompt}" not in self.chat:
            raise FairbenchError(
                f"{self.alias}.chat = {self.chat!r} does not hold {{prompt}}, where the question goes",
                f"for instance {FORMATS['paligemma']!r}",
            )

    def config(self) -> Any:
        """Refuse: without a folder there is no configuration."""
        raise FairbenchError(f"where is {self.name}?", f"say --backbones {self.name}:FOLDER")

    def template(self) -> str:
        """Return the prompt's format, empty where the chat template makes it."""
        return self.chat or FORMATS.get(self.model.config.model_type, "")

    @property
    def tokens(self) -> int:
        """Those of a picture of 1024 × 768 pixels, and a prompt."""
        folder = self.folder()
        self.ready(load_processor(folder, self.model.config, self.pixels))
        return len(self.prepare(Image.new("RGB", (1024, 768)), "")["input_ids"]) + 25


@hookimpl
def fairbench_backbones() -> list[type[Backbone]]:
    """Offer it."""
    return [VisionLanguageModel]
