"""What an installation is made of: a CycloneDX bill of materials, with licences, from what is installed."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fairbench.publication.publish import now

ROOT = "fairbench"


def installed(root: str = ROOT, extras: Iterable[str] = ()) -> dict[str, Distribution]:
    """Return a distribution and all that it requires here, directly or not, by canonical name.

    `extras` of the root count where they are installed; what is required and absent is left out, as an optional
    requirement of another platform is. Raises importlib.metadata's PackageNotFoundError for an unknown root.
    """
    parts: dict[str, Distribution] = {canonicalize_name(root): distribution(root)}
    waiting = [(canonicalize_name(root), frozenset({"", *extras}))]
    seen = set(waiting)
    while waiting:
        name, wanted = waiting.pop()
        for requirement in map(Requirement, parts[name].requires or ()):
            marker = requirement.marker
            if marker is not None and not any(marker.evaluate({"extra": extra}) for extra in wanted):
                continue
            inner = canonicalize_name(requirement.name)
            try:
                parts.setdefault(inner, distribution(requirement.name))
            except PackageNotFoundError:
                continue
            entry = inner, frozenset({"", *requirement.extras})
            if entry not in seen:
                seen.add(entry)
                waiting.append(entry)
    return dict(sorted(parts.items()))


def licence(one: Distribution) -> str:
    """Return what a distribution says of its licence: an expression, classifiers, or a free text's first line."""
    expression = _said(one, "License-Expression")
    if expression:
        return expression
    classifiers = [str(text) for text in one.metadata.get_all("Classifier") or ()]
    named = [text.rpartition("::")[2].strip() for text in classifiers if text.startswith("License ::")]
    named = [text for text in named if text != "OSI Approved"]
    if named:
        return "; ".join(named)
    free = _said(one, "License").strip()
    return free.splitlines()[0][:100] if free else "not stated"


def bill(parts: dict[str, Distribution], root: str = ROOT) -> dict[str, Any]:
    """Write a CycloneDX 1.6 document: every distribution with version, licence, and what it requires of others."""
    own = canonicalize_name(root)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid4()}",
        "version": 1,
        "metadata": {"timestamp": now(), "component": _component(own, parts[own], "application")},
        "components": [_component(name, one, "library") for name, one in parts.items() if name != own],
        "dependencies": [
            {"ref": _url(name, one), "dependsOn": _required(one, parts)} for name, one in parts.items()
        ],
    }


def _component(name: str, one: Distribution, kind: str) -> dict[str, Any]:
    expression = _said(one, "License-Expression")
    said = {"expression": expression} if expression else {"license": {"name": licence(one)}}
    url = _url(name, one)
    return {"type": kind, "bom-ref": url, "name": name, "version": one.version, "purl": url, "licenses": [said]}


def _url(name: str, one: Distribution) -> str:
    return f"pkg:pypi/{name}@{one.version}"


def _required(one: Distribution, parts: dict[str, Distribution]) -> list[str]:
    names = {canonicalize_name(Requirement(text).name) for text in one.requires or ()}
    return sorted(_url(name, parts[name]) for name in names if name in parts)


def _said(one: Distribution, key: str) -> str:
    return str((one.metadata.get_all(key) or [""])[0])
