"""A model card for every adapter of a published board, with its results as Hugging Face's `model-index`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from fairbench import files
from fairbench.jobs.job import Record
from fairbench.leaderboard.board import Row, Table
from fairbench.leaderboard.flags import LEGEND
from fairbench.publication.published import Publication
from fairbench.report.format import plain, with_interval
from fairbench.report.markdown import escape
from fairbench.statistics.results import Estimate

MEASURES = {
    "score": "{title}",
    "gap": "{gap} (largest minus smallest group)",
    "worst_group": "{title} in the worst group",
    "eq_odds_max": "EqOdds(max)",
    "auroc": "AUROC",
}


def cards(publication: Publication) -> Iterator[tuple[str, str]]:
    """Yield (job's key, text of the card) for every job of a row that left an adapter.

    The numbers are the row's, mean of its seeds, in every table that it stands in.
    """
    records = {record.job.key: record for record in publication.jobs}
    for key, record in records.items():
        placed = [
            (table, row)
            for table in publication.board.tables
            for row in (*table.rows, *table.controls)
            if key in row.keys
        ]
        if record.steps and placed:
            yield key, _card(publication, record, placed)


def write(publication: Publication, folder: Path) -> int:
    """Write every card as `FOLDER/KEY/README.md`, where a hub looks for it; return how many."""
    written = dict(cards(publication))
    for key, text in written.items():
        files.write(folder / key / "README.md", text)
    return len(written)


def _card(publication: Publication, record: Record, placed: list[tuple[Table, Row]]) -> str:
    job, name = record.job, f"{publication.name}-{record.job.key}"
    results = [result for table, row in placed for result in _results(table, row)]
    data = ModelCardData(
        model_name=plain(name),
        tags=["fairness", "medical-imaging", "lora", "fairbench"],
        library_name="peft",
        eval_results=results,
    )
    parts = [
        f"# {escape(plain(name))}",
        f"What training by {escape(job.method.label)} changed of {escape(job.backbone.label)}, on"
        f" {escape(job.dataset.label)} (data {escape(job.dataset.fingerprint)}), seed {job.seed}: a LoRA adapter,"
        " and what else was trained beside it, as safetensors.",
        "It is a research artefact of a benchmark on fairness. It is no medical device, was not tested on"
        " anybody but the patients counted below, and must not be used to diagnose.",
        *(_section(table, row) for table, row in placed),
        "## Made with",
        "\n".join(f"- {escape(plain(line))}" for line in _provenance(publication, record)),
    ]
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n"))


def _results(table: Table, row: Row) -> Iterator[EvalResult]:
    for key, name in MEASURES.items():
        value = getattr(row, key).value
        if value is not None:
            yield EvalResult(
                task_type="image-classification" if table.classes else "image-to-text",
                dataset_type=plain(table.dataset.partition("(")[0]),
                dataset_name=plain(f"{table.dataset}, groups of {table.attribute}"),
                dataset_split="test",
                metric_type=key,
                metric_name=plain(name.format(title=table.measure.title, gap=table.measure.gap)),
                metric_value=round(float(value), 6),
            )


def _section(table: Table, row: Row) -> str:
    """Every group's value, and what a reader must know of the row."""
    lines: list[tuple[str, int | None, Estimate]] = [("all", table.rows_tested, row.score)]
    lines += [(g.name, g.n, value) for g, value in zip(table.groups, row.groups, strict=True)]
    title = f"{table.measure.title} (%), mean of {len(row.seeds)} seeds"
    grid = [f"| {escape(plain(table.attribute))} | n | {escape(title)} |", "| :--- | ---: | ---: |"]
    grid += [f"| {escape(plain(name))} | {_count(n)} | {_value(one)} |" for name, n, one in lines]
    said = [(flag.code, f"{LEGEND.get(flag.code, '')} {plain(flag.detail)}") for flag in row.flags]
    flags = [f"- **{escape(code)}**: {escape(meaning)}" for code, meaning in said]
    return "\n".join([f"## By {escape(plain(table.attribute))}", "", *grid, *(["", *flags] if flags else [])])


def _count(n: int | None) -> str:
    return "withheld" if n is None else f"{n:,}"


def _value(one: Estimate) -> str:
    return escape(one.reason or "undefined") if one.value is None else escape(with_interval(one))


def _provenance(publication: Publication, record: Record) -> Iterator[str]:
    job = record.job
    yield f"job {job.key} of the board {publication.name}, by {publication.publisher or 'its publisher'}"
    for kind in ("dataset", "backbone", "method"):
        yield f"{kind} {getattr(job, kind).name} of {getattr(job, kind).version}"
    yield f"weights {job.backbone.fingerprint or 'drawn anew'}"
    yield f"{record.steps:,} steps, batch {job.batch_size}, {job.precision}"
    yield f"{record.device}; begun {record.started}"
    yield ", ".join(f"{name} {number}" for name, number in record.versions.items())
