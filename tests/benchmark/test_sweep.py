"""A sweep's name and its file: nothing is overwritten, and what is missing to run it again is named."""

from dataclasses import replace
from pathlib import Path

import pytest

from fairbench.benchmark.benchmark import Benchmark, Provider, load, to_toml
from fairbench.benchmark.sweep import check_providers, named, write
from fairbench.errors import FairbenchError
from fairbench.jobs.job import Choice
from fairbench.jobs.store import Store
from fairbench.testing.toys import toy_plugins

MINE = Provider("method", "mine", "my-plugin 1.2+0123456789ab")
ASKED = Benchmark("quickstart", datasets=("toy",), methods=(Choice("mine"),), batch_size=8, precision="float32")


def test_every_sweep_of_a_folder_has_a_name_of_its_own(tmp_path):
    store = Store(tmp_path)
    first = named(store, ASKED, None)
    write(store, first)
    assert first.name == "quickstart"
    assert named(store, replace(ASKED, made_with=(MINE,)), None).name == "quickstart", "the same is asked again"
    other = named(store, replace(ASKED, seeds=(0, 1)), None)
    write(store, other)
    assert other.name == "quickstart-2"
    assert named(store, replace(ASKED, seeds=(2,)), None).name == "quickstart-3"
    assert named(store, replace(ASKED, seeds=(0, 1)), None).name == "quickstart-2"


def test_a_name_that_is_taken_is_refused_where_it_was_asked_for(tmp_path):
    store = Store(tmp_path)
    write(store, named(store, ASKED, "strengths"))
    assert named(store, ASKED, "strengths").name == "strengths"
    with pytest.raises(FairbenchError, match="is called strengths, or another file"):
        named(store, replace(ASKED, seeds=(1,)), "strengths")


def test_a_board_without_its_file_is_not_overwritten(tmp_path):
    (tmp_path / "quickstart.json").write_text("{}")
    (tmp_path / "quickstart-2.toml").write_text("not TOML [")
    assert named(Store(tmp_path), ASKED, None).name == "quickstart-3"


def test_what_provided_its_parts_is_read_back(tmp_path):
    path = tmp_path / "x.toml"
    data = Provider("dataset", "toy", "toys.py a9a18a73579e+bdd8a5bff383", "ef9feb72a33f110f")
    path.write_text(to_toml(replace(ASKED, made_with=(data, MINE))))
    assert load(str(path)) == replace(ASKED, name="x", made_with=(data, MINE))


@pytest.mark.parametrize(
    ("version", "hint"),
    [
        (MINE.version, 'pip install "my-plugin==1.2"'),
        (
            "mine.py a9a18a73579e+bdd8a5bff383",
            "say --plugin mine.py, the file whose SHA-256 begins with a9a18a73579e",
        ),
    ],
)
def test_a_missing_plugin_is_named_with_what_to_install(version, hint):
    wanted = replace(ASKED, made_with=(replace(MINE, version=version),))
    with pytest.raises(FairbenchError, match="there is no method mine here; it was of") as refused:
        [*check_providers(wanted, toy_plugins())]
    assert refused.value.hint == hint


def test_another_version_is_told_and_what_is_left_out_is_not_asked_for():
    plugins = toy_plugins()
    data = Provider("dataset", "toy", "toys 0.0+0")
    (note,) = check_providers(replace(ASKED, methods=(), made_with=(data, MINE)), plugins)
    assert note.startswith("dataset toy was of toys 0.0+0, and here is of")


ENTRIES = ["made_with = ['x']", "[[made_with]]\nname = 'x'", "[[made_with]]\nkind = 'x'\nname = 'y'\nversion = 'z'"]


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_provider_that_is_none_is_refused(tmp_path, entry):
    (tmp_path / "x.toml").write_text(entry)
    with pytest.raises(FairbenchError, match="made_with"):
        load(str(tmp_path / "x.toml"))


def test_nobody_is_sent_to_another_project_of_the_same_name():
    """The package index holds a fairbench that is not this one."""
    assert "pip install" not in Provider("method", "gr", "fairbench 0.2.0+0123abcd").obtain
    assert Provider("method", "gr", "other 1.0+0123abcd").obtain == 'pip install "other==1.0"'
    workflow = (Path(__file__).parents[2] / "leaderboards" / "submission.yml").read_text()
    assert "pip install fairbench" not in workflow


@pytest.mark.parametrize("name", ["../board", "a/b", "a\\b", ".leases", "record", "job", "two\nlines", "\u202e"])
def test_a_name_is_that_of_a_file_in_the_folder(tmp_path, name):
    with pytest.raises(FairbenchError, match="cannot be the name of a sweep"):
        named(Store(tmp_path), ASKED, name)


def test_a_board_of_nobodys_is_not_written_over(tmp_path):
    (tmp_path / "notes.md").write_text("mine")
    with pytest.raises(FairbenchError, match="another"):
        named(Store(tmp_path), ASKED, "notes")
