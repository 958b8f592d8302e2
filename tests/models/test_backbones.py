"""Families of backbones through their real code path: a checkpoint on disk gives transformers' own numbers."""

import importlib
import json
import shutil
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import transformers
from builders import sampled
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file, save_file

from fairbench import FairbenchError, plugins
from fairbench.benchmark import benchmark, plan
from fairbench.benchmark.cost import estimate
from fairbench.cli.main import main
from fairbench.data.locations import located
from fairbench.jobs.job import Choice
from fairbench.jobs.store import Store
from fairbench.models import checkpoint

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
equality = importlib.import_module("backbone_equality")

PLUGINS = plugins.load()
QWEN, TIED, LLAVA, MED, _, NEXT, NEXT_MISTRAL = CASES = equality.CASES
WORDS = ("no", "yes")
CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Each case's checkpoint, written once."""
    root, made = tmp_path_factory.mktemp("checkpoints"), {}

    def save(case):
        if case not in made:
            made[case] = equality.save(case, root / f"model-{CASES.index(case)}")
        return made[case]

    return save


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved(QWEN), tmp_path / "copy")


def make(name, folder=None, **settings):
    name = name if folder is None else f"{name}:{folder.name}"
    return PLUGINS.make("backbone", Choice(name, settings), {} if folder is None else {name: folder})


def build(name, folder, **settings):
    return make(name, folder, **settings).build(WORDS, WORDS, torch.float32, CPU)


# ── the same as transformers ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("case", sampled(CASES, QWEN, LLAVA, ids=lambda case: case.what))
def test_a_checkpoint_gives_what_transformers_gives(saved, case):
    """Tokens, every logit and greedy text, at both paddings, for pictures of one and of several sizes."""
    folder = saved(case)
    backbone, official = equality.build(case, folder), equality.Official(case, folder)
    for sizes, count in ((equality.ONE, 8), (equality.SEVERAL, 8), (equality.ONE, 1)):
        asked = equality.examples(count, sizes)
        for side in ("left", "right"):
            agreement = equality.compare(backbone, official, asked, side)
            assert agreement.same_tokens
            assert agreement.logits < 1e-4
            assert agreement.spread > 0.5, "logits so alike would hide a difference"
            assert agreement.same_text
            assert len(set(agreement.texts)) > count // 4, "texts so alike would hide a difference"


def test_another_picture_is_another_answer(saved):
    """What is compared above depends on what is seen."""
    backbone = equality.build(NEXT, saved(NEXT))
    official = equality.Official(NEXT, saved(NEXT))
    asked = equality.examples(1, equality.ONE)
    grey = [(Image.new("RGB", asked[0][0].size, (128, 128, 128)), asked[0][1])]
    official.batch = lambda _, side, given=official.batch: given(grey, side)
    agreement = equality.compare(backbone, official, asked, "right")
    assert agreement.same_tokens
    assert agreement.logits > 0.1


def test_loading_draws_no_bar_over_the_display(saved, capfd, monkeypatch):
    folder = saved(NEXT)
    monkeypatch.setattr(transformers.utils.logging, "_tqdm_active", True)
    capfd.readouterr()  # saving draws one
    equality.build(NEXT, folder)
    assert capfd.readouterr().err == ""
    assert transformers.utils.logging.is_progress_bar_enabled()


