"""Where jobs leave their results: `runs/<key>/`, written so that a kill at any moment loses at most one job."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

from filelock import FileLock, Timeout

from fairbench.cache import Cache, cache_folder, settled, signature
from fairbench.errors import FairbenchError, said
from fairbench.jobs.conversion import read_json
from fairbench.jobs.job import Job, Record
from fairbench.jobs.probe import Probe, wants_probe
from fairbench.jobs.remote import Remote, url_of
from fairbench.jobs.summary import Overview, Refused, Summary
from fairbench.predictions.predictions import Predictions

RECORD, JOB, PREDICTIONS, LOG, TRACEBACK, ADAPTER, LEASES, FEATURES, TRACKED, ATTEMPTS, CHECKPOINTS, ANSWERS = (
    "record.json",
    "job.json",
    "predictions.parquet",
    "log.jsonl",
    "traceback.txt",
    "adapter",
    ".leases",
    ".features",
    ".tracked",
    "attempts.txt",
    "checkpoints",
    "answers.jsonl",
)
WORK = ".work"
TRAININGS = ".trainings"
SURVIVING = (ATTEMPTS, CHECKPOINTS, LOG, ANSWERS)  # what the next attempt at a job goes on from
PLAN = ".plan.json"
DEATHS = 2  # of a job's process, after which the job has failed
ASIDE = "what lies beside it is untouched; move the folder elsewhere to run the job again"


@dataclass(frozen=True)
class Contents:
    """What a folder of runs holds: jobs that ended, jobs that were only begun, and what cannot be believed."""

    records: tuple[Record, ...]
    begun: tuple[Job, ...]
    refused: tuple[Refused, ...]


class Store:
    """A folder of finished and failed jobs, one subfolder each, named by the job's key.

    `record.json` is written last and by rename: where it is, the job is over.
    """

    def __init__(self, root: str | Path) -> None:
        url = url_of(str(root))
        self.name = url or str(root)
        self.remote = Remote(url) if url else None
        # What a URL holds has its like on this machine. A plugin may change the working directory.
        local = cache_folder("runs", hashlib.sha256(url.encode()).hexdigest()[:16]) if url else Path(root)
        self.root = local.absolute()

    @property
    def address(self) -> str:
        """What another process opens the same results with."""
        return self.name if self.remote else str(self.root)

    # ── layout ───────────────────────────────────────────────────────────────────────────────────

    def folder(self, job: Job) -> Path:
        """Return the folder of a job, which need not exist yet."""
        return self.root / job.key

    def predictions_file(self, job: Job) -> Path:
        """Return where a job's predictions go."""
        return self.folder(job) / PREDICTIONS

    def adapter_folder(self, job: Job) -> Path:
        """Return where a job's trained weights go."""
        return self.folder(job) / ADAPTER

    def log_file(self, job: Job) -> Path:
        """Return where a job's losses go, a JSON object a line."""
        return self.folder(job) / LOG

    def traceback_file(self, job: Job) -> Path:
        """Return where the traceback of an unexpected error goes."""
        return self.folder(job) / TRACEBACK

    def checkpoint_folder(self, job: Job) -> Path:
        """Return where a job under way leaves what it can go on from."""
        return self.folder(job) / CHECKPOINTS

    def answers_file(self, job: Job) -> Path:
        """Return where the answers of a model elsewhere are kept as they come."""
        return self.folder(job) / ANSWERS

    @property
    def trackers_folder(self) -> Path:
        """Return where trackers that write files write those of all jobs."""
        return self.root / TRACKED

    @property
    def work_folder(self) -> Path:
        """Return where launchers leave what other processes are to do, and their logs."""
        return self.root / WORK

    def features_folder(self, name: str) -> Path:
        """Return where the vision features of one dataset by one backbone are kept for all jobs."""
        return self.root / FEATURES / name

    def training_file(self, name: str) -> Path:
        """Return where it is noted which job trained what several jobs share."""
        return self.root / TRAININGS / f"{name}.json"

    def sheet(self, benchmark: str, kind: str) -> Path:
        """Return where a benchmark's leaderboard (`md`, `json`) or the benchmark itself (`toml`) goes."""
        return self.root / f"{benchmark}.{kind}"

    @property
    def _plan_file(self) -> Path:
        return self.root / PLAN

    # ── reading ──────────────────────────────────────────────────────────────────────────────────

    def ended(self, job: Job) -> Record | Refused | None:
        """Return a job's record, or why it is refused, or None while the job has not ended."""
        path = self.folder(job) / RECORD
        there = path.exists() or (self.remote is not None and self.remote.fetch(f"{job.key}/{RECORD}", path))
        return _record(path) if there else None

    def record(self, job: Job) -> Record | None:
        """Return a job's record, or None while it has not ended; raises FairbenchError for a refused one."""
        ended = self.ended(job)
        if isinstance(ended, Refused):
            raise FairbenchError(str(ended), ASIDE)
        return ended

    def contents(self) -> Contents:
        """Read every job's folder, in the order of their keys; what cannot be believed stops nothing else."""
        records, begun, refused = [], [], []
        for folder, over in self._folders():
            content = _record(folder / RECORD) if over else _begun(folder / JOB)
            if isinstance(content, Refused):
                refused.append(_owned(content))
            elif isinstance(content, Record):
                records.append(content)
            else:
                begun.append(content)
        return Contents(tuple(records), tuple(begun), tuple(refused))

    def overview(self) -> Overview:
        """Say what `contents` would find, reading only records that are new since somebody last looked."""
        kind, cache = f"summary {' '.join(one.name for one in fields(Summary))} {self.root}", Cache()
        known = cache.read(kind)
        ended: dict[str, Summary] = {}
        refused: dict[str, Refused] = {}
        begun, unclear, new = [], [], {}
        for folder, over in self._folders():
            stamp = signature(over) if over else ""
            if over and known.get(folder.name, ("", b""))[0] == stamp:
                ended[folder.name] = Summary.from_bytes(known[folder.name][1])
                continue
            content = _summary(folder / RECORD) if over else _begun(folder / JOB)
            if isinstance(content, Refused) and over:
                refused[folder.name] = _owned(content)
            elif isinstance(content, Refused):
                unclear.append(content)
            elif isinstance(content, Job):
                begun.append(content)
            else:
                ended[folder.name] = content
                if over and settled(over):
                    new[folder.name] = stamp, content.to_bytes()
        cache.write(kind, new)
        return Overview(ended, tuple(begun), refused, tuple(unclear))

    def _folders(self) -> Iterator[tuple[Path, os.stat_result | None]]:
        """Yield every job's folder, by name, with the state of its record, None while it has none."""
        if self.remote:
            self._synchronise(self.remote)
        if not self.root.is_dir():
            raise FairbenchError(
                f"{self.name} is not a folder of runs", "`fairbench run` makes one; name it with --out"
            )
        for name in sorted(entry.name for entry in os.scandir(self.root) if entry.is_dir()):
            folder = self.root / name
            try:
                yield folder, os.stat(f"{self.root}/{name}/{RECORD}")
            except OSError:
                if (folder / JOB).exists():
                    yield folder, None

    def _synchronise(self, remote: Remote) -> None:
        """Fetch the records that are there and not here, and send the jobs that ended here and are not there."""
        self.root.mkdir(parents=True, exist_ok=True)
        there = set(remote.records(RECORD))
        here = {path.parent.name for path in self.root.glob(f"*/{RECORD}")}
        for key in sorted(there - here):
            remote.fetch(f"{key}/{RECORD}", self.root / key / RECORD)
        for key in sorted(here - there):
            self._send(remote, self.root / key)

    def _send(self, remote: Remote, folder: Path) -> None:
        """Send a job that ended: its record last, so that it is over there when all of it is there."""
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        wanted = [path for path in files if not {ATTEMPTS, CHECKPOINTS} & {*path.relative_to(folder).parts}]
        remote.send(sorted(wanted, key=lambda path: path == folder / RECORD), self.root)

    def _here(self, key: str, name: str) -> Path:
        """Return where a file of a job lies, fetched where results are elsewhere."""
        path = self.root / key / name
        if self.remote and not path.exists():
            self.remote.fetch(f"{key}/{name}", path)
        return path

    def predictions(self, record: Record, split: str | None = "test") -> Predictions:
        """Return the predictions of a finished job; raises FairbenchError when they are not those of its record."""
        self._check(record, PREDICTIONS)
        return Predictions.load(self.predictions_file(record.job), split=split)

    def adapter(self, record: Record) -> Path:
        """Return the folder of a job's trained weights; raises FairbenchError when they are not its record's."""
        for name in record.files:
            if name.startswith(f"{ADAPTER}/"):
                self._check(record, name)
        return self.adapter_folder(record.job)

    def has_adapter(self, record: Record) -> bool:
        """Whether the trained weights that a record names are kept here; one that names none lacks none."""
        named = any(name.startswith(f"{ADAPTER}/") for name in record.files)
        return not named or self.remote is not None or self.adapter_folder(record.job).is_dir()

    def check_files(self, record: Record, adapters: bool = True) -> None:
        """Hash all that a record names; raises FairbenchError for the first that is not what it names.

        `adapters`: the trained weights, too.
        """
        for name in record.files:
            if adapters or not name.startswith(f"{ADAPTER}/"):
                self._check(record, name)

    def _check(self, record: Record, name: str) -> None:
        path = self._here(record.job.key, name)
        if name not in record.files:
            raise FairbenchError(f"the record of {record.job.title} ({path.parent}) names no {name}", ASIDE)
        try:
            now = digest(path)
        except OSError as error:
            raise FairbenchError(f"cannot read {path}: {error.strerror or error}") from error
        if now != record.files[name]:
            raise FairbenchError(
                f"{path} is not what its record describes: it was damaged or changed, or is another job's",
                "put the right file back, or move the folder elsewhere to run the job again",
            )

    def planned(self) -> tuple[Job, ...]:
        """Return the jobs of the sweep that was started last; none where that is not known."""
        try:
            return _plan(self._plan_file, self._plan_file.stat().st_mtime_ns)
        except (FairbenchError, OSError, TypeError):  # no sweep was started here, or by another version
            return ()

    def missing(self, jobs: Iterable[Job], retry_failed: bool = False, probe: Probe | None = None) -> list[Job]:
        """Return the jobs that have no record yet (or, on request, a failed one, or one without this probe)."""
        if not self.root.is_dir() and not self.remote:
            return list(jobs)
        overview = self.overview()

        def wanted(job: Job) -> bool:
            if job.key in overview.refused:
                return False  # running it again would overwrite what may be intact
            summary = overview.ended.get(job.key)
            if summary is None or summary.error is not None:
                return summary is None or retry_failed
            ended = self.ended(job) if probe else None
            return isinstance(ended, Record) and wants_probe(ended, probe)

        return [job for job in jobs if wanted(job)]

    def refused(self, jobs: Iterable[Job]) -> list[Refused]:
        """Return which of these jobs have a record that is refused, or predictions that are not their record's."""
        if not self.root.is_dir() and not self.remote:
            return []
        overview, refusals = self.overview(), []
        mine = {job.key: job for job in jobs}
        finished = {key: one for key, one in overview.ended.items() if key in mine and one.error is None}
        digests = self.digests(finished)
        for key, job in mine.items():
            if key in overview.refused:
                refusals.append(overview.refused[key])
            elif key in finished and digests.get(key) != finished[key].predictions:
                ended = self.ended(job)
                if isinstance(ended, Record):
                    refusals += self._damage(ended)
        return refusals

    def _damage(self, record: Record) -> list[Refused]:
        try:
            self._check(record, PREDICTIONS)
        except FairbenchError as error:
            return [Refused(self.folder(record.job) / RECORD, error.message, record.job)]
        return []

    def digests(self, keys: Iterable[str]) -> dict[str, str]:
        """Return the SHA-256 of jobs' predictions files, by key; those that did not change are not read again."""
        kind, cache = f"predictions {self.root}", Cache()
        known, new, digests = cache.read(kind), {}, {}
        for key in keys:
            path = self._here(key, PREDICTIONS)
            try:
                state = os.stat(path)
                stamp, hashed = known.get(key, ("", b""))
                digests[key] = hashed.decode() if stamp == signature(state) else digest(path)
            except OSError:
                continue
            if stamp != signature(state) and settled(state):
                new[key] = signature(state), digests[key].encode()
        cache.write(kind, new)
        return digests

    def has_predictions(self, key: str) -> bool:
        """Whether a file of predictions is kept for the job with this key; where results are elsewhere, there."""
        return self.remote is not None or os.path.exists(f"{self.root}/{key}/{PREDICTIONS}")

    def stored(self, key: str) -> tuple[Record, str] | Refused:
        """Return the record of the job with this key and the record's SHA-256, or why it is refused."""
        return _stored(self.root / key / RECORD)

    # ── writing ──────────────────────────────────────────────────────────────────────────────────

    @contextlib.contextmanager
    def lease(self, job: Job) -> Iterator[bool]:
        """Hold a job while it runs; yields False when another process holds it.

        The operating system releases the lock when its holder dies, however it dies.
        """
        lock = FileLock(self._lease_file(job.key))
        held = True
        with self.writing():
            self._lease_file(job.key).parent.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                held = False
        try:
            yield held
        finally:
            lock.release()

    @contextlib.contextmanager
    def training(self, name: str) -> Iterator[None]:
        """Hold a training that several jobs share, waiting while another process is at it."""
        lock = FileLock(self._lease_file(name))
        with self.writing():
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def held(self, job: Job) -> bool:
        """Whether a process is at work on the job."""
        return self._is_locked(job.key)

    def training_held(self, name: str) -> bool:
        """Whether a process is at a training that several jobs share."""
        return self._is_locked(name)

    def _is_locked(self, name: str) -> bool:
        """Whether a process holds a lock; looks without leaving a lock file behind."""
        if not self._lease_file(name).exists():
            return False
        lock = FileLock(self._lease_file(name))
        with self.writing():
            try:
                lock.acquire(timeout=0)
            except Timeout:
                return True
        lock.release()
        return False

    def _lease_file(self, name: str) -> Path:
        return self.root / LEASES / f"{name}.lock"

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Turn the system's refusal to write in here into an error that says what to do."""
        try:
            yield
        except OSError as error:
            if says_full(error):
                raise self.full() from error
            raise FairbenchError(
                f"cannot write to {self.name}: {error.strerror or error}", "choose another folder with --out"
            ) from error

    def full(self) -> FairbenchError:
        """Build the error for a disk that takes no more."""
        return FairbenchError(
            f"the disk that holds {self.name} is full; finished jobs are safe",
            "make room and run the same command again",
        )

    def announce(self, jobs: Iterable[Job]) -> None:
        """Write down which jobs a sweep is going to run, for who watches it."""
        with self.writing():
            write_json(self._plan_file, [job.to_json() for job in jobs])

    def prepare(self, job: Job) -> Path:
        """Begin an attempt at a job: describe it in its folder, and keep of earlier ones what it can go on from."""
        folder = self.folder(job)
        with self.writing():
            folder.mkdir(parents=True, exist_ok=True)
            _clear(folder, SURVIVING)
            write_json(folder / JOB, job.to_json())
            _append(folder / ATTEMPTS, "begun")
        return folder

    def attempts(self, job: Job) -> int:
        """Return how often a job that has not ended was begun."""
        return self._attempts(job).count("begun")

    def deaths(self, job: Job) -> list[str]:
        """Return how the processes ended that died of a job which has not ended, oldest first."""
        return [line for line in self._attempts(job) if line != "begun"]

    def note_death(self, job: Job, cause: str) -> None:
        """Write down that a job's process died, for whoever comes next."""
        with self.writing():
            if self.folder(job).is_dir():
                _append(self.folder(job) / ATTEMPTS, cause)

    def _attempts(self, job: Job) -> list[str]:
        path = self.folder(job) / ATTEMPTS
        try:
            return path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []

    def forget_failure(self, job: Job) -> None:
        """Make a failed job one that has not run; nothing happens while another process runs it."""
        with self.lease(job) as held:
            record = self.ended(job) if held else None
            if isinstance(record, Record) and record.failed:
                if self.remote:
                    self.remote.delete(f"{job.key}/{RECORD}")
                with self.writing():
                    _clear(self.folder(job), (ANSWERS,))
                    write_json(self.folder(job) / JOB, job.to_json())

    def save(self, record: Record) -> Record:
        """Write a job's record, which ends the job, once all that lies beside it is on disk and hashed in it."""
        folder = self.folder(record.job)
        with self.writing():
            files = [folder / PREDICTIONS, folder / LOG, *sorted((folder / ADAPTER).glob("*"))]
            kept = [file for file in files if file.is_file()]
            sealed = replace(record, files={str(file.relative_to(folder).as_posix()): _seal(file) for file in kept})
            for directory in {file.parent for file in kept}:
                _sync(directory)
            write_json(folder / RECORD, sealed.to_json())
            _sync(folder)
        with contextlib.suppress(OSError):  # the job is over, whatever becomes of these
            (folder / ATTEMPTS).unlink(missing_ok=True)
            shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
        if self.remote:
            self._send(self.remote, folder)
        return sealed

    def amend(self, record: Record) -> None:
        """Write a finished job's record again, with more in it; what lies beside it must be what it describes."""
        with self.writing():
            write_json(self.folder(record.job) / RECORD, record.to_json())
        if self.remote:
            self._send(self.remote, self.folder(record.job))

    def send_sheets(self, benchmark: str) -> None:
        """Send a benchmark and its leaderboard to where the results are, if that is not here."""
        if self.remote:
            sheets = [self.sheet(benchmark, kind) for kind in ("toml", "md", "json")]
            self.remote.send([path for path in sheets if path.exists()], self.root)


