"""What a job must leave as it found it, because the next one inherits it: the frozen backbone, the process."""

from __future__ import annotations

import contextlib
import copy
import os
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fairbench.models.backbone import Backbone
from fairbench.models.sharding import local

WIDTH = 4096  # numbers in a row of the checksum's table
ROWS = 1 << 11  # rows at once, so that a checksum needs little memory
INTEGERS = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.uint8}
UNTOLD = ("training", "facts")  # attributes that every job sets anew
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def checksum(tensor: Tensor) -> Tensor:
    """Return two integers (2,) that follow from every bit of a tensor and its place, computed where the tensor is.

    The bits are read as integers in a table; the sums of its rows and of its columns are weighted by place and
    added up modulo 2⁶⁴. The weights are odd, so any change of one of these integers is seen.
    Of a sharded tensor they follow from this process's part.
    """
    total = torch.zeros(2, dtype=torch.int64, device=tensor.device)
    numbers = _integers(local(tensor))
    columns = 2 * torch.arange(WIDTH, device=tensor.device) + 1
    for start in range(0, len(numbers), WIDTH * ROWS):
        part = numbers[start : start + WIDTH * ROWS]
        missing = -len(part) % WIDTH
        table = (nn.functional.pad(part, (0, missing)) if missing else part).view(-1, WIDTH)
        rows = 2 * (start // WIDTH + torch.arange(len(table), device=tensor.device)) + 1
        total[0] += (table.sum(1, dtype=torch.int64) * rows).sum()
        total[1] += (table.sum(0, dtype=torch.int64) * columns).sum()
    return total


def _integers(tensor: Tensor) -> Tensor:
    """View a tensor's bits as the widest integers that they fill: fewer numbers are faster to add up."""
    real = torch.view_as_real(tensor.detach()) if tensor.is_complex() else tensor.detach()
    flat = real.contiguous().flatten()
    size, offset = flat.numel() * flat.element_size(), flat.storage_offset() * flat.element_size()
    return flat.view(next(kind for width, kind in INTEGERS.items() if size % width == offset % width == 0))


def frozen(backbone: Backbone) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor that no stage may train, buffers and what modules keep beside them included."""
    trainable = {id(parameter) for parameter in backbone.trainable().values()}
    for name, module in backbone.named_modules():
        kept = {k: v for k, v in vars(module).items() if isinstance(v, Tensor)}
        for key, value in vars(module).items():
            if isinstance(value, Mapping) and key not in ("_parameters", "_modules"):
                prefix = "" if key == "_buffers" else f"{key}."
                kept |= {f"{prefix}{k}": v for k, v in value.items() if isinstance(v, Tensor)}
        kept |= dict(module.named_parameters(recurse=False))
        yield from ((f"{name}.{key}".lstrip("."), v) for key, v in kept.items() if id(v) not in trainable)


def plain(value: Any) -> bool:
    """Whether a module's attribute is a number, a word, or some of them: what can change answers."""
    if isinstance(value, Mapping):
        return all(map(plain, value.values()))
    if isinstance(value, list | tuple):
        return all(map(plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def described(backbone: Backbone) -> dict[str, str]:
    """Say how every module is set up: its class, plain attributes, hooks, and which tensors it has."""
    said = {"config": backbone.language_model.config.to_json_string(use_diff=False)}  # type: ignore[operator, union-attr]
    for name, module in backbone.named_modules():
        hooks = [named for key in HOOKS for hook in getattr(module, key).values() if (named := _foreign(hook))]
        own = {k: v for k, v in vars(module).items() if k not in UNTOLD and "hooks" not in k and plain(v)}
        tensors = {k: (str(v.dtype), tuple(v.shape)) for k, v in module.named_parameters(recurse=False)}
        said[name or "the backbone"] = repr((type(module).__qualname__, own, hooks, tensors))
    return said


def _foreign(hook: Any) -> str | None:
    """Name a hook, unless transformers put it there, as it does when hidden states are first asked for."""
    owner = getattr(hook, "__module__", type(hook).__module__)
    return None if owner.startswith("transformers.") else f"{owner}.{getattr(hook, '__qualname__', type(hook))}"


@dataclass(frozen=True)
class Imprint:
    """What a backbone is apart from what is trained: checksums of its tensors, and how its modules are set up."""

    sums: dict[str, Tensor]
    setup: dict[str, str]

    @classmethod
    def of(cls, backbone: Backbone) -> Imprint:
        """Take a backbone's imprint; one reading of its weights, on its device."""
        return cls({name: checksum(value) for name, value in frozen(backbone)}, described(backbone))

    def changes(self, later: Imprint) -> list[str]:
        """Name what is not as it was."""
        setup = [name for name in {**self.setup, **later.setup} if self.setup.get(name) != later.setup.get(name)]
        tensors = list({**self.sums, **later.sums})
        if list(self.sums) == list(later.sums) and tensors:
            same = (torch.stack(list(self.sums.values())) == torch.stack(list(later.sums.values()))).all(1).tolist()
            tensors = [name for name, equal in zip(tensors, same, strict=True) if not equal]
        else:
            tensors = sorted(set(self.sums) ^ set(later.sums))
        return [*(f"the frozen {name}" for name in tensors), *(f"the setup of {name}" for name in setup)]


class OfClasses:
    """What the classes of a method hold that can change, which the next job would find: put back, and named."""

    def __init__(self, kind: type) -> None:
        self.kept: list[tuple[type, str, str, Any]] = []
        for owner in kind.__mro__:
            if owner.__module__.partition(".")[0] in ("torch", "builtins", "fairbench"):
                continue
            for name, value in vars(owner).items():
                if isinstance(value, list | dict | set | np.ndarray | Tensor) and not name.startswith("__"):
                    with contextlib.suppress(Exception):  # what cannot be copied or written is not watched
                        self.kept.append((owner, name, _written(value), copy.deepcopy(value)))

    def restore(self) -> list[str]:
        """Put everything back, and name what had changed."""
        changed = []
        for owner, name, before, value in self.kept:
            if _written(vars(owner).get(name)) != before:
                setattr(owner, name, value)
                changed.append(f"`{name}` of the class {owner.__name__}")
        return changed


def _written(value: Any) -> str:
    """Write a value so that two are written alike only where they are."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape} {value.tobytes()!r}"
    if isinstance(value, Mapping):
        return repr([(key, _written(item)) for key, item in value.items()])
    if isinstance(value, list | tuple):
        return repr([_written(item) for item in value])
    return repr(sorted(map(repr, value)) if isinstance(value, set | frozenset) else value)


def _here() -> str:
    """Return the working directory, empty where somebody removed it."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""


class Process:
    """The process's own state: put back after a job, and what a job should not have touched is named."""

    def __init__(self) -> None:
        self.state = self._state()
        self.random = random.getstate(), np.random.get_state(), torch.get_rng_state()
        self.cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []

    @staticmethod
    def _state() -> dict[str, Any]:
        return {
            "the default number format": torch.get_default_dtype(),
            "the working directory": _here(),
            "the gradient mode": torch.is_grad_enabled(),
            "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
            "the number of threads": torch.get_num_threads(),
            "the precision of matrix products": torch.get_float32_matmul_precision(),
        }

    def restore(self) -> list[str]:
        """Put everything back, random numbers included, and name what had changed beside them."""
        now = self._state()
        torch.set_default_dtype(self.state["the default number format"])
        if self.state["the working directory"]:
            os.chdir(self.state["the working directory"])
        torch.set_num_threads(self.state["the number of threads"])
        torch.set_float32_matmul_precision(self.state["the precision of matrix products"])
        torch.set_grad_enabled(self.state["the gradient mode"])
        torch.use_deterministic_algorithms(self.state["deterministic algorithms"], warn_only=True)
        random.setstate(self.random[0])
        np.random.set_state(self.random[1])
        torch.set_rng_state(self.random[2])
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)
        return [name for name, value in self.state.items() if now[name] != value]
