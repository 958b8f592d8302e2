"""A model behind an address that speaks OpenAI's protocol: vLLM, `transformers serve`, llama.cpp, Ollama."""

from __future__ import annotations

import base64
import http.client
import io
import ipaddress
import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from urllib.parse import SplitResult, urlsplit

from fairbench import Count, FairbenchError, Method, NonNegative, Positive, Question, Run, Stage, hookimpl

TRANSIENT = (408, 409, 425, 429, *range(500, 600))  # what may be otherwise the next time
SLOWEST = 60.0  # seconds between two tries, at most
LARGEST = 16 << 20  # bytes of a reply, at most: an answer has some thousand
AHEAD = 2  # questions prepared beside each that is under way


class Endpoint(Method):
    """Train nothing: ask a model that a server holds, image by image, and read its answers as words.

    `address` is this machine's unless `images_may_leave`. `instruction` follows a question about classes, `{words}`
    being what may be answered. `key_variable` names the environment variable that holds the server's key.
    """

    name = "endpoint"
    uses_attributes = False
    unkeyed = ("address", "images_may_leave", "key_variable", "concurrency", "tries", "timeout")

    model: str
    system: str = ""
    instruction: str = "Answer with one of: {words}."
    temperature: NonNegative = 0.0
    max_tokens: Count | None = None
    address: str = "http://127.0.0.1:8000/v1"
    images_may_leave: bool = False
    key_variable: str = ""
    concurrency: Count = 4
    tries: Count = 6
    timeout: Positive = 300.0

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.server()  # before anything starts: do images stay here?

    def plan(self, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        """Train nothing."""
        return ()

    def answer_questions(self, run: Run) -> Sequence[str]:
        """Ask what was not answered before, several questions at a time; each answer is kept as it comes."""
        server, known = self.server(), run.journal.entries
        answered_by = {entry["model"] for entry in known.values()}
        pool = ThreadPoolExecutor(self.concurrency)
        waiting: dict[str, Future[tuple[str, str]]] = {}
        try:
            for question in run.questions:
                if question.id in known:
                    continue
                asked = self.asked(question, run)
                waiting[question.id] = pool.submit(self.ask, server, asked)
                if len(waiting) == AHEAD * self.concurrency:
                    self._keep(run, waiting)
            while waiting:
                self._keep(run, waiting)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        answered_by |= {entry["model"] for entry in known.values()}
        run.facts["endpoint"] = {
            "address": self.address,
            "answered by": sorted(answered_by),
            "system": self.system,
            "example of a question": self._text(run.questions[0].prompt, run.words),
            "temperature": self.temperature,
            "max_tokens": self.max_tokens or run.limit,
        }
        if len(answered_by) > 1:
            run.warn(f"the server called its model by several names: {', '.join(sorted(answered_by))}")
        return [known[question]["text"] for question in run.questions.ids]

    def _keep(self, run: Run, waiting: dict[str, Future[tuple[str, str]]]) -> None:
        """Wait for the oldest question under way, and write its answer down."""
        name = next(iter(waiting))
        text, model = waiting.pop(name).result()
        run.journal.add(name, {"text": text, "model": model})

    def _text(self, prompt: str, words: Sequence[str]) -> str:
        told = self.instruction.replace("{words}", ", ".join(words))
        return f"{prompt} {told}".strip() if words else prompt

    def asked(self, question: Question, run: Run) -> dict[str, Any]:
        """Return one question as the protocol has it, its images as PNG inside."""
        content: list[dict[str, Any]] = []
        for image in question.images:
            file = io.BytesIO()
            image.save(file, "PNG")
            url = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
            content.append({"type": "image_url", "image_url": {"url": url}})
        content.append({"type": "text", "text": self._text(question.prompt, run.words)})
        messages = [{"role": "system", "content": self.system}] if self.system else []
        return {
            "model": self.model,
            "messages": [*messages, {"role": "user", "content": content}],
            "temperature": self.temperature,
            "max_tokens": self.max_tokens or run.limit,
            "seed": run.job.seed,
            "stream": False,
        }

    # ── the server ───────────────────────────────────────────────────────────────────────────────

    def server(self) -> SplitResult:
        """Return the address; raises FairbenchError for one that cannot be, or that is not this machine's."""
        address = _parts(self.address)
        if (
            not address
            or address.scheme not in ("http", "https")
            or not address.hostname
            or address.username
            or address.query
        ):
            raise FairbenchError(
                f"{self.name}.address = {self.address!r} is no address",
                "write http://HOST:PORT/v1; a key goes into an environment variable that `key_variable` names",
            )
        if not self.images_may_leave and not _is_here(address.hostname):
            raise FairbenchError(
                f"{self.name}.address = {self.address} is another machine: patients' images would leave this one",
                f"--set {self.name}.images_may_leave=true says that they may",
            )
        if self.key_variable and not os.environ.get(self.key_variable):
            raise FairbenchError(
                f"{self.name}.key_variable: {self.key_variable} is not set", f"export {self.key_variable}=…"
            )
        return address

    def ask(self, server: SplitResult, asked: dict[str, Any]) -> tuple[str, str]:
        """Return an answer and the name of the model that gave it; what may pass is tried again."""
        for pause in self._pauses():
            try:
                status, headers, body = self._post(server, asked)
            except (OSError, http.client.HTTPException) as error:
                reason, again = f"{type(error).__name__}: {error}", True
            else:
                if status == 200:
                    return _read(body, self.address)
                reason, again = f"status {status}: {_said(body)}", status in TRANSIENT
                pause = max(pause, _seconds(headers.get("Retry-After")))
            if not again or pause == float("inf"):
                break
            time.sleep(pause)
        raise FairbenchError(
            f"{self.address} does not answer ({reason})",
            "see that the server holds this model and takes images; --retry-failed goes on where it stopped",
        )

    def _pauses(self) -> Iterator[float]:
        """Yield the seconds to wait after each try that failed, doubling; infinity after the last."""
        yield from (min(2.0**number / 2, SLOWEST) for number in range(self.tries - 1))
        yield float("inf")

    def _post(self, server: SplitResult, asked: dict[str, Any]) -> tuple[int, Any, bytes]:
        # Not urllib: it would follow redirections, and the proxies that the environment names, to other machines.
        kind = http.client.HTTPSConnection if server.scheme == "https" else http.client.HTTPConnection
        until = time.monotonic() + self.timeout
        connection = kind(server.hostname or "", server.port, timeout=self.timeout)
        headers = {"Content-Type": "application/json"}
        if self.key_variable:
            headers["Authorization"] = f"Bearer {os.environ[self.key_variable]}"
        try:
            path = server.path.rstrip("/") + "/chat/completions"
            connection.request("POST", path, json.dumps(asked), headers)
            response = connection.getresponse()
            return response.status, response.headers, self._body(response, until)
        finally:
            connection.close()

    def _body(self, response: http.client.HTTPResponse, until: float) -> bytes:
        """Read a reply, in bounds: the connection's own timeout is begun anew with every byte that drips in."""
        body = bytearray()
        while piece := response.read1(1 << 16):
            body += piece
            if len(body) > LARGEST:
                raise FairbenchError(
                    f"{self.address} answers with more than {LARGEST >> 20} MiB", "does it speak OpenAI's protocol?"
                )
            if time.monotonic() > until:
                raise TimeoutError(f"no whole answer in {self.timeout:g} s")
        return bytes(body)


def _parts(address: str) -> SplitResult | None:
    """Return an address's parts; None where it leaves a bracket open, or its port is no number from 1 to 65535."""
    try:
        parts = urlsplit(address)
        return None if parts.port == 0 else parts
    except ValueError:
        return None


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _read(body: bytes, address: str) -> tuple[str, str]:
    try:
        answer = json.loads(body)
        text = answer["choices"][0]["message"]["content"]
        return str(text or "").strip(), str(answer.get("model", ""))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise FairbenchError(
            f"{address} answers what no chat completion is: {_said(body)}", "does it speak OpenAI's protocol?"
        ) from error


def _said(body: bytes) -> str:
    return " ".join(body[:300].decode("utf-8", "replace").split())


def _seconds(header: str | None) -> float:
    return min(float(header), SLOWEST) if header and header.isdigit() else 0.0


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer the method."""
    return [Endpoint]
