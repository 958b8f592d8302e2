"""What can be computed again, kept in the user's cache folder: never the truth, and nothing is lost with it.

The database is SQLite: several processes read and write it at once, look-ups are by key, and Python brings it.
(DuckDB lets one process write and locks the others out.) It lies in the cache folder, on this machine's disk, and
not among the results, whose shared folder may have no locks that SQLite could trust.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import os
import sqlite3
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import platformdirs

CACHE = "FAIRBENCH_CACHE"
KEPT = 90.0  # days after which what nobody asked for is let go
MOST = 2 << 30  # bytes of all values together; of more, what was not used longest goes
WAIT = 10.0  # seconds for another process to finish writing
FRESH = 1.0  # seconds in which a file may change again without its time of change moving
LAYOUT = (
    "CREATE TABLE IF NOT EXISTS entries (kind TEXT, name TEXT, stamp TEXT, value BLOB, sum INTEGER, day INTEGER, "
    "PRIMARY KEY (kind, name))"
)


def cache_folder(*parts: str) -> Path:
    """Return a folder for what can be made again: under FAIRBENCH_CACHE, else the user's cache folder."""
    chosen = os.environ.get(CACHE)
    base = Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("fairbench", appauthor=False))
    return base.joinpath(*parts)


class Cache:
    """Values by kind and name, each with the `stamp` of what it was made from; a miss is never an error.

    A database that is damaged is thrown away, one that cannot be read or written is done without.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or cache_folder("results-1.sqlite")

    def read(self, kind: str, names: Iterable[str] | None = None) -> dict[str, tuple[str, bytes]]:
        """Return (stamp, value) by name, of the `names` (default: all of the kind) that are there and undamaged."""
        values: dict[str, tuple[str, bytes]] = {}
        select = "SELECT name, stamp, value, sum FROM entries WHERE kind = ?"
        asked: list[tuple[str, ...]] = [(kind,)]
        if names is not None:
            select, asked = f"{select} AND name = ?", [(kind, name) for name in names]

        def look(database: sqlite3.Connection) -> None:
            for one in asked:
                for name, stamp, value, total in database.execute(select, one):
                    if zlib.crc32(value) == total:
                        values[name] = stamp, value

        if self.path.exists():
            self._do(look)
        return values

    def write(self, kind: str, entries: Mapping[str, tuple[str, bytes]]) -> None:
        """Keep (stamp, value) by name, all of them or none."""
        day = _today()
        rows = [(kind, name, stamp, value, zlib.crc32(value), day) for name, (stamp, value) in entries.items()]

        def keep(database: sqlite3.Connection) -> None:
            database.execute(LAYOUT)
            database.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?)", rows)
            database.execute("DELETE FROM entries WHERE day < ?", (day - KEPT,))
            _shrink(database)

        if rows:
            with contextlib.suppress(OSError):
                self.path.parent.mkdir(parents=True, exist_ok=True)
            self._do(keep)

    def touch(self, kind: str, names: Iterable[str]) -> None:
        """Say that values were of use today."""
        day = _today()
        update = "UPDATE entries SET day = ? WHERE kind = ? AND name = ? AND day < ?"
        if rows := [(day, kind, name, day) for name in names]:
            self._do(lambda database: database.executemany(update, rows))

    def _do(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """Do something whose changes hold together; what the database refuses is done without."""
        try:
            connection = sqlite3.connect(self.path, timeout=WAIT)
        except sqlite3.Error:
            return
        try:
            with connection:
                connection.execute("PRAGMA synchronous = OFF")  # what a power cut damages is made again
                work(connection)
        except sqlite3.OperationalError:  # locked, read-only, full, nothing in it yet
            pass
        except sqlite3.DatabaseError:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)
        finally:
            connection.close()


def _today() -> int:
    return int(time.time() // 86400)


def _shrink(database: sqlite3.Connection) -> None:
    """Let go of what was used longest ago while all values together are too much, never of what came last."""
    total = "SELECT rowid, SUM(LENGTH(value)) OVER (ORDER BY day DESC, rowid DESC) AS total FROM entries"
    over = f"SELECT rowid FROM ({total}) WHERE total > ? AND rowid <> last_insert_rowid()"
    database.execute(f"DELETE FROM entries WHERE rowid IN ({over})", (MOST,))


def signature(status: os.stat_result) -> str:
    """Say which state of a file this is, without reading it: another size, time or inode is another file."""
    return f"{status.st_size}.{status.st_mtime_ns}.{status.st_ctime_ns}.{status.st_ino}"


def settled(status: os.stat_result) -> bool:
    """Whether a later change of the file is sure to show in its signature."""
    return time.time() - status.st_ctime > FRESH


def code_of(module: str) -> str:
    """Hash a module's file, and those of its own package which that one imports; empty where there is none.

    An editable package changes under one version. What is imported only when a function runs is not seen.
    """
    first = sys.modules.get(module)
    if first is None:
        return ""
    package = first.__name__.partition(".")[0]
    modules, waiting = {first.__name__: first}, [first]
    while waiting and package != __name__.partition(".")[0]:
        for value in list(vars(waiting.pop()).values()):
            name = value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", None)
            own = isinstance(name, str) and name.partition(".")[0] == package
            if own and name not in modules and name in sys.modules:
                modules[name] = sys.modules[name]
                waiting.append(modules[name])
    digest = hashlib.sha256()
    for name, loaded in sorted(modules.items()):
        path = getattr(loaded, "__file__", None)
        if path is not None and os.path.isfile(path):
            digest.update(
                f"{name.removeprefix(package)}\0".encode() + Path(path).read_bytes().replace(b"\r\n", b"\n")
            )
    return digest.hexdigest()[:12]
