"""A leaderboard as JSON: the whole table model, from which every other format can be made again."""

from __future__ import annotations

import json
from pathlib import Path

from fairbench.errors import FairbenchError
from fairbench.leaderboard.board import Board


def render(board: Board) -> str:
    """Write the board as JSON; values are fractions, times seconds, memory bytes."""
    return json.dumps(board.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read(path: str | Path) -> Board:
    """Read a board that `render` wrote; raises FairbenchError for anything else."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FairbenchError(f"cannot read {path} as a leaderboard: {error}") from error
    return Board.from_json(data)
