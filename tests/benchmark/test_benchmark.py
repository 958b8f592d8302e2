"""Benchmarks: files and command-line choices in, jobs out, every wrong word refused before anything starts."""

from dataclasses import replace
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairbench import FairbenchError, Method, NonNegative, Stage, plugins
from fairbench.benchmark import plan
from fairbench.benchmark.benchmark import Benchmark, bundled_benchmarks, load, parse, to_toml
from fairbench.benchmark.overrides import narrow, override
from fairbench.jobs.job import Choice
from fairbench.testing import ToyBackbone, ToyDataset, toy_plugins


class Plain(Method):
    """The baseline."""

    name = "plain"
    uses_attributes = False
    role = "baseline"


class Pull(Method):
    """A method with settings."""

    name = "pull"
    strength: NonNegative = 0.5
    reading: Literal["mean", "max"] = "mean"


class Ask(Method):
    """No training."""

    name = "ask"
    uses_attributes = False

    def plan(self, stages):
        return ()


class Words(ToyDataset):
    name = "in-words"
    task = "generate"
    classes = ()


class OtherBackbone(ToyBackbone):
    name = "other-backbone"
    recipe = (Stage(name="warm", train=("head",)), Stage(name="lora"))


PLUGINS = toy_plugins(Plain, Pull, Ask, OtherBackbone)
TOY = Benchmark(datasets=("toy",), backbones=("toy-backbone",), methods=(Choice("pull"),), attributes=("site",))


def jobs(bench=TOY, *assignments, roots=None, **lists):
    return plan.jobs(override(narrow(bench, lists), assignments, PLUGINS), PLUGINS, roots or {}).jobs


def titles(*arguments, **lists):
    return [job.title.split(" · ")[0] + f" {job.seed}" for job in jobs(*arguments, **lists)]


def refused(message, hint, action, *arguments, **more):
    with pytest.raises(FairbenchError) as caught:
        action(*arguments, **more)
    assert message in caught.value.message
    assert hint in caught.value.hint


# ── crossing ─────────────────────────────────────────────────────────────────────────────────────


def test_methods_without_attributes_run_once_for_all_attributes():
    assert titles(methods="pull,ask", attributes="site,sex,site+sex", seeds="0,1") == [
        *("plain 0", "plain 1"),
        *("pull on site 0", "pull on site 1", "pull on sex 0", "pull on sex 1"),
        *("pull on site+sex 0", "pull on site+sex 1"),
        *("ask 0", "ask 1"),
    ]


def test_what_is_named_twice_runs_once():
    assert titles(methods="pull,pull", attributes="site,site", seeds="0,0") == ["plain 0", "pull on site 0"]


def test_without_attributes_each_of_the_datasets_own_is_taken():
    assert titles(replace(TOY, attributes=())) == ["plain 0", "pull on site 0", "pull on sex 0"]
    assert titles(datasets="toy") == ["plain 0", "pull on site 0", "pull on sex 0"]


def test_the_baseline_joins_unless_told_otherwise():
    assert titles(replace(TOY, baseline=False)) == ["pull on site 0"]
    assert titles(replace(TOY, baseline=False), methods="plain") == ["plain 0"]


def test_a_control_joins_the_tasks_it_can_serve_and_is_refused_where_it_is_asked_for_and_cannot():
    class Guard(Method):
        name = "writer"
        role = "control"
        needs = ("text",)

    plugins = toy_plugins(Plain, Pull, Guard)
    assert {job.method.name for job in plan.jobs(TOY, plugins, {}).jobs} == {"plain", "pull"}
    with pytest.raises(FairbenchError, match="writer needs answers in words"):
        plan.jobs(replace(TOY, methods=(Choice("writer"),)), plugins, {})
    Guard.needs = ("classes",)
    assert "writer" in {job.method.name for job in plan.jobs(TOY, plugins, {}).jobs}


def test_a_method_may_appear_with_several_settings():
    variants = (Choice("pull", {"strength": 0.1}), Choice("pull", {"strength": "0.50"}), Choice("pull"))
    assert titles(replace(TOY, methods=variants)) == ["plain 0", "pull(strength=0.1) on site 0", "pull on site 0"]


def test_backbones_bring_their_own_stages_and_batch_size():
    by_backbone = {job.backbone.name: job for job in jobs(backbones="toy-backbone,other-backbone")}
    assert by_backbone["toy-backbone"].stages == ToyBackbone.recipe
    assert [replace(stage, min_steps=0) for stage in by_backbone["other-backbone"].stages] == [
        *OtherBackbone.recipe
    ]
    assert {job.batch_size for job in by_backbone.values()} == {8}


