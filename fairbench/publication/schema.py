"""The JSON Schema of what is published, from the dataclasses that hold it, and input checked against it."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from fairbench.errors import FairbenchError
from fairbench.settings import Range

LONGEST = 20_000  # characters of a text
MOST = 100_000  # entries of a list or an object
DRAFT = "https://json-schema.org/draft/2020-12/schema"
_PLAIN: dict[Any, dict[str, Any]] = {
    str: {"type": "string", "maxLength": LONGEST},
    bool: {"type": "boolean"},
    int: {"type": "integer", "minimum": -(2**63), "maximum": 2**63},
    float: {"type": "number"},
    type(None): {"type": "null"},
}
# What a free setting of a plugin may be, nested as deep as the reader lets it.
_FREE: dict[str, Any] = {
    "anyOf": [
        _PLAIN[str],
        {"type": ["number", "boolean", "null"]},
        {"type": "array", "maxItems": MOST, "items": {"$ref": "#/$defs/Any"}},
        {"type": "object", "maxProperties": MOST, "additionalProperties": {"$ref": "#/$defs/Any"}},
    ]
}


@cache
def schema_of(kind: type, name: str) -> dict[str, Any]:
    """Return the JSON Schema of a dataclass and all that it holds; its objects say `format: name`."""
    definitions: dict[str, Any] = {"Any": _FREE}
    _type(kind, definitions)
    whole = definitions.pop(kind.__name__)
    whole["properties"] = {"format": {"const": name}, **whole["properties"]}
    whole["required"] = ["format", *whole["required"]]
    return {"$schema": DRAFT, "title": name, **whole, "$defs": dict(sorted(definitions.items()))}


def check(kind: type, name: str, data: Any) -> None:
    """Hold data to the schema; raises FairbenchError with the first fault's place."""
    import jsonschema

    validator = jsonschema.Draft202012Validator(schema_of(kind, name))
    for first in validator.iter_errors(data):
        error = jsonschema.exceptions.best_match([first]) or first  # of several that may stand there, the nearest
        place = error.json_path.removeprefix("$.")[:200]
        said = error.message if len(error.message) < 200 else f"{error.message[:90]} … {error.message[-90:]}"
        raise FairbenchError(f"{place}: {said}", f"the schema {name}.schema.json says what may stand there")


def _type(hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of one type; dataclasses go to `definitions`."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return {"$ref": "#/$defs/Any"}
    if hint in _PLAIN:
        return _PLAIN[hint]
    if is_dataclass(hint) and isinstance(hint, type):
        return _dataclass(hint, definitions)
    if origin is Annotated:
        return _type(arguments[0], definitions) | _bounds(arguments[1:])
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_type(one, definitions) for one in arguments]}
    if origin is tuple and arguments[-1] is not Ellipsis:
        each = [_type(one, definitions) for one in arguments]
        return {"type": "array", "prefixItems": each, "minItems": len(each), "maxItems": len(each)}
    if origin is tuple:
        return {"type": "array", "items": _type(arguments[0], definitions), "maxItems": MOST}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        values = _type(arguments[1], definitions)
        names = {"maxLength": LONGEST}
        return {"type": "object", "additionalProperties": values, "propertyNames": names, "maxProperties": MOST}
    raise TypeError(f"no JSON Schema for {hint}")


def _dataclass(kind: type, definitions: dict[str, Any]) -> dict[str, Any]:
    reference = {"$ref": f"#/$defs/{kind.__name__}"}
    if kind.__name__ in definitions:
        return reference
    definitions[kind.__name__] = {}  # a type that holds itself ends here
    hints = get_type_hints(kind, include_extras=True)
    parts = fields(kind)
    needed = [one.name for one in parts if one.default is MISSING and one.default_factory is MISSING]
    definitions[kind.__name__] = {
        "type": "object",
        "description": (kind.__doc__ or "").split("\n\n")[0].replace("\n", " ").replace("    ", ""),
        "properties": {one.name: _type(hints[one.name], definitions) for one in parts},
        "required": needed,
        "additionalProperties": False,
    }
    return reference


def _bounds(rules: tuple[Any, ...]) -> dict[str, Any]:
    bounds: dict[str, Any] = {}
    for rule in rules:
        if isinstance(rule, Range):
            if rule.low is not None:
                bounds["exclusiveMinimum" if rule.above else "minimum"] = rule.low
            if rule.high is not None:
                bounds["maximum"] = rule.high
    return bounds
