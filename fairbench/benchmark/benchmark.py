"""A benchmark: what is compared, as a TOML file and command-line choices, and the jobs that follow from it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import distribution
from pathlib import Path
from typing import Annotated, Any, Literal

from fairbench.data.locations import located, places
from fairbench.errors import FairbenchError
from fairbench.jobs.job import Choice, Stage
from fairbench.settings import Count, Range, checked, suggest
from fairbench.statistics.results import RankBy

Names = tuple[str, ...]
Kind = Literal["dataset", "backbone", "method"]
Seeds = tuple[Annotated[int, Range(0, 2**63 - 1)], ...]  # as large as torch takes


@dataclass(frozen=True)
class Provider:
    """What provided a part of a sweep: `version` is a distribution or file with its number and a hash of the code,
    `fingerprint` that of the data or weights.
    """

    kind: Kind
    name: str
    version: str
    fingerprint: str = ""

    @property
    def obtain(self) -> str:
        """How to get it."""
        provider, _, number = self.version.partition("+")[0].rpartition(" ")
        if provider.endswith(".py"):
            return f"say --plugin {provider}, the file whose SHA-256 begins with {number}"
        if provider == "fairbench":
            return f"install fairbench {number} from its repository; the package index holds another of that name"
        return f'pip install "{provider}=={number}"'


@dataclass(frozen=True)
class Benchmark:
    """Datasets × backbones × methods × attributes × seeds, and how all of them are trained.

    A method is a name or a table with its hyper-parameters; an attribute may join several by `+`;
    empty `attributes` means each of the dataset's. `stages` and `batch_size` default to the
    backbone's own recipe, which then holds for every method alike.
    """

    name: str = "unnamed"
    description: str = ""
    datasets: Names = ()
    backbones: Names = ()
    methods: tuple[Choice, ...] = ()
    attributes: Names = ()
    seeds: Seeds = (0,)
    baseline: bool = True
    primary: Names = ()  # methods whose comparison with the baseline is planned; changes no job
    rank: RankBy = "dominance"  # what its leaderboard ranks by; changes no job
    controls: bool = True
    probe: bool = False  # say how well attributes can be read from the trained models; changes no job
    batch_size: Count | None = None
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    unrecorded: str = "keep"
    select: str = "last"
    folds: Count = 1  # ways to divide the rows, of which each tests others; 1: the dataset's own splits
    redraw: bool = False  # also where the splits come with the data
    stages: tuple[Stage, ...] = ()
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    made_with: tuple[Provider, ...] = ()  # what provided its parts when it was run; changes no job

    @property
    def places(self) -> dict[str, Path]:
        """Where the folders of NAME:FOLDER backbones and methods lie on this machine, by what those are called."""
        return places([*self.backbones, *(method.name for method in self.methods)])

    @property
    def backbone_names(self) -> Names:
        """What the backbones are called, in results too: NAME, or NAME:its folder's own name."""
        return tuple(located(entry)[0] for entry in self.backbones)

    @property
    def named_methods(self) -> tuple[Choice, ...]:
        """The methods by what they are called, in results too: NAME, or NAME:its folder's own name."""
        return tuple(replace(method, name=located(method.name)[0]) for method in self.methods)


RUN_KEYS = ("batch_size", "precision", "unrecorded", "select", "folds", "redraw")
_PLAIN = (
    *("description", "datasets", "backbones", "attributes", "seeds", "baseline", "primary", "rank", "controls"),
    "probe",
    *RUN_KEYS,
)


def bundled_benchmarks() -> dict[str, Path]:
    """Return the bundled benchmarks by name: the checkout's own, or what an installed wheel carries."""
    checkout = Path(__file__).parents[2]
    if (checkout / "pyproject.toml").is_file():
        return {path.stem: path for path in sorted((checkout / "benchmarks").glob("*.toml"))}
    files = distribution("fairbench").files or []
    installed = [file for file in files if file.match("share/fairbench/benchmarks/*.toml")]
    return {file.stem: Path(str(file.locate())) for file in sorted(installed)}


