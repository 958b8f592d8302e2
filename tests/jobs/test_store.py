"""The store: a record is there whole or not at all, a lease has one holder and dies with it."""

import errno
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass

import pandas as pd
import pytest

from fairbench import FairbenchError, Store
from fairbench.jobs.job import Choice, Job, Record, Stage
from fairbench.jobs.store import JOB, PREDICTIONS, RECORD
from fairbench.jobs.summary import Refused, Summary
from fairbench.predictions.predictions import Predictions


def job(seed=0):
    return Job(Choice("toy"), Choice("toy-backbone"), Choice("fr"), (Stage(),), ("site",), seed)


def record(seed=0, error=None):
    return Record(job(seed), "2026-01-01T00:00:00+00:00", error=error)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs with space – ünïcode")


def save(store, *records):
    for one in records:
        store.prepare(one.job)
        store.save(one)


def test_a_saved_record_is_read_back(store):
    save(store, record(0), record(1, "no"))
    assert store.record(job(0)) == record(0)
    assert [r.failed for r in sorted(store.contents().records, key=lambda r: r.job.seed)] == [False, True]
    assert json.loads((store.folder(job()) / JOB).read_text())["key"] == job().key


def test_missing_are_those_without_a_record_and_on_request_the_failed(store):
    save(store, record(0), record(1, "no"))
    jobs = [job(seed) for seed in range(3)]
    assert [j.seed for j in store.missing(jobs)] == [2]
    assert [j.seed for j in store.missing(jobs, retry_failed=True)] == [1, 2]


def test_forgetting_a_failure_touches_no_other_job(store):
    save(store, record(0), record(1, "no"))
    for seed in range(3):
        store.forget_failure(job(seed))
    assert [j.seed for j in store.missing([job(seed) for seed in range(3)])] == [1, 2]


def test_preparing_clears_what_an_interrupted_attempt_left_and_counts_it(store):
    folder = store.prepare(job())
    (folder / "predictions.parquet").write_text("half")
    (folder / "adapter").mkdir()
    store.note_death(job(), "ended by signal 9")
    assert sorted(path.name for path in store.prepare(job()).iterdir()) == ["attempts.txt", JOB]
    assert (store.attempts(job()), store.deaths(job())) == (2, ["ended by signal 9"])
    store.save(record(error="no"))
    store.forget_failure(job())
    assert (store.attempts(job()), store.deaths(job())) == (0, [])


def test_a_record_appears_by_rename_when_all_of_it_is_on_disk(store, monkeypatch):
    folder = store.prepare(job())
    seen = []

    def replace(source, target):
        seen.append((json.loads(source.read_text())["key"], (folder / RECORD).exists()))
        os.rename(source, target)

    monkeypatch.setattr(os, "replace", replace)
    store.save(record())
    assert seen == [(job().key, False)]
    assert sorted(path.name for path in folder.iterdir()) == sorted([JOB, RECORD])


NOT_A_RECORD = {
    "empty": "",
    "torn": '{"job": {',
    "a list": "[]",
    "nothing in it": "{}",
    "no job": '{"schema": 2, "key": "x", "job": {}}',
    "another encoding": "\xff",
    "nested beyond sense": "[" * 50_000 + "]" * 50_000,
}


@pytest.mark.parametrize("content", NOT_A_RECORD.values(), ids=NOT_A_RECORD)
def test_a_file_that_is_no_record_is_named_and_conceals_nothing_else(store, content):
    save(store, record(1))
    folder = store.prepare(job())
    (folder / RECORD).write_bytes(content.encode("latin-1"))
    contents = store.contents()
    assert contents.records == (record(1),)
    (refused,) = contents.refused
    assert (refused.path, refused.job) == (folder / RECORD, job())
    assert store.missing([job(0), job(1), job(2)]) == [job(2)]  # what lies beside it may be intact
    with pytest.raises(FairbenchError, match="is refused") as caught:
        store.record(job())
    assert "delete" not in caught.value.hint


def odd(**changes):
    return lambda data: {**data, **changes}


ODD = {
    "a newer version's field": (odd(colour="red"), "unknown field colour"),
    "text for a number": (odd(steps="3"), "'3' is not of type int @ record.steps"),
    "a negative number": (odd(steps=-1), "-1 must be at least 0 @ record.steps"),
    "steps that took no time": (odd(steps=3, seconds={}), "`seconds` has no train"),
    "a role that is none": (odd(role="winner"), "record.role"),
    "text for a list": (odd(warnings="three"), "'three' is not a list @ record.warnings"),
    "no start": (lambda data: {k: v for k, v in data.items() if k != "started"}, "no field 'started'"),
    "another schema": (odd(schema=99), "it is of schema 99"),
    "other settings": (lambda data: {**data, "job": {**data["job"], "seed": 7}}, "does not match its own content"),
}


