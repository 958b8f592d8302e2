"""What a table says in words: no more than the tests behind it, from its data as they are published."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from fairbench.leaderboard.board import Row, Table
from fairbench.leaderboard.flags import CASE_MIX, NOT_LEARNED, ONE_ANSWER, learned
from fairbench.statistics.intervals import FEW_OF_A_CLASS, MINIMUM
from fairbench.statistics.permutation import WIDE
from fairbench.statistics.results import ALPHA, Contrast, Difference, Gap

MANY = 6  # names that a sentence can hold
MOST = 12  # names that a list in a sentence can hold


def finding(table: Table) -> list[str]:
    """Say what to do with the table; then whose gap is more than chance, and who differs from the baseline how."""
    if not table.rows:
        if not table.attribute:
            return ["This dataset records no attribute."]
        if not table.controls:
            return ["No job of this table finished."]
        return [f"Only controls finished ({named([row.label for row in table.controls])}): no method is judged."]
    if not any(map(learned, table.rows)):
        return ["No method here is shown to tell patients apart: this table says nothing about fairness."]
    if table.baseline is None:
        said = ["There is no baseline in this table, so nothing says what the methods changed."]
        said += [_chance(table), *_case_mix(table)]
    else:
        conclusion = " ".join([*_problem(table), _conclusion(table)])
        said = [conclusion, _chance(table), *_case_mix(table), *_changes(table), *_moved(table)]
    return [*said, *_idle(table)]


def _idle(table: Table) -> Iterable[str]:
    """Say whose gaps mean nothing, and why."""
    codes = {row.label: {flag.code for flag in row.flags} for row in table.rows}
    unlearned = [label for label, own in codes.items() if NOT_LEARNED in own]
    alike = [label for label, own in codes.items() if ONE_ANSWER in own and NOT_LEARNED not in own]
    if unlearned:
        are = "is" if len(unlearned) == 1 else "are"
        own = _their(unlearned)
        yield f"{named(unlearned)} {are} not shown to tell patients apart, so {own} gaps mean nothing."
    if alike:
        give = "gives" if len(alike) == 1 else "give"
        yield f"{named(alike)} {give} everybody one answer, so {_their(alike)} gaps mean nothing."


def _their(names: Sequence[str]) -> str:
    return "its" if len(names) == 1 else "their"


def _chance(table: Table) -> str:
    rows = [row for row in table.rows if learned(row)]
    gaps = {table.measure.gap: {row.label: row.gap for row in rows}}
    if any(row.eq_odds_max.value is not None for row in rows):
        gaps["EqOdds(max)"] = {row.label: row.eq_odds_max for row in rows}
    return beyond_chance(gaps, table.attribute, table.rows_tested, table.clusters)


def _case_mix(table: Table) -> Iterable[str]:
    """Say whose gap the groups' mix of classes makes, and what an answer that looks at nothing would show."""
    mixed = [row.label for row in table.rows if learned(row) and any(flag.code == CASE_MIX for flag in row.flags)]
    if mixed:
        constant = table.constant
        always = ""
        if constant is not None and constant.gap is not None:
            always = f"; always answering “{constant.answer}” shows {points(constant.gap)}"
        yield (
            f"With the same mix of classes in every group, the {table.measure.gap} of"
            f" {named(mixed, len(table.rows))} is not shown to exceed chance{always}."
        )


