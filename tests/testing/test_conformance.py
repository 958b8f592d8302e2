"""Every plugin that is installed with fairbench passes the conformance kit."""

import pytest
from builders import ELSEWHERE, kit_checks, sampled

from fairbench import plugins, testing
from fairbench.testing import elsewhere
from fairbench.testing.methods import tolerance, trained

LOADED = plugins.load(("backbone", "method"))
# An adapter's folder and a server have tests of their own.
TESTED_ALONE = {"adapter", "endpoint"}
METHODS = [method for name, method in LOADED.tables["method"].items() if name not in TESTED_ALONE]
# No change and another loss; a sampler, a game, weights that learn, answers adjusted and all else are slow.
FAST = [method for method in METHODS if method.name in ("vanilla", "gr")]
BACKBONES = [item for name, item in LOADED.tables["backbone"].items() if name.startswith("tiny")]


def test_nothing_is_broken():
    assert LOADED.broken == []


@pytest.mark.parametrize("item", sampled(METHODS, *FAST, ids=lambda method: method.name))
@pytest.mark.parametrize("check", [check for check in testing.METHOD_CHECKS if check.__name__ not in ELSEWHERE])
def test_method(check, item):
    check(item)


@pytest.mark.slow
def test_two_processes_learn_what_one_learns():
    learned = elsewhere.weights(*METHODS)
    for method in METHODS:
        for name, value in trained(method, gentle=True).weights.items():
            apart = float((learned[method.name][name] - value).abs().max())
            assert apart < tolerance(method), f"{method.name}: {name} differs by {apart:.1e}"


@pytest.mark.parametrize("item", sampled([testing.ToyBackbone, *BACKBONES], count=2, ids=lambda item: item.name))
@pytest.mark.parametrize("check", kit_checks(testing.BACKBONE_CHECKS))
def test_backbone(check, item):
    check(item)


@pytest.mark.parametrize("check", kit_checks(testing.DATASET_CHECKS))
def test_dataset(check):
    check(testing.ToyDataset())
