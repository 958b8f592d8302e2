"""Where jobs leave their results: `runs/<key>/`, written so that a kill at any moment loses at most one job."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from fairbench.errors import FairbenchError
from fairbench.jobs.job import Job, Record
from fairbench.jobs.probe import Probe, wants_probe
from fairbench.predictions.predictions import Predictions

RECORD, JOB, PREDICTIONS, LOG, ADAPTER = (
    "record.json",
    "job.json",
    "predictions.parquet",
    "log.jsonl",
    "adapter",
)


class Store:
    """A folder of finished and failed jobs, one subfolder each, named by the job's key.

    `record.json` is written last and by rename: where it is, the job is over.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def folder(self, job: Job) -> Path:
        """Return the folder of a job, which need not exist yet."""
        return self.root / job.key

    def record(self, job: Job) -> Record | None:
        """Return a job's record, or None while it has not ended."""
        path = self.folder(job) / RECORD
        return read_record(path) if path.exists() else None

    def records(self) -> list[Record]:
        """Return all records, in the order of their keys."""
        if not self.root.is_dir():
            raise FairbenchError(
                f"{self.root} is not a folder of runs", "`fairbench run` makes one; name it with --out"
            )
        return [read_record(path) for path in sorted(self.root.glob(f"*/{RECORD}"))]

    def predictions(self, record: Record, split: str = "test") -> Predictions:
        """Return the predictions of a finished job."""
        return Predictions.load(self.folder(record.job) / PREDICTIONS, split=split)

    def missing(self, jobs: Iterable[Job], retry_failed: bool = False, probe: Probe | None = None) -> list[Job]:
        """Return the jobs that have no record yet (or, on request, a failed one, or one without this probe)."""

        def wanted(job: Job) -> bool:
            record = self.record(job)
            return record is None or (retry_failed and record.failed) or wants_probe(record, probe)

        return [job for job in jobs if wanted(job)]

    @contextlib.contextmanager
    def lease(self, job: Job) -> Iterator[bool]:
        """Hold a job while it runs; yields False when another process holds it.

        The operating system releases the lock when its holder dies, however it dies.
        """
        folder = self.root / ".leases"
        lock = FileLock(folder / f"{job.key}.lock")
        held = True
        with self.writing():
            folder.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                held = False
        try:
            yield held
        finally:
            lock.release()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Turn the system's refusal to write in here into an error that says what to do."""
        try:
            yield
        except OSError as error:
            if says_full(error):
                raise self.full() from error
            raise FairbenchError(
                f"cannot write to {self.root}: {error.strerror or error}", "choose another folder with --out"
            ) from error

    def full(self) -> FairbenchError:
        """Build the error for a disk that takes no more."""
        return FairbenchError(
            f"the disk that holds {self.root} is full; finished jobs are safe",
            "make room and run the same command again",
        )

    def prepare(self, job: Job) -> Path:
        """Empty a job's folder of what an interrupted or failed attempt left, and describe the job in it."""
        folder = self.folder(job)
        with self.writing():
            if folder.exists():
                shutil.rmtree(folder)
            folder.mkdir(parents=True)
            write_json(folder / JOB, job.to_json())
        return folder

    def forget_failure(self, job: Job) -> None:
        """Make a failed job one that has not run; nothing happens while another process runs it."""
        with self.lease(job) as held:
            record = self.record(job) if held else None
            if record is not None and record.failed:
                self.prepare(job)

    def save(self, record: Record) -> None:
        """Write a job's record, which ends the job."""
        with self.writing():
            write_json(self.folder(record.job) / RECORD, record.to_json())


def says_full(error: BaseException) -> bool:
    """Whether an error says that the disk is full; safetensors says so in words only."""
    number = error.errno if isinstance(error, OSError) else None
    return number in (errno.ENOSPC, errno.EDQUOT) or f"(os error {errno.ENOSPC})" in str(error)


def write_json(path: Path, data: object) -> None:
    """Write JSON so that the file is either there whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(data, file, indent=1, ensure_ascii=False, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_record(path: Path) -> Record:
    """Read one record; raises FairbenchError naming a file that is not one."""
    try:
        return Record.from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise FairbenchError(
            f"{path.parent} has no {path.name}: no job has ended in there", "name a job's folder: RUNS/KEY"
        ) from error
    except (OSError, ValueError) as error:
        raise FairbenchError(f"cannot read {path}: {error}", "delete its folder to run the job again") from error
    except FairbenchError as error:
        raise FairbenchError(
            f"{path}: {error.message}", error.hint or "delete its folder to run the job again"
        ) from error
