"""The LLaVA family: 1.5 (arXiv 2310.03744), NeXT or 1.6, Med (arXiv 2306.00890), any folder, two tiny ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    LlavaProcessor,
    MistralConfig,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

from fairbench import Backbone, FairbenchError, Family, Inputs, Pretrained, Stage, Tiny, hookimpl, tiny_tokenizer

# What decoders were tuned on, by their type: Vicuna's first template, as in LLaVA-1.5 and FairLLaVA, and Mistral's.
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the user's questions. USER: <image>\n{prompt} ASSISTANT:"
)
CHATS = {"llama": VICUNA, "mistral": "[INST] <image>\n{prompt} [/INST]"}
IMAGE = "<image>"
BRIEF = "USER: <image>\n{prompt} ASSISTANT:"
DECODERS = {"llama": LlamaConfig, "mistral": MistralConfig}
CONVERT = (
    "transformers reads LLaVA models of its own format alone; docs/backbones.md says how the official weights "
    "are converted"
)


class Llava(Family):
    """LLaVA-1.5 of any size: a CLIP tower, a two-layer projector (trainable on request), a Llama or Mistral."""

    architecture = LlavaForConditionalGeneration
    configuration: ClassVar[Any] = LlavaConfig
    recipe: ClassVar = (
        Stage(name="projector", train=("projector", "head"), epochs=1, lr=1e-3, warmup=30),
        Stage(name="lora", train=("lora", "projector", "head"), epochs=3, lr=1e-4, warmup=100, decay="cosine"),
    )

    def config(self) -> Any:
        """Return the configuration of this size, without reading a checkpoint."""
        return self.configuration(
            vision_config=CLIPVisionConfig(**self.shape["vision"]),
            text_config=DECODERS[self.shape.get("decoder", "llama")](**self.shape["text"]),
            image_token_index=self.shape["image_token"],
            vision_feature_layer=-2,
            **self.shape.get("more", {}),
        )

    def template(self) -> str:
        """Return the chat's format, with `<image>` and `{prompt}` in it."""
        return CHATS[self.model.config.text_config.model_type]

    @property
    def side(self) -> int:
        """How many patches of a tile lie in a row."""
        vision = self.model.config.vision_config
        return int(vision.image_size // vision.patch_size)

    def projector(self) -> nn.Module:
        """The two layers between CLIP and the decoder."""
        return self.model.model.multi_modal_projector

    @property
    def tokens(self) -> int:
        """One for each patch, and a prompt."""
        return self.side**2 + 50

    def tiles(self, pixels: Tensor) -> Tensor:
        """Return the tower's features of the chosen layers, (tiles, patches, width), without its class token."""
        tower, layers = self.model.model.vision_tower, self.model.config.vision_feature_layer
        hidden = tower(pixels.to(tower.dtype), output_hidden_states=True).hidden_states
        return torch.cat([hidden[layer][:, 1:] for layer in ([layers] if isinstance(layers, int) else layers)], -1)

    def encode(self, inputs: Inputs) -> Tensor:
        """Return the features of every patch, before they are projected."""
        return self.tiles(torch.cat(self.each(inputs, "pixel_values"))).flatten(0, 1)


class LlavaNext(Llava):
    """LLaVA-NeXT (1.6): the whole image and up to four tiles of it, each seen by the same tower.

    Tiles are joined to one grid, the padding that made them square is cut off, and a learnt vector ends each
    row of it. Cached are the tower's features in that order, with nothing where a row ends, so the projector
    and that vector stay outside of the cache.
    """

    architecture = LlavaNextForConditionalGeneration
    configuration = LlavaNextConfig

    @property
    def tokens(self) -> int:
        """The most an image takes, and a prompt."""
        config = self.model.config
        grids = [
            (a // config.vision_config.image_size, b // config.vision_config.image_size)
            for a, b in config.image_grid_pinpoints
        ]
        return self.side**2 + max(self.side * a * (self.side * b + 1) for a, b in grids) + 50

    def grid(self, size: Tensor) -> int:
        """Return how many tiles an image of (height, width) is seen as, the whole one among them."""
        config = self.model.config
        return image_size_to_num_patches(
            size.tolist(), config.image_grid_pinpoints, config.vision_config.image_size
        )

    def packed(self, tiles: Tensor, sizes: Tensor, end: Tensor) -> Tensor:
        """Put the images' tiles, (tiles, patches, width), into the prompt's order, with `end` at ends of rows."""
        images = tiles.split([self.grid(size) for size in sizes])
        return torch.cat(self.model.model.pack_image_features(images, sizes, "default", end)[0])

    def row_ends(self, sizes: Tensor) -> Tensor:
        """Say of every image token, (image tokens,), whether it is the end of a row rather than a patch."""
        count = sum(self.grid(size) for size in sizes)
        patches = torch.ones(count, self.side**2, 1, device=sizes.device)
        return self.packed(patches, sizes, patches.new_zeros(1))[:, 0] == 0

    def encode(self, inputs: Inputs) -> Tensor:
        """Return the tower's features in the prompt's order, zeros at the ends of rows."""
        sizes = self.sizes(inputs)
        images = [image for example in self.each(inputs, "pixel_values") for image in example]
        seen = [image[: self.grid(size)] for image, size in zip(images, sizes, strict=True)]  # the rest is padding
        tiles = self.tiles(torch.cat(seen))
        return self.packed(tiles, sizes, tiles.new_zeros(tiles.shape[-1]))

    def sizes(self, inputs: Inputs) -> Tensor:
        """Return every image's height and width, (images, 2)."""
        return torch.cat(self.each(inputs, "image_sizes"))

    def project(self, inputs: Inputs, features: Tensor) -> Tensor:
        """Project the patches, and put the learnt vector at the ends of rows."""
        projected = super().project(inputs, features)
        end = self.model.model.image_newline.to(projected.dtype)
        return torch.where(self.row_ends(self.sizes(inputs))[:, None], end, projected)


class LlavaFolder(Pretrained, Llava):
    """Any LLaVA-1.5 on disk: `llava:FOLDER`. `chat` is its prompt's format if neither Vicuna's nor Mistral's.

    The tower may be any that transformers' LLaVA takes and that has a class token: CLIP, or a plain ViT.
    """

    name = "llava"
    conversion = CONVERT

    chat: str = ""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        if self.chat and (self.chat.count(IMAGE) != 1 or "{prompt}" not in self.chat):
            raise FairbenchError(
                f"{self.alias}.chat = {self.chat!r} does not hold <image> and {{prompt}} once each",
                f"for instance {CHATS['mistral']!r}",
            )

    def template(self) -> str:
        """Return the chat's format."""
        return self.chat or super().template()

    def unsupported(self, config: Mapping[str, Any]) -> str | None:
        """Tell LLaVA's own format, which bears the same name, from transformers'; name what cannot be held."""
        if "mm_vision_tower" in config:
            return f"in the original LLaVA format (vision tower {config['mm_vision_tower']})"
        decoder = config.get("text_config", {}).get("model_type", "llama")
        if config.get("vision_feature_select_strategy", "default") != "default":
            return "a LLaVA whose tower has no class token, which is not supported"
        if decoder not in CHATS and not self.chat:
            return f"a LLaVA of a {decoder}, whose prompt's format is not known: --set {self.alias}.chat=…"
        return None


class LlavaNextFolder(LlavaNext, LlavaFolder):
    """Any LLaVA-NeXT (1.6) on disk: `llava-next:FOLDER`. `chat` is its prompt's format, as of `llava`."""

    name = "llava-next"


_VISION = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "projection_dim": 768,
}
_VICUNA_7B = {"text": {"vocab_size": 32064}, "vision": _VISION, "image_token": 32000}
_MISTRAL_7B = {
    "decoder": "mistral",
    "text": {
        "vocab_size": 32064,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 32768,
        "sliding_window": None,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    },
    "vision": _VISION,
    "image_token": 32000,
}


class Llava7B(LlavaFolder):
    """FairLLaVA's family."""

    name = "llava-1.5-7b"
    checkpoint = "llava-hf/llava-1.5-7b-hf"
    shape = _VICUNA_7B


class Llava13B(LlavaFolder):
    """The larger size."""

    name = "llava-1.5-13b"
    checkpoint = "llava-hf/llava-1.5-13b-hf"
    shape = {
        "text": {
            "vocab_size": 32064,
            "hidden_size": 5120,
            "intermediate_size": 13824,
            "num_hidden_layers": 40,
            "num_attention_heads": 40,
        },
        "vision": _VISION,
        "image_token": 32000,
    }


class LlavaMed7B(LlavaFolder):
    """LLaVA-Med v1.5 on Mistral-7B, converted to transformers' format: `llava-med-7b:FOLDER`."""

    name = "llava-med-7b"
    shape = _MISTRAL_7B


class LlavaNext7B(LlavaNextFolder):
    """LLaVA-NeXT on Vicuna-7B."""

    name = "llava-next-7b"
    checkpoint = "llava-hf/llava-v1.6-vicuna-7b-hf"
    shape = _VICUNA_7B


class LlavaNextMistral7B(LlavaNextFolder):
    """LLaVA-NeXT on Mistral-7B."""

    name = "llava-next-mistral-7b"
    checkpoint = "llava-hf/llava-v1.6-mistral-7b-hf"
    shape = _MISTRAL_7B


_TINY = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4}


