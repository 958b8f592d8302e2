"""Small random checkpoints of the vision-language architectures of transformers, in the format of the hub.

Each is saved as the hub has it (config.json, safetensors, tokenizer, chat template, image processor), loaded as
`vlm:FOLDER`, and compared with transformers' own model and processor by backbone_equality.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

from fairbench import OmittedPart, images_and_text

END, PAD, START = "<|im_end|>", "<|pad|>", "<|s|>"
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 320,
    "max_position_embeddings": 4096,
    "initializer_range": 0.15,  # so wide that no two tokens are nearly equally likely
    "bos_token_id": 256,
    "eos_token_id": 258,
    "pad_token_id": 257,
}
VISION = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "initializer_range": 0.1,
}
SQUARE = {"height": 56, "width": 56}
ROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}


@dataclass(frozen=True)
class Architecture:
    """One architecture: its configuration, its processor given a tokenizer, and how its prompts show an image."""

    kind: str  # `model_type`
    config: Callable[[], dict[str, Any]]  # given the tokenizer's ids
    processor: Callable[[Any], dict[str, Any]]
    image: str  # what stands for the image in a chat
    tokens: tuple[str, ...] = ()  # special tokens besides
    named: tuple[tuple[str, str], ...] = ()  # special tokens that the processor asks the tokenizer for by name
    template: bool = True  # whether there is a chat template


def tokenizer(case: Architecture) -> Any:
    """Make a tokenizer of bytes with special tokens: 256 starts a text, 257 pads, 258 ends an answer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    named = dict(case.named)
    made.add_special_tokens(list(dict.fromkeys([START, PAD, END, "<|im_start|>", *case.tokens, *named.values()])))
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token=START,
        pad_token=PAD,
        eos_token=END,
        extra_special_tokens=named,
        additional_special_tokens=None,
    )
    if case.template:
        fast.chat_template = (
            "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
            "{% if part['type'] == 'image' %}" + case.image + "{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
            "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
        )
    return fast


def images(name: str, **own: Any) -> Any:
    """Make an image processor in the PIL backend."""
    from transformers.models.auto.image_processing_auto import get_image_processor_class_from_name

    return get_image_processor_class_from_name(f"{name}ImageProcessorPil")(**own)


def save(case: Architecture, folder: Path) -> Path:
    """Write a checkpoint of drawn weights in the official format."""
    words = tokenizer(case)
    identify = words.convert_tokens_to_ids
    config = transformers.AutoConfig.for_model(case.kind, **case.config(identify))
    model = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = model(config)
        with torch.no_grad():
            for parameter in drawn.parameters():  # some start at zero, which would hide what they do
                if parameter.dim() and not parameter.any():
                    parameter.normal_(0, 0.05)
    drawn.generation_config.eos_token_id = [words.eos_token_id, identify("<|im_start|>")]
    drawn.save_pretrained(folder)
    words.save_pretrained(folder)
    name, own = case.processor()
    kind = images_and_text(getattr(transformers, name))
    parts = {part: OmittedPart() for part in kind.get_attributes()}
    parts |= {"tokenizer": words, "chat_template": words.chat_template, **own}
    processor = kind(**parts)
    processor.image_processor.save_pretrained(folder)
    settings = {k: v for k, v in own.items() if k != "image_processor"}
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": name, **settings}))
    return folder


def qwen(kind: str, processor: str, text: dict[str, Any], vision: dict[str, Any], patch: int = 14) -> Architecture:
    """Return a model of Qwen's format: patches in rows of two by two, positions on three axes."""

    def config(ids: Callable[[str], int]) -> dict[str, Any]:
        return {
            "text_config": {**TEXT, "rope_parameters": ROPE, **text},
            "vision_config": {"depth": 3, "num_heads": 4, "patch_size": patch, "initializer_range": 0.1, **vision},
            "image_token_id": ids("<|image_pad|>"),
            "video_token_id": ids("<|video_pad|>"),
            "vision_start_token_id": ids("<|vision_start|>"),
            "vision_end_token_id": ids("<|vision_end|>"),
        }

    size = {"shortest_edge": (4 * patch) ** 2, "longest_edge": (8 * patch) ** 2}
    return Architecture(
        kind,
        config,
        lambda: (processor, {"image_processor": images("Qwen2VL", patch_size=patch, size=size)}),
        "<|vision_start|><|image_pad|><|vision_end|>",
        ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"),
    )


