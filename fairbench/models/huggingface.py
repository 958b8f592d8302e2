"""Families of backbones that transformers implements: what their sizes, any folder and a tiny one have in common.

One class says how the family reads and sees. `Pretrained` beside it loads a checkpoint, `Tiny` draws one.
"""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from fairbench.errors import FairbenchError
from fairbench.models.backbone import Backbone
from fairbench.models.checkpoint import checkpoint_fingerprint, configuration, from_checkpoint, locate, revision_of

BITS = {"8bit": 8, "4bit": 4}


class Family(Backbone):
    """A `…ForConditionalGeneration` of transformers, with a tokenizer and an image processor."""

    architecture: ClassVar[Any]  # the model class
    image_processor: ClassVar[Any]  # the image processor's class; one for PIL gives the same pixels everywhere
    shape: ClassVar[Mapping[str, Any]]  # of one size, for `config`
    image: ClassVar[str] = "<image>"  # the token that stands for the image in a prompt

    @abstractmethod
    def config(self) -> Any:
        """Return the configuration of this size, without reading a checkpoint."""

    def construct(self) -> None:
        """Build the architecture with whatever weights the current device context gives."""
        self.model = self.architecture(self.config())

    def ready(self, tokenizer: Any, processor: Any) -> None:
        """Take the tokenizer and the image processor, once the model is there."""
        self.tokenizer, self.processor = tokenizer, processor
        self.image_token_id = self.model.config.image_token_id  # type: ignore[union-attr, assignment]
        self.pad_token_id = tokenizer.pad_token_id or 0
        self.end_token_id = tokenizer.eos_token_id
        if tokenizer.convert_tokens_to_ids(self.image) != self.image_token_id or self.end_token_id is None:
            raise FairbenchError(
                f"{self.name}: the tokenizer lacks {self.image} as token {self.image_token_id}, or an end token",
                "the tokenizer in the folder belongs to another checkpoint; copy this one's own",
            )

    @property
    def language_model(self) -> nn.Module:
        """The decoder."""
        return self.model.model.language_model  # type: ignore[union-attr, return-value]

    def tokenise(self, text: str) -> list[int]:
        """Return token ids, without special tokens of the tokenizer's own accord."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def detokenise(self, ids: Sequence[int]) -> str:
        """Return the text of token ids."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def read(self, text: str, count: int) -> Tensor:
        """Return the token ids, (T,), of a whole chat whose one image takes `count` tokens.

        The text is tokenised in one piece, as the family's own processor does: pieces would each get a start.
        """
        if text.count(self.image) != 1:
            raise FairbenchError(f"{self.name}: a prompt must not hold {self.image}, which stands for the image")
        return torch.tensor(self.tokenizer(text.replace(self.image, self.image * count))["input_ids"])

    def vocabulary_scores(self, hidden: Tensor) -> Tensor:
        """Apply the language-model head."""
        head = self.model.get_output_embeddings()  # type: ignore[operator]
        scores: Tensor = head(hidden.to(head.weight.dtype))
        return scores


