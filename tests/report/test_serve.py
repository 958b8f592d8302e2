"""The live page: what it tells of a sweep, who may ask, and how it ends."""

import json
import re
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path

import pytest
from builders import hears_ctrl_c, scored_runs

from fairbench.errors import FairbenchError
from fairbench.jobs.job import Record
from fairbench.jobs.store import Store
from fairbench.jobs.sweep import sweep
from fairbench.report.serve import Server, Watched


@contextmanager
def serving(store):
    with Server(store, 0) as server:
        server.watched.ended.set()  # tests refresh themselves
        server.watcher.join()
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """What is only read."""
    with serving(scored_runs(tmp_path_factory.mktemp("runs"))) as server:
        yield server


@pytest.fixture
def store(tmp_path):
    """What a test may add to."""
    return scored_runs(tmp_path / "runs")


def ask(server, path="/", verb="GET", **headers):
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request(verb, path, headers=headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer, text


def begun(store, method="next", seed=0):
    """A job that was begun, and one that only waits."""
    job = store.contents().records[0].job
    job = replace(job, method=replace(job.method, name=method), seed=seed)
    store.prepare(job)
    store.log_file(job).write_text(
        '{"stage": "lora", "step": 0, "loss": 0.75}\n{"stage": "lora", "step": 10, "loss": 0.5}\n'
    )
    return job


def test_the_page_and_its_state_are_served_to_this_machine_alone(server):
    assert server.server_address[0] == "127.0.0.1"
    answer, text = ask(server)
    assert answer.status == 200
    assert 'id="live"' in text
    assert "connect-src 'self'" in text
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["Access-Control-Allow-Origin"] is None
    state = json.loads(ask(server, "/state.json")[1])
    assert (state["ended"], state["total"], state["running"], state["left"]) == (4, 4, [], 0.0)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1", "localhost.evil.example", ""])
def test_another_host_is_refused(server, host):
    """A web site whose name is made to point at 127.0.0.1 (DNS rebinding) sends its own name."""
    for path in ("/", "/state.json"):
        answer, text = ask(server, path, Host=host)
        assert answer.status == 403
        assert "fair" not in text


def test_localhost_is_this_machine_and_nothing_else_is_there(server):
    assert ask(server, Host=f"localhost:{server.server_port}")[0].status == 200
    for path in ("/runs", "/../record.json", "/state.json?x"):
        assert ask(server, path)[0].status == 404
    for verb in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert ask(server, "/", verb)[0].status == 501


def test_a_sweep_is_told_as_it_goes(store):
    running, waiting = begun(store), begun(store, seed=1)
    store.announce([*(record.job for record in store.contents().records), running, waiting])
    with store.lease(running):
        state = Watched(store).state()
        assert (state["ended"], state["total"]) == (4, 6)
        (one,) = state["running"]
        assert one["name"] == running.title
        assert one["losses"] == ((0, 0.75), (10, 0.5))
        assert state["waiting"] == [waiting.title]
        assert 0 <= state["left"] < 60
    assert sweep(store).left is None  # nothing runs that would end the rest


def test_a_record_without_its_job_beside_it_says_no_time(store):
    """As in a folder that is elsewhere, of which records alone are fetched."""
    store.announce([record.job for record in store.contents().records])
    for path in store.root.glob("*/job.json"):
        path.unlink()
    assert len(sweep(store).ended) == 4


def test_what_waits_is_known_before_it_is_begun(store):
    job = begun(store)
    for path in store.folder(job).iterdir():
        path.unlink()
    store.folder(job).rmdir()
    store.announce([job])
    assert [one.title for one in sweep(store).waiting] == [job.title]
    (store.root / ".plan.json").write_text("not a plan")
    assert sweep(store).waiting == ()


def test_new_results_make_a_new_page(store):
    with serving(store) as server:
        before = ask(server)[1]
        job = begun(store)
        store.save(Record(job, "2026-11-23", error="out of luck", versions={}))
        server.watched.refresh()
        state, after = json.loads(ask(server, "/state.json")[1]), ask(server)[1]
        assert re.search(r'data-version="(\d+)"', before)[1] != state["version"]
        assert re.search(r'data-version="(\d+)"', after)[1] == state["version"]
        assert state["failed"] == [f"{job.title}: out of luck"]
        assert "out of luck" in after
        server.watched.refresh()
        assert ask(server)[1] == after  # nothing ended, nothing was built


def test_a_board_that_cannot_be_built_is_no_end(store, monkeypatch):
    def broken(*args, **named):
        raise ValueError("a metric fell over")

    monkeypatch.setattr("fairbench.report.serve.build", broken)
    watched = Watched(store)
    watched.refresh()
    assert watched.state()["problem"] == "ValueError: a metric fell over"
    assert watched.text.startswith("<!doctype html>")


@pytest.mark.parametrize("where", ["fairbench.report.page.render", "pathlib.Path.glob"])
def test_what_fails_once_stops_no_later_refresh(store, monkeypatch, where):
    watched = Watched(store)
    watched.refresh()
    before = watched.text
    store.save(Record(begun(store), "2026-11-23", error="out of luck", versions={}))
    with monkeypatch.context() as failing:
        failing.setattr(where, lambda *_, **__: Path("/nowhere").stat())
        watched.refresh()
        assert "No such file" in watched.problem
        assert watched.text == before
    store.save(Record(begun(store, seed=1), "2026-11-23", error="out of luck", versions={}))
    watched.refresh()
    assert watched.problem == ""
    assert "out of luck" in watched.text


def test_an_empty_folder_waits_and_what_is_none_is_an_error(tmp_path, server):
    (tmp_path / "empty").mkdir()
    with Server(Store(tmp_path / "empty"), 0) as empty:
        assert empty.watched.problem == ""
        assert empty.watched.text.startswith("<!doctype html>")
    with pytest.raises(FairbenchError, match="is not a folder of runs"):
        Server(Store(tmp_path / "none"), 0)
    with pytest.raises(FairbenchError, match=f"cannot listen on port {server.server_port}"):
        Server(Store(tmp_path / "empty"), server.server_port)


@pytest.mark.slow
def test_ctrl_c_ends_it(store):
    command = [sys.executable, "-m", "fairbench", "serve", str(store.root), "--port", "0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes, preexec_fn=hears_ctrl_c) as process:
        line = process.stdout.readline()
        assert re.match(r"http://127\.0\.0\.1:\d+/ shows ", line), process.stderr.read()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stderr.read() == "ended\n"
