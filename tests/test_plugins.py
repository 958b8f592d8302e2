"""Finding plugins: a broken one is named and harms nobody, nothing is ignored without a word."""

import subprocess
import sys
import textwrap
from importlib.metadata import EntryPoint
from types import SimpleNamespace

import pytest

from fairbench import FairbenchError, plugins
from fairbench.jobs.job import Choice

METHOD = """
    from fairbench import Method, hookimpl

    class Mine(Method):
        \"\"\"Mine.\"\"\"
        name = "{name}"
        strength: float = 1.0

    @hookimpl
    def fairbench_methods():
        return [Mine]
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module that can be imported by its name, which is unique to the test."""
    monkeypatch.syspath_prepend(tmp_path)

    def module(name, text):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        return tmp_path / f"{name}.py"

    yield module
    for path in tmp_path.glob("*.py"):
        sys.modules.pop(path.stem, None)


def point(name, module, dist="dist-of-mine", version="1.2"):
    """An entry point as an installed distribution would have it."""
    made = EntryPoint(name, module, plugins.GROUP)
    vars(made).update(dist=SimpleNamespace(name=dist, version=version))
    return made


def load(*points, kinds=("method",), files=()):
    return plugins.load(kinds, files, points)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import no_such_module_anywhere", "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
        ("x = (", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError: division by zero (bad_plugin.py, line 1)"),
        ("raise SystemExit(0)", "SystemExit"),
        (
            "from fairbench import hookimpl\n@hookimpl\ndef fairbench_methods():\n    return [1 / 0]",
            "division by zero (bad_plugin.py, line 4)",
        ),
        (
            "from fairbench import hookimpl\n@hookimpl\ndef fairbench_methods():\n    return [object]",
            "has no attribute 'name'",
        ),
        (
            "from fairbench import hookimpl\n@hookimpl\ndef fairbench_methods():\n    pass",
            "'NoneType' object is not iterable",
        ),
        (
            "from fairbench import hookimpl\n@hookimpl\ndef fairbench_commands(group):\n    pass",
            "Argument(s) {'group'} are declared in the hookimpl",
        ),
    ],
)
def test_a_broken_plugin_is_named_and_the_rest_works(module, text, reason):
    module("bad_plugin", text)
    module("good_plugin", METHOD.format(name="mine"))
    loaded = load(point("method-bad", "bad_plugin", "bad-dist", "0.3"), point("method-good", "good_plugin"))
    assert list(loaded.tables["method"]) == ["mine"]
    (broken,) = loaded.broken
    assert (broken.name, broken.source) == ("method-bad", "bad-dist 0.3")
    assert reason in broken.reason
    assert "\n" not in broken.reason
    with pytest.raises(FairbenchError, match="no method is called `min`") as caught:
        loaded.find("method", "min")
    assert "did you mean `mine`?" in caught.value.hint
    assert "these plugins failed to load: method-bad" in caught.value.hint


def test_what_provides_a_plugin_is_known_with_its_version(module):
    module("good_plugin", METHOD.format(name="mine"))
    loaded = load(point("method-good", "good_plugin"))
    assert loaded.version("method", "mine").partition("+")[0] == "dist-of-mine 1.2"
    assert loaded.make("method", Choice("mine", {"strength": "2"})).strength == 2.0


def test_two_plugins_that_offer_one_name_are_an_error_naming_both(module):
    module("first_plugin", METHOD.format(name="mine"))
    module("second_plugin", METHOD.format(name="mine"))
    with pytest.raises(FairbenchError, match="two plugins offer a method called `mine`: one 1 and two 2"):
        load(point("method-a", "first_plugin", "one", "1"), point("method-b", "second_plugin", "two", "2"))


def test_two_distributions_with_one_entry_point_are_an_error_naming_both(module):
    module("first_plugin", METHOD.format(name="a"))
    module("second_plugin", METHOD.format(name="b"))
    both = point("method-x", "first_plugin", "one", "1"), point("method-x", "second_plugin", "two", "2")
    with pytest.raises(FairbenchError, match=r"one 1 \(first_plugin\) and two 2 \(second_plugin\)"):
        load(*both)
    assert list(load(both[0], both[0]).tables["method"]) == ["a"]  # installed twice over is no conflict


@pytest.mark.parametrize(
    ("name", "marker", "message"),
    [
        ("fairbench_method", "@hookimpl", "no hook is called `fairbench_method`"),
        ("fairbnech_methods", "@hookimpl", "no hook is called `fairbnech_methods`"),
        ("fairbench_methods", "", "`fairbench_methods` is not marked as a hook"),
    ],
)
def test_a_hook_that_would_never_be_called_is_an_error_naming_the_plugin(module, name, marker, message):
    module("typo_plugin", f"from fairbench import hookimpl\n{marker}\ndef {name}():\n    return []\n")
    with pytest.raises(FairbenchError) as caught:
        load(point("method-typo", "typo_plugin", "typo-dist", "0.1"))
    assert caught.value.message == f"plugin method-typo of typo-dist 0.1: {message}"
    assert "fairbench_methods" in caught.value.hint or "@hookimpl" in caught.value.hint


