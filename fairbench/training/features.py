"""A cache of what the frozen vision tower makes of each image: it is encoded once for all methods and seeds.

Rows are computed in chunks of fixed membership, one file and one lease per chunk, so several
processes share the work, a killed one loses a chunk, and the numbers do not depend on who computed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from filelock import FileLock, Timeout
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fairbench.data.dataset import Dataset
from fairbench.errors import FairbenchError, named
from fairbench.jobs.job import Job
from fairbench.models.backbone import Backbone

CHUNK, SEEN = 128, 16  # rows of a file; images that are seen at once
Example = Mapping[str, Tensor]
View = Callable[[Image.Image], Image.Image]
Images = tuple[Image.Image, ...]


class Prepared(torch.utils.data.Dataset[Example]):
    """A dataset's rows as tensors, prepared from the image each time they are asked for.

    `view` is what a method shows the model in place of each image, None for the image itself.
    """

    def __init__(self, dataset: Dataset, table: pd.DataFrame, backbone: Backbone, view: View | None = None) -> None:
        self.view = view
        self.dataset = dataset
        self.rows: list[dict[str, object]] = table.to_dict("records")  # type: ignore[assignment]
        self.backbone = backbone

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Example:
        return self.prepare(index, self.images(index))

    def with_prompt(self, index: int, prompt: str) -> Example:
        """Return one row with another prompt."""
        return self.prepare(index, self.images(index), prompt)

    def images(self, index: int) -> Images:
        """Open one row's images, as the method shows them."""
        images = self.dataset.pictures(self.rows[index])
        return images if self.view is None else tuple(map(self.view, images))

    def prompt(self, index: int) -> str:
        """Return one row's question."""
        return str(self.rows[index].get("prompt", self.dataset.prompt))

    def prepare(self, index: int, images: Images, prompt: str | None = None) -> Example:
        """Turn one row and its images into tensors, with its own prompt or another."""
        row = self.rows[index]
        text = self.prompt(index) if prompt is None else prompt
        try:
            example = self.backbone.prepare_images(images, text)
        except Exception as error:  # processors raise anything, and say nothing of whose image it was
            sizes = ", ".join(f"{image.width}×{image.height}" for image in images)
            raise FairbenchError(
                f"{self.backbone.name} cannot take {row['id']} of {self.dataset.name} ({row['image']}, "
                f"{sizes} pixels): {named(error)}",
                f"`fairbench data check {self.dataset.name} --backbones {self.backbone.name}` lists such rows",
            ) from error
        if self.dataset.task == "generate":
            answer = [*self.backbone.tokenise(str(row["reference"])), self.backbone.end_token_id]
            example["answer_ids"] = torch.tensor(answer)
        return example


@dataclass(frozen=True)
class Question:
    """One row of the test split as a model is shown it, without its answer."""

    id: str
    images: Images
    prompt: str


class Questions(Sequence[Question]):
    """The rows of a split as a model is shown them, each opened when it is asked for."""

    def __init__(self, prepared: Prepared, where: npt.NDArray[np.intp]) -> None:
        self.prepared, self.where = prepared, where

    def __len__(self) -> int:
        return len(self.where)

    @property
    def ids(self) -> list[str]:
        """Name the rows, without opening an image."""
        return [str(self.prepared.rows[int(row)]["id"]) for row in self.where]

    @overload
    def __getitem__(self, index: int) -> Question: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Question]: ...

    def __getitem__(self, index: int | slice) -> Question | Sequence[Question]:
        if isinstance(index, slice):
            return [self[place] for place in range(len(self))[index]]
        row = int(self.where[index])
        prepared = self.prepared
        return Question(str(prepared.rows[row]["id"]), prepared.images(row), prepared.prompt(row))


