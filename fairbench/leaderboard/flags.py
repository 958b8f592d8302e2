"""What a reader must know before trusting a row: codes, what they mean, and who gets them.

A flag is a claim, so what it says of patients rests on a test of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from fairbench.jobs.job import Record
from fairbench.leaderboard.answers import Answers, constant, contrast, shared_seeds
from fairbench.leaderboard.board import Flag, Row
from fairbench.leaderboard.row import Contender, Entry, provenance
from fairbench.metrics.metric import ACCURACY
from fairbench.predictions.groups import UNRECORDED, Groups
from fairbench.statistics.ranking import holm
from fairbench.statistics.results import ALPHA, Difference, Gap, Interaction

NOT_LEARNED = "has not learned"
ONE_ANSWER = "one answer"
CASE_MIX = "case mix"
LEVELLING_DOWN = "levelling down"
BELOW = "below a reference"
UNRECORDED_WORST = "unrecorded worst"
STALE = "stale"
OTHER_RECIPE = "other recipe"
MISSING_SEEDS = "missing seeds"

# What a flag means, in one sentence. The keys are printed in the table, the sentences under it.
LEGEND = {
    NOT_LEARNED: "It is not shown to tell patients apart: its AUROC (where there are no scores, its balanced"
    " accuracy) does not exceed chance beyond noise, or that of the same training on blank images, neither in the"
    " mean nor in every seed; its gap says nothing about fairness.",
    ONE_ANSWER: "Every seed of it gives all patients one answer: its EqOdds is 0 and its gaps are the groups' mix"
    " of classes, whatever its scores could tell.",
    BELOW: "It tells patients apart less well than the reference named, beyond noise: its training or its backbone,"
    " not the method, is the limit.",
    LEVELLING_DOWN: "Its best-off group lost, beyond noise, the worst-off group did not gain as much, and groups"
    " were moved unequally, beyond noise: its gap comes out smaller than the baseline's, and nobody gained by it.",
    "worst group worse": "Its worst group fares worse than the baseline's worst group, beyond noise.",
    CASE_MIX: "Its accuracy gap exceeds chance, and is not shown to remain at the same mix of classes in every"
    " group: that groups differ in how many of their patients are ill may be all of it.",
    UNRECORDED_WORST: "Its worst group are the patients whose value is not recorded, who are no group of people.",
    STALE: "It was made with another version of fairbench or of a plugin than the newest rows; run it again"
    " before comparing it.",
    OTHER_RECIPE: "It was trained with other stages, batch size, precision or selection than the baseline, so"
    " a difference need not come from the method.",
    "† own stages": "The method changed the stages of training that the benchmark gives to all.",
    "‡ knows groups": "The method may know which group a test patient is in when it adjusts its answers.",
    "§ validation rows": "The method trained on the validation split, so it has seen more patients than the others,"
    " and what is chosen on that split afterwards (an epoch, a threshold) is not chosen on new patients.",
    "¶ chooses on validation": "The method looked at how the validation split is answered while it trained, and"
    " may have chosen its weights by that, as other rows cannot.",
    MISSING_SEEDS: "Other rows have seeds that this row lacks; comparisons use only the seeds both have. Of one"
    " seed set against several, the luck of that one training is in no interval.",
    "partial": "A group had no rows to compute a rate from and is left out of the gap.",
}


# Flags that a job's own record decides, whatever stands beside it.
OF_RECORDS = ("† own stages", "‡ knows groups", "§ validation rows", "¶ chooses on validation")
# And those that the records of all rows of a table decide together.
OF_ENTRIES = (STALE, OTHER_RECIPE, MISSING_SEEDS)


def protocol_flags(entry: Entry, base: Entry | None, seeds: Sequence[int]) -> Iterable[Flag]:
    """Flag how a row was made: other stages or recipe than told, known groups, seeds it lacks."""
    record = entry.first
    yield from record_flags(record)
    if base is not None and record.ranked and entry.recipe != base.recipe:
        unlike = [key for key, value in entry.recipe.items() if value != base.recipe.get(key)]
        yield Flag(OTHER_RECIPE, ", ".join(key.replace("_", " ") for key in unlike))
    lacking = [seed for seed in seeds if seed not in entry.seeds]
    if lacking:
        yield Flag(MISSING_SEEDS, ", ".join(map(str, lacking)))


def entry_flags(entries: Sequence[Entry]) -> dict[str, list[Flag]]:
    """Return the flags that the records of a table's rows and controls decide, by label."""
    stale = stale_rows(entries)
    base = next((one for one in entries if one.role == "baseline"), None)
    seeds = sorted({seed for one in entries for seed in one.seeds})
    return {
        one.label: [*([stale[one.label]] if one.label in stale else ()), *protocol_flags(one, base, seeds)]
        for one in entries
    }