@pytest.mark.parametrize(
    ("name", "case"),
    [
        *(("qwen2.5-vl-7b", QWEN), ("qwen2.5-vl-3b", TIED), ("llava-1.5-7b", LLAVA), ("llava-1.5-13b", LLAVA)),
        *(("llava-med-7b", MED), ("llava-next-7b", NEXT), ("llava-next-mistral-7b", NEXT_MISTRAL)),
    ],
)
def test_every_size_reads_as_its_family_does(saved, name, case):
    picture, question = equality.examples(1, equality.ONE)[0]
    size, family = build(name, saved(case)), build(case.family, saved(case))
    ours, theirs = size.prepare(picture, question), family.prepare(picture, question)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_prompts_are_the_papers(saved):
    picture = equality.examples(1, equality.ONE)[0][0]

    def text(backbone):
        ids = backbone.prepare(picture, "is it?")["input_ids"]
        assert (ids == backbone.image_token_id).sum() > 1
        return backbone.tokenizer.decode(ids[ids != backbone.image_token_id])

    assert text(build("llava", saved(LLAVA))) == "<s>" + " " + (
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions. USER: \nis it? ASSISTANT:"
    )
    assert text(build("llava-med-7b", saved(MED))) == "<s> [INST] \nis it? [/INST]"
    assert text(build("llava", saved(MED), chat="say: {prompt} <image>")) == "<s> say: is it? "
    assert text(build("qwen2.5-vl", saved(QWEN))) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        "<|vision_start|><|vision_end|>is it?<|im_end|>\n<|im_start|>assistant\n"
    )


# ── where a checkpoint lies, and what it is called ───────────────────────────────────────────────


def planned(backbones, settings=None, planning=True):
    document = {
        "datasets": ["fundus-sim"],
        "backbones": backbones,
        "methods": ["vanilla"],
        "attributes": ["gender"],
        "controls": False,
        "settings": {"fundus-sim": {"limit": 20}, **(settings or {})},
    }
    parsed = benchmark.parse(document, "test", "test.toml")
    return plan.jobs(parsed, PLUGINS, {}, planning)


def test_a_folder_is_called_by_its_name_wherever_it_lies(saved, tmp_path, monkeypatch):
    there = shutil.copytree(saved(QWEN), tmp_path / "elsewhere" / saved(QWEN).name)
    (here,) = planned([f"qwen2.5-vl:{saved(QWEN)}"], planning=False).jobs
    (copied,) = planned([f"qwen2.5-vl: {there}/"], planning=False).jobs
    assert here.backbone.name == "qwen2.5-vl:model-0"
    assert here.key == copied.key, "the same weights elsewhere are the same experiment"
    assert str(tmp_path) not in json.dumps(copied.to_json())
    monkeypatch.chdir(there.parent)
    (relative,) = planned(["qwen2.5-vl:model-0"], planning=False).jobs
    assert relative.key == here.key
    monkeypatch.chdir(there)
    assert located("qwen2.5-vl:.") == ("qwen2.5-vl:model-0", there)
    snapshot = tmp_path / "hub" / "models--Org--Model-7B" / "snapshots" / "0f3a"
    assert located(f"qwen2.5-vl:{snapshot}")[0] == "qwen2.5-vl:Model-7B"


def test_other_weights_are_another_job(copy, saved):
    (before,) = planned([f"qwen2.5-vl:{copy}"]).jobs
    shard = sorted(copy.glob("*.safetensors"))[0]
    tensors = load_file(shard)
    next(iter(tensors.values())).add_(1)
    save_file(tensors, shard, {"format": "pt"})
    (after,) = planned([f"qwen2.5-vl:{copy}"]).jobs
    assert before.backbone.fingerprint != after.backbone.fingerprint
    assert before.key != after.key


@pytest.mark.parametrize(
    ("backbones", "words"),
    [
        (["qwen2.5-vl"], ["where is qwen2.5-vl", "--backbones qwen2.5-vl:FOLDER"]),
        (["llava-med-7b"], ["where is llava-med-7b", "--backbones llava-med-7b:FOLDER"]),
        (["tiny-llava:/models/mine"], ["tiny-llava takes no folder"]),
        (["qwen-vl:/models/mine"], ["no backbone is called `qwen-vl`"]),
        (["qwen2.5-vl:/models/my model"], ["'my model' cannot be part of a name"]),
        (["llava:/a/mine", "llava:/b/mine"], ["would both be called llava:mine", "rename"]),
    ],
)
def test_a_folder_that_names_nothing_is_refused(backbones, words):
    with pytest.raises(FairbenchError) as caught:
        planned(backbones)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_settings_go_by_the_name_with_the_folder(saved):
    settings = {"qwen2.5-vl:model-0": {"rank": 4, "attention": "eager", "download": True}}
    (job,) = planned([f"qwen2.5-vl:{saved(QWEN)}"], settings, planning=False).jobs
    assert job.backbone.settings == {"rank": 4, "attention": "eager"}, "what changes no result is in no job's key"
    with pytest.raises(FairbenchError, match="not part of this run"):
        planned([f"qwen2.5-vl:{saved(QWEN)}"], {"qwen2.5-vl": {"rank": 4}})


