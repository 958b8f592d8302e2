"""Where a dataset's folder is found: option, environment, settings file, in this order."""

import pytest

from fairbench import FairbenchError
from fairbench.cache import cache_folder
from fairbench.data import locations as module
from fairbench.data.locations import parse, roots, shared_roots


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Be a user with a settings file and a folder of their own; nothing of the real one."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setattr(module, "config_file", lambda: tmp_path / "fairbench.toml")
    for name in ("option/x", "shared/x", "config/x"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def configure(home, text):
    (home / "fairbench.toml").write_text(text, encoding="utf-8")


def test_the_first_of_option_environment_and_settings_wins(home, monkeypatch):
    configure(home, f'[data]\nx = "{(home / "config/x").as_posix()}"\n')
    assert roots([], ["x"]) == {"x": home / "config/x"}
    monkeypatch.setenv("FAIRBENCH_DATA", str(home / "shared"))
    assert roots([], ["x"]) == {"x": home / "shared/x"}
    assert roots([f"x={home / 'option/x'}"], ["x"]) == {"x": home / "option/x"}
    (home / "shared/x").rmdir()
    assert roots([], ["x"]) == {"x": home / "config/x"}, "a shared folder without it gives way"


def test_home_is_expanded_everywhere_and_relative_options_are_made_absolute(home, monkeypatch):
    assert roots(["x=~/option/x"], ["x"]) == {"x": home / "option/x"}
    monkeypatch.chdir(home / "option")
    assert roots(["x=x"], ["x"]) == {"x": home / "option/x"}
    configure(home, '[data]\nx = "~/config/x"\n')
    assert roots([], ["x"]) == {"x": home / "config/x"}
    monkeypatch.setenv("FAIRBENCH_DATA", "~/shared")
    assert roots([], ["x"]) == {"x": home / "shared/x"}


def test_a_file_can_be_a_root(home):
    (home / "people.csv").write_text("id\n")
    assert roots([f"x={home / 'people.csv'}"], ["x"])["x"].is_file()


def test_datasets_that_need_no_folder_need_no_settings(home):
    configure(home, "this is not toml")
    assert roots([], []) == {}


@pytest.mark.parametrize("option", ["x", "x=", "=path", "", " = "])
def test_an_option_is_name_and_path(option):
    with pytest.raises(FairbenchError, match="not name=PATH"):
        parse([option])


def test_paths_may_contain_an_equals_sign():
    assert parse(["x=/a=b", "y = /c", "x=/a=b"]) == {"x": "/a=b", "y": "/c"}


def test_one_name_with_two_folders_is_an_error():
    with pytest.raises(FairbenchError, match="two folders for x: a and b"):
        parse(["x=a", "x=b"])


def test_a_misspelt_name_is_an_error_with_the_nearest(home):
    with pytest.raises(FairbenchError) as error:
        roots(["ham1000=~/option/x"], ["ham10000"])
    assert "did you mean `ham10000`" in error.value.hint


def test_a_dataset_that_nobody_knows_names_all_three_ways(home, monkeypatch):
    monkeypatch.setenv("FAIRBENCH_DATA", str(home / "option"))
    with pytest.raises(FairbenchError, match="where is the data of y") as error:
        roots([], ["y"])
    hint = error.value.hint
    assert "--data y=PATH" in hint
    assert f"{home / 'option'} has no subfolder y" in hint
    assert str(home / "fairbench.toml") in hint


def test_a_path_that_does_not_exist_is_an_error(home, monkeypatch):
    with pytest.raises(FairbenchError, match=r"--data x=~/gone: .*gone does not exist"):
        roots(["x=~/gone"], ["x"])
    configure(home, '[data]\nx = "~/lost"\n')
    with pytest.raises(FairbenchError, match=r"fairbench\.toml: data\.x = '~/lost': .*lost does not exist"):
        roots([], ["x"])
    monkeypatch.setenv("FAIRBENCH_DATA", str(home / "nowhere"))
    with pytest.raises(FairbenchError, match=r"FAIRBENCH_DATA=.*no such folder"):
        roots([], ["x"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[data", "cannot read"),
        ("[dta]\nx = '/x'", "no key is called `dta`"),
        ("data = 3", "data is not a table"),
        ("[data]\nx = 3", "not an absolute path"),
        ("[data]\nx = 'relative'", "not an absolute path"),
    ],
)
def test_a_bad_settings_file_is_named(home, text, message):
    configure(home, text)
    with pytest.raises(FairbenchError, match=message) as error:
        roots([], ["x"])
    assert "fairbench.toml" in error.value.message


def test_a_settings_file_may_start_with_a_byte_order_mark(home):
    configure(home, '\ufeff[data]\nx = "~/config/x"\n')
    assert roots([], ["x"]) == {"x": home / "config/x"}


def test_the_cache_moves_with_its_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("FAIRBENCH_CACHE", str(tmp_path))
    assert cache_folder("a", "b") == tmp_path / "a/b"
    monkeypatch.delenv("FAIRBENCH_CACHE")
    assert "fairbench" in cache_folder().parts


def test_datasets_may_share_a_folder(home):
    own, other = home / "option/x", home / "shared/x"
    folders = {"skin": "skin", "skin-vqa": "skin"}
    assert shared_roots([f"skin={own}"], folders) == {"skin": own, "skin-vqa": own}
    assert shared_roots([f"skin={own}", f"skin-vqa={other}"], folders) == {"skin": own, "skin-vqa": other}
    assert shared_roots([f"skin-vqa={other}"], {"skin-vqa": "skin"}) == {"skin-vqa": other}
