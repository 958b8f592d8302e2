"""A file that somebody asked for is there whole, or as it was before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fairbench.errors import FairbenchError


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield where to write what becomes `path` by rename once it is all there, and is removed where it fails.

    What is no file, such as /dev/stdout, is written to as it is. Raises FairbenchError where it cannot be written.
    """
    direct = path.is_relative_to("/dev") or (path.exists() and not path.is_file())
    target = path if direct else path.resolve()  # the file that a link points to, not the link
    part = target if direct else target.with_name(f".{os.getpid()}.{target.name}")  # its end says the format
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield part
        if not direct:
            os.replace(part, target)
    except OSError as error:
        above = next((one for one in target.parents if one.exists()), target.parent)
        said = error.strerror or error if above.is_dir() else f"{above} is no folder"
        raise FairbenchError(f"cannot write {path}: {said}", "choose another place, or make room there") from error
    finally:
        if not direct and part.is_file():
            part.unlink()


def write(path: Path, text: str) -> None:
    """Write a text as UTF-8, whole or not at all; raises FairbenchError where it cannot be written."""
    with whole(path) as part:
        part.write_text(text, encoding="utf-8", newline="")
