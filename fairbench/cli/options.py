"""Options that several commands share, and what all of them do with names, plugins and output."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from fairbench.errors import FairbenchError, visible

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from fairbench.metrics.metric import Metric
    from fairbench.plugins import Plugins
    from fairbench.predictions.predictions import Predictions

DEFAULT = "quickstart"
SPLITS = ("test", "val", "all")

attributes_option = click.option(
    "--attr",
    "attributes",
    required=True,
    metavar="A,B",
    help="Attributes to compare groups of; join several by + for their intersections.",
)

unrecorded_option = click.option(
    "--unrecorded",
    "policy",
    default="keep",
    show_default=True,
    metavar="keep|drop|merge:G",
    help="Rows whose attribute is not recorded: a group of their own, in no group, or part of group G.",
)

split_option = click.option(
    "--split", type=click.Choice(SPLITS), default="test", show_default=True, help="Which split's rows to read."
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, values as fractions.")

explain_option = click.option("--explain", is_flag=True, help="On a terminal, say below what each number means.")

plugin_option = click.option(
    "--plugin", "files", multiple=True, metavar="FILE", help="A plugin in a single file; repeatable."
)

set_option = click.option(
    "--set", "assignments", multiple=True, metavar="NAME.KEY=VALUE", help="A setting; repeatable."
)


def how_to_read(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what says how predictions files are read."""
    options = (
        click.option("--positive", metavar="NAME", help="Which of two classes is the positive one."),
        click.option("--classes", metavar="A,B", help="All classes, in the order of p_0, p_1 …"),
        click.option(
            "--keep",
            metavar="WORD,…",
            default="",
            help="Words, such as NA, that are names here.",
        ),
        split_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


def read(
    path: Path, attributes: list[str], *, split: str, positive: str | None, classes: str | None, keep: str
) -> Predictions:
    """Read a predictions file as `how_to_read` says; name on stderr the groups that may be one."""
    from fairbench.predictions.read import read_predictions
    from fairbench.predictions.spelling import alike

    chosen = None if split == "all" else split
    table = read_predictions(path, attributes, chosen, positive, listed(classes or "") or None, listed(keep))
    for name in table.attributes:
        for same in alike(table.table[name].cat.remove_unused_categories().cat.categories):
            say(f"warning: {path}: {name} has {' and '.join(same)}, which may be one group: spell them alike")
    if table.task == "classify" and table.has_probabilities and (share := table.contradicted) > 0.5:
        columns = " and ".join(f"p_{index} of {name}" for index, name in enumerate(table.classes))
        say(
            f"warning: {path}: in {share:.0%} of the rows another class than the answer is the most probable: "
            f"are the columns in order ({columns})?"
        )
    return table


def listed(text: str) -> list[str]:
    """Split names at commas, each once."""
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def named_attributes(text: str) -> list[str]:
    """Split the names of attributes; raises FairbenchError for none."""
    names = listed(text)
    if not names:
        raise FairbenchError("--attr names no attribute", "name a column that says who patients are, such as race")
    return names


def metrics(files: Sequence[str] = ()) -> list[Metric]:
    """Load the installed metrics and those of single files, and say on stderr which could not be."""
    from fairbench.plugins import load

    plugins = load(("metric",), files)
    offered = list(plugins.tables["metric"].values())
    warn_of_broken(plugins)
    return offered


def warn_of_broken(plugins: Plugins) -> None:
    """Name on stderr the plugins that could not be loaded."""
    for broken in plugins.broken:
        say(f"warning: plugin {broken.name} of {broken.source} is broken: {broken.reason}")


def warn_of_metrics(reasons: Mapping[str, str | None]) -> None:
    """Name on stderr the metrics that are undefined by a fault of their own; by metric, why it is undefined."""
    for name, reason in reasons.items():
        if reason and reason.startswith(name):
            say(f"warning: metric {reason}")


def say(text: str) -> None:
    """Write a line for people on stderr; nothing in it commands the terminal."""
    click.echo(visible(text), err=True)


def print_json(value: object) -> None:
    """Print JSON on stdout: in ASCII where the stream carries nothing else, and with no control character."""
    import json

    plain = not (getattr(sys.stdout, "encoding", None) or "ascii").lower().startswith("utf")
    click.echo(visible(json.dumps(value, indent=1, ensure_ascii=plain, allow_nan=False)))


def what_to_run(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say what to run; `run` and `plan` share them."""
    options = [
        click.argument("which", metavar="[BENCHMARK]", default=DEFAULT, required=False),
        click.option("--datasets", help="Datasets, separated by commas."),
        click.option("--backbones", help="Backbones, separated by commas."),
        click.option("--methods", help="Methods, separated by commas."),
        click.option("--attr", "attributes", help="Attributes: comma crosses, + joins (race+gender)."),
        click.option("--seeds", help="Seeds, such as 0,1,2."),
        click.option("--folds", type=int, metavar="K", help="Divide the rows K ways: every row is tested once."),
        set_option,
        click.option("--data", multiple=True, metavar="NAME=PATH", help="Where a dataset lies; repeatable."),
        click.option("--out", default="runs", show_default=True, help="Folder of results, or the URL of one."),
        click.option("--no-baseline", is_flag=True, help="Do not add the baseline method."),
        click.option(
            "--no-controls", is_flag=True, help="Do not add the controls (rows that no contender may fail to beat)."
        ),
        plugin_option,
    ]
    for option in reversed(options):
        command = option(command)
    return command


def which_dataset(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what says which dataset, where it lies and how it is read."""
    options = (
        click.argument("name", metavar="WHICH"),
        click.option("--data", "folders", multiple=True, metavar="NAME=PATH", help="Where a dataset lies."),
        set_option,
        plugin_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


def console() -> Console:
    """Return what to print to: as wide as the terminal, and wide where there is none."""
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class Safe(Console):
        """A console on which no text from data can command the terminal."""

        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
            """Render, with control characters of the text as escapes; rich's own stay."""
            for segment in super().render(renderable, options):
                safe = segment.control or segment.text.isprintable()
                yield segment if safe else Segment(visible(segment.text), segment.style)

        def on_broken_pipe(self) -> None:
            """Leave it to the command line, which ends as a program does whose reader has gone."""
            raise BrokenPipeError

    out = Safe(highlight=False)
    return out if out.is_terminal else Safe(highlight=False, width=120)