def glm(kind: str, name: str) -> Architecture:
    """Return a model of GLM-4V's format."""

    def config(ids: Callable[[str], int]) -> dict[str, Any]:
        return {
            "text_config": {**TEXT, "rope_parameters": {**ROPE, "partial_rotary_factor": 1.0}},
            "vision_config": {
                "depth": 3,
                "num_heads": 4,
                "hidden_size": 48,
                "intermediate_size": 64,
                "out_hidden_size": 64,
                "image_size": 56,
                "patch_size": 14,
                "initializer_range": 0.1,
            },
            "image_token_id": ids("<|image|>"),
            "video_token_id": ids("<|video|>"),
            "image_start_token_id": ids("<|begin_of_image|>"),
            "image_end_token_id": ids("<|end_of_image|>"),
            "video_start_token_id": ids("<|begin_of_video|>"),
            "video_end_token_id": ids("<|end_of_video|>"),
        }

    own = {"image_processor": images(name, size={"shortest_edge": 56 * 56, "longest_edge": 112 * 112 * 2})}
    frames = tuple(f"<|{edge}_of_{what}|>" for what in ("image", "video") for edge in ("begin", "end"))
    return Architecture(
        kind,
        config,
        lambda: (f"{name}Processor", own),
        "<|begin_of_image|><|image|><|end_of_image|>",
        ("<|image|>", "<|video|>", *frames),
    )


def towered(kind: str, tower: str, decoder: str, **more: Any) -> Callable[[Callable[[str], int]], dict[str, Any]]:
    """Return the configuration of a tower, a projector and a decoder, with `<image>` in the place of features."""
    size = more.pop("image_size", 56)
    vision = {**VISION, "model_type": tower, "image_size": size, "patch_size": 14, **more.pop("vision", {})}
    text = {**TEXT, "model_type": decoder, **more.pop("text", {})}
    token = more.pop("image_token", "<image>")
    return lambda ids: {"vision_config": vision, "text_config": text, "image_token_index": ids(token), **more}


