"""The documented examples are whole plugins that pass the conformance kit."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from builders import kit_checks

from fairbench import testing

FILES = sorted((Path(__file__).parents[1] / "docs" / "examples").glob("*.py"))


def module(path):
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made  # by which another process is told where the file is
    spec.loader.exec_module(made)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("check", kit_checks(testing.METHOD_CHECKS))
def test_an_example_passes_the_kit(check, path):
    (method,) = module(path).fairbench_methods()
    check(method)


def test_surgery_leaves_nothing_that_one_group_would_undo():
    """Two gradients at more than a right angle: each is projected on the other's normal plane (algorithm 1)."""
    projected = module(FILES[0].with_name("pcgrad.py")).projected
    first, second = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0])
    wanted = (torch.tensor([0.5, 0.5]) + torch.tensor([0.0, 1.0])) / 2
    assert torch.allclose(projected([first, second], torch.Generator().manual_seed(0)), wanted)
    alike = torch.tensor([2.0, 1.0])
    assert torch.allclose(projected([first, alike], torch.Generator().manual_seed(0)), (first + alike) / 2)
