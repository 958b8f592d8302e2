"""Jobs under Slurm, by submitit."""

import math
import os
import subprocess
import time
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal

from fairbench import Count, Event, FairbenchError, Launcher, NonNegative, Positive, Range, Work, hookimpl

# When it is imported, submitit sets up logging, which closes every handler of this process, and some streams too.
os.environ.setdefault("SUBMITIT_LOG_LEVEL", "NOCONFIG")


class Slurm(Launcher):
    """Submit an array of `size` elements, each of which does jobs until none is left.

    An element asks for `cpus`, `gpus`, `memory` (GiB) and `hours` of a `partition`. One that is preempted or out of
    time leaves a checkpoint of its job and is queued again, up to `requeues` times for time. `other` are further
    parameters of sbatch, such as account=lab. The folder of results must be one that all nodes share, with locks.
    `cluster=local` runs the same array as processes of this machine.
    """

    name = "slurm"
    cluster: Literal["slurm", "local"] = "slurm"
    size: Count = 8
    partition: str = ""
    hours: Positive = 24.0
    cpus: Count = 4
    gpus: Annotated[int, Range(0)] = 1
    memory: NonNegative = 0.0
    requeues: Count = 20
    other: tuple[str, ...] = ()

    @classmethod
    def check(cls) -> None:
        """Submitit is an extra."""
        try:
            import submitit  # noqa: F401
        except ImportError as error:
            raise FairbenchError("submitit is not installed", "pip install fairbench[slurm]") from error

    def launch(self, work: Work, watch: Callable[[Event], None]) -> None:
        """Submit the array and tell of jobs as they end; the command may be ended and said again meanwhile."""
        elements = self.submit(work)
        try:
            work.follow(watch, lambda: all(element.done() for element in elements))
            while not all(element.done() for element in elements):  # they see that nothing is left
                time.sleep(0.5)
        except BaseException:
            for element in elements:
                element.cancel()
            raise
        failed = [element for element in elements if element.exception() is not None]
        if failed and work.left():
            said = str(failed[0].exception()).strip().splitlines()[-1]
            raise FairbenchError(f"an element failed: {said}", f"its log: {failed[0].paths.stderr}")

    def submit(self, work: Work) -> list[Any]:
        """Submit the array, no larger than there are jobs."""
        import submitit

        size = min(self.size, len(work.left()))
        executor = submitit.AutoExecutor(
            str(work.store.work_folder / "%j"), cluster=self.cluster, slurm_max_num_timeout=self.requeues
        )
        executor.update_parameters(
            name="fairbench", timeout_min=math.ceil(60 * self.hours), cpus_per_task=self.cpus
        )
        if self.cluster == "slurm":
            named = dict(self._pair(one) for one in self.other)
            executor.update_parameters(
                gpus_per_node=self.gpus,
                slurm_array_parallelism=size,
                slurm_signal_delay_s=120,
                **({"slurm_partition": self.partition} if self.partition else {}),
                **({"mem_gb": self.memory} if self.memory else {}),
                **({"slurm_additional_parameters": named} if named else {}),
            )
        elements: Iterable[Any] = executor.map_array(Element(), [work.command()] * size)
        return list(elements)

    def _pair(self, text: str) -> tuple[str, str]:
        key, equals, value = text.partition("=")
        if not equals:
            raise FairbenchError(f"slurm.other = {text!r} is no parameter of sbatch", "write account=lab")
        return key, value


class Element:
    """One element of the array: a process that does jobs, told to leave a checkpoint when its time is up."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    def __call__(self, command: list[str]) -> None:
        """Do jobs until none is left."""
        self.process = subprocess.Popen(command)
        if status := self.process.wait():
            raise RuntimeError(f"the process that does jobs ended with status {status}")

    def checkpoint(self, command: list[str]) -> Any:
        """End the process in order, and say what to run when the element is queued again."""
        from submitit.helpers import DelayedSubmission

        if self.process is not None:
            self.process.terminate()
            self.process.wait()
        return DelayedSubmission(Element(), command)


@hookimpl
def fairbench_launchers() -> list[type[Launcher]]:
    """Offer the launcher."""
    return [Slurm]
