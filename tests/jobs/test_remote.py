"""Results behind a URL: over there once all of it is there, done once whoever asks, and lost nowhere on the way."""

import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from builders import call
from object_store import object_store

from fairbench import FairbenchError, Store
from fairbench.jobs.job import Choice, Job, Record, Stage
from fairbench.jobs.remote import Remote
from fairbench.jobs.store import LOG, PREDICTIONS, RECORD

TOYS = str(Path(__file__).parents[1] / "toys.py")
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}


def job(seed=0):
    return Job(Choice("toy"), Choice("toy-backbone"), Choice("fr"), (Stage(),), ("site",), seed)


def do(store, seed=0, error=None):
    folder = store.prepare(job(seed))
    if error is None:
        (folder / PREDICTIONS).write_bytes(b"answers " * 10)
        (folder / "adapter").mkdir()
        (folder / "adapter" / "weights").write_bytes(b"w" * 100)
    (folder / LOG).write_text("{}")
    return store.save(Record(job(seed), "2026-01-01T00:00:00+00:00", error=error))


@pytest.fixture
def server(monkeypatch, tmp_path):
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    with object_store() as server:
        yield server


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """Become another machine: one whose disk has nothing of this one's."""
    count = iter(range(100))

    def move():
        monkeypatch.setenv("FAIRBENCH_CACHE", str(tmp_path / f"machine {next(count)}"))

    move()
    return move


def test_a_job_goes_there_whole_its_record_last_and_nothing_of_how_it_went_on(server, elsewhere):
    store = Store(server.url)
    (store.prepare(job()) / "checkpoints").mkdir()
    do(store)
    names = [name.removeprefix(f"bucket/runs/{job().key}/") for what, name in server.log if name[-1] != "/"]
    assert sorted(names) == sorted(["adapter/weights", "job.json", LOG, PREDICTIONS, RECORD])
    assert names[-1] == RECORD


def test_another_machine_reads_what_is_done_and_does_not_do_it_again(server, elsewhere):
    record = do(Store(server.url))
    elsewhere()
    other = Store(server.url)
    assert other.missing([job(0), job(1)]) == [job(1)]
    assert other.record(job()) == record
    assert other.refused([job()]) == []
    assert (other.adapter(record) / "weights").read_bytes() == b"w" * 100
    elsewhere()
    assert Store(server.url).record(job()) == record
    assert json.loads(call("status", server.url, "--json").stdout)["counts"]["finished"] == 1


def test_what_could_not_be_sent_is_safe_here_and_sent_by_the_next_command(server, elsewhere):
    server.full = True
    with pytest.raises(FairbenchError, match="does not answer") as caught:
        do(Store(server.url))
    assert "the same command sends it" in caught.value.hint
    assert not [name for name in server.objects if name.endswith(RECORD)]
    server.full = False
    assert Store(server.url).missing([job()]) == []
    assert f"bucket/runs/{job().key}/{RECORD}" in server.objects


def test_a_failure_that_is_to_be_tried_again_is_forgotten_there_too(server, elsewhere):
    store = Store(server.url)
    do(store, error="no")
    store.forget_failure(job())
    elsewhere()
    assert Store(server.url).missing([job()]) == [job()]


def test_predictions_that_changed_on_the_way_are_refused(server, elsewhere):
    record = do(Store(server.url))
    server.objects[f"bucket/runs/{job().key}/{PREDICTIONS}"] += b"!"
    elsewhere()
    assert [one.key for one in Store(server.url).refused([job()])] == [job().key]
    with pytest.raises(FairbenchError, match="not what its record describes"):
        Store(server.url).predictions(record)


def test_a_file_that_two_threads_fetch_at_once_is_whole(tmp_path):
    class Stream(io.BytesIO):
        def read(self, size):
            if not others:  # the other thread begins and ends meanwhile
                others.append(True)
                assert remote.fetch("x", tmp_path / "x")
            return super().read(size)

    others, remote = [], Remote("s3://bucket")
    remote._opened = SimpleNamespace(open_input_stream=lambda _: Stream(b"whole")), "bucket"
    assert remote.fetch("x", tmp_path / "x")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("x", b"whole")]


def test_a_folder_by_its_url_is_the_same_without_a_server(tmp_path, elsewhere):
    url = f"file://{tmp_path}/there"
    record = do(Store(url))
    assert Store(tmp_path / "there").contents().records == (record,)
    elsewhere()
    assert Store(url).contents().records == (record,)


@pytest.mark.parametrize(
    ("url", "message", "hint"),
    [
        ("nowhere://bucket/runs", "cannot be opened", "s3://"),
        ("s3://key:secret@bucket/runs", "holds a name or password", "AWS_ACCESS_KEY_ID"),
        pytest.param(
            "s3://bucket/runs?endpoint_override=127.0.0.1:9&scheme=http",
            "does not answer",
            "credentials",
            marks=pytest.mark.slow,  # it is asked three times
        ),
    ],
)
def test_an_address_that_leads_nowhere_is_an_error(url, message, hint, elsewhere, server):
    with pytest.raises(FairbenchError, match=message) as caught:
        Store(url).overview()
    assert hint in caught.value.hint
    assert "secret" not in str(caught.value)


@pytest.mark.slow
def test_a_sweep_leaves_its_results_and_its_board_there(server, elsewhere):
    """And a second machine has nothing to do but to print the board."""
    toy = ("--datasets", "toy", "--backbones", "toy-backbone", "--attr", "site", "--plugin", TOYS)
    words = ("run", "quickstart", *toy, "--methods", "fr", "--no-controls", "--set", "lora.epochs=0.2")
    first = call(*words, "--out", server.url)
    assert f"note: predictions, a row for each patient, go to {server.url}" in first.stderr
    assert "bucket/runs/quickstart.md" in server.objects
    elsewhere()
    again = call(*words, "--out", server.url)
    assert "were done already" not in again.stderr
    assert "done in" not in again.stderr
    assert again.stdout.split("written")[0] == first.stdout.split("written")[0]
