"""A folder of runs as a page that keeps itself current, for this machine's own browser and nobody else."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from fairbench import __version__
from fairbench.errors import FairbenchError, named
from fairbench.jobs.job import Job
from fairbench.jobs.store import RECORD, Store
from fairbench.jobs.sweep import sweep
from fairbench.leaderboard.board import Board
from fairbench.leaderboard.build import build
from fairbench.leaderboard.details import TableDetails, details, loss_curve
from fairbench.metrics.metric import Metric
from fairbench.report import page
from fairbench.report.format import plain

ADDRESS = "127.0.0.1"
PAUSE = 1.0  # seconds between two looks at the folder
SHARE = 0.1  # of the time that may go into building boards while jobs need the processor
LISTED = 50  # waiting jobs that are named
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
Json = dict[str, Any]


@dataclass
class Watched:
    """A folder of runs and the page of what it held when it was last looked at."""

    store: Store
    metrics: Sequence[Metric] = ()
    text: str = ""
    version: int = 0
    problem: str = ""
    seen: object = None
    ended: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._show()

    def refresh(self) -> None:
        """Build the page anew where a job has ended since; where that fails, say why and leave it as it is."""
        seen = None
        try:
            seen = self._records()
            if seen == self.seen:
                return
            if seen:
                board = build(self.store, title=self.store.name, metrics=self.metrics)
                self._show(board, details(self.store, board, self.metrics))
            else:
                self._show()
            self.problem = ""
        except Exception as error:  # whatever a disk, record or metric does, the sweep is still worth watching
            self.problem = error.message if isinstance(error, FairbenchError) else named(error)
        self.seen = seen

    def _records(self) -> list[tuple[str, int]]:
        """Return which jobs have ended, and when."""
        records = []
        for path in sorted(self.store.root.glob(f"*/{RECORD}")):
            with contextlib.suppress(FileNotFoundError):  # a failure that is run again
                records.append((path.parent.name, path.stat().st_mtime_ns))
        return records

    def _show(self, board: Board | None = None, drawn: Sequence[TableDetails] | None = None) -> None:
        """Draw a board, None for one without a table."""
        board = board or Board(plain(self.store.name), (), __version__)
        self.text = page.render(board, drawn, live=str(self.version + 1))
        self.version += 1

    def watch(self) -> None:
        """Refresh until the server ends, and leave the processor to the jobs most of the time."""
        while not self.ended.is_set():
            start = time.monotonic()
            self.refresh()
            self.ended.wait(max(PAUSE, (time.monotonic() - start) * (1 - SHARE) / SHARE))

    def state(self) -> Json:
        """Say what the page shows of the sweep: names and losses, nothing of any patient."""
        now = sweep(self.store)
        return {
            "version": str(self.version),
            "problem": plain(self.problem),
            "total": now.total,
            "ended": len(now.ended),
            "left": now.left,
            "running": [
                {"name": _name(one.job), "seconds": one.seconds, "losses": loss_curve(self.store, one.job)}
                for one in now.running
            ],
            "waiting": [_name(job) for job in now.waiting[:LISTED]],
            "failed": [plain(f"{one.title}: {one.error}") for one in now.ended if one.error is not None],
        }


def _name(job: Job) -> str:
    return plain(job.title)


class Handler(BaseHTTPRequestHandler):
    """Answer GET for the page and its state, to who asks this machine by its own name."""

    server_version, sys_version = "fairbench", ""

    def __init__(self, watched: Watched, *rest: Any) -> None:
        self.watched = watched
        super().__init__(*rest)

    def do_GET(self) -> None:
        """Answer one request. A foreign Host is refused: it is how a web site reaches local servers."""
        _, port = self.connection.getsockname()
        if self.headers.get("Host") not in (f"{ADDRESS}:{port}", f"localhost:{port}"):
            self._answer(HTTPStatus.FORBIDDEN, "text/plain", "ask for 127.0.0.1 by this name")
        elif self.path == "/":
            self._answer(HTTPStatus.OK, "text/html", self.watched.text)
        elif self.path == "/state.json":
            self._answer(HTTPStatus.OK, "application/json", json.dumps(self.watched.state()))
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", "there is / and /state.json")

    def _answer(self, status: HTTPStatus, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # the browser has gone
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Print no line for each request."""


class Server(ThreadingHTTPServer):
    """The server of one folder; `with` it the folder is watched. Raises FairbenchError for a port that is taken."""

    daemon_threads = True

    def __init__(self, store: Store, port: int, metrics: Sequence[Metric] = ()) -> None:
        store.contents()  # what is no folder of runs is an error now
        self.watched = Watched(store, metrics)
        try:
            super().__init__((ADDRESS, port), partial(Handler, self.watched))
        except OSError as error:
            raise FairbenchError(
                f"cannot listen on port {port}: {error.strerror}", "choose another --port"
            ) from error
        self.watched.refresh()
        self.watcher = threading.Thread(target=self.watched.watch, daemon=True)
        self.watcher.start()

    @property
    def address(self) -> str:
        """Where a browser finds it."""
        return f"http://{ADDRESS}:{self.server_port}/"

    def server_close(self) -> None:
        """Stop watching and let go of the port."""
        self.watched.ended.set()
        super().server_close()
