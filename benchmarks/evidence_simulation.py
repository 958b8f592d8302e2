"""Prove fairbench.statistics by simulation: size, coverage and power, on test sets of known truth.

Command:  python benchmarks/evidence_simulation.py [--worlds 600] [--workers 4] [--only power] [--write page.md]
Cost:     about 35 minutes of one core at 600 worlds, divided by the workers
Expect:   size near 5 % (or less, where a test is conservative), coverage of 93.5 to 97 % (more, where a reason is
          printed), and the power that benchmarks plan with. "Before" is version 0.1.0, by independent checks.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy import stats

from fairbench.statistics.auroc import judge_auroc
from fairbench.statistics.equity import judge_equity_scaled
from fairbench.statistics.interaction import interaction
from fairbench.statistics.intervals import auroc_limits, delong
from fairbench.statistics.learned import auroc_over_chance, balanced_over_chance
from fairbench.statistics.paired import compare, mean_difference
from fairbench.statistics.permutation import group_rates, judge
from fairbench.statistics.power import detectable_gap, detectable_improvement, detectable_interaction
from fairbench.statistics.ranking import dominance
from fairbench.statistics.standardised import standardised_gap
from fairbench.statistics.variance import between_group_variance

REPEATS = 199  # with p = (k + 1) / 200, p <= 0.05 is a test of exactly 5 %
CHUNK = 25  # worlds that one process draws at a time

Measure = Callable[[np.random.Generator, int], Sequence[float]]


@dataclass(frozen=True)
class Study:
    """One table: what is measured in each world of every row, and what version 0.1.0 gave.

    `plain` columns (by index) are printed as they are, the others as percentages.
    """

    key: str
    title: str
    columns: tuple[str, ...]
    rows: dict[str, Measure]
    before: dict[str, str] = field(default_factory=dict)
    plain: tuple[int, ...] = ()


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


def pair(
    rng: np.random.Generator,
    sizes: Sequence[int],
    right_a: Sequence[float],
    right_b: Sequence[float],
    agreement: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Group codes and correctness of two methods that disagree on 1 - agreement of every group's rows."""
    group = np.repeat(np.arange(len(sizes)), sizes)
    a, b = np.array(right_a)[group], np.array(right_b)[group]
    apart, luck = np.maximum(1 - agreement, np.abs(a - b)), rng.random(group.size)
    better = (apart + a - b) / 2
    both = rng.random(group.size) < (a - better) / (1 - apart)
    first, second = luck < better, (luck >= better) & (luck < apart)
    return group, (first | both & ~second).astype(float), (second | both & ~first).astype(float)


def share(measure: Measure, worlds: int, start: int = 0) -> np.ndarray:
    """What is measured in every world, (worlds, columns); world k is the same whoever draws it."""
    return np.array([measure(np.random.default_rng([start + k, 7]), start + k) for k in range(worlds)], dtype=float)


# --- one method --------------------------------------------------------------------------------------------------


def one_method(world: World) -> Measure:
    """Alarms of gap and worst group, coverage of gap, worst and groups, the floor, and the dispersion."""

    def measure(rng: np.random.Generator, index: int) -> list[float]:
        drawn = draw(world, rng)
        args = ([drawn.a], drawn.group, drawn.cluster)
        gap = judge(*args, repeats=REPEATS, seed=index)
        low = judge(*args, reduce="worst", repeats=REPEATS, seed=index)
        each = group_rates(drawn.a, drawn.group, drawn.cluster)
        covered = [g.low <= rate <= g.high for g, rate in zip(each, world.a, strict=True)]
        variance = between_group_variance([*drawn.a], drawn.group, drawn.cluster)
        return [gap.p <= 0.05, low.p <= 0.05, gap.low <= world.gap <= gap.high,
                low.low <= min(world.a) <= low.high, float(np.mean(covered)), gap.floor_mean,
                gap.value, 1e4 * variance.value]  # fmt: skip

    return measure


