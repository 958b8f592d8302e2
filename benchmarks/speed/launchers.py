"""The same small sweep by every launcher, and by one and two workers: what starting costs, and that boards agree.

Command:  python benchmarks/speed/launchers.py [--seeds 4] [--epochs 2] [--only local,ray]
Cost:     some minutes on two idle cores; Ray and Slurm's local executor need their extras
Expect:   boards equal but for times; two workers take less wall than one where two cores are free. A launcher's
          start (Ray's cluster, submitit's and accelerate's processes) is seconds, once a sweep.

The peer is one worker on this machine; the ratio is its wall time to the other's.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WAYS = {
    "local, 1 worker": ["--workers", "1"],
    "local, 2 workers": ["--workers", "2"],
    "accelerate, 2 processes a job": ["--launcher", "accelerate", "--launch", "processes=2"],
    "ray": ["--launcher", "ray"],
    "slurm's local executor, 2 elements": [
        *("--launcher", "slurm", "--launch", "cluster=local", "--launch", "size=2"),
    ],
}
COST = ("train_seconds", "peak_memory")


def sweep(out: Path, words: list[str], seeds: int, epochs: float) -> tuple[float, str]:
    """Run the sweep; return its seconds and its board but for what it cost."""
    command = [sys.executable, "-m", "fairbench", "run", "quickstart", "--methods", "fr", "--no-controls", *words]
    command += ["--set", f"lora.epochs={epochs}", "--set", "fundus-sim.limit=400", "--out", str(out)]
    command += ["--seeds", ",".join(map(str, range(seeds)))]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    seconds = time.perf_counter() - start
    board = json.loads((out / "quickstart.json").read_text())
    for row in (row for table in board["tables"] for row in table["rows"]):
        for name in COST:
            row.pop(name, None)
    return seconds, json.dumps(board)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--only", help="of these alone, by their first word: local,ray")
    options = parser.parse_args()
    chosen = {way: words for way, words in WAYS.items() if not options.only or way.split()[0].strip(",'s")
              in options.only.split(",")}  # fmt: skip
    print(f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}, "
          f"Python {platform.python_version()}; {2 * options.seeds} jobs")  # fmt: skip
    first: tuple[float, str] | None = None
    with tempfile.TemporaryDirectory() as folder:
        for number, (way, words) in enumerate(chosen.items()):
            seconds, board = sweep(Path(folder) / str(number), words, options.seeds, options.epochs)
            first = first or (seconds, board)
            same = "the same board" if board == first[1] else "ANOTHER BOARD"
            print(f"  {way:36s} {seconds:7.1f} s   {first[0] / seconds:5.2f} times   {same}", flush=True)


if __name__ == "__main__":
    main()