def test_costs_are_those_of_the_folders_config(saved, tmp_path):
    settings = {"llava:model-2": {"rank": 8}, "llava-next:model-5": {"quantise": "4bit"}}
    jobs = planned([f"llava:{saved(LLAVA)}", f"llava-next:{saved(NEXT)}"], settings)
    first, second = estimate(jobs, Store(tmp_path), try_out=None)  # arithmetic alone
    model = build("llava", saved(LLAVA), rank=8)
    assert first.trained == sum(
        len(p.flatten()) for part in ("lora", "projector", "head") for p in model.part(part)
    )
    whole = estimate(planned([f"llava-next:{saved(NEXT)}"]), Store(tmp_path), try_out=None)
    frozen = sum(p.numel() for p in NEXT.model().parameters())
    saved_bytes = frozen * 3.5  # of four bytes a number, and of two if this machine computes in bfloat16
    assert whole[0].memory - second.memory == pytest.approx(
        saved_bytes if plan.native_precision() == "float32" else frozen * 1.5
    )


@pytest.mark.slow
def test_a_folder_is_trained_from_the_command_line(saved, tmp_path):
    command = ["run", "--backbones", f"llava-next:{saved(NEXT)}", "--datasets", "fundus-sim", "--attr", "gender"]
    command += ["--methods", "vanilla", "--no-controls", "--out", str(tmp_path / "runs"), "--workers", "1"]
    for setting in ("fundus-sim.limit=40", "projector.epochs=0.1", "lora.epochs=0.1"):
        command += ["--set", setting]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert "llava-next:model-5" in done.stdout
    published = [path.read_text() for path in tmp_path.glob("runs/unnamed.*") if path.suffix in (".md", ".json")]
    assert not any(str(saved(NEXT)) in text for text in published)


# ── the hub's cache and the network ──────────────────────────────────────────────────────────────


@pytest.fixture
def cache(saved, tmp_path, monkeypatch):
    """A hub's cache that holds Org/Model, whose branch main is at commit 0f3a."""
    place = tmp_path / "hub" / "models--Org--Model"
    commit = "0f3a" + "0" * 36
    shutil.copytree(saved(QWEN), place / "snapshots" / commit)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return commit


def preset(**settings):
    family = PLUGINS.find("backbone", "qwen2.5-vl")
    return type("Preset", (family,), {"name": "preset", "checkpoint": "Org/Model"})(**settings)


def test_a_cached_checkpoint_records_its_commit_and_how_it_attends(cache, saved):
    backbone = preset(attention="eager", min_pixels=112 * 112, max_pixels=140 * 140)
    assert backbone.fingerprint() == checkpoint.checkpoint_fingerprint(saved(QWEN))
    backbone.build(WORDS, WORDS, torch.float32, CPU, generates=True)
    images = {"image processor": "Qwen2VLImageProcessorPil", "difference from transformers": 0.0}
    assert backbone.facts == {"attention": "eager", "revision": cache, **images}
    other = equality.build(QWEN, saved(QWEN))
    assert other.facts == {"attention": "sdpa", **images}
    asked = equality.examples(2, equality.ONE)
    for one in (backbone, other):
        inputs = one.stack([one.prepare(*example) for example in asked])
        with torch.no_grad():
            one.hidden = one.decode(inputs, one.features(inputs))[-1]
    torch.testing.assert_close(backbone.hidden, other.hidden, atol=1e-3, rtol=0)
    preset(revision="main").folder()
    with pytest.raises(FairbenchError, match=r"(?s)revision v2.*neither.*--revision v2"):
        preset(revision="v2").folder()


