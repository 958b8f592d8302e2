"""What every number means, as a page: written from the metrics, disparities and conventions themselves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fairbench.metrics.conventions import CONVENTIONS
from fairbench.metrics.disparity import EQUITY, disparities
from fairbench.metrics.metric import Metric

_OPENING = """# Metrics

Generated from the metric objects by `fairbench.metrics.reference.document`; `tests/test_catalogue.py` fails when
this page is out of date and says how to write it anew.

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
  absent/present, normal/abnormal). Only the columns needed are read. Five million rows with ids, clusters,
  scores and two attributes take 10 to 20 s on one core and at most 1.6 GiB to read, parquet or csv, and all
  metrics of them, by two attributes, stay below 1.8 GiB.
"""


def document(metrics: Iterable[Metric]) -> str:
    """Write docs/metrics.md: metrics, the disparities derived from them, and other projects' conventions."""
    every = sorted(metrics, key=lambda metric: metric.name)
    rules = disparities(every, ("a", "b", "c")).values()
    return "\n".join(
        [
            _OPENING,
            "## Metrics\n",
            _table(
                (
                    "name",
                    "formula",
                    "range",
                    "better",
                    "printed",
                    "by row",
                    "needs",
                    "undefined when",
                    "source",
                ),
                [_metric(metric) for metric in every],
            ),
            "\n## Disparities\n",
            "By row: made of means over rows, so that evidence tests it exactly.\n",
            _table(
                ("name", "formula", "better", "by row", "source"),
                [
                    (
                        f"`{rule.name}`",
                        rule.formula,
                        _better(rule.higher_is_better),
                        _tick(rule.row_scored),
                        rule.source,
                    )
                    for rule in rules
                ],
            ),
            "\n## Equity scaling\n",
            "Three readings share the name ES-M and are not comparable; the result says which it is.\n",
            _table(
                ("preset", "formula", "source"),
                [(f"`{name}`", equity.formula, equity.source) for name, equity in EQUITY.items()],
            ),
            "\n## In another project's convention\n",
            "`fairbench score --as NAME`; where their code prints 1, 0 or NaN for an empty rate, "
            "this is undefined.\n",
            _table(
                ("convention", "number", "formula", "source"),
                [
                    (f"`{name}`", rule.name, rule.formula, way.source)
                    for name, way in CONVENTIONS.items()
                    for rule in (
                        *way.fixed,
                        *(rule for metric in every[:1] for rule in way.of_metric(metric)),
                    )
                ],
            ),
            "",
        ]
    )


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
