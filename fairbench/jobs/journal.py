"""What was answered so far, a line of JSON each, so that a kill at any moment loses at most the last."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from fairbench.errors import FairbenchError


class Journal:
    """Values by name in a file that only grows; `entries` is what it holds.

    Raises FairbenchError for a line that was written whole and has been damaged since.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[str, Any] = {}
        if path.exists():
            whole, _, torn = path.read_bytes().rpartition(b"\n")
            if torn:  # written by a process that was killed meanwhile
                os.truncate(path, len(whole) + 1 if whole else 0)
            for number, line in enumerate(whole.splitlines(), 1):
                try:
                    name, value = json.loads(line)
                    self.entries[name] = value
                except (TypeError, ValueError) as error:
                    raise FairbenchError(
                        f"{path}: line {number} is damaged: {error}",
                        "delete this line: what it held is asked again",
                    ) from error

    def add(self, name: str, value: Any) -> None:
        """Write a value down before anybody uses it."""
        self.entries[name] = value
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([name, value], ensure_ascii=True) + "\n")
            file.flush()
            os.fsync(file.fileno())
