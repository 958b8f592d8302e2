"""`python -m fairbench.benchmark.work FILE`: do what is left of some work; for launchers, which write the file."""

from __future__ import annotations

import sys
from pathlib import Path

from fairbench.benchmark.launch import default_workers, launch
from fairbench.benchmark.launcher import Work
from fairbench.errors import FairbenchError


def main(path: str) -> int:
    """Do the work that a file describes; return the process's status."""
    try:
        work = Work.read(Path(path))
        left = work.left()
        if left:
            launch(left, work.setup, default_workers(len(left)), lambda event: None)
    except FairbenchError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
