"""Prove the statistics of fairbench.statistics.permutation by simulation.

Command:  python benchmarks/evidence_simulation.py [--worlds 1000]
Cost:     about ten minutes on one idle core (--worlds 100: one)
Expect:   "false alarms" near 5 % (at most, where a test is conservative) in every world without a difference,
and every interval covering in at least about 95 % of worlds, at parity and away from it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fairbench.statistics.auroc import judge_auroc
from fairbench.statistics.paired import compare
from fairbench.statistics.permutation import group_rates, judge
from fairbench.statistics.variance import between_group_variance

REPEATS = 199  # with p = (k + 1) / 200, p <= 0.05 is a test of exactly 5 %


@dataclass(frozen=True)
class World:
    """A truth to draw test sets from; `shared` is how often methods A and B share their luck on a row."""

    name: str
    sizes: tuple[int, ...]
    a: tuple[float, ...]
    b: tuple[float, ...] = ()
    shared: float = 0.7
    mean_cluster: float = 1.0
    within: float = 0.6
    seeds: int = 1
    seed_spread: float = 0.0

    @property
    def gap(self) -> float:
        """The true max - min of A."""
        return max(self.a) - min(self.a)


@dataclass(frozen=True)
class Draw:
    """One test set: group and cluster codes (n,), correctness of A and B (seeds, n)."""

    group: np.ndarray
    cluster: np.ndarray | None
    a: np.ndarray
    b: np.ndarray


def draw(world: World, rng: np.random.Generator) -> Draw:
    """Draw one test set; rows of a cluster share their luck with probability `within`."""
    group = np.repeat(np.arange(len(world.sizes)), world.sizes)
    n = group.size
    cluster = None
    if world.mean_cluster > 1:
        cluster = np.concatenate(
            [_clusters(size, world.mean_cluster, rng) + 10**6 * k for k, size in enumerate(world.sizes)]
        )
        cluster = np.unique(cluster, return_inverse=True)[1]

    def luck() -> np.ndarray:
        own = rng.random(n)
        if cluster is None:
            return own
        return np.where(rng.random(n) < world.within, rng.random(cluster.max() + 1)[cluster], own)

    common = luck()
    answers = []
    for rates in (world.a, world.b or world.a):
        runs = []
        for _ in range(world.seeds):
            rate = np.array(rates) + world.seed_spread * rng.standard_normal(len(rates))
            runs.append(np.where(rng.random(n) < world.shared, common, luck()) < rate[group])
        answers.append(np.array(runs, dtype=float))
    return Draw(group, cluster, *answers)


def _clusters(size: int, mean: float, rng: np.random.Generator) -> np.ndarray:
    lengths = 1 + rng.poisson(mean - 1, size)
    return np.repeat(np.arange(size), lengths)[:size]


def share(world: World, worlds: int, measure: Callable[[Draw, int], list[float]], seed: int = 0) -> np.ndarray:
    """Mean over drawn worlds of what is measured in each."""
    rng = np.random.default_rng(seed)
    return np.nanmean([measure(draw(world, rng), index) for index in range(worlds)], axis=0)


def one_method(world: World) -> Callable[[Draw, int], list[float]]:
    """Measure false alarms of gap and worst group, coverage of gap, worst and groups, and the dispersion."""

    def measure(drawn: Draw, index: int) -> list[float]:
        args = ([drawn.a[0]], drawn.group, drawn.cluster)
        gap = judge(*args, repeats=REPEATS, seed=index)
        low = judge(*args, reduce="worst", repeats=REPEATS, seed=index)
        each = group_rates(drawn.a[0], drawn.group, drawn.cluster)
        covered = [g.low <= rate <= g.high for g, rate in zip(each, world.a, strict=True)]
        variance = between_group_variance(*args)
        return [gap.p <= 0.05, low.p <= 0.05, gap.low <= world.gap <= gap.high,
                low.low <= min(world.a) <= low.high, float(np.mean(covered)), gap.floor_mean,
                gap.value, variance.value, float(np.var([g.value for g in each], ddof=1))]  # fmt: skip

    return measure


def two_methods(world: World) -> Callable[[Draw, int], list[float]]:
    """Rejections of gap (exchange, p), accuracy, worst group; coverage of the three intervals."""
    weight = np.array(world.sizes) / sum(world.sizes)
    b = world.b or world.a
    truth = [np.ptp(world.a) - np.ptp(b), np.dot(weight, world.a) - np.dot(weight, b), min(world.a) - min(b)]

    def measure(drawn: Draw, index: int) -> list[float]:
        result = compare([drawn.a], [drawn.b], drawn.group, drawn.cluster, repeats=REPEATS, seed=index)
        three = (result.gap, result.accuracy, result.worst_group)
        covered = [d.low - 1e-12 <= t <= d.high + 1e-12 for d, t in zip(three, truth, strict=True)]
        return [result.gap.exchange_p <= 0.05, *(d.p <= 0.05 for d in three), *covered]

    return measure


PAPER, THIRDS, MANY = (1816, 76, 108), (300,) * 3, (50,) * 18
ONE = (
    World("1816/76/108, all .535", PAPER, (0.535,) * 3),
    World("1816/76/108, gap .15", PAPER, (0.535, 0.385, 0.535)),
    World("3x300, all .75", THIRDS, (0.75,) * 3),
    World("3x300, gap .12", THIRDS, (0.75, 0.63, 0.75)),
    World("18x50, all .75", MANY, (0.75,) * 18),
    World("18x50, gap .20", MANY, (0.55, *(0.75,) * 17)),
    World("3x300 in clusters of 3, all .75", THIRDS, (0.75,) * 3, mean_cluster=3),
    World("3x300 in clusters of 3, gap .15", THIRDS, (0.75, 0.60, 0.75), mean_cluster=3),
    World("1816/76/108 in clusters of 2, all .535", PAPER, (0.535,) * 3, mean_cluster=2),
    World("3x300, all .97", THIRDS, (0.97,) * 3),
)
TWO = (
    World("1816/76/108, both fair", PAPER, (0.535,) * 3),
    World("3x300, both fair", THIRDS, (0.75,) * 3),
    World("18x50, both fair", MANY, (0.75,) * 18),
    World("3x300 in clusters of 3, both fair", THIRDS, (0.75,) * 3, mean_cluster=3),
    World("1816/76/108, both gap .15", PAPER, (0.535, 0.385, 0.535), (0.535, 0.385, 0.535)),
    World("3x300, equal gaps elsewhere", THIRDS, (0.63, 0.75, 0.75), (0.75, 0.75, 0.63)),
    World("2x500, equal gaps reversed", (500, 500), (0.60, 0.70), (0.70, 0.60)),
    World("3x300, fair, A more accurate", THIRDS, (0.80,) * 3, (0.70,) * 3),
    World("3x300, A gap .12", THIRDS, (0.63, 0.75, 0.75), (0.75,) * 3),
    World("1816/76/108, A gap .15", PAPER, (0.535, 0.385, 0.535), (0.535,) * 3),
    World("18x50, A gap .20", MANY, (0.55, *(0.75,) * 17), (0.75,) * 18),
    World("3x300, 3 seeds, fair", THIRDS, (0.75,) * 3, seeds=3),
    World("3x300, 3 seeds that matter, fair", THIRDS, (0.75,) * 3, seeds=3, seed_spread=0.03),
    World("3x300, 5 seeds that matter, fair", THIRDS, (0.75,) * 3, seeds=5, seed_spread=0.03),
)


def auroc_row(sizes: tuple[int, ...], worlds: int, spread: float = 1.0, seed: int = 0) -> list[float]:
    """Measure alarms and coverage at an AUROC gap of 0; group 1's scores spread `spread` times as far."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(len(sizes)), sizes)
    hits = []
    for index in range(worlds):
        target = (rng.random(group.size) < 0.5).astype(int)
        scale = np.where(group == 1, spread, 1.0)
        score = scale * (rng.normal(size=group.size) + target)
        result = judge_auroc(target, score, group, repeats=REPEATS, seed=index)
        hits.append([result.p <= 0.05, result.low <= 0 <= result.high])
    return list(np.mean(hits, axis=0))


