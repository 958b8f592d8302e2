"""LLaVA-1.5 (arXiv 2310.03744): full sizes from a checkpoint, and a tiny one that needs none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from fairbench import (
    Backbone,
    Inputs,
    Stage,
    checkpoint_fingerprint,
    from_checkpoint,
    hookimpl,
    tiny_tokenizer,
)

IMAGE = "<image>"
# Vicuna's first template, as LLaVA-1.5 and FairLLaVA use it (methods' papers fix it, so a setting would only hurt).
PROMPT = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the user's questions. USER: <image>\n{prompt} ASSISTANT:"
)
BRIEF = "USER: <image>\n{prompt} ASSISTANT:"


class Llava(Backbone):
    """A LLaVA-1.5 of any size: a CLIP tower, a two-layer projector (trainable on request), a Llama."""

    shape: ClassVar[dict[str, Any]]
    template: ClassVar[str] = PROMPT
    checkpoint: str

    recipe: ClassVar = (
        Stage(name="projector", train=("projector", "head"), epochs=1, lr=1e-3, warmup=30),
        Stage(name="lora", train=("lora", "projector", "head"), epochs=3, lr=1e-4, warmup=100, decay="cosine"),
    )

    def config(self) -> LlavaConfig:
        """Return the configuration of this size, without reading the checkpoint."""
        return LlavaConfig(
            vision_config=CLIPVisionConfig(**self.shape["vision"]),
            text_config=LlamaConfig(**self.shape["text"]),
            image_token_index=self.shape["image_token"],
            vision_feature_layer=-2,
        )

    def construct(self) -> None:
        """Build the architecture with whatever weights the current device context gives."""
        self.model = LlavaForConditionalGeneration(self.config())

    def load(self, dtype: torch.dtype) -> None:
        """Read the checkpoint from a folder or the Hugging Face cache."""
        self.model, self.tokenizer, self.processor = from_checkpoint(
            self.checkpoint, LlavaForConditionalGeneration, CLIPImageProcessorPil, dtype
        )
        self._finish()

    def _finish(self) -> None:
        config = self.model.config
        self.image_token_id = config.image_token_index
        self.pad_token_id = self.tokenizer.pad_token_id or 0
        self.end_token_id = self.tokenizer.eos_token_id
        side = config.vision_config.image_size // config.vision_config.patch_size
        self.image_tokens = side * side

    def fingerprint(self) -> str:
        """Hash the checkpoint's files."""
        return checkpoint_fingerprint(self.checkpoint)

    @property
    def language_model(self) -> nn.Module:
        """The decoder."""
        return self.model.model.language_model

    def projector(self) -> nn.Module:
        """The two layers between CLIP and Llama."""
        return self.model.model.multi_modal_projector

    @property
    def tokens(self) -> int:
        """One for each patch, and a prompt."""
        return (self.shape["vision"]["image_size"] // self.shape["vision"]["patch_size"]) ** 2 + 50

    def tokenise(self, text: str) -> list[int]:
        """Return token ids."""
        return self.tokenizer.encode(text, add_special_tokens=False)

    def detokenise(self, ids: Sequence[int]) -> str:
        """Return the text of token ids."""
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def prepare(self, image: Image.Image, prompt: str) -> Inputs:
        """Resize and crop as CLIP does, and put one image token per patch into the prompt."""
        pixels = self.processor(images=[image], return_tensors="pt")["pixel_values"]
        before, after = self.template.format(prompt=prompt).split(IMAGE)
        start = [] if self.tokenizer.bos_token_id is None else [self.tokenizer.bos_token_id]
        ids = start + self.tokenise(before) + [self.image_token_id] * self.image_tokens + self.tokenise(after)
        return {"input_ids": torch.tensor(ids), "pixel_values": pixels}

    def see(self, inputs: Inputs) -> Tensor:
        """Return the CLIP tower's features of the chosen layer, without its class token."""
        tower = self.model.model.vision_tower
        pixels = inputs["pixel_values"].to(tower.dtype)
        hidden = tower(pixels, output_hidden_states=True).hidden_states[self.model.config.vision_feature_layer]
        return hidden[:, 1:].flatten(0, 1)

    def embed(self, inputs: Inputs, features: Tensor) -> Tensor:
        """Project the features into the prompt."""
        ids = inputs["input_ids"]
        embedded = self.language_model.get_input_embeddings()(ids)
        weight = next(self.projector().parameters())
        visual = self.projector()(features.to(weight.dtype)).to(embedded.dtype)
        return embedded.masked_scatter((ids == self.image_token_id)[..., None], visual)

    def vocabulary_scores(self, hidden: Tensor) -> Tensor:
        """Apply the language-model head."""
        return self.model.lm_head(hidden.to(self.model.lm_head.weight.dtype))


_VISION = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "projection_dim": 768,
}


class Llava7B(Llava):
    """FairLLaVA's family."""

    name = "llava-1.5-7b"
    title = "LLaVA-1.5-7B"
    checkpoint: str = "llava-hf/llava-1.5-7b-hf"
    shape = {"text": {"vocab_size": 32064}, "vision": _VISION, "image_token": 32000}


class Llava13B(Llava):
    """The larger size."""

    name = "llava-1.5-13b"
    title = "LLaVA-1.5-13B"
    checkpoint: str = "llava-hf/llava-1.5-13b-hf"
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


class TinyLlava(Llava):
    """The real architecture with a million random weights, frozen but for LoRA, projector and head: no download."""

    name = "tiny-llava"
    title = "LLaVA-1.5, tiny and random"
    checkpoint: str = "none: random weights from a fixed seed"
    template = BRIEF
    batch_size = 16
    recipe = (Stage(name="lora", train=("lora", "projector", "head"), epochs=4, lr=1e-3, warmup=20),)
    shape = {
        "text": {
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "vocab_size": 260,
        },
        "vision": {
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "image_size": 112,
            "patch_size": 28,
            "projection_dim": 64,
        },
        "image_token": 257,
    }

    def load(self, dtype: torch.dtype) -> None:
        """Draw the weights from a fixed seed and make tokenizer and processor in code."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.construct()
        self.model.to(dtype)
        self.tokenizer = tiny_tokenizer([IMAGE], "")
        size = self.shape["vision"]["image_size"]
        self.processor = CLIPImageProcessorPil(
            size={"shortest_edge": size}, crop_size={"height": size, "width": size}
        )
        self._finish()

    def fingerprint(self) -> str:
        """Hash shape and prompt: the weights follow from the shape."""
        return hashlib.sha256(json.dumps([self.shape, self.template], sort_keys=True).encode()).hexdigest()[:16]


@hookimpl
def fairbench_backbones() -> list[type[Backbone]]:
    """Offer the family."""
    return [TinyLlava, Llava7B, Llava13B]
