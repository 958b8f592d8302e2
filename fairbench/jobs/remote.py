"""A folder of runs behind a URL: a job is done on this machine's disk and then copied there, its record last."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fairbench.errors import FairbenchError

URL = re.compile(r"^([a-z][a-z0-9+.-]+):/+")  # a path that went through pathlib has lost a slash
SCHEMES = "s3://, gs://, hdfs://, file:// or, with fsspec's package for it, fsspec+NAME://"

FLAT = ("s3", "gcs", "abfs")  # know objects and no folders


def url_of(name: str) -> str | None:
    """Return the URL that a name of a folder is, None for one of this machine's.

    Raises FairbenchError for one with a password in it, which would be printed and written down.
    """
    url = URL.match(name)
    if url is None or os.path.exists(name):
        return None
    if "@" in name[url.end() :].partition("/")[0]:
        raise FairbenchError(
            "the URL of results holds a name or password", "leave them to the environment (AWS_ACCESS_KEY_ID …)"
        )
    return f"{url[1]}:///{name[url.end() :]}" if url[1] == "file" else f"{url[1]}://{name[url.end() :]}"


class Remote:
    """An object store or file system that pyarrow opens (https://arrow.apache.org/docs/python/filesystems.html).

    An object is there whole or not at all, so a job is over there once its record is.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        import pyarrow as pa
        from pyarrow.fs import FileSystem

        try:
            files, path = FileSystem.from_uri(self.url)
        except (pa.ArrowException, ImportError, ValueError) as error:
            raise FairbenchError(
                f"{self.url} cannot be opened: {str(error).strip()}", f"write {SCHEMES}"
            ) from error
        return files, path.rstrip("/")

    def records(self, name: str) -> Iterator[str]:
        """Yield the keys of the jobs whose record, a file of this name, is there."""
        from pyarrow.fs import FileSelector

        files, base = self._opened
        with self._reaching():
            listed = files.get_file_info(FileSelector(base, allow_not_found=True, recursive=True))
        for one in listed:
            key, _, file = one.path.removeprefix(f"{base}/").partition("/")
            if file == name:
                yield key

    def fetch(self, name: str, target: Path) -> bool:
        """Copy a file here, whole or not at all; False where it is not there."""
        files, base = self._opened
        with self._reaching():
            try:
                with files.open_input_stream(f"{base}/{name}") as source:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with TemporaryDirectory(prefix=".", dir=target.parent) as folder:  # nobody else writes there
                        part = Path(folder) / target.name
                        with part.open("wb") as file:
                            while block := source.read(1 << 22):
                                file.write(block)
                        os.replace(part, target)
            except FileNotFoundError:
                return False
        return True

    def send(self, paths: Iterable[Path], root: Path) -> None:
        """Copy files there, in this order, under their names below `root`."""
        files, base = self._opened
        with self._reaching():
            for path in paths:
                name = f"{base}/{path.relative_to(root).as_posix()}"
                if files.type_name not in FLAT:
                    files.create_dir(name.rpartition("/")[0], recursive=True)
                with path.open("rb") as source, files.open_output_stream(name) as target:
                    while block := source.read(1 << 22):
                        target.write(block)

    def delete(self, name: str) -> None:
        """Delete a file there, if it is there."""
        files, base = self._opened
        with self._reaching():
            try:
                files.delete_file(f"{base}/{name}")
            except FileNotFoundError:
                return

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        import pyarrow as pa

        try:
            yield
        except (OSError, pa.ArrowException) as error:
            said = " ".join(str(error).split())
            raise FairbenchError(
                f"{self.url} does not answer as it should: {said[:300]}",
                "see to the address and your credentials; what is done is safe here, and the same command sends it",
            ) from error
