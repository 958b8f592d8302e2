"""Any model that transformers holds: drawn small, saved as the hub has it, loaded as vlm:FOLDER."""

import functools
import importlib
import importlib.util
import inspect
import json
import re
import sys
from pathlib import Path

import peft
import pytest
import torch
import transformers
from builders import sampled
from click.testing import CliRunner
from PIL import Image
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from fairbench import FairbenchError, plugins
from fairbench.cli.main import main
from fairbench.jobs.job import Choice
from fairbench.models.checkpoint import weight_files
from fairbench.models.family import SUFFIX_TYPE
from fairbench.models.supported import unsupported

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
architectures, equality = (importlib.import_module(name) for name in ("architectures", "backbone_equality"))
PLUGINS = plugins.load(("backbone",))
HELD = {case.kind: case for case in architectures.ARCHITECTURES}
ANSWER = " yes"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def make(folder, **settings):
    return PLUGINS.make("backbone", Choice(f"vlm:{folder.name}", settings), {f"vlm:{folder.name}": folder})


# One for each way of positions, masks and features: plain, M-RoPE, token types, a prefix, split images.
FAST = ("llava", "qwen2_5_vl", "gemma3", "paligemma", "smolvlm")


@pytest.mark.parametrize("kind", sampled(HELD, *FAST))
def test_an_architecture_is_what_transformers_computes(kind, tmp_path):
    """Tokens, logits, text, readout, gradients: the model's own, with image features computed once."""
    case = equality.architecture(HELD[kind])
    folder = equality.save(case, tmp_path / "drawn")
    backbone, official = equality.build(case, folder, dropout=0.0), equality.Official(case, folder)
    for count, sizes, sides in ((1, equality.ONE, "lr"), (8, equality.ONE, "r"), (8, equality.SEVERAL, "lr")):
        asked = equality.examples(count, sizes)
        for side in sides:
            agreement = equality.compare(backbone, official, asked, {"l": "left", "r": "right"}[side])
            assert agreement.same_tokens
            assert agreement.logits < 1e-4
            assert agreement.same_text
            assert len(set(agreement.texts)) > count // 4, "texts so alike would hide a difference"
    pictures, questions = zip(*equality.examples(6, equality.SEVERAL), strict=True)
    shown = [list(pictures[:2]), list(pictures[2:5]), list(pictures[5:])]
    agreement = equality.compare(backbone, official, list(zip(shown, questions[:3], strict=True)), "left")
    assert agreement.same_tokens
    assert agreement.logits < 1e-4
    assert agreement.same_text
    blank = [(Image.new("RGB", picture.size, (128, 128, 128)), question) for picture, question in asked]
    inputs = [backbone.stack([backbone.prepare(*one) for one in some]) for some in (asked, blank)]
    with torch.no_grad():
        seen, unseen = (backbone.decode(one, backbone.encode(one))[-1] for one in inputs)
    assert (seen - unseen).abs().max() > 1e-3, "the picture does not matter"
    inside = {id(p) for p in backbone.language_model.parameters()}
    trained = {name: p for name, p in backbone.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in name and id(p) in inside for name, p in trained.items())
    kept = vars(backbone.inner).copy()
    with torch.no_grad():
        backbone.decode(inputs[0], backbone.encode(inputs[0]))
    assert all(value is kept[name] for name, value in vars(backbone.inner).items()), (
        "a call leaves something behind"
    )
    step_is_pefts(backbone, official, equality.examples(2, equality.SEVERAL))


def step_is_pefts(backbone, official, asked):
    """One step of AdamW on the answers' loss, from features kept one by one, against peft on the model itself."""
    wanted = adapted_by_peft(backbone, official)
    answer = [*backbone.tokenise(ANSWER), backbone.end_token_id]
    examples = []
    for one in asked:
        prepared = backbone.prepare(*one)
        with torch.no_grad():
            features = backbone.encode(backbone.stack([prepared]))
        kept = {key: value for key, value in prepared.items() if key not in backbone.encoder_inputs}
        examples.append({**kept, "features": features, "answer_ids": torch.tensor(answer)})
    backbone.train(True)
    loss = backbone(backbone.stack(examples), torch.full((len(asked),), -1)).loss.mean()
    theirs = sum(official_loss(official, one, answer) for one in asked) / len(asked)
    assert float(loss) == pytest.approx(float(theirs), abs=1e-5)
    for total, parameters in ((loss, backbone.part("lora")), (theirs, wanted.values())):
        optimizer = torch.optim.AdamW(parameters, lr=1e-3)
        total.backward()
        optimizer.step()
    ours = {name: p for name, p in backbone.named_parameters() if "lora_" in name}
    norm = max(float(p.grad.norm()) for p in wanted.values())
    assert norm > 1e-4
    for name, parameter in ours.items():
        assert (parameter.grad - wanted[name].grad).norm() < 1e-3 * norm, name
        # AdamW's first step is as long for a gradient of rounding errors as for any other.
        felt = wanted[name].grad.abs() > 1e-3 * norm / parameter.numel() ** 0.5
        torch.testing.assert_close(parameter[felt], wanted[name][felt], atol=2e-5, rtol=0)


