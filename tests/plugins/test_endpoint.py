"""A model behind an address answers each image once, whatever happens, and nothing leaves this machine unasked."""

import base64
import importlib
import io
import json
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest
import transformers
from click.testing import CliRunner
from PIL import Image
from served import transformers_serve

from fairbench import FairbenchError, Store, plugins
from fairbench.cli.main import main
from fairbench.jobs.journal import Journal
from fairbench.testing import ToyDataset, train

TOYS = Path(__file__).parents[1] / "toys.py"
SECRET = "sk-not-to-be-written"
ENDPOINT = plugins.load(("method",)).tables["method"]["endpoint"]


class Server(ThreadingHTTPServer):
    """It speaks the protocol and answers by looking: bright or dark."""

    def __init__(self, behave):
        super().__init__(("127.0.0.1", 0), Handler)
        self.behave, self.asked, self.keys, self.lock = behave, [], set(), threading.Lock()
        self.busy = self.busiest = 0

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.asked.append(body)
            server.keys.add(self.headers.get("Authorization"))
            server.busy += 1
            server.busiest = max(server.busiest, server.busy)
            number = len(server.asked)
        try:
            status, headers, said = server.behave(number, body)
        finally:
            with server.lock:
                server.busy -= 1
        if status == "hang up":
            self.connection.close()
            return
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(said if isinstance(said, bytes) else json.dumps(said).encode())

    def log_message(self, *_):
        pass


def looks(number, body):
    assert (body["stream"], body["temperature"], body["max_tokens"]) == (False, 0.0, 32)
    url = body["messages"][-1]["content"][0]["image_url"]["url"]
    image = Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,"))))
    word = "bright" if image.getpixel((0, 0))[0] > 128 else "dark"
    said = f" The square is {word}, I would say.\n"
    return 200, {}, {"model": "seer-1", "choices": [{"message": {"role": "assistant", "content": said}}]}


@contextmanager
def serving(behave=looks):
    server = Server(behave)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def run(out, *words):
    base = ("--datasets", "toy", "--backbones", "toy-backbone", "--attr", "site", "--plugin", TOYS)
    some = ("--methods", "endpoint", "--no-controls", "--no-baseline", "--out", out, "--workers", "1")
    command = ["run", *map(str, (*base, *some)), *map(str, words)]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result


def at(server, **more):
    settings = {"model": "seer", "address": server.address, **more}
    return [word for key, value in settings.items() for word in ("--set", f"endpoint.{key}={value}")]


@pytest.fixture(autouse=True)
def _few_plugins(monkeypatch):
    monkeypatch.setenv("FAIRBENCH_PLUGINS", "method-endpoint,method-vanilla,metric-rates,metric-auroc")


@pytest.mark.slow
def test_a_server_that_fails_now_and_then_answers_every_patient_once(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", SECRET)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # images go to no proxy

    def moody(number, body):
        time.sleep(0.02)
        if number in (2, 5):
            return 503, {"Retry-After": "0"}, {"error": "busy"}
        return ("hang up", {}, b"") if number == 9 else looks(number, body)

    with serving(moody) as server:
        result = run(tmp_path, *at(server, key_variable="MY_KEY", concurrency=3))
        assert len(server.asked) == 48 + 3
        assert 1 < server.busiest <= 3
        assert server.keys == {f"Bearer {SECRET}"}
        (text,) = {body["messages"][-1]["content"][1]["text"] for body in server.asked}
        assert text == "Bright? Answer with one of: dark, bright."
        assert "endpoint(model=seer)" in result.stdout
        run(tmp_path, *at(server, address="http://127.0.0.1:9/v1"))  # the same experiment, elsewhere: done already
        assert len(server.asked) == 48 + 3
    (record,) = Store(tmp_path).contents().records
    assert record.facts["endpoint"]["answered by"] == ["seer-1"]
    assert record.facts["endpoint"]["example of a question"] == text
    assert record.job.method.settings == {"model": "seer"}
    table = pd.read_parquet(Store(tmp_path).predictions_file(record.job))
    rows = ToyDataset().table().query("split == 'test'").set_index("id").loc[table["id"]]
    assert (table["answer"].to_numpy() == (rows["image"] > 128).to_numpy()).all(), "an answer is another's"
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in written if SECRET.encode() in path.read_bytes()]
    assert "p_1" not in table


def ask(out, server, **settings):
    """Run one job in this process; a failure of the job is an AssertionError that holds its reason."""
    return train(ENDPOINT, {"model": "seer", "address": server.address, "concurrency": 1, **settings}, out=out)


