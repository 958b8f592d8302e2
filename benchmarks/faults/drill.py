"""Faults of many kinds done to sweeps of the toys: nothing lost, nothing doubled, nothing silently wrong.

    python benchmarks/faults/drill.py --folder drill --table docs/reliability-table.md

Every fault is done to a sweep or to what it left; then it is looked at whether what is intact is still shown,
whether what is not is named, and whether the same jobs, after what is refused was moved away, end with the
predictions of a sweep that nobody disturbed. Results are kept in FOLDER/results.jsonl, from where the same command
goes on. Most faults are done to workers forked from this process, which costs a tenth of a command. Needs Linux.
"""

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["FAIRBENCH_PLUGINS"] = "method-fr,method-vanilla,metric-rates,metric-auroc,metric-balanced-accuracy"

import pandas as pd

from fairbench import FairbenchError, Store, plugins
from fairbench.benchmark import plan
from fairbench.benchmark.benchmark import Benchmark
from fairbench.benchmark.pull import Setup, work
from fairbench.jobs.job import Choice, Record
from fairbench.jobs.worker_options import WorkerOptions
from fairbench.leaderboard.build import build

NOBODY = 65534
TOYS = Path(__file__).parents[2] / "tests" / "toys.py"
CHOICES = (
    *("--datasets", "toy", "--backbones", "toy-backbone", "--attr", "site", "--plugin", str(TOYS)),
    *("--methods", "fr", "--seeds", "0,1", "--no-controls", "--checkpoint-every", "0"),
)
COMMAND = (sys.executable, "-c", "from fairbench.cli.main import main; main()", "run")
BENCHMARK = Benchmark(
    datasets=("toy",),
    backbones=("toy-backbone",),
    methods=(Choice("fr"),),
    attributes=("site",),
    seeds=(0, 1),
    controls=False,
)


class Drill:
    """Sweeps of four jobs in folders of their own, and what they must leave."""

    def __init__(self, folder):
        self.folder = folder.absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.jobs = plan.jobs(BENCHMARK, plugins.load(files=[TOYS]), {}).jobs
        self.whole = self.folder / "undisturbed"
        if len(Store(self.whole).contents().records if self.whole.is_dir() else ()) < len(self.jobs):
            self.work(self.whole)
        self.expected = {job.key: self.predictions(self.whole, job) for job in self.jobs}
        self.cut = self.folder / "cut"
        if not self.cut.is_dir():
            self.interrupt(self.cut, 30)

    def predictions(self, folder, job):
        """Read a job's predictions, which must be those of its record."""
        store = Store(folder)
        return store.predictions(store.record(job), split=None).table

    def work(self, folder, watch=lambda event: None):
        """Run all jobs in this process."""
        work(0, self.jobs, Setup(str(folder), {}, (str(TOYS),), WorkerOptions(checkpoint_every=0.0)), watch)

    def interrupt(self, folder, step):
        """Leave a folder whose work ended, without a word, after some training steps of all jobs together."""
        taken = []

        def watch(event):
            if event.phase == "train" and event.done:
                taken.append(event)
                if len(taken) == step:
                    os._exit(1)

        self.forked(lambda: self.work(folder, watch)).wait()

    def forked(self, action):
        """Do something in a child that shares what is imported; its exceptions end it without a word."""
        child = os.fork()
        if child == 0:
            with open(os.devnull, "w") as nothing:
                os.dup2(nothing.fileno(), 1)
                os.dup2(nothing.fileno(), 2)
            try:
                action()
            except BaseException:
                os._exit(1)
            os._exit(0)
        return Child(child)

    def fresh(self, of=None):
        """Return the folder for the next fault, empty or a copy."""
        folder = self.folder / "now"
        shutil.rmtree(folder, ignore_errors=True)
        if of is not None:
            shutil.copytree(of, folder)
        return folder

    def intact(self, folder, but=()):
        """See that what is not concerned is shown as ever."""
        contents = Store(folder).contents()
        for job in self.jobs:
            if job.key not in but:
                pd.testing.assert_frame_equal(self.predictions(folder, job), self.expected[job.key])
        return contents

    def mend(self, folder):
        """Move away what is refused, as the hint says, run again what failed, and see that all is well."""
        store = Store(folder)
        for refused in store.refused(self.jobs):
            refused.path.parent.rename(self.folder / f"moved-{time.time_ns()}")
        for job in self.jobs:
            store.forget_failure(job)
        self.work(folder)
        for job in self.jobs:
            pd.testing.assert_frame_equal(self.predictions(folder, job), self.expected[job.key])
        assert not [record for record in store.contents().records if record.failed]
        assert len(store.contents().records) == len(self.jobs), "something doubled"
        for moved in self.folder.glob("moved-*"):
            shutil.rmtree(moved)


