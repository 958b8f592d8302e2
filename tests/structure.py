"""The core's packages and what they import, read from the code: `python tests/structure.py [FOLDER]` prints them.

A room is a package, or a module that stands directly in the core. Imports for type checkers count too, since a
name that only types need still ties two rooms together; imports inside functions count as well.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

CORE = Path(__file__).parents[1] / "fairbench"


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def modules(core: Path = CORE) -> dict[str, Path]:
    """Every module of the core by its dotted name without `fairbench.`; a package by its folder's name."""
    collected = {}
    for path in sorted(core.rglob("*.py")):
        parts = path.relative_to(core).with_suffix("").parts
        collected[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return {name: path for name, path in collected.items() if name}


def imports(path: Path, typing: bool = False) -> Iterator[tuple[str, str, bool]]:
    """What a file imports: (module, name or "", whether only inside a function); on request what types need too."""

    def visit(node: ast.AST, lazy: bool) -> Iterator[tuple[str, str, bool]]:
        for child in ast.iter_child_nodes(node):
            if not typing and isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                continue
            if isinstance(child, ast.Import):
                yield from ((alias.name, "", lazy) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: relative import"
                yield from ((child.module or "", alias.name, lazy) for alias in child.names)
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from visit(child, lazy or function)

    return visit(tree(path), lazy=False)


def of_core(path: Path, core: Path = CORE, typing: bool = False) -> Iterator[tuple[str, bool]]:
    """The core's modules that a file imports, and whether only inside a function."""
    known = modules(core)
    for module, name, lazy in imports(path, typing):
        if module.split(".")[0] != "fairbench":
            continue
        inner = ".".join(filter(None, [module.removeprefix("fairbench").lstrip("."), name]))
        target = inner if inner in known else inner.rpartition(".")[0]
        if target:
            yield target, lazy


def room(module: str) -> str:
    return module.split(".")[0]


def arrows(core: Path = CORE) -> dict[str, set[str]]:
    """Which rooms each room imports from."""
    collected: dict[str, set[str]] = {}
    for name, path in modules(core).items():
        targets = {room(target) for target, _ in of_core(path, core, typing=True)}
        collected.setdefault(room(name), set()).update(targets - {room(name)})
    return collected


def module_arrows(core: Path = CORE) -> dict[str, set[str]]:
    """Which modules each module imports, types included."""
    known = modules(core)
    return {name: {t for t, _ in of_core(path, core, typing=True)} - {name} for name, path in known.items()}


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Sets of nodes that reach each other (strongly connected components of two or more)."""

    def reach(start: str) -> set[str]:
        seen: set[str] = set()
        queue = [start]
        while queue:
            for target in graph.get(queue.pop(), ()):
                if target not in seen:
                    seen.add(target)
                    queue.append(target)
        return seen

    reached = {node: reach(node) for node in graph}
    closed = {tuple(sorted(b for b in reached[a] if a in reached.get(b, ()))) for a in graph if a in reached[a]}
    return [list(circle) for circle in sorted(closed)]


def functions(core: Path = CORE) -> list[tuple[int, str]]:
    """(lines, module:function) of every function, longest first."""
    collected = []
    for name, path in modules(core).items():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                collected.append(((node.end_lineno or node.lineno) - node.lineno + 1, f"{name}:{node.name}"))
    return sorted(collected, reverse=True)


def main(core: Path) -> None:
    graph, files = arrows(core), modules(core)
    for name in sorted(graph):
        own = [m for m in files if room(m) == name]
        says = (ast.get_docstring(tree(files[name])) or "").split("\n")[0]
        print(f"{name} ({len(own)} modules): {says}\n    imports {', '.join(sorted(graph[name])) or 'nothing'}")
    lengths = sorted((len(p.read_text(encoding="utf-8").splitlines()), m) for m, p in files.items())
    for what, graph_of in (("rooms", graph), ("modules", module_arrows(core))):
        count = sum(map(len, graph_of.values()))
        print(f"{len(graph_of)} {what}, {count} arrows, circles: {circles(graph_of) or 'none'}")
    print(f"longest function: {functions(core)[0]}; longest module: {lengths[-1]}")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else CORE)