def load(which: str) -> Benchmark:
    """Read a benchmark by the name of a bundled one or the path of a TOML file."""
    bundled = bundled_benchmarks()
    if which not in bundled and not which.endswith(".toml"):
        beside = Path(which).parent.glob("*.toml") if Path(which).suffix else ()
        raise suggest("benchmark", which, {*bundled, *map(str, beside)})
    path = bundled.get(which, Path(which))
    if not path.is_file():
        raise FairbenchError(
            f"there is no benchmark file {which}", "name a TOML file, or one of `fairbench list benchmarks`"
        )
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FairbenchError(
            f"{path} is not TOML: {error}",
            "mend the file at that place; `fairbench new benchmark NAME` writes one to start from",
        ) from error
    except RecursionError as error:
        raise FairbenchError(
            f"{path} is nested too deeply", "a benchmark needs no more than tables in tables"
        ) from error
    except OSError as error:
        raise FairbenchError(f"cannot read {path}: {error.strerror}", "name a file that you may read") from error
    return parse(data, path.stem, str(path))


def parse(data: Mapping[str, Any], name: str, where: str) -> Benchmark:
    """Build a benchmark from a TOML document, refusing unknown keys with the nearest one."""
    known = (*_PLAIN, "methods", "stages", "settings", "made_with")
    for key in data:
        if key not in known:
            raise suggest(f"key of {where}", key, known)
    plain = checked(Benchmark, {key: data[key] for key in _PLAIN if key in data}, where)
    methods = tuple(_method(entry, where) for entry in _listed(data, "methods", where))
    stages = tuple(Stage.read(stage, f"{where}: stage") for stage in _listed(data, "stages", where))
    made_with = tuple(_provider(entry, f"{where}: made_with") for entry in _listed(data, "made_with", where))
    settings = data.get("settings", {})
    if not isinstance(settings, Mapping) or not all(isinstance(value, Mapping) for value in settings.values()):
        raise FairbenchError(f"{where}: [settings] holds one table for each plugin", "write [settings.NAME]")
    return Benchmark(name, methods=methods, stages=stages, settings=settings, made_with=made_with, **plain)


def _provider(entry: Any, where: str) -> Provider:
    if not isinstance(entry, Mapping) or not {"kind", "name", "version"} <= set(entry):
        raise FairbenchError(f"{where} must hold tables with kind, name and version, not {entry!r:.60}")
    return Provider(**checked(Provider, dict(entry), where))


def _listed(data: Mapping[str, Any], key: str, where: str) -> list[Any]:
    value = data.get(key, [])
    if not isinstance(value, list):
        raise FairbenchError(f"{where}: {key} must be a list, not {value!r}", f"write {key} = [ … ]")
    return value


def _method(entry: Any, where: str) -> Choice:
    if isinstance(entry, str):
        return Choice(entry)
    if isinstance(entry, Mapping) and isinstance(entry.get("name"), str):
        return Choice(entry["name"], {key: value for key, value in entry.items() if key != "name"})
    raise FairbenchError(
        f"{where}: a method is a name or a table with `name`, not {entry!r}",
        'write "NAME", or {name = "NAME", KEY = VALUE}',
    )


def to_toml(benchmark: Benchmark) -> str:
    """Write a benchmark as the TOML that reproduces it."""
    import tomli_w

    data: dict[str, Any] = {key: getattr(benchmark, key) for key in _PLAIN}
    data["methods"] = [{"name": m.name, **m.settings} if m.settings else m.name for m in benchmark.methods]
    data["stages"] = [{k: v for k, v in vars(stage).items() if v != {}} for stage in benchmark.stages]
    data["settings"] = {name: dict(values) for name, values in benchmark.settings.items() if values}
    data["made_with"] = [{k: v for k, v in vars(one).items() if v} for one in benchmark.made_with]
    return tomli_w.dumps({key: _plain(value) for key, value in data.items() if value not in (None, (), [], {}, "")})


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return "none" if value is None else value  # TOML has no null; `convert` reads the word
