"""A checkpoint's own processor: its tokenizer, its image processor in the PIL backend, its chat template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fairbench.errors import FairbenchError
from fairbench.models.checkpoint import read_json

_DECLARED = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")


def load_processor(folder: Path, config: Any) -> Any:
    """Return the processor that a checkpoint's folder declares, without its half for videos or sound.

    Images go through the PIL backend of the declared image processor, whatever is installed: pixels of the
    torchvision backend differ slightly, and one backend everywhere means the same numbers everywhere.
    Raises FairbenchError for a processor that would run code of the folder or that transformers lacks.
    """
    import transformers
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    declared = _declared(folder)
    kind = getattr(transformers, declared, None) or PROCESSOR_MAPPING.get(type(config), None)
    if kind is None or not hasattr(kind, "get_attributes"):
        raise FairbenchError(
            f"checkpoint {folder}: transformers has no processor for images and text of a {config.model_type}"
            + (f" ({declared})" if declared else ""),
            "code that a checkpoint brings is never run; convert it to a format of transformers",
        )

    try:
        return images_and_text(kind).from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError, ImportError) as error:
        reason = str(error).split(". ")[0]  # what follows are all the processors there are
        raise FairbenchError(
            f"cannot load checkpoint {folder}: {declared or kind.__name__}: {reason}",
            "copy the folder again, whole: preprocessor_config.json or processor_config.json, and the tokenizer",
        ) from error


def images_and_text(kind: Any) -> Any:
    """Return a processor class that is as it was, but may lack its half for videos, which needs torchvision."""
    from transformers import AutoImageProcessor, AutoTokenizer

    def parts(cls: Any, folder: Any, processor_dict: Any = None, /, **_: Any) -> list[Any]:
        loaders = {"image_processor": (AutoImageProcessor, {"backend": "pil"}), "tokenizer": (AutoTokenizer, {})}
        found = []
        for name in cls.get_attributes():
            loader, options = loaders.get(name, (None, {}))
            found.append(loader and loader.from_pretrained(folder, local_files_only=True, **options))
        return found

    def check(self: Any, name: str, part: Any) -> Any:
        return None if part is None else kind.check_argument_for_proper_class(self, name, part)

    own = {"_get_arguments_from_pretrained": classmethod(parts), "check_argument_for_proper_class": check}
    return type(kind.__name__, (kind,), own)  # the name stays: transformers looks some classes up by it


def _declared(folder: Path) -> str:
    for name in _DECLARED:
        if (folder / name).is_file():
            declared = read_json(folder / name).get("processor_class")
            if declared:
                return str(declared)
    return ""
