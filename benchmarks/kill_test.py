"""Kill a sweep at random moments, again and again, and see whether anything but time is lost.

python benchmarks/kill_test.py --kills 20
    24 toy jobs a sweep, as many sweeps as it takes; about ten seconds a kill on two cores
python benchmarks/kill_test.py --kills 5 -- --datasets fundus-sim --set fundus-sim.limit=300
    the same with any choices of `fairbench run`

The victim is the command itself or one of its workers, by SIGKILL; then the same command is given again,
while orphans may still be about. Each finished sweep's predictions are compared with those of a sweep
that nobody disturbed. Needs /proc, so Linux.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from fairbench import Store

TOYS = Path(__file__).parents[1] / "tests" / "toys.py"
SWEEP = (
    *("--datasets", "toy", "--backbones", "toy-backbone", "--attr", "site", "--plugin", str(TOYS)),
    *("--methods", "fr,gr", "--seeds", "0,1,2,3,4,5,6,7", "--set", "lora.epochs=3", "--no-controls"),
)
COMMAND = (sys.executable, "-c", "from fairbench.cli.main import main; main()", "run")


def start(choices, out, workers):
    out.mkdir(parents=True, exist_ok=True)
    log = (out.parent / "output.txt").open("a")
    words = (*COMMAND, *choices, "--out", str(out), "--workers", str(workers))
    return subprocess.Popen(words, stdout=log, stderr=log)


def finish(process, out):
    if process.wait():
        sys.exit(f"an undisturbed command ended with status {process.returncode}: see {out.parent / 'output.txt'}")


def workers_of(process):
    """The processes that run jobs: children that were spawned, not the one that tracks shared resources."""
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return [int(c) for c in children if b"spawn_main" in Path(f"/proc/{c}/cmdline").read_bytes()]
    except OSError:
        return []


def count(out, name):
    return len(list(out.glob(f"*/{name}")))


def disturb(process, out, jobs, moment):
    """Kill the command or a worker, some time after it began to work; say whom, or None if it ended first."""
    begun = count(out, "job.json"), time.monotonic()
    while count(out, "job.json") <= begun[0] and process.poll() is None and count(out, "record.json") < jobs:
        time.sleep(0.01)
    time.sleep(moment.uniform(0, 3))
    if process.poll() is not None:
        return None
    victims = [process.pid, *workers_of(process)]
    victim = moment.choice(victims)
    os.kill(victim, signal.SIGKILL)
    return "command" if victim == process.pid else "worker"


def predictions(out):
    return {path.parent.name: pd.read_parquet(path) for path in sorted(out.glob("*/predictions.parquet"))}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments and victims")
    parser.add_argument("--folder", type=Path, help="where the sweeps go (default: a temporary folder)")
    parser.add_argument("choices", nargs="*", help="choices of `fairbench run`, after --")
    options = parser.parse_args()
    choices = options.choices or SWEEP
    folder = options.folder or Path(tempfile.mkdtemp(prefix="fairbench-kill-"))
    moment = random.Random(options.seed)
    began = time.monotonic()

    finish(start(choices, folder / "undisturbed", 2), folder / "undisturbed")
    expected = predictions(folder / "undisturbed")
    jobs = count(folder / "undisturbed", "record.json")
    print(f"undisturbed: {jobs} jobs in {time.monotonic() - began:.0f} s", flush=True)

    kills = {"command": 0, "worker": 0}
    sweeps = commands = 0
    while sum(kills.values()) < options.kills:
        out = folder / f"sweep-{sweeps}"
        sweeps += 1
        while sum(kills.values()) < options.kills:
            process = start(choices, out, workers=moment.choice((1, 2)))
            commands += 1
            victim = disturb(process, out, jobs, moment)
            while victim == "worker":  # the others go on without it, so the command may be hit again
                kills[victim] += 1
                if sum(kills.values()) >= options.kills:
                    break
                victim = disturb(process, out, jobs, moment)
            if victim == "command":
                kills[victim] += 1
            process.wait()
            done = count(out, "record.json")
            print(f"{sum(kills.values())} kills, sweep {sweeps}: {done}/{jobs} jobs done", flush=True)
            if done == jobs:
                break
        finish(start(choices, out, workers=2), out)
        commands += 1
        found = predictions(out)
        assert set(found) == set(expected), "other jobs"
        for key, frame in expected.items():
            pd.testing.assert_frame_equal(frame, found[key])
        assert not any(record.failed for record in Store(out).records()), "a kill was taken for a failure"
        print(f"sweep {sweeps}: predictions of all {jobs} jobs equal the undisturbed sweep's", flush=True)
    print(
        f"{sum(kills.values())} kills ({kills['command']} of the command, {kills['worker']} of a worker) in "
        f"{sweeps} sweeps and {commands} commands, {time.monotonic() - began:.0f} s: same predictions"
    )


if __name__ == "__main__":
    main()