class Encoded(torch.utils.data.Dataset[Example]):
    """The same rows with `features` in place of pixels, in memory or `OnDisk`."""

    def __init__(self, examples: Sequence[Example], prepared: Prepared) -> None:
        self.examples, self.prepared = examples, prepared

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return dict(self.examples[index])

    def versions(self) -> list[int]:
        """Return how often each tensor that is kept in memory for the next jobs was written to, in their order."""
        if isinstance(self.examples, OnDisk):
            return []  # read anew each time
        tensors = (tensor for example in self.examples for tensor in example.values())
        return [-1 if tensor.is_inference() else tensor._version for tensor in tensors]

    def with_prompt(self, index: int, prompt: str) -> Example:
        """Return one row with another prompt: the image is opened again, its features are not computed again."""
        pixels = self.prepared.backbone.encoder_inputs
        example = {k: v for k, v in self.prepared.with_prompt(index, prompt).items() if k not in pixels}
        return {**example, "features": self.examples[index]["features"]}


class OnDisk(Sequence[Example]):
    """The rows of a folder of chunks, each mapped into memory when it is asked for and let go of afterwards."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.total = folder, count

    def __len__(self) -> int:
        return self.total

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Example]: ...

    def __getitem__(self, index: int | slice) -> Example | Sequence[Example]:
        if isinstance(index, slice):
            return [self[place] for place in range(len(self))[index]]
        start, place = divmod(range(self.total)[index], CHUNK)
        with safe_open(_file(self.folder, start * CHUNK), framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(f"{place:03d}.")]  # noqa: SIM118
            return {name.partition(".")[2]: file.get_tensor(name) for name in names}


class Examples:
    """What a method may fetch: examples by their place in a split, those of the test split without its answers."""

    def __init__(self, source: Encoded | Prepared, where: Mapping[str, npt.NDArray[np.intp]]) -> None:
        self._source, self._where = source, where

    def load(self, split: str, rows: Sequence[int]) -> list[Example]:
        """Return the examples of some rows."""
        examples = [self._source[index] for index in self._where[split][list(rows)].tolist()]
        if split == "test":
            return [{key: value for key, value in example.items() if key != "answer_ids"} for example in examples]
        return examples

    def with_prompt(self, split: str, row: int, prompt: str) -> Example:
        """Return one row's example with another prompt."""
        return self._source.with_prompt(int(self._where[split][row]), prompt)


def cache_key(job: Job, backbone: Backbone, dtype: torch.dtype, maker: Mapping[str, str]) -> str:
    """Hash what decides the features: weights, processor, images, prompt, number format, versions of all software.

    `maker` says which software beside the plugins, and which device, computes them.

    Settings that every backbone has are about what is trained, which `encode` never looks at.
    """
    own = {key: value for key, value in backbone.settings().items() if key not in Backbone.fields()}
    settings, made_by = json.dumps(own, sort_keys=True), json.dumps(maker, sort_keys=True)
    seer = [job.backbone.name, job.backbone.version, backbone.fingerprint(), settings]
    text = "\0".join([*seer, job.dataset.name, job.dataset.version, job.dataset.fingerprint, str(dtype), made_by])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def encode(
    backbone: Backbone,
    prepared: Prepared,
    folder: Path,
    limit: int,
    report: Callable[[int, int], None],
) -> Encoded | Prepared:
    """Return every row with its features, computing what the folder lacks.

    Features of more than `limit` bytes stay on disk and are read from there each time. Where it is 0, or the disk
    has no room for them, the rows are returned as they were and the vision tower encodes each image every time;
    so it does beyond `limit` where a method has a view of its own. `report(done, total)` counts rows.
    """
    if not limit:
        return prepared
    sample = seen(backbone, [prepared[0]])[0]
    size = sum(t.numel() * t.element_size() for t in sample.values()) * len(prepared)
    if prepared.view is not None:
        return prepared if size > limit else Encoded(_encode_alike(backbone, prepared), prepared)
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(prepared), CHUNK)
    there = sum(_file(folder, start).exists() for start in starts) / len(starts)
    if size * (1 - there) > shutil.disk_usage(folder).free:
        return prepared
    chunks = _chunks(backbone, prepared, folder, size <= limit, report)
    if size > limit:
        return Encoded(OnDisk(folder, len(prepared)), prepared)
    return Encoded([example for start in starts for example in chunks[start]], prepared)