def test_the_network_is_asked_only_when_told_to(cache, monkeypatch):
    asked = []

    def snapshot(name, **options):
        asked.append(options)
        return "anywhere"

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    preset().folder()
    preset(download=True, revision="main").folder()
    assert [options["local_files_only"] for options in asked] == [True, False]
    assert asked[1]["revision"] == "main"
    assert "*.safetensors" in asked[1]["allow_patterns"]
    assert not any(pattern in ("*", "*.bin", "*.py") for pattern in asked[1]["allow_patterns"])


def test_a_gated_checkpoint_says_where_its_terms_are(cache, monkeypatch):
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    for kind, word in (
        (GatedRepoError, "gated"),
        (RepositoryNotFoundError, "cannot download checkpoint Org/Model"),
    ):

        def snapshot(name, kind=kind, **options):
            raise kind.__new__(kind, "no")  # without the answer of a server, which there is none

        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
        with pytest.raises(FairbenchError) as caught:
            preset(download=True).folder()
        assert word in caught.value.message
        assert "hf download Org/Model" in str(caught.value)


# ── what cannot be loaded ────────────────────────────────────────────────────────────────────────


def refused(folder, *words, name="qwen2.5-vl-7b", action=None, **settings):
    with pytest.raises(FairbenchError) as caught:
        (action or build)(name, folder, **settings)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_an_absent_checkpoint_is_named_with_the_command_that_gets_it(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("qwen2.5-vl-3b", "llava-1.5-13b", "llava-next-7b", "llava-next-mistral-7b"):
        wanted = PLUGINS.find("backbone", name).checkpoint
        refused(None, f"checkpoint {wanted}", f"hf download {wanted}", name=name)
    refused(tmp_path, f"the folder {tmp_path} holds no config.json")
    refused(tmp_path / "no", "does not exist")
    refused(Path("Org/Model"), "checkpoint Org/Model", "hf download Org/Model")


def test_a_shard_that_is_missing_is_known_when_the_job_is_planned(copy):
    shard = sorted(copy.glob("*.safetensors"))[-1]
    shard.unlink()
    refused(copy, f"lacks {shard.name}", "whole")
    refused(copy, shard.name, action=lambda name, folder: make(name, folder).fingerprint())


def test_a_weight_that_is_missing_is_not_made_up(copy):
    shard = sorted(copy.glob("*.safetensors"))[0]
    tensors = load_file(shard)
    lost = sorted(tensors)[0]
    del tensors[lost]
    save_file(tensors, shard, {"format": "pt"})
    refused(copy, "lacks 1 weights", lost.split(".")[-2])


def test_layers_that_the_configuration_does_not_count_are_refused(copy):
    file = copy / "config.json"
    config = json.loads(file.read_text())
    text = config["text_config"]
    text["num_hidden_layers"] -= 1
    text["layer_types"] = text["layer_types"][:-1]
    file.write_text(json.dumps(config))
    refused(copy, "weights of layers that its config.json does not count", f"layers.{text['num_hidden_layers']}.")


def test_a_damaged_shard_is_refused(copy):
    shard = sorted(copy.glob("*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:-100])
    refused(copy, f"cannot load checkpoint {copy}")


def test_an_adapter_beside_whole_weights_is_refused(copy):
    """Transformers would load both into one model that nobody made."""
    (copy / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"]})
    )
    refused(copy, "adapter_config.json beside whole weights", "move adapter_config.json away")
    refused(copy, "adapter_config.json", action=lambda name, folder: make(name, folder).fingerprint())


def test_a_shard_index_of_an_older_save_is_not_read(saved, tmp_path):
    """As in transformers, a single file goes before an index, whatever has become of its shards."""
    folder = shutil.copytree(saved(LLAVA), tmp_path / "single")
    shards = sorted(folder.glob("*.safetensors"))
    whole = {name: value for shard in shards for name, value in load_file(shard).items()}
    save_file(whole, folder / "model.safetensors", {"format": "pt"})
    for value in whole.values():
        value.zero_()
    for shard in shards:
        save_file({name: whole[name] for name in load_file(shard)}, shard, {"format": "pt"})
    before = make("llava", folder).fingerprint()
    loaded, wanted = build("llava", folder).state_dict(), build("llava", saved(LLAVA)).state_dict()
    assert all(
        torch.equal(loaded[name], wanted[name]) for name in wanted if "lora_" not in name and "head" not in name
    )
    for shard in shards:
        shard.unlink()
    assert make("llava", folder).fingerprint() == before
    build("llava", folder)


def test_the_folders_own_image_processor_is_used(tmp_path):
    """LLaVA's own, which pads to a square where CLIP's crops, is another picture and so other logits."""
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    def padding():
        processor = equality.llava_processor()
        size = {"height": 112, "width": 112}
        processor.image_processor = LlavaImageProcessorPil(size={"shortest_edge": 112}, crop_size=size, do_pad=True)
        return processor

    case = replace(LLAVA, processor=padding)
    folder = equality.save(case, tmp_path / "padded")
    backbone, official = equality.build(case, folder), equality.Official(case, folder)
    asked = equality.examples(4, equality.SEVERAL)
    assert backbone.facts["image processor"] == "LlavaImageProcessorPil"
    assert equality.compare(backbone, official, asked, "right").logits < 1e-4
    cropped = equality.build(LLAVA, equality.save(LLAVA, tmp_path / "cropped"))
    assert equality.compare(cropped, official, asked, "right").logits > 0.5


def test_an_image_processor_that_transformers_lacks_is_refused(saved, tmp_path):
    folder = shutil.copytree(saved(LLAVA), tmp_path / "other")
    file = folder / "processor_config.json"
    declared = json.loads(file.read_text())
    declared["image_processor"]["image_processor_type"] = "MineImageProcessor"
    file.write_text(json.dumps(declared))
    refused(folder, "cannot load checkpoint", "Unrecognized image processor", name="llava")


def test_an_answer_ends_at_every_end_token_that_the_checkpoint_lists(saved, tmp_path):
    """One token of a known answer is listed in generation_config.json, as Gemma's <end_of_turn> is."""
    asked = equality.examples(4, equality.ONE)
    folder = shutil.copytree(saved(LLAVA), tmp_path / "ends")
    backbone = equality.build(LLAVA, folder)
    inputs = backbone.stack([backbone.prepare(*one) for one in asked], prompt_only=True)
    written = backbone.continuations(inputs, equality.LENGTH)
    end = written[0][3]
    assert backbone.end_token_id not in written[0][:3]
    file = folder / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "eos_token_id": [backbone.end_token_id, end]}))
    ending, official = equality.build(LLAVA, folder), equality.Official(LLAVA, folder)
    texts = ending.generate(inputs, equality.LENGTH)
    assert texts[0] == backbone.detokenise(written[0][: written[0].index(end)]).strip()
    assert texts == official.write(asked)
    assert texts != backbone.generate(inputs, equality.LENGTH)


