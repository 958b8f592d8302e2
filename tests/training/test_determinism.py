"""A training is of deterministic operations; the record names one that has no such form."""

import pytest
import torch

from fairbench import Method
from fairbench.testing.toys import ToyBackbone, train


class Vanilla(Method):
    name = "plain"


class Passed(torch.autograd.Function):
    """The identity, whose backward pass asks how strict torch is, and may use what has no deterministic form."""

    strict: list[bool] = []
    faults = False

    @staticmethod
    def forward(context, hidden):
        return hidden.view_as(hidden)

    @staticmethod
    def backward(context, gradient):
        Passed.strict.append(torch.get_deterministic_debug_mode() == 2)
        if Passed.faults:
            torch.zeros(2).put_(torch.tensor([0]), torch.ones(1))
        return gradient


class Passing(ToyBackbone):
    name = "passing"

    def construct(self):
        super().construct()
        self.model["decoder"].norm.register_forward_hook(lambda module, inputs, out: Passed.apply(out))


@pytest.fixture
def passed(monkeypatch):
    monkeypatch.setattr(Passed, "strict", [])
    return Passed


@pytest.mark.parametrize("micro_batch", [None, 3])
def test_what_has_no_deterministic_form_is_used_and_named(passed, monkeypatch, micro_batch):
    """The step in which it is found is taken once, whole: all weights are those of a training without the fault."""
    exact = train(Vanilla, backbone=Passing, micro_batch=micro_batch)
    assert passed.strict
    assert all(passed.strict)
    assert "not deterministic" not in exact.record.facts
    passed.strict.clear()
    monkeypatch.setattr(Passed, "faults", True)
    lenient = train(Vanilla, backbone=Passing, micro_batch=micro_batch)
    assert passed.strict[0]
    assert not any(passed.strict[1:])
    assert lenient.record.facts["not deterministic"] == "put_"
    assert any("put_ has no deterministic form on cpu" in text for text in lenient.record.warnings)
    assert exact.weights.keys() == lenient.weights.keys()
    assert all(torch.equal(exact.weights[name], lenient.weights[name]) for name in exact.weights)
    assert torch.get_deterministic_debug_mode() == 1


def test_another_error_of_the_backward_pass_is_the_jobs(passed, monkeypatch):
    def broken(context, gradient):
        raise RuntimeError("a fault of its own")

    monkeypatch.setattr(Passed, "backward", staticmethod(broken))
    with pytest.raises(AssertionError, match="a fault of its own"):
        train(Vanilla, backbone=Passing)
