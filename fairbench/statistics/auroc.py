"""Evidence for a gap in AUROC, which is no mean of rows and so has its own resampling.

Labels are permuted within the true class (whole clusters within clusters of the same classes), all repeats at
once: with rows sorted by score, a group's AUROC and its DeLong variance are cumulative counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from fairbench.errors import FairbenchError
from fairbench.statistics.intervals import (
    MINIMUM,
    Auroc,
    Floats,
    Ints,
    auroc_limits,
    delong,
    ends,
    gap_interval,
    labelled,
    max_minus_min,
    pairwise_alpha,
    warning,
)
from fairbench.statistics.permutation import parity_end
from fairbench.statistics.power import detectable_gap
from fairbench.statistics.resampling import checked, chunks, codes
from fairbench.statistics.results import ALPHA, Gap
from fairbench.statistics.tail import critical_value, p_value

Flags = NDArray[np.bool_]

ROWS = 50_000  # above this many rows chance values are drawn from DeLong's normal limit


@dataclass(frozen=True)
class Scored:
    """Rows of the groups that have both classes: true class, score, group code and cluster, all (n,)."""

    positive: Flags
    score: Floats
    group: Ints
    cluster: Ints | None
    each: tuple[Auroc, ...]


def judge_auroc(
    target: Ints,
    score: Floats,
    group: Ints,
    cluster: Ints | None = None,
    repeats: int = 2_000,
    seed: int = 0,
    names: Sequence[str] | None = None,
) -> Gap:
    """Value, interval, value by chance and p-value of max - min AUROC over groups that have both classes.

    target: (n,) 0/1; score: (n,) finite, higher means class 1; group, cluster as in `judge`. The p-value
    compares differences in DeLong standard errors, since groups may differ in spread at equal AUROC (DiCiccio
    et al. 2020); the interval leaves out 0 exactly where p <= .05.
    """
    (scores,), groups, clusters = checked([score], group, cluster)
    labels, classes = labelled(groups, names), np.asarray(target)
    if classes.shape != groups.shape or not np.isin(classes, (0, 1)).all():
        raise FairbenchError("`target` must be one 0 or 1 per row of `group`")
    keep = (groups >= 0) & ~np.isnan(scores)
    positive: Flags = classes[keep].astype(bool)
    clusters = None if clusters is None else clusters[keep]
    rows = with_both_classes(positive, scores[keep], groups[keep], clusters, len(labels))
    notes, coverage = cautions(positive, groups[keep], labels), (len(rows.each), len(labels))
    if len(rows.each) < 2:
        return Gap(reason="fewer than two groups have both classes", notes=notes, coverage=coverage)
    if rows.positive.size > ROWS:
        notes = (*notes, "chance values from DeLong's normal limit: too many rows to permute")
    gaps, largest, threshold = chance_gaps(rows, repeats, np.random.default_rng(seed))
    values, spread = (np.array([getattr(part, name) for part in rows.each]) for name in ("value", "variance"))
    value, mean = float(np.ptp(values)), float(gaps.mean())
    p, critical = p_value(largest, threshold), critical_value(largest)
    low, high = parity_end(auroc_bounds(rows.each), p, critical, threshold, value)
    return Gap(
        value=value,
        low=low,
        high=high,
        notes=notes,
        coverage=coverage,
        floor_mean=mean,
        floor_95=float(np.quantile(gaps, 0.95)),
        p=p,
        excess=value - mean,
        detectable=detectable_gap(1 / spread, 1.0, binary=False).value if (spread > 0).all() else None,
    )


def with_both_classes(positive: Flags, score: Floats, group: Ints, cluster: Ints | None, groups: int) -> Scored:
    """Leave out the groups that lack a class, and number the others anew."""
    parts = [
        delong(positive[at], score[at], None if cluster is None else cluster[at])
        for at in (group == k for k in range(groups))
    ]
    known = [k for k, part in enumerate(parts) if part is not None]
    inside = np.isin(group, known)
    return Scored(
        positive[inside],
        score[inside],
        np.searchsorted(known, group[inside]).astype(np.int64),
        None if cluster is None else cluster[inside],
        tuple(part for part in parts if part is not None),
    )


def chance_gaps(rows: Scored, repeats: int, rng: np.random.Generator) -> tuple[Floats, Floats, float]:
    """Draws of the gap and of the largest difference in standard errors, each (repeats,), and the observed one."""
    spread = np.array([part.variance for part in rows.each])
    if rows.positive.size > ROWS:
        spread = np.nan_to_num(spread) + [least_variance(part.positives, part.negatives) for part in rows.each]
        values, variances = normal_draws(rows.each, spread, repeats, rng)
        observed = np.array([[part.value for part in rows.each]]), spread[None]
        return np.ptp(values, axis=1), studentised(values, variances), float(studentised(*observed)[0])
    values, variances = permuted_aurocs(rows.positive, rows.score, rows.group, rows.cluster, repeats, rng)
    order = np.argsort(rows.score, kind="stable")
    unit = None if rows.cluster is None else units_of(rows.cluster[order], rows.group[order])
    observed = sorted_aurocs(*prepared(rows.positive, rows.score), rows.group[order][None], unit)
    largest = studentised(values, variances)
    if rows.cluster is not None:  # as in `judge`, a group keeps its own spread whatever clusters it was dealt
        weight = np.where(np.isnan(values), np.nan, 1 / variances)
        centre = np.nansum(values * weight, axis=1) / np.nansum(weight, axis=1)
        values = centre[:, None] + (values - centre[:, None]) * np.sqrt(observed[1] / variances)
    return max_minus_min(values), largest, float(studentised(*observed)[0])


def auroc_bounds(groups: Sequence[Auroc], error: float = ALPHA) -> tuple[float, float] | tuple[None, None]:
    """Bounds on the gap from all pairwise differences of DeLong limits together; None twice where undefined."""
    alpha = pairwise_alpha(len(groups), 1, error)
    limits = np.array([auroc_limits(part, alpha) for part in groups]).T
    values = np.array([part.value for part in groups])
    both = gap_interval(values[None], limits[:1], limits[1:])
    return ends(*both) if both else (None, None)


def prepared(positive: Flags, score: Floats) -> tuple[Flags, Ints, Ints]:
    """Sort the classes by score; with them the first and one past the last row of each row's tie."""
    order = np.argsort(score, kind="stable")
    ordered = score[order]
    return (
        positive[order],
        np.searchsorted(ordered, ordered, "left"),
        np.searchsorted(ordered, ordered, "right"),
    )


