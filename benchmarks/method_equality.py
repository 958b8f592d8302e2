"""Print how far every method that trains is from an independent implementation of its equation, after twelve steps.

Command:  python benchmarks/method_equality.py
Cost:     one minute of one core
Expect:   weights 1e-5 apart or less, losses 2e-4 or less: float32, summed in another order
"""

import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1] / "tests"


def main() -> None:
    sys.path.insert(0, str(TESTS))
    from twelve_steps import MEASURED

    files = [str(TESTS / "plugins" / name) for name in ("test_twelve_steps.py", "test_invariance.py")]
    failed = pytest.main(["-q", "--no-header", "-p", "no:cacheprovider", *files])
    print("\n| method and settings | steps | losses apart | weights apart |\n| --- | --- | --- | --- |")
    for label, steps, losses, weights in sorted(MEASURED):
        print(f"| {label} | {steps} | {losses:.1e} | {weights:.1e} |")
    sys.exit(failed)


if __name__ == "__main__":
    main()
