"""How long a sweep will still take: told by a simulated one, whose end is known."""

import pytest

from fairbench.benchmark.forecast import Forecast
from fairbench.benchmark.pull import Event
from fairbench.errors import FairbenchError
from fairbench.jobs.job import Choice, Job, Record

LOAD, LOOK, TRAIN, PREDICT = 5.0, 300.0, 600.0, 30.0


def job(method, seed=0):
    return Job(Choice("data"), Choice("model"), Choice(method), (), seed=seed)


def ended(one, train=TRAIN, first=False, weights_of=""):
    seconds = {"load": LOAD, "features": LOOK if first else 1.0, "train": train, "predict": PREDICT}
    return Record(one, "2026-01-01T00:00:00+00:00", seconds, steps=100, weights_of=weights_of)


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_before_any_job_has_ended_nothing_is_guessed(clock):
    forecast = Forecast([(job("gr"), None)], clock=clock)
    forecast.hear(Event(0, job("gr"), "train", 3, 100))
    clock.now += 50
    assert forecast.left() is None


def test_looking_at_images_is_not_expected_again(clock):
    forecast = Forecast([(job("gr", seed), None) for seed in range(4)], clock=clock)
    forecast.hear(Event(0, job("gr", 0), "load"))
    clock.now += LOAD + LOOK + TRAIN + PREDICT
    forecast.hear(Event(0, job("gr", 0), record=ended(job("gr", 0), first=True)))
    assert forecast.left() == pytest.approx(3 * (TRAIN + PREDICT))
    forecast.hear(Event(0, job("gr", 1), "load"))
    clock.now += 200
    assert forecast.left() == pytest.approx(3 * (TRAIN + PREDICT) - 200)


def test_jobs_that_share_a_training_bear_it_once(clock):
    shared = [(job(method, seed), f"plain {seed}") for method in ("vanilla", "thresholds") for seed in (0, 1)]
    forecast = Forecast([*shared, (job("gr"), None)], clock=clock)
    forecast.hear(Event(0, job("vanilla", 0), "load"))
    clock.now += LOAD + LOOK + TRAIN + PREDICT
    forecast.hear(Event(0, job("vanilla", 0), record=ended(job("vanilla", 0), first=True)))
    # vanilla of seed 1 and gr train; thresholds only answer, twice
    assert forecast.left() == pytest.approx(2 * (TRAIN + PREDICT) + 2 * PREDICT)
    taken = ended(job("thresholds", 0), weights_of=job("vanilla", 0).key)
    clock.now += LOAD + 1 + PREDICT
    forecast.hear(Event(0, job("thresholds", 0), record=taken))
    assert forecast.left() == pytest.approx(2 * (TRAIN + PREDICT) + PREDICT)


def test_two_workers_halve_it_but_no_job_is_divided(clock):
    forecast = Forecast([(job("gr", seed), None) for seed in range(6)], clock=clock)
    for seed in (0, 1):
        forecast.hear(Event(seed, job("gr", seed), "train"))
    clock.now += LOAD + TRAIN + PREDICT + 1
    for seed in (0, 1):
        forecast.hear(Event(seed, job("gr", seed), record=ended(job("gr", seed))))
    assert forecast.left() == pytest.approx(4 * (TRAIN + PREDICT) / 2, rel=0.01)
    for seed in (2, 3, 4):
        forecast.hear(Event(seed, job("gr", seed), record=ended(job("gr", seed))))
    assert forecast.left() == pytest.approx(TRAIN + PREDICT)


def test_a_method_is_judged_by_its_own_jobs(clock):
    forecast = Forecast(
        [(job(method, seed), None) for method in ("gr", "majority") for seed in (0, 1)], clock=clock
    )
    clock.now += 2 * (TRAIN + PREDICT)
    forecast.hear(Event(0, job("gr", 0), record=ended(job("gr", 0))))
    forecast.hear(Event(0, job("majority", 0), record=ended(job("majority", 0), train=0.0)))
    assert forecast.left() == pytest.approx(TRAIN + 2 * PREDICT)


def test_failures_are_no_measure_and_are_not_waited_for(clock):
    forecast = Forecast([(job("gr", seed), None) for seed in range(3)], clock=clock)
    clock.now += 3
    forecast.hear(Event(0, job("gr", 0), record=Record(job("gr", 0), "2026-01-01T00:00:00+00:00", error="x")))
    assert forecast.left() is None
    clock.now += TRAIN + PREDICT
    forecast.hear(Event(0, job("gr", 1), record=ended(job("gr", 1))))
    forecast.hear(Event(0, job("gr", 2), failure=FairbenchError("the probe failed")))
    assert forecast.left() == 0


def test_what_is_done_again_takes_what_it_took_and_not_what_the_records_tell(clock):
    forecast = Forecast([(job("gr", seed), None) for seed in range(3)], again=True, clock=clock)
    forecast.hear(Event(0, job("gr", 0), "probe"))
    clock.now += 20
    forecast.hear(Event(0, job("gr", 0), record=ended(job("gr", 0))))
    assert forecast.left() == pytest.approx(40)