def test_pickled_weights_are_refused(copy):
    for shard in [*copy.glob("*.safetensors"), copy / "model.safetensors.index.json"]:
        shard.unlink()
    torch.save({}, copy / "pytorch_model.bin")
    refused(copy, "only pickled weights", "save_pretrained")


def test_another_familys_checkpoint_is_refused(saved):
    refused(saved(LLAVA), "is a llava, not a qwen2_5_vl")
    refused(saved(LLAVA), "is a llava, not a llava_next", name="llava-next-7b")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_a_file_that_is_not_json_is_refused(copy, name):
    (copy / name).write_text("{")
    refused(copy, "cannot load checkpoint", name)


@pytest.mark.parametrize("value", ["x", -1, []], ids=str)
@pytest.mark.parametrize("part", ["vision_config", "vision_config.hidden_size", "vision_config.patch_size"])
def test_a_configuration_that_makes_no_model_is_one_error(copy, part, value):
    """Transformers raises TypeError, RuntimeError, validation errors of its own, … each from within."""
    file = copy / "config.json"
    config = json.loads(file.read_text())
    *parents, last = part.split(".")
    inner = config
    for name in parents:
        inner = inner[name]
    inner[last] = value
    file.write_text(json.dumps(config))
    refused(
        copy, f"cannot load checkpoint {copy}: config.json: ", action=lambda *of: make(*of).load_preprocessing()
    )


