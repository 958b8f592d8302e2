"""One process that runs jobs one after another, keeping what they share."""

from __future__ import annotations

import datetime
import traceback
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fairbench.errors import FairbenchError, named, said
from fairbench.jobs.job import Job, Record
from fairbench.jobs.store import says_full
from fairbench.training.isolation import Process
from fairbench.training.job_runner import JobRunner
from fairbench.training.resources import Resources, Stopped


class Worker(Resources):
    """Run jobs one after another on what they share."""

    def run(self, job: Job) -> Record:
        """Run one job and save its record, also when it fails, were it by `sys.exit` in a plugin.

        Only a full disk, Ctrl-C and being told to stop get through. Where several processes share the job an
        error ends them all, because the others would wait for ever for the one that failed; the same command
        then goes on with the next job.
        """
        if self.leads:
            self.store.prepare(job)
        self.accelerator.wait_for_everyone()
        self.job = job
        runner = JobRunner(self, job)
        failure: BaseException | None = None
        process = Process()
        try:
            runner.go()
        except (Exception, SystemExit, GeneratorExit) as error:
            failure = error
            if says_full(error):
                raise self.store.full() from error
            if isinstance(error, FairbenchError):
                runner.error = said(error)
            else:
                runner.error = named(error)
                with self.store.writing():
                    text = traceback.format_exc().encode("utf-8", "backslashreplace")
                    self.store.traceback_file(job).write_bytes(text)
        if changed := self._changed(process, runner, failure is not None):
            some = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
            fault = f"{job.method.label} changed what other jobs inherit: {some}"
            runner.error = f"{runner.error}; {fault}" if runner.error else fault
            self.forget()
        record = runner.record()
        if self.leads or failure:
            record = self._saved(record)
        if failure and self.accelerator.num_processes > 1:
            raise failure
        self.accelerator.wait_for_everyone()
        return record

    def _changed(self, process: Process, runner: JobRunner, failed: bool) -> list[str]:
        """Name what a job left otherwise than it found it, in any process that shares it.

        After an error the others may never come here. Weights that it left gathered are not looked at: where they
        are sharded, an error ends every process, and no job inherits them.
        """
        changed = process.restore()
        if not failed or self.mesh is None:
            changed += runner.changes()
        return changed if failed else self.union(changed)

    def _saved(self, record: Record) -> Record:
        """Save a record and tell plugins; one whose notes cannot be written is saved without them, as a failure."""
        try:
            return self.end(record)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            fault = f"what its method noted cannot be written down ({named(error)})"
            return self.end(replace(record, facts={}, error=f"{record.error}; {fault}" if record.error else fault))

    def end(self, record: Record) -> Record:
        """Save a job's record and tell plugins."""
        record = self.store.save(record)
        self.plugins.tell("fairbench_job_finished", record=record)
        return record

    def give_up(self, job: Job, causes: Sequence[str]) -> Record:
        """Make a failure of a job whose process died again and again, so that it keeps no other from running."""
        started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        error = f"its process died {len(causes)} times: {', then '.join(causes)}"
        return self.end(Record(job, started, error=error))

    def probe_again(self, record: Record) -> Record:
        """Probe a finished job and save what it read in its record; raises what the probe raises."""
        assert self.options.probe is not None
        self.job = record.job
        try:
            probed = JobRunner(self, record.job).again(record, self.options.probe)
        except FairbenchError as error:
            raise FairbenchError(f"cannot probe {record.job.title}: {error.message}", error.hint) from error
        if self.leads:
            self.store.amend(probed)
        self.accelerator.wait_for_everyone()
        return probed

    def stop(self, *_: Any) -> None:
        """End this process, at once or when the training under way has left what it can go on from."""
        self.stopping = True
        if not self.checkpointing:
            raise Stopped