def test_only_the_kinds_asked_for_are_imported(module):
    module("good_plugin", METHOD.format(name="mine"))
    module("never_plugin", "raise AssertionError('imported')")
    loaded = load(point("method-good", "good_plugin"), point("backbone-x", "never_plugin"))
    assert loaded.broken == []
    assert "never_plugin" not in sys.modules


def test_an_entry_point_that_names_no_kind_is_broken(module):
    module("good_plugin", METHOD.format(name="mine"))
    loaded = load(point("good", "good_plugin"))
    assert "its entry point must be called dataset-…" in loaded.broken[0].reason


def test_the_environment_limits_what_is_loaded(module, monkeypatch):
    module("first_plugin", METHOD.format(name="a"))
    module("second_plugin", METHOD.format(name="b"))
    points = point("method-a", "first_plugin"), point("method-b", "second_plugin")
    monkeypatch.setenv("FAIRBENCH_PLUGINS", " method-b ,")
    assert list(load(*points).tables["method"]) == ["b"]
    monkeypatch.setenv("FAIRBENCH_PLUGINS", "method-c")
    with pytest.raises(FairbenchError, match="FAIRBENCH_PLUGINS: no plugin is called `method-c`"):
        load(*points)


def test_a_single_file_is_a_plugin_whose_version_is_its_content(module):
    path = module("loose file ünïcode", METHOD.format(name="mine"))
    first = load(files=[path, path]).version("method", "mine")
    assert first.startswith("loose file ünïcode.py ")
    path.write_text(path.read_text() + "# changed\n")
    assert load(files=[path]).version("method", "mine") != first


def test_a_single_file_that_cannot_be_loaded_stops(module, tmp_path):
    path = module("loose", "import no_such_module_anywhere")
    with pytest.raises(FairbenchError, match=r"loose.py: ModuleNotFoundError.*\(loose.py, line 1\)"):
        load(files=[path])
    with pytest.raises(FairbenchError, match="there is no such file"):
        load(files=[tmp_path / "absent.py"])
    (tmp_path / "text.txt").write_text("hello")
    with pytest.raises(FairbenchError, match="not a Python file"):
        load(files=[tmp_path / "text.txt"])


def test_a_listener_that_raises_is_named_and_the_others_hear(module):
    text = """
        from fairbench import hookimpl
        heard = []
        @hookimpl
        def fairbench_job_finished(record):
            heard.append({})
    """
    module("good_listener", text.format("record"))
    module("bad_listener", text.format("1 / 0"))
    loaded = load(point("plugin-good", "good_listener"), point("plugin-bad", "bad_listener"), kinds=())
    loaded.tell("fairbench_job_finished", record="it")
    assert sys.modules["good_listener"].heard == ["it"]
    assert [broken.name for broken in loaded.broken] == ["plugin-bad"]


def test_installed_metrics_come_without_torch():
    code = """
        import sys
        from fairbench import plugins
        loaded = plugins.load(("metric",))
        assert loaded.tables["metric"] and not loaded.broken, loaded.broken
        print([m for m in ("torch", "transformers", "peft") if m in sys.modules])
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_version_changes_with_the_code_of_a_plugin_and_of_what_it_imports(tmp_path, monkeypatch):
    package = tmp_path / "edited_package"
    package.mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    (package / "__init__.py").write_text("")
    (package / "helper.py").write_text("def strength():\n    return 1\n")
    (package / "other.py").write_text("")
    (package / "method.py").write_text(
        "from edited_package.helper import strength\nfrom fairbench import Method, hookimpl\n\n\n"
        "class Edited(Method):\n    name = 'edited'\n\n\n"
        "@hookimpl\ndef fairbench_methods():\n    return [Edited]\n"
    )
    point = EntryPoint("method-edited", "edited_package.method", "fairbench")

    def version():
        for name in [name for name in sys.modules if name.startswith("edited_package")]:
            del sys.modules[name]
        return plugins.load(("method",), points=[point]).version("method", "edited")

    first = version()
    assert version() == first
    (package / "other.py").write_text("x = 1\n")  # which the method does not import
    assert version() == first
    (package / "helper.py").write_text("def strength():\n    return 10\n")
    second = version()
    assert second != first
    (package / "method.py").write_text((package / "method.py").read_text() + "\n\nprint\n")
    assert version() not in (first, second)
