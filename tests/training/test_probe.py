"""The probe: what it reads, what it must not read, and that it changes nothing else."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.preprocessing import StandardScaler

from fairbench import FairbenchError, Method
from fairbench.jobs.probe import Probe
from fairbench.jobs.store import Store
from fairbench.jobs.worker_options import WorkerOptions
from fairbench.leaderboard import build as leaderboard
from fairbench.leaderboard.board import Board
from fairbench.models.batch import States
from fairbench.report import render
from fairbench.statistics.probe import PENALTIES, Split, _balanced, read
from fairbench.testing.toys import ToyDataset, toy_plugins, train
from fairbench.training.worker import Worker


def drawn(generator, count, distance, values=2, known=1.0):
    """States of which the first of eight numbers tells the value by a `distance`."""
    codes = generator.integers(0, values, count)
    states = generator.normal(size=(count, 8))
    states[:, 0] += distance * codes
    codes = np.where(generator.random(count) < known, codes, -1)
    return Split(states, codes, np.arange(count))


def splits(seed=0, distance=2.0, **more):
    generator = np.random.default_rng(seed)
    return [drawn(generator, n, distance, **more) for n in (400, 100, 300)]


@pytest.mark.parametrize("values", [("f", "m"), ("a", "b", "c")])
def test_it_is_what_scikit_learn_finds(values):
    train_, val, test = splits(values=len(values))
    table = read(train_, val, test, values)
    scaler = StandardScaler().fit(train_.states)
    known = (scaler.transform(train_.states), train_.codes)
    readers = [LogisticRegression(C=c, class_weight="balanced", max_iter=1000).fit(*known) for c in PENALTIES]
    best = max(readers, key=lambda r: balanced_accuracy_score(val.codes, r.predict(scaler.transform(val.states))))
    states = scaler.transform(test.states)
    assert table["value"] == pytest.approx(balanced_accuracy_score(test.codes, best.predict(states)))
    scores = best.predict_proba(states)
    scores = scores[:, 1] if len(values) == 2 else scores
    assert table["auroc"] == pytest.approx(roc_auc_score(test.codes, scores, multi_class="ovr", average="macro"))
    assert table["low"] < table["value"] < table["high"]
    assert table["p"] < 0.01
    assert table["chance"] == 1 / len(values)


@pytest.mark.slow
def test_what_is_not_there_is_found_as_often_as_chance_says():
    p = [read(*splits(seed, distance=0.0), ("f", "m"))["p"] for seed in range(60)]
    assert 0 <= np.mean(np.array(p) <= 0.2) <= 0.4
    assert 0.3 < np.mean(p) < 0.7


def test_rows_without_the_attribute_are_left_out():
    train_, val, test = splits(known=0.7)
    table = read(train_, val, test, ("f", "m"))
    assert table["rows"] == [int((train_.codes >= 0).sum()), int((test.codes >= 0).sum())]
    odd = [replace(s, states=np.where(s.codes[:, None] < 0, 1e6, s.states)) for s in (train_, val, test)]
    assert read(*odd, ("f", "m")) == table


def test_seeing_a_patient_twice_makes_nothing_surer():
    train_, val, test = splits(distance=1.0)
    twice = Split(*(np.repeat(part, 2, axis=0) for part in (test.states, test.codes, test.cluster)))
    apart = replace(twice, cluster=np.arange(600))
    once, same, more = (read(train_, val, t, ("f", "m")) for t in (test, twice, apart))
    assert (same["low"], same["high"]) == pytest.approx((once["low"], once["high"]))
    assert more["high"] - more["low"] < 0.85 * (same["high"] - same["low"])


def test_of_five_patients_little_is_known():
    """300 rows of one value and 5 of another, of which .8 are read right: drawing them anew covered 78 %."""
    generator, inside = np.random.default_rng(0), 0
    codes = np.repeat([0, 1], [300, 5])
    for _ in range(200):
        answer = np.where(generator.random(305) < 0.8, codes, 1 - codes)
        _, low, high = _balanced(Split(np.zeros((305, 1)), codes, np.arange(305)), answer, 2)
        inside += low <= 0.8 <= high
    assert inside / 200 >= 0.93


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: replace(s, codes=np.full(len(s.codes), -1)), "fewer than 2 test rows are f, m"),
        (lambda s: replace(s, codes=np.zeros(len(s.codes), int)), "fewer than 2 test rows are m"),
    ],
)
def test_what_cannot_be_tested_says_why(change, reason):
    train_, val, test = splits()
    table = read(train_, val, change(test), ("f", "m"))
    assert table["reason"] == reason
    assert "value" not in table


# ── on toys ──────────────────────────────────────────────────────────────────────────────────────


class Plain(Method):
    """Plain fine-tuning."""

    name = "plain"
    baseline = True


class Marked(ToyDataset):
    """Each patient's sex shows in the picture; the site does not."""

    name = "marked"

    def table(self):
        table = super().table()
        return table.assign(image=table["image"] * 2 + (table["sex"] == "male"))

    def image(self, row):
        level, male = divmod(int(row["image"]), 2)
        picture = Image.new("RGB", (8, 8), (level,) * 3)
        if male:
            picture.paste((255, 0, 0), (0, 0, 8, 4))
        return picture


