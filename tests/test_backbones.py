"""Full-size backbones through their real code path: a checkpoint on disk gives transformers' own numbers."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import LlavaForConditionalGeneration, Qwen2_5_VLForConditionalGeneration

from fairbench import FairbenchError, plugins
from fairbench.job import Choice

PLUGINS = plugins.load(("backbone",))
PROMPTS = ("Glaucoma?", "Is there any sign of glaucoma in this photograph?")
WORDS = ("no", "yes")
QWEN = ("tiny-qwen2.5-vl", "qwen2.5-vl-7b", Qwen2_5_VLForConditionalGeneration)
LLAVA = ("tiny-llava", "llava-1.5-7b", LlavaForConditionalGeneration)


def make(name, **settings):
    return PLUGINS.make("backbone", Choice(name, settings))


def save(folder, tiny, tied=False):
    """Write a small model as a hub's checkpoint is written: shards, tokenizer, image processor."""
    source = make(tiny)
    if tied:
        source.shape = {**source.shape, "tied": True}
    source.load(torch.float32)
    source.model.save_pretrained(folder, max_shard_size="1MB")
    source.tokenizer.save_pretrained(folder)
    source.processor.save_pretrained(folder)
    assert len(list(folder.glob("*.safetensors"))) > 1
    return folder


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    made = {tiny: save(tmp_path_factory.mktemp(tiny), tiny) for tiny, *_ in (QWEN, LLAVA)}
    return made | {"tied": save(tmp_path_factory.mktemp("tied"), QWEN[0], tied=True)}


@pytest.fixture
def copy(checkpoints, tmp_path):
    return shutil.copytree(checkpoints[QWEN[0]], tmp_path / "copy")


def images():
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 255, (90, 140, 3), dtype=np.uint8)) for _ in PROMPTS]


def build(name, checkpoint, **settings):
    if name.startswith("qwen"):
        settings |= {"min_pixels": 112 * 112, "max_pixels": 140 * 140}
    backbone = make(name, checkpoint=str(checkpoint), readout="words", **settings)
    return backbone.build(WORDS, WORDS, torch.float32, torch.device("cpu"))


def by_transformers(model, backbone, examples):
    """The words' logits after each prompt, one example at a time, with nothing of ours but the inputs."""
    found = []
    for example in examples:
        extra = {key: value for key, value in example.items() if key != "input_ids"}
        ids = example["input_ids"][None]
        if "image_grid_thw" in example:
            extra["mm_token_type_ids"] = (ids == model.config.image_token_id).int()
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), **extra).logits
        found.append(logits[0, -1, [backbone.tokenizer.encode(word)[0] for word in WORDS]])
    return torch.stack(found)


@pytest.mark.parametrize(
    ("tiny", "name", "model"),
    [QWEN, ("tied", "qwen2.5-vl-3b", QWEN[2]), LLAVA, (LLAVA[0], "llava-1.5-13b", LLAVA[2])],
)
def test_a_checkpoint_gives_what_transformers_gives(checkpoints, tiny, name, model):
    backbone = build(name, checkpoints[tiny])
    examples = [backbone.prepare(image, prompt) for image, prompt in zip(images(), PROMPTS, strict=True)]
    with torch.no_grad():
        ours = backbone(backbone.stack(examples), torch.full((len(PROMPTS),), -1)).scores
        theirs = by_transformers(model.from_pretrained(checkpoints[tiny]).eval(), backbone, examples)
    assert theirs.std() > 1e-3
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_prompts_are_the_official_chat_with_one_token_per_image_patch(checkpoints):
    image = images()[0]
    qwen = build(QWEN[1], checkpoints[QWEN[0]])
    text = qwen.tokenizer.decode(qwen.prepare(image, "Glaucoma?")["input_ids"])
    patches = text.count("<|image_pad|>")
    assert text.replace("<|image_pad|>" * patches, "#").rstrip() == (
        "<|im_start|>user\n<|vision_start|>#<|vision_end|>Glaucoma?<|im_end|>\n<|im_start|>assistant"
    )
    assert patches == int(qwen.prepare(image, "x")["image_grid_thw"].prod()) / 4
    llava = build(LLAVA[1], checkpoints[LLAVA[0]])
    text = llava.tokenizer.decode(llava.prepare(image, "Glaucoma?")["input_ids"])
    assert text.startswith("A chat between a curious user and an artificial intelligence assistant. ")
    assert text.endswith("USER: " + "<image>" * 16 + "\nGlaucoma? ASSISTANT:")


