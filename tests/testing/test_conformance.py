"""Every plugin that is installed with fairbench passes the conformance kit."""

import pytest

from fairbench import plugins, testing

LOADED = plugins.load(("backbone", "method"))
# An adapter's folder and a server have tests of their own.
ELSEWHERE = {"adapter", "endpoint"}
METHODS = [method for name, method in LOADED.tables["method"].items() if name not in ELSEWHERE]
BACKBONES = [item for name, item in LOADED.tables["backbone"].items() if name.startswith("tiny")]


def product(checks, items):
    return [pytest.param(c, i, id=f"{i.name}-{c.__name__}") for i in items for c in checks]


def test_nothing_is_broken():
    assert LOADED.broken == []


@pytest.mark.parametrize(("check", "method"), product(testing.METHOD_CHECKS, METHODS))
def test_method(check, method):
    check(method)


@pytest.mark.parametrize(("check", "backbone"), product(testing.BACKBONE_CHECKS, [testing.ToyBackbone, *BACKBONES]))
def test_backbone(check, backbone):
    check(backbone)


@testing.parametrize_dataset(testing.ToyDataset())
def test_dataset(check, dataset):
    check(dataset)