def adapted_by_peft(backbone, official):
    """Let peft adapt the official model's language model, starting where fairbench's adapters are moved to."""
    generator = torch.Generator().manual_seed(0)
    targets = r".*(language_model|text_model)\..*(q_proj|k_proj|v_proj|o_proj)"
    config = peft.LoraConfig(r=backbone.rank, lora_alpha=backbone.alpha, target_modules=targets)
    model = peft.get_peft_model(official.model, config)
    theirs = {
        "model." + n.removeprefix("base_model.model."): p for n, p in model.named_parameters() if "lora_" in n
    }
    for name, parameter in backbone.named_parameters():
        if "lora_" in name:
            drawn = torch.randn(parameter.shape, generator=generator) * 0.05
            parameter.data.copy_(drawn)
            theirs[name].data.copy_(drawn)
    assert {name for name, _ in backbone.named_parameters() if "lora_" in name} == set(theirs)
    return theirs


def official_loss(official, one, answer):
    """Return the mean loss of an answer's tokens after the official inputs of one example."""
    made = {key: value for key, value in official.batch([one], "right").items() if key != "labels"}
    more = torch.tensor([answer])
    made["input_ids"] = torch.cat([made["input_ids"], more], 1)
    made["attention_mask"] = torch.cat([made["attention_mask"], torch.ones_like(more)], 1)
    for key in made:
        if key.endswith("token_type_ids"):
            kind = SUFFIX_TYPE.get(official.model.config.model_type, 0)
            made[key] = torch.cat([made[key], torch.full_like(more, kind)], 1)
    logits = official.model(**made).logits[0, -len(answer) - 1 : -1]
    return torch.nn.functional.cross_entropy(logits, more[0])


@pytest.mark.parametrize("kind", ["qwen3_vl", "gemma4", "paligemma", "llava_onevision"])
def test_classes_are_read_from_the_last_token_whatever_the_padding(kind, tmp_path):
    folder = architectures.save(HELD[kind], tmp_path / "drawn")
    backbone = make(folder).build(("no", "yes"), ("no", "yes"), torch.float32, torch.device("cpu"))
    examples = [backbone.prepare(*one) for one in equality.examples(4, equality.SEVERAL)]
    with torch.no_grad():
        scores = backbone(backbone.stack(examples), torch.tensor([0, 1, 1, -1])).scores
        for example, score in zip(examples, scores, strict=True):
            alone = backbone.stack([example])
            hidden = backbone.decode(alone, backbone.encode(alone))[-1][:, -1]
            torch.testing.assert_close(backbone.head(hidden)[0], score, atol=1e-4, rtol=1e-4)


def test_every_architecture_of_transformers_is_held_refused_or_untried():
    """A new version of transformers shows up here; docs/backbones.md names every one of them."""
    known = dict.fromkeys(HELD, "held")
    known |= dict.fromkeys(architectures.TORCHVISION, "torchvision")
    known |= dict.fromkeys(architectures.UNTRIED, "untried")
    refused = {kind for kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES if unsupported({"model_type": kind})}
    assert not refused & set(known)
    assert refused | set(known) == set(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
    page = (ROOT / "docs" / "backbones.md").read_text()
    missing = [kind for kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES if f"`{kind}`" not in page]
    assert not missing


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "mllama"}, ["of type mllama", "cross-attention"]),
        ({"model_type": "florence2"}, ["of type florence2", "encoder-decoder"]),
        (
            {"model_type": "blip-2", "text_config": {"is_encoder_decoder": True}},
            ["of type blip-2", "encoder-decoder"],
        ),
        ({"model_type": "bert"}, ["of type bert", "no model of images and text"]),
        (
            {"model_type": "my_vlm", "auto_map": {"AutoModel": "modeling_my_vlm.MyModel"}},
            ["of type my_vlm", "code that a checkpoint brings is never run"],
        ),
    ],
)
def test_what_cannot_be_held_is_refused_by_name_with_the_reason(tmp_path, config, words):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(FairbenchError) as caught:
        make(tmp_path).construct()
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_code_that_a_folder_brings_is_neither_run_nor_asked_for(tmp_path, monkeypatch):
    """Left alone, transformers asks on the terminal, and runs it for a `y`."""
    folder = architectures.save(HELD["llava"], tmp_path / "drawn")
    (folder / "evil.py").write_text("raise SystemExit('run')")
    declared = json.loads((folder / "preprocessor_config.json").read_text())
    declared |= {"image_processor_type": "Own", "auto_map": {"AutoImageProcessor": "evil.Own"}}
    (folder / "preprocessor_config.json").write_text(json.dumps(declared))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(FairbenchError, match="is code of the folder"):
        make(folder).build(("no", "yes"), ("no", "yes"), torch.float32, torch.device("cpu"))