def worker(folder, probe=None):
    return Worker(Store(folder), toy_plugins(Plain, Marked), {}, lambda *_: None, WorkerOptions(probe=probe))


@pytest.fixture
def finished(tmp_path):
    """A job that has finished without a probe."""
    return train(Plain, dataset=Marked, out=tmp_path).record, tmp_path


def test_a_visible_attribute_is_read_and_an_invisible_one_is_not(finished):
    record, folder = finished
    probes = worker(folder, Probe()).probe_again(record).readable
    assert probes["sex"]["value"] > 0.9
    assert probes["sex"]["p"] < 0.01
    assert probes["site"]["p"] > 0.05
    assert probes["sex"]["layer"] == "middle"


def test_states_are_those_that_training_would_see(finished):
    """By hand: the trained backbone's own pooled states, row by row, and another reader of the same kind."""
    record, folder = finished
    made = worker(folder, Probe("last", "text"))
    probed = made.probe_again(record).readable["sex"]
    backbone, (data, table) = made.kept("backbone"), made.kept("dataset")
    reads, unknown = States((1.0,), "text"), torch.tensor([-1])
    with torch.no_grad():
        states = np.stack(
            [
                backbone(backbone.stack([backbone.prepare(data.image(row), data.prompt)]), unknown, reads)
                .states[0, 0]
                .double()
                .numpy()
                for row in table.to_dict("records")
            ]
        )
    parts = []
    for split in ("train", "val", "test"):
        here = (table["split"] == split).to_numpy()
        codes = (table["sex"][here] == "male").astype(int).to_numpy()
        parts.append(Split(states[here], codes, np.arange(here.sum())))
    by_hand = read(*parts, ("female", "male"))
    assert probed["value"] == pytest.approx(by_hand["value"], abs=0.03)
    assert probed["auroc"] == pytest.approx(by_hand["auroc"], abs=0.01)


def test_afterwards_is_as_good_as_at_once_and_touches_nothing_else(finished, tmp_path_factory):
    record, folder = finished
    predictions = Store(folder).predictions_file(record.job)
    before = hashlib.sha256(predictions.read_bytes()).hexdigest()
    after = worker(folder, Probe()).probe_again(record)
    assert Store(folder).record(record.job).readable == after.readable
    assert hashlib.sha256(predictions.read_bytes()).hexdigest() == before
    other = tmp_path_factory.mktemp("at-once")
    Store(other).prepare(record.job)
    at_once = worker(other, Probe()).run(record.job)
    assert at_once.error is None
    assert at_once.job.key == record.job.key
    assert at_once.readable == after.readable


def test_only_what_lacks_this_probe_is_probed(finished):
    record, folder = finished
    store = Store(folder)
    assert store.missing([record.job]) == []
    assert store.missing([record.job], probe=Probe()) == [record.job]
    worker(folder, Probe()).probe_again(record)
    assert store.missing([record.job], probe=Probe()) == []
    assert store.missing([record.job], probe=Probe("first")) == [record.job]


def test_a_job_without_its_adapter_says_so(finished):
    record, folder = finished
    for file in (folder / record.job.key / "adapter").iterdir():
        file.unlink()
    with pytest.raises(FairbenchError, match=r"cannot probe plain on site .* cannot read .*adapter.* No such file"):
        worker(folder, Probe()).probe_again(record)


def test_leaderboards_say_what_can_be_read(finished):
    record, folder = finished
    worker(folder, Probe()).probe_again(record)
    (table,) = leaderboard.build(Store(folder), attributes=["sex"]).tables
    (row,) = table.rows
    reading = {one.attribute: one for one in row.probes}["sex"]
    assert reading.balanced_accuracy.value > 0.9
    page = render(Board("b", (table,), "0"), "md")
    assert "Can sex still be read from the model?" in page
    assert "probe:sex.p" in render(Board("b", (table,), "0"), "csv")
