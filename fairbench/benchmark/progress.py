"""Show jobs as they run: a live view in a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from fairbench.benchmark.forecast import Forecast
from fairbench.benchmark.launch import leads
from fairbench.benchmark.pull import WAITING, Event, Watch
from fairbench.errors import one_line
from fairbench.jobs.job import Record


@contextmanager
def watch(total: int, forecast: Forecast) -> Iterator[Watch]:
    """Yield what the launcher calls with every event; of `total` jobs, those that `forecast` knows are open."""
    console, done = Console(stderr=True, quiet=not leads()), total - len(forecast.open)
    if console.is_terminal:
        view = _Live(console, total, done, forecast)
        with view.progress:
            yield view
    else:
        yield _Lines(console, total, done, forecast)


class _Lines:
    """One line when a job ends, so that a log file stays readable."""

    def __init__(self, console: Console, total: int, done: int, forecast: Forecast) -> None:
        self.console, self.total, self.done, self.forecast = console, total, done, forecast
        self.waits = False
        if done:
            console.print(f"{done} of {total} jobs were done already", highlight=False)

    def __call__(self, event: Event) -> None:
        self.forecast.hear(event)
        if event.failure is not None:
            self.console.print(f"warning: {event.failure.message}", markup=False, highlight=False, soft_wrap=True)
        if event.phase == WAITING and not self.waits:
            self.waits = True
            self.console.print("waiting for other processes, which run the jobs that are left", highlight=False)
        if event.record is not None:
            self.done += 1
            rest = self.forecast.left()
            left = "" if self.done == self.total or rest is None else f", about {_clock(rest)} left"
            line = f"[{self.done}/{self.total}] {outcome(event.record)}{left}"
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)


class _TimeLeft(TimeRemainingColumn):
    """What is left of a phase, by its speed, and of all jobs, by the forecast."""

    def render(self, task: Task) -> Text:
        """Write the clock."""
        forecast = task.fields.get("forecast")
        if forecast is None or task.finished:
            return super().render(task)
        left = forecast.left()
        return Text("-:--" if left is None else _clock(left), style="progress.remaining")


class _Live:
    """A bar for all jobs and one line for each worker: job, phase, step, loss, time left."""

    def __init__(self, console: Console, total: int, done: int, forecast: Forecast) -> None:
        self.forecast = forecast
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            _TimeLeft(compact=True, elapsed_when_finished=True),
            console=console,
        )
        self.overall = self.progress.add_task("jobs", total=total, completed=done, loss="", forecast=forecast)
        self.workers: dict[int, TaskID] = {}
        self.phases: dict[int, tuple[str, str]] = {}

    def __call__(self, event: Event) -> None:
        self.forecast.hear(event)
        if event.failure is not None:
            self.progress.console.print(f"[red]![/red] {escape(event.failure.message)}", highlight=False)
            return
        if event.record is not None:
            mark = "[red]✗[/red]" if event.record.failed else "[green]✓[/green]"
            self.progress.console.print(f"{mark} {escape(outcome(event.record))}", highlight=False)
            self.progress.advance(self.overall)
            return
        assert event.job is not None
        if event.worker not in self.workers:
            self.workers[event.worker] = self.progress.add_task("", total=None, loss="")
        task = self.workers[event.worker]
        now = (event.job.key, event.phase)
        if self.phases.get(event.worker) != now:
            self.phases[event.worker] = now
            self.progress.reset(task)
        loss = "" if event.loss is None else f"loss {event.loss:.3f}"
        text = f"{escape(event.job.method.label)} seed {event.job.seed}: {event.phase}"
        self.progress.update(task, description=text, completed=event.done, total=event.total or None, loss=loss)


def outcome(record: Record) -> str:
    """Say in one line how a job ended."""
    if record.failed:
        return f"{record.job.title}: failed: {one_line('; '.join((record.error or '').splitlines()))}"
    took = {phase: spent for phase, spent in record.seconds.items() if phase != "train" or not record.weights_of}
    return f"{record.job.title}: done in {_clock(sum(took.values()))}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