class Child:
    """A forked process."""

    def __init__(self, number):
        self.number, self.status = number, None

    def poll(self):
        """Return how it ended, or None."""
        if self.status is None:
            ended, status = os.waitpid(self.number, os.WNOHANG)
            self.status = status if ended else None
        return self.status

    def wait(self):
        """Wait for its end and return how it was."""
        while self.poll() is None:
            time.sleep(0.005)
        return self.status

    def kill(self, number):
        """Send it a signal."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.number, number)


# ── files ────────────────────────────────────────────────────────────────────────────────────────


def flipped(content, dice):
    place = dice.randrange(len(content)) if content else 0
    return content[:place] + bytes([content[place] ^ 1 << dice.randrange(8)]) + content[place + 1 :]


DAMAGE = {
    "truncated": lambda content, dice: content[: dice.randrange(len(content))],
    "zeroed": lambda content, dice: bytes(len(content)),
    "emptied": lambda content, dice: b"",
    "one bit flipped": flipped,
    "tail of zeros": lambda content, dice: content[:-64] + bytes(64),
}
FILES = {
    "record": "record.json",
    "job description": "job.json",
    "predictions": "predictions.parquet",
    "adapter": "adapter/adapter_model.safetensors",
    "head": "adapter/head.safetensors",
    "log": "log.jsonl",
}


def hurt(drill, dice, file, change):
    """Damage one file of one finished job; say how it was met."""
    folder = drill.fresh(drill.whole)
    job = dice.choice(drill.jobs)
    path = Store(folder).folder(job) / FILES[file]
    before = path.read_bytes()
    change(path, before)
    contents = drill.intact(folder, but=(job.key,))
    if dice.random() < 0.1:  # which takes longer than all the rest
        build(Store(folder))
    store, how = Store(folder), "harmless"
    record = store.ended(job)
    if not isinstance(record, Record):
        how = "named, the rest shown"
        assert record is not None or not path.exists()
    else:
        try:
            pd.testing.assert_frame_equal(drill.predictions(folder, job), drill.expected[job.key])
            store.adapter(record)
        except FairbenchError as error:
            how = "named, the rest shown" if job.key in error.message else "WRONG: not named"
        else:
            assert file in ("log", "job description") or path.read_bytes() == before, "silently wrong"
    assert len(contents.records) + len(contents.refused) + len(contents.begun) == len(drill.jobs)
    if file in ("adapter", "head") and how != "harmless":
        path.write_bytes(before)  # predictions stand; it is put back, as the hint says
    drill.mend(folder)
    return how


def damaged(file, kind):
    def fault(drill, dice):
        return hurt(drill, dice, file, lambda path, content: path.write_bytes(DAMAGE[kind](content, dice)))

    return fault


def swapped(file):
    def fault(drill, dice):
        def swap(path, content):
            others = [p for p in (drill.folder / "now").glob(f"*/{FILES[file]}") if p != path]
            path.write_bytes(dice.choice(others).read_bytes())

        return hurt(drill, dice, file, swap)

    return fault


def rewritten(change):
    def fault(drill, dice):
        def write(path, content):
            path.write_text(json.dumps(change(json.loads(content))))

        return hurt(drill, dice, "record", write)

    return fault


REWRITTEN = {
    "record with a field of a newer version": lambda data: {**data, "colour": "red"},
    "record of another schema": lambda data: {**data, "schema": 99},
    "record with text for a number": lambda data: {**data, "steps": "many"},
    "record with edited settings": lambda data: {**data, "job": {**data["job"], "seed": 77}},
    "record without hashes": lambda data: {**data, "files": {}},
    "record that is a list": lambda data: [data],
}


def features(kind):
    def fault(drill, dice):
        folder = drill.fresh(drill.whole)
        chunk = dice.choice(sorted(folder.glob(".features/*/*.safetensors")))
        chunk.write_bytes(DAMAGE[kind](chunk.read_bytes(), dice))
        job = dice.choice(drill.jobs)
        shutil.rmtree(Store(folder).folder(job))
        drill.mend(folder)
        return "made anew"

    return fault


def checkpoints(kind, every):
    def fault(drill, dice):
        folder = drill.fresh(drill.cut)
        paths = sorted(folder.glob("*/checkpoints/*.pt"))
        assert len(paths) == 2
        for path in paths if every else paths[-1:]:
            path.write_bytes(DAMAGE[kind](path.read_bytes(), dice))
        drill.mend(folder)
        return "began anew" if every else "fell back to the one before"

    return fault


def future(drill, dice):
    """What a clock that was set back leaves: files from days to come."""
    folder = drill.fresh(drill.cut)
    later = time.time() + 86400 * dice.randrange(1, 4000)
    for path in folder.rglob("*"):
        os.utime(path, (later, later))
    drill.mend(folder)
    return "went on"


def clock_set_back(drill, dice):
    """A worker whose clock jumps back, once, by up to ten years."""
    folder = drill.fresh()
    real, left, back = time.time, [dice.randrange(1, 60)], dice.randrange(60, 10 * 365 * 86400)

    def action():
        def earlier():
            left[0] -= 1
            return real() - (back if left[0] <= 0 else 0)

        time.time = earlier
        drill.work(folder)

    assert drill.forked(action).wait() == 0
    drill.mend(folder)
    return "unmoved"


# ── processes ────────────────────────────────────────────────────────────────────────────────────


def signalled(number):
    """End a worker at some moment of its work, training and write window alike, until it got through."""

    def fault(drill, dice):
        folder = drill.fresh(drill.cut if dice.random() < 0.5 else None)
        child = drill.forked(lambda: drill.work(folder))
        time.sleep(dice.uniform(0.05, 2.5))
        child.kill(number)
        ended = child.wait()
        store = Store(folder)
        if folder.is_dir():
            assert not [record for record in store.contents().records if record.failed], (
                "a signal was taken for a failure"
            )
            assert not store.contents().refused
        drill.mend(folder)
        return "went on" if ended else "ended before"

    return fault


def in_the_write_window(name):
    """End a worker just before or after a file gets its name."""

    def fault(drill, dice):
        folder, after = drill.fresh(), dice.random() < 0.5
        left = [dice.randrange(1, 3)]
        real = os.replace

        def replace(source, target, **more):
            hit = Path(target).name.endswith(name)
            left[0] -= hit
            if hit and not left[0] and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            real(source, target, **more)
            if hit and not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

        def action():
            os.replace = replace
            drill.work(folder)

        status = drill.forked(action).wait()
        assert status in (0, signal.SIGKILL)
        assert not Store(folder).contents().refused
        drill.mend(folder)
        return "went on" if status else "ended before"

    return fault


def two_at_once(drill, dice):
    """Two workers on one folder, one of which is killed."""
    folder = drill.fresh()
    first, second = (drill.forked(lambda: drill.work(folder)) for _ in range(2))
    time.sleep(dice.uniform(0.2, 2.0))
    first.kill(signal.SIGKILL)
    assert second.wait() == 0, "the other did not get through"
    first.wait()
    drill.mend(folder)
    return "the other took over"


def refused_by_the_system(call, number):
    """The system refuses a call from some moment on, as a disk does that is full or read-only."""

    def fault(drill, dice):
        folder = drill.fresh()
        left = [dice.randrange(1, 40)]
        real = getattr(os, call)

        def refuse(*arguments, **more):
            left[0] -= 1
            if left[0] <= 0:
                raise OSError(number, os.strerror(number))
            return real(*arguments, **more)

        def action():
            setattr(os, call, refuse)
            drill.work(folder)

        drill.forked(action).wait()
        if folder.is_dir():
            assert not Store(folder).contents().refused
        drill.mend(folder)
        return "went on"

    return fault


def limited(kind, amount):
    """A worker under a limit of the system."""

    def fault(drill, dice):
        import resource

        folder = drill.fresh()

        def action():
            resource.setrlimit(kind, (amount(), amount()))
            drill.work(folder)

        drill.forked(action).wait()
        if folder.is_dir():
            assert not Store(folder).contents().refused
        drill.mend(folder)
        return "went on"

    return fault


def poisoned(how):
    """A job that misbehaves beside the others; they are not concerned."""

    def fault(drill, dice):
        folder = drill.fresh()
        os.environ["FAIRBENCH_TEST_WICKED"] = how
        try:
            wicked = plan.jobs(
                Benchmark(**{**vars(BENCHMARK), "methods": (Choice("wicked"),), "seeds": (0,), "baseline": False}),
                plugins.load(files=[TOYS]),
                {},
            ).jobs
            child = drill.forked(
                lambda: work(0, [*wicked, *drill.jobs], Setup(str(folder), {}, (str(TOYS),)), lambda event: None)
            )
            child.wait()
        finally:
            del os.environ["FAIRBENCH_TEST_WICKED"]
        store = Store(folder)
        drill.work(folder)
        drill.intact(folder)
        ended = store.ended(wicked[0])
        assert ended is None or (isinstance(ended, Record) and ended.failed)
        return "a failed record, the rest done" if ended else "its process died, the rest done"

    return fault


# ── commands ─────────────────────────────────────────────────────────────────────────────────────


def start(folder, *more, before="", **options):
    words = [*COMMAND, *CHOICES, "--out", str(folder), *more]
    if before:
        words = ["bash", "-c", f'{before}; exec "$@"', "bash", *words]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)


def command_signalled(number):
    def fault(drill, dice):
        folder = drill.fresh()
        process = start(folder, "--workers", "2")
        end = time.monotonic() + 120
        while not list(folder.glob("*/job.json")) and process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        time.sleep(dice.uniform(0, 2))
        process.send_signal(number)
        status = process.wait()
        while any(Store(folder).held(job) for job in drill.jobs):  # orphans notice that nobody listens
            time.sleep(0.2)
        drill.mend(folder)
        return "went on" if status else "ended before"

    return fault


def command(*more, before="", status=(0,)):
    def fault(drill, dice):
        folder = drill.fresh()
        assert start(folder, *more, before=before).wait() in status
        drill.mend(folder)
        return "went on" if 0 not in status else "unmoved"

    return fault


def unprivileged(writable):
    """The command without root's power over permissions, with somebody else's home; in a writable folder or not."""

    def fault(drill, dice):
        if os.getuid() or not shutil.which("setpriv"):
            return "not tried: needs root and setpriv"
        folder, home = drill.fresh(), drill.folder / "home"
        for path in (folder, home):
            path.mkdir(mode=0o755, exist_ok=True)
        os.chown(home, NOBODY, NOBODY)
        os.chown(folder, 0 if writable else NOBODY, 0)
        words = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner", "--", *COMMAND, *CHOICES]
        environment = {**os.environ, "HOME": str(home)}
        ended = subprocess.run([*words, "--out", str(folder)], env=environment, capture_output=True, text=True)
        assert (ended.returncode == 0) == writable, ended.stderr
        assert writable or "Traceback" not in ended.stderr, ended.stderr
        os.chown(folder, 0, 0)
        drill.mend(folder)
        return "unmoved" if writable else "refused in words"

    return fault


def disk_full(drill, dice):
    folder = drill.fresh()
    folder.mkdir()
    size = dice.randrange(40, 400, 4)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        return "not tried: may not mount here"
    try:
        drill.forked(lambda: drill.work(folder)).wait()
        assert not Store(folder).contents().refused
        assert not [record for record in Store(folder).contents().records if record.failed]
        subprocess.run(["mount", "-o", "remount,size=50m", str(folder)], check=True)
        drill.mend(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
    return "went on"


def read_only(drill, dice):
    folder = drill.fresh(drill.whole)
    mount = ["mount", "-t", "tmpfs", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        return "not tried: may not mount here"
    try:
        shutil.copytree(drill.whole, folder, dirs_exist_ok=True)
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        drill.intact(folder)
        assert start(folder).wait() == 0, "a finished sweep shows its board"
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
    return "shown"


def kinds():
    """Name every kind of fault: (how often, the fault); the costly ones are done less often."""
    import errno
    import resource

    faults = {}
    for file in FILES:
        for kind in DAMAGE:
            faults[f"{file} {kind}"] = (5, damaged(file, kind))
        faults[f"{file} of another job"] = (5, swapped(file))
    faults |= {name: (4, rewritten(change)) for name, change in REWRITTEN.items()}
    for kind in DAMAGE:
        faults[f"features {kind}"] = (4, features(kind))
        faults[f"newest checkpoint {kind}"] = (4, checkpoints(kind, every=False))
        faults[f"all checkpoints {kind}"] = (2, checkpoints(kind, every=True))
    faults["files from the future (clock set back)"] = (3, future)
    faults["clock set back while a worker works"] = (3, clock_set_back)
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV):
        faults[f"worker: {number.name} at any moment"] = (12, signalled(number))
    for name in ("record.json", "job.json", "predictions.parquet", ".pt", ".safetensors"):
        faults[f"worker: SIGKILL as {name} gets its name"] = (5, in_the_write_window(name))
    faults["two workers, one killed"] = (5, two_at_once)
    for call, number in (
        ("fsync", errno.ENOSPC),
        ("replace", errno.EIO),
        ("fsync", errno.EROFS),
        ("open", errno.EMFILE),
    ):
        name = f"{call} refused: {os.strerror(number)}"
        faults[name] = (4, refused_by_the_system(call, number))
    faults["ulimit -n 24"] = (2, limited(resource.RLIMIT_NOFILE, lambda: 24))
    faults["ulimit -v, little more than used"] = (3, limited(resource.RLIMIT_AS, _used))
    faults["ulimit -f, 100 kB"] = (2, limited(resource.RLIMIT_FSIZE, lambda: 100_000))
    for how in ("exits in plan", "raises in plan", "GeneratorExit in loss", "no UTF-8", "no message", "is killed"):
        faults[f"job that {how}"] = (3, poisoned(how))
    faults["disk full at some level"] = (10, disk_full)
    faults["read-only folder, all done"] = (1, read_only)
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        faults[f"command: {number.name}"] = (2, command_signalled(number))
    faults["command: unprivileged, home not writable"] = (1, unprivileged(writable=True))
    faults["command: unprivileged, home and folder not writable"] = (1, unprivileged(writable=False))
    faults["command: stdout and stderr closed"] = (1, command(before="exec >&- 2>&-"))
    faults["command: ulimit -n 64"] = (1, command("--workers", "2", before="ulimit -n 64", status=(0, 1, 2)))
    return faults


def _used():
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * os.sysconf("SC_PAGE_SIZE") + (64 << 20)


def drill(folder, seed=0, only="", share=1.0, say=print):
    """Do every kind of fault some times; return (kind, number, how it was met) of all that were done so far."""
    done = folder / "results.jsonl"
    results = [json.loads(line) for line in done.read_text().splitlines()] if done.exists() else []
    known = {(kind, number) for kind, number, _ in results}
    ground = Drill(folder)
    for kind, (times, fault) in kinds().items():
        for number in range(max(1, round(times * share))):
            if only not in kind or (kind, number) in known:
                continue
            dice = random.Random(f"{seed} {kind} {number}")
            try:
                with contextlib.redirect_stderr(io.StringIO()):
                    how = fault(ground, dice)
            except Exception as error:
                how = f"WRONG: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
            results.append([kind, number, how])
            with done.open("a") as file:
                file.write(json.dumps(results[-1]) + "\n")
            say(f"{len(results)}: {kind}: {how}")
    return results


def table(results):
    """Write what was done and how it was met as a markdown table."""
    lines = ["| fault | times | how it was met |", "| --- | ---: | --- |"]
    for kind in dict.fromkeys(kind for kind, _, _ in results):
        met = Counter(how for own, _, how in results if own == kind)
        lines.append(f"| {kind} | {sum(met.values())} | {'; '.join(f'{how} ({n})' for how, n in met.items())} |")
    wrong = sum(how.startswith("WRONG") for _, _, how in results)
    kinds_done = len({kind for kind, _, _ in results})
    lines.append(f"\n{len(results)} faults of {kinds_done} kinds; {wrong} met wrongly.")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("drill"))
    parser.add_argument("--table", type=Path, help="write the table there, too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="kinds whose name holds this")
    parser.add_argument("--share", type=float, default=1.0, help="of the usual times that a kind is done")
    options = parser.parse_args()
    began = time.monotonic()
    results = drill(options.folder, options.seed, options.only, options.share, lambda line: print(line, flush=True))
    text = table(results)
    print(text + f"{time.monotonic() - began:.0f} s")
    if options.table:
        options.table.write_text(text)
    return int(any(how.startswith("WRONG") for _, _, how in results))


if __name__ == "__main__":
    sys.exit(main())
