"""The shape of the project: who may import whom, what an install holds, what no file may contain."""

import ast
import functools
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from structure import CORE, circles, functions, imports, module_arrows, modules, of_core, room, tree

import fairbench
from fairbench import plugins as plugin_loader

ROOT = CORE.parent
PLUGINS = ROOT / "plugins" / "fairbench_plugins"
PAGE = ROOT / "docs" / "architecture.md"
LONGEST_FUNCTION = 50

# Importing a module of these imports torch; nothing else of the core does, so that what needs only
# predictions starts at once.
TORCH = {"models", "training", "testing", "benchmark.cost"}
HEAVY = ("torch", "transformers", "peft", "accelerate", "safetensors")
# `score --json` and the leaderboard's columns promise these by name (docs/metrics.md).
PROMISED = {"auroc", *(metric.name for metric in fairbench.RATES)}

# Plugins whose name is also a word that the core cannot do without, or of a library.
EVERYDAY = {"accelerate", "adapter", "table"}


def rules() -> dict[str, set[str]]:
    """What each package may import, as docs/architecture.md says: the rows of its table of packages."""
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]*) \|$", PAGE.read_text(encoding="utf-8"), re.M)
    return {name: set(re.findall(r"\w+", allowed)) - {"nothing"} for name, allowed in rows}


def root(module: str) -> str:
    return module.split(".")[0]


def test_the_page_has_a_line_for_every_package_and_no_other():
    assert set(rules()) == {room(name) for name in modules()} - {"__main__"}


