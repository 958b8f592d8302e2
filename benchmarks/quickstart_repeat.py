"""Run the quickstart on other simulated patients, and count how often it tells the same story.

    python benchmarks/quickstart_repeat.py [--seeds 0-19] [--workers 16] [--out runs-repeat] [--set NAME.KEY=VALUE]

Every seed is another set of patients (`fundus-sim.seed`), the training seed is the quickstart's own. For each the
table gives the baseline's EqOdds with its p-value, and how each method moved the groups of its worst and best class
against the baseline, with the p-value of the interaction within class; beneath, the leaderboard's first
sentence. Results stay in the folder: the same command goes on where it stopped, and prints from what is there.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fairbench import Predictions, Store, plugins
from fairbench.benchmark import benchmark as benchmarks
from fairbench.benchmark import launch, progress
from fairbench.benchmark.overrides import override
from fairbench.benchmark.plan import jobs
from fairbench.jobs.job import Job
from fairbench.leaderboard import build as leaderboard
from fairbench.statistics.interaction import interaction

ATTRIBUTE, ALPHA = "race", 0.05
CLASSES = ("healthy", "sick")


@dataclass(frozen=True)
class Move:
    """How a method moved one class of one group against the baseline, in points, and the test of all of them."""

    p: float
    group: str
    points: float


def move(method: Predictions, baseline: Predictions) -> Move:
    """Test A − B within the true class, and name the cell that moved furthest from its class's other groups."""
    group, names = method.groups(ATTRIBUTE)
    right = [(each.answer == each.target).astype(float) for each in (method, baseline)]
    within = [[np.where(method.target == label, score, np.nan) for label in range(2)] for score in right]
    found = interaction(*within, group, names=names, repeats=2000)
    rate = found.contrasts[0].rate
    pair = [names.index(name) for name in (found.contrasts[0].up, found.contrasts[0].down)]
    most = max(pair, key=lambda index: abs(found.moved[rate, index]))
    assert found.p is not None
    return Move(found.p, f"{CLASSES[rate]} {names[most]}", 100 * float(found.moved[rate, most]))


def planned(seed: int, which: str, assignments: list[str], loaded: plugins.Plugins) -> tuple[Job, ...]:
    """Return the benchmark's jobs on this seed's patients."""
    benchmark = override(benchmarks.load(which), [*assignments, f"fundus-sim.seed={seed}"], loaded)
    return jobs(benchmark, loaded, {}).jobs


def lines(store: Store, mine: tuple[Job, ...], loaded: plugins.Plugins) -> Iterator[tuple[str, ...]]:
    """Yield the baseline's gap, every method's move, and the leaderboard's first sentence."""
    board = leaderboard.build(
        store, {job.key for job in mine}, [ATTRIBUTE], metrics=list(loaded.tables["metric"].values())
    )
    table = board.tables[0]
    told = {job.method.label: store.predictions(record) for job in mine if (record := store.record(job))}
    base = next(row for row in table.rows if row.label == table.baseline)
    yield ("EqOdds", f"{100 * base.eq_odds_max.value:.1f} (p {base.eq_odds_max.p:.3f})", "")
    for label, predictions in told.items():
        if label in {row.label for row in table.rows} - {table.baseline}:
            found = move(predictions, told[table.baseline or ""])
            sign = f"{found.group} {'+' if found.points > 0 else '−'}" if found.p <= ALPHA else "not found"
            yield (label, f"{found.group} {found.points:+.1f} (p {found.p:.4f})", sign)
    yield ("sentence", table.finding[0], "")


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--benchmark", default="quickstart")
    parser.add_argument("--seeds", default="0-19")
    parser.add_argument("--workers", type=int, default=launch.cores())
    parser.add_argument("--out", default="runs-repeat")
    parser.add_argument("--set", action="append", default=[], dest="assignments")
    options = parser.parse_args()
    first, _, last = options.seeds.partition("-")
    loaded, store = plugins.load(), Store(options.out)
    each = {
        seed: planned(seed, options.benchmark, options.assignments, loaded)
        for seed in range(int(first), int(last or first) + 1)
    }
    every = [job for mine in each.values() for job in mine]
    missing = store.missing(every)
    if missing:
        with progress.watch(len(every), len(every) - len(missing)) as watch:
            launch.launch(missing, launch.Setup(out=str(store.root), roots={}), options.workers, watch)
    told: Counter[tuple[str, str]] = Counter()
    print("| patients | row | what happened |\n| ---: | --- | --- |")
    for seed, mine in each.items():
        for label, text, sign in lines(store, mine, loaded):
            print(f"| {seed} | {label} | {text} |", flush=True)
            if sign:
                told[label, sign] += 1
    print(f"\n| row | moved most | of {len(each)} |\n| --- | --- | ---: |")
    for (label, sign), count in sorted(told.items()):
        print(f"| {label} | {sign} | {count} |")


if __name__ == "__main__":
    main()