def beyond_chance(
    gaps: Mapping[str, Mapping[str, Gap]], attribute: str, rows: int, clusters: int | None = None
) -> str:
    """One sentence: whose gaps exceed what chance gives, and what size could have been seen.

    gaps: disparity -> method -> Gap on the same rows; `adjusted` p-values decide. Rows are called patients
    unless `clusters`, if given, are fewer.
    """
    alone = clusters is None or clusters == rows
    on = f"on {rows:,} patients" if alone else f"on {rows:,} test rows in {clusters:,} clusters"
    first = next(iter(gaps.values()))
    known = [gap for gap in first.values() if gap.p is not None]
    if not known:
        reasons = sorted({gap.reason for gap in first.values() if gap.reason})
        return f"No {attribute} gap is defined {on}: {'; '.join(reasons)}."
    beyond = {
        name: [label for label, gap in methods.items() if gap.adjusted is not None and gap.adjusted <= ALPHA]
        for name, methods in gaps.items()
    }
    shown = [f"{name} of {named(labels, len(gaps[name]))}" for name, labels in beyond.items() if labels]
    if shown:
        verb = "exceeds" if len(shown) == 1 else "exceed"
        text = f"Between groups of {attribute}, {' and '.join(shown)} {verb} what chance gives {on}"
    else:
        text = f"No method's gap between groups of {attribute} exceeds what chance gives {on} ({' or '.join(gaps)})"
    sizes = [gap.detectable for gap in known if gap.detectable is not None]
    name = next(iter(gaps))
    if len(sizes) < len(known):
        return f"{text}; some group is too small for any {name} it holds to be found reliably."
    tests = sum(gap.p is not None for methods in gaps.values() for gap in methods.values())
    larger = f", and a larger one too among {tests} tests" if tests > 1 else ""
    return (
        f"{text}; a true {name} below {points(min(sizes))} may go unnoticed where the least favourable group"
        f" departs{larger}."
    )


def _changes(table: Table) -> Iterable[str]:
    """Say who has another gap, another EqOdds or lost accuracy, and of everybody else that nothing is shown."""
    rows = [row for row in table.rows if row.changes]
    names = {"gap": table.measure.gap, "eq_odds_max": "EqOdds(max)"}
    parts = []
    for key, name in names.items():
        changes = {row.label: row.changes[key] for row in rows if key in row.changes and learned(row)}
        for word, sign in (("smaller", -1), ("larger", 1)):
            apart = _apart(changes, sign)
            if apart:
                have = "has" if len(apart) == 1 else "have"
                parts.append(f"{_with_sizes(apart)} {have} a {word} {name} than {table.baseline}")
    if parts:
        yield f"{'; '.join(parts)}."
    elif rows:
        known = [
            name
            for key, name in names.items()
            if any(key in row.changes and row.changes[key].p is not None for row in rows)
        ]
        if known:
            yield f"No method's {' or '.join(known)} is shown to differ from {table.baseline}'s."
    changes = {row.label: row.changes["score"] for row in rows if "score" in row.changes and learned(row)}
    for word, sign in (("gained", 1), ("lost", -1)):
        apart = _apart(changes, sign)
        if apart:
            yield f"{_with_sizes(apart)} {word} {table.measure.noun}."


def _apart(changes: Mapping[str, Difference], sign: int) -> dict[str, float]:
    return {
        label: abs(change.value)
        for label, change in changes.items()
        if change.significant and change.value is not None and change.value * sign > 0
    }


def _with_sizes(apart: Mapping[str, float]) -> str:
    return _some([f"{label} ({points(size)})" for label, size in apart.items()])


def _moved(table: Table) -> Iterable[str]:
    """Say whom a method moved against whom: the clearest contrast of each rate, so that a harm in one is told
    beside a gain in another.
    """
    for row in filter(learned, table.rows):
        said = []
        for kind, interaction in row.interactions.items():
            if kind == "standardised_gap":  # it stands in the details, beside the accuracy that it qualifies
                continue
            if interaction.significant:
                clear = [c for c in interaction.contrasts if c.interval and c.interval[0] * c.interval[1] > 0]
                said += [_contrast(first) for first in {c.rate: c for c in reversed(clear)}.values()]
        if said:
            gap = row.changes.get("gap", Difference())
            still = "" if gap.significant else f", though its {table.measure.gap} is not shown to differ"
            yield f"{row.label} moved {' and '.join(said)}{still}."


def _contrast(one: Contrast) -> str:
    way = "up" if (one.value or 0) > 0 else "down"
    ends = sorted(abs(100 * end) for end in one.interval or ())
    size = f"{points(abs(one.value or 0))} [{', '.join(f'{end:.1f}' for end in ends)}]"
    return f"{one.group} {way} by {size} against {one.against} in {one.rate}"


def _problem(table: Table) -> Iterable[str]:
    """Say whether the baseline is shown to treat the groups unequally, which is what methods are to mend."""
    for row in table.rows:
        if row.label == table.baseline and learned(row):
            mixed = any(flag.code == CASE_MIX for flag in row.flags)
            gaps = {} if mixed else {table.measure.gap: row.gap}
            gaps["EqOdds(max)"] = row.eq_odds_max
            beyond = [
                f"{name} of {points(gap.value)}"
                for name, gap in gaps.items()
                if gap.value is not None and gap.adjusted is not None and gap.adjusted <= ALPHA
            ]
            if beyond:
                yield f"{row.label} treats groups of {table.attribute} unequally, beyond chance: {listed(beyond)}."
            else:
                yield f"{row.label} is not shown to treat groups of {table.attribute} unequally."


