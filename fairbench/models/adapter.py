"""What training changed, on disk: LoRA in peft's own format, what else was trained beside it, all safetensors."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from fairbench.errors import FairbenchError
from fairbench.models.backbone import Backbone
from fairbench.models.checkpoint import ADAPTER, read_json, reading

# peft.PeftModel.from_pretrained(language_model, folder) expects its own prefix on every name.
_PREFIX = "base_model.model."
_LORA = "adapter_model.safetensors"
# peft's init_lora_weights that leave the base as it is.
UNCHANGED = ("true", "false", "gaussian", "orthogonal", "eva")
AGAIN = "copy the adapter again, whole"
OTHER_BASE = "it was trained on another model, or on one with other settings: give it the base that its card names"


def save(backbone: Backbone, folder: Path) -> None:
    """Write the trainable parts; the LoRA files also open with peft's own `PeftModel.from_pretrained`."""
    folder.mkdir(parents=True, exist_ok=True)
    lora = get_peft_model_state_dict(backbone.language_model)
    save_file({_PREFIX + name: value.contiguous().cpu() for name, value in lora.items()}, folder / _LORA)
    told = copy.copy(backbone.lora_config)
    told.target_modules = sorted(told.target_modules or ())  # a set's order is another in every process
    told.save_pretrained(str(folder))
    for part, module in backbone.trained_modules().items():
        values = {name: value.contiguous().cpu() for name, value in module.state_dict().items()}
        about = {"classes": json.dumps(backbone.classes)} if part == "head" else None
        save_file(values, folder / f"{part}.safetensors", about)


def load(backbone: Backbone, folder: Path) -> None:
    """Put saved parts into a backbone that was attached for the same classes, refusing a partial fit."""
    if not (folder / _LORA).is_file():
        raise FairbenchError(f"{folder} holds no adapter", f"expected {_LORA} in it")
    lora = {name.removeprefix(_PREFIX): value for name, value in _weights(folder / _LORA).items()}
    expected = set(get_peft_model_state_dict(backbone.language_model))
    if set(lora) != expected:
        odd = sorted(set(lora) ^ expected)
        raise FairbenchError(
            f"{folder} does not fit {backbone.alias}: {len(odd)} names differ, first {odd[0]}", OTHER_BASE
        )
    set_peft_model_state_dict(backbone.language_model, lora)
    for part, module in backbone.trained_modules().items():
        module.load_state_dict(_weights(folder / f"{part}.safetensors"), strict=True)


def _weights(file: Path) -> dict[str, Tensor]:
    """Read a file of weights, refusing one that is damaged or of a training that diverged."""
    try:
        values: dict[str, Tensor] = load_file(file)
    except (OSError, SafetensorError) as error:
        raise FairbenchError(f"cannot read {file}: {error}", AGAIN) from error
    if odd := sorted(name for name, value in values.items() if not value.isfinite().all()):
        raise FairbenchError(
            f"{file} holds {len(odd)} weights that are not finite, first {odd[0]}",
            "the training that wrote it diverged: give an adapter of before",
        )
    return values


MERGE = "give its folder as a backbone's, NAME:FOLDER: it is then merged into its base, and judged untrained"


def adapter_fingerprint(folder: Path) -> str:
    """Hash an adapter's files; raises FairbenchError for a folder that holds no adapter in peft's format."""
    files = [folder / ADAPTER, folder / _LORA]
    for file in files:
        if not file.is_file():
            pickled = " (pickled weights are not read)" if (folder / "adapter_model.bin").is_file() else ""
            raise FairbenchError(f"{folder} holds no adapter: {file.name} is missing{pickled}", "peft writes both")
    files += sorted(file for file in folder.glob("*.safetensors") if file.name != _LORA)
    state = hashlib.sha256()
    for file in files:
        state.update(file.name.encode())
        with file.open("rb") as content:
            state.update(hashlib.file_digest(content, "sha256").digest())
    return state.hexdigest()[:16]


