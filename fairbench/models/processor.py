"""A checkpoint's own processor: its tokenizer, its image processor in the chosen backend, its chat template."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from fairbench.errors import FairbenchError
from fairbench.models.checkpoint import FROM_DISK, read_json

_DECLARED = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")


Pixels = Literal["pil", "torchvision"]


def load_processor(folder: Path, config: Any, pixels: Pixels = "pil") -> Any:
    """Return the processor that a checkpoint's folder declares, without its half for videos or sound.

    Images go through the PIL backend of the declared image processor unless `pixels` says otherwise, whatever is
    installed: the pixels of the two differ slightly, and the same numbers must come of it everywhere.
    Raises FairbenchError for a processor that would run code of the folder or that transformers lacks.
    """
    import transformers
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    if pixels == "torchvision" and find_spec("torchvision") is None:
        raise FairbenchError(
            "pixels = torchvision needs torchvision, which is not installed",
            "pip install torchvision, of the version that goes with this torch, or leave `pixels` at pil",
        )
    declared = _declared(folder)
    kind = getattr(transformers, declared, None) or PROCESSOR_MAPPING.get(type(config), None)
    try:
        known = kind is not None and hasattr(kind, "get_attributes")
    except ImportError as error:  # what transformers offers in the place of a class that cannot be imported
        raise FairbenchError(
            f"checkpoint {folder}: the {declared or config.model_type} processor needs torchvision, "
            "and images are read here without it",
            "there is no PIL version of it in transformers: pip install torchvision, and set pixels=torchvision",
        ) from error
    if not known:
        raise FairbenchError(
            f"checkpoint {folder}: transformers has no processor for images and text of a {config.model_type}"
            + (f" ({declared})" if declared else ""),
            "code that a checkpoint brings is never run; convert it to a format of transformers",
        )
    try:
        return images_and_text(kind, pixels).from_pretrained(folder, **FROM_DISK)
    except (OSError, ValueError, TypeError, ImportError) as error:
        reason = str(error).split(". ")[0]  # what follows are all the processors there are
        if "trust_remote_code" in str(error):
            raise FairbenchError(
                f"checkpoint {folder}: its image processor or tokenizer is code of the folder (auto_map)",
                "code that a checkpoint brings is never run; convert it to a format of transformers",
            ) from error
        raise FairbenchError(
            f"cannot load checkpoint {folder}: {declared or kind.__name__}: {reason}",
            "copy the folder again, whole: preprocessor_config.json or processor_config.json, and the tokenizer",
        ) from error


class OmittedPart(dict[str, None]):
    """The half of a processor for videos or sound, which needs torchvision: every setting of it is None.

    A dictionary, because transformers describes a processor as JSON.
    """

    def to_dict(self) -> dict[str, None]:
        """Return no settings."""
        return {}

    def __getattr__(self, name: str) -> None:
        if name.startswith("_"):
            raise AttributeError(name)


def images_and_text(kind: Any, pixels: Pixels = "pil") -> Any:
    """Return a processor class that is as it was, but takes an `OmittedPart`, and reads images by one backend."""
    from transformers import AutoImageProcessor, AutoTokenizer

    def parts(cls: Any, folder: Any, processor_dict: Any = None, /, **_: Any) -> list[Any]:
        loaders = {
            "image_processor": lambda: AutoImageProcessor.from_pretrained(folder, backend=pixels, **FROM_DISK),
            "tokenizer": lambda: AutoTokenizer.from_pretrained(folder, **FROM_DISK),
        }
        return [loaders.get(name, OmittedPart)() for name in cls.get_attributes()]

    def check(self: Any, name: str, part: Any) -> Any:
        return None if isinstance(part, OmittedPart) else kind.check_argument_for_proper_class(self, name, part)

    own = {"_get_arguments_from_pretrained": classmethod(parts), "check_argument_for_proper_class": check}
    return type(kind.__name__, (kind,), own)  # the name stays: transformers looks some classes up by it


def _declared(folder: Path) -> str:
    for name in _DECLARED:
        if (folder / name).is_file():
            declared = read_json(folder / name).get("processor_class")
            if declared:
                return str(declared)
    return ""