GRID = [[56, 112], [112, 56], [112, 112], [168, 56]]
CROPPED = {"size": {"shortest_edge": 56}, "crop_size": SQUARE}
PATCHES = {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
GEMMA = (("image_token", "<image_soft_token>"), ("boi_token", "<start_of_image>"), ("eoi_token", "<end_of_image>"))
GEMMA_IDS = {"image_token_index": "<image_soft_token>", "boi_token_index": "<start_of_image>"}
GEMMA_IDS["eoi_token_index"] = "<end_of_image>"


def llava(kind: str, name: str, **own: Any) -> Callable[[], tuple[str, dict[str, Any]]]:
    """Return how the processor of a LLaVA is made."""
    return lambda: (name, {"image_processor": images(kind, **CROPPED, **own), **PATCHES})


def split_in_rows(name: str, processor: str) -> Architecture:
    """Idefics3 and what follows it: an image in tiles, rows and columns of which are named by tokens."""
    return Architecture(
        name,
        lambda ids: {
            "vision_config": {**VISION, "image_size": 56, "patch_size": 14},
            "text_config": {**TEXT, "model_type": "llama", "vocab_size": 400},
            "image_token_id": ids("<image>"),
            "scale_factor": 2,
        },
        lambda: (
            f"{processor}Processor",
            {
                "image_processor": images(
                    processor, size={"longest_edge": 112}, max_image_size={"longest_edge": 56}
                ),
                "image_seq_len": 4,
            },
        ),
        "<image>",
        (
            *("<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>"),
            *(f"<row_{i + 1}_col_{j + 1}>" for i in range(6) for j in range(6)),
        ),
    )


ARCHITECTURES = (
    qwen("qwen2_vl", "Qwen2VLProcessor", {}, {"embed_dim": 48, "hidden_size": 64, "mlp_ratio": 2}),
    qwen(
        "qwen2_5_vl",
        "Qwen2_5_VLProcessor",
        {},
        {"hidden_size": 48, "intermediate_size": 64, "out_hidden_size": 64, "fullatt_block_indexes": [1]},
    ),
    qwen(
        "qwen3_vl",
        "Qwen3VLProcessor",
        {},
        {
            "hidden_size": 48,
            "intermediate_size": 64,
            "out_hidden_size": 64,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1],
        },
        16,
    ),
    qwen(
        "qwen3_5",
        "Qwen3VLProcessor",
        {
            "head_dim": 32,
            "rope_parameters": {**ROPE, "partial_rotary_factor": 0.25, "mrope_section": [2, 1, 1]},
            "layer_types": ["linear_attention", "full_attention", "full_attention"],
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
        },
        {"hidden_size": 48, "intermediate_size": 64, "out_hidden_size": 64, "num_position_embeddings": 64},
        16,
    ),
    qwen(
        "qwen3_vl_moe",
        "Qwen3VLProcessor",
        {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "decoder_sparse_step": 1},
        {
            "hidden_size": 48,
            "intermediate_size": 64,
            "out_hidden_size": 64,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1],
        },
        16,
    ),
    glm("glm4v", "Glm4v"),
    glm("glm46v", "Glm46V"),
    Architecture(
        "llava",
        towered("llava", "clip_vision_model", "llama", vision_feature_layer=-2),
        llava("CLIP", "LlavaProcessor"),
        "<image>\n",
        ("<image>",),
    ),
    Architecture(
        "llava_next",
        towered("llava_next", "clip_vision_model", "mistral", vision_feature_layer=-2, image_grid_pinpoints=GRID),
        llava("LlavaNext", "LlavaNextProcessor", image_grid_pinpoints=GRID),
        "<image>\n",
        ("<image>",),
    ),
    Architecture(
        "llava_onevision",
        towered(
            "llava_onevision",
            "siglip_vision_model",
            "qwen2",
            vision={"vision_use_head": False},
            image_grid_pinpoints=GRID,
            video_token_index=319,
        ),
        lambda: (
            "LlavaOnevisionProcessor",
            {
                "image_processor": images("LlavaOnevision", size=SQUARE, image_grid_pinpoints=GRID),
                "num_image_tokens": 16,
                "vision_feature_select_strategy": "full",
            },
        ),
        "<image>\n",
        ("<image>", "<video>"),
    ),
    Architecture(
        "vipllava",
        towered("vipllava", "clip_vision_model", "llama", vision_feature_layers=[-2, -1]),
        llava("CLIP", "LlavaProcessor"),
        "<image>\n",
        ("<image>",),
    ),
    split_in_rows("idefics3", "Idefics3"),
    Architecture(
        "idefics2",
        lambda ids: {
            "vision_config": {**VISION, "image_size": 112, "patch_size": 14},
            "perceiver_config": {
                "hidden_size": 64,
                "resampler_n_latents": 4,
                "resampler_depth": 1,
                "resampler_n_heads": 2,
                "resampler_head_dim": 16,
                "num_key_value_heads": 1,
            },
            "text_config": {**TEXT, "model_type": "mistral", "sliding_window": None},
            "image_token_id": ids("<image>"),
        },
        lambda: (
            "Idefics2Processor",
            {
                "image_processor": images("Idefics2", size={"shortest_edge": 56, "longest_edge": 112}),
                "image_seq_len": 4,
            },
        ),
        "<image>",
        ("<fake_token_around_image>", "<image>", "<end_of_utterance>"),
    ),
    Architecture(
        "internvl",
        lambda ids: {
            "vision_config": {**VISION, "image_size": [56, 56], "patch_size": [14, 14]},
            "text_config": {**TEXT, "model_type": "qwen2"},
            "image_token_id": ids("<IMG_CONTEXT>"),
            "image_seq_length": 4,
        },
        lambda: (
            "InternVLProcessor",
            {
                "image_processor": images("GotOcr2", size=SQUARE, crop_to_patches=True, max_patches=4),
                "image_seq_length": 4,
            },
        ),
        "<IMG_CONTEXT>\n",
        (),
        (
            *(("start_image_token", "<img>"), ("end_image_token", "</img>")),
            *(("context_image_token", "<IMG_CONTEXT>"), ("video_token", "<video>")),
        ),
    ),
    Architecture(
        "gemma3",
        lambda ids: {
            "vision_config": {**VISION, "image_size": 56, "patch_size": 14, "vision_use_head": False},
            "text_config": {**TEXT, "query_pre_attn_scalar": 16, "sliding_window": 16},
            "mm_tokens_per_image": 4,
            "tie_word_embeddings": False,  # tied, so wide weights would repeat the last token
            **{key: ids(token) for key, token in GEMMA_IDS.items()},
        },
        lambda: ("Gemma3Processor", {"image_processor": images("Gemma3", size=SQUARE), "image_seq_length": 4}),
        "<start_of_image>",
        (),
        GEMMA,
    ),
    Architecture(
        "gemma4",
        lambda ids: {
            "vision_config": {
                **VISION,
                "num_key_value_heads": 4,
                "head_dim": 12,
                "patch_size": 14,
                "position_embedding_size": 64,
                "pooling_kernel_size": 2,
            },
            "text_config": {
                **TEXT,
                "sliding_window": 16,
                "hidden_size_per_layer_input": 8,
                "vocab_size_per_layer_input": 320,
                "layer_types": ["sliding_attention", "full_attention", "full_attention"],
            },
            "audio_config": None,
            "image_token_id": ids("<image_soft_token>"),
            "boi_token_id": ids("<start_of_image>"),
            "eoi_token_id": ids("<end_of_image>"),
            "video_token_id": ids("<|video|>"),
            "audio_token_id": 319,
        },
        lambda: (
            "Gemma4Processor",
            {
                "image_processor": images("Gemma4", patch_size=14, max_soft_tokens=70, pooling_kernel_size=2),
                "image_seq_length": 70,
            },
        ),
        "<image_soft_token>",
        ("<|video|>",),
        (*GEMMA, ("audio_token", "<audio>"), ("boa_token", "<audio_start>"), ("eoa_token", "<audio_end>")),
    ),
    Architecture(
        "paligemma",
        lambda ids: {
            "vision_config": {
                **VISION,
                "image_size": 56,
                "patch_size": 14,
                "vision_use_head": False,
                "projection_dim": 64,
            },
            "text_config": {**TEXT, "model_type": "gemma", "vocab_size": 1600},
            "image_token_index": ids("<image>"),
            "projection_dim": 64,
            "hidden_size": 64,
        },
        lambda: ("PaliGemmaProcessor", {"image_processor": images("Siglip", size=SQUARE, image_seq_length=16)}),
        "<image>",
        (),
        (("image_token", "<image>"),),
        template=False,
    ),
    Architecture(
        "lighton_ocr",
        lambda ids: {
            "vision_config": {**VISION, "model_type": "pixtral", "image_size": 112, "patch_size": 14},
            "text_config": {**TEXT, "model_type": "qwen3"},
            "image_token_id": ids("<|image_pad|>"),
            "spatial_merge_size": 2,
        },
        lambda: (
            "LightOnOcrProcessor",
            {
                "image_processor": images("Pixtral", size={"longest_edge": 112}, patch_size=28),
                "patch_size": 14,
                "spatial_merge_size": 2,
            },
        ),
        "<|image_pad|>",
        (),
        (
            ("image_token", "<|image_pad|>"),
            ("image_break_token", "<|vision_pad|>"),
            ("image_end_token", "<|vision_end|>"),
        ),
    ),
    Architecture(
        "aya_vision",
        towered(
            "aya_vision",
            "siglip_vision_model",
            "cohere2",
            vision={"vision_use_head": False},
            text={"sliding_window": 16},
            downsample_factor=2,
            image_token="<|IMG_PATCH|>",
        ),
        lambda: (
            "AyaVisionProcessor",
            {
                "image_processor": images("GotOcr2", size=SQUARE, crop_to_patches=True, max_patches=4),
                "patch_size": 14,
                "img_size": 56,
                "downsample_factor": 2,
            },
        ),
        "<image>",
        (
            *("<image>", "<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>"),
            *("<|IMG_LINE_BREAK|>", "TILE", "TILE_GLOBAL", *(f"TILE_{i}" for i in range(1, 13))),
        ),
    ),
    Architecture(
        "ovis2",
        lambda ids: {
            "vision_config": {
                **VISION,
                "image_size": 56,
                "patch_size": 14,
                "vocab_size": 32,
                "num_visual_indicator_tokens": 5,
                "hidden_stride": 2,
            },
            "text_config": {**TEXT, "model_type": "qwen2"},
            "image_token_id": ids("<IMG_ATOM>"),
            "visual_indicator_token_ids": [ids(f"<IMG_{name}>") for name in ("START", "GRID", "COL", "ROW", "END")],
            "vocab_size": 320,
            "hidden_size": 64,
        },
        lambda: (
            "Ovis2Processor",
            {
                "image_processor": images("Ovis2", size=SQUARE, crop_to_patches=True, max_patches=4),
                "image_seq_length": 4,
            },
        ),
        "<image>\n",
        ("<image>", *(f"<IMG_{name}>" for name in ("ATOM", "START", "GRID", "COL", "ROW", "END"))),
    ),
    Architecture(
        "aria",
        lambda ids: {
            "vision_config": {**VISION, "model_type": "idefics3_vision", "image_size": 490, "patch_size": 70},
            "text_config": {**TEXT, "model_type": "aria_text", "moe_num_experts": 4, "moe_topk": 2},
            "image_token_index": ids("<image>"),
            "projector_patch_to_query_dict": {49: 4, 196: 8},
        },
        lambda: (
            "AriaProcessor",
            {
                "image_processor": images("Aria", max_image_size=490, min_image_size=56),
                "size_conversion": {490: 4, 980: 8},
            },
        ),
        "<image>",
        (),
        (("image_token", "<image>"),),
    ),
    Architecture(
        "deepseek_vl",
        lambda ids: {
            "vision_config": {
                **VISION,
                "model_type": "siglip_vision_model",
                "image_size": 56,
                "patch_size": 14,
                "vision_use_head": False,
            },
            "text_config": {**TEXT, "model_type": "llama"},
            "image_token_id": ids("<image>"),
        },
        lambda: (
            "DeepseekVLProcessor",
            {"image_processor": images("DeepseekVL", size=SQUARE), "num_image_tokens": 16},
        ),
        "<image>",
        (),
        (("image_token", "<image>"),),
    ),
    Architecture(
        "video_llama_3",
        lambda ids: {
            "vision_config": {**VISION, "patch_size": 14},
            "text_config": {**TEXT, "model_type": "qwen2"},
            "image_token_id": ids("<|image_pad|>"),
            "video_token_id": ids("<|video_pad|>"),
        },
        lambda: (
            "VideoLlama3Processor",
            {
                "image_processor": images(
                    "VideoLlama3", size={"shortest_edge": 56 * 56, "longest_edge": 112 * 112}, merge_size=2
                )
            },
        ),
        "<|image_pad|>",
        ("<|image_pad|>", "<|video_pad|>"),
    ),
    split_in_rows("smolvlm", "SmolVLM"),
    Architecture(
        "janus",
        lambda ids: {
            "vision_config": {**VISION, "image_size": 56, "patch_size": 14, "projection_dim": 64},
            "vq_config": {
                "embed_dim": 8,
                "num_embeddings": 16,
                "base_channels": 32,
                "channel_multiplier": [1, 1],
                "num_res_blocks": 1,
                "num_patches": 4,
                "projection_dim": 64,
                "image_token_embed_dim": 64,
            },
            "text_config": {**TEXT, "model_type": "llama"},
            "image_token_id": ids("<image>"),
        },
        lambda: (
            "JanusProcessor",
            {"image_processor": images("Janus", size=SQUARE), "num_image_tokens": 16},
        ),
        "<image>",
        (),
        (("image_token", "<image>"), ("boi_token", "<image_start>"), ("eoi_token", "<image_end>")),
    ),
    Architecture(
        "minicpmv4_6",
        lambda ids: {
            "vision_config": {**VISION, "image_size": 112, "patch_size": 14, "insert_layer_id": 1},
            "text_config": {**TEXT, "model_type": "qwen3"},
            "insert_layer_id": 1,
            "image_size": 112,
            "image_token_id": ids("<|image_pad|>"),
            "video_token_id": ids("<|video_pad|>"),
        },
        lambda: (
            "MiniCPMV4_6Processor",
            {"image_processor": images("MiniCPMV4_6", scale_resolution=112, max_slice_nums=4)},
        ),
        "<|image_pad|>",
        (),
        (
            *(("image_token", "<|image_pad|>"), ("video_token", "<|video_pad|>")),
            *(
                (f"{what}_{edge}_token", f"<{what}_{edge}>")
                for what in ("image", "slice")
                for edge in ("start", "end")
            ),
            *((f"image_id_{edge}_token", f"<image_id_{edge}>") for edge in ("start", "end")),
        ),
    ),
)

