"""What is remembered is what would be computed, for the content of tensors and not for their place in memory."""

import torch
from PIL import Image

from fairbench import plugins
from fairbench.models import remembered
from fairbench.models.remembered import Remembered


def test_a_function_is_asked_once_for_the_same_content():
    asked, memory = [], Remembered()

    def double(x, shift=None):
        asked.append(x)
        return (2 * x + (0 if shift is None else shift),)

    x = torch.arange(4)
    (first,) = memory(double, x, shift=torch.ones(1))
    first.zero_()  # nobody else's copy
    assert torch.equal(memory(double, x.clone(), shift=torch.ones(1))[0], 2 * x + 1)
    assert len(asked) == 1
    for other in (x.view(2, 2), x.int(), x + 1):
        assert torch.equal(memory(double, other)[0], 2 * other)
    x.add_(1)
    assert torch.equal(memory(double, x, shift=torch.ones(1))[0], 2 * x + 1)
    assert len(asked) == 5
    for number in range(2 * remembered.KEPT):
        memory(double, torch.tensor(number))
    assert len(memory.known) == remembered.KEPT


def test_qwens_places_are_those_of_its_own_forward_pass():
    """Two questions of different length, padded: twice the same batch, then its rows turned round."""
    backbone = plugins.load(("backbone",)).tables["backbone"]["tiny-qwen2.5-vl"]()
    backbone.build(("no", "yes"), ("no", "yes"), torch.float32, torch.device("cpu"))
    picture = Image.new("RGB", (112, 112), (90, 20, 20))
    examples = [backbone.prepare(picture, prompt) for prompt in ("Is it?", "Is it there, and where?")]
    with torch.no_grad():
        for rows in (examples, examples, examples[::-1]):
            inputs = backbone.stack(rows)
            features = backbone.encode(inputs)
            given = backbone.decode(inputs, features)[-1]
            backbone.places.known.clear()
            assert torch.equal(given, backbone.decode(inputs, features)[-1])
    assert "get_rope_index" not in vars(backbone.inner)
