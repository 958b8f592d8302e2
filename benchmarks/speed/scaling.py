"""How time falls with workers that share a sweep, and with processes that share each batch of a job.

Command:  python benchmarks/speed/scaling.py [--most 2] [--seeds 4] [--epochs 2]
Cost:     two to five minutes where there are two idle cores
Expect:   docs/scale.md. Workers share nothing but the folder of results, so what falls short of n times is each
          one's start and what cannot be divided; processes that share a batch also wait for each other at every
          step: they are for what does not fit or cannot wait.

The peer is one worker, or one process, in the same run. Efficiency is its wall time over n times the other's; CPU
seconds of all processes say what sharing costs where cores are not free.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
from pathlib import Path

from launchers import sweep
from practitioner import environment

KINDS = {
    "workers": lambda count: ["--workers", str(count)],
    "processes": lambda count: ["--launcher", "accelerate", "--launch", f"processes={count}"],
}


def spent() -> float:
    """Return the CPU seconds of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--most", type=int, default=len(os.sched_getaffinity(0)), help="workers, or processes")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--epochs", type=float, default=2.0)
    options = parser.parse_args()
    print(environment())
    with tempfile.TemporaryDirectory() as folder:
        for kind, words in KINDS.items():
            seeds = options.seeds if kind == "workers" else 1
            print(f"{2 * seeds} jobs")
            one, board = 0.0, ""
            for count in range(1, options.most + 1):
                before = spent()
                wall, made = sweep(Path(folder) / f"{kind}{count}", words(count), seeds, options.epochs)
                one, board = one or wall, board or made
                same = "the same board" if made == board else "ANOTHER BOARD"
                cost = f"{wall:6.1f} s   {spent() - before:6.1f} s of CPU   {one / wall:5.2f} times"
                print(f"  {count} {kind:10s} {cost}   efficiency {one / wall / count:4.0%}   {same}", flush=True)


if __name__ == "__main__":
    main()