def eq_odds(prevalence: float, fpr: Sequence[float], reduce: str = "max", seeds: int = 1) -> Measure:
    """EqOdds on 3 x 1000 with TPR .8: p <= .05, and whether the interval leaves out 0."""

    def measure(rng: np.random.Generator, index: int) -> list[float]:
        group, target = np.repeat([0, 1, 2], 1000), rng.random(3000) < prevalence
        rate = np.where(target, 0.8, np.array(fpr)[group])
        luck = rng.random(3000)
        yes = np.array(
            [np.where(rng.random(3000) < 0.8, luck, rng.random(3000)) < rate for _ in range(seeds)], float
        )
        rates = [np.where(target, yes, np.nan), np.where(target, np.nan, yes)]
        found = judge(rates, group, reduce=reduce, repeats=REPEATS, seed=index)
        return [found.p <= 0.05, found.low > 0]

    return measure


def case_mix(sizes: Sequence[int], prevalence: Sequence[float], worse: float = 0.0) -> Measure:
    """TPR .5 and TNR .95 in all groups (less `worse` in the last): raw accuracy gap, and the standardised one."""

    def measure(rng: np.random.Generator, index: int) -> list[float]:
        group = np.repeat(np.arange(len(sizes)), sizes)
        target = rng.random(group.size) < np.array(prevalence)[group]
        chance = np.where(target, 0.5, 0.95) - worse * (group == len(sizes) - 1)
        correct = (rng.random(group.size) < chance).astype(float)
        raw = judge([correct], group, repeats=REPEATS, seed=index)
        standard = standardised_gap(correct, target, group, repeats=REPEATS, seed=index)
        return [raw.p <= 0.05, standard.p <= 0.05, standard.low <= worse <= standard.high]

    return measure


def interval_rows(
    draw_rows: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray, np.ndarray | None]],
    truth: Sequence[float],
) -> Measure:
    """Coverage of groups and gap, alarms, and how often there is no interval."""

    def measure(rng: np.random.Generator, index: int) -> list[float]:
        score, group, cluster = draw_rows(rng)
        each = group_rates(score, group, cluster)
        known = [(e, t) for e, t in zip(each, truth, strict=True) if e.low is not None]
        gap = judge([score], group, cluster, repeats=REPEATS, seed=index)
        covered = np.nan if gap.low is None else gap.low <= np.ptp(truth) + 1e-12 and np.ptp(truth) <= gap.high
        groups = np.mean([e.low <= t <= e.high for e, t in known]) if known else np.nan
        return [groups, covered, gap.p <= 0.05, 1 - len(known) / len(each)]

    return measure


def text_scores(sizes: Sequence[int], zeros: Sequence[float]) -> Measure:
    """ROUGE-like scores: 0 with a probability that may differ between groups, else a beta of mean 1/3."""
    group, empty = np.repeat(np.arange(len(sizes)), sizes), np.broadcast_to(zeros, len(sizes))

    def rows(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, None]:
        return np.where(rng.random(group.size) < empty[group], 0.0, rng.beta(2, 4, group.size)), group, None

    return interval_rows(rows, (1 - empty) / 3)


