"""Measure fairbench's resampling beside fairlearn's, in one run on one machine.

Command:  python benchmarks/speed/evidence.py [--bootstraps 50] [--large]
Cost:     about ten seconds; --large adds 5 million rows and about a minute
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

from fairbench.statistics.paired import compare
from fairbench.statistics.permutation import judge
from fairbench.statistics.resampling import bootstrapped, permuted, tabulate

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


def large() -> None:
    rng = np.random.default_rng(0)
    n = 5_000_000
    group = rng.choice(3, n, p=np.array(SIZES) / sum(SIZES))
    correct = (rng.random(n) < 0.7).astype(float)
    cluster, real = rng.integers(0, n // 3, n), rng.normal(size=n)
    print("\n5 million rows, 10,000 permutations: seconds, peak memory of the process so far")
    for name, work in (
        ("0/1 rows", lambda: judge([correct], group)),
        ("0/1 rows in clusters", lambda: judge([correct], group, group * n + cluster)),
        ("real scores", lambda: judge([real], group)),
        ("two methods", lambda: compare([correct], [1 - correct], group)),
    ):
        start = time.perf_counter()
        work()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
        print(f"  {name:22s} {time.perf_counter() - start:7.1f} s  {peak:5.1f} GiB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bootstraps", type=int, default=50, help="bootstraps that fairlearn is timed on")
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
    if options.large:
        large()


if __name__ == "__main__":
    main()