def _chunks(
    backbone: Backbone, prepared: Prepared, folder: Path, keep: bool, report: Callable[[int, int], None]
) -> dict[int, list[Example]]:
    """See that every chunk is there and whole; return examples by their chunk's first row, if told to keep."""
    starts = range(0, len(prepared), CHUNK)
    chunks: dict[int, list[Example]] = {}
    for start in starts:
        examples = _load(_file(folder, start))
        if examples is not None:
            chunks[start] = examples if keep else []
    wait = False
    while len(chunks) < len(starts):
        for start in [start for start in starts if start not in chunks]:
            report(min(len(chunks) * CHUNK, len(prepared)), len(prepared))
            lock = FileLock(_file(folder, start).with_suffix(".lock"))
            try:
                with lock.acquire(timeout=-1 if wait else 0):
                    chunk = _load(_file(folder, start))
                    if chunk is None:
                        _compute(backbone, prepared, folder, start)
                        chunk = _load(_file(folder, start))
            except Timeout:
                continue
            if chunk is None:
                raise FairbenchError(f"{_file(folder, start)} is not what was written to it", "check the disk")
            chunks[start] = chunk if keep else []
        wait = True  # what is left is being computed by others
    return chunks


def _encode_alike(backbone: Backbone, prepared: Prepared) -> list[Example]:
    """Encode what a method shows, in memory; rows that are shown the same picture and ask the same share it."""
    encoded: dict[object, Example] = {}
    examples = []
    for index, row in enumerate(prepared.rows):
        images = prepared.images(index)
        pictures = tuple((image.size, hashlib.sha256(image.tobytes()).digest()) for image in images)
        alike = (pictures, row.get("prompt"), row.get("reference"))
        if alike not in encoded:
            encoded[alike] = seen(backbone, [prepared.prepare(index, images)])[0]
        examples.append(encoded[alike])
    return examples


def seen(backbone: Backbone, examples: Sequence[Example]) -> list[dict[str, Tensor]]:
    """Replace pixels by features; the vision tower never sees padding, so its rows are the images'."""
    device = next(backbone.parameters()).device
    inputs = {key: value.to(device) for key, value in backbone.stack(examples).items()}
    with torch.no_grad():
        features = backbone.encode(inputs).cpu()
    counts = [int((example["input_ids"] == backbone.image_token_id).sum()) for example in examples]
    encoded = []
    for example, part in zip(examples, torch.split(features, counts), strict=True):
        kept = {key: value for key, value in example.items() if key not in backbone.encoder_inputs}
        encoded.append({**kept, "features": part.clone()})
    return encoded


def _compute(backbone: Backbone, prepared: Prepared, folder: Path, start: int) -> None:
    stop = min(start + CHUNK, len(prepared))
    examples: list[dict[str, Tensor]] = []
    for first in range(start, stop, SEEN):
        examples += seen(backbone, [prepared[i] for i in range(first, min(first + SEEN, stop))])
    tensors = {
        f"{i:03d}.{key}": value.contiguous() for i, example in enumerate(examples) for key, value in example.items()
    }
    for left in folder.glob(f"{start:08d}.part*"):  # of a process that was killed
        left.unlink()
    temporary = _file(folder, start).with_suffix(f".part{os.getpid()}")
    save_file(tensors, temporary, {"sha256": _digest(tensors)})
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, _file(folder, start))


def _load(path: Path) -> list[Example] | None:
    """Return a chunk's examples, or None where the file is absent or damaged, and has to be made anew."""
    examples: dict[str, dict[str, Tensor]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            written = (file.metadata() or {}).get("sha256")
    except (OSError, SafetensorError):
        return None
    if written != _digest(tensors):
        return None
    for name, tensor in sorted(tensors.items()):
        index, key = name.split(".", 1)
        examples.setdefault(index, {})[key] = tensor
    return list(examples.values())


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """Hash tensors by name, form and bits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _file(folder: Path, start: int) -> Path:
    return folder / f"{start:08d}.safetensors"