def skewed_clusters(patients: int, rate: float, worse: float = 0.0) -> Measure:
    """0/1 rows of patients with 1 to 20 rows each, who differ (intraclass correlation one half)."""
    truth = np.array([rate, rate, rate - worse])

    def rows(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        of = np.repeat([0, 1, 2], patients)
        cluster = np.repeat(np.arange(of.size), rng.integers(1, 21, of.size))
        own = rng.beta(truth[of], 1 - truth[of])
        return (rng.random(cluster.size) < own[cluster]).astype(float), of[cluster], cluster

    return interval_rows(rows, truth)


def small_groups(rate: float) -> Measure:
    """Groups of 5, 10 and 15."""
    group = np.repeat([0, 1, 2], (5, 10, 15))
    return interval_rows(lambda rng: ((rng.random(30) < rate).astype(float), group, None), (rate,) * 3)


def auroc(sizes: Sequence[int], prevalence: float, spread: float = 1.0, largest_cluster: int = 1) -> Measure:
    """Coverage of groups and gap at an AUROC of .76 everywhere, alarms; group 1's scores spread `spread` times."""
    truth = stats.norm.cdf(1 / np.sqrt(2))

    def measure(rng: np.random.Generator, index: int) -> list[float]:
        group = np.repeat(np.arange(len(sizes)), sizes)
        lengths = rng.integers(1, largest_cluster + 1, group.size)
        cluster = np.unique(np.repeat(np.arange(group.size), lengths)[: group.size] * len(sizes) + group,
                            return_inverse=True)[1]  # fmt: skip
        target = (rng.random(group.size) < prevalence).astype(int)[cluster]
        half = np.sqrt(0.5)
        score = target + half * rng.normal(size=group.size)[cluster] + half * rng.normal(size=group.size)
        score *= np.where(group == 1, spread, 1.0)
        unit = cluster if largest_cluster > 1 else None
        each = [delong(target[at], score[at], None if unit is None else unit[at])
                for at in (group == k for k in range(len(sizes)))]  # fmt: skip
        covered = [low <= truth <= high for low, high in (auroc_limits(one) for one in each if one)]
        gap = judge_auroc(target, score, group, unit, repeats=REPEATS, seed=index)
        if gap.p is None:
            return [np.mean(covered), np.nan, np.nan, 0]
        return [np.mean(covered), gap.low <= 0, gap.p <= 0.05, 0]

    return measure


def learned(kind: str) -> Measure:
    """How often a model is flagged as having learned nothing, by the old rule, by AUROC, by balanced accuracy."""

    def measure(rng: np.random.Generator, index: int) -> list[float]:
        target = (rng.random(2000) < 0.02).astype(int)
        score = rng.normal(size=2000) + (stats.norm.ppf(0.95) * np.sqrt(2) * target if kind == "screening" else 0)
        correct = ((score > 1.3) == target).astype(float)
        constant = mean_difference(correct, (target == 0).astype(float), repeats=REPEATS)
        old = constant.value <= 0 or constant.p > 0.05
        new = [auroc_over_chance(target, score), balanced_over_chance(correct, target)]
        return [old, *(f.value <= 0 or f.p > 0.05 for f in new)]

    return measure


def equity(groups: Sequence[np.ndarray], overall: Sequence[np.ndarray]) -> np.ndarray:
    """FairLLaVA's ES-M."""
    return overall[0] / (1 + 100 * (np.nanmax(groups[0], axis=-1) - np.nanmin(groups[0], axis=-1)))


def equity_scaled(sizes: Sequence[int], a: Sequence[float], b: Sequence[float]) -> Measure:
    """ES-M of A: value, floor, coverage; of A − B: p <= .05, coverage."""
    weight = np.array(sizes) / sum(sizes)
    true = [np.dot(weight, rate) / (1 + 100 * np.ptp(rate)) for rate in (a, b)]

    def measure(rng: np.random.Generator, index: int) -> list[float]:
        drawn = draw(World("", tuple(sizes), tuple(a), tuple(b)), rng)
        one = judge_equity_scaled(drawn.a, drawn.group, equity, repeats=REPEATS, seed=index)
        two = compare([drawn.a], [drawn.b], drawn.group, repeats=REPEATS, seed=index, equity=equity).equity_scaled
        inside = two.low <= true[0] - true[1] <= two.high
        return [one.low <= true[0] <= one.high, two.p <= 0.05, inside, 100 * one.value, 100 * one.floor_mean]

    return measure


# --- two methods -------------------------------------------------------------------------------------------------


def two_methods(world: World) -> Measure:
    """Rejections of gap (exchange, p), overall, worst group; coverage of the intervals; p and interval agreeing."""
    weight = np.array(world.sizes) / sum(world.sizes)
    b = world.b or world.a
    truth = [np.ptp(world.a) - np.ptp(b), np.dot(weight, world.a) - np.dot(weight, b), min(world.a) - min(b)]

    def measure(rng: np.random.Generator, index: int) -> list[float]:
        drawn = draw(world, rng)
        result = compare([drawn.a], [drawn.b], drawn.group, drawn.cluster, repeats=REPEATS, seed=index)
        three = (result.gap, result.accuracy, result.worst_group)
        covered = [d.low - 1e-9 <= t <= d.high + 1e-9 for d, t in zip(three, truth, strict=True)]
        agree = all((d.p <= 0.05) == (d.low > 0 or d.high < 0) for d in three)
        return [result.gap.exchange_p <= 0.05, *(d.p <= 0.05 for d in three), *covered, agree]

    return measure


def moved_groups(
    sizes: Sequence[int], a: Sequence[float], b: Sequence[float], agreement: float, repeats: int = REPEATS
) -> Measure:
    """Interaction, gap difference and exchange test: p <= .05; coverage of all contrasts together."""
    true = np.array(a) - np.array(b)

    def measure(rng: np.random.Generator, index: int) -> list[float]:
        group, first, second = pair(rng, sizes, a, b, agreement)
        found = interaction([first], [second], group, repeats=repeats, seed=index)
        gap = compare([first], [second], group, repeats=repeats, seed=index).gap
        covered = all(c.low <= true[int(c.up)] - true[int(c.down)] <= c.high for c in found.contrasts)
        return [found.p <= 0.05, gap.p <= 0.05, gap.exchange_p <= 0.05, covered]

    return measure


def spanning(rows_each: int, groups: int, clusters: int) -> Measure:
    """Identical methods on clusters whose rows lie in different groups: overall alarms and coverage, gap alarms."""

    def measure(rng: np.random.Generator, index: int) -> list[float]:
        cluster = np.repeat(np.arange(clusters), rows_each)
        group = np.tile(np.arange(rows_each) % groups, clusters)

        def answers() -> np.ndarray:
            own = np.where(rng.random(cluster.size) < 0.8, rng.random(clusters)[cluster], rng.random(cluster.size))
            return (own < 0.7).astype(float)

        a, b = answers(), answers()
        result = compare([a], [b], group, cluster, repeats=REPEATS, seed=index)
        overall = result.accuracy
        return [overall.p <= 0.05, overall.low <= 0 <= overall.high, result.gap.p <= 0.05]

    return measure


def levelling(sizes: Sequence[int], a: Sequence[float], b: Sequence[float], agreement: float) -> Measure:
    """Levelling down: the old rule, and a smaller gap beside a best group that fell, both with p <= .05."""

    def measure(rng: np.random.Generator, index: int) -> list[float]:
        group, first, second = pair(rng, sizes, a, b, agreement)
        found = compare([first], [second], group, repeats=REPEATS, seed=index)
        mine, theirs = (np.array([x[group == k].mean() for k in range(len(sizes))]) for x in (first, second))
        shrank = found.gap.value < 0
        old = shrank and theirs.max() - mine.max() > max(0.0, mine.min() - theirs.min())
        new = old and found.best_group.p <= 0.05
        return [old, new]

    return measure


def board(rates: dict[str, tuple[float, ...]], odd: str, sizes: Sequence[int] = (300, 300, 300)) -> Measure:
    """A board of methods that share most of their luck, alike but for the odd one.

    Is anything else separated; share of the others that stand on the right side of it; whether any does.
    """

    def measure(rng: np.random.Generator, index: int) -> list[float]:
        group = np.repeat(np.arange(len(sizes)), sizes)
        luck, answers = rng.random(group.size), {}
        for name, rate in rates.items():
            own = np.where(rng.random(group.size) < 0.8, luck, rng.random(group.size))
            answers[name] = (own < np.array(rate)[group]).astype(float)
        tests = {}
        for a, b in combinations(answers, 2):
            found = compare([answers[a]], [answers[b]], group, repeats=499, seed=index)
            tests[a, b] = {"score": found.accuracy, "worst_group": found.worst_group, "gap": found.gap}
        above = dominance(list(answers), tests).above
        right = [edge for edge in above if edge[1 if odd == "worse" else 0] == odd]
        others = [edge for edge in above if odd not in edge]
        return [bool(others), len(right) / (len(rates) - 1), bool(right)]

    return measure


def power_of(kind: str, sizes: Sequence[int], agreement: float = 0.85, gap: float = 0.2) -> Measure:
    """How often the size that is said to be found in 80 % is found, by the printed p."""
    size = {
        "gap": lambda: detectable_gap(sizes, 0.75),
        "interaction": lambda: detectable_interaction(sizes, agreement),
        "improvement": lambda: detectable_improvement(sizes, 0.75, agreement, gap),
    }[kind]().value
    last = len(sizes) - 1

    def at_last(rate: float, moved: float) -> list[float]:
        return [rate] * last + [moved]

    def measure(rng: np.random.Generator, index: int) -> list[float]:
        if size is None:
            return [np.nan, np.nan]
        if kind == "gap":
            group = np.repeat(np.arange(len(sizes)), sizes)
            right = (rng.random(group.size) < np.array(at_last(0.75, 0.75 - size))[group]).astype(float)
            return [judge([right], group, repeats=REPEATS, seed=index).p <= 0.05, 100 * size]
        if kind == "interaction":
            group, a, b = pair(rng, sizes, at_last(0.75, 0.75), at_last(0.75, 0.75 - size), agreement)
            return [interaction([a], [b], group, repeats=REPEATS, seed=index).p <= 0.05, 100 * size]
        group, a, b = pair(rng, sizes, at_last(0.8, 0.8 - gap + size), at_last(0.8, 0.8 - gap), agreement)
        found = compare([a], [b], group, repeats=REPEATS, seed=index).gap
        return [found.p <= 0.05 and found.value < 0, 100 * size]

    return measure


PAPER, THIRDS, MANY = (1816, 76, 108), (300,) * 3, (50,) * 18
LANGUAGES, FAIRCLIP = (1537, 305, 158), (1536, 296, 168)
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
    World("3x300, 3 seeds of SD .01", THIRDS, (0.75,) * 3, seeds=3, seed_spread=0.01),
    World("3x300, 3 seeds of SD .02", THIRDS, (0.75,) * 3, seeds=3, seed_spread=0.02),
    World("3x300, 3 seeds of SD .03", THIRDS, (0.75,) * 3, seeds=3, seed_spread=0.03),
    World("3x300, 2 seeds of SD .03", THIRDS, (0.75,) * 3, seeds=2, seed_spread=0.03),
    World("3x300, 3 seeds of SD .03, gap .20", THIRDS, (0.75, 0.55, 0.75), seeds=3, seed_spread=0.03),
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
FAIR, WORSE = (0.8, 0.8, 0.8), (0.765, 0.765, 0.72)  # accuracy −5, worst group −8
IDENTICAL = {f"m{index}": FAIR for index in range(10)}
UNFAIR = {f"m{index}": (0.95, 0.95, 0.45) for index in range(14)}


def removed(sizes: Sequence[int], gap: float, agreement: float) -> Measure:
    """A has no gap, B one of `gap` in its last group."""
    return moved_groups(sizes, (0.75,) * 3, (0.75, 0.75, 0.75 - gap), agreement)


STUDIES = (
    Study(
        "one", "One method",
        ("gap p<=.05", "worst p<=.05", "gap covered", "worst covered", "groups covered", "floor", "mean gap",
         "corrected variance x1e4"),
        {world.name: one_method(world) for world in ONE},
        {"3x300, 3 seeds of SD .01": "p<=.05 5.0, groups 92.9", "3x300, 3 seeds of SD .02": "13.3, 95.0",
         "3x300, 3 seeds of SD .03": "31 to 38, 87.3", "3x300, 2 seeds of SD .03": "35, 81.0"}, (7,),
    ),
    Study(
        "two", "Two methods",
        ("gap exchange p<=.05", "gap p<=.05", "overall p<=.05", "worst p<=.05", "gap covered", "overall covered",
         "worst covered", "p and interval agree"),
        {world.name: two_methods(world) for world in TWO},
        {"3x300, both fair": "p and interval disagreed in at least half of the boards with p<=.05",
         "3x300, equal gaps elsewhere": "exchange 38.7 in another world of this kind"},
    ),
    Study(
        "interaction", "Did a method move the groups unequally?",
        ("interaction p<=.05", "gap difference p<=.05", "exchange p<=.05", "contrasts covered"),
        {"3x300, no interaction, .87": moved_groups(THIRDS, (0.8,) * 3, (0.75,) * 3, 0.87),
         "1537/305/158, no interaction, .94": moved_groups(LANGUAGES, (0.78,) * 3, (0.75,) * 3, 0.94),
         "5/10/15, no interaction, .80": moved_groups((5, 10, 15), (0.75,) * 3, (0.75,) * 3, 0.8),
         "3x300, .08 removed, .87": removed(THIRDS, 0.08, 0.87),
         "3x300, .12 removed, .93": removed(THIRDS, 0.12, 0.93),
         "1537/305/158, .08 removed, .94": removed(LANGUAGES, 0.08, 0.94),
         "10,000, .03 removed, .88": removed((3333,) * 3, 0.03, 0.88),
         "3x300, equal gaps elsewhere, .80": moved_groups(THIRDS, (0.63, 0.75, 0.75), (0.75, 0.75, 0.63), 0.8)},
        {"3x300, .08 removed, .87": "gap difference 24, exchange 55", "3x300, .12 removed, .93": "58, 91",
         "1537/305/158, .08 removed, .94": "34, 65", "10,000, .03 removed, .88": "41, 76"},
    ),
    Study(
        "odds", "EqOdds where one class is rare (3x1000, prevalence 2 %, TPR .8)",
        ("p<=.05", "interval leaves out 0"),
        {"FPR .05/.05/.15": eq_odds(0.02, (0.05, 0.05, 0.15)),
         "FPR .05/.05/.15, mean": eq_odds(0.02, (0.05, 0.05, 0.15), "mean"),
         "FPR .05/.05/.15, 3 seeds": eq_odds(0.02, (0.05, 0.05, 0.15), seeds=3),
         "FPR .05 everywhere": eq_odds(0.02, (0.05,) * 3),
         "FPR .05 everywhere, 3 seeds": eq_odds(0.02, (0.05,) * 3, seeds=3)},
        {"FPR .05/.05/.15": "p<=.05 3.7, interval 100", "FPR .05 everywhere": "p<=.05 3.3"},
    ),
    Study(
        "mix", "Case mix (TPR .5, TNR .95)",
        ("raw gap p<=.05", "standardised p<=.05", "standardised covered"),
        {"2x1000, prevalences .12/.25": case_mix((1000, 1000), (0.12, 0.25)),
         "3x300, .1/.3/.5": case_mix(THIRDS, (0.1, 0.3, 0.5)),
         "3x300, .1/.3/.5, last group 15 points worse": case_mix(THIRDS, (0.1, 0.3, 0.5), 0.15)},
        {"2x1000, prevalences .12/.25": "raw 98.7", "3x300, .1/.3/.5": "raw 61"},
    ),
    Study(
        "spanning", "Clusters that span groups, identical methods",
        ("overall p<=.05", "overall covered", "gap p<=.05"),
        {"two eyes": spanning(2, 2, 150), "3 images x 2 views": spanning(6, 2, 100),
         "4 visits in 4 age bins": spanning(4, 4, 150)},
        {"two eyes": "overall 10.0, covered 86", "3 images x 2 views": "14.7, 84",
         "4 visits in 4 age bins": "23.7, 76"},
    ),
    Study(
        "intervals", "Intervals that used to undercover",
        ("groups covered", "gap covered", "gap p<=.05", "groups without interval"),
        {"ROUGE, 80 % zeros, 400/30/30": text_scores((400, 30, 30), (0.8,)),
         "ROUGE, 90 % zeros, 400/60/60": text_scores((400, 60, 60), (0.9,)),
         "ROUGE, 95 % zeros, 1500/300/150": text_scores((1500, 300, 150), (0.95,)),
         "ROUGE, 95 % zeros, 3x30": text_scores((30,) * 3, (0.95,)),
         "ROUGE, 80 % zeros, 8/12/15": text_scores((8, 12, 15), (0.8,)),
         "ROUGE, 80/80/50 % zeros, 400/60/60": text_scores((400, 60, 60), (0.8, 0.8, 0.5)),
         "0/1, 40 patients of 1 to 20 rows": skewed_clusters(40, 0.7),
         "0/1, 40 patients of 1 to 20 rows, gap .2": skewed_clusters(40, 0.7, 0.2),
         "groups of 5/10/15 at .97": small_groups(0.97), "groups of 5/10/15 at .7": small_groups(0.7),
         "AUROC, 3x300, 2 % positive": auroc(THIRDS, 0.02),
         "AUROC, 1537/305/158, 5 %": auroc(LANGUAGES, 0.05),
         "AUROC, 2x1000, 10 %, clusters of 1 to 20": auroc((1000, 1000), 0.1, largest_cluster=20),
         "AUROC, 1816/76/108, half": auroc(PAPER, 0.5),
         "AUROC, 3x300, half, spread x2": auroc(THIRDS, 0.5, spread=2.0)},
        {"ROUGE, 80 % zeros, 400/30/30": "groups 91.6, gap 89.2", "ROUGE, 90 % zeros, 400/60/60": "91.1, 89.2",
         "ROUGE, 95 % zeros, 1500/300/150": "91.4, 91.3", "ROUGE, 95 % zeros, 3x30": "73.7",
         "ROUGE, 80 % zeros, 8/12/15": "80.3", "0/1, 40 patients of 1 to 20 rows": "92.9, 92.2",
         "groups of 5/10/15 at .97": "91.1", "groups of 5/10/15 at .7": "92.4",
         "AUROC, 3x300, 2 % positive": "88.3, 87.5", "AUROC, 1537/305/158, 5 %": "92.1, 91.8",
         "AUROC, 2x1000, 10 %, clusters of 1 to 20": "88.0"},
    ),
    Study(
        "flags", "Levelling down", ("old rule", "with its own p"),
        {"identical methods, 3x300, .89": levelling(THIRDS, (0.75,) * 3, (0.75,) * 3, 0.89),
         "identical methods, 1537/305/158, .89": levelling(LANGUAGES, (0.75,) * 3, (0.75,) * 3, 0.89),
         "best group 12 points down": levelling(THIRDS, (0.73, 0.73, 0.73), (0.85, 0.85, 0.73), 0.85)},
        {"identical methods, 3x300, .89": "23.0", "identical methods, 1537/305/158, .89": "24.5"},
    ),
    Study(
        "learned", "Has not learned (2 % of 2,000 positive)", ("against a constant", "AUROC", "balanced accuracy"),
        {"screening model of AUROC .95": learned("screening"), "noise": learned("noise")},
        {"screening model of AUROC .95": "flagged 60 of 60"},
    ),
    Study(
        "ranks", "Ranks by dominance",
        ("others falsely separated", "the odd one placed against the others", "against any"),
        {"ten identical methods": board(IDENTICAL, "nobody"),
         "ten, and one of accuracy −5, worst group −8": board(IDENTICAL | {"worse": WORSE}, "worse"),
         "the same, 3x1000": board(IDENTICAL | {"worse": WORSE}, "worse", (1000,) * 3),
         "fourteen of gap .50, one fair": board(UNFAIR | {"fair": (0.95,) * 3}, "fair")},
        {"ten identical methods": "0 of 150", "fourteen of gap .50, one fair": "nothing separated"},
    ),
    Study(
        "equity", "ES-M",
        ("covered", "difference p<=.05", "difference covered", "value", "chance value"),
        {"1536/296/168, all .80": equity_scaled(FAIRCLIP, (0.8,) * 3, (0.8,) * 3),
         "3x300, gap .12 against none": equity_scaled(THIRDS, (0.75, 0.63, 0.75), (0.75,) * 3),
         "3x300, gap .20 against .05": equity_scaled(THIRDS, (0.8, 0.6, 0.8), (0.8, 0.75, 0.8))},
        {"1536/296/168, all .80": "value 9 to 41, median 17.6"}, (3, 4),
    ),
    Study(
        "power", "Power at the size that is said to be found in 80 %", ("found", "size, points"),
        {"gap, 3x300": power_of("gap", THIRDS), "gap, 1537/305/158": power_of("gap", LANGUAGES),
         "gap, 18x50": power_of("gap", MANY),
         "interaction, 3x300, .87": power_of("interaction", THIRDS, 0.87),
         "interaction, 1537/305/158, .90": power_of("interaction", LANGUAGES, 0.9),
         "improvement, 3x1000, .85, gap .15": power_of("improvement", (1000,) * 3, 0.85, 0.15),
         "improvement, 3x3333, .85, gap .08": power_of("improvement", (3333,) * 3, 0.85, 0.08),
         "improvement, 3x300, .93, gap .16": power_of("improvement", THIRDS, 0.93, 0.16),
         "improvement, 1537/305/158, .93, gap .20": power_of("improvement", LANGUAGES, 0.93, 0.2)},
        {"improvement, 3x1000, .85, gap .15": "printed p 67, interval 30",
         "improvement, 3x3333, .85, gap .08": "69, 39", "improvement, 3x300, .93, gap .16": "61, 12",
         "improvement, 1537/305/158, .93, gap .20": "52, 8"}, (1,),
    ),
)  # fmt: skip


def work(task: tuple[int, str, int, int]) -> np.ndarray:
    """Draw one chunk of one row's worlds."""
    study, row, start, worlds = task
    return share(STUDIES[study].rows[row], worlds, start)


def table(study: Study, found: dict[str, np.ndarray]) -> list[str]:
    """One study as markdown: mean ± standard error."""
    lines = [f"**{study.title}**", "", "| " + " | ".join(("", *study.columns, "before")) + " |"]
    lines.append("|" + "---|" * (len(study.columns) + 2))
    for row, values in found.items():
        cells = []
        for place, column in enumerate(values.T):
            known, scale = column[~np.isnan(column)], 1 if place in study.plain else 100
            if known.size:
                error = known.std() / np.sqrt(known.size)
                cells.append(f"{scale * known.mean():.1f} ± {scale * error:.1f}")
            else:
                cells.append("none")
        lines.append(f"| {row} | {' | '.join(cells)} | {study.before.get(row, '')} |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worlds", type=int, default=600, help="test sets drawn of each kind")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that share the work")
    parser.add_argument("--only", nargs="*", choices=[study.key for study in STUDIES], help="some of the tables")
    parser.add_argument("--write", type=Path, help="write the tables to this file as well")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    chosen = [place for place, study in enumerate(STUDIES) if not options.only or study.key in options.only]
    lines = [
        f"{options.worlds} test sets of each kind; in % (± standard error) unless a column says otherwise.",
        "",
    ]
    print("\n".join(lines))
    with ProcessPoolExecutor(options.workers) as pool:
        running = {}
        for place in chosen:
            for row in STUDIES[place].rows:
                starts = range(0, options.worlds, CHUNK)
                tasks = [(place, row, start, min(CHUNK, options.worlds - start)) for start in starts]
                running[place, row] = [pool.submit(work, task) for task in tasks]
        for place in chosen:
            study = STUDIES[place]
            found = {row: np.concatenate([part.result() for part in running[place, row]]) for row in study.rows}
            text = table(study, found)
            print("\n".join(text), flush=True)
            lines += text
    if options.write:
        options.write.write_text("\n".join(lines), encoding="utf-8")
        print(f"written to {options.write}", file=sys.stderr)


if __name__ == "__main__":
    main()
