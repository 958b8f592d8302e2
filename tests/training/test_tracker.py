"""Trackers hear of every step, write what TensorBoard reads, and cannot end a job."""

from fairbench_plugins.trackers.tensorboard import TensorBoard
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fairbench import Method, Tracker, hookimpl, plugins
from fairbench.jobs.job import Choice, Job
from fairbench.jobs.store import Store
from fairbench.jobs.worker_options import WorkerOptions
from fairbench.testing.toys import STAGES, ToyDataset, toy_plugins
from fairbench.training.worker import Worker


class Noting(Method):
    """Note something in each step."""

    name = "noting"

    def step(self, run, batch):
        batch.notes["square"] = float(run.step**2)
        super().step(run, batch)


class Keeps(Tracker):
    """Keep what it hears."""

    name = "keeps"
    heard = []

    def __init__(self, job, folder):
        (folder / f"{type(self).name}.txt").write_text(job.key)  # the folder is there
        self.heard.append(("began", job.key))

    def log(self, values, step):
        self.heard.append((step, values["square"]))

    def close(self):
        self.heard.append("ended")


class Breaks(Keeps):
    """Fail at the third step."""

    name = "breaks"
    heard = []

    def log(self, values, step):
        super().log(values, step)
        if step == 3:
            raise RuntimeError("the service is gone")


class Offer:
    @hookimpl
    def fairbench_trackers(self):
        return [TensorBoard, Keeps, Breaks]


def run(tmp_path, *track):
    loaded = toy_plugins(Noting)
    loaded.sources["trackers"] = "trackers 1"
    loaded.manager.register(Offer(), "trackers")
    worker = Worker(Store(tmp_path), loaded, {}, lambda *_: None, WorkerOptions(track=track))
    data = Choice("toy", fingerprint=ToyDataset().fingerprint())
    return worker.run(Job(data, Choice("toy-backbone"), Choice("noting"), STAGES, ("site",)))


def test_every_step_is_heard_and_a_broken_tracker_is_left_out(tmp_path):
    record = run(tmp_path, "keeps", "breaks")
    squares = [(step + 1, float(step**2)) for step in range(12)]
    assert Keeps.heard == [("began", record.job.key), *squares, "ended"]
    assert Breaks.heard == [("began", record.job.key), *squares[:3]]
    assert record.error is None
    assert record.warnings == ("the tracker breaks stopped: the service is gone",)


def test_tensorboard_reads_what_was_tracked(tmp_path):
    record = run(tmp_path, "tensorboard")
    assert not record.warnings
    (events,) = (tmp_path / ".tracked" / "tensorboard").rglob(f"{record.job.key}/events*")
    curves = EventAccumulator(str(events)).Reload()
    assert [point.value for point in curves.Scalars("square")] == [step**2 for step in range(12)]
    losses = [point.value for point in curves.Scalars("loss")]
    assert len(losses) == 12
    assert losses[-1] < losses[0]


def test_a_bundled_tracker_is_found_by_its_name():
    assert plugins.load(("tracker",)).find("tracker", "tensorboard").name == "tensorboard"
