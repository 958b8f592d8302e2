"""Find plugins, keep a broken one from breaking the rest, and look up what they offer by name.

pluggy's own entry-point loader stops at the first plugin that fails to import and silently skips a
duplicate name, so the entry points are walked here. An entry point's name opens with its kind
(`method-fr`, `metric-auroc`): only the kinds asked for are imported, so that what works from saved
predictions never imports torch.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points, version
from pathlib import Path
from typing import Any

import pluggy

from fairbench import hookspecs
from fairbench.cache import code_of
from fairbench.errors import FairbenchError, raised
from fairbench.jobs.job import Choice
from fairbench.settings import suggest

GROUP = "fairbench"
KINDS = ("dataset", "backbone", "method", "metric", "tracker", "launcher")
_OTHER = "plugin"  # commands, notifiers: loaded with every command


@dataclass(frozen=True)
class Broken:
    """A plugin that could not be loaded: where it comes from and why."""

    name: str
    source: str
    reason: str


@dataclass
class Plugins:
    """The plugins of some kinds, loaded. Use `load` to make one."""

    manager: pluggy.PluginManager
    kinds: tuple[str, ...]
    sources: dict[str, str] = field(default_factory=dict)
    broken: list[Broken] = field(default_factory=list)
    unkeyed: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # by a choice's label
    # What offers a (kind, name): `distribution version`, or of a file `name hash`. Known when `tables` are.
    owners: dict[tuple[str, str], str] = field(default_factory=dict)

    @cached_property
    def tables(self) -> dict[str, dict[str, Any]]:
        """Everything on offer: kind → name → class (for metrics: object)."""
        return {kind: self._collect(kind) for kind in self.kinds}

    def _collect(self, kind: str) -> dict[str, Any]:
        table: dict[str, Any] = {}
        owner: dict[str, str] = {}
        hook = getattr(self.manager.hook, f"fairbench_{kind}s")
        for implementation in hook.get_hookimpls():
            source = self.sources[implementation.plugin_name]
            try:
                offered = [(item.name, item) for item in implementation.function()]
            except (Exception, SystemExit) as error:
                self.broken.append(Broken(implementation.plugin_name, source, raised(error)))
                continue
            for name, item in offered:
                if name in table:
                    raise FairbenchError(
                        f"two plugins offer a {kind} called `{name}`: {owner[name]} and {source}",
                        "uninstall one, or choose what is loaded with FAIRBENCH_PLUGINS=name,name",
                    )
                table[name] = item
                owner[name] = source
        self.owners.update({(kind, name): source for name, source in owner.items()})
        return table

    def tell(self, hook: str, **arguments: Any) -> None:
        """Call a hook that returns nothing in every plugin; one that raises joins `broken`, the rest hear it."""
        for implementation in getattr(self.manager.hook, hook).get_hookimpls():
            try:
                implementation.function(**{name: arguments[name] for name in implementation.argnames})
            except (Exception, SystemExit) as error:
                name = implementation.plugin_name
                self.broken.append(Broken(name, self.sources[name], raised(error)))

    def find(self, kind: str, name: str) -> Any:
        """Look something up by name, of NAME:FOLDER by NAME; an unknown name is an error with the nearest one."""
        table = self.tables[kind]
        name, colon, folder = name.partition(":")
        if colon and name in table and (kind == "metric" or not table[name].takes_folder):
            raise FairbenchError(f"{kind} {name} takes no folder", f"write {name} instead of {name}:{folder}")
        if name not in table:
            error = suggest(kind, name, table)
            if self.broken:
                names = ", ".join(f"{item.name} ({item.reason})" for item in self.broken)
                error = FairbenchError(error.message, f"{error.hint}; these plugins failed to load: {names}")
            raise error
        return table[name]

    def make(self, kind: str, choice: Choice, roots: Mapping[str, Path] | None = None) -> Any:
        """Make what a choice names, with its settings and, for what lies on this disk, its folder.

        Settings that no job's key holds come from `unkeyed`.
        """
        item = self.find(kind, choice.name)(**{**self.unkeyed.get(choice.label, {}), **choice.settings})
        item.alias = choice.name
        root = (roots or {}).get(choice.name)
        needed = item.folder is not None if kind == "dataset" else item.needs_root
        if root is None and (needed or ":" in choice.name):
            say = f"--data {choice.name}=FOLDER" if kind == "dataset" else f"--{kind}s {item.name}:FOLDER"
            raise FairbenchError(f"where is {choice.name}?", f"say {say}")
        if root is not None:
            item.root = Path(root)
        return item

    def folders(self, datasets: Iterable[str]) -> dict[str, str]:
        """Return, for the datasets that read a folder, the name which that folder goes by."""
        items = {name: self.find("dataset", name) for name in datasets}
        return {name: item.folder or name for name, item in items.items() if item.folder is not None}

    def version(self, kind: str, name: str) -> str:
        """Return what provides a plugin, with its version and a hash of its code: part of every job's key."""
        source = self.owners[kind, name.partition(":")[0]]
        digest = code_of(getattr(self.find(kind, name), "__module__", ""))
        return f"{source}+{digest}" if digest else source


