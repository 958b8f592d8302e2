"""Load a checkpoint in the Hugging Face format from a folder or the local cache, never from the network."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from fairbench.errors import FairbenchError


def locate(checkpoint: str) -> Path:
    """Return the folder of a checkpoint: a path as it is, or a hub name's snapshot in the local cache.

    Raises FairbenchError naming the checkpoint and the command that gets it.
    """
    path = Path(checkpoint).expanduser()
    if (path / "config.json").is_file():
        return path
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(checkpoint, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError) as error:
        hint = "a folder must hold config.json" if path.exists() else _get(checkpoint)
        raise FairbenchError(f"checkpoint {checkpoint} is neither a folder nor in the local cache", hint) from error


def weight_files(folder: Path, checkpoint: str) -> list[Path]:
    """Return a checkpoint's safetensors shards, all of them; other formats are refused."""
    shards = sorted(folder.glob("*.safetensors"))
    if not shards and any(folder.glob("*.bin")):
        raise FairbenchError(
            f"checkpoint {checkpoint} holds only pickled weights ({folder}/*.bin), which can run code",
            "use a safetensors version of it, or convert it with transformers' save_pretrained",
        )
    index = folder / "model.safetensors.index.json"
    named = set(_read(index, checkpoint).get("weight_map", {}).values()) if index.is_file() else set()
    absent = sorted(named - {shard.name for shard in shards})
    if absent or not shards:
        raise FairbenchError(
            f"checkpoint {checkpoint} lacks {', '.join(absent) or '*.safetensors'} in {folder}", _get(checkpoint)
        )
    return shards


def _read(path: Path, checkpoint: str) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError) as error:
        raise FairbenchError(f"cannot load checkpoint {checkpoint}: {path}: {error}", _get(checkpoint)) from error


def _get(checkpoint: str) -> str:
    return f"get it whole with: hf download {checkpoint}"


def checkpoint_fingerprint(checkpoint: str) -> str:
    """Hash a checkpoint: its small files whole, and of each shard the header, the size and three samples."""
    folder = locate(checkpoint)
    state = hashlib.sha256()
    for path in sorted(
        [*folder.glob("*.json"), *folder.glob("*.model"), *folder.glob("*.txt"), *folder.glob("*.jinja")]
    ):
        state.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    for path in weight_files(folder, checkpoint):
        size = path.stat().st_size
        state.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            for where in (0, size // 2, max(0, size - (1 << 20))):
                file.seek(where)
                state.update(file.read(1 << 20))
    return state.hexdigest()[:16]


def from_checkpoint(checkpoint: str, model: Any, processor: Any, dtype: torch.dtype) -> tuple[Any, Any, Any]:
    """Return (model, tokenizer, image processor) of a checkpoint, loaded by transformers from disk alone."""
    from transformers import AutoTokenizer

    folder = locate(checkpoint)
    weight_files(folder, checkpoint)
    kind = _read(folder / "config.json", checkpoint).get("model_type")
    if kind != model.config_class.model_type:
        raise FairbenchError(f"checkpoint {checkpoint} is a {kind}, not a {model.config_class.model_type}")
    try:
        # transformers fills what a checkpoint lacks with random weights and only logs it, so ask.
        loaded, found = model.from_pretrained(
            folder, dtype=dtype, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
        lacking = sorted(found["missing_keys"])
        if lacking:
            raise FairbenchError(
                f"checkpoint {checkpoint} lacks {len(lacking)} weights, first {lacking[0]}", _get(checkpoint)
            )
        return (
            loaded,
            AutoTokenizer.from_pretrained(folder, local_files_only=True),
            processor.from_pretrained(folder, local_files_only=True),
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise FairbenchError(f"cannot load checkpoint {checkpoint}: {error}", _get(checkpoint)) from error
