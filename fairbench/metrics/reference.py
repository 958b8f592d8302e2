"""What every number means, as a page: written from the metrics, disparities and conventions themselves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fairbench.metrics.conventions import CONVENTIONS, Convention
from fairbench.metrics.disparity import EQUITY, Disparity, disparities
from fairbench.metrics.metric import Metric
from fairbench.predictions.missing import MISSING

_OPENING = """# Metrics

Generated from the metric objects by `fairbench.metrics.reference.document`; `tests/metrics/test_reference.py`
fails when this page is out of date and says how to write it anew.

Every value is a fraction; percent and percentage points exist only where a table's header says so. A value
whose denominator is empty is *undefined*: it is null, carries its reason, and leaves its group out of
disparities, which say how many of the groups present they cover. With fewer than two groups left, the
disparity is undefined too.

- **Answers.** An unparsed answer (−1) is wrong and counts in every denominator; as it selects nobody it
  lowers TPR and FPR alike, so their number stands in every group.
- **Unrecorded attribute values.** `keep` (default) makes them a group called "unrecorded"; `drop` leaves
  them out of group statistics, not of overall values; `merge:GROUP` adds them to a group. Joint attributes
  (`race+gender`) form groups like black×female, unrecorded if any part is.
- **More than two classes.** Accuracy, balanced accuracy, macro-F1, AUROC (mean of one-vs-rest), Brier and
  ECE are defined; TPR, FPR, selection rate, F1, EqOdds and demographic parity are undefined, and say so. In
  their place stand TPR and FPR of each class against the rest and `eq_odds_ovr_max`. A class without rows
  in a group leaves that group's class-averaged metrics undefined: an average over fewer classes would be
  another metric.
- **Answers in words.** Rows with `text` and `reference` have the metrics that need text; a report leaves out
  metrics of classes where there are none, of text where there is none, and those that a model measures
  unless their environment variable names that model ([text-metrics.md](text-metrics.md)). Asked for by
  name, each of them is undefined and says why.
- **Any file.** `target` and `answer` may be class indices, true/false or names; the positive of two names
  must be given unless it is evident (no/yes, false/true, negative/positive, benign/malignant,
  absent/present, normal/abnormal). `p_0`, `p_1` … belong to the classes in their order (indices by number,
  evident pairs as above, others as `--classes` names them) whatever `--positive` says, `p_sick` and `p_well` to
  the classes of these names where every class has one, and they sum to 1 to within
  rounding; `score` is the probability of the positive, whichever that is. An answer that no target has is
  refused rather than taken for a further class. `split` is read in any case (train, training; val, valid,
  validation, dev; test, testing, hold-out; test set, val_split …), and a row without one, or with another word,
  is refused. So is a column that is a role's in other capitals, or a `p_…` that names no class.
- **Any type.** A value is spelt alike from csv and parquet: whole numbers without a point, true and false in
  lower case, codes such as 007 as they stand. In parquet's floats above 2^53 neighbours are one number, so
  they are refused as `id`, `cluster` or attribute. Groups that differ in capitals, signs or spaces alone
  stay apart, and a warning names them.
- **Missing values.** An empty cell, a null, and in any case the words
  {missing}.
  `--keep NA` keeps a word that is a name here (Namibia). Texts are kept as they are, but where a csv's
  are floats alone, as pandas writes whole numbers beside a null: there `1.0` is 1, as in parquet.
- **Size.** Only the columns needed are read. Five million rows with ids, clusters, scores and two attributes
  take about 6 s of one core and at most 1.5 GiB to read, parquet or csv, and all metrics of classes, by two
  attributes, about 12 s and 1 GiB.
"""


_DISPARITIES = "By row: made of means over rows, so that evidence tests it exactly.\n\n"
_EQUITY = "Three readings share the name ES-M and are not comparable; the result says which it is.\n\n"
_CONVENTIONS = (
    "`fairbench score --as NAME`; where their code prints 1, 0 or NaN for an empty rate, this is undefined.\n\n"
)


def document(metrics: Iterable[Metric]) -> str:
    """Write docs/metrics.md: metrics, the disparities derived from them, and other projects' conventions."""
    every = sorted(metrics, key=lambda metric: metric.name)
    missing = ", ".join(f"`{word}`" for word in MISSING if word)
    sections = {
        "Metrics": _table(
            ("name", "formula", "range", "better", "printed", "by row", "needs", "undefined when", "source"),
            map(_metric, every),
        ),
        "Disparities": _DISPARITIES
        + _table(
            ("name", "formula", "better", "by row", "source"),
            map(_disparity, disparities(every, ("a", "b", "c")).values()),
        ),
        "Equity scaling": _EQUITY
        + _table(
            ("preset", "formula", "source"),
            [(f"`{name}`", equity.formula, equity.source) for name, equity in EQUITY.items()],
        ),
        "In another project's convention": _CONVENTIONS
        + _table(
            ("convention", "number", "formula", "source"),
            [row for name, way in CONVENTIONS.items() for row in _convention(name, way, every[:1])],
        ),
    }
    return _OPENING.format(missing=missing) + "".join(f"\n## {name}\n\n{text}\n" for name, text in sections.items())


def _disparity(rule: Disparity) -> tuple[str, ...]:
    better, by_row = _better(rule.higher_is_better), _tick(rule.row_scored)
    return f"`{rule.name}`", rule.formula, better, by_row, rule.source


def _convention(name: str, way: Convention, examples: Sequence[Metric]) -> list[tuple[str, ...]]:
    rules = (*way.fixed, *(rule for metric in examples for rule in way.of_metric(metric)))
    return [(f"`{name}`", rule.name, rule.formula, way.source) for rule in rules]


def _metric(metric: Metric) -> tuple[str, ...]:
    return (
        f"`{metric.name}`",
        metric.formula,
        f"{metric.low:g} to {metric.high:g}",
        _better(metric.higher_is_better),
        metric.scale,
        _tick(metric.each is not None),
        ", ".join(filter(None, (*metric.needs, metric.checkpoint))) or "nothing",
        metric.undefined,
        metric.source,
    )


def _better(higher: bool | None) -> str:
    return {True: "higher", False: "lower", None: "neither"}[higher]


def _tick(claim: bool) -> str:
    return "yes" if claim else "no"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