def test_a_recipe_knows_how_few_rows_there_are_and_a_benchmark_s_own_stages_are_as_written():
    """96 training rows in batches of 8 are 12 steps; of 168 rows in three folds, 56 train: 7 steps."""

    def least(*assignments, bench=TOY, **lists):
        return {job.backbone.name: [s.min_steps for s in job.stages] for job in jobs(bench, *assignments, **lists)}

    both = {"backbones": "toy-backbone,other-backbone"}
    assert least(**both) == {"toy-backbone": [0], "other-backbone": [1000, 1000]}
    folded = replace(TOY, folds=3)
    assert least(bench=folded, **both) == {"toy-backbone": [10], "other-backbone": [1000, 1000]}
    assert least("run.batch_size=16") == {"toy-backbone": [10]}
    assert least("run.batch_size=16", "lora.lr=1e-5") == {"toy-backbone": [0]}
    own = replace(TOY, stages=OtherBackbone.recipe)
    assert least(bench=own, **both) == {"toy-backbone": [0, 0], "other-backbone": [0, 0]}


def test_a_plan_that_trains_nothing_is_known_before():
    planned = plan.jobs(narrow(TOY, {"methods": "ask"}), PLUGINS, {})
    assert [planned.stages(job) for job in planned.jobs] == [ToyBackbone.recipe, ()]


# ── --set ────────────────────────────────────────────────────────────────────────────────────────


def test_set_reaches_plugins_stages_and_the_run():
    assignments = "pull.strength=0.1", "toy.limit=50", "toy-backbone.rank=2", "lora.lr=1e-5", "run.batch_size=4"
    _, job = jobs(TOY, *assignments)
    assert job.method.settings == {"strength": 0.1}
    assert job.dataset.settings == {"limit": 50}
    assert job.backbone.settings == {"rank": 2}
    assert [stage.lr for stage in job.stages] == [1e-5]
    assert job.stages[0].epochs == ToyBackbone.recipe[0].epochs
    assert job.batch_size == 4


def test_set_wins_over_what_a_file_says_of_the_method():
    bench = replace(TOY, methods=(Choice("pull", {"strength": 9}),), settings={"pull": {"reading": "max"}})
    assert jobs(bench)[1].method.settings == {"strength": 9.0, "reading": "max"}
    assert jobs(bench, "pull.strength=1")[1].method.settings == {"strength": 1.0, "reading": "max"}


def test_a_default_that_is_spelt_out_changes_no_key():
    keys = [job.key for job in jobs()]
    spelt = "pull.strength=0.50", "toy-backbone.targets=q_proj,k_proj,v_proj,o_proj", "toy.limit=none"
    assert [job.key for job in jobs(TOY, *spelt)] == keys


@pytest.mark.parametrize(
    ("assignment", "message", "hint"),
    [
        ("pull.strength=-1", "pull.strength = '-1' must be at least 0", "inside the range"),
        ("pull.strength=strong", "is not a finite number", "such as 0.5"),
        ("pull.reading=median", "is not a choice", "mean, max"),
        ("pull.strenght=1", "no setting of pull is called `strenght`", "did you mean `strength`?"),
        ("pul.strength=1", "no plugin or stage is called `pul`", "did you mean `pull`?"),
        ("pull.strength", "expected name.parameter=value", "--set"),
        ("strength=1", "expected name.parameter=value", "--set"),
        ("lora.epoch=1", "no key of stage lora is called `epoch`", "did you mean `epochs`?"),
        ("lora.lr=0", "must be above 0", ""),
        ("run.batch=4", "no setting of run is called `batch`", "did you mean `batch_size`?"),
        ("run.precision=float16", "is not a choice", "auto, float32, bfloat16"),
        ("run.unrecorded=keeep", "no policy for unrecorded values is called `keeep`", "did you mean `keep`?"),
        ("run.unrecorded=merge:d", "no group of site is called `d`", "there is: a, b, c"),
        ("run.select=best:acuracy", "no selection rule is called", "last"),
        ("ask.x=1", "no setting of ask is called `x`", "there is: none"),
    ],
)
def test_a_wrong_setting_is_refused_with_the_reason(assignment, message, hint):
    refused(message, hint, jobs, TOY, assignment)


