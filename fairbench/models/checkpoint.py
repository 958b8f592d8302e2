"""Load a checkpoint in the Hugging Face format from a folder or the local cache; from the network if told to."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from fairbench.errors import FairbenchError

PARTS = ("*.json", "*.model", "*.txt", "*.jinja")  # what a checkpoint holds beside its weights
WEIGHTS = "*.safetensors"
ADAPTER = "adapter_config.json"
NUMBER = re.compile(r"[.][0-9]+[.]")  # of a layer, in a weight's name
# What transformers is told with every load. Left out, it asks on the terminal whether to run what a folder brings.
FROM_DISK = {"local_files_only": True, "trust_remote_code": False}


def locate(checkpoint: str, revision: str = "", download: bool = False) -> Path:
    """Return the folder of a checkpoint: a path as it is, or a hub name's snapshot in the local cache.

    `revision` is a branch, tag or commit of a hub name. Raises FairbenchError naming the checkpoint and the
    command that gets it.
    """
    path = Path(checkpoint).expanduser()
    if (path / "config.json").is_file():
        if revision:
            raise FairbenchError(f"{path} is a folder, which has no revision {revision}", "leave `revision` out")
        return path
    if path.exists() or path.is_absolute() or checkpoint.startswith("."):
        reason = "holds no config.json" if path.exists() else "does not exist"
        raise FairbenchError(
            f"the folder {path} {reason}", "a checkpoint is a folder with config.json, *.safetensors, a tokenizer"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    get = command(checkpoint, revision)
    wanted = [WEIGHTS, *PARTS] if download else None
    try:
        folder = snapshot_download(
            checkpoint, revision=revision or None, local_files_only=not download, allow_patterns=wanted
        )
    except GatedRepoError as error:
        raise FairbenchError(
            f"checkpoint {checkpoint} is gated: its owner wants its terms accepted first",
            f"accept them on https://huggingface.co/{checkpoint}, then: hf auth login; {get}",
        ) from error
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        which = f"{checkpoint} (revision {revision})" if revision else checkpoint
        if download:
            raise FairbenchError(f"cannot download checkpoint {which}: {error}", f"try: {get}") from error
        raise FairbenchError(
            f"checkpoint {which} is neither a folder nor in the local cache",
            f"get it whole with: {get} (or set `download`)",
        ) from error
    return Path(folder)


def command(checkpoint: str, revision: str = "") -> str:
    """Return the command that gets a checkpoint of the hub."""
    return f"hf download {checkpoint}" + (f" --revision {revision}" if revision else "")


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files that transformers reads of a checkpoint; other formats are refused.

    So is an adapter's configuration beside them, which transformers would act upon without a word.
    """
    if (folder / ADAPTER).is_file():
        raise FairbenchError(
            f"checkpoint {folder} holds {ADAPTER} beside whole weights, and transformers would lay it over them",
            f"if it is merged into these weights or not meant, move {ADAPTER} away; "
            "an adapter that is to be judged goes into a folder of its own",
        )
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():  # as transformers: a shard index beside it, which may be of an older save, is not read
        return [single]
    if not any(folder.glob(WEIGHTS)) and any(folder.glob("*.bin")):
        raise FairbenchError(
            f"checkpoint {folder} holds only pickled weights (*.bin), which can run code",
            "use a safetensors version of it, or convert it with transformers' save_pretrained",
        )
    named = _shards(index) if index.is_file() else []
    absent = [name for name in named if not (folder / name).is_file()]
    if absent or not named:
        raise FairbenchError(f"checkpoint {folder} lacks {', '.join(absent) or single.name}", _whole(folder))
    return [folder / name for name in named]


def _shards(index: Path) -> list[str]:
    """Return the names of the files that an index lists; they stand beside it, as transformers writes them."""
    placed = read_json(index).get("weight_map")
    names: list[Any] = list(placed.values()) if isinstance(placed, dict) else [None]
    odd = [name for name in names if not isinstance(name, str) or not name or Path(name).name != name]
    if odd:
        raise FairbenchError(
            f"checkpoint {index.parent}: {index.name} names {odd[0]!r}, which is no file beside it", _whole(index)
        )
    return sorted(set(names))