def test_what_was_answered_before_an_end_is_not_asked_again(tmp_path):
    def forgets(number, body):
        return looks(number, body) if number <= 20 else (401, {}, b"who are you")

    with serving(forgets) as server:
        with pytest.raises(AssertionError, match="status 401: who are you"):
            ask(tmp_path, server)
        (kept,) = tmp_path.glob("*/answers.jsonl")
        assert len(kept.read_text().splitlines()) == 20
        kept.write_bytes(kept.read_bytes()[:-7])  # as a kill in the middle of a line leaves it
        (record,) = Store(tmp_path).contents().records
        Store(tmp_path).forget_failure(record.job)
        server.behave, before = looks, len(server.asked)
        ask(tmp_path, server)
        assert len(server.asked) - before == 48 - 19
    assert len(Journal(kept).entries) == 48


def test_an_answer_that_names_no_class_is_wrong(tmp_path):
    silent = {"model": "seer", "choices": [{"message": {"content": None}}]}
    with serving(lambda number, body: (200, {}, silent)) as server:
        table = ask(tmp_path, server, instruction='Say {"answer": one of {words}}.').predictions
        (text,) = {body["messages"][-1]["content"][1]["text"] for body in server.asked}
    assert text == 'Bright? Say {"answer": one of dark, bright}.', "other braces stay as they are"
    assert set(table["answer"]) == {-1}
    assert not [column for column in table if column.startswith("p_")]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"address": "https://api.openai.com/v1"},
            ["patients' images would leave this one", "images_may_leave=true"],
        ),
        ({"address": "http://127.0.0.1.example.org/v1"}, ["another machine"]),
        ({"address": "http://me:word@127.0.0.1/v1"}, ["is no address", "key_variable"]),
        ({"address": "127.0.0.1:8000"}, ["is no address"]),
        ({"address": "http://127.0.0.1:abc/v1"}, ["is no address", "http://HOST:PORT/v1"]),
        ({"address": "http://[::1/v1"}, ["is no address", "http://HOST:PORT/v1"]),
        ({"key_variable": "NOT_SET_ANYWHERE"}, ["NOT_SET_ANYWHERE is not set"]),
    ],
)
def test_images_stay_here_unless_told_otherwise(settings, words):
    with pytest.raises(FairbenchError) as caught:
        ENDPOINT(model="m", **settings)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert ENDPOINT(model="m", address="https://api.openai.com/v1", images_may_leave=True).tries == 6
    assert ENDPOINT(model="m", address="http://[::1]:8000/v1").concurrency == 4


@pytest.mark.slow
def test_what_a_job_warns_of_is_said_where_it_was_run(tmp_path):
    """Once, however many jobs warn; it had stood in the record alone."""

    def renamed(number, body):
        status, headers, said = looks(number, body)
        return status, headers, {**said, "model": f"seer-{number % 2}"}

    with serving(renamed) as server:
        result = run(tmp_path / "runs", *at(server))
    assert result.output.count("warning: the server called its model by several names: seer-0, seer-1") == 1


def test_an_answer_that_drips_is_bounded_as_a_whole():
    """Each byte comes in time, and all of them never."""

    class Dripping:
        def read1(self, _):
            time.sleep(0.01)
            return b" "

    server = ENDPOINT(model="seer", timeout=0.05)
    with pytest.raises(TimeoutError, match=r"no whole answer in 0\.05 s"):
        server._body(Dripping(), time.monotonic() + server.timeout)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((302, {"Location": "http://example.org/"}, b""), "status 302"),  # followed by nobody
        ((200, {}, b"<html>hello"), "answers what no chat completion is: <html>hello"),
        ((200, {}, b"x" * (17 << 20)), "more than 16 MiB"),
        ((400, {}, {"error": "no such model: seer"}), "no such model: seer"),
    ],
)
def test_what_a_server_refuses_is_said_and_not_asked_again(tmp_path, answer, words):
    with serving(lambda *_: answer) as server:
        with pytest.raises(AssertionError, match=words):
            ask(tmp_path, server)
        assert len(server.asked) <= 2  # the one beside it was under way


@pytest.mark.slow
def test_transformers_serve_answers_what_transformers_answers(tmp_path, monkeypatch):
    pytest.importorskip("uvicorn")
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    drawn = importlib.import_module("architectures")
    folder = drawn.save(next(case for case in drawn.ARCHITECTURES if case.kind == "llava"), tmp_path / "tiny")
    with transformers_serve(folder, tmp_path / "log") as settings:
        given = train(ENDPOINT, {**settings, "max_tokens": 6}, out=tmp_path / "runs")
    (kept,) = tmp_path.glob("runs/*/answers.jsonl")
    assert given.record.facts["endpoint"]["answered by"] == [f"{folder}@main"]
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder)
    processor = transformers.AutoProcessor.from_pretrained(folder)
    rows = ToyDataset().table().set_index("id")
    for name, entry in list(Journal(kept).entries.items())[:5]:
        text = {"type": "text", "text": "Bright? Answer with one of: dark, bright."}
        content = [{"type": "image", "image": ToyDataset().image(rows.loc[name])}, text]
        asked = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        wrote = model.generate(**asked, max_new_tokens=6, do_sample=False)[0, asked["input_ids"].shape[1] :]
        assert entry["text"] == processor.decode(wrote, skip_special_tokens=True).strip()