def adopt(backbone: Backbone, folder: Path) -> dict[str, Any]:
    """Put a LoRA that was trained elsewhere, on this model, into the backbone's own; return where it comes from.

    The backbone's rank may be larger and its layers more: what is left over is zero, so the function is that of
    the adapter on its base. Raises FairbenchError for what cannot be so expressed.
    """
    config = read_json(folder / ADAPTER)
    _refuse(config, folder)
    weights = _weights(folder / _LORA)
    layers = {name: m for name, m in backbone.language_model.named_modules() if isinstance(m, LoraLayer)}
    stems = {re.sub(r"\.lora_[AB]\.weight$", "", name): name for name in weights}
    layer_of = {stem: _within(stem.removeprefix(_PREFIX), backbone) for stem in stems}
    absent = sorted({name for name in layer_of.values() if name not in layers})
    if absent:
        targets = ",".join(sorted({name.rpartition(".")[2] for name in layer_of.values()}))
        raise FairbenchError(
            f"{folder} adapts {len(absent)} layers that have no LoRA in {backbone.alias}, first {absent[0]}",
            f"--set {backbone.alias}.targets={targets}",
        )
    halves = [f"{stem}.lora_{half}.weight" for stem in layer_of for half in "AB"]
    lacking = [name for name in halves if name not in weights]
    if lacking or not halves:
        raise FairbenchError(f"{folder / _LORA} holds no {lacking[0] if lacking else 'weights'}", AGAIN)
    rank = _rank([weights[f"{stem}.lora_A.weight"] for stem in layer_of], config, folder)
    if rank > backbone.rank:
        raise FairbenchError(
            f"{folder} has rank {rank}, and {backbone.alias} {backbone.rank}",
            f"--set {backbone.alias}.rank={rank}",
        )
    alpha, by_root = _alpha(config, folder), bool(config.get("use_rslora"))
    for stem, name in layer_of.items():
        _fill(layers[name], weights[f"{stem}.lora_A.weight"], weights[f"{stem}.lora_B.weight"], alpha, by_root)
    for part, module in backbone.trained_modules().items():
        file = folder / f"{part}.safetensors"
        if file.is_file():
            values = _in_order(file, backbone.classes) if part == "head" else _weights(file)
            try:
                module.load_state_dict(values, strict=True)
            except RuntimeError as error:
                raise FairbenchError(f"{file} does not fit {backbone.alias}: {error}", OTHER_BASE) from error
        elif part == "head":
            raise FairbenchError(f"{folder} has no head", f"--set {backbone.alias}.readout=words")
    return {**provenance(folder), "rank": rank, "layers": len(layer_of)}


def _in_order(file: Path, classes: Sequence[str]) -> dict[str, Tensor]:
    """Return a saved head's weights, a row for each of these classes in their order.

    A head without its classes' names, which fairbench did not write, is taken as it stands.
    """
    values = _weights(file)
    with safe_open(file, "pt") as opened:
        named = (opened.metadata() or {}).get("classes")
    try:
        own = [str(name) for name in json.loads(named)] if named else list(classes)
    except (TypeError, ValueError) as error:
        raise FairbenchError(f"{file} does not list its classes: {named!r:.80}", AGAIN) from error
    if sorted(own) != sorted(classes):
        raise FairbenchError(
            f"{file} tells apart {', '.join(own)}, and the data {', '.join(classes)}",
            "judge it on data of its own classes, or by words (readout=words)",
        )
    order = [own.index(name) for name in classes]
    return {name: value[order] for name, value in values.items()}


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no model."""
    return (folder / ADAPTER).is_file() and not (folder / "config.json").is_file()


def base_of(folder: Path) -> str:
    """Return the name or folder of the model that an adapter was trained on."""
    base = read_json(folder / ADAPTER).get("base_model_name_or_path")
    if not base:
        raise FairbenchError(f"the adapter in {folder} does not say on which base it was trained", ADAPTER)
    return str(base)


def provenance(folder: Path) -> dict[str, Any]:
    """Return where an adapter comes from: its base, and the data that its card names."""
    base = str(read_json(folder / ADAPTER).get("base_model_name_or_path") or "not recorded")
    return {"base": _published(base), "trained on": list(trained_on(folder))}


def merged(model: Any, folder: Path) -> Any:
    """Return a model with an adapter of any kind of peft's merged into it; refuses one that does not fit whole."""
    from peft import PeftConfig, get_peft_model

    adapter_fingerprint(folder)  # refuses a folder without weights that can be read safely
    weights = _weights(folder / _LORA)
    with reading(folder, "its adapter does not fit its base: ", OTHER_BASE):
        adapted = get_peft_model(model, PeftConfig.from_pretrained(str(folder)))
        report = set_peft_model_state_dict(adapted, weights)
    wanted = set(get_peft_model_state_dict(adapted))
    odd = sorted({*report.unexpected_keys, *(wanted ^ set(weights))})
    if odd:
        raise FairbenchError(
            f"the adapter in {folder} does not fit its base: {len(odd)} names differ, first {odd[0]}", OTHER_BASE
        )
    return adapted.merge_and_unload()


