"""Qwen2.5-VL (arXiv 2502.13923): full sizes, any folder, and a tiny one that needs no download."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from fairbench import (
    Backbone,
    Count,
    Family,
    OmittedPart,
    Pretrained,
    Stage,
    Tiny,
    hookimpl,
    images_and_text,
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

    def ready(self, processor: Any) -> None:
        """Take the processor, and bound the image's size."""
        super().ready(processor)
        processor.image_processor.size = {"shortest_edge": self.min_pixels, "longest_edge": self.max_pixels}

    @property
    def tokens(self) -> int:
        """The most image tokens, and a prompt."""
        return self.max_pixels // 28**2 + 40


_VISION = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16}


def _shape(
    width: int, inner: int, layers: int, heads: int, key_heads: int, vocabulary: int, **further: Any
) -> dict[str, Any]:
    """Return an official size: its decoder, and the vision tower that all of them share."""
    decoder = {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "vocab_size": vocabulary,
    }
    return {"text": decoder, "vision": _VISION, "mrope": [16, 24, 24], **further}


class Qwen25VLFolder(Pretrained, Qwen25VL):
    """Any Qwen2.5-VL on disk: `qwen2.5-vl:FOLDER`."""

    name = "qwen2.5-vl"


class Qwen25VL7B(Qwen25VLFolder):
    """The glaucoma paper's backbone."""

    name = "qwen2.5-vl-7b"
    checkpoint = "Qwen/Qwen2.5-VL-7B-Instruct"
    shape = _shape(width=3584, inner=18944, layers=28, heads=28, key_heads=4, vocabulary=152064)


class Qwen25VL3B(Qwen25VLFolder):
    """The smallest official size."""

    name = "qwen2.5-vl-3b"
    checkpoint = "Qwen/Qwen2.5-VL-3B-Instruct"
    shape = _shape(width=2048, inner=11008, layers=36, heads=16, key_heads=2, vocabulary=151936, tied=True)


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

    def make_processor(self) -> Any:
        """Make a tokenizer of bytes and the processor."""
        tokenizer = tiny_tokenizer(SPECIAL, TEMPLATE, end="<|im_end|>")
        made = images_and_text(Qwen2_5_VLProcessor)
        return made(Qwen2VLImageProcessorPil(), tokenizer, OmittedPart(), chat_template=TEMPLATE)


@hookimpl
def fairbench_backbones() -> list[type[Backbone]]:
    """Offer the family."""
    return [TinyQwen25VL, Qwen25VLFolder, Qwen25VL3B, Qwen25VL7B]
