"""One process that runs jobs one after another, keeping what they share."""

from __future__ import annotations

import traceback

from fairbench.errors import FairbenchError
from fairbench.jobs.job import Job, Record
from fairbench.jobs.store import says_full
from fairbench.training.isolation import Process
from fairbench.training.job_runner import Attempt
from fairbench.training.resources import Resources


class Worker(Resources):
    """Run jobs one after another on what they share."""

    def run(self, job: Job) -> Record:
        """Run one job and save its record, also when it fails; only a full disk and Ctrl-C get through.

        Where several processes share the job an error ends them all, because the others would wait
        for ever for the one that failed; the same command then goes on with the next job.
        """
        if self.leads:
            self.store.prepare(job)
        self.accelerator.wait_for_everyone()
        attempt = Attempt(self, job)
        failure: Exception | None = None
        process = Process()
        try:
            attempt.go()
        except Exception as error:
            failure = error
            if says_full(error):
                raise self.store.full() from error
            attempt.error = str(error) if isinstance(error, FairbenchError) else f"{type(error).__name__}: {error}"
            if not isinstance(error, FairbenchError):
                with self.store.writing():
                    self.store.traceback_file(job).write_text(traceback.format_exc(), encoding="utf-8")
        if changed := [*process.restore(), *attempt.changes()]:
            named = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
            fault = f"{job.method.label} changed what other jobs inherit: {named}"
            attempt.error = f"{attempt.error}; {fault}" if attempt.error else fault
            self.forget()
        record = attempt.record()
        if self.leads or failure:
            record = self.store.save(record)
            self.plugins.tell("fairbench_job_finished", record=record)
        if failure and self.accelerator.num_processes > 1:
            raise failure
        self.accelerator.wait_for_everyone()
        return record

    def probe_again(self, record: Record) -> Record:
        """Probe a finished job and save what was found in its record; raises what the probe raises."""
        assert self.probe is not None
        try:
            found = Attempt(self, record.job).again(record, self.probe)
        except FairbenchError as error:
            raise FairbenchError(f"cannot probe {record.job.title}: {error.message}", error.hint) from error
        if self.leads:
            self.store.amend(found)
        self.accelerator.wait_for_everyone()
        return found
