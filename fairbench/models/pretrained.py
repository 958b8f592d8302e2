"""A checkpoint of transformers, from a folder or the local cache, as a `Family`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from fairbench.errors import FairbenchError
from fairbench.models.adapter import adapter_fingerprint, base_of, is_adapter, merged, provenance
from fairbench.models.checkpoint import (
    FROM_DISK,
    checkpoint_fingerprint,
    configuration,
    from_checkpoint,
    locate,
    reading,
    revision_of,
)
from fairbench.models.family import Family
from fairbench.models.processor import Pixels, load_processor
from fairbench.models.supported import architecture_of, unsupported

CONFIGURATION = ("config.json: ", "get the checkpoint again, whole")
BITS = {"8bit": 8, "4bit": 4}


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
    pixels: Pixels = "pil"
    revision: str = ""
    download: bool = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.needs_root = not cls.checkpoint

    def folder(self) -> Path:
        """Return where the checkpoint lies on this machine; raises FairbenchError when it does not."""
        given = base_of(self.adapter) if self.adapter else str(self.root or self.checkpoint)
        return locate(given, self.revision, self.download)

    @property
    def adapter(self) -> Path | None:
        """The folder that was given, where it holds an adapter alone, to be merged into its base."""
        return self.root if self.root is not None and is_adapter(self.root) else None

    def construct(self) -> None:
        """Build the architecture: of a folder that was given as its config.json says, else of this size."""
        if self.root is None:
            super().construct()
            return
        folder = self.folder()
        config = self._configured(folder)
        with reading(folder, *CONFIGURATION):
            self.model = architecture_of(config)(config)

    def load(self, dtype: torch.dtype) -> None:
        """Read the checkpoint from a folder or the Hugging Face cache."""
        options = self._options(dtype)
        folder = self.folder()
        config = self._configured(folder)
        self.model = from_checkpoint(folder, architecture_of(config), dtype, **options)
        if self.adapter:
            if self.quantise != "none":
                raise FairbenchError(
                    f"{self.alias}: an adapter is not merged into quantised weights",
                    "leave out `quantise`, or merge the adapter into a checkpoint of its own first",
                )
            self.model = merged(self.model, self.adapter)
        processor = load_processor(folder, config, self.pixels)
        if self.quantise != "none":  # what peft asks the module that it adapts
            setattr(self.language_model, f"is_loaded_in_{self.quantise}", True)
        self.facts = {
            "attention": self.model.config._attn_implementation,
            "image processor": type(processor.image_processor).__name__,
            **({"revision": revision_of(folder)} if revision_of(folder) else {}),
            **({"merged adapter": provenance(self.adapter)} if self.adapter else {}),
        }
        self.ready(processor)

    def load_preprocessing(self) -> None:
        """Read the processor, and of the model its configuration alone."""
        folder = self.folder()
        with torch.device("meta"):
            self.construct()
        self.ready(load_processor(folder, self._configured(folder), self.pixels))

    def fingerprint(self) -> str:
        """Hash the checkpoint's files, and an adapter's with its base's."""
        base = checkpoint_fingerprint(self.folder())
        if self.adapter is None:
            return base
        return hashlib.sha256(f"{base} {adapter_fingerprint(self.adapter)}".encode()).hexdigest()[:16]

    def weight_bytes(self, width: float) -> float:
        """Return the bytes of a frozen weight; what stays unquantised is too little to matter in an estimate."""
        return BITS[self.quantise] / 8 if self.quantise in BITS else width

    def unsupported(self, config: Mapping[str, Any]) -> str | None:
        """Say what a checkpoint's config.json describes, where it cannot be held."""
        return unsupported(config)

    def _configured(self, folder: Path) -> Any:
        from transformers import AutoConfig

        said = configuration(folder, self.architecture)
        with reading(folder, *CONFIGURATION):
            if reason := self.unsupported(said):
                raise FairbenchError(f"checkpoint {folder} is {reason}", self.conversion)
            return AutoConfig.from_pretrained(folder, **FROM_DISK)

    def _options(self, dtype: torch.dtype) -> dict[str, Any]:
        """Return how transformers shall load; raises FairbenchError for what this machine cannot do."""
        options: dict[str, Any] = {}
        if self.attention == "flash_attention_2":
            from transformers.utils import is_flash_attn_2_available

            if not is_flash_attn_2_available() or dtype == torch.float32:
                raise FairbenchError(
                    f"{self.alias}.attention = flash_attention_2 needs bfloat16, a GPU and flash-attn",
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
                f"{self.alias}.quantise = {self.quantise} needs {' and '.join(absent)}, not found here",
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