def load(
    kinds: Iterable[str] = KINDS,
    files: Iterable[str | Path] = (),
    points: Iterable[EntryPoint] | None = None,
) -> Plugins:
    """Load the installed plugins of some kinds, and single files (`--plugin`), whatever they offer.

    A plugin that fails to import is listed in `broken`; a misspelt hook or a repeated name is an
    error. `FAIRBENCH_PLUGINS=a,b` limits what is loaded to those entry points.
    """
    kinds = tuple(kinds)
    manager = pluggy.PluginManager("fairbench")
    manager.add_hookspecs(hookspecs)
    loaded = Plugins(manager, kinds)
    available = list(entry_points(group=GROUP) if points is None else points)
    for point in _wanted(available):
        kind = point.name.split("-", 1)[0]
        if kind not in (*KINDS, _OTHER):
            reason = f"its entry point must be called {', '.join(f'{k}-…' for k in KINDS)} or {_OTHER}-…"
            loaded.broken.append(Broken(point.name, _distribution(point), reason))
        elif kind in kinds or kind == _OTHER:
            _register(loaded, point.name, _distribution(point), point.load)
    for path in dict.fromkeys(Path(file).resolve() for file in files):
        if not path.is_file():
            raise FairbenchError(f"--plugin {path}: there is no such file", _nearest(path))
        source = f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
        _register(loaded, str(path), source, lambda path=path: import_file(path))
        if loaded.broken and loaded.broken[-1].source == source:
            raise FairbenchError(
                f"--plugin {path}: {loaded.broken[-1].reason}", "`python FILE` shows the whole traceback"
            )
    for name, plugin in manager.list_name_plugin():
        _check_hooks(manager, plugin, f"plugin {name} of {loaded.sources[name]}")
    _ = loaded.tables  # asks every plugin now, so that `broken` is complete
    return loaded


def _nearest(path: Path) -> str:
    """Say which Python file beside a path is most likely meant."""
    near = get_close_matches(path.name, [file.name for file in path.parent.glob("*.py")], n=1)
    if near:
        return f"did you mean `{near[0]}`?"
    return "name a Python file, or a plugin that is installed without --plugin (`fairbench list`)"


def _check_hooks(manager: pluggy.PluginManager, plugin: Any, where: str) -> None:
    """Refuse a misspelt hook, and one that was not marked: both would be ignored without a word."""
    hooks = [hook for hook in dir(hookspecs) if hook.startswith("fairbench_")]
    for name, function in inspect.getmembers(plugin, inspect.isroutine):
        marked = manager.parse_hookimpl_opts(plugin, name) is not None
        if marked and name not in hooks:
            error = suggest("hook", name, hooks)
            raise FairbenchError(f"{where}: {error.message}", error.hint)
        if name in hooks and not marked and function.__module__ == getattr(plugin, "__name__", None):
            raise FairbenchError(f"{where}: `{name}` is not marked as a hook", "write @hookimpl above it")


def _wanted(points: list[EntryPoint]) -> list[EntryPoint]:
    chosen = os.environ.get("FAIRBENCH_PLUGINS")
    if chosen is not None:
        names = [name.strip() for name in chosen.split(",") if name.strip()]
        known = {point.name for point in points}
        for name in names:
            if name not in known:
                error = suggest("plugin", name, known)
                raise FairbenchError(f"FAIRBENCH_PLUGINS: {error.message}", error.hint)
        points = [point for point in points if point.name in names]
    seen: dict[str, EntryPoint] = {}
    for point in points:
        other = seen.setdefault(point.name, point)
        if other.value != point.value:
            raise FairbenchError(
                f"two distributions register a plugin called `{point.name}`: "
                f"{_distribution(other)} ({other.value}) and {_distribution(point)} ({point.value})",
                "uninstall one of them",
            )
    return [seen[name] for name in sorted(seen)]


def _register(loaded: Plugins, name: str, source: str, importer: Any) -> None:
    try:
        loaded.manager.register(importer(), name)
    except (Exception, SystemExit) as error:  # a plugin that exits must not end everybody silently
        if loaded.manager.has_plugin(name):
            loaded.manager.unregister(name=name)
        loaded.broken.append(Broken(name, source, raised(error)))
        return
    loaded.sources[name] = source


def import_file(path: Path) -> Any:
    """Import a Python file by its path, under a name that follows from it."""
    name = f"fairbench_file_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError("not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _distribution(point: EntryPoint) -> str:
    if point.dist is None:
        return point.value
    return f"{point.dist.name} {point.dist.version}"


def versions(packages: Iterable[str]) -> Mapping[str, str]:
    """Return the installed versions of some packages, without importing them."""
    installed = {}
    for package in packages:
        try:
            installed[package] = version(package)
        except importlib.metadata.PackageNotFoundError:
            installed[package] = "not installed"
    return installed
