"""A published file beside its runs, or its predictions: what is found where either was forged."""

import shutil
from dataclasses import replace

import pytest
from boards import PATIENTS, RACE, SHARES, copied, published, row, runs, said, says
from builders import BASE, accuracy_of, add, patients

from fairbench.jobs.job import Choice
from fairbench.jobs.store import PREDICTIONS, Store, digest
from fairbench.predictions.predictions import Predictions
from fairbench.publication.against_runs import verify_runs
from fairbench.publication.check import CheckRequest, verdict_on
from fairbench.publication.publish import copy_predictions, publish
from fairbench.publication.published import Publication
from fairbench.publication.verdict import attested, levels
from fairbench.testing.toys import toy_plugins

pytestmark = pytest.mark.slow  # boards of several laboratories are computed again and again


@pytest.fixture
def own(honest, tmp_path):
    """A copy of honest runs, to be tampered with."""
    shutil.copytree(honest["two"][0].root, tmp_path / "runs")
    return Store(tmp_path / "runs")


def recorded(store, method, seed=0):
    return next(
        r for r in store.contents().records if (r.job.method.name, r.job.seed) == (method, seed) and not r.failed
    )


def forged(store, record, **changes):
    """Write a record anew as its forger would: key, hashes and checksum all agree."""
    store.save(replace(record, files={}, **changes))


def answers_set_to_targets(store):
    record = recorded(store, "better")
    answers = store.predictions(record)
    right = answers.table.assign(answer=answers.table["target"], p_1=answers.table["target"].astype(float))
    right["p_0"] = 1 - right["p_1"]
    file = store.predictions_file(record.job)
    Predictions(right, answers.classes, answers.attributes).save(file)
    forged(store, record)


def job_relabelled(store):
    record = recorded(store, "worse")
    job = replace(record.job, method=Choice("mine", {}, "my-plugin 1.0"))
    store.folder(record.job).rename(store.folder(job))
    (store.folder(job) / "record.json").unlink()
    forged(store, record, job=job)


def another_device(store):
    forged(store, recorded(store, "better"), device="NVIDIA H100")


def another_time(store):
    forged(store, recorded(store, "better"), started="2026-11-20T10:00:00+00:00")


def edited_record(store):
    path = store.folder(recorded(store, "better").job) / "record.json"
    path.write_text(path.read_text().replace('"train": 12.0', '"train": 1.0'))


def edited_predictions(store):
    file = store.predictions_file(recorded(store, "better").job)
    file.write_bytes(store.predictions_file(recorded(store, "vanilla").job).read_bytes())


def one_seed_left_out(store):
    add(store, "worse", accuracy_of(SHARES["worse"], PATIENTS, 5), seed=2, table=patients(PATIENTS))


def removed_job(store):
    shutil.rmtree(store.folder(recorded(store, "better").job))


BEFORE = {
    answers_set_to_targets: ("unchecked", "better.*its predictions do not say which job made them"),
    job_relabelled: (
        "differs",
        r"mine.*what its predictions say of themselves: job: published \w+, recomputed \w+",
    ),
    another_device: ("differs", "better.*device: published NVIDIA H100, recomputed cpu"),
    another_time: ("differs", "better.*started: published 2026-11-20.*recomputed 2026-11-21"),
}
AFTER = {
    answers_set_to_targets: ("differs", r"better: score\.value: published 0\.785, recomputed 0\.89"),
    job_relabelled: ("differs", r"\(mine .*it was run on the same data, and is not published"),
    another_device: ("differs", "better.*device: published cpu, recomputed NVIDIA H100"),
    edited_record: ("differs", "better.*its record is refused: it does not match its own checksum"),
    edited_predictions: ("differs", "better.*is not what its record describes"),
    one_seed_left_out: ("differs", r"worse.*seed 2\): it was run on the same data, and is not published"),
    removed_job: ("unchecked", "better.*it is not in these runs"),
}


@pytest.mark.parametrize("tamper", BEFORE, ids=lambda tamper: tamper.__name__)
def test_runs_that_were_forged_before_publishing_are_found(own, tamper):
    tamper(own)
    state, expected = BEFORE[tamper]
    says(said(verify_runs(published(own), [own]), state), expected)


@pytest.mark.parametrize("tamper", AFTER, ids=lambda tamper: tamper.__name__)
def test_runs_that_are_not_what_was_published_are_found(honest, own, tamper):
    tamper(own)
    state, expected = AFTER[tamper]
    says(said(verify_runs(honest["two"][1], [own]), state), expected)


def test_honest_runs_give_every_cell(honest):
    store, publication = honest["two"]
    assert [one for one in verify_runs(publication, [store]) if one.state != "holds"] == []


def test_predictions_beside_the_file_rebuild_the_whole_board(honest, tmp_path):
    """Without the runs, every interval and p-value is checked; a board that was edited in one of them is found."""
    store, _ = honest["two"]
    publication = published(store, predictions=True)
    copy_predictions([store], publication, tmp_path / "board.predictions")
    request, plugins = CheckRequest(tmp_path / "board.json"), toy_plugins()
    verdict = verdict_on(publication, request, plugins)
    assert verdict.differs == ()
    assert {trust for _, _, trust in levels(publication, verdict)} == {"predictions attached"}
    assert attested(publication, verdict, "Reviewer 2").checks[0].by == "Reviewer 2"
    data = copied(publication)
    row(data, "better")["interactions"]["score"]["p"] = 0.04
    assert verdict_on(Publication.from_json(data), request, plugins).differs


def test_of_one_job_in_two_folders_the_answers_that_were_published_are_copied(tmp_path):
    newer = runs(tmp_path / "newer", methods={"vanilla": SHARES["vanilla"]})
    older = Store(tmp_path / "older")
    wrong = accuracy_of({"black": 0.5, "white": 0.5}, PATIENTS)
    add(older, "vanilla", wrong, table=patients(PATIENTS), about=BASE, attributes=(), started="2026-11-01")
    made = publish([newer, older], "board", RACE, command="fairbench publish", publisher="Lab A", predictions=True)
    copy_predictions([newer, older], made, tmp_path / "beside")
    for record in made.jobs:
        if not record.failed:
            assert digest(tmp_path / "beside" / f"{record.job.key}.parquet") == record.files[PREDICTIONS]


def test_of_a_board_with_jobs_elsewhere_every_cell_of_the_rows_that_are_here_is_compared(own):
    """Not only their score: else an edited AUROC would be called attached to predictions."""
    publication = published(own)
    removed_job(own)
    unlike = [one for one in verify_runs(publication, [own]) if one.state == "differs"]
    assert unlike == []
    data = copied(publication)
    row(data, "worse")["gap"]["high"] += 0.05
    says(said(verify_runs(Publication.from_json(data), [own])), r"worse: gap\.high: published")