def stale_rows(entries: Sequence[Entry]) -> dict[str, Flag]:
    """Find the rows made with another version of some distribution than the newest row that used it."""
    current: dict[str, str] = {}
    made = {one.label: _versions(one.first) for one in entries}
    for one in sorted(entries, key=lambda entry: max(r.started for r in entry.records)):
        current |= made[one.label]
    stale = {}
    for label, versions in made.items():
        old = [
            f"{name} {number}, now {current[name]}" for name, number in versions.items() if number != current[name]
        ]
        if old:
            stale[label] = Flag(STALE, "; ".join(old))
    return stale


def _versions(record: Record) -> dict[str, str]:
    """Split what provides a record into names and versions: `my-plugin 1.2`, and the hash of a plugin file."""
    made = provenance(record)
    versions = {"fairbench itself": made["fairbench"], f"weights of {record.job.backbone.name}": made["weights"]}
    for kind in ("dataset", "backbone", "method"):
        name, _, number = made[kind].rpartition(" ")
        number, _, code = number.partition("+")
        versions[name or kind] = number
        if code:
            versions[f"code of {getattr(record.job, kind).name}"] = code
    return versions


def record_flags(record: Record) -> Iterable[Flag]:
    """Flag what a job's own record says of how it was made."""
    own_stages = record.ranked and record.stages not in (None, record.job.stages)
    told = (own_stages, record.adjusts_with_group, record.spends_validation, record.looks > 0)
    yield from (Flag(code) for code, holds in zip(OF_RECORDS, told, strict=True) if holds)


def learned(row: Row) -> bool:
    """Whether a row is shown to tell patients apart, and answers them apart: what its gaps mean anything by."""
    return not any(flag.code in (NOT_LEARNED, ONE_ANSWER) for flag in row.flags)


def gap_flags(gap: Gap, standardised: Gap, worst_group: Gap, odds: Gap) -> Iterable[Flag]:
    """Flag what a row's own disparities must be read with."""
    if _beyond(gap) and standardised.p is not None and standardised.p > ALPHA:
        yield Flag(CASE_MIX)
    if worst_group.group is not None and UNRECORDED in worst_group.group.split("×"):
        yield Flag(UNRECORDED_WORST)
    for used, present in (gap.coverage or (0, 0), odds.coverage or (0, 0)):
        if 0 < used < present:
            yield Flag("partial", f"a gap over {used} of {present} groups")
            break


def _beyond(gap: Gap) -> bool:
    return gap.adjusted is not None and gap.adjusted <= ALPHA


def worst_group_worse(changes: Mapping[str, Difference]) -> bool:
    """Whether the worst group fares worse than the baseline's, beyond noise."""
    change = changes.get("worst_group", Difference())
    return change.significant and (change.value or 0) < 0


def idle_flags(contender: Contender, controls: Sequence[Contender], groups: Groups) -> Iterable[Flag]:
    """Flag a row whose gaps mean nothing: it is not shown to have learned, or answers everybody alike."""
    yield from not_learned(contender, controls, groups)
    if contender.answers.constant:
        yield Flag(ONE_ANSWER)


