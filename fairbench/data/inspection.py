"""Look at each file of a folder once, and keep the verdict until the file changes."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import PIL
from filelock import FileLock
from PIL import Image

from fairbench.data.images import MAX_BYTES, Unreadable, open_image, peek, reason
from fairbench.errors import FairbenchError
from fairbench.processes import cores

RULES = 3  # raise it when what counts as readable or odd changes: verdicts kept on disk are then made again


SHADE = 16  # grey levels, of 256, in which nothing can be told apart


class Stamp(NamedTuple):
    """A file's size in bytes and the time of its last change in nanoseconds."""

    size: int
    changed: int


def stamp(path: Path) -> Stamp | None:
    """Return what tells whether a file changed, None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return Stamp(status.st_size, status.st_mtime_ns)


@dataclass(frozen=True)
class Verdict:
    """What was found when a file was last looked at; `fault` is empty for a readable one.

    `content` is a digest of all its bytes; it and `remark`, what is odd about a picture that can be
    read, are empty where pixels were not decoded. `width` and `height` are pixels, 0 where unknown.
    """

    size: int
    changed: int
    content: str
    fault: str
    remark: str = ""
    width: int = 0
    height: int = 0


@dataclass(frozen=True)
class Look:
    """How to look at a file: `peek` at its structure, or `open` all of it; raising says it is unreadable.

    `kind` names the way: verdicts are shared between those who look alike.
    """

    kind: str = "image"
    open: Callable[[BinaryIO], Image.Image] = open_image
    peek: Callable[[BinaryIO], tuple[int, int]] = peek


def inspect(
    root: Path, relatives: Iterable[str], decode: bool, cache: Path, look: Look = Look()
) -> tuple[dict[str, Verdict], str]:
    """Look at the files of a folder, each once: what is known is kept under `cache` until a file changes.

    Processes that look at the same folder at once wait for each other instead of doing the work twice.
    Returns relative path → Verdict and, when the verdicts could not be kept, why (else empty).
    """
    stamps = {relative: stamp(root / relative) for relative in relatives}
    kind = f"{root.resolve()}\0{decode}\0{look.kind}\0{PIL.__version__}\0{RULES}"
    kept = cache / f"{hashlib.sha256(kind.encode(errors='surrogateescape')).hexdigest()[:16]}.json"
    known = _known(kept)
    if not _unknown(stamps, known):
        return {relative: known[relative] for relative in stamps}, ""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(kept.with_suffix(".lock")):
            known = _known(kept)
            known |= _look(root, _unknown(stamps, known), stamps, decode, look)
            _keep(kept, known)
            trouble = ""
    except OSError as error:
        known |= _look(root, _unknown(stamps, known), stamps, decode, look)
        trouble = f"{cache}: {error.strerror or error}"
    return {relative: known[relative] for relative in stamps}, trouble


def _unknown(stamps: Mapping[str, Stamp | None], known: Mapping[str, Verdict]) -> list[str]:
    def fresh(relative: str, now: Stamp | None) -> bool:
        verdict = known.get(relative)
        return now is not None and verdict is not None and now == (verdict.size, verdict.changed)

    return [relative for relative, now in stamps.items() if not fresh(relative, now)]


def _look(
    root: Path, relatives: Iterable[str], stamps: Mapping[str, Stamp | None], decode: bool, look: Look
) -> dict[str, Verdict]:
    def one(relative: str) -> tuple[str, Verdict]:
        now = stamps[relative]
        if now is None:
            return relative, Verdict(-1, -1, "", _absence(root / relative))
        content, fault, remark, shape = _try(root / relative, now.size, decode, look)
        return relative, Verdict(*now, content, fault, remark, *shape)

    with ThreadPoolExecutor(min(4, cores())) as pool:  # PIL decodes without holding the GIL
        return dict(pool.map(one, relatives))


def _absence(path: Path) -> str:
    try:
        path.stat()
    except OSError as error:
        return reason(error)
    return "it was not there a moment ago"


def _try(path: Path, size: int, decode: bool, look: Look) -> tuple[str, str, str, tuple[int, int]]:
    """Return a file's content, fault, remark, and width and height."""
    content = remark = ""
    try:
        if not path.is_file():
            raise Unreadable("not a file")
        if decode and size > MAX_BYTES:
            raise Unreadable(f"{size:,} bytes are more than {MAX_BYTES:,}")
        with path.open("rb") as file:
            if decode:
                data = file.read()
                content = hashlib.sha256(data).hexdigest()[:32]
                image = look.open(io.BytesIO(data))
                remark, shape = _remark(image), image.size
            else:
                shape = look.peek(file)
    except FairbenchError:
        raise
    except Exception as error:
        return content, reason(error), "", (0, 0)
    return content, "", remark, shape


def _remark(image: Image.Image) -> str:
    """Say what makes a picture useless although it can be read; a bright label on black does not save it."""
    darkest, brightest = np.asarray(image).min(axis=(0, 1)), np.asarray(image).max(axis=(0, 1))
    if (darkest == brightest).all():
        return f"constant ({', '.join(map(str, darkest))})"
    low, high = np.percentile(np.asarray(image.convert("L")), (1, 99)).astype(int)
    if high < SHADE:
        return f"nearly black (99 % of its pixels are at most {high} of 255)"
    if high - low < SHADE:
        return f"nearly uniform (98 % of its pixels lie from {low} to {high} of 255)"
    return ""


def _known(kept: Path) -> dict[str, Verdict]:
    try:
        stored = json.loads(kept.read_text(encoding="utf-8"))
        return {relative: Verdict(**verdict) for relative, verdict in stored.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # no verdicts, or not ours: look again


def _keep(kept: Path, known: Mapping[str, Verdict]) -> None:
    part = kept.with_suffix(f".{os.getpid()}.part")
    try:
        part.write_text(json.dumps({name: asdict(item) for name, item in known.items()}), encoding="utf-8")
        os.replace(part, kept)
    finally:
        part.unlink(missing_ok=True)
