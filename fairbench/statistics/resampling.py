"""Resampling that never shuffles what it can count.

Rows are first summed within units (a unit is a cluster's rows in one group; without clusters, a row), then
units that look alike are counted: a `Table` of patterns × groups. Two thousand 0/1 rows become four numbers a
group, and a permutation of the labels is a draw from the multivariate hypergeometric distribution of that
table: exact, and as cheap for 5 million rows as for 2,000. Only scores that hardly repeat (text metrics) are
permuted unit by unit.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fairbench.errors import FairbenchError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CHUNK = 4_000_000  # numbers held at once while resampling: 32 MB
DRAW = 5  # one hypergeometric draw costs about as much as moving this many units
MANY = 100_000  # units above which real scores are rounded to LEVELS for resampling only
LEVELS = 256
BUDGET = 2_000_000_000  # units moved at most; beyond it fewer permutations are drawn, and the result says so
FEW = 16  # distinct differences of a group, up to which binomial draws are cheap enough
KEPT = 64  # chunks of permutations that are kept for who draws the same: 45 MB for 300 rows, 170 MB at most
BUNDLES = 2_000  # random bundles of units a group is bootstrapped in, when its units hardly repeat


@dataclass(frozen=True)
class Table:
    """Distinct units and how often each occurs in each group.

    sums, sizes: (patterns, rates), a unit's row scores added up and its number of rows; counts: (patterns,
    groups); stratum: (patterns,), which rates the unit enters: labels are permuted within it, which for
    EqOdds(max) means within the true class. binary: every row is 0 or 1. repeats_rows: some unit holds
    several rows of one rate.
    """

    sums: Floats
    sizes: Floats
    counts: Ints
    stratum: Ints
    binary: bool
    repeats_rows: bool

    @property
    def units(self) -> int:
        """Number of units in all groups."""
        return int(self.counts.sum())


def checked(
    rates: Sequence[NDArray[np.floating]], group: Ints, cluster: Ints | None
) -> tuple[list[Floats], Ints, Ints | None]:
    """Check the inputs. Raises FairbenchError for unequal lengths, infinities and non-integer codes."""
    groups = np.asarray(group)
    values = [np.asarray(rate, dtype=np.float64) for rate in rates]
    if not values:
        raise FairbenchError("no rate was given", "pass at least one array of row scores")
    if groups.ndim != 1 or (groups.size and not np.issubdtype(groups.dtype, np.integer)):
        raise FairbenchError("`group` must be one integer code per row, -1 where not recorded")
    for index, rate in enumerate(values):
        if rate.shape[-1:] != groups.shape:
            raise FairbenchError(f"rate {index} has {rate.shape} rows, `group` has {groups.shape}")
        if np.isinf(rate).any():
            raise FairbenchError(f"rate {index} holds an infinite score", "NaN marks a row outside a rate")
    if groups.size and groups.min() < -1:
        raise FairbenchError(f"`group` holds {groups.min()}", "codes start at 0; -1 means not recorded")
    clusters = None if cluster is None else np.asarray(cluster)
    if clusters is not None and clusters.shape != groups.shape:
        raise FairbenchError(f"`cluster` has shape {clusters.shape}, `group` has {groups.shape}")
    return values, groups.astype(np.int64), clusters


def codes(columns: Sequence[NDArray[np.generic]]) -> Ints:
    """One integer code per distinct row of the columns, compressed as it goes so that it never overflows."""
    code = np.zeros(columns[0].size, dtype=np.int64)
    for column in columns:
        levels, inverse = np.unique(column, return_inverse=True)
        code = code * levels.size + inverse.ravel()
        if code.size and code.max() > 4 * code.size + 64:
            code = np.unique(code, return_inverse=True)[1].ravel()
    return code


def tabulate(rates: Sequence[Floats], group: Ints, cluster: Ints | None, groups: int, paired: int = 1) -> Table:
    """Rows as a Table of `groups` columns; rows of group -1 and rows in no rate are left out.

    With `paired` = m, every m consecutive rates share the rows (and sizes) of the first of them: the scores
    of two methods and several seeds on the same patients.
    """
    heads = [rates[index] for index in range(0, len(rates), paired)]
    defined = [~np.isnan(head) for head in heads]
    keep = (group >= 0) & np.logical_or.reduce(defined)
    group = group[keep]
    defined = [known[keep] for known in defined]
    scores = [np.nan_to_num(rate[keep]) for rate in rates]
    binary = all(np.isin(score, (0.0, 1.0)).all() for score in scores)
    if cluster is not None:
        unit = np.unique(codes([cluster[keep], group]), return_inverse=True)[1].ravel()
        number = int(unit.max(initial=-1)) + 1
        scores = [np.bincount(unit, score, number) for score in scores]
        sizes = [np.bincount(unit, known, number) for known in defined]
        owner = np.zeros(number, dtype=np.int64)
        owner[unit] = group
        group = owner
    else:
        sizes = [known.astype(float) for known in defined]
    stratum = codes([size > 0 for size in sizes])
    code = np.unique(codes([*scores, *sizes]), return_inverse=True)[1].ravel()
    number = int(code.max(initial=-1)) + 1
    first = np.zeros(number, dtype=np.int64)
    first[code] = np.arange(code.size)
    counts = np.bincount(code * groups + group, minlength=number * groups).reshape(number, groups)
    return Table(
        sums=np.stack([score[first] for score in scores], axis=1),
        sizes=np.stack([size[first] for size in sizes], axis=1),
        counts=counts,
        stratum=stratum[first],
        binary=binary,
        repeats_rows=any(bool((size > 1).any()) for size in sizes),
    )


def rounded(table: Table) -> Table:
    """Round each rate's scores to LEVELS steps where there are MANY distinct units.

    Only resampling uses it: steps of 1/255 of the range change a variance by less than 1e-5 of it.
    """
    if len(table.sums) <= MANY:
        return table
    low, high = table.sums.min(axis=0), table.sums.max(axis=0)
    step = np.where(high > low, (high - low) / (LEVELS - 1), 1)
    sums = low + step * np.round((table.sums - low) / step)
    code = np.unique(codes([*sums.T, *table.sizes.T]), return_inverse=True)[1].ravel()
    counts = np.zeros((code.max() + 1, table.counts.shape[1]), dtype=np.int64)
    np.add.at(counts, code, table.counts)
    first = np.zeros(len(counts), dtype=np.int64)
    first[code] = np.arange(code.size)
    return Table(sums[first], table.sizes[first], counts, table.stratum[first], table.binary, table.repeats_rows)


def permuted(table: Table, features: Floats, repeats: int, rng: np.random.Generator) -> Iterator[Floats]:
    """Group sums of the features, (chunk, groups, features), after permuting labels over units within strata.

    features: (patterns, columns). Draws `repeats` in all, in chunks of bounded memory.
    """
    parts = [np.flatnonzero(table.stratum == stratum) for stratum in np.unique(table.stratum)]
    shuffling = [not countable(table.counts[part]) for part in parts]
    per_repeat = 1
    for part, shuffle in zip(parts, shuffling, strict=True):
        held = int(table.counts[part].sum()) * (features.shape[1] + 1) if shuffle else part.size * 4
        per_repeat = max(per_repeat, held)
    for size in chunks(repeats, per_repeat):
        total = np.zeros((size, table.counts.shape[1], features.shape[1]))
        for part, shuffle in zip(parts, shuffling, strict=True):
            draw = _shuffle if shuffle else _count
            total += draw(table.counts[part], features[part], size, rng)
        yield total


def countable(counts: Ints) -> bool:
    """Whether drawing tables is cheaper than shuffling the units they count."""
    return bool(DRAW * counts.shape[0] * (counts.shape[1] - 1) <= counts.sum())


def _count(counts: Ints, features: Floats, size: int, rng: np.random.Generator) -> Floats:
    """Random tables with the margins of `counts`, group by group: multivariate hypergeometric."""
    left = np.repeat(counts.sum(axis=1)[:, None], size, axis=1)
    sums = np.empty((size, counts.shape[1], features.shape[1]))
    rest = features.T @ left
    order = np.argsort(counts.sum(axis=0), kind="stable")  # the largest group takes what the others leave
    for group in order[:-1]:
        need = np.full(size, counts[:, group].sum())
        others = left.sum(axis=0)
        drawn = np.empty_like(left)
        for pattern in range(len(left) - 1):
            others = others - left[pattern]
            drawn[pattern] = rng.hypergeometric(left[pattern], others, need)
            need = need - drawn[pattern]
        drawn[-1] = need
        left = left - drawn
        sums[:, group] = (features.T @ drawn).T
        rest = rest - sums[:, group].T
    sums[:, order[-1]] = rest.T
    return sums


def _shuffle(counts: Ints, features: Floats, size: int, rng: np.random.Generator) -> Floats:
    """Shuffle units, where they hardly repeat: `size` permutations at once."""
    units = np.repeat(np.arange(len(counts)), counts.sum(axis=1))
    values, order = features[units], _orders(units.size, size, rng)
    sums = np.empty((size, counts.shape[1], features.shape[1]))
    groups = np.argsort(counts.sum(axis=0), kind="stable")  # the largest group takes what the others leave
    ends = np.cumsum(counts.sum(axis=0)[groups[:-1]], dtype=np.int64)
    left = int(ends[-1]) if ends.size else 0
    first = np.arange(size, dtype=np.int64)[:, None] * left + np.concatenate([[0], ends[:-1]])
    # Row by row of this matrix one draw's groups, in ones where a unit is in it: sums without a copy of every unit.
    inside = sparse.csr_array(
        (np.ones(size * left), order[:, :left].ravel(), np.append(first.ravel(), size * left)),
        shape=(size * ends.size, units.size),
    )
    sums[:, groups[:-1]] = (inside @ values).reshape(size, ends.size, -1)
    sums[:, groups[-1]] = values.sum(axis=0) - sums[:, groups[:-1]].sum(axis=1)
    return sums


def _orders(units: int, size: int, rng: np.random.Generator) -> NDArray[np.integer]:
    """Random orders of the units, (size, units); a generator in the same state draws the same, and only once.

    So the rows of a leaderboard's table, which are tested on the same patients, share their permutations.
    """
    order, rng.bit_generator.state = _drawn_orders(units, size, json.dumps(rng.bit_generator.state))
    return order


@functools.lru_cache(maxsize=KEPT)
def _drawn_orders(units: int, size: int, state: str) -> tuple[NDArray[np.integer], dict[str, Any]]:
    rng = np.random.default_rng()
    rng.bit_generator.state = json.loads(state)
    places = np.arange(units, dtype=np.min_scalar_type(units))
    order = rng.permuted(np.broadcast_to(places, (size, units)), axis=1)
    return order, dict(rng.bit_generator.state)


def bootstrapped(table: Table, features: Floats, repeats: int, rng: np.random.Generator) -> Iterator[Floats]:
    """Group sums of the features, (chunk, groups, features), with every group's units drawn with replacement.

    Groups keep their number of units. Where units hardly repeat, a group's units are first put into at most
    BUNDLES random bundles, which leaves the variance of a mean unchanged in expectation (batch means).
    """
    parts = []
    for group in range(table.counts.shape[1]):
        present = np.flatnonzero(table.counts[:, group])
        counts, columns = table.counts[present, group], features[present]
        if present.size > BUNDLES:
            unit = rng.permutation(np.repeat(np.arange(present.size), counts))
            bundle = np.arange(unit.size) % BUNDLES
            columns = np.stack([np.bincount(bundle, column[unit], BUNDLES) for column in columns.T], axis=1)
            counts = np.ones(BUNDLES, dtype=np.int64)
        parts.append((counts, columns))
    widest = max((counts.size for counts, _ in parts), default=1)
    for size in chunks(repeats, max(widest, len(parts) * features.shape[1])):
        total = np.zeros((size, len(parts), features.shape[1]))
        for group, (counts, columns) in enumerate(parts):
            if counts.size:
                drawn = rng.multinomial(counts.sum(), counts / counts.sum(), size=size)
                total[:, group] = drawn @ columns
        yield total


def swapped(table: Table, half: Floats, repeats: int, rng: np.random.Generator) -> Iterator[Floats]:
    """Group sums of ±half, (chunk, groups, columns), with a fair coin for every unit.

    half: (patterns, columns), half the difference between two methods; a unit whose methods agree needs no
    coin. A group with more than BUNDLES distinct differences draws its sums from the normal limit with their
    covariance.
    """
    parts = []
    for group in range(table.counts.shape[1]):
        differ = np.flatnonzero((table.counts[:, group] > 0) & (half != 0).any(axis=1))
        parts.append((table.counts[differ, group], half[differ]))
    widest = max((min(counts.size, BUNDLES) for counts, _ in parts), default=1)
    for size in chunks(repeats, max(widest, len(parts) * half.shape[1], 1)):
        total = np.zeros((size, len(parts), half.shape[1]))
        for group, (counts, columns) in enumerate(parts):
            if counts.size > BUNDLES:
                covariance = (columns.T * counts) @ columns
                total[:, group] = rng.multivariate_normal(np.zeros(len(covariance)), covariance, size)
            elif counts.size > FEW and counts.sum() <= 4 * counts.size:
                total[:, group] = coins(int(counts.sum()), size, rng) @ np.repeat(columns, counts, axis=0)
            else:
                total[:, group] = (2 * rng.binomial(counts, 0.5, size=(size, counts.size)) - counts) @ columns
        yield total


def coins(units: int, size: int, rng: np.random.Generator) -> Floats:
    """±1 with even odds, (size, units): one random bit each, an order of magnitude cheaper than a binomial draw."""
    drawn = rng.integers(0, 256, (size, (units + 7) // 8), dtype=np.uint8)
    coin: Floats = 2.0 * np.unpackbits(drawn, axis=1, count=units).astype(np.float64) - 1.0
    return coin


def chunks(repeats: int, per_repeat: int) -> Iterator[int]:
    """Sizes that add up to `repeats`, each small enough that CHUNK numbers hold it."""
    size = max(1, min(repeats, CHUNK // max(per_repeat, 1)))
    for start in range(0, repeats, size):
        yield min(size, repeats - start)


def affordable(table: Table, repeats: int) -> int:
    """As many of the repeats as BUDGET allows; counting is always affordable."""
    moved = 0
    for stratum in np.unique(table.stratum):
        counts = table.counts[table.stratum == stratum]
        moved += 0 if countable(counts) else int(counts.sum())
    return repeats if moved == 0 else int(max(99, min(repeats, BUDGET // moved)))
