"""All checks of a published leaderboard, as far as what was given lets them go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice, zip_longest
from pathlib import Path

from fairbench import __version__
from fairbench.data.locations import parse, shared_roots
from fairbench.jobs.conversion import departures
from fairbench.jobs.job import Record
from fairbench.jobs.store import Store
from fairbench.plugins import Plugins
from fairbench.publication.again import Again, drawn, predict_again, train_again
from fairbench.publication.against_runs import rebuilt, verify_runs
from fairbench.publication.findings import MOST, Finding, collected, compared
from fairbench.publication.merge import merge
from fairbench.publication.publish import records_of
from fairbench.publication.published import Publication, read
from fairbench.publication.sharing import Attached, Shareable
from fairbench.publication.verdict import Verdict, claims, jobs_that_hold
from fairbench.publication.verify import verify_file
from fairbench.report import render

RENDERED = ("md", "csv", "tex")  # what may lie beside a file and is compared with it


@dataclass(frozen=True)
class CheckRequest:
    """What `fairbench verify` was given: folders of runs, how many jobs to do again, and where data lie."""

    file: Path
    runs: Sequence[Path] = ()
    rerun: int = 0
    retrain: int = 0
    draw: int | None = None
    data: Sequence[str] = ()
    parts: Sequence[Path] = ()


def verdict_on(publication: Publication, request: CheckRequest, plugins: Plugins) -> Verdict:
    """Run every check that is possible, and say what each finds."""
    metrics = [*plugins.tables["metric"].values()]
    keys = {record.job.key for record in publication.jobs}
    stores = [*map(Store, request.runs)]
    # The file's own name, as `publish` calls both: what a stranger's file says of itself is no path.
    beside = Attached(request.file.with_name(f"{request.file.stem}.predictions"), publication.jobs)
    read_keys: frozenset[str] = frozenset()
    if stores:
        read_keys = frozenset(records_of([Shareable(store) for store in stores]))
    elif publication.predictions and beside.folder.is_dir():
        read_keys = frozenset(keys)
    findings = verify_file(publication, plugins, answers=keys <= read_keys and not publication.parts)
    findings += _written(publication, request.file)
    if publication.parts:
        findings += _parts(publication, request.parts)
    if stores:
        findings += verify_runs(publication, stores, metrics)
    elif read_keys:
        findings += rebuilt(publication, [beside], metrics)
    elif publication.predictions:
        findings.append(Finding("unchecked", "predictions", f"{beside.folder.name} is not beside the file"))
    again: dict[str, frozenset[str]] = {}
    for count, how in ((request.rerun, predict_again), (request.retrain, train_again)):
        records = drawn(stores, publication.jobs, count, request.draw)
        said = [*how(Again(stores, plugins, _roots(request.data, plugins, records)), records)] if records else []
        findings += said
        again[how.__name__] = jobs_that_hold(said, keys)
    verdict = Verdict(tuple(findings), read_keys, again["predict_again"], again["train_again"])
    return replace(verdict, findings=(*verdict.findings, *claims(publication, verdict)))


def _written(publication: Publication, file: Path) -> list[Finding]:
    """Render the board anew, and compare it with what lies beside the file under its name."""
    findings: list[Finding] = []
    for kind in RENDERED:
        beside = file.with_suffix(f".{kind}")
        if not beside.is_file():
            continue
        if publication.board.fairbench != __version__:
            said = (
                f"fairbench {publication.board.fairbench} wrote it, whose words may be others than {__version__}'s"
            )
            findings.append(Finding("unchecked", beside.name, said))
            continue
        mine, theirs = (
            text.splitlines() for text in (beside.read_text("utf-8", "replace"), render(publication.board, kind))
        )
        lines = enumerate(zip_longest(mine, theirs, fillvalue=""), 1)
        unlike = ((f"{beside.name}, line {number}", a, b) for number, (a, b) in lines if a != b)
        differences = (one for where, a, b in islice(unlike, MOST) for one in compared(a, b, where))
        findings += collected(beside.name, "it says what the JSON says", differences)
    return findings


def _roots(options: Sequence[str], plugins: Plugins, records: Sequence[Record]) -> Mapping[str, Path]:
    """Say where the datasets of some jobs lie, and what else `--data` names (a backbone's folder)."""
    folders = plugins.folders({record.job.dataset.name for record in records})
    others = {name: Path(path) for name, path in parse(options).items() if name not in folders}
    mine = [option for option in options if option.partition("=")[0].strip() in folders]
    return others | shared_roots(mine, folders)


def _parts(publication: Publication, paths: Sequence[Path]) -> list[Finding]:
    """Merge the parts of a merged board again, and compare."""
    if not paths:
        return [Finding("unchecked", "merge", "the boards that were merged are not given (--parts)")]
    parts = [read(path) for path in paths]
    again = merge(parts, publication.name, publication.command, publication.publisher)
    where = "merge of the parts"
    hashes = collected(
        where,
        "the parts are the files that were merged",
        compared([asdict(one) for one in publication.parts], [asdict(one) for one in again.parts], where),
    )
    mine, theirs = (departures(replace(one.board, fairbench="")) for one in (publication, again))
    return hashes + collected(where, "they give this board", compared(mine, theirs, where))
