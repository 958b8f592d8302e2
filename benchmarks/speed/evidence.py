"""Measure fairbench's resampling beside fairlearn's, in one run on one machine.

Command:  python benchmarks/speed/evidence.py [--bootstraps 50] [--groups] [--large]
Cost:     about ten seconds; --groups adds 200 groups of 20,000 rows by 3 seeds and half a minute, --large 5 million
          rows and about a minute
Expect:   fairbench resamples the counts, fairlearn the rows: four to five orders of magnitude per bootstrap.

fairlearn is timed on few bootstraps and scaled to 10,000 (its cost is linear in them); the ratio is per bootstrap.
As a comparison of the same work, the third line resamples the rows themselves with numpy, without counting.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable

import numpy as np
from fairlearn.metrics import MetricFrame
from sklearn.metrics import accuracy_score

from fairbench.statistics.interaction import interaction
from fairbench.statistics.paired import compare
from fairbench.statistics.permutation import judge
from fairbench.statistics.resampling import bootstrapped, permuted, tabulate
from fairbench.statistics.standardised import by_class

REPEATS = 10_000
SIZES = (1816, 76, 108)


def timed(work: Callable[[], object]) -> float:
    """Best of three, in seconds."""
    best = np.inf
    for _ in range(3):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def counted(correct: np.ndarray, group: np.ndarray, kind: Callable) -> np.ndarray:
    """Gaps of REPEATS tables: permuted (the floor) or bootstrapped."""
    table = tabulate([correct], group, None, len(SIZES))
    sizes = np.array(SIZES)
    chunks = kind(table, table.sums, REPEATS, np.random.default_rng(0))
    return np.concatenate([np.ptp(sums[:, :, 0] / sizes, axis=1) for sums in chunks])


def by_rows(correct: np.ndarray, group: np.ndarray, repeats: int) -> None:
    """Bootstrap rows with plain numpy, the way row resampling is usually written."""
    rng = np.random.default_rng(0)
    for _ in range(repeats):
        rows = rng.integers(0, correct.size, correct.size)
        np.bincount(group[rows], correct[rows]) / np.bincount(group[rows])


def shown(title: str, works: dict[str, Callable[[], object]]) -> None:
    """Time each work once, in CPU seconds (one thread), with the peak memory of the process so far."""
    print(f"\n{title}: CPU seconds, peak memory of the process so far")
    total = 0.0
    for name, work in works.items():
        start = time.process_time()
        work()
        total += (spent := time.process_time() - start)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
        print(f"  {name:38s} {spent:7.1f} s  {peak:5.2f} GiB", flush=True)
    print(f"  {'all of them':38s} {total:7.1f} s")


def many_groups() -> None:
    """Compare two methods of three seeds on 20,000 rows in 200 groups, by all that `compare` prints."""
    rng = np.random.default_rng(0)
    n, groups, seeds = 20_000, 200, 3
    group, target, luck = rng.integers(0, groups, n), (rng.random(n) < 0.3).astype(int), rng.random(n)

    def correct() -> np.ndarray:
        own = [np.where(rng.random(n) < 0.8, luck, rng.random(n)) for _ in range(seeds)]
        return (np.array(own) < 0.8).astype(float)

    def odds(right: np.ndarray) -> list[np.ndarray]:
        answer = np.where(right == 1, target, 1 - target).astype(float)
        return [np.where(target == one, answer, np.nan) for one in (1, 0)]

    a, b = correct(), correct()
    (classes, shares), (others, _) = by_class(a, target, group), by_class(b, target, group)
    works = {
        "compare: accuracy, worst, best": lambda: compare([a], [b], group),
        "compare: EqOdds": lambda: compare(odds(a), odds(b), group, correct=(a, b)),
        "interaction: accuracy": lambda: interaction([a], [b], group),
        "interaction: TPR and FPR": lambda: interaction(odds(a), odds(b), group),
        "interaction: standardised accuracy": lambda: interaction(classes, others, group, weights=shares),
    }
    shown("200 groups, 20,000 rows, 3 seeds, two methods", works)
    works = {
        "judge: accuracy": lambda: judge([a], group),
        "judge: EqOdds": lambda: judge(odds(a), group),
        "judge: standardised accuracy": lambda: judge(classes, group, weights=shares),
    }
    shown("the same, one method", works)


def large() -> None:
    rng = np.random.default_rng(0)
    n = 5_000_000
    group = rng.choice(3, n, p=np.array(SIZES) / sum(SIZES))
    correct = (rng.random(n) < 0.7).astype(float)
    cluster, real = rng.integers(0, n // 3, n), rng.normal(size=n)
    works = {
        "0/1 rows": lambda: judge([correct], group),
        "0/1 rows in clusters": lambda: judge([correct], group, group * n + cluster),
        "real scores": lambda: judge([real], group),
        "two methods": lambda: compare([correct], [1 - correct], group),
    }
    shown("5 million rows", works)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bootstraps", type=int, default=50, help="bootstraps that fairlearn is timed on")
    parser.add_argument("--groups", action="store_true", help="also 200 groups")
    parser.add_argument("--large", action="store_true", help="also 5 million rows")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(3), SIZES)
    truth = rng.integers(0, 2, group.size)
    answer = np.where(rng.random(group.size) < 0.535, truth, 1 - truth)
    correct = (truth == answer).astype(float)
    permutations = timed(lambda: counted(correct, group, permuted))
    bootstraps = timed(lambda: counted(correct, group, bootstrapped))
    rows = timed(lambda: by_rows(correct, group, 1_000)) / 1_000
    start = time.perf_counter()
    MetricFrame(metrics=accuracy_score, y_true=truth, y_pred=answer, sensitive_features=group,
                n_boot=options.bootstraps, ci_quantiles=[0.025, 0.975], random_state=0)  # fmt: skip
    theirs = (time.perf_counter() - start) / options.bootstraps
    print("2,000 patients in groups of 1816/76/108, one metric (accuracy); seconds for 10,000")
    print(f"  fairbench permutations of the counts   {permutations:9.4f}")
    print(f"  fairbench bootstraps of the counts     {bootstraps:9.4f}")
    print(f"  numpy bootstraps of the rows           {rows * REPEATS:9.4f}   (1,000 timed, scaled)")
    print(
        f"  fairlearn MetricFrame(n_boot)          {theirs * REPEATS:9.1f}   ({options.bootstraps} timed, scaled)"
    )
    print(f"  per bootstrap: fairlearn / fairbench   {theirs * REPEATS / bootstraps:9,.0f} times")
    print(f"  whole judge() with interval and power  {timed(lambda: judge([correct], group)):9.4f}")
    print(
        f"  whole compare() of two methods         {timed(lambda: compare([correct], [1 - correct], group)):9.4f}"
    )
    if options.groups:
        many_groups()
    if options.large:
        large()


if __name__ == "__main__":
    main()
