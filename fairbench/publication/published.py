"""A published leaderboard: the board, the records it was made from, how it was made, and who checked it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from fairbench.errors import FairbenchError
from fairbench.jobs.conversion import departures, from_json
from fairbench.jobs.job import Record
from fairbench.leaderboard.board import Board
from fairbench.publication.schema import check
from fairbench.statistics.results import RankBy

FORMAT = "fairbench-publication-1"
LARGEST = 64 << 20  # bytes of a file that is read at all
BEYOND = 1e300  # no number of a board is as large, and a hundred times as much must still be a number


@dataclass(frozen=True)
class Choices:
    """How a board was made of its runs: what `fairbench publish` was told."""

    attributes: tuple[str, ...] = ()
    min_cell: int = 0
    measure: str | None = None
    ranking: RankBy = "dominance"
    primary: tuple[str, ...] = ()
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """A published board that went into a merged one: its name, who published it, and the SHA-256 of its file."""

    name: str
    publisher: str
    sha256: str


@dataclass(frozen=True)
class Check:
    """That somebody ran `fairbench verify`, when, and how many jobs were predicted or trained again."""

    by: str
    date: str
    fairbench: str
    predicted: int = 0
    retrained: int = 0


@dataclass(frozen=True, kw_only=True)
class Publication:
    """A board as it is published. `published` is in UTC; `publisher` and `command` are what their writer says.

    `jobs` are the records of all jobs that the board was built from, without their free notes and error
    messages. `predictions`: whether every job's answers lie beside the file. A merged board has `parts`.
    """

    name: str
    published: str
    command: str
    board: Board
    jobs: tuple[Record, ...]
    publisher: str = ""
    choices: Choices = field(default_factory=Choices)
    predictions: bool = False
    parts: tuple[Part, ...] = ()
    checks: tuple[Check, ...] = ()

    @property
    def records(self) -> dict[str, list[Record]]:
        """The records by their job's key: several where laboratories ran the same job."""
        by_key: dict[str, list[Record]] = {}
        for record in self.jobs:
            by_key.setdefault(record.job.key, []).append(record)
        return by_key

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready object, without what equals its default."""
        plain: dict[str, Any] = json.loads(json.dumps(departures(self), allow_nan=False))
        return {"format": FORMAT, **plain}

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Rebuild a publication; raises FairbenchError, naming the place, for anything that is none."""
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            said = data.get("format") if isinstance(data, dict) else None
            raise FairbenchError(
                f"this is no published leaderboard of the format {FORMAT}"
                + (f", but {said!r:.60}" if said else ""),
                "`fairbench publish` writes one from a folder of runs",
            )
        check(cls, FORMAT, data)
        publication = from_json(cls, {key: value for key, value in data.items() if key != "format"})
        publication.board.check()
        return publication


def text(publication: Publication) -> str:
    """Write a publication as the text of its file."""
    return json.dumps(publication.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read(path: Path) -> Publication:
    """Read a publication that anybody may have written: bounded, every field checked, nothing twice.

    Raises FairbenchError naming the place of what is wrong.
    """
    data = _parsed(path)
    try:
        return Publication.from_json(data)
    except FairbenchError as error:
        raise FairbenchError(f"{path}: {error.message}", error.hint) from error
    except RecursionError as error:
        raise FairbenchError(f"{path}: it is nested too deeply", "no published board is") from error


def read_board(path: Path) -> Board:
    """Read the board of a publication, or one as `fairbench leaderboard --format json` writes it."""
    data = _parsed(path)
    try:
        published = isinstance(data, dict) and "format" in data
        return Publication.from_json(data).board if published else Board.from_json(data)
    except FairbenchError as error:
        raise FairbenchError(f"{path}: {error.message}", error.hint) from error


def _parsed(path: Path) -> Any:
    """Parse a JSON file of bounded size in which nothing stands twice."""
    try:
        if path.stat().st_size > LARGEST:
            raise FairbenchError(f"it is larger than {LARGEST >> 20} MiB", "no published board is")
        written = path.read_text(encoding="utf-8")
        data = json.loads(
            written, parse_constant=_no_number, parse_float=_number, parse_int=_whole, object_pairs_hook=_each_once
        )
        json.dumps(data, ensure_ascii=False).encode()  # half of a surrogate pair is no text
        return data
    except FairbenchError as error:
        raise FairbenchError(f"{path}: {error.message}", error.hint) from error
    except RecursionError as error:
        raise FairbenchError(f"{path}: it is nested too deeply", "no published board is") from error
    except OSError as error:
        raise FairbenchError(f"cannot read {path}: {error.strerror or error}", "name a published board") from error
    except ValueError as error:
        raise FairbenchError(
            f"{path} is not JSON: {error}", "give a file that `fairbench publish` wrote"
        ) from error


def _no_number(word: str) -> None:
    raise FairbenchError(f"{word} is no number", "write null for what is undefined")


def _number(written: str) -> float:
    number = float(written)
    if abs(number) > BEYOND:
        raise FairbenchError(f"{written:.40} is beyond what any measure is", "write null for what is undefined")
    return number


def _whole(written: str) -> int:
    _number(written)
    return int(written)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse an object that says one thing twice: readers would differ in which they take."""
    object_ = dict(pairs)
    if len(object_) < len(pairs):
        twice = next(key for key in object_ if [name for name, _ in pairs].count(key) > 1)
        raise FairbenchError(f"the field {twice!r:.60} stands twice in one object", "say it once")
    return object_
