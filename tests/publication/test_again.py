"""Answers checked against the models: a real sweep of the toys, forged so that only the adapters can tell."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from boards import said, says
from click.testing import CliRunner

from fairbench import plugins as plugin_loader
from fairbench.benchmark import launch
from fairbench.benchmark.pull import work
from fairbench.cli.main import main
from fairbench.jobs.store import Store
from fairbench.predictions.predictions import Predictions, maker
from fairbench.publication.again import Again, predict_again, train_again
from fairbench.publication.check import CheckRequest, verdict_on
from fairbench.publication.publish import publish
from fairbench.publication.published import Choices
from fairbench.publication.verdict import levels

pytestmark = pytest.mark.slow  # it trains and answers again

TOYS = str(Path(__file__).parents[1] / "toys.py")
TOY = ("--datasets", "toy", "--backbones", "toy-backbone", "--attr", "site", "--plugin", TOYS)
ENTRIES = "method-fr,method-vanilla,method-thresholds,metric-rates"


@pytest.fixture(scope="module")
def plugins():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAIRBENCH_PLUGINS", ENTRIES)
        return plugin_loader.load(files=[TOYS])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Three jobs, trained in this process."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAIRBENCH_PLUGINS", ENTRIES)
        patch.setattr(launch._Workers, "run", lambda crew, _: work(0, crew.jobs, crew.setup, crew.watch))
        words = ("run", *TOY, "--methods", "fr,thresholds", "--out", str(folder), "--no-controls", "--workers", "1")
        result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    return Store(folder)


@pytest.fixture
def own(trained, tmp_path):
    shutil.copytree(trained.root, tmp_path / "runs")
    return Store(tmp_path / "runs")


def recorded(store, method):
    return next(record for record in store.contents().records if record.job.method.name == method)


def test_honest_answers_come_out_again_and_an_honest_job_trains_again(trained, plugins):
    publication = publish([trained], "toy", Choices(("site",)), command="")
    request = CheckRequest(trained.root / "toy.json", (trained.root,), rerun=3, retrain=2, draw=0)
    found = verdict_on(publication, request, plugins)
    assert found.differs == ()
    assert len(found.predicted) == 3
    assert len(found.retrained) == 2
    seen = [trust for _, _, trust in levels(publication, found)]
    assert sorted(seen) == ["re-predicted", "retrained", "retrained"]


def test_jobs_that_are_predicted_again_see_each_image_once(trained, plugins, monkeypatch):
    dataset, shown = plugins.find("dataset", "toy"), []
    look = dataset.image
    monkeypatch.setattr(dataset, "image", lambda self, row: shown.append(row["id"]) or look(self, row))
    found = [*predict_again(Again((trained,), plugins, {}), trained.contents().records)]
    assert [finding.state for finding in found] == ["holds"] * 3
    times = Counter(shown)
    first = times.pop(shown[0])  # also looked at for its size, and by a probe of the features
    assert first <= 3
    assert set(times.values()) == {1}


def answers_set_to_targets(store):
    """Whoever forges answers keeps all that the file says of itself."""
    record = recorded(store, "fr")
    file = store.predictions_file(record.job)
    answers, made_by = Predictions.load(file), maker(file)
    table = answers.table.assign(answer=answers.table["target"])
    for index in range(2):
        table[f"p_{index}"] = (table["target"] == index).astype(float)
    Predictions(table, answers.classes, answers.attributes).save(file, made_by)
    store.save(replace(record, files={}))


def adapter_swapped(store):
    """The adapter of another job, with all hashes right."""
    record, other = recorded(store, "fr"), recorded(store, "vanilla")
    shutil.rmtree(store.adapter_folder(record.job))
    shutil.copytree(store.adapter_folder(other.job), store.adapter_folder(record.job))
    store.save(replace(record, files={}))


def job_relabelled(store):
    """Another method's training under this one's name, all that the files say of themselves with it."""
    record, other = recorded(store, "fr"), recorded(store, "vanilla")
    shutil.copytree(store.adapter_folder(other.job), store.adapter_folder(record.job), dirs_exist_ok=True)
    file = store.predictions_file(record.job)
    made_by = maker(file)
    Predictions.load(store.predictions_file(other.job)).save(file, made_by)
    store.save(replace(record, files={}))


FORGERIES = {
    answers_set_to_targets: (predict_again, "predicted again: its adapter does not give its answers"),
    adapter_swapped: (predict_again, "predicted again: its adapter does not give its answers"),
    job_relabelled: (train_again, "trained again: training it again does not give its answers"),
}


@pytest.mark.parametrize("forge", FORGERIES, ids=lambda forge: forge.__name__)
def test_only_the_models_tell(own, plugins, forge):
    """Everything that files say agrees; the models do not, of this job alone."""
    forge(own)
    for record in own.contents().records:
        own.check_files(record)
        assert maker(own.predictions_file(record.job))["job"] == record.job.key
    how, expected = FORGERIES[forge]
    found = [*how(Again([own], plugins, {}), own.contents().records)]
    (only,) = said(found)
    says([only], f"fr on site.*{expected}")


def test_adapters_may_be_kept_back(own, plugins):
    """Then nothing differs, and what they would show is not checked; half an adapter is a fault."""
    publication = publish([own], "toy", Choices(("site",)), command="")
    request = CheckRequest(own.root / "toy.json", (own.root,))
    for record in own.contents().records:
        shutil.rmtree(own.adapter_folder(record.job))
    found = verdict_on(publication, request, plugins).findings
    assert said(found) == []
    says(said(found, "unchecked"), "files: the adapters of .* and 2 more: they are not in these runs")
    own.adapter_folder(record.job).mkdir()
    says(said(verdict_on(publication, request, plugins).findings), "cannot read .*adapter")


def test_a_job_whose_code_is_not_here_cannot_be_done_again(own):
    bare = Again([own], plugin_loader.load(points=[], files=[TOYS]), {})
    says(said(predict_again(bare, [recorded(own, "fr")]), "unchecked"), "predicted again: no method is called `fr`")