def test_a_tokenizer_of_another_checkpoint_is_refused(copy):
    equality.sentences().save_pretrained(copy)
    refused(copy, "the tokenizer has no special token 257")


def test_a_chat_without_a_format_is_refused(copy):
    (copy / "chat_template.jinja").unlink()
    refused(copy, "no chat template")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"mm_vision_tower": "biomedclip_cxr_518"},
            ["original LLaVA format", "biomedclip_cxr_518", "docs/backbones.md"],
        ),
        ({"vision_feature_select_strategy": "full"}, ["no class token"]),
        ({"text_config": {"model_type": "qwen2"}}, ["LLaVA of a qwen2", "--set llava:other.chat="]),
    ],
)
def test_a_llava_that_cannot_be_held_says_why(saved, tmp_path, change, words):
    folder = shutil.copytree(saved(LLAVA), tmp_path / "other")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    refused(folder, *words, name="llava")


def test_a_chat_must_hold_the_image_and_the_prompt(saved):
    refused(saved(LLAVA), "does not hold <image> and {prompt}", name="llava", chat="USER: {prompt}")


def test_a_prompt_that_holds_the_images_token_is_refused(saved):
    backbone = build("llava", saved(LLAVA))
    with pytest.raises(FairbenchError, match="must not hold <image>"):
        backbone.prepare(Image.new("RGB", (10, 10)), "is <image> it?")


