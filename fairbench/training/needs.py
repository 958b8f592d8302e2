"""What a method needs of the task and the backbone, checked before anything trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from fairbench.data.dataset import most_images
from fairbench.errors import FairbenchError

if TYPE_CHECKING:
    from fairbench.data.dataset import Dataset
    from fairbench.models.backbone import Backbone

# Class scores (not written answers), exactly two classes, written answers, a trained readout.
Need = Literal["classes", "two classes", "text", "head"]


def lacking(needs: Sequence[Need], dataset: Dataset, backbone: Backbone) -> Sequence[Need]:
    """Return which of these needs the task or the backbone does not meet."""
    text, count = dataset.task == "generate", len(dataset.classes)
    has: dict[Need, bool] = {
        "classes": not text,
        "two classes": not text and count == 2,
        "text": text,
        "head": not text and backbone.readout == "head",
    }
    return [need for need in needs if not has[need]]


def require(method: str, needs: Sequence[Need], dataset: Dataset, backbone: Backbone) -> None:
    """Raise FairbenchError where task or backbone lack what a method needs, or a backbone what a dataset has."""
    if not backbone.takes_several and (most := most_images(dataset)) > 1:
        raise FairbenchError(
            f"{backbone.alias} takes one image a row, and {dataset.name} has {most}",
            "choose a backbone that takes several (docs/backbones.md), or one image a row",
        )
    task = "answers in words" if dataset.task == "generate" else f"{len(dataset.classes)} classes"
    for need in lacking(needs, dataset, backbone):
        what = {
            "classes": f"the scores of classes, and {dataset.name} has {task}",
            "two classes": f"the scores of two classes, and {dataset.name} has {task}",
            "text": f"answers in words, and {dataset.name} has {task}",
            "head": f"a trained readout, and {backbone.name} has none on {dataset.name}"
            f" (readout {backbone.readout}, {task})",
        }[need]
        raise FairbenchError(f"{method} needs {what}", f"leave {method} out, or change what it needs")
