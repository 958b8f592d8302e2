"""What a training under way leaves, so that it goes on where it was, bit for bit, after its process has ended.

accelerate's own checkpoints hold whole prepared models, frozen weights included, and know neither the optimizers
of a method's players nor what a method keeps beside its weights; so the state is put together here, as plain
containers of tensors that `torch.load(weights_only=True)` reads, in one file whose name holds its hash.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import operator
import os
import random
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from fairbench.jobs.store import Store
from fairbench.predictions.predictions import Predictions
from fairbench.training.method import Method
from fairbench.training.run import Run

KEPT = 2  # so that a damaged one has another before it
OWN = frozenset(vars(nn.Module()))  # what torch keeps in a module


class Unsaveable(Exception):
    """Something that a method keeps cannot be written down: its name."""


@dataclass
class Place:
    """Where a training is: after `step` steps of stage `number`, whose rows were drawn by `odds`.

    `epochs` are those that selection may choose among: their validation answers and weights.
    """

    number: int = 0
    step: int = 0
    odds: Tensor | None = None
    epochs: list[tuple[Predictions, dict[str, Tensor]]] = field(default_factory=list)


class Checkpoints:
    """The checkpoints of one job in its folder, newest last."""

    def __init__(self, store: Store, run: Run, method: Method) -> None:
        self.store, self.run, self.method = store, run, method
        self.folder = store.checkpoint_folder(run.job)
        self.modules = dict(method.named_modules())
        self.constants = {
            (name, key): (value, _held(value))
            for name, module in self.modules.items()
            for key, value in _attributes(module)
        }

    def obstacle(self) -> str | None:
        """Say what keeps this training from being gone on with, or None."""
        try:
            self._method()
        except Unsaveable as error:
            return str(error)
        return None if self.run.accelerator.num_processes == 1 else "several processes share it"

    def save(self, place: Place, about: Mapping[str, Any]) -> None:
        """Write the state and plain values `about` it; raises Unsaveable, and OSError where the disk refuses."""
        buffer = io.BytesIO()
        torch.save({"about": _pack(dict(about)), **self._state(place)}, buffer)
        content = buffer.getvalue()
        self.folder.mkdir(parents=True, exist_ok=True)
        total = len(list(self.folder.glob("*.pt")))
        number = max((int(path.name.split("-")[0]) for path in self.folder.glob("*.pt")), default=0) + 1
        path = self.folder / f"{number:09d}-{hashlib.sha256(content).hexdigest()}.pt"
        temporary = path.with_suffix(".part")
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        for old in sorted(self.folder.glob("*.pt"))[: max(0, total + 1 - KEPT)]:
            old.unlink(missing_ok=True)

    def newest(self) -> dict[str, Any] | None:
        """Return the newest state that is whole, or None; damaged ones are passed over."""
        for path in sorted(self.folder.glob("*.pt"), reverse=True):
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() == path.stem.partition("-")[2]:
                state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
                return state
        return None

    def about(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return what `save` was told beside the state itself."""
        values: dict[str, Any] = _unpack(state["about"], self.run.device)
        return values

    def restore(self, state: Mapping[str, Any], stages: tuple[Any, ...]) -> Place:
        """Put everything back but the random numbers, which the loader of examples would draw from."""
        run, backbone = self.run, self.run.backbone
        place = state["place"]
        run.stage_number = place["number"] - 1
        run.begin(stages[place["number"]])
        with torch.no_grad():
            for name, parameter in backbone.trainable().items():
                parameter.copy_(state["weights"][name])
                parameter.requires_grad_(name in state["learning"])
        self._restore_method(state["method"])
        named = backbone.trainable()
        modules = dict(self.method.named_modules())
        for player, kept in state["players"].items():
            if player == MAIN:
                module: nn.Module = backbone
                for group, names in zip(run.players[id(backbone)].param_groups, kept["names"], strict=True):
                    group["params"] = [named[name] for name in names]
            else:
                module = modules[player.removeprefix("method:")]
                run.join(module)
            run.players[id(module)].load_state_dict(kept["state"])
        for key, value in _unpack(state["run"], run.device).items():
            setattr(run, key, value)
        run.facts.update(_unpack(state["facts"], run.device))
        epochs = [(_predictions(epoch["answers"]), epoch["weights"]) for epoch in place["epochs"]]
        return Place(place["number"], place["step"], place["odds"], epochs)

    def restore_randomness(self, state: Mapping[str, Any]) -> None:
        """Put every source of random numbers back."""
        kept = state["random"]
        self.run.generator.set_state(kept["run"])
        torch.set_rng_state(kept["torch"])
        if torch.cuda.is_available() and kept["cuda"]:
            torch.cuda.set_rng_state_all(kept["cuda"])
        random.setstate(_unpack(kept["python"], self.run.device))
        np.random.set_state(_unpack(kept["numpy"], self.run.device))

    # ── taking the state ─────────────────────────────────────────────────────────────────────────

    def _state(self, place: Place) -> dict[str, Any]:
        run, trainable = self.run, self.run.backbone.trainable()
        epochs = [{"answers": _parquet(answers), "weights": weights} for answers, weights in place.epochs]
        return {
            "place": {"number": place.number, "step": place.step, "odds": place.odds, "epochs": epochs},
            "weights": {name: p.detach().cpu().clone() for name, p in trainable.items()},
            "learning": [name for name, p in trainable.items() if p.requires_grad],
            "method": self._method(),
            "players": self._players(),
            "run": _pack({key: getattr(run, key) for key in ("tried", "last_loss", "micro_batch", "totals")}),
            "facts": _pack(dict(run.facts)),
            "random": {
                "run": run.generator.get_state(),
                "torch": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
                "python": _pack(random.getstate()),
                "numpy": _pack(np.random.get_state()),
            },
        }

    def _players(self) -> dict[str, Any]:
        """Return each player's optimizer, by whose it is; the main one's may learn some parameters only."""
        run = self.run
        parameters = {id(parameter): name for name, parameter in run.backbone.trainable().items()}
        owners = {id(module): f"method:{name}" for name, module in self.method.named_modules()}
        players = {}
        for owner, optimizer in run.players.items():
            if owner == id(run.backbone):
                names = [[parameters[id(p)] for p in group["params"]] for group in optimizer.param_groups]
                players[MAIN] = {"state": optimizer.state_dict(), "names": names}
            elif owner in owners:
                players[owners[owner]] = {"state": optimizer.state_dict()}
            else:
                raise Unsaveable("an optimizer of a module that is not the method's")
        return players

    def _method(self) -> dict[str, Any]:
        """Return all that a method keeps: tensors, and plain values beside them; raises Unsaveable."""
        modules = dict(self.method.named_modules())
        if set(modules) != set(self.modules):
            raise Unsaveable("modules that were made after `setup`")
        kept, found = {}, {_identity(self.run.generator): "the run's generator"}
        for name, module in modules.items():
            for key, tensor in (*module._parameters.items(), *module._buffers.items()):
                if tensor is not None:
                    found[_identity(tensor)] = _called(name, key)
        for name, module in modules.items():
            values = {}
            for key, value in _attributes(module):
                if not self._unchanged(name, key, value):
                    where = _called(name, key)
                    try:
                        _once(value, where, found)
                        values[key] = _pack(value)
                    except Unsaveable as error:
                        raise Unsaveable(f"{where} ({error})") from None
            kept[name] = {
                "parameters": {key: _pack(value) for key, value in module._parameters.items()},
                "buffers": {key: _pack(value) for key, value in module._buffers.items()},
                "values": values,
            }
        return kept

    def _unchanged(self, name: str, key: str, value: Any) -> bool:
        """Whether a value is what `setup` left there and cannot have changed since, or is kept otherwise."""
        before, held = self.constants.get((name, key), (self, []))
        now = _held(value)
        if before is not value or len(held) != len(now) or not all(map(operator.is_, held, now)):
            return False
        kept = (self.run, *self.modules.values())
        return all(_constant(one) or any(one is other for other in kept) for one in now)

    def _restore_method(self, kept: Mapping[str, Any]) -> None:
        for name, module in self.method.named_modules():
            state = kept[name]
            for key, value in state["parameters"].items():
                if value is not None:
                    with torch.no_grad():
                        module._parameters[key].copy_(_unpack(value, self.run.device))
            for key, value in state["buffers"].items():
                module._buffers[key] = _unpack(value, self.run.device)
            for key, value in state["values"].items():
                object.__setattr__(module, key, _unpack(value, self.run.device))