def job_at(folder: Path) -> tuple[Store, Record]:
    """Return the folder of runs and the record in a job's own folder, RUNS/KEY; raises FairbenchError without."""
    path = folder / RECORD
    if not path.exists():
        raise FairbenchError(
            f"{folder} has no {RECORD}: no job has ended in there", "name a job's folder: RUNS/KEY"
        )
    record = _record(path)
    if isinstance(record, Refused):
        raise FairbenchError(str(record), ASIDE)
    return Store(folder.parent), record


def is_job(folder: Path) -> bool:
    """Whether this is the folder of one job that ended, not one of runs."""
    return (folder / RECORD).exists()


def _record(path: Path) -> Record | Refused:
    stored = _stored(path)
    return stored if isinstance(stored, Refused) else stored[0]


def _stored(path: Path) -> tuple[Record, str] | Refused:
    """Read a record, and hash what was read."""
    try:
        data, digest = read_json(path)
        record = Record.from_json(data)
    except FairbenchError as error:
        return Refused(path, error.message)
    if record.job.key != path.absolute().parent.name:
        return Refused(path, f"it is the record of another job: {record.job.title} ({record.job.key})")
    return record, digest


def _summary(path: Path) -> Summary | Refused:
    stored = _stored(path)
    return stored if isinstance(stored, Refused) else Summary.of(*stored, stored[0].files.get(PREDICTIONS, ""))