# ── options ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["8bit", "4bit"])
def test_quantising_needs_a_package_and_a_gpu(saved, kind, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("fairbench.models.pretrained.find_spec", lambda _: None)
    refused(
        saved(QWEN), f"quantise = {kind}", "the package bitsandbytes and a CUDA GPU", "[quantised]", quantise=kind
    )


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
@pytest.mark.parametrize("kind", ["8bit", "4bit"])
def test_a_quantised_model_sees_the_same_and_learns(saved, kind, monkeypatch):
    """On a CPU, which bitsandbytes can use too, as on the GPU that fairbench asks for."""
    given = torch.cuda.is_available()
    family = type(make("llava-next", saved(NEXT)))
    options = family._quantisation

    def as_on_a_gpu(self, dtype):
        with monkeypatch.context() as patch:
            patch.setattr("torch.cuda.is_available", lambda: True)
            return options(self, dtype)

    if not given:
        monkeypatch.setattr(family, "_quantisation", as_on_a_gpu)
    whole, packed = (equality.build(NEXT, saved(NEXT), quantise=q) for q in ("none", kind))
    inputs = whole.stack([whole.prepare(*one) for one in equality.examples(3, equality.SEVERAL)])
    layers = {type(m).__name__ for name, m in packed.language_model.named_modules() if name.endswith("base_layer")}
    assert layers == {{"8bit": "Linear8bitLt", "4bit": "Linear4bit"}[kind]}
    with torch.no_grad():
        features = whole.encode(inputs)
        assert torch.equal(packed.encode(inputs), features)
        near = [one.decode(inputs, features)[-1].flatten() for one in (whole, packed)]
    assert torch.nn.functional.cosine_similarity(*near, dim=0) > 0.8
    packed.train(True)
    packed.decode(inputs, features)[-1].square().mean().backward()
    assert all(parameter.grad is not None for parameter in packed.part("lora"))


@pytest.mark.parametrize("case", [QWEN, LLAVA, NEXT], ids=lambda case: case.what)
def test_only_the_language_model_is_quantised(saved, case):
    """Vision stays as it is, so cached features do; so do the projector, which is trained, and the head."""
    backbone = make(case.family, saved(case))
    kept = backbone.outside_the_language_model()
    inside = {id(module) for module in backbone.language_model.modules()}
    for name, module in backbone.model.named_modules():
        if isinstance(module, torch.nn.Linear):
            assert (id(module) in inside) != any(name == k or name.startswith(f"{k}.") for k in kept), name


@pytest.mark.parametrize("targets", [("qkv",), ("q_proj", "o_prj")])
def test_a_lora_target_that_matches_nothing_is_named_with_what_there_is(saved, targets):
    refused(
        saved(LLAVA), f"no layer `{targets[-1]}`", "down_proj, gate_proj, k_proj", name="llava", targets=targets
    )


def test_all_linear_layers_of_the_language_model_can_be_adapted(saved):
    backbone = build("llava", saved(LLAVA), targets=("all-linear",), rank=2)
    linear = (torch.nn.Linear,)
    adapted = [
        n for n, m in backbone.language_model.named_modules() if n.endswith("base_layer") and type(m) in linear
    ]
    assert len(adapted) == 7 * backbone.depth
    inside = {id(p) for p in backbone.language_model.parameters()}
    assert all(id(p) in inside for p in backbone.part("lora"))
    assert len(backbone.part("lora")) == 2 * len(adapted)


def test_attention_that_is_not_there_is_refused(saved):
    refused(saved(QWEN), "flash_attention_2 needs", "flash-attn", attention="flash_attention_2")


# ── sizes, from the shapes alone ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "total", "lora", "head"),
    [
        ("qwen2.5-vl-7b", 8_292_166_656, 20_185_088, 7_170),
        ("qwen2.5-vl-3b", 3_754_622_976, 14_745_600, 4_098),
        ("llava-1.5-7b", 7_063_427_072, 33_554_432, 8_194),
        ("llava-next-7b", 7_063_427_072 + 4_096, 33_554_432, 8_194),  # LLaVA-1.5 and the vector that ends a row
        ("llava-next-mistral-7b", 7_566_747_648, 27_262_976, 8_194),
        ("llava-med-7b", 7_566_747_648 - 4_096, 27_262_976, 8_194),
    ],
)
def test_full_sizes_have_the_published_number_of_parameters(name, total, lora, head):
    backbone = PLUGINS.find("backbone", name)()
    with torch.device("meta"):
        backbone.construct()
        assert sum(p.numel() for p in backbone.parameters()) == total
        backbone.attach(WORDS, WORDS)
    assert sum(p.numel() for p in backbone.part("lora")) == lora
    assert sum(p.numel() for p in backbone.part("head")) == head
    inside = {id(p) for p in backbone.language_model.parameters()}
    assert all(id(p) in inside for p in backbone.part("lora"))


@pytest.mark.parametrize(
    ("name", "image"), [("qwen2.5-vl-7b", 576), ("llava-1.5-7b", 576), ("llava-next-7b", 576 + 48 * (48 + 1))]
)
def test_the_tokens_of_an_example_are_estimated_from_above(name, image):
    """For LLaVA-NeXT: the whole picture, and 2 × 2 tiles of 24 × 24 patches with a row's end each."""
    backbone = make(name)
    with torch.device("meta"):
        backbone.construct()
    assert image <= backbone.tokens < image + 100
