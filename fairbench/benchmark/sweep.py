"""A sweep: a benchmark as it was run, under a name of its own, with what provided all that it is made of."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from fairbench import __version__, files
from fairbench.benchmark.benchmark import Benchmark, Kind, Provider, load, to_toml
from fairbench.errors import FairbenchError
from fairbench.jobs.store import Store
from fairbench.plugins import Plugins

if TYPE_CHECKING:
    from fairbench.benchmark.plan import Planned

TAKEN = ("record", "job")  # NAME.json is something else in a folder of runs


def pinned(benchmark: Benchmark, planned: Planned) -> Benchmark:
    """Write down what the benchmark left open, batch size and precision, and what provides its parts."""
    jobs = planned.jobs
    sizes, precisions = {job.batch_size for job in jobs}, {job.precision for job in jobs}
    kinds: tuple[Kind, ...] = ("dataset", "backbone", "method")
    chosen = {(kind, getattr(job, kind).name): getattr(job, kind) for job in jobs for kind in kinds}
    made_with = {
        (kind, name): Provider(kind, name, choice.version, choice.fingerprint)
        for (kind, name), choice in chosen.items()
    }
    return replace(
        benchmark,
        batch_size=sizes.pop() if len(sizes) == 1 else benchmark.batch_size,
        precision=precisions.pop() if len(precisions) == 1 else benchmark.precision,
        made_with=tuple(made_with[key] for key in sorted(made_with)),
    )


def named(store: Store, sweep: Benchmark, wanted: str | None) -> Benchmark:
    """Give a sweep a name that no other sweep of this folder has: the one wanted, else the benchmark's or the next.

    Raises FairbenchError where another sweep has the name that is wanted, or where it is no name of a file.
    """
    name = wanted or sweep.name
    if set(name) & {"/", "\\"} or name.startswith(".") or not name.isprintable() or name in TAKEN:
        raise FairbenchError(
            f"{name!r:.80} cannot be the name of a sweep: its board is NAME.md and NAME.json in {store.name}",
            "choose another --name, such as glaucoma-by-race",
        )
    if wanted and not _is_free(store, sweep, name):
        raise FairbenchError(
            f"another sweep in {store.name} is called {name}, or another file, which would be overwritten",
            "choose another --name, or leave it out",
        )
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return replace(sweep, name=next(name for name in names if _is_free(store, sweep, name)))


def _is_free(store: Store, sweep: Benchmark, name: str) -> bool:
    """Whether no sweep has the name, or this very one has."""
    path = store.sheet(name, "toml")
    if not path.exists():
        return not any(store.sheet(name, kind).exists() for kind in ("json", "md"))
    try:
        return _asked(load(str(path))) == _asked(sweep)
    except FairbenchError:
        return False


def _asked(benchmark: Benchmark) -> str:
    """Write what is asked for, without what provided it."""
    return to_toml(replace(benchmark, made_with=(), description=""))


def write(store: Store, sweep: Benchmark) -> None:
    """Write the sweep beside its results, as the file that runs the same again."""
    text = f"# written by fairbench {__version__}: `fairbench run` of this file runs the same jobs\n"
    files.write(store.sheet(sweep.name, "toml"), text + to_toml(sweep))


def check_providers(benchmark: Benchmark, plugins: Plugins) -> Iterator[str]:
    """Say what is provided by something else than when the benchmark was written.

    Raises FairbenchError, with what to install, for what is not there at all.
    """
    used = {
        "dataset": benchmark.datasets,
        "backbone": benchmark.backbone_names,
        "method": [method.name for method in benchmark.named_methods],
    }
    for one in benchmark.made_with:
        if one.name not in used[one.kind]:
            continue
        if one.name.partition(":")[0] not in plugins.tables[one.kind]:
            raise FairbenchError(f"there is no {one.kind} {one.name} here; it was of {one.version}", one.obtain)
        here = plugins.version(one.kind, one.name)
        if here != one.version:
            yield f"{one.kind} {one.name} was of {one.version}, and here is of {here}: these are other jobs"


def check_fingerprints(benchmark: Benchmark, planned: Planned) -> Iterator[str]:
    """Say which data or weights are others than when the benchmark was written."""
    here = {(one.kind, one.name): one.fingerprint for one in pinned(benchmark, planned).made_with}
    for one in benchmark.made_with:
        fingerprint = here.get((one.kind, one.name), one.fingerprint)
        if one.fingerprint != fingerprint:
            said = f"{one.kind} {one.name} had the fingerprint {one.fingerprint}, and has {fingerprint} here"
            yield f"{said}: these are other jobs"
