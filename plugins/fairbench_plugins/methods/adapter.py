"""A LoRA that was trained elsewhere, as a row beside the others."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

from fairbench import Method, Run, Stage, adapter_fingerprint, adopt, hookimpl


class Adapter(Method):
    """An adapter on disk, in peft's format, on the backbone it was trained on: `adapter:FOLDER`, untrained here.

    Without a head of fairbench's it needs the readout `words`.
    """

    name = "adapter"
    uses_attributes = False
    takes_folder: ClassVar[bool] = True
    needs_root: ClassVar[bool] = True

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.root: Path

    def fingerprint(self) -> str:
        """Hash the adapter's files."""
        return adapter_fingerprint(self.root)

    def plan(self, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        """Train nothing."""
        return ()

    def setup(self, run: Run) -> None:
        """Load the adapter; say where it comes from, and whether it has seen this data."""
        run.facts["adapter"] = facts = adopt(run.backbone, self.root)
        for name in facts["trained on"]:
            if _plain(run.job.dataset.name) in _plain(name) or _plain(name) in _plain(run.job.dataset.name):
                run.warn(f"the adapter's card names {name} as training data: it may have seen the test patients")


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.rpartition("/")[2].lower())


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer the method."""
    return [Adapter]