MAIN = "backbone"


def _attributes(module: nn.Module) -> list[tuple[str, Any]]:
    return [(key, value) for key, value in vars(module).items() if key not in OWN]


def _called(module: str, key: str) -> str:
    return f"`{f'{module}.{key}'.lstrip('.')}`"


def _held(value: Any, within: tuple[Any, ...] = ()) -> list[Any]:
    """Return what a function keeps between its calls (variables around it, defaults, attributes) or whose it is,
    functions inside it included; of all else itself.
    """
    if isinstance(value, types.MethodType):
        inside = [value.__self__, value.__func__]
    elif isinstance(value, types.FunctionType):
        around = [_content(cell) for cell in value.__closure__ or ()]
        named = {**(value.__kwdefaults__ or {}), **vars(value)}
        inside = [*around, *(value.__defaults__ or ()), *named.values()]
    else:
        return [value]
    if any(value is one for one in within):
        return []
    return [held for one in inside for held in _held(one, (*within, value))]


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a variable that has no value yet
        return None


def _constant(value: Any) -> bool:
    """Whether a value that is still the same object cannot have changed."""
    frozen = dataclasses.is_dataclass(value) and getattr(type(value), "__dataclass_params__").frozen  # noqa: B009
    plain = value is None or isinstance(value, bool | int | float | str | bytes | type | types.ModuleType)
    return bool(frozen) or plain