def test_a_fingerprint_follows_the_weights(copy):
    before = make(QWEN[1], checkpoint=str(copy)).fingerprint()
    assert make(QWEN[1], checkpoint=str(copy)).fingerprint() == before
    shard = sorted(copy.glob("*.safetensors"))[0]
    tensors = load_file(shard)
    next(iter(tensors.values())).add_(1)
    save_file(tensors, shard, {"format": "pt"})
    assert make(QWEN[1], checkpoint=str(copy)).fingerprint() != before


# ── what cannot be loaded ────────────────────────────────────────────────────────────────────────


def refused(checkpoint, *words, action=build, name=QWEN[1]):
    with pytest.raises(FairbenchError) as caught:
        action(name, checkpoint)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_an_absent_checkpoint_is_named_with_the_command_that_gets_it(tmp_path):
    refused("Qwen/Nothing-Here", "checkpoint Qwen/Nothing-Here", "hf download Qwen/Nothing-Here")
    refused(tmp_path, str(tmp_path), "config.json")


def test_a_shard_that_is_missing_is_known_when_the_job_is_planned(copy):
    shard = sorted(copy.glob("*.safetensors"))[-1]
    shard.unlink()
    refused(copy, f"lacks {shard.name}", "hf download")
    refused(copy, shard.name, action=lambda name, path: make(name, checkpoint=str(path)).fingerprint())


def test_a_weight_that_is_missing_is_not_made_up(copy):
    shard = sorted(copy.glob("*.safetensors"))[0]
    tensors = load_file(shard)
    lost = sorted(tensors)[0]
    del tensors[lost]
    save_file(tensors, shard, {"format": "pt"})
    refused(copy, "lacks 1 weights", lost.split(".")[-2], "hf download")


def test_a_damaged_shard_is_refused(copy):
    shard = sorted(copy.glob("*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:-100])
    refused(copy, f"cannot load checkpoint {copy}")


def test_pickled_weights_are_refused(copy):
    for shard in [*copy.glob("*.safetensors"), copy / "model.safetensors.index.json"]:
        shard.unlink()
    torch.save({}, copy / "pytorch_model.bin")
    refused(copy, "only pickled weights", "save_pretrained")


def test_another_familys_checkpoint_is_refused(checkpoints):
    refused(checkpoints[LLAVA[0]], "is a llava, not a qwen2_5_vl")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_a_file_that_is_not_json_is_refused(copy, name):
    (copy / name).write_text("{")
    refused(copy, "cannot load checkpoint", name)


# ── sizes, from the shapes alone ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "total", "lora", "head"),
    [
        ("qwen2.5-vl-7b", 8_292_166_656, 20_185_088, 7_170),
        ("qwen2.5-vl-3b", 3_754_622_976, 14_745_600, 4_098),
        ("llava-1.5-7b", 7_063_427_072, 33_554_432, 8_194),
    ],
)
def test_full_sizes_have_the_published_number_of_parameters(name, total, lora, head):
    backbone = make(name)
    with torch.device("meta"):
        backbone.construct()
        assert sum(p.numel() for p in backbone.parameters()) == total
        backbone.attach(WORDS, WORDS)
    assert sum(p.numel() for p in backbone.part("lora")) == lora
    assert sum(p.numel() for p in backbone.part("head")) == head
    inside = {id(p) for p in backbone.language_model.parameters()}
    assert all(id(p) in inside for p in backbone.part("lora"))


def test_the_shape_written_down_is_that_of_the_checkpoint(checkpoints):
    """Costs are estimated from `construct`, so it must build what `load` loads."""
    for tiny, _, _ in (QWEN, LLAVA):
        stated, loaded = make(tiny), json.loads((checkpoints[tiny] / "config.json").read_text())
        stated.construct()
        assert stated.model.config.text_config.num_hidden_layers == loaded["text_config"]["num_hidden_layers"]
        assert stated.tokens >= 16