def units_of(cluster: Ints, group: Ints) -> Ints:
    """Number the clusters, each apart in every group that it spans; (n,)."""
    unit: Ints = np.unique(codes([cluster, group]), return_inverse=True)[1].ravel()
    return unit


def sorted_aurocs(
    positive: Flags, first: Ints, last: Ints, labels: NDArray[np.integer], unit: Ints | None = None
) -> tuple[Floats, Floats]:
    """AUROC and DeLong variance, (draws, groups), of labels (draws, n) for rows sorted by score.

    Rows of one `unit` (n,), which bear one label, are not independent: their parts are summed first (Obuchowski
    1997), as in `delong`.
    """
    values, variances = [], []
    owner = None if unit is None else sparse.csr_array((np.ones(unit.size), (np.arange(unit.size), unit)))
    for group in range(int(labels.max()) + 1):
        member = labels == group
        case, control = member & positive, member & ~positive
        m, n = case.sum(axis=1), control.sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            above = beaten(control, first, last) / n[:, None]
            below = 1 - beaten(case, first, last) / m[:, None]
            value = np.where(case, above, 0).sum(axis=1) / m
            if owner is None:
                spread = np.where(case, (above - value[:, None]) ** 2, 0).sum(axis=1) / (m * np.maximum(m - 1, 1))
                spread += np.where(control, (below - value[:, None]) ** 2, 0).sum(axis=1) / (
                    n * np.maximum(n - 1, 1)
                )
            else:
                part = np.where(case, (above - value[:, None]) / m[:, None], 0)
                part += np.where(control, (below - value[:, None]) / n[:, None], 0)
                units = (member @ owner > 0).sum(axis=1)
                spread = ((np.nan_to_num(part) @ owner) ** 2).sum(axis=1) * units / np.maximum(units - 1, 1)
        values.append(value)
        variances.append(spread + least_variance(m, n))
    return np.stack(values, axis=1), np.stack(variances, axis=1)


