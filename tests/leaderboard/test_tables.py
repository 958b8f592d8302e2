"""Tables are kept by what they rest on: nothing is computed twice, and nothing stale or damaged is believed."""

import os
import shutil
import sqlite3
import time
from dataclasses import replace
from multiprocessing import get_context

import numpy as np
import pytest
from builders import patients

from fairbench.cache import Cache
from fairbench.cli.options import metrics
from fairbench.jobs.job import Choice, Job, Record, Stage
from fairbench.jobs.status import states
from fairbench.jobs.store import PREDICTIONS, RECORD, Store
from fairbench.leaderboard import tables
from fairbench.leaderboard.build import build
from fairbench.leaderboard.elsewhere import received, references
from fairbench.metrics.metric import Metric, registry
from fairbench.predictions.predictions import Predictions
from fairbench.report import render

GROUPS = {"black": 30, "white": 50}


def add(store, name, seed=0, attributes=("race",), share=0.8, error=None):
    parts = [Choice(part, {}, "fairbench 0.2.0", "1") for part in ("toy", "tiny", name)]
    job = Job(*parts, (Stage(),), attributes, seed)
    folder = store.prepare(job)
    table = patients(GROUPS)
    right = np.random.default_rng(seed).random(len(table)) < share
    table["answer"] = np.where(right, table["target"], 1 - table["target"])
    Predictions(table, ("no", "yes"), ("race", "gender")).save(folder / PREDICTIONS)
    role = "baseline" if name == "plain" else "contender"
    store.save(Record(job, "2026-11-21T10:00:00+00:00", {"train": 2.0}, 10, role=role, error=error))
    return job


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Two methods, one of them trained for two attributes; old enough for the cache to believe their times."""
    monkeypatch.setenv("FAIRBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("fairbench.cache.FRESH", 0.0)
    store = Store(tmp_path / "runs")
    for name, attributes in (("plain", ()), ("fair", ("race",)), ("fair", ("gender",))):
        add(store, name, attributes=attributes)
    time.sleep(0.02)
    return store


@pytest.fixture
def made(monkeypatch):
    """Which tables are computed, by attribute."""
    seen = []
    original = tables.computed

    def computed(store, wanted, options):
        seen.append(wanted.attribute)
        return original(store, wanted, options)

    monkeypatch.setattr(tables, "computed", computed)
    return seen


@pytest.fixture
def quick(monkeypatch):
    """Tables say which methods and seeds are in them and nothing of their evidence, which takes a while."""

    def fill(empty, rows, *_):
        return replace(empty, primary=tuple(f"{one.label} {one.answers.seeds}" for one in rows))

    monkeypatch.setattr(tables, "fill", fill)


def test_a_table_is_computed_once_and_the_kept_one_prints_the_same(store, made):
    first = build(store)
    assert made == ["gender", "race"]
    again = build(store)
    assert made == ["gender", "race"]
    assert all(render(first, kind) == render(again, kind) for kind in ("md", "html", "csv", "json"))


def test_a_new_job_touches_its_own_tables_only(store, made, quick):
    build(store)
    add(store, "fair", seed=1)
    assert sorted(build(store).tables[1].primary) == ["fair (0, 1)", "plain (0,)"]
    assert made == ["gender", "race", "race"]
    add(store, "plain", seed=1, attributes=())
    build(store)
    assert made[3:] == ["gender", "race"]


def test_options_metrics_and_code_are_part_of_what_a_table_rests_on(store, made, monkeypatch, quick):
    def metric(**about):
        rows = {"name": "mine", "title": "Mine", "formula": "f", "source": "s"}
        return Metric(**rows, each=lambda rows: np.ones(len(rows)), **about)

    build(store)
    for changed in ({"min_cell": 5}, {"ranking": "gap"}, {"measure": "accuracy"}, {"primary": ["fair"]}):
        build(store, **changed)
    assert len(made) == 10
    build(store, metrics=[metric()])
    build(store, metrics=[metric(scale="number")])
    assert len(made) == 14
    monkeypatch.setattr(tables, "_own_code", lambda: "another version")
    build(store)
    assert len(made) == 16
    build(store)
    assert len(made) == 16


def test_predictions_that_change_under_their_record_are_seen(store, made, quick):
    """Also when size and time of change are put back; and they are looked at each time."""
    job = add(store, "bent")
    time.sleep(0.02)
    build(store)
    path = store.predictions_file(job)
    state, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    for _ in range(2):
        race = build(store).tables[1]
        assert [(one.label, one.status) for one in race.excluded] == [("bent", "unreadable")]
    assert made[2:] == ["race", "race"]
    assert [one.key for one in store.refused([job])] == [job.key]


def test_a_record_that_is_edited_or_removed_is_seen(store):
    job = add(store, "bent")
    time.sleep(0.02)
    assert states(store)["counts"]["finished"] == 4
    path = store.folder(job) / RECORD
    path.write_text(path.read_text().replace("2.0", "3.0"))
    assert states(store)["counts"]["refused"] == 1
    shutil.rmtree(store.folder(job))
    assert states(store)["counts"] == {**dict.fromkeys(states(store)["counts"], 0), "finished": 3}


def test_a_finished_job_whose_predictions_are_gone_says_so_in_status(store, quick):
    job = add(store, "bare")
    store.predictions_file(job).unlink()
    (one,) = [one for one in states(store)["jobs"] if one["state"] == "refused"]
    assert (one["key"], one["title"]) == (job.key, job.title)
    assert one["reason"].startswith("its predictions.parquet is gone; ")
    assert states(store)["counts"]["finished"] == 3
    assert [(one.label, one.status) for one in build(store).tables[1].excluded] == [("bare", "unreadable")]


@pytest.mark.parametrize("damage", ["not a database", "a flipped bit in every value", "a folder", "read-only"])
def test_a_damaged_cache_is_done_without_and_made_again(store, made, quick, damage):
    before = render(build(store), "json")
    path = Cache().path
    if damage == "not a database":
        path.write_bytes(b"no" * 5000)
    elif damage == "a folder":
        path.unlink()
        path.mkdir()
    elif damage == "read-only":
        path.unlink()
        path.parent.rmdir()
        path.parent.write_text("a file where the folder should be")
    else:
        with sqlite3.connect(path) as database:
            database.execute("UPDATE entries SET value = CAST('x' || value AS BLOB)")
    assert render(build(store), "json") == before
    assert made == ["gender", "race"] * 2
    build(store)
    mended = damage in ("not a database", "a flipped bit in every value")
    assert made == ["gender", "race"] * (2 if mended else 3)


def test_a_folder_that_cannot_be_written_has_a_board_and_a_status(store, quick):
    os.chmod(store.root, 0o555)
    try:
        assert len(build(store).tables) == 2
        assert states(store)["counts"]["finished"] == 3
        assert sorted(path.name for path in store.root.iterdir() if path.name[0] == ".") == []
    finally:
        os.chmod(store.root, 0o755)


def write_many(path, number):
    for step in range(30):
        Cache(path).write("k", {f"{number} {step}": ("", b"x" * 1000)})


def test_several_processes_write_at_once(tmp_path):
    path = tmp_path / "c.sqlite"
    workers = [get_context("fork").Process(target=write_many, args=(path, n)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(Cache(path).read("k")) == 90


def test_what_is_too_much_or_too_old_is_let_go(tmp_path, monkeypatch):
    cache, day = Cache(tmp_path / "c.sqlite"), iter([1, 2, 2, 2, 2, 200])
    monkeypatch.setattr("fairbench.cache._today", lambda: next(day))
    monkeypatch.setattr("fairbench.cache.MOST", 1500)
    cache.write("k", {"a": ("", b"x" * 1000)})
    cache.write("k", {"b": ("", b"x" * 1000)})
    assert set(cache.read("k")) == {"b"}
    cache.write("k", {"b": ("", b"x" * 900), "n": ("", b"x" * 1000)})  # of one day what came last is kept
    assert set(cache.read("k")) == {"n"}
    cache.write("k", {"b": ("", b"x" * 2000)})  # and that though it is too much alone
    assert set(cache.read("k")) == {"b"}
    cache.touch("k", ["b"])
    cache.write("k", {"c": ("", b"x")})
    assert set(cache.read("k")) == {"c"}


def test_every_bundled_metric_reaches_other_processes_and_one_of_this_process_does_not():
    known = registry(metrics())
    sent = references(known)
    assert received(sent).keys() == known.keys()
    mine = Metric(name="mine", title="Mine", formula="f", source="s", each=lambda rows: np.ones(len(rows)))
    assert references({**known, "mine": mine}) is None
    other = replace(known["bleu_4"], title="Another")
    assert references({**known, "bleu_4": other}) is None


@pytest.mark.slow
def test_other_processes_make_the_same_tables(store, made, monkeypatch):
    alone = render(build(store, metrics=metrics()), "json")
    assert made == ["gender", "race"]
    monkeypatch.setattr(tables, "WORTH", 1)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setenv("FAIRBENCH_CACHE", str(store.root.parent / "other"))
    assert render(build(store, metrics=metrics()), "json") == alone
    assert made == ["gender", "race"]  # not in this process


def test_a_summary_outlives_its_bytes(store):
    one = next(iter(store.overview().ended.values()))
    assert type(one).from_bytes(one.to_bytes()) == one
    assert type(one).from_bytes(replace(one, error="no").to_bytes()).error == "no"
