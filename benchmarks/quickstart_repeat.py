"""Run the quickstart on other simulated patients, and count how often it tells the same story.

    python benchmarks/quickstart_repeat.py [--seeds 0-19] [--workers 16] [--out runs-repeat] [--set NAME.KEY=VALUE]

Every seed is another set of patients (`fundus-sim.seed`), the training seed is the quickstart's own. The first
table has, for each, every row's EqOdds with its p-value, and whom its method moved against whom (the leaderboard's
interaction within class); the second counts over the seeds what the tests say. Results stay in the folder: the
same command goes on where it stopped; when interrupted it prints the seeds whose jobs are all done.
"""

from __future__ import annotations

import argparse
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from multiprocessing import get_context

from fairbench import Store, plugins
from fairbench.benchmark import benchmark as benchmarks
from fairbench.benchmark import launch, progress
from fairbench.benchmark.overrides import override
from fairbench.benchmark.plan import jobs
from fairbench.benchmark.pull import Setup
from fairbench.jobs.job import Job
from fairbench.leaderboard import build as leaderboard
from fairbench.leaderboard.board import Row
from fairbench.leaderboard.sentences import finding
from fairbench.processes import cores
from fairbench.statistics.results import ALPHA

ATTRIBUTE = "race"
Story = tuple[list[str], list[tuple[str, str]]]  # lines of the first table; (row, what the tests say of it)


def planned(seed: int, which: str, assignments: list[str], loaded: plugins.Plugins) -> tuple[Job, ...]:
    """Return the benchmark's jobs on this seed's patients, without controls."""
    benchmark = override(benchmarks.load(which), [*assignments, f"fundus-sim.seed={seed}"], loaded)
    return jobs(replace(benchmark, controls=False), loaded, {}).jobs


def moved(row: Row) -> tuple[str, str]:
    """Return who was moved against whom within the true class, with and without numbers; empty for nobody."""
    test = row.interactions.get("eq_odds_max")
    if test is None or not test.significant or not test.contrasts:
        return "nobody", "moves nobody"
    first = test.contrasts[0]
    way = "up" if (first.value or 0) > 0 else "down"
    who = f"{first.group} {way} against {first.against} in {first.rate}"
    return f"{who} by {100 * abs(first.value or 0):.1f} (p {test.adjusted:.4f})", who


def story(out: str, seed: int, mine: tuple[Job, ...]) -> Story:
    """Read one seed's leaderboard."""
    metrics = list(plugins.load(("metric",)).tables["metric"].values())
    board = leaderboard.build(Store(out), {job.key for job in mine}, [ATTRIBUTE], metrics=metrics)
    table = board.tables[0]
    lines, said = [], []
    for row in table.rows:
        odds, (numbers, who) = row.eq_odds_max, moved(row)
        told = "" if row.label == table.baseline else numbers
        lines.append(f"| {seed} | {row.label} | {100 * (odds.value or 0):.1f} (p {odds.p:.4f}) | {told} |")
        beyond = odds.adjusted is not None and odds.adjusted <= ALPHA
        said.append((row.label, f"EqOdds {'exceeds' if beyond else 'does not exceed'} chance"))
        if row.label != table.baseline:
            said.append((row.label, who))
            change = row.changes.get("eq_odds_max")
            if change is not None and change.significant:
                said.append(
                    (row.label, f"EqOdds {'smaller' if (change.value or 0) < 0 else 'larger'} than baseline")
                )
    lines.append(f"| {seed} | *sentence* | {finding(table)[0]} | |")
    return lines, said


def main() -> None:
    """Run what is missing, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--benchmark", default="quickstart")
    parser.add_argument("--seeds", default="0-19")
    parser.add_argument("--workers", type=int, default=cores())
    parser.add_argument("--out", default="runs-repeat")
    parser.add_argument("--set", action="append", default=[], dest="assignments")
    options = parser.parse_args()
    first, _, last = options.seeds.partition("-")
    loaded, store = plugins.load(), Store(options.out)
    seeds = range(int(first), int(last or first) + 1)
    each = [planned(seed, options.benchmark, options.assignments, loaded) for seed in seeds]
    every = [job for mine in each for job in mine]
    missing = store.missing(every)
    if missing:
        with suppress(KeyboardInterrupt), progress.watch(len(every), len(every) - len(missing)) as watch:
            launch.launch(missing, Setup(out=str(store.root), roots={}), options.workers, watch)
    done = [(seed, mine) for seed, mine in zip(seeds, each, strict=True) if not store.missing(mine)]
    count: Counter[tuple[str, str]] = Counter()
    print("| patients | row | EqOdds(max), points | moved |\n| ---: | --- | --- | --- |")
    with ProcessPoolExecutor(options.workers, get_context("spawn")) as pool:
        for lines, said in pool.map(partial(story, options.out), *zip(*done, strict=True)):
            print("\n".join(lines), flush=True)
            count.update(said)
    print(f"\n| row | what the tests say | of {len(done)} |\n| --- | --- | ---: |")
    for (label, what), times in sorted(count.items()):
        print(f"| {label} | {what} | {times} |")


if __name__ == "__main__":
    main()