def _identity(value: Any) -> tuple[str, int]:
    """Say what two names of one thing have in common; of tensors, their memory."""
    if isinstance(value, Tensor):
        return "memory", value.untyped_storage().data_ptr() or id(value)
    return "object", id(value)


def _once(value: Any, where: str, found: dict[tuple[str, int], str]) -> None:
    """Note what can change under its name; raises Unsaveable where it has another, which would be lost."""
    if isinstance(value, Tensor | np.ndarray | torch.Generator | list | set | dict):
        if (other := found.setdefault(_identity(value), where)) != where:
            raise Unsaveable(f"the same as {other}")
        if isinstance(value, Tensor) and value.grad_fn is not None:
            raise Unsaveable("a tensor amid a computation")
    inside = [*value.keys(), *value.values()] if type(value) is dict else value
    if type(value) in (list, tuple, set, frozenset, dict):
        for number, item in enumerate(inside):
            _once(item, f"{where}[{number}]", found)


def _pack(value: Any) -> Any:
    """Write a value, tagged, in what `torch.load(weights_only=True)` reads; raises Unsaveable."""
    if value is None or type(value) in (bool, int, float, str, bytes):
        return value
    if isinstance(value, Tensor):
        learns = value.requires_grad and not isinstance(value, nn.Parameter)
        return {"tensor": value.detach().cpu().clone(), "here": value.device.type == "cpu", "learns": learns}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        flat = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
        return {"array": torch.from_numpy(flat.copy()), "dtype": value.dtype.str, "shape": list(value.shape)}
    if isinstance(value, np.bool_ | np.integer | np.floating):
        return {"number": _pack(np.asarray(value))}
    if isinstance(value, torch.Generator):
        return {"generator": value.get_state()}
    if type(value) in (list, tuple, set, frozenset):
        ordered = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
        return {type(value).__name__: [_pack(item) for item in ordered]}
    if type(value) is dict:
        return {"dict": [[_pack(key), _pack(item)] for key, item in value.items()]}
    raise Unsaveable(type(value).__name__)


def _unpack(value: Any, device: torch.device) -> Any:
    """Read what `_pack` wrote; tensors that were on the device are on this one."""
    if not isinstance(value, dict):
        return value
    kind = next(iter(value))
    if kind == "tensor":
        return value["tensor"].clone().to("cpu" if value["here"] else device).requires_grad_(value["learns"])
    if kind == "array":
        return value["array"].numpy().view(value["dtype"]).reshape(value["shape"]).copy()
    if kind == "number":
        return _unpack(value["number"], device)[()]
    if kind == "generator":
        generator = torch.Generator()
        generator.set_state(value["generator"])
        return generator
    if kind == "dict":
        return {_unpack(key, device): _unpack(item, device) for key, item in value["dict"]}
    make = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}[kind]
    return make(_unpack(item, device) for item in value[kind])


def _parquet(predictions: Predictions) -> dict[str, Any]:
    buffer = io.BytesIO()
    predictions.table.to_parquet(buffer)
    about = [list(predictions.classes), list(predictions.attributes), predictions.task]
    return {"table": torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8), "about": about}


def _predictions(kept: Mapping[str, Any]) -> Predictions:
    classes, attributes, task = kept["about"]
    table = pd.read_parquet(io.BytesIO(kept["table"].numpy().tobytes()))
    return Predictions(table, tuple(classes), tuple(attributes), task)