@pytest.mark.parametrize("name", ["../elsewhere.safetensors", "/elsewhere.safetensors", 7, ""])
def test_an_index_names_files_beside_it_alone(tmp_path, name):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(FairbenchError, match="which is no file beside it"):
        weight_files(tmp_path)


def test_a_model_whose_features_are_not_what_its_forward_uses_is_refused(tmp_path, monkeypatch):
    """Each load is held against transformers: here one whose `get_image_features` is not what its forward takes."""
    folder = architectures.save(HELD["llava"], tmp_path / "drawn")
    backbone = make(folder)
    own = transformers.LlavaModel.get_image_features

    @functools.wraps(own)
    def other(self, *arguments, **options):
        output = own(self, *arguments, **options)
        if not any(frame.function == "forward" for frame in inspect.stack()):
            output.pooler_output = [piece * 1.5 for piece in output.pooler_output]
        return output

    monkeypatch.setattr(transformers.LlavaModel, "get_image_features", other)
    with pytest.raises(FairbenchError, match="a llava gives other logits than its own forward pass"):
        backbone.build(("no", "yes"), ("no", "yes"), torch.float32, torch.device("cpu"))


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for m in messages %}{{ m.role }}: <image>{% endfor %} ASSISTANT:", "leaves out the question"),
        ("{{ foo( }}", "cannot be filled"),
        ("{{ raise_exception('no images') }}", "cannot be filled: no images"),
    ],
)
def test_a_chat_template_that_loses_the_question_is_refused(tmp_path, template, words):
    folder = architectures.save(HELD["llava"], tmp_path / "drawn")
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(FairbenchError, match=words):
        make(folder).load(torch.float32)


def test_a_prompt_without_a_chat_template_needs_its_format(tmp_path):
    folder = architectures.save(HELD["llava"], tmp_path / "drawn")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(FairbenchError, match=re.escape("--set vlm:drawn.chat='<image>{prompt}'")):
        make(folder).load(torch.float32)
    with pytest.raises(FairbenchError, match=r"does not hold \{prompt\}, where the question goes"):
        make(folder, chat="<image>")
    backbone = make(folder, chat="<image>{prompt} {a}!")
    backbone.load(torch.float32)
    ids = backbone.prepare(*equality.examples(1, equality.ONE)[0])["input_ids"]
    assert backbone.detokenise(ids) == "Glaucoma? {a}!", "other braces stay as they are"


def test_doctor_tries_out_a_checkpoint(tmp_path):
    folder = architectures.save(HELD["internvl"], tmp_path / "drawn")
    done = CliRunner().invoke(main, ["doctor", f"vlm:{folder}", "--set", "vlm:drawn.targets=q_proj,up_proj"])
    assert done.exit_code == 0, done.output
    lines = {line[:30].strip(): line[30:].strip() for line in done.stdout.splitlines()}
    assert lines["backbone"] == "vlm:drawn"
    assert lines["difference from transformers"] == "0.0"
    assert lines["LoRA"] == "q_proj, up_proj of 3 layers"
    assert lines["tokens"].endswith("20 are image")  # a thumbnail and 2 × 2 tiles of 4 tokens each
    assert str(tmp_path) not in done.stdout
    refused = CliRunner().invoke(main, ["doctor", f"vlm:{folder}", "--set", "vlm.rank=4"])
    assert refused.exit_code == 2
    assert "expected vlm:drawn.KEY=VALUE" in refused.stderr


def test_pixels_are_pils_unless_torchvision_is_asked_for_and_there(tmp_path):
    folder = equality.save(equality.architecture(HELD["llava"]), tmp_path / "drawn")
    for settings in ({}, {"pixels": "pil"}):
        backbone = make(folder, **settings)
        backbone.load(torch.float32)
        assert backbone.facts["image processor"] == "CLIPImageProcessorPil"
    if importlib.util.find_spec("torchvision") is None:
        with pytest.raises(FairbenchError, match="pixels = torchvision needs torchvision, which is not installed"):
            make(folder, pixels="torchvision").load(torch.float32)
