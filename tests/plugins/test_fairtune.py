"""FairTune: masked blocks stay untouched, the best trial's mask is used, and every try is counted."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from fairbench import Predictions, plugins
from fairbench.jobs.job import Choice
from fairbench.testing.toys import STAGES, ToyBackbone, train

LOADED = plugins.load(("method",))
FAIRTUNE = LOADED.tables["method"]["fairtune"]


@pytest.mark.parametrize(("units", "blocks"), [("layer", ["0", "1"]), ("projection", ["0 k_proj", "0 o_proj"])])
def test_what_the_mask_leaves_out_stays_as_it_was(units, blocks):
    outcome = train(FAIRTUNE, {"trials": 3, "units": units})
    fresh = ToyBackbone().build(("dark", "bright"), ("dark", "bright"), torch.float32, torch.device("cpu"))
    fresh.reset(0)
    start = dict(fresh.trainable())
    mask, method = set(outcome.record.facts["mask"]), FAIRTUNE(units=units)
    known = {method.block(name) for name in start} - {None}
    assert set(blocks) <= known
    assert mask
    assert mask <= known
    for name, weight in outcome.weights.items():
        moved = not torch.equal(weight, start[name])
        assert moved == (method.block(name) in {None, *mask}), name


def test_the_best_of_the_trials_is_trained_in_full():
    """Answers of each trial are made up, so which mask is best is known."""
    made, asked = [0.2, 0.9, 0.5], []

    class Judged(FAIRTUNE):
        name = "judged"

        def worth(self, predictions, run):
            assert set(predictions.table["split"]) == {"val"}
            asked.append(set(self.mask))
            return made[len(asked) - 1]

    record = train(Judged, {"trials": 3}).record
    facts = record.facts
    assert facts["trials"] == made
    assert set(facts["mask"]) == asked[1]
    assert record.tried == 3
    assert [stage.name for stage in record.stages] == [
        "trial 1: lora",
        "trial 2: lora",
        "trial 3: lora",
        "lora",
    ]
    assert [stage.epochs for stage in record.stages] == [0.5, 0.5, 0.5, 1.0]


def test_every_trial_starts_from_the_start():
    """Two trials of one mask leave the same weights as one: nothing of the first survives in the second."""
    starts = []

    class Watched(FAIRTUNE):
        name = "watched"

        def start_stage(self, run):
            super().start_stage(run)
            starts.append({name: p.detach().clone() for name, p in run.backbone.trainable().items()})

    train(Watched, {"trials": 2})
    assert len(starts) == 3
    assert all(torch.equal(starts[0][name], later[name]) for later in starts[1:] for name in starts[0])


@pytest.mark.parametrize(
    ("objective", "value"),
    [("overall", 0.5), ("worst-group", 1 / 3), ("gap", 1 / 3 - 2 / 3)],
)
def test_the_objective_is_what_validation_says(objective, value):
    table = pd.DataFrame({"target": [0, 1, 1, 0, 1, 0], "answer": [0, 0, 0, 0, 1, 1], "site": list("aaabbb")})
    predictions = Predictions(table, ("no", "yes"), ("site",))
    run = SimpleNamespace(job=SimpleNamespace(attributes=("site",), unrecorded="keep"))
    assert FAIRTUNE(objective=objective).worth(predictions, run) == pytest.approx(value)


def test_of_free_text_the_loss_is_judged():
    table = pd.DataFrame({"loss": [1.0, 3.0, 5.0], "site": ["a", "a", "b"]})
    run = SimpleNamespace(job=SimpleNamespace(attributes=("site",), unrecorded="keep"))
    assert FAIRTUNE().worth(Predictions(table, (), ("site",), "generate"), run) == -5.0


def test_the_same_seed_searches_the_same_way():
    first, second = (train(FAIRTUNE, {"trials": 3}) for _ in range(2))
    assert first.record.facts["mask"] == second.record.facts["mask"]
    assert all(torch.equal(first.weights[name], second.weights[name]) for name in first.weights)


def test_a_plan_names_every_trial():
    method = LOADED.make("method", Choice("fairtune", {"trials": 2, "share": 0.25}))
    planned = method.plan((dataclasses.replace(STAGES[0], epochs=4.0),))
    assert np.isclose([stage.epochs for stage in planned], [1.0, 1.0, 4.0]).all()
