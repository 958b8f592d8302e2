"""The shape of the project: who may import whom, what an install holds, what no file may contain."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import fairbench
from fairbench import plugins as plugin_loader

ROOT = Path(__file__).parents[1]
CORE = ROOT / "fairbench"
PLUGINS = ROOT / "plugins" / "fairbench_plugins"
LONGEST = 320

# In the order of reading: a module imports only what stands before it. docs/architecture.md says why.
LAYERS = {
    "ground": "errors settings hookspecs job roots dicom images splits tiny",
    "rows": "predictions labels reading readable",
    "contracts": "metric dataset batch readout backbone method plugins checkpoint family",
    "scores": "disparity score conventions catalogue",
    "evidence": "intervals resampling power evidence maxima comparison ranking auroc variance",
    "training": "memory adapter features store run selection order writing predicting probing execute worker",
    "benchmarks": "benchmark choices cost foresight launch check contact_sheet",
    "boards": "table measure answers sources contender flags standing gather states withheld judged leaderboard",
    "render": "render.format render.blocks render.evidence render.layout render.csv render.html render.json "
    "render.markdown render.terminal render.sheet render.portrait render.check render",
    "surface": "progress overview toys backbone_checks testing commands data_commands probe_commands cli",
}
# A reader and what it reads need each other: `Predictions.read` is the documented way in.
DOCUMENTED = {("predictions", "reading")}
# Importing these imports torch …
TORCH = {
    *("batch", "readout", "backbone", "method", "checkpoint", "family", "memory", "adapter", "features", "run"),
    *(
        "execute",
        "order",
        "writing",
        "predicting",
        "probing",
        "worker",
        "cost",
        "toys",
        "backbone_checks",
        "testing",
    ),
}
# … and these import torch or transformers inside a function, for those who ask what only they can tell.
TORCH_ON_DEMAND = {"benchmark", "launch", "overview", "tiny", "backbone", "checkpoint", "family", "toys", "writing"}
HEAVY = ("torch", "transformers", "peft", "accelerate", "safetensors")
# `score --json` and the leaderboard's columns promise these by name (docs/metrics.md).
PROMISED = {"auroc", *(metric.name for metric in fairbench.RATES)}

# Plugins whose name is also a word that the core cannot do without.
EVERYDAY = {"table"}


def modules() -> dict[str, Path]:
    """Every module of the core by the name that LAYERS uses."""
    found = {}
    for path in sorted(CORE.rglob("*.py")):
        parts = path.relative_to(CORE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    del found[""]
    return found


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[tuple[str, str, bool]]:
    """What a file imports: (module, name or "", whether only inside a function). Imports for types are none."""

    def visit(node: ast.AST, lazy: bool) -> Iterator[tuple[str, str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                continue
            if isinstance(child, ast.Import):
                yield from ((alias.name, "", lazy) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: relative import"
                yield from ((child.module or "", alias.name, lazy) for alias in child.names)
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from visit(child, lazy or function)

    return visit(tree(path), lazy=False)


def test_type_checkers_see_the_public_names():
    source = tree(CORE / "__init__.py")
    typed = next(node for node in source.body if isinstance(node, ast.If))
    seen = {
        alias.name: node.module for node in typed.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert seen == fairbench._PUBLIC


def root(module: str) -> str:
    return module.split(".")[0]


def of_core(path: Path) -> Iterator[tuple[str, bool]]:
    """The core's modules that a file imports, as LAYERS names them."""
    known = modules()
    for module, name, lazy in imports(path):
        if root(module) == "fairbench":
            inner = ".".join(filter(None, [module.removeprefix("fairbench").lstrip("."), name]))
            target = inner if inner in known else inner.rpartition(".")[0]
            if target:
                yield target, lazy


def test_every_module_has_a_place():
    placed = " ".join(LAYERS.values()).split()
    assert sorted(placed) == sorted(modules()), "put the module into LAYERS, or take it out"


def test_imports_point_one_way():
    order = {name: place for place, name in enumerate(" ".join(LAYERS.values()).split())}
    backwards = [
        f"{name} imports {target}"
        for name, path in modules().items()
        for target, _ in of_core(path)
        if order[target] >= order[name] and (name, target) not in DOCUMENTED
    ]
    assert not backwards, "\n".join(backwards)


def test_torch_enters_only_where_stated():
    at_once = {name: [target for target, lazy in of_core(path) if not lazy] for name, path in modules().items()}
    heavy = {name: {lazy for m, _, lazy in imports(path) if root(m) in HEAVY} for name, path in modules().items()}
    assert {name for name, lazy in heavy.items() if True in lazy} == TORCH_ON_DEMAND

    def reaches(name: str) -> bool:
        return False in heavy[name] or any(map(reaches, at_once[name]))

    assert {name for name in at_once if reaches(name)} == TORCH


@pytest.mark.parametrize(
    "code",
    [
        "import fairbench; fairbench.Metric; fairbench.Predictions; fairbench.Dataset; fairbench.Store",
        "from fairbench.cli import main; main(['--help'])",
        "from fairbench.cli import main; main(['leaderboard', '--help'])",
        "from fairbench.plugins import load; assert load(('metric',)).tables['metric']",
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
    names = {name for kind in ("dataset", "backbone", "method") for name in tables[kind]} - EVERYDAY
    word = re.compile(rf"(?<![\w-])({'|'.join(map(re.escape, names))})(?![\w-])")
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
    code = {path.relative_to(ROOT) for path in [*CORE.rglob("*.py"), CORE / "py.typed"]}
    code |= {path.relative_to(PLUGINS.parent) for path in PLUGINS.rglob("*.py")}
    assert {Path(name) for name in names if name.startswith(packages) and not name.startswith(own)} == code
    benchmarks = {path.name for path in (ROOT / "benchmarks").glob("*.toml")}
    assert {name for name in names if name.startswith(data)} == {
        f"{data}/data/share/fairbench/benchmarks/{name}" for name in benchmarks
    }, "pyproject.toml lists every benchmark under shared-data"


def test_no_module_is_long():
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules().items()}
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


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
    found = {str(path.relative_to(ROOT)): list(dangers(path)) for path in paths}
    assert {path: danger for path, danger in found.items() if danger} == {}


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