def _conclusion(table: Table) -> str:
    """Say what a reader may do: whom the tests show to be fairer than the baseline, at what price; whom less.

    A worst group gains also where all groups do, so that alone is said as what it is.
    """
    gaps = {"gap": -1, "eq_odds_max": -1}
    costs = gaps | {"worst_group": 1, "score": 1}
    fairer: list[str] = []
    lifted: list[str] = []
    at_cost: list[str] = []
    less: list[str] = []
    for row in filter(learned, table.rows):
        alike = any(_shown(row, key, sign) for key, sign in gaps.items())
        worse = any(_shown(row, key, -sign) for key, sign in costs.items())
        if alike or _shown(row, "worst_group", 1):
            (at_cost if worse else fairer if alike else lifted).append(row.label)
        elif any(_shown(row, key, -sign) for key, sign in gaps.items()):
            less.append(row.label)
    more = f" Shown to serve the worst-served group better, with no loss shown: {_some(lifted)}." if lifted else ""
    more += f" Shown to treat them less alike: {_some(less)}." if less else ""
    if fairer:
        return (
            f"Shown to treat groups more alike than {table.baseline}, with no loss shown in {table.measure.noun},"
            f" worst group or gaps: {_some(fairer)}.{more}"
        )
    if at_cost:
        return (
            f"Nothing here is shown to be fairer than {table.baseline} without a cost; {_some(at_cost)} gained in"
            f" one respect and lost in another: a trade-off that these data cannot settle.{more}"
        )
    if more:
        return f"Nothing here is shown to treat groups more alike than {table.baseline}.{more}"
    return f"Nothing here is shown to be fairer than {table.baseline}."


def _shown(row: Row, key: str, sign: int) -> bool:
    change = row.changes.get(key, Difference())
    return change.significant and (change.value or 0) * sign > 0


def notes(table: Table) -> Iterable[str]:
    """Say what holds for the whole table: seeds, groups that are small, measures that are missing."""
    seeds = max((len(row.seeds) for row in table.rows), default=0)
    if seeds > 1:
        yield "With several seeds, values are the mean over them; intervals and p-values are for that mean."
    elif seeds == 1:
        yield "One seed each: a difference is one between two trained models, not yet between two methods."
    if table.primary:
        yield f"Planned comparisons with {table.baseline}, adjusted among themselves: {listed(table.primary)}."
    small = [
        f"{g.name} (n = {g.n}{f', {g.positives} + / {g.negatives} −' if g.positives is not None else ''})"
        for g in table.groups
        if g.n is not None and min(n for n in (g.n, g.positives, g.negatives) if n is not None) < MINIMUM
    ]
    if small:
        yield f"Too small to say anything on their own (fewer than {MINIMUM} rows of a class): {', '.join(small)}."
    if any(WIDE in value.notes for row in table.rows for value in row.groups):
        yield "Some groups' intervals are wider than 95 % needs: few of their rows differ from the commonest score."
    if any(FEW_OF_A_CLASS in row.auroc.notes for row in table.rows):
        yield f"AUROC: {FEW_OF_A_CLASS}."
    for one in table.further:
        if one.missing:
            yield f"{one.measure.title} is not measured: {one.missing}."


def named(names: Sequence[str], of: int | None = None) -> str:
    """Join names as prose, or say how many there are where a sentence cannot hold them."""
    if of is not None and len(names) == of > 2:
        return f"all {of} rows"
    return listed(names) if len(names) <= MANY else f"{len(names)} rows"


def listed(names: Sequence[str]) -> str:
    """Join names as prose: a, b and c."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _some(names: Sequence[str]) -> str:
    """Join names as prose; of very many, the first and how many more there are."""
    if len(names) <= MOST:
        return listed(names)
    return f"{', '.join(names[:MOST])} and {len(names) - MOST:,} more"


def points(fraction: float) -> str:
    """Print a fraction in percentage points."""
    return f"{100 * fraction:.1f} points"