def test_settings_of_what_does_not_run_are_refused():
    refused(
        "`plain` has settings but is not part", "pull", jobs, replace(TOY, baseline=False, settings={"plain": {}})
    )
    refused("`pul` has settings but is not part of this run", "", jobs, replace(TOY, settings={"pul": {}}))


def test_a_stage_is_ambiguous_where_backbones_differ():
    both = replace(TOY, backbones=("toy-backbone", "other-backbone"))
    refused("have different stages", "one backbone at a time", jobs, both, "lora.lr=1")


def test_merging_names_a_group_of_the_joint_attribute():
    assert jobs(TOY, "run.unrecorded=merge:a×male", attributes="site+sex")
    refused("no group of site+sex is called `a`", "a×", jobs, TOY, "run.unrecorded=merge:a", attributes="site+sex")


# ── names ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("lists", "message", "hint"),
    [
        ({"methods": "pul"}, "no method is called `pul`", "did you mean `pull`?"),
        ({"backbones": "toy_backbone"}, "no backbone is called `toy_backbone`", "did you mean `toy-backbone`?"),
        ({"datasets": "toys"}, "no dataset is called `toys`", "did you mean `toy`?"),
        ({"attributes": "sit"}, "no attribute of toy is called `sit`", "did you mean `site`?"),
        ({"attributes": "site+"}, "no attribute of toy is called ``", "sex, site"),
        ({"attributes": "site+site"}, "site+site name one twice", ""),
        ({"seeds": "0,one"}, "'one' is not a whole number", "such as 3"),
        ({"seeds": "-1"}, "must be at least 0", ""),
        ({"seeds": str(2**63)}, "must be at most", ""),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(lists, message, hint):
    refused(message, hint, jobs, TOY, **lists)


def test_a_planned_comparison_and_a_rule_of_selection_must_make_sense(monkeypatch):
    refused("no method of this run (`primary`) is called `pul`", "`pull`", jobs, replace(TOY, primary=("pul",)))
    refused("is called `best:selection_rate`", "", jobs, replace(TOY, select="best:selection_rate"))
    words = replace(TOY, datasets=("in-words",), select="dto")
    needs = "select = 'dto' needs classes, which the answers to in-words do not have"
    refused(needs, "last", plan.jobs, words, toy_plugins(Plain, Pull, Words), {})
    monkeypatch.setitem(PLUGINS.tables["metric"], "rouge_l", plugins.load().find("metric", "rouge_l"))
    needs = "select = 'best:rouge_l' needs text, which the answers to toy do not have"
    refused(needs, "last", jobs, replace(TOY, select="best:rouge_l"))


def test_a_benchmark_that_names_nothing_is_refused():
    refused("names no methods", "--methods", jobs, replace(TOY, methods=()))
    refused("names no seeds", "--seeds", jobs, replace(TOY, seeds=()))


def test_stages_train_parts_that_exist():
    refused("stage x trains nothing", "lora, head", jobs, replace(TOY, stages=(Stage("x", ()),)))
    refused("stage x names a part twice", "lora, head", jobs, replace(TOY, stages=(Stage("x", ("lora", "lora")),)))
    refused("no part (stage x) is called `heads`", "`head`", jobs, replace(TOY, stages=(Stage("x", ("heads",)),)))
    scaled = Stage("x", lr_scale={"heed": 2})
    refused("no part (stage x) is called `heed`", "`head`", jobs, replace(TOY, stages=(scaled,)))


def test_names_and_settings_are_checked_before_data_is_read(monkeypatch):
    monkeypatch.setattr(ToyDataset, "table", lambda self: pytest.fail("the data was read"))
    refused("must be at least 0", "", jobs, TOY, "pull.strength=-1")
    refused("no attribute", "", jobs, TOY, attributes="age")
    refused("no backbone", "", jobs, TOY, backbones="other")


# ── files ────────────────────────────────────────────────────────────────────────────────────────

FILE = """
description = "Everything that a file can say."
datasets = ["toy"]
backbones = ["toy-backbone"]
methods = ["plain", {name = "pull", strength = 0.1}, {name = "pull", strength = 2}, "ask"]
attributes = ["site", "site+sex"]
seeds = [3, 1]
primary = ["pull"]
rank = "dominance-odds"
baseline = false
batch_size = 4
precision = "float32"
unrecorded = "drop"
[[stages]]
name = "first"
train = ["head"]
epochs = 1
lr_scale = {head = 2}
[settings.toy]
limit = 100
[settings.pull]
reading = "max"
"""


@pytest.mark.parametrize("assignments", [(), ("toy.limit=none", "pull.strength=0.7", "first.lr=2e-3")])
def test_what_was_run_is_written_as_a_file_that_runs_the_same_jobs(write, assignments):
    bench = override(load(str(write(FILE, "a file.toml"))), assignments, PLUGINS)
    again = load(str(write(to_toml(bench), "a file.toml")))
    keys = [job.key for job in jobs(bench)]
    assert len(keys) == (8 if assignments else 12)
    assert [job.key for job in jobs(again)] == keys
    assert to_toml(again) == to_toml(bench)
    assert (again.rank, again.primary) == ("dominance-odds", ("pull",))


def test_narrowing_a_file_drops_what_it_says_of_the_rest(write):
    bench = narrow(load(str(write(FILE, "a file.toml"))), {"methods": "ask", "seeds": "0"})
    assert titles(bench) == ["ask 0"]
    assert (bench.description, bench.primary) == ("", ())
    assert set(bench.settings) == {"toy"}


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("dataset = ['toy']", "is called `dataset`", "did you mean `datasets`?"),
        ("[[stages]]\nepoch = 1", "is called `epoch`", "did you mean `epochs`?"),
        ("stages = 3", "stages must be a list", "stages = ["),
        ("stages = ['lora']", "stage must be a table", "[[stages]]"),
        ("methods = 'pull'", "methods must be a list", "methods = ["),
        ("methods = [{strength = 1}]", "a method is a name or a table with `name`", ""),
        ("settings = 3", "[settings] holds one table for each plugin", "[settings.NAME]"),
        ("[settings]\npull = 3", "[settings] holds one table for each plugin", "[settings.NAME]"),
        ("seeds = 3", "seeds = 3 is not a list", "commas"),
        ("seeds = [-1]", "must be at least 0", ""),
        ("batch_size = 0", "must be at least 1", ""),
        ("seeds = [", "is not TOML", ""),
    ],
)
def test_a_file_that_says_something_else_is_refused_by_name(write, text, message, hint):
    path = str(write(text, "a file.toml"))
    refused(message, hint, load, path)
    refused("a file.toml", "", load, path)