def test_a_package_imports_what_its_line_allows():
    allowed = {**rules(), "__main__": {"cli"}}
    wrong = [
        f"{name} imports {target}"
        for name, path in modules().items()
        for target, _ in of_core(path)
        if room(target) not in {room(name), *allowed[room(name)]}
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_imports_in_a_circle():
    """Neither packages, by what they may import, nor modules, counting also what only types need."""
    assert circles(rules()) == []
    assert circles({name: targets for name, targets in module_arrows().items() if name != "hookspecs"}) == []


def test_torch_enters_only_where_stated():
    known = modules()
    at_once = {name: [target for target, lazy in of_core(path) if not lazy] for name, path in known.items()}
    heavy = {name: {lazy for m, _, lazy in imports(path) if root(m) in HEAVY} for name, path in known.items()}

    @functools.cache
    def reaches(name: str) -> bool:
        return False in heavy[name] or any(map(reaches, at_once[name]))

    assert {name for name in known if reaches(name) and not {name, room(name)} & TORCH} == set()


@pytest.mark.parametrize(
    "code",
    [
        "import fairbench; fairbench.Metric; fairbench.Predictions; fairbench.Dataset; fairbench.Store",
        "from fairbench.cli.main import main; main(['--help'])",
        "from fairbench.cli.main import main; main(['leaderboard', '--help'])",
        "from fairbench.plugins import load; assert load(('metric',)).tables['metric']",
        f"from fairbench.cli.main import main; main(['diff', *['{ROOT}/leaderboards/quickstart.json'] * 2])",
        "from fairbench.cli.main import main; main(['sbom'])",
    ],
)
def test_what_needs_only_predictions_imports_no_torch(code):
    heavy = f"print('imported', sorted(set({HEAVY}) & set(sys.modules)))"
    script = f"import sys\ntry:\n    {code}\nexcept SystemExit as end:\n    assert not end.code\n{heavy}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("imported []\n")


def strings(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def test_the_core_names_no_plugin():
    tables = plugin_loader.load().tables
    names = {name for kind in set(tables) - {"metric"} for name in tables[kind]} - EVERYDAY
    word = re.compile(rf"(?<![\w-])({'|'.join(map(re.escape, names))})(?![\w-])|--launcher [a-z]|--track [a-z]")
    metrics = set(tables["metric"]) - PROMISED
    named = [
        f"{path.relative_to(ROOT)}:{line}: {text.strip()[:60]!r}"
        for path in modules().values()
        for line, text in strings(path)
        if word.search(text) or text in metrics
    ]
    assert not named, "\n".join(named)


def plugin_files() -> list[Path]:
    return [path for path in sorted(PLUGINS.rglob("*.py")) if path.name != "__init__.py"]


@pytest.mark.parametrize("path", plugin_files(), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_plugin_imports_only_public_names(path):
    for module, name, _ in imports(path):
        assert root(module) != "fairbench_plugins", f"{module}: plugins do not import each other"
        if root(module) == "fairbench":
            assert module == "fairbench", f"{module} is not public"
            assert name in fairbench.__all__, f"fairbench.{name} is not public"


def test_public_names_are_there():
    for name in fairbench.__all__:
        assert getattr(fairbench, name) is not None


def test_entry_points_and_files_match():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    files = {}
    for path in plugin_files():
        folder, name = path.parent.name, path.stem
        files[f"{folder.removesuffix('s')}-{name.replace('_', '-')}"] = f"fairbench_plugins.{folder}.{name}"
    assert project["entry-points"]["fairbench"] == files


def test_an_install_exposes_two_packages(tmp_path):
    """Also an editable one, which would otherwise make every folder of the checkout importable."""
    folders = [path.name for path in ROOT.iterdir() if path.is_dir() and path.name.isidentifier()]
    script = f"from importlib.util import find_spec; print([n for n in {folders} if find_spec(n)])"
    command = [sys.executable, "-c", f"{script}; import fairbench_plugins"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "['fairbench']\n"


@pytest.mark.slow
def test_the_wheel_holds_two_packages_and_the_benchmarks(tmp_path):
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    own = f"fairbench-{fairbench.__version__}"
    packages, data = ("fairbench", "fairbench_plugins"), f"{own}.data"
    assert {name.split("/")[0] for name in names} == {*packages, f"{own}.dist-info", data}
    whole = [*CORE.rglob("*.py"), *CORE.rglob("*.schema.json"), CORE / "__init__.pyi", CORE / "py.typed"]
    code = {path.relative_to(ROOT) for path in whole}
    code |= {path.relative_to(ROOT) for path in (CORE / "report" / "page").glob("*.*s")}  # css and js
    code |= {path.relative_to(PLUGINS.parent) for path in PLUGINS.rglob("*.py")}
    assert {Path(name) for name in names if name.startswith(packages) and not name.startswith(own)} == code
    benchmarks = {path.name for path in (ROOT / "benchmarks").glob("*.toml")}
    assert {name for name in names if name.startswith(data)} == {
        f"{data}/data/share/fairbench/benchmarks/{name}" for name in benchmarks
    }, "pyproject.toml lists every benchmark under shared-data"


def test_no_function_is_long():
    assert [(lines, name) for lines, name in functions() if lines > LONGEST_FUNCTION] == []


def undocumented(node: ast.AST, where: str) -> Iterator[str]:
    """Public classes and functions without a docstring, down to methods but not into functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and child.name[0] != "_":
            if not ast.get_docstring(child):
                yield f"{where}.{child.name}"
            if isinstance(child, ast.ClassDef):
                yield from undocumented(child, f"{where}.{child.name}")


def test_everything_public_has_a_docstring():
    paths = [*CORE.rglob("*.py"), *PLUGINS.rglob("*.py")]
    assert [str(path) for path in paths if not ast.get_docstring(tree(path))] == []
    assert [name for path in paths for name in undocumented(tree(path), path.stem)] == []


def dangers(path: Path) -> Iterator[str]:
    """Calls and imports that would run what a file says."""
    for module, name, _ in imports(path):
        if {"pickle", "cPickle", "dill", "shelve", "marshal", "joblib"} & {*module.split("."), name}:
            yield f"import of {module}"
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if called in ("eval", "exec", "__import__") or called.endswith(("read_pickle", "to_pickle")):
            yield f"line {node.lineno}: {called}"
        for keyword in ("allow_pickle", "trust_remote_code", "shell"):
            if given.get(keyword, "False") != "False":
                yield f"line {node.lineno}: {keyword}"
        if called == "torch.load" and given.get("weights_only") != "True":
            yield f"line {node.lineno}: torch.load without weights_only=True"


def test_nothing_read_is_run():
    paths = [*CORE.rglob("*.py"), *PLUGINS.rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    dangerous = {str(path.relative_to(ROOT)): list(dangers(path)) for path in paths}
    assert {path: danger for path, danger in dangerous.items() if danger} == {}


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pandas import read_csv\ndef f(x):\n    import joblib",
        "eval('1')",
        "np.load(path, allow_pickle=True)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "subprocess.run(command, shell=True)",
    ],
)
def test_dangers_are_seen(code, tmp_path):
    path = tmp_path / "danger.py"
    path.write_text(code)
    assert len(list(dangers(path))) == 1