class Pretrained(Family):
    """A family with real weights: those of `checkpoint`, or of the folder that NAME:FOLDER gives it.

    `revision` picks a branch, tag or commit of a checkpoint on the hub. Nothing comes from the network
    unless `download` says so, which belongs to no job's key: where weights come from changes no result.
    """

    checkpoint: ClassVar[str] = ""  # a name on the hub; empty: the folder must be given
    conversion: ClassVar[str] = ""  # how to get such a folder, where the official weights are in another format
    takes_folder: ClassVar[bool] = True
    unkeyed: ClassVar[tuple[str, ...]] = ("download",)

    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = "auto"
    quantise: Literal["none", "8bit", "4bit"] = "none"
    revision: str = ""
    download: bool = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.needs_root = not cls.checkpoint

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.root: Path | None = None  # where the folder that was given lies

    def folder(self) -> Path:
        """Return where the checkpoint lies on this machine; raises FairbenchError when it does not."""
        return locate(str(self.root or self.checkpoint), self.revision, self.download)

    def construct(self) -> None:
        """Build the architecture: of a folder that was given as its config.json says, else of this size."""
        self.model = self.architecture(self.config() if self.root is None else self._configured(self.folder()))

    def load(self, dtype: torch.dtype) -> None:
        """Read the checkpoint from a folder or the Hugging Face cache."""
        options = self._options(dtype)
        folder = self.folder()
        self._configured(folder)
        self.model, tokenizer, processor = from_checkpoint(
            folder, self.architecture, self.image_processor, dtype, **options
        )
        if self.quantise != "none":  # what peft asks the module that it adapts
            setattr(self.language_model, f"is_loaded_in_{self.quantise}", True)
        self.facts = {
            "attention": self.model.config._attn_implementation,  # type: ignore[union-attr]
            **({"revision": revision_of(folder)} if revision_of(folder) else {}),
        }
        self.ready(tokenizer, processor)

    def fingerprint(self) -> str:
        """Hash the checkpoint's files."""
        return checkpoint_fingerprint(self.folder())

    def weight_bytes(self, width: float) -> float:
        """Return the bytes of a frozen weight; what stays unquantised is too little to matter in an estimate."""
        return BITS[self.quantise] / 8 if self.quantise in BITS else width

    def unsupported(self, config: Mapping[str, Any]) -> str | None:
        """Say what a checkpoint's config.json describes, where it has the right type and cannot be held."""
        return None

    def _configured(self, folder: Path) -> Any:
        reason = self.unsupported(configuration(folder, self.architecture))
        if reason:
            raise FairbenchError(f"checkpoint {folder} is {reason}", self.conversion)
        return self.architecture.config_class.from_pretrained(folder, local_files_only=True)

    def _options(self, dtype: torch.dtype) -> dict[str, Any]:
        """Return how transformers shall load; raises FairbenchError for what this machine cannot do."""
        options: dict[str, Any] = {}
        if self.attention == "flash_attention_2":
            from transformers.utils import is_flash_attn_2_available

            if not is_flash_attn_2_available() or dtype == torch.float32:
                raise FairbenchError(
                    f"{self.name}.attention = flash_attention_2 needs bfloat16, a GPU and flash-attn",
                    "pip install flash-attn, --set run.precision=bfloat16, or leave `attention` at auto",
                )
        if self.attention != "auto":
            options["attn_implementation"] = self.attention
        if self.quantise != "none":
            options["quantization_config"] = self._quantisation(dtype)
        return options

    def _quantisation(self, dtype: torch.dtype) -> Any:
        from transformers import BitsAndBytesConfig

        absent = [] if find_spec("bitsandbytes") else ["the package bitsandbytes"]
        absent += [] if torch.cuda.is_available() else ["a CUDA GPU"]
        if absent:
            raise FairbenchError(
                f"{self.name}.quantise = {self.quantise} needs {' and '.join(absent)}, not found here",
                "pip install 'fairbench[quantised]' on a machine with a GPU, or leave `quantise` at none",
            )
        kept = self.outside_the_language_model()
        if self.quantise == "8bit":
            return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept)
        # NF4 with double quantisation, as QLoRA (arXiv 2305.14314); this list skips modules at 4 bits as well.
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
            llm_int8_skip_modules=kept,
        )

    def outside_the_language_model(self) -> list[str]:
        """Name the modules that stay as they are: vision, so that features do, the projector and the head."""
        with torch.device("meta"):
            self.construct()
        names = {id(module): name for name, module in self.model.named_modules()}
        path = names[id(self.language_model)].split(".")
        kept = []
        for depth, step in enumerate(path):
            parent = self.model.get_submodule(".".join(path[:depth]))
            kept += [".".join([*path[:depth], name]) for name, _ in parent.named_children() if name != step]
        return kept


class Tiny(Family):
    """A family's real architecture with random weights from a fixed seed: needs no download and learns little."""

    chat: ClassVar[str]  # the chat's format, which with the shape decides what the model is

    @abstractmethod
    def tokenizer_and_processor(self) -> tuple[Any, Any]:
        """Make a tokenizer and an image processor in code."""

    def load(self, dtype: torch.dtype) -> None:
        """Draw the weights, always the same."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.construct()
        self.model.to(dtype)
        self.ready(*self.tokenizer_and_processor())

    def attach(self, classes: Sequence[str], words: Sequence[str], generates: bool = False) -> None:
        """Add what is trained; where it `generates`, widen the language-model head tenfold.

        As drawn, a random head this narrow gives no token more than 5 %, whatever the hidden states say.
        """
        super().attach(classes, words, generates)
        if generates:
            self.model.get_output_embeddings().weight.data.mul_(10.0)  # type: ignore[operator]

    def fingerprint(self) -> str:
        """Hash shape and chat: the weights follow from the shape."""
        return hashlib.sha256(json.dumps([self.shape, self.chat], sort_keys=True).encode()).hexdigest()[:16]
