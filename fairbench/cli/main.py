"""The command `fairbench` and all its subcommands; errors become two lines and an exit status."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from fairbench import __version__
from fairbench.cli import contribute, data, look, probe, publication, results, run
from fairbench.cli.options import json_option, plugin_option, say, set_option, warn_of_broken
from fairbench.errors import FairbenchError
from fairbench.settings import suggest

COMPLETING = "_FAIRBENCH_COMPLETE"  # set by a shell that completes a word
UNREAD = 141  # 128 + SIGPIPE, the status of a command whose reader has gone
TERMINATED = 128 + signal.SIGTERM  # the status of a command that was told to end


class Group(click.Group):
    """A group whose errors are two lines on stderr: `error: …` and `hint: …`."""

    group_class = type

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run, turning expected failures into exit status 2 and Ctrl-C into 130."""
        kwargs["standalone_mode"] = False
        _keep_standard_streams()
        _write_anything()
        try:
            _add_plugin_commands(self)
            result = super().main(*args, **kwargs)
        except FairbenchError as error:
            say(f"error: {error.message}")
            if error.hint:
                say(f"hint: {error.hint}")
            sys.exit(2)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message())
            sys.exit(2)
        except click.ClickException as error:
            where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "fairbench"
            say(f"error: {error.format_message()}\nhint: see `{where} --help`")
            sys.exit(2)
        except OSError as error:
            where = f": {error.filename}" if error.filename else ""
            say(f"error: {error.strerror or error}{where}")
            sys.exit(2)
        except (click.Abort, KeyboardInterrupt):
            say("interrupted; the same command goes on")
            sys.exit(130)
        except SystemExit as error:
            if COMPLETING in os.environ:  # click has answered the shell
                raise
            if error.code == TERMINATED:
                say("stopped; the same command goes on")
                sys.exit(TERMINATED)
            say(f"error: a plugin ended this command by SystemExit({error.code!r})")
            sys.exit(2)
        sys.exit(result if isinstance(result, int) else 0)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Read the arguments, of which `--help` prints."""
        with _reader_gone():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _reader_gone():
            return super().invoke(ctx)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Meet an unknown command with the nearest."""
        if args and self.get_command(ctx, args[0]) is None:
            raise suggest("command", args[0], self.list_commands(ctx))
        return super().resolve_command(ctx, args)


@contextmanager
def _reader_gone() -> Iterator[None]:
    """End quietly where whoever read the output has gone, of which click and rich would make an error."""
    try:
        yield
    except (BrokenPipeError, SystemExit) as error:
        if not isinstance(error, BrokenPipeError) and not isinstance(error.__context__, BrokenPipeError):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise click.exceptions.Exit(UNREAD) from None


def _write_anything() -> None:
    """Let stdout and stderr write what their encoding lacks as escapes, rather than fail on it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _keep_standard_streams() -> None:
    """Open the standard streams that are closed, or the next file to be opened would take what is printed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number


def _add_plugin_commands(group: click.Group) -> None:
    """Let plugins add their commands; a broken one is named, and all else works."""
    from fairbench import plugins

    loaded = plugins.load(kinds=())
    loaded.tell("fairbench_commands", cli=group)
    warn_of_broken(loaded)


@click.group("fairbench", cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fairbench")
def main() -> None:
    """Which debiasing method makes a medical vision-language model fairer, and is the difference real?

    Start with `fairbench run`: it needs no data, no download and no GPU.
    """


results.add_to(main)
look.add_to(main)
run.add_to(main)
data.add_to(main)
probe.add_to(main)
contribute.add_to(main)
publication.add_to(main)


@main.command("list")
@click.argument("asked", metavar="[KIND|NAME]", required=False)
@plugin_option
@json_option
def list_(asked: str | None, files: tuple[str, ...], as_json: bool) -> None:
    """List what is on offer, with settings, and which plugins are broken; or tell all of one thing.

    KIND is datasets, backbones, methods, metrics, trackers, launchers or benchmarks.
    """
    from fairbench.cli import overview

    overview.show(asked, files, as_json)


@main.command()
@click.argument("backbone", required=False)
@set_option
@plugin_option
def doctor(backbone: str | None, assignments: tuple[str, ...], files: tuple[str, ...]) -> None:
    """Print versions, devices, disk, and every plugin's health; or try out BACKBONE, such as NAME:FOLDER."""
    from fairbench.cli import overview

    if backbone is None:
        overview.doctor()
    else:
        overview.try_out(backbone, assignments, files)