def test_an_absent_file_or_benchmark_is_named():
    refused("there is no benchmark file x.toml", "", load, "x.toml")
    refused("no benchmark is called `quikstart`", "did you mean `quickstart`?", load, "quikstart")


def test_a_file_that_is_named_nearly_right_is_suggested(write):
    path = write("", "sweep.toml")
    refused("no benchmark is called", f"did you mean `{path}`?", load, str(path.with_suffix(".tml")))


WORDS = st.sampled_from(["pull", "toy", "name", "x", "site"])
TOML = st.recursive(
    WORDS | st.integers() | st.floats(allow_nan=False) | st.booleans(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(WORDS, inner, max_size=2),
    max_leaves=4,
)
KEYS = st.sampled_from(["datasets", "methods", "stages", "settings", "seeds", "attributes", "baseline", "select"])


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(KEYS, TOML, max_size=3))
def test_any_document_gives_jobs_or_an_error(document):
    try:
        bench = replace(parse(document, "any", "any.toml"), backbones=("toy-backbone",))
        planned = plan.jobs(bench, PLUGINS, {}).jobs
    except FairbenchError:
        return
    assert planned


@pytest.mark.parametrize("name", bundled_benchmarks())
def test_bundled_benchmarks_name_what_is_installed(name):
    bench = load(name)
    assert bench.description
    installed = plugins.load()
    for kind in ("dataset", "backbone"):
        for each in getattr(bench, f"{kind}s"):
            installed.find(kind, each)
    for method in bench.methods:
        installed.make("method", method)


def test_folds_are_jobs_of_their_own_and_divide_no_splits_that_come_with_the_data(monkeypatch):
    plain, folded = jobs(TOY), jobs(TOY, "run.folds=4")
    assert len(folded) == 4 * len(plain)
    assert {(job.folds, job.fold) for job in folded} == {(4, fold) for fold in range(4)}
    assert {replace(job, folds=1, fold=0).key for job in folded} == {job.key for job in plain}
    refused("2 folds leave none to train on", "3 or more", jobs, TOY, "run.folds=2")
    refused("clusters cannot be divided into 9,999 folds", "ask for fewer folds", jobs, TOY, "run.folds=9999")
    monkeypatch.setattr(ToyDataset, "own_splits", True)
    refused("the splits of toy come with its data", "run.redraw=true", jobs, TOY, "run.folds=4")
    assert len(jobs(TOY, "run.folds=4", "run.redraw=true")) == len(folded)
