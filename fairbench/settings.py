"""Typed, range-checked settings: the annotated class attributes of a dataset, backbone or method."""

from __future__ import annotations

import contextlib
import dis
import inspect
import math
import types
import typing
from abc import ABC
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Union, dataclass_transform, get_args, get_origin

from fairbench.errors import FairbenchError


@dataclass(frozen=True)
class Range:
    """Bounds of a number; `above` excludes the lower bound itself."""

    low: float | None = None
    high: float | None = None
    above: bool = False

    def refuses(self, value: float) -> str | None:
        """Say why `value` is out of bounds, or None when it is fine."""
        if self.low is not None and (value <= self.low if self.above else value < self.low):
            return f"must be {'above' if self.above else 'at least'} {self.low:g}"
        if self.high is not None and value > self.high:
            return f"must be at most {self.high:g}"
        return None


NonNegative = Annotated[float, Range(0)]
Positive = Annotated[float, Range(0, above=True)]
Fraction = Annotated[float, Range(0, 1)]
Count = Annotated[int, Range(1)]

REQUIRED: Any = object()
LISTED = 40  # names that are all listed beside the one that was nearly written
_WORDS = {"true": True, "false": False, "yes": True, "no": False}
_EXPECTED = {
    bool: ("true or false", "one of: true, false"),
    int: ("a whole number", "one such as 3"),
    float: ("a finite number", "one such as 0.5"),
    str: ("text", "it in quotes"),
}


def suggest(kind: str, name: str, known: Iterable[str]) -> FairbenchError:
    """Build the error for an unknown name: the nearest one, then all there are; of very many, how many."""
    choices = sorted(known)
    near = get_close_matches(name, choices, n=1, cutoff=0.5)
    hint = f"did you mean `{near[0]}`? " if near else ""
    if near and len(choices) > LISTED:
        hint += f"there are {len(choices) - 1} others"
    else:
        hint += f"there is: {', '.join(choices) or 'none'}"
    return FairbenchError(f"no {kind} is called `{name}`", hint)


def convert(value: Any, kind: Any, where: str) -> Any:
    """Turn `value` (from TOML, Python or, as a string, the command line) into type `kind`.

    Raises FairbenchError naming `where`, the value and the rule when it does not fit.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        result = convert(value, arguments[0], where)
        for rule in arguments[1:]:
            reason = rule.refuses(result) if isinstance(rule, Range) and result is not None else None
            if reason:
                raise FairbenchError(f"{where} = {value!r} {reason}", "choose a value inside the range")
        return result
    if origin is Literal:
        for choice in arguments:
            same = value == choice and type(value) is type(choice)
            if same or (isinstance(value, str) and value == str(choice)):
                return choice
        raise FairbenchError(
            f"{where} = {value!r} is not a choice", f"choose one of: {', '.join(map(str, arguments))}"
        )
    if origin in (Union, types.UnionType):
        if type(None) in arguments and (value is None or str(value).lower() == "none"):
            return None
        *first, last = (option for option in arguments if option is not type(None))
        for option in first:
            with contextlib.suppress(FairbenchError):
                return convert(value, option, where)
        return convert(value, last, where)
    if origin is tuple:
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, list | tuple):
            raise FairbenchError(f"{where} = {value!r} is not a list", "separate the items by commas")
        return tuple(
            convert(item.strip() if isinstance(item, str) else item, arguments[0], where) for item in items
        )
    return _convert_scalar(value, kind, where)


def _convert_scalar(value: Any, kind: Any, where: str) -> Any:
    if kind is bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in _WORDS:
            return _WORDS[value.lower()]
    elif kind is str:
        if isinstance(value, str):
            return value
    elif kind in (int, float) and isinstance(value, int | float | str) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):
            number = kind(value)
            # An infinite or undefined setting could not be written as JSON, and means nothing.
            if math.isfinite(number) and (isinstance(value, str) or number == value):
                return number
    expected, example = _EXPECTED.get(kind, (describe(kind), ""))
    raise FairbenchError(f"{where} = {value!r} is not {expected}", f"write {example}" if example else "")


@dataclass_transform(kw_only_default=True)
class Configurable(ABC):
    """Anything chosen by name whose annotated class attributes are its settings.

    A ClassVar is a fact about the class, not a setting. Settings are given by keyword, checked
    against their annotation, and unknown ones are refused with the nearest name.
    """

    name: ClassVar[str]
    takes_folder: ClassVar[bool] = False  # whether NAME:FOLDER says where its weights lie
    needs_root: ClassVar[bool] = False  # whether `root` must be given
    unkeyed: ClassVar[tuple[str, ...]] = ()  # settings that change no result and stand in no job's key

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Refuse a setting that is named like an attribute of its contract: one would overwrite the other."""
        super().__init_subclass__(**keywords)
        for key in _setting_names(cls):
            for base in cls.__mro__[1:]:
                if key in _attributes_of(base):
                    name = getattr(cls, "name", cls.__name__)
                    raise FairbenchError(
                        f"{name} has a setting called `{key}`, and {base.__name__} has an attribute of that name: "
                        "one would overwrite the other",
                        "give the setting another name, or write ClassVar if it is no setting",
                    )

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.alias = self.name  # what a run calls it: NAME, or NAME:its folder's own name
        self.root: Path | None = None  # where the folder lies that it was given
        fields = self.fields()
        for key in settings:
            if key not in fields:
                raise suggest(f"setting of {self.name}", key, fields)
        for key, (kind, default) in fields.items():
            if key in settings:
                setattr(self, key, convert(settings[key], kind, f"{self.name}.{key}"))
            elif default is REQUIRED:
                raise FairbenchError(f"{self.name} needs `{key}`", f"give it with --set {self.name}.{key}=…")
            else:
                setattr(self, key, default)

    @classmethod
    def fields(cls) -> dict[str, tuple[Any, Any]]:
        """Return each setting's (type, default), base classes first."""
        declared: dict[str, tuple[Any, Any]] = {}
        for base in reversed(cls.__mro__):
            if issubclass(base, Configurable):
                for key, kind in _own_settings(base).items():
                    declared[key] = (kind, getattr(cls, key, REQUIRED))
        return declared

    def settings(self) -> dict[str, Any]:
        """Return the settings in force, JSON-ready."""
        values = {key: getattr(self, key) for key in self.fields()}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def _setting_names(base: type) -> dict[str, Any]:
    """Return the annotations of one class that are settings, unresolved: neither private nor ClassVar."""
    written = inspect.get_annotations(base)
    return {key: kind for key, kind in written.items() if not key.startswith("_") and not _is_fact(kind)}


