"""Which models of transformers can be computed from image features kept beforehand, and why others cannot."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

ENCODER_DECODER = "an encoder-decoder: answers are not the continuation of a sequence that holds the image"
CROSS_ATTENTION = "a cross-attention model: its images are no tokens of the sequence"
NO_FEATURES = "which takes no image features computed before (`mm_encoder_outputs`)"
REASONS = {
    "blip": CROSS_ATTENTION,
    "evolla": CROSS_ATTENTION,
    "idefics": CROSS_ATTENTION,
    "mllama": CROSS_ATTENTION,
    "diffusion_gemma": "a diffusion model: it writes a block at a time, not a token after the others",
    "mistral4": "which takes no images",
    "pi0": "a model of actions",
}
SEQUENCE_TO_SEQUENCE = ("florence2", "pix2struct", "pp_formulanet", "t5gemma2", "udop", "vision-encoder-decoder")


def architecture_of(config: Any) -> Any:
    """Return the class that transformers has for a configuration."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    return MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)]


def unsupported(config: Mapping[str, Any]) -> str | None:
    """Say why a checkpoint's config.json describes nothing that a `Family` can hold; None if it may."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    )

    kind, text = str(config.get("model_type")), config.get("text_config")
    if kind not in CONFIG_MAPPING:
        reason = "which this transformers does not know; code that a checkpoint brings is never run"
    elif kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        reason = "which is no model of images and text"
    elif kind in SEQUENCE_TO_SEQUENCE or (isinstance(text, dict) and text.get("is_encoder_decoder")):
        reason = ENCODER_DECODER
    elif kind in REASONS:
        reason = REASONS[kind]
    else:
        model = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[CONFIG_MAPPING[kind]]
        if "mm_encoder_outputs" in inspect.signature(model.forward).parameters:
            return None
        reason = NO_FEATURES
    return f"of type {kind}, {reason}"