def not_learned(contender: Contender, controls: Sequence[Contender], groups: Groups) -> Iterable[Flag]:
    """Flag a row that is not shown to tell patients apart beyond noise, or better than a control.

    A control that shares no seed with the row is not compared; `missing seeds` says so.
    """
    answers = contender.answers
    blind = [c for c in controls if c.role == "control" and not c.answers.constant]
    against = [c for c in blind if shared_seeds(answers, c.answers)]
    if answers.measure is ACCURACY and "target" in answers.predictions[0].table:
        name, over_chance = answers.learned(groups)
        if over_chance.p is None:
            yield Flag(NOT_LEARNED, f"its {name} is undefined on these rows, so nothing shows that it has")
            return
        beaten = {"chance": over_chance} | {
            f"the control {c.label}": _paired_learned(answers, c.answers, groups) for c in against
        }
        said = "its {name} is no better than that of {whom}"
    else:
        name, said = answers.measure.title, "no better than {whom}"
        references = {"always giving the commonest answer": constant(answers.predictions[0], answers.measure)}
        references |= {f"the control {c.label}": c.answers for c in against}
        beaten = {
            whom: contrast(answers, other, groups, repeats=2_000).accuracy for whom, other in references.items()
        }
    unbeaten = [whom for whom, difference in beaten.items() if not _higher(difference)]
    if unbeaten:
        yield Flag(NOT_LEARNED, said.format(name=name, whom=" and ".join(unbeaten)))


def _paired_learned(answers: Answers, control: Answers, groups: Groups) -> Difference:
    pair = shared_seeds(answers, control)
    return pair[0].learned(groups, pair[1])[1] if pair else Difference()


def below_references(
    rows: Sequence[Contender], references: Sequence[Contender], groups: Groups
) -> dict[str, list[Flag]]:
    """Flag the rows that tell patients apart less well than a reference, by row; one family of tests."""
    pairs = [(row, other) for row in rows for other in references if other.role == "reference"]
    tests = [_paired_learned(other.answers, row.answers, groups) for row, other in pairs]
    flags: dict[str, list[Flag]] = {row.label: [] for row in rows}
    for (row, other), test, p in zip(pairs, tests, holm([test.p for test in tests]), strict=True):
        if p is not None and p <= ALPHA and (test.value or 0) > 0:
            name, _ = row.answers.learned(groups)
            said = f"{name} {100 * (test.value or 0):.1f} points lower than that of {other.label}"
            flags[row.label].append(Flag(BELOW, said))
    return flags


def _higher(difference: Difference) -> bool:
    return difference.p is None or (difference.p <= ALPHA and (difference.value or 0) > 0)


Against = tuple[Mapping[str, Difference], Mapping[str, Interaction]]


def levelling_down(against_baseline: Mapping[str, Against]) -> set[str]:
    """Find the rows whose gap shrank because the best-off group lost; label -> changes and interactions.

    The claim has two parts, so its p is the larger of theirs: that the best-off group lost, and that groups
    were moved unequally. Holm's p is over the rows.
    """
    p = holm([_levelled(changes, moved) for changes, moved in against_baseline.values()])
    return {label for label, one in zip(against_baseline, p, strict=True) if one is not None and one <= ALPHA}


def _levelled(changes: Mapping[str, Difference], moved: Mapping[str, Interaction]) -> float | None:
    """P of "the best-off group lost, and not all lost alike"; 1 where the values do not even say so."""
    gap, best, worst = (changes[name].value for name in ("gap", "best_group", "worst_group"))
    p = (changes["best_group"].p, moved["score"].p)
    if gap is None or best is None or worst is None or None in p:
        return None
    return max(one for one in p if one is not None) if gap < 0 and -best > max(0.0, worst) else 1.0