class TinyLlava(Tiny, Llava):
    """The real architecture with a million random weights, frozen but for LoRA, projector and head: no download."""

    processors: ClassVar[Any] = (LlavaProcessor, CLIPImageProcessorPil)

    name = "tiny-llava"
    chat = BRIEF
    batch_size = 16
    recipe = (Stage(name="lora", train=("lora", "projector", "head"), epochs=4, lr=1e-3, warmup=20),)
    shape = {
        "text": {**_TINY, "vocab_size": 260},
        "vision": {**_TINY, "image_size": 112, "patch_size": 28, "projection_dim": 64},
        "image_token": 257,
    }

    def template(self) -> str:
        """Return the chat's format, short because bytes are tokens."""
        return self.chat

    def make_processor(self) -> Any:
        """Make a tokenizer of bytes and the processor."""
        vision, pinpoints = self.shape["vision"], self.shape.get("more", {})
        size = vision["image_size"]
        own = {"size": {"shortest_edge": size}, "crop_size": {"height": size, "width": size}, **pinpoints}
        processor, images = self.processors
        return processor(
            images(**own),
            tiny_tokenizer([IMAGE], ""),
            patch_size=vision["patch_size"],
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
        )


class TinyLlavaNext(LlavaNext, TinyLlava):
    """The same for LLaVA-NeXT, with up to four tiles of 56 pixels: no download."""

    processors = (LlavaNextProcessor, LlavaNextImageProcessorPil)

    name = "tiny-llava-next"
    shape = {
        "text": {**_TINY, "vocab_size": 260},
        "vision": {**_TINY, "image_size": 56, "patch_size": 14, "projection_dim": 64},
        "image_token": 257,
        "more": {"image_grid_pinpoints": [[56, 112], [112, 56], [112, 112]]},
    }


@hookimpl
def fairbench_backbones() -> list[type[Backbone]]:
    """Offer the family."""
    return [
        *(TinyLlava, TinyLlavaNext, LlavaFolder, LlavaNextFolder),
        *(Llava7B, Llava13B, LlavaMed7B, LlavaNext7B, LlavaNextMistral7B),
    ]
