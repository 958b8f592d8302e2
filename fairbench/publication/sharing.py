"""What of a folder of runs may be shown to others, and the same from files that others showed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fairbench.errors import FairbenchError
from fairbench.jobs.job import Record
from fairbench.jobs.store import PREDICTIONS, Contents, Store, digest
from fairbench.jobs.summary import Refused
from fairbench.predictions.predictions import Predictions

WITHHELD = "it ended in an error; its record, which stays where it ran, says which"


def shareable(record: Record) -> Record:
    """Leave out what nobody has looked through for patients: free notes, warnings, and an error's message."""
    return replace(record, facts={}, warnings=(), error=WITHHELD if record.failed else None)


@dataclass(frozen=True)
class Shareable:
    """A folder of runs whose records and reasons name no file and quote no error."""

    store: Store

    @property
    def name(self) -> str:
        """What the folder is called."""
        return self.store.name

    def contents(self) -> Contents:
        """Return the folder's contents as they may be shown."""
        stored = self.store.contents()
        refused = [Refused(Path(one.key), "it cannot be believed", one.job) for one in stored.refused]
        return Contents(tuple(map(shareable, stored.records)), stored.begun, tuple(refused))

    def predictions(self, record: Record) -> Predictions:
        """Return the test predictions; the reason why there are none names no file."""
        try:
            return self.store.predictions(record)
        except FairbenchError as error:
            raise FairbenchError("its predictions cannot be read, or are not those of its record") from error


@dataclass(frozen=True)
class Attached:
    """The records of a published file, and the predictions that lie beside it, `KEY.parquet`."""

    folder: Path
    jobs: Sequence[Record]

    @property
    def name(self) -> str:
        """What the folder is called."""
        return str(self.folder)

    def contents(self) -> Contents:
        """Return the records that the file holds."""
        return Contents(tuple(self.jobs), (), ())

    def predictions(self, record: Record) -> Predictions:
        """Return the test predictions; raises FairbenchError when they are not those that the record names."""
        path = self.folder / f"{record.job.key}.parquet"
        if not path.is_file() or digest(path) != predictions_hash(record.files):
            raise FairbenchError("its predictions cannot be read, or are not those of its record")
        return Predictions.load(path, split="test")


def predictions_hash(files: Mapping[str, str]) -> str:
    """Return the SHA-256 that a record gives for its predictions, empty where it names none."""
    return files.get(PREDICTIONS, "")