def _owned(refused: Refused) -> Refused:
    """Say whose a refused record is, where the job's description beside it tells."""
    described = _begun(refused.path.parent / JOB)
    return replace(refused, job=described if isinstance(described, Job) else None)


def _begun(path: Path) -> Job | Refused:
    try:
        job = Job.from_json(read_json(path)[0])
    except FairbenchError as error:
        return Refused(path, error.message)
    if job.key != path.absolute().parent.name:
        return Refused(path, f"it describes another job: {job.title} ({job.key})")
    return job


@functools.lru_cache(maxsize=1)
def _plan(path: Path, changed: int) -> tuple[Job, ...]:
    """Read a plan once, until its file's time of change is another."""
    return tuple(Job.from_json(job) for job in read_json(path)[0])


def _clear(folder: Path, kept: tuple[str, ...]) -> None:
    """Delete what a folder holds, but for some names; the record goes first, so that the job is not over."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name != RECORD):
        if path.name in kept:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _append(path: Path, line: str) -> None:
    """Add a line in one write, so that several processes may."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, f"{line}\n".encode("utf-8", "backslashreplace"))
    finally:
        os.close(descriptor)


def says_full(error: BaseException) -> bool:
    """Whether an error says that the disk is full; safetensors says so in words only."""
    number = error.errno if isinstance(error, OSError) else None
    return number in (errno.ENOSPC, errno.EDQUOT) or f"(os error {errno.ENOSPC})" in said(error)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _seal(path: Path) -> str:
    """Bring a file to disk for good, and return its hash."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return digest(path)


def _sync(folder: Path) -> None:
    """Bring a folder's names to disk for good, where the system can."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_json(path: Path, data: object) -> None:
    """Write JSON so that the file is either there whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
            json.dump(data, file, indent=1, ensure_ascii=False, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