def _published(base: str) -> str:
    """Return a base's name on the hub as it is, and of a folder on somebody's disk its last part alone."""
    return base if base.count("/") < 2 and not base.startswith(("/", ".", "~")) else Path(base).name


def trained_on(folder: Path) -> tuple[str, ...]:
    """Return the data sets that an adapter's card names: `datasets:` in the front matter of its README.md."""
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    front = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    listed = re.search(r"^datasets:(.*(?:\n\s*-.*)*)", front[1], re.MULTILINE) if front else None
    return tuple(re.findall(r"[\w./-]*\w[\w./-]*", listed[1].replace("- ", " "))) if listed else ()


def _refuse(config: Mapping[str, Any], folder: Path) -> None:
    """Refuse an adapter that is more than LoRA."""
    reasons = (
        (config.get("peft_type") != "LORA", f"of type {config.get('peft_type')}, not LoRA"),
        (config.get("use_dora"), "DoRA"),
        (config.get("modules_to_save"), f"LoRA with whole modules ({config.get('modules_to_save')})"),
        (config.get("bias", "none") != "none", "LoRA with biases"),
        (config.get("alpha_pattern"), "LoRA with a scale of its own for some layers"),
        (
            str(config.get("init_lora_weights", True)).lower() not in UNCHANGED,
            f"LoRA that began by changing its base (init_lora_weights = {config.get('init_lora_weights')})",
        ),
    )
    for holds, what in reasons:
        if holds:
            raise FairbenchError(f"the adapter in {folder} is {what}", MERGE)


def _within(stem: str, backbone: Backbone) -> str:
    """Return a layer's name within the language model, given its name within whatever peft was applied to."""
    model = {id(module): name for name, module in backbone.model.named_modules()}
    path = model[id(backbone.language_model)]
    inside = dict(backbone.language_model.named_modules())
    # Of the whole model; of the model without its head; of the language model; of the whole model before 4.52.
    prefixes = (f"{path}.", f"{path.partition('.')[2]}.", "", "language_model.model.")
    for prefix in prefixes:
        if stem.startswith(prefix) and stem.removeprefix(prefix) in inside:
            return stem.removeprefix(prefix)
    raise FairbenchError(
        f"the adapter changes {stem}, which is not in the language model of {backbone.alias}",
        f"if it belongs to this model, {MERGE}",
    )


def _rank(halves: Sequence[Tensor], config: Mapping[str, Any], folder: Path) -> int:
    """Return the largest rank of an adapter's A halves, (r, in) each, which its configuration must bear out."""
    ranks = {half.shape[0] if half.ndim == 2 else 0 for half in halves}
    alone = None if config.get("rank_pattern") else config.get("r", 8)  # peft's default
    if 0 in ranks or (alone is not None and ranks != {alone}):
        told = "" if alone is None else f", and its {ADAPTER} says r = {alone!r}"
        raise FairbenchError(f"the weights in {folder} have rank {', '.join(map(str, sorted(ranks)))}{told}", AGAIN)
    return max(ranks)


def _alpha(config: Mapping[str, Any], folder: Path) -> float:
    """Return what an adapter's product is multiplied by, before it is divided by the rank or its root."""
    alpha = config.get("lora_alpha", 8)  # peft's default
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise FairbenchError(f"{folder / ADAPTER}: lora_alpha is {alpha!r}, which is no number", AGAIN)
    return alpha


@torch.no_grad()
def _fill(layer: LoraLayer, a: Tensor, b: Tensor, alpha: float, by_root: bool) -> None:
    """Put A (r, in) and B (out, r) into a layer of rank r or more; the scale goes into B."""
    own_a, own_b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    rank = a.shape[0]
    if a.shape[1] != own_a.shape[1] or tuple(b.shape) != (own_b.shape[0], rank):
        raise FairbenchError(
            f"the adapter's layers are {tuple(b.shape)} × {tuple(a.shape)}, those of its base other", OTHER_BASE
        )
    scale = alpha / (rank**0.5 if by_root else rank)
    own_b.zero_()
    own_a[:rank] = a.to(own_a.dtype)
    own_b[:, :rank] = b.to(own_b.dtype) * (scale / layer.scaling["default"])
