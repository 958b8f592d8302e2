"""Which job a worker takes next."""

from dataclasses import replace
from types import SimpleNamespace

from fairbench import Method
from fairbench.benchmark.pull import Setup, work
from fairbench.jobs.job import Choice, Job, Record, Stage
from fairbench.jobs.store import Store
from fairbench.jobs.worker_options import WorkerOptions
from fairbench.training.shared import training_of


class Plain(Method):
    """It leaves everything as it is."""

    name = "plain-toy"


class Adjusting(Method):
    """It trains what a plain method trains."""

    name = "adjusting"

    def adjust(self, run, validation, test):
        return test


class Halving(Method):
    """It trains otherwise."""

    name = "halving"

    def loss(self, out, batch):
        return out.loss.mean() / 2


METHODS = {method.name: method for method in (Plain, Adjusting, Halving)}


class Noting:
    """A worker that trains nothing, notes the order of its jobs, and calls `after` when one has ended."""

    def __init__(self, store, after):
        self.store, self.after, self.order = store, after, []
        self.plugins = SimpleNamespace(broken=[], tables={"method": METHODS})
        self.accelerator, self.options, self.leads = SimpleNamespace(num_processes=1), WorkerOptions(), True

    def agree(self, value):
        return value

    def run(self, job):
        self.order.append(job.method.name)
        self.store.prepare(job)
        record = Record(job, "2026-01-01T00:00:00+00:00", error="nothing was trained")
        self.store.save(record)
        self.after()
        return record


def test_jobs_of_a_training_that_another_process_is_at_come_last(tmp_path):
    """They would wait for it idly, and what is left would wait for them."""
    store = Store(tmp_path)
    job = Job(Choice("toy"), Choice("toy-backbone"), Choice("plain-toy"), (Stage(),))
    jobs = [job, replace(job, method=Choice("adjusting")), replace(job, method=Choice("halving"))]
    name = training_of(job, Plain)
    assert not store.training_held(name)
    elsewhere = store.training(name)
    elsewhere.__enter__()
    assert store.training_held(name)
    held = [elsewhere]
    worker = Noting(store, lambda: held and held.pop().__exit__(None, None, None))
    work(0, jobs, Setup(str(tmp_path), {}), lambda event: None, worker)
    assert worker.order == ["halving", "plain-toy", "adjusting"]
    assert not store.training_held(name)
