"""Load a checkpoint in the Hugging Face format from a folder or the local cache, never from the network."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

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
        hint = "a folder must hold config.json" if path.exists() else f"get it with: hf download {checkpoint}"
        raise FairbenchError(
            f"checkpoint {checkpoint} is neither a folder nor in the local cache", hint
        ) from error


def weight_files(folder: Path) -> list[Path]:
    """Return a checkpoint's safetensors shards; other formats are refused."""
    shards = sorted(folder.glob("*.safetensors"))
    if not shards:
        raise FairbenchError(
            f"{folder} has no *.safetensors", "pickled weights are not loaded; convert them first"
        )
    return shards


def checkpoint_fingerprint(checkpoint: str) -> str:
    """Hash a checkpoint: its small files whole, and of each shard the header, the size and three samples."""
    folder = locate(checkpoint)
    state = hashlib.sha256()
    for path in sorted(
        [*folder.glob("*.json"), *folder.glob("*.model"), *folder.glob("*.txt"), *folder.glob("*.jinja")]
    ):
        state.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    for path in weight_files(folder):
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
    weight_files(folder)
    try:
        return (
            model.from_pretrained(folder, dtype=dtype, local_files_only=True, use_safetensors=True),
            AutoTokenizer.from_pretrained(folder, local_files_only=True),
            processor.from_pretrained(folder, local_files_only=True),
        )
    except (OSError, ValueError) as error:
        raise FairbenchError(f"cannot load checkpoint {folder}: {error}") from error