@pytest.mark.parametrize(("change", "reason"), ODD.values(), ids=ODD)
def test_a_record_without_sense_is_refused_with_its_reason(store, change, reason):
    save(store, record(0), record(1))
    path = store.folder(job()) / RECORD
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    (refused,) = store.contents().refused
    assert reason in refused.reason
    assert store.contents().records == (record(1),)


def answers(seed=0):
    table = pd.DataFrame({"id": ["a", "b"], "split": "test", "target": [0, 1], "answer": [0, seed], "site": "x"})
    return Predictions(table, ("no", "yes"), ("site",))


def leave(store, seed=0):
    store.prepare(job(seed))
    answers(seed).save(store.predictions_file(job(seed)))
    return store.save(record(seed))


def test_predictions_are_read_only_as_their_record_describes_them(store):
    first, second = leave(store, 0), leave(store, 1)
    assert store.predictions(second).answer.tolist() == [0, 1]
    path = store.predictions_file(job(0))
    for content in (store.predictions_file(job(1)).read_bytes(), path.read_bytes()[:-9], b"", bytes(1000)):
        path.write_bytes(content)
        with pytest.raises(FairbenchError, match="is not what its record describes"):
            store.predictions(first)
    path.unlink()
    with pytest.raises(FairbenchError, match="No such file"):
        store.predictions(first)
    with pytest.raises(FairbenchError, match=f"names no {PREDICTIONS}"):
        store.predictions(record(0))


def test_a_record_in_another_jobs_folder_is_refused(store):
    leave(store, 0), leave(store, 1)
    for name in (RECORD, PREDICTIONS):
        (store.folder(job(0)) / name).write_bytes((store.folder(job(1)) / name).read_bytes())
    (refused,) = store.contents().refused
    assert "it is the record of another job: fr on site · toy-backbone · toy · seed 1" in refused.reason
    assert [r.job.seed for r in store.contents().records] == [1]


def test_what_another_version_remembered_of_a_folder_is_read_anew(store, monkeypatch):
    save(store, record())
    kept = Summary.of(record(), "", "")

    @dataclass(frozen=True)
    class Older:
        key: str = kept.key

        to_bytes = Summary.to_bytes

    with monkeypatch.context() as older:
        older.setattr("fairbench.jobs.store.Summary", Older)
        older.setattr("fairbench.jobs.store._summary", lambda path: Older())
        older.setattr("fairbench.jobs.store.settled", lambda state: True)
        assert list(store.overview().ended.values()) == [Older()]
    assert store.overview().ended[kept.key].title == kept.title


def test_a_folder_that_is_none_is_named(tmp_path):
    with pytest.raises(FairbenchError, match="is not a folder of runs"):
        Store(tmp_path / "absent").contents()


@pytest.mark.parametrize(
    ("number", "message"),
    [(errno.ENOSPC, "the disk that holds .* is full; finished jobs are safe"), (errno.EROFS, "cannot write to")],
)
def test_a_disk_that_takes_no_more_is_an_error_and_keeps_what_is_done(store, monkeypatch, number, message):
    save(store, record(0))
    store.prepare(job(1))

    def full(descriptor):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(FairbenchError, match=message):
            store.save(record(1))
        with pytest.raises(FairbenchError, match=message):
            store.prepare(job(2))
    assert store.contents().records == (record(0),)
    assert not [path for path in store.root.rglob(".*") if path.is_file() and path.suffix != ".lock"]


def test_an_output_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FairbenchError, match="cannot write to"), Store(tmp_path / "file").lease(job()):
        pass


HOLD = """
import json, sys, time
from fairbench.jobs.job import Job
from fairbench.jobs.store import Store
with Store(sys.argv[1]).lease(Job.from_json(json.load(sys.stdin))) as held:
    print(held, flush=True)
    time.sleep(60)
"""


def test_a_lease_has_one_holder_and_is_freed_when_that_is_killed(store):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(store.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        holder.stdin.write(json.dumps(job().to_json()))
        holder.stdin.close()
        assert holder.stdout.readline() == "True\n"
        with store.lease(job()) as held, store.lease(job(1)) as other:
            assert (held, other) == (False, True)
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with store.lease(job()) as held:
        assert held
        with store.lease(job()) as again:
            assert not again


def test_a_record_of_which_one_bit_changed_is_refused(store):
    save(store, record())
    path = store.folder(job()) / RECORD
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        ended = store.ended(job())
        assert isinstance(ended, Refused) or json.loads(path.read_bytes()) == json.loads(whole)