def _attributes_of(base: type) -> set[str]:
    """Return what a class owns that no setting may be called: its verbs, and what it sets when it is made.

    A contract's facts (ClassVar) may become settings, as `max_new_tokens` does in some datasets; those that are
    read before there are settings, which every contract has, may not.
    """
    code = getattr(vars(base).get("__init__"), "__code__", None)
    stored = (
        {str(step.argval) for step in dis.get_instructions(code) if step.opname == "STORE_ATTR"} if code else set()
    )
    annotated = inspect.get_annotations(base)
    facts = {key for key, kind in annotated.items() if _is_fact(kind) and base is not Configurable}
    settings = _setting_names(base) if issubclass(base, Configurable) else {}
    return {*vars(base), *annotated, *stored} - {*facts, *settings}


def _own_settings(base: type) -> dict[str, Any]:
    """Resolve the settings of one class."""
    wanted = _setting_names(base)
    # ClassVars may name types that exist for type checkers only, so they are left out before resolving.
    return inspect.get_annotations(
        type("_", (), {"__annotations__": wanted, "__module__": base.__module__}), eval_str=True
    )


def _is_fact(kind: Any) -> bool:
    return (
        kind.startswith(("ClassVar", "typing.ClassVar")) if isinstance(kind, str) else get_origin(kind) is ClassVar
    )


def describe(kind: Any) -> str:
    """Write a setting's type for people: `float at least 0`, `group-mean | per-sample`."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        rule: Range = arguments[1]
        low = None if rule.low is None else f"{'above' if rule.above else 'at least'} {rule.low:g}"
        high = None if rule.high is None else f"at most {rule.high:g}"
        return " ".join(filter(None, [describe(arguments[0]), " and ".join(filter(None, [low, high]))]))
    if origin is Literal:
        return " | ".join(map(str, arguments))
    if origin in (Union, types.UnionType):
        return " | ".join(describe(option) for option in arguments)
    if origin is tuple:
        return f"list of {describe(arguments[0])}"
    return "none" if kind is type(None) else str(getattr(kind, "__name__", kind))


def checked(kind: type, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Check a mapping (a TOML table) against a dataclass's fields and convert each value."""
    hints = typing.get_type_hints(kind, include_extras=True)
    for key in values:
        if key not in hints:
            raise suggest(f"key of {where}", key, hints)
    return {key: convert(value, hints[key], f"{where}.{key}") for key, value in values.items()}