def least_variance(positives: ArrayLike, negatives: ArrayLike) -> Floats:
    """Variance that is added to an AUROC's own: one row of the smaller class is never infinitely certain."""
    least: Floats = 1 / (4.0 * np.minimum(positives, negatives).clip(1) ** 2)
    return least


def beaten(rows: Flags, first: Ints, last: Ints) -> Floats:
    """For every row, how many of the marked rows score lower, ties counted half."""
    count = np.zeros((rows.shape[0], rows.shape[1] + 1))
    np.cumsum(rows, axis=1, out=count[:, 1:])
    lower: Floats = (count[:, first] + count[:, last]) / 2
    return lower


def permuted_aurocs(
    positive: Flags,
    score: Floats,
    group: Ints,
    cluster: Ints | None,
    repeats: int,
    rng: np.random.Generator,
) -> tuple[Floats, Floats]:
    """AUROCs and variances, (repeats, groups), labels permuted over units within classes."""
    order = np.argsort(score, kind="stable")
    ordered, labels = positive[order], group[order]
    unit = np.arange(labels.size)
    if cluster is not None:
        unit = units_of(cluster[order], labels)
    number = int(unit.max()) + 1
    owner = np.zeros(number, dtype=np.int16)
    owner[unit] = labels
    kind = np.bincount(unit, ordered, number).astype(bool) + 2 * np.bincount(unit, ~ordered, number).astype(bool)
    setting = prepared(positive, score)
    values, variances = [], []
    for size in chunks(repeats, 4 * labels.size):
        drawn = np.empty((size, number), dtype=np.int16)
        for stratum in np.unique(kind):
            at = np.flatnonzero(kind == stratum)
            drawn[:, at] = rng.permuted(np.broadcast_to(owner[at], (size, at.size)), axis=1)
        value, variance = sorted_aurocs(*setting, drawn[:, unit], None if cluster is None else unit)
        values.append(value)
        variances.append(variance)
    return np.concatenate(values), np.concatenate(variances)


def normal_draws(
    groups: Sequence[Auroc], variance: Floats, repeats: int, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Draw AUROCs of equal mean with each group's own variance, (groups,); (repeats, groups) twice."""
    centre = np.average([part.value for part in groups], weights=1 / np.maximum(variance, 1e-12))
    values = centre + rng.standard_normal((repeats, len(groups))) * np.sqrt(variance)
    return values, np.broadcast_to(variance, values.shape)


def studentised(values: Floats, variances: Floats) -> Floats:
    """Take the largest difference between two groups in standard errors; (draws,)."""
    i, j = np.triu_indices(values.shape[1], 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = np.abs(values[:, i] - values[:, j]) / np.sqrt(variances[:, i] + variances[:, j])
    largest: Floats = np.nan_to_num(distance).max(axis=1)
    return largest


def cautions(positive: Flags, group: Ints, labels: Sequence[str]) -> tuple[str, ...]:
    """Name the groups with too few rows of a class."""
    notes = []
    for k, label in enumerate(labels):
        cases, controls = int(positive[group == k].sum()), int((~positive[group == k]).sum())
        for count, kind in ((cases, "positives"), (controls, "negatives")):
            note = warning(count, MINIMUM)
            if note:
                notes.append(f"{label}, {kind}: {note}")
    return tuple(notes)
