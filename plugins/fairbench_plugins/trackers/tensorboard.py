"""TensorBoard: curves of every job, by accelerate's tracker."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from fairbench import FairbenchError, Job, Tracker, hookimpl


class TensorBoard(Tracker):
    """Write each job's loss and notes for `tensorboard --logdir RUNS/.tracked/tensorboard`."""

    name = "tensorboard"

    @classmethod
    def check(cls) -> None:
        """Raise FairbenchError where no package can write TensorBoard's files."""
        if find_spec("tensorboard") is None and find_spec("tensorboardX") is None:
            raise FairbenchError("tensorboard is not installed", "pip install 'fairbench[tracking]'")

    def __init__(self, job: Job, folder: Path) -> None:
        from accelerate.tracking import TensorBoardTracker

        name = f"{job.dataset.name}/{job.backbone.name}/{job.method.label}/{job.key}"
        self.tracker = TensorBoardTracker(name, folder / "tensorboard")
        self.tracker.start()
        settings = {"attributes": "+".join(job.attributes), "seed": job.seed, "batch_size": job.batch_size}
        self.tracker.store_init_configuration(settings)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Add a point to each curve."""
        self.tracker.log(dict(values), step=step)

    def close(self) -> None:
        """Flush and close the files."""
        self.tracker.finish()


@hookimpl
def fairbench_trackers() -> list[type[Tracker]]:
    """Offer the tracker."""
    return [TensorBoard]
