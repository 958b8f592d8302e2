"""Several devices for each job: Hugging Face accelerate starts one process for each, and they train in step."""

import subprocess
import sys
from collections.abc import Callable
from typing import Annotated

from fairbench import Event, FairbenchError, Launcher, Range, Work, hookimpl


class Accelerate(Launcher):
    """Give every job several devices (data parallel; batches, and so results, stay what they are on one).

    `processes` counts them on this machine; `config` is a file that `accelerate config` wrote, for more than that
    (machines, ports, mixed hosts).
    """

    name = "accelerate"
    several = True
    processes: Annotated[int, Range(0)] = 0
    config: str = ""

    def launch(self, work: Work, watch: Callable[[Event], None]) -> None:
        """Start `accelerate launch` on what is left, again as long as that makes jobs end."""
        if not self.processes and not self.config:
            raise FairbenchError("accelerate needs to know on what", "say --launch processes=2 or config=FILE")
        if self.processes == 1 and work.setup.options.shard:
            raise FairbenchError("--shard divides a backbone over several processes", "say --launch processes=2")
        command = [sys.executable, *self.starter(), *work.command()[1:]]
        left = len(work.left())
        while left:
            process = subprocess.Popen(command)
            try:
                work.follow(watch, lambda process=process: process.poll() is not None)
                process.wait()
            finally:
                process.terminate()
                process.wait()
            before, left = left, len(work.left())
            if left == before:
                raise FairbenchError(
                    f"accelerate ended with status {process.returncode}, and no job with it",
                    "what it printed says why; finished jobs are safe",
                )

    def starter(self) -> list[str]:
        """Return what starts the processes, after `python`.

        CPUs' accelerate leaves to MPI, and without it starts one process, whatever it is told; so torchrun, with
        which it starts GPUs', starts CPUs' too.
        """
        chosen = ["--config_file", self.config] if self.config else []
        if self.processes and not self.config and not _gpus():
            return ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={self.processes}"]
        if self.processes:
            chosen += ["--num_processes", str(self.processes), *(["--multi_gpu"] if _gpus() else ["--cpu"])]
        return ["-m", "accelerate.commands.launch", *chosen]


def _gpus() -> bool:
    import torch

    return torch.cuda.is_available()


@hookimpl
def fairbench_launchers() -> list[type[Launcher]]:
    """Offer the launcher."""
    return [Accelerate]
