"""Jobs as tasks of a Ray cluster."""

import re
import sys
from collections.abc import Callable
from typing import Annotated, Any

from fairbench import Event, FairbenchError, Job, Launcher, NonNegative, Range, Work, hookimpl

WAIT = 0.5  # seconds that the driver waits for a task before it looks at what others tell


class Ray(Launcher):
    """Make every job a task of a Ray cluster, which places it by what it asks for.

    `address` is the cluster's (default: the environment's RAY_ADDRESS, else one is started on this machine). A task
    asks for `cpus`, `gpus` (default: one where the cluster has any) and `memory` (GiB; 0: is not asked for), and
    `more` says otherwise for some backbones, such as `llava-7b:gpus:2`. What no node has is refused, unless the
    cluster `grows` by itself. Ray keeps a task's process for the next,
    and with it the backbone. A job whose node is lost is run again, up to `retries` times, from its last checkpoint
    where the folder of results is shared.
    """

    name = "ray"
    address: str = ""
    cpus: NonNegative = 1.0
    gpus: NonNegative | None = None
    memory: NonNegative = 0.0
    more: tuple[str, ...] = ()
    grows: bool = False
    retries: Annotated[int, Range(0)] = 3

    @classmethod
    def check(cls) -> None:
        """Ray is an extra."""
        try:
            import ray  # noqa: F401
        except ImportError as error:
            raise FairbenchError("Ray is not installed", "pip install fairbench[ray]") from error

    def launch(self, work: Work, watch: Callable[[Event], None]) -> None:
        """Submit what is left, and tell what the tasks tell."""
        import ray
        from ray.util.queue import Queue
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        others = self.asked_by_backbone()
        if unknown := set(others) - (there := {job.backbone.name for job in work.left()}):
            raise FairbenchError(
                f"more names {', '.join(sorted(unknown))}, of which no job is left",
                f"left are jobs of {', '.join(sorted(there)) or 'no backbone'}",
            )
        mine = not ray.is_initialized()
        if mine:
            ray.init(address=self.address or None, log_to_driver=False, configure_logging=False)
        try:
            # What tasks tell is kept where the driver is: on another node it would die with that node.
            here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
            _Sweep(self, work, watch, Queue(actor_options={"scheduling_strategy": here})).run()
        finally:
            if mine:
                ray.shutdown()

    def asked_by_backbone(self) -> dict[str, dict[str, float]]:
        """Return what `more` says, by backbone and resource."""
        asked: dict[str, dict[str, float]] = {}
        for one in self.more:
            name, *rest = one.rsplit(":", 2)
            number = rest[-1] if len(rest) == 2 and rest[0] in ("cpus", "gpus", "memory") else ""
            if not re.fullmatch(r"\d+(\.\d+)?", number):
                raise FairbenchError(f"more = {one!r} is not BACKBONE:RESOURCE:NUMBER", "write llava-7b:gpus:2")
            asked.setdefault(name, {})[rest[0]] = float(number)
        return asked

    def resources(self, backbone: str) -> dict[str, float]:
        """Return what a task of this backbone asks for, in Ray's words.

        Raises FairbenchError for what no node of the cluster has, since such a task would wait for ever.
        """
        import ray

        gpus = float(ray.cluster_resources().get("GPU", 0) >= 1) if self.gpus is None else self.gpus
        asked = {"cpus": self.cpus, "gpus": gpus, "memory": self.memory}
        asked |= self.asked_by_backbone().get(backbone, {})
        units = {"CPU": asked["cpus"], "GPU": asked["gpus"], "memory": asked["memory"] * 2**30}
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not self.grows and not any(
            all(node.get(name, 0) >= amount for name, amount in units.items()) for node in nodes
        ):
            wanted = ", ".join(f"{name}={amount:g}" for name, amount in asked.items() if amount)
            raise FairbenchError(
                f"no node of the cluster has what a job of {backbone} asks for ({wanted})",
                "ask for less, or say that it adds nodes by itself (grows=true); finished jobs are safe",
            )
        said = {"num_cpus": asked["cpus"], "num_gpus": asked["gpus"]}
        return {**said, "memory": units["memory"]} if asked["memory"] else said


class _Sweep:
    """One launch, from the driver's side."""

    def __init__(self, launcher: Ray, work: Work, watch: Callable[[Event], None], events: Any) -> None:
        self.launcher, self.work, self.watch, self.events = launcher, work, watch, events
        self.tasks: dict[Any, Job] = {}
        self.lost: dict[str, int] = {}
        self.workers: dict[str, int] = {}
        self.nodes = 0

    def run(self) -> None:
        import ray

        self.nodes = _alive()
        try:
            for job in self.work.left():
                self.submit(job)
            while self.tasks:
                done, _ = ray.wait([*self.tasks], timeout=WAIT)
                self.tell()
                for task in done:
                    self.ended(task, self.tasks.pop(task))
        finally:  # a cluster that is not ours would go on with what nobody waits for
            for task in self.tasks:
                ray.cancel(task, force=True)

    def submit(self, job: Job) -> None:
        import ray

        task = ray.remote(_run).options(max_retries=0, **self.launcher.resources(job.backbone.name))
        self.tasks[task.remote(self.work, job, self.events, sys.path)] = job

    def tell(self) -> None:
        """Show what tasks told, each process of theirs as a worker."""
        while not self.events.empty():
            process, event = self.events.get()
            number = self.workers.setdefault(process, len(self.workers))
            self.watch(Event(number, event.job, event.phase, event.done, event.total, event.loss))

    def ended(self, task: Any, job: Job) -> None:
        """See how a task ended: a job that killed its process twice fails, one whose node was lost goes on."""
        import ray
        from ray.exceptions import LocalRayletDiedError, NodeDiedError, OutOfMemoryError, WorkerCrashedError

        nodes, self.nodes = self.nodes, _alive()
        try:
            ray.get(task)
        except (NodeDiedError, LocalRayletDiedError):
            self.again(job, lost=True)
        except (WorkerCrashedError, OutOfMemoryError) as error:
            self.again(job, lost=self.nodes < nodes, cause=" ".join(str(error).split())[:80])
        except ray.exceptions.RayTaskError as error:
            raise FairbenchError(f"{job.title}: {error.cause}", "finished jobs are safe") from error
        else:
            record = self.work.store.record(job)
            if record is not None:
                self.watch(Event(0, job, record=record))

    def again(self, job: Job, lost: bool, cause: str = "") -> None:
        if not lost:
            self.work.died(job, cause)
        self.lost[job.key] = self.lost.get(job.key, 0) + lost
        if self.lost[job.key] > self.launcher.retries:
            raise FairbenchError(
                f"{job.title} lost its node {self.lost[job.key]} times",
                "see to the cluster; finished jobs are safe",
            )
        self.submit(job)


def _run(work: Work, job: Job, events: Any, path: list[str]) -> None:
    """Do one job in a process of the cluster."""
    import os
    import platform
    import time

    sys.path.extend(one for one in path if one not in sys.path)
    process, last = f"{platform.node()} {os.getpid()}", [0.0]

    def tell(event: Event) -> None:
        now = time.monotonic()
        if event.record is None and event.failure is None and event.total and now - last[0] < WAIT:
            return  # a step's news is old when the next one comes
        last[0] = now
        if event.record is None:
            events.put((process, event))

    work.run(job, tell)


def _alive() -> int:
    import ray

    return sum(node["Alive"] for node in ray.nodes())


@hookimpl
def fairbench_launchers() -> list[type[Launcher]]:
    """Offer the launcher."""
    return [Ray]
