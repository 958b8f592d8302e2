"""A plugin file for `--plugin`: the toys, methods that misbehave, and a listener that keeps count."""

import os
import signal
import sys
import threading
import time

from fairbench import Method, hookimpl
from fairbench.testing import ToyBackbone, ToyDataset


class Brittle(Method):
    """It raises while FAIRBENCH_TEST_BRITTLE is set."""

    name = "brittle"

    def loss(self, out, batch):
        if "FAIRBENCH_TEST_BRITTLE" in os.environ:
            raise RuntimeError("it broke [as asked]")
        return out.loss.mean()


class Diverging(Method):
    """Its loss is not a number from the third step on."""

    name = "diverging"

    def step(self, run, batch):
        out = run.forward(batch)
        run.descend(out.loss.mean() if run.step < 2 else out.loss.mean() * float("nan"))


class Noting(Method):
    """It notes something that is not a number, which JSON could not carry."""

    name = "noting"

    def loss(self, out, batch):
        batch.notes["odd"] = float("nan")
        return out.loss.mean()


class Silent(Exception):
    def __str__(self):
        raise RuntimeError


class Wicked(Method):
    """It does what FAIRBENCH_TEST_WICKED says, to itself or to the process it runs in."""

    name = "wicked"

    def plan(self, stages):
        how = os.environ.get("FAIRBENCH_TEST_WICKED")
        if how == "exits in plan":
            sys.exit(0)
        if how == "raises in plan":
            raise ValueError("no plan")
        return stages

    def loss(self, out, batch):
        how = os.environ.get("FAIRBENCH_TEST_WICKED")
        if how == "GeneratorExit in loss":
            raise GeneratorExit("enough")
        if how == "no UTF-8":
            raise RuntimeError("caf\udce9")
        if how == "no message":
            raise Silent
        if how == "hangs":
            with open(os.environ["FAIRBENCH_TEST_HUNG"], "w"):
                pass
            while True:
                time.sleep(1)
        if how == "is killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "leaves by os._exit":
            os._exit(0)
        if how and "forks" in how:
            os.chdir("/")
            threading.Thread(target=time.sleep, args=(3600,)).start()
            os.fork()  # and both go on
        return out.loss.mean()


@hookimpl
def fairbench_datasets():
    return [ToyDataset]


@hookimpl
def fairbench_backbones():
    return [ToyBackbone]


@hookimpl
def fairbench_methods():
    return [Brittle, Diverging, Noting, Wicked]


@hookimpl
def fairbench_job_finished(record):
    if "FAIRBENCH_TEST_LOG" in os.environ:
        with open(os.environ["FAIRBENCH_TEST_LOG"], "a") as file:
            file.write(f"{record.job.key} {os.getpid()}\n")
