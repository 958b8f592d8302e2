"""Run the quickstart on other simulated patients, and count how often it tells the same story.

    python benchmarks/quickstart_repeat.py [--seeds 0-19] [--workers 16] [--out runs-repeat] [--set NAME.KEY=VALUE]

Every seed is another set of patients (`fundus-sim.seed`), the training seed is the quickstart's own. For each the
table gives the baseline's EqOdds with its p-value; how each method changed the specificity of healthy black
patients against the baseline, and the cell that it moved most, with the p-value of the interaction within class;
and the leaderboard's first sentence. Results stay in the folder: the same command goes on where it stopped, and
prints from what is there.
"""

from __future__ import annotations

import argparse
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context

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
TOLD = "black"  # whose healthy patients the story is about


@dataclass(frozen=True)
class Move:
    """What a method changed against the baseline, in points, and the test that it moved groups unequally.

    healthy: of TOLD's specificity; most, points: the class of a group that stands out most, and its change.
    """

    p: float
    healthy: float
    most: str
    points: float


def move(method: Predictions, baseline: Predictions) -> Move:
    """Test A − B within the true class; of the pair with the largest t, take the group that moved further."""
    group, names = method.groups(ATTRIBUTE)
    right = [(each.answer == each.target).astype(float) for each in (method, baseline)]
    within = [[np.where(method.target == label, score, np.nan) for label in range(2)] for score in right]
    found = interaction(*within, group, names=names, repeats=2000)
    rate = found.contrasts[0].rate
    pair = [names.index(name) for name in (found.contrasts[0].up, found.contrasts[0].down)]
    most = max(pair, key=lambda index: abs(found.moved[rate, index]))
    assert found.p is not None
    moved = 100 * found.moved
    return Move(
        found.p, float(moved[0, names.index(TOLD)]), f"{CLASSES[rate]} {names[most]}", float(moved[rate, most])
    )


def planned(seed: int, which: str, assignments: list[str], loaded: plugins.Plugins) -> tuple[Job, ...]:
    """Return the benchmark's jobs on this seed's patients, without controls."""
    benchmark = override(benchmarks.load(which), [*assignments, f"fundus-sim.seed={seed}"], loaded)
    return jobs(replace(benchmark, controls=False), loaded, {}).jobs


def lines(out: str, mine: tuple[Job, ...]) -> list[tuple[str, str, str]]:
    """Return the baseline's gap, every method's move and the leaderboard's first sentence: row, text, direction."""
    loaded, store = plugins.load(("metric",)), Store(out)
    board = leaderboard.build(
        store, {job.key for job in mine}, [ATTRIBUTE], metrics=list(loaded.tables["metric"].values())
    )
    table = board.tables[0]
    told = {job.method.label: store.predictions(record) for job in mine if (record := store.record(job))}
    base = next(row for row in table.rows if row.label == table.baseline)
    odds = base.eq_odds_max
    found = [(base.label, f"EqOdds {100 * (odds.value or 0):.1f} (p {odds.p:.4f})", "")]
    for row in table.rows:
        if row.label != base.label:
            moved = move(told[row.label], told[base.label])
            sign = f"{'more' if moved.healthy > 0 else 'less'} specific" if moved.p <= ALPHA else "not found"
            text = f"healthy {TOLD} {moved.healthy:+.1f}; most: {moved.most} {moved.points:+.1f} (p {moved.p:.4f})"
            found.append((row.label, text, sign))
    return [*found, ("sentence", table.finding[0], "")]


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
    with ProcessPoolExecutor(options.workers, get_context("spawn")) as pool:
        for seed, found in zip(each, pool.map(lines, [options.out] * len(each), each.values()), strict=True):
            for label, text, sign in found:
                print(f"| {seed} | {label} | {text} |", flush=True)
                if sign:
                    told[label, sign] += 1
    print(f"\n| row | for healthy {TOLD} patients | of {len(each)} |\n| --- | --- | ---: |")
    for (label, sign), count in sorted(told.items()):
        print(f"| {label} | {sign} | {count} |")


if __name__ == "__main__":
    main()
