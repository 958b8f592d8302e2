"""Qwen2.5-VL (arXiv 2502.13923): full sizes from a checkpoint, and a tiny one that needs none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from fairbench import (
    Backbone,
    Count,
    Inputs,
    Stage,
    checkpoint_fingerprint,
    from_checkpoint,
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


class Qwen25VL(Backbone):
    """A Qwen2.5-VL of any size. Images keep their proportions within `min_pixels` and `max_pixels`."""

    shape: ClassVar[dict[str, Any]]
    checkpoint: str
    min_pixels: Count = 256 * 28 * 28
    max_pixels: Count = 576 * 28 * 28

    recipe: ClassVar = (Stage(name="lora", train=("lora", "head"), epochs=3, lr=1e-4, warmup=100),)

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

    def construct(self) -> None:
        """Build the architecture with whatever weights the current device context gives."""
        self.model = Qwen2_5_VLForConditionalGeneration(self.config())

    def load(self, dtype: torch.dtype) -> None:
        """Read the checkpoint from a folder or the Hugging Face cache."""
        self.model, self.tokenizer, self.processor = from_checkpoint(
            self.checkpoint, Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessorPil, dtype
        )
        self._finish()

    def _finish(self) -> None:
        self.image_token_id = self.model.config.image_token_id
        self.pad_token_id = self.tokenizer.pad_token_id
        self.end_token_id = self.tokenizer.eos_token_id
        self.processor.size = {"shortest_edge": self.min_pixels, "longest_edge": self.max_pixels}

    def fingerprint(self) -> str:
        """Hash the checkpoint's files."""
        return checkpoint_fingerprint(self.checkpoint)

    @property
    def language_model(self) -> nn.Module:
        """The decoder."""
        return self.model.model.language_model

    @property
    def tokens(self) -> int:
        """The most image tokens, and a prompt."""
        return self.max_pixels // 28**2 + 40

    def tokenise(self, text: str) -> list[int]:
        """Return token ids."""
        return self.tokenizer.encode(text, add_special_tokens=False)

    def detokenise(self, ids: Sequence[int]) -> str:
        """Return the text of token ids."""
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def prepare(self, image: Image.Image, prompt: str) -> Inputs:
        """Cut the image into patches and put as many image tokens into the chat prompt."""
        pixels = self.processor(images=[image], return_tensors="pt")
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        text = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        count = int(pixels["image_grid_thw"].prod()) // self.processor.merge_size**2
        ids = self.tokenise(text.replace(IMAGE, IMAGE * count))
        return {
            "input_ids": torch.tensor(ids),
            "pixel_values": pixels["pixel_values"],
            "image_grid_thw": pixels["image_grid_thw"],
        }

    def see(self, inputs: Inputs) -> Tensor:
        """Return merged visual tokens."""
        seen = self.model.model.get_image_features(
            inputs["pixel_values"], inputs["image_grid_thw"], return_dict=True
        )
        return torch.cat(list(seen.pooler_output))

    def embed(self, inputs: Inputs, features: Tensor) -> Tensor:
        """Place the visual tokens in the prompt."""
        ids = inputs["input_ids"]
        embedded = self.language_model.get_input_embeddings()(ids)
        return embedded.masked_scatter((ids == self.image_token_id)[..., None], features.to(embedded.dtype))

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

    def vocabulary_scores(self, hidden: Tensor) -> Tensor:
        """Apply the language-model head."""
        return self.model.lm_head(hidden.to(self.model.lm_head.weight.dtype))


_VISION = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16}


class Qwen25VL7B(Qwen25VL):
    """The glaucoma paper's backbone."""

    name = "qwen2.5-vl-7b"
    title = "Qwen2.5-VL-7B-Instruct"
    checkpoint: str = "Qwen/Qwen2.5-VL-7B-Instruct"
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


class Qwen25VL3B(Qwen25VL):
    """The smallest official size."""

    name = "qwen2.5-vl-3b"
    title = "Qwen2.5-VL-3B-Instruct"
    checkpoint: str = "Qwen/Qwen2.5-VL-3B-Instruct"
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


class TinyQwen25VL(Qwen25VL):
    """The real architecture with 1.6 million random weights, frozen but for LoRA and head: no download."""

    name = "tiny-qwen2.5-vl"
    title = "Qwen2.5-VL, tiny and random"
    checkpoint: str = "none: random weights from a fixed seed"
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

    def load(self, dtype: torch.dtype) -> None:
        """Draw the weights from a fixed seed and make tokenizer and processor in code."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.construct()
        self.model.to(dtype)
        self.tokenizer = tiny_tokenizer(SPECIAL, TEMPLATE, end="<|im_end|>")
        self.processor = Qwen2VLImageProcessorPil()
        self._finish()

    def fingerprint(self) -> str:
        """Hash shape and prompt: the weights follow from the shape."""
        return hashlib.sha256(json.dumps([self.shape, TEMPLATE], sort_keys=True).encode()).hexdigest()[:16]


@hookimpl
def fairbench_backbones() -> list[type[Backbone]]:
    """Offer the family."""
    return [TinyQwen25VL, Qwen25VL3B, Qwen25VL7B]
