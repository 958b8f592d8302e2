"""What training changed, on disk: LoRA in peft's own format, what else was trained beside it, all safetensors."""

from __future__ import annotations

from pathlib import Path

from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file

from fairbench.errors import FairbenchError
from fairbench.models.backbone import Backbone

# peft.PeftModel.from_pretrained(language_model, folder) expects its own prefix on every name.
_PREFIX = "base_model.model."
_LORA = "adapter_model.safetensors"


def save(backbone: Backbone, folder: Path) -> None:
    """Write the trainable parts; the LoRA files also open with peft's own `PeftModel.from_pretrained`."""
    folder.mkdir(parents=True, exist_ok=True)
    lora = get_peft_model_state_dict(backbone.language_model)
    save_file({_PREFIX + name: value.contiguous().cpu() for name, value in lora.items()}, folder / _LORA)
    backbone.lora_config.save_pretrained(str(folder))
    for part, module in backbone.trained_modules().items():
        values = {name: value.contiguous().cpu() for name, value in module.state_dict().items()}
        save_file(values, folder / f"{part}.safetensors")


def load(backbone: Backbone, folder: Path) -> None:
    """Put saved parts into a backbone that was attached for the same classes, refusing a partial fit."""
    if not (folder / _LORA).is_file():
        raise FairbenchError(f"{folder} holds no adapter", f"expected {_LORA} in it")
    lora = {name.removeprefix(_PREFIX): value for name, value in load_file(folder / _LORA).items()}
    expected = set(get_peft_model_state_dict(backbone.language_model))
    if set(lora) != expected:
        odd = sorted(set(lora) ^ expected)
        raise FairbenchError(f"{folder} does not fit {backbone.name}: {len(odd)} names differ, first {odd[0]}")
    set_peft_model_state_dict(backbone.language_model, lora)
    for part, module in backbone.trained_modules().items():
        module.load_state_dict(load_file(folder / f"{part}.safetensors"), strict=True)
