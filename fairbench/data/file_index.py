"""Find image files by what a table calls them, wherever they lie in a folder."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".jp2", ".j2k", ".pgm", ".ppm", ".dcm",
    ".dicom", "",
)  # fmt: skip


class FileIndex:
    """The image files under a folder (links followed), by path and name, whatever their capitals and suffix."""

    def __init__(self, root: Path) -> None:
        self._keys: dict[str, set[str]] = {}
        for relative in sorted(_images(root)):
            for key in _keys(relative):
                self._keys.setdefault(key, set()).add(relative)

    def find(self, relative: str) -> str | None:
        """Return the one file that a path means: the path itself, else a unique name; None for none or several."""
        for key in _keys(relative):
            files = self._keys.get(key, set())
            if len(files) == 1:
                return next(iter(files))
        return None

    def several(self, relative: str) -> tuple[str, ...]:
        """Return the files that share a name, where no single one can be meant."""
        by_key = [self._keys.get(key, set()) for key in _keys(relative)]
        return tuple(sorted(next((files for files in by_key if len(files) > 1), ())))


def _images(root: Path) -> Iterator[str]:
    seen: set[str] = set()
    for place, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(real)
        inside = os.path.relpath(place, root)
        for name in names:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES:
                yield name if inside == "." else f"{inside}/{name}".replace(os.sep, "/")


def _keys(relative: str) -> tuple[str, ...]:
    """Return what a file may be called, the most exact first: path and name, with the suffix and without."""
    # Systems differ in whether ü is one character or two; a table and a folder may come from two of them.
    path = PurePosixPath(unicodedata.normalize("NFC", _readable(relative).lower()))
    stem = path.with_suffix("") if path.suffix in SUFFIXES[:-1] and path.name else path
    return f"path {path}", f"path {stem}", f"name {path.name}", f"name {stem.name}"


def _readable(name: str) -> str:
    """Read a file name that is not UTF-8 as Latin-1, which older systems wrote."""
    data = name.encode("utf-8", "surrogateescape")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")