def percent(values: np.ndarray) -> str:
    return " | ".join(f"{100 * value:.1f}" for value in values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worlds", type=int, default=1000, help="test sets drawn of each kind")
    worlds = parser.parse_args().worlds
    print(f"{worlds} test sets of each kind; all numbers in %")
    print(
        "\n| one method | gap p<=.05 | worst p<=.05 | gap covered | worst covered | groups covered |"
        " floor | mean gap | variance x1e4: corrected | naive |"
    )
    print("|" + "---|" * 10)
    for world in ONE:
        row = share(world, worlds, one_method(world))
        print(f"| {world.name} | {percent(row[:7])} | {1e4 * row[7]:.2f} | {1e4 * row[8]:.2f} |", flush=True)
    print(
        "\n| two methods | gap exchange p<=.05 | gap p<=.05 | accuracy p<=.05 | worst p<=.05 |"
        " gap covered | accuracy covered | worst covered |"
    )
    print("|" + "---|" * 8)
    for world in TWO:
        print(f"| {world.name} | {percent(share(world, worlds, two_methods(world)))} |", flush=True)
    print("\n| AUROC, equal .76 | gap p<=.05 | gap covered |\n|---|---|---|")
    for sizes, spread in ((PAPER, 1.0), (THIRDS, 1.0), (THIRDS, 2.0)):
        print(f"| {'/'.join(map(str, sizes))}, spread x{spread:g} | {percent(auroc_row(sizes, worlds, spread))} |")


if __name__ == "__main__":
    main()