# What transformers 5.23 offers beside these. The images of the first are read by torchvision alone.
# fmt: off
TORCHVISION = (
    "cohere2_vision", "gemma4_unified", "inkling2", "inkling_mm_model", "kimi_k25",
    "lfm2_vl", "llama4", "minicpm_ocr", "minimax_m3_vl", "mistral3",
    "mistral_large4", "molmo2", "muse_glimmer", "muse_spark", "nemotron_h_omni",
    "perception_lm", "step3p7", "unlimited_ocr",
)
# Never drawn yet: each load is held against transformers' own forward pass, and refused where it differs.
UNTRIED = (
    "blip-2", "chameleon", "cohere_compass", "cosmos3_edge", "cosmos3_omni",
    "deepseek_ocr2", "deepseek_vl_hybrid", "dots3_note", "emu3", "ernie4_5_vl_moe",
    "exaone4_5", "fast_vlm", "fuyu", "gemma3n", "glm4v_moe",
    "glm5_next", "glm_ocr", "glmga", "got_ocr2", "granite4_vision",
    "granite_docling", "hunyuan_vl", "hyperclovax_vision_v2", "instructblip", "instructblipvideo",
    "lfm3_vl", "llava_next_video", "minicpmv4_7", "paddleocr_vl", "pp_chart2table",
    "qianfan_ocr", "qwen2_5_omni_thinker", "qwen3_5_moe", "qwen3_omni_moe_thinker", "qwen4_exp",
    "shieldgemma2", "video_llava",
)
# fmt: on
