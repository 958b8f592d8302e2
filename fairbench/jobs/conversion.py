"""JSON and back for all that fairbench writes about a run, by cattrs: strict, with the place of each error."""

from __future__ import annotations

import hashlib
import json
import math
import types
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import cattrs
from cattrs.errors import ForbiddenExtraKeysError
from cattrs.gen import make_dict_structure_fn, override

from fairbench.errors import FairbenchError
from fairbench.settings import Range

T = TypeVar("T")


def to_json(thing: Any) -> Any:
    """Return dataclasses and what they hold as JSON-ready objects; a number that is none becomes null."""
    return json.loads(json.dumps(_EVERYTHING.unstructure(thing), default=str), parse_constant=lambda _: None)


def departures(thing: Any) -> Any:
    """Return what differs from the defaults, however deep: equal for things that mean the same."""
    return _DEPARTURES.unstructure(thing)


def from_json(kind: type[T], data: Any) -> T:
    """Rebuild what `to_json` wrote; fields that are left out have their default.

    Raises FairbenchError naming unknown fields, missing ones, wrong types and values out of range, each with
    its place.
    """
    try:
        return _STRICT.structure(data, kind)
    except cattrs.BaseValidationError as error:
        reasons = cattrs.transform_error(error, path=kind.__name__.lower(), format_exception=_explain)
        raise FairbenchError("; ".join(reasons[:3]) + ("; …" if len(reasons) > 3 else "")) from error
    except FairbenchError:
        raise
    except (AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise FairbenchError(f"{_explain(error, kind)} @ {kind.__name__.lower()}") from error


def checksum(written: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a JSON object, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(written, sort_keys=True).encode()).hexdigest()


def read_json(path: Path) -> tuple[Any, str]:
    """Read a JSON file and hash it (SHA-256).

    Raises FairbenchError when it is absent, damaged, or nested beyond sense.
    """
    try:
        data = path.read_bytes()
        return json.loads(data.decode("utf-8")), hashlib.sha256(data).hexdigest()
    except RecursionError as error:
        raise FairbenchError(f"cannot read {path}: it is nested too deeply") from error
    except OSError as error:
        raise FairbenchError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise FairbenchError(f"cannot read {path}: {error}") from error


def _explain(error: BaseException, kind: Any) -> str:
    if isinstance(error, ForbiddenExtraKeysError):
        return f"unknown field {', '.join(sorted(error.extra_fields))}"
    if isinstance(error, KeyError):
        return f"no field {error}"
    if isinstance(error, AttributeError):  # cattrs asked for .items()
        return "not an object"
    return str(error) or type(error).__name__


def _scalar(expected: type, accepts: tuple[type, ...]) -> Callable[[Any, Any], Any]:
    """Take a value of the right type as it is: cattrs would make 3 of "3", and text of anything."""

    def take(value: Any, _: Any) -> Any:
        if not isinstance(value, accepts) or (isinstance(value, bool) and expected is not bool):
            raise TypeError(f"{value!r:.60} is not of type {expected.__name__}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{value!r} is not a finite number")
        return expected(value)

    return take


def _is_tuple(kind: Any) -> bool:
    return get_origin(kind) is tuple


def _tuple(kind: Any, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    """Take only lists as tuples: text is iterable, too."""
    arguments = get_args(kind)

    def take(value: Any, _: Any) -> Any:
        if not isinstance(value, list | tuple):
            raise TypeError(f"{value!r:.60} is not a list")
        if arguments[-1] is Ellipsis:
            listed: Any = types.GenericAlias(list, (arguments[0],))
            return tuple(converter.structure(value, listed))
        return tuple(converter.structure(item, part) for item, part in zip(value, arguments, strict=True))

    return take


def _dataclass(kind: Any, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    """Take only mappings as dataclasses, and hold their fields to the ranges that annotations state."""
    ranges: dict[str, Any] = {
        name: override(struct_hook=_in_range(hint, converter))
        for name, hint in get_type_hints(kind, include_extras=True).items()
        if get_origin(hint) is Annotated
    }
    build = make_dict_structure_fn(kind, converter, _cattrs_forbid_extra_keys=True, **ranges)

    def take(value: Any, _: Any) -> Any:
        if not isinstance(value, Mapping):
            raise TypeError(f"{value!r:.60} is not an object")
        return build(value, kind)

    return take


def _in_range(kind: Any, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    inner, *rules = get_args(kind)

    def take(value: Any, _: Any) -> Any:
        result = converter.structure(value, inner)
        for rule in rules:
            if isinstance(rule, Range) and (reason := rule.refuses(result)):
                raise ValueError(f"{value!r} {reason}")
        return result

    return take


def _strict() -> cattrs.Converter:
    converter = cattrs.Converter()
    for kind, accepts in ((str, (str,)), (int, (int,)), (float, (int, float)), (bool, (bool,))):
        converter.register_structure_hook(kind, _scalar(kind, accepts))
    converter.register_structure_hook_factory(is_dataclass, _dataclass)
    converter.register_structure_hook_factory(_is_tuple, _tuple)
    return converter


_STRICT, _EVERYTHING, _DEPARTURES = _strict(), cattrs.Converter(), cattrs.Converter(omit_if_default=True)
