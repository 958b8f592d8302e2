"""What a plan says of a sweep's CPU time and memory, beside what the sweep then takes.

    python benchmarks/speed/plan.py [BENCHMARK] [any other words of `fairbench run`]

Cost:     that of the benchmark (default: quickstart), once
Expect:   on an idle core parts / planned between a half and two; docs/performance.md

The plan tries out a step, an answer and an image before the first job. The sweep is run with one worker, and each
job's training, answers and images are counted, in wall time as the records have it; what starting Python and
writing the board add is printed beside it.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from practitioner import environment

COUNTED = ("train", "predict", "features")


def fairbench(*words: str) -> str:
    """Return what a command prints."""
    done = subprocess.run(
        [sys.executable, "-m", "fairbench", *words], capture_output=True, text=True, env=os.environ, check=False
    )
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return done.stdout


def main() -> None:
    """Plan, run, and print both."""
    if {"-h", "--help"} & {*sys.argv[1:]}:
        raise SystemExit(__doc__)
    words = sys.argv[1:] or ["quickstart"]
    os.environ["OMP_NUM_THREADS"] = "1"
    print(environment())
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FAIRBENCH_CACHE"] = folder
        words += ["--out", str(Path(folder, "runs"))]
        said = json.loads(fairbench("plan", *words, "--json"))
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        fairbench("run", *words, "--workers", "1")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        records = [json.loads(path.read_text()) for path in Path(folder, "runs").glob("*/record.json")]
    planned = sum(cost["seconds"] or 0 for cost in said)
    taken = sum(record["seconds"].get(part, 0) for record in records for part in COUNTED)
    whole = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{len(said)} jobs, planned {planned:.1f} s of a core; their parts took {taken:.1f} s")
    print(f"parts / planned {taken / planned:.2f}; the whole command {whole:.1f} s of CPU")
    memory, peak = max(cost["memory"] for cost in said), max(record["peak_memory"] for record in records)
    print(f"memory of a worker: planned {memory / 2**20:.0f} MiB, at most {peak / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