def read_json(path: Path) -> dict[str, Any]:
    """Read one of a checkpoint's JSON files."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError) as error:
        raise FairbenchError(f"cannot load checkpoint {path.parent}: {path.name}: {error}", _whole(path)) from error


def _whole(path: Path) -> str:
    """Say how to get a checkpoint whole; a snapshot's place in the cache tells its name on the hub."""
    name = hub_name(path)
    return f"get it whole with: {command(name)}" if name else "copy it again, whole"


def hub_name(path: Path) -> str:
    """Return the hub name whose snapshot in the cache a path belongs to, or nothing for any other path."""
    place = next((part for part in path.parts if part.startswith("models--")), "")
    return place.removeprefix("models--").replace("--", "/")


def revision_of(folder: Path) -> str:
    """Return the commit of a snapshot in the cache, or nothing for any other folder."""
    return folder.name if folder.parent.name == "snapshots" and hub_name(folder) else ""


def configuration(folder: Path, architecture: Any = None) -> dict[str, Any]:
    """Read a checkpoint's config.json, which must be of the architecture's type where one is given."""
    config = read_json(folder / "config.json")
    kind, wanted = config.get("model_type"), architecture and architecture.config_class.model_type
    if wanted and kind != wanted:
        raise FairbenchError(
            f"checkpoint {folder} is a {kind}, not a {wanted}", "give it to the backbone of its own family"
        )
    return config


def checkpoint_fingerprint(checkpoint: str | Path) -> str:
    """Hash a checkpoint: its small files whole, and of each shard the header, the size and three samples."""
    folder = locate(str(checkpoint))
    state = hashlib.sha256()
    for path in sorted(path for pattern in PARTS for path in folder.glob(pattern)):
        state.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    for path in weight_files(folder):
        size = path.stat().st_size
        state.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            for where in (0, size // 2, max(0, size - (1 << 20))):
                file.seek(where)
                state.update(file.read(1 << 20))
    return state.hexdigest()[:16]


@contextmanager
def without_bars() -> Iterator[None]:
    """Let transformers draw no progress bar: several workers would draw theirs over the display."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextmanager
def reading(folder: Path, what: str, hint: str) -> Iterator[None]:
    """Make one FairbenchError of whatever is raised over a checkpoint's files: every model fails in its own way."""
    try:
        yield
    except (FairbenchError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise FairbenchError(f"cannot load checkpoint {folder}: {what}{said}", hint) from error


def from_checkpoint(folder: Path, architecture: Any, dtype: torch.dtype, **options: Any) -> Any:
    """Return the model of a checkpoint, loaded by transformers from disk alone, with every weight in it.

    `options` go to `architecture.from_pretrained`.
    """
    configuration(folder, architecture)
    weight_files(folder)
    # transformers fills what a checkpoint lacks with random weights and only logs it, so ask.
    with reading(folder, "", _whole(folder)), without_bars():
        model, report = architecture.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            **FROM_DISK,
            **options,
        )
    lacking = sorted(report["missing_keys"])
    if lacking:
        raise FairbenchError(
            f"checkpoint {folder} lacks {len(lacking)} weights, first {lacking[0]}", _whole(folder)
        )
    if surplus := _surplus(model, report["unexpected_keys"]):
        raise FairbenchError(
            f"checkpoint {folder} holds {len(surplus)} weights of layers that its config.json does not count, "
            f"first {surplus[0]}",
            "its config.json is another checkpoint's: get this one's own",
        )
    return model


def _surplus(model: torch.nn.Module, unexpected: Iterable[str]) -> list[str]:
    """Return the weights without a place that are like others but for the number of their layer."""
    known = {NUMBER.sub(".#.", name) for name in model.state_dict()}
    return sorted(name for name in unexpected if NUMBER.sub(".#.", name) in known)
