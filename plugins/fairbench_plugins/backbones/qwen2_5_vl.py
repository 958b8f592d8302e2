"""Qwen2.5-VL (arXiv 2502.13923): full sizes, any folder, and a tiny one that needs no download."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from fairbench import (
    Backbone,
    Count,
    FairbenchError,
    Family,
    Inputs,
    Pretrained,
    Stage,
    Tiny,
    hookimpl,
    text_positions,
    tiny_tokenizer,
)

IMAGE, START, END = "<|image_pad|>", "<|vision_start|>", "<|vision_end|>"
SPECIAL = (IMAGE, START, END, "<|im_start|>", "<|im_end|>", "<|video_pad|>")
# The last newline stands in an expression, because a bare one at the end of a template is stripped.
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% for part in message.content %}{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}{{ '<|im_start|>assistant\n' }}"
)


class Qwen25VL(Family):
    """A Qwen2.5-VL of any size. Images keep their proportions within `min_pixels` and `max_pixels`."""

    architecture = Qwen2_5_VLForConditionalGeneration
    image_processor = Qwen2VLImageProcessorPil
    image = IMAGE
    recipe: ClassVar = (Stage(name="lora", train=("lora", "head"), epochs=3, lr=1e-4, warmup=100),)

    min_pixels: Count = 256 * 28 * 28
    max_pixels: Count = 576 * 28 * 28

    def config(self) -> Qwen2_5_VLConfig:
        """Return the configuration of this size, without reading the checkpoint."""
        shape = self.shape
        text = {
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": shape["mrope"]},
            **shape["text"],
        }
        tied = shape.get("tied", False)
        return Qwen2_5_VLConfig(
            text_config={**text, "tie_word_embeddings": tied},
            vision_config={"out_hidden_size": text["hidden_size"], **shape["vision"]},
            tie_word_embeddings=tied,
            **shape.get("tokens", {}),
        )

    def ready(self, tokenizer: Any, processor: Any) -> None:
        """Take the tokenizer, which must know the chat's format, and bound the image's size."""
        super().ready(tokenizer, processor)
        if not tokenizer.chat_template:
            raise FairbenchError(
                f"{self.name}: the tokenizer has no chat template",
                "copy chat_template.jinja or tokenizer_config.json",
            )
        processor.size = {"shortest_edge": self.min_pixels, "longest_edge": self.max_pixels}

    @property
    def tokens(self) -> int:
        """The most image tokens, and a prompt."""
        return self.max_pixels // 28**2 + 40

    def prepare(self, image: Image.Image, prompt: str) -> Inputs:
        """Cut the image into patches and put as many image tokens into the chat prompt."""
        pixels = self.processor(images=[image], return_tensors="pt")
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        text = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        count = int(pixels["image_grid_thw"].prod()) // self.processor.merge_size**2
        return {
            "input_ids": self.read(text, count),
            "pixel_values": pixels["pixel_values"],
            "image_grid_thw": pixels["image_grid_thw"],
        }

    def encode(self, inputs: Inputs) -> Tensor:
        """Return merged visual tokens."""
        seen = self.model.model.get_image_features(
            inputs["pixel_values"], inputs["image_grid_thw"], return_dict=True
        )
        return torch.cat(list(seen.pooler_output))

    def positions(self, inputs: Inputs) -> Tensor:
        """Return the text's positions and the three axes' (time, height, width): (4, B, T)."""
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        axes, _ = self.model.model.get_rope_index(
            ids,
            mm_token_type_ids=(ids == self.image_token_id).int(),
            image_grid_thw=inputs["image_grid_thw"],
            attention_mask=mask,
        )
        return torch.cat([text_positions(mask)[None], axes])


_VISION = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16}


class Qwen25VLFolder(Pretrained, Qwen25VL):
    """Any Qwen2.5-VL on disk: `qwen2.5-vl:FOLDER`."""

    name = "qwen2.5-vl"


class Qwen25VL7B(Qwen25VLFolder):
    """The glaucoma paper's backbone."""

    name = "qwen2.5-vl-7b"
    checkpoint = "Qwen/Qwen2.5-VL-7B-Instruct"
    shape = {
        "text": {
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "vocab_size": 152064,
        },
        "vision": _VISION,
        "mrope": [16, 24, 24],
    }


class Qwen25VL3B(Qwen25VLFolder):
    """The smallest official size."""

    name = "qwen2.5-vl-3b"
    checkpoint = "Qwen/Qwen2.5-VL-3B-Instruct"
    shape = {
        "text": {
            "hidden_size": 2048,
            "intermediate_size": 11008,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "vocab_size": 151936,
        },
        "vision": _VISION,
        "mrope": [16, 24, 24],
        "tied": True,
    }


class TinyQwen25VL(Tiny, Qwen25VL):
    """The real architecture with 1.6 million random weights, frozen but for LoRA and head: no download."""

    name = "tiny-qwen2.5-vl"
    chat = TEMPLATE
    min_pixels: Count = 112 * 112
    max_pixels: Count = 112 * 112
    batch_size = 16
    recipe = (Stage(name="lora", train=("lora", "head"), epochs=4, lr=2e-3, warmup=20),)
    shape = {
        "text": {
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": 264,
            "bos_token_id": None,
            "eos_token_id": 261,
        },
        "vision": {
            "depth": 4,
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_heads": 4,
            "fullatt_block_indexes": [1, 3],
        },
        "mrope": [4, 6, 6],
        "tokens": {
            "image_token_id": 257,
            "vision_start_token_id": 258,
            "vision_end_token_id": 259,
            "video_token_id": 262,
        },
    }

    def tokenizer_and_processor(self) -> tuple[Any, Any]:
        """Make a tokenizer of bytes and the image processor."""
        return tiny_tokenizer(SPECIAL, TEMPLATE, end="<|im_end|>"), Qwen2VLImageProcessorPil()


@hookimpl
def fairbench_backbones() -> list[type[Backbone]]:
    """Offer the family."""
    return [TinyQwen25VL, Qwen25VLFolder, Qwen25VL3B, Qwen25VL7B]
