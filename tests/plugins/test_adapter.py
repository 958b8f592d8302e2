"""An adapter trained by plain peft is what peft makes of it, as a row beside the others."""

import importlib
import json
import sys
from pathlib import Path

import peft
import pytest
import torch
import transformers
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from served import transformers_serve

from fairbench import FairbenchError, Store, plugins
from fairbench.cli.main import main
from fairbench.jobs.job import Choice
from fairbench.models.adapter import adopt, save, trained_on
from fairbench.publication.published import read_board

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
architectures, equality = (importlib.import_module(name) for name in ("architectures", "backbone_equality"))
PLUGINS = plugins.load(("backbone",))
DRAWN = next(case for case in architectures.ARCHITECTURES if case.kind == "qwen3_vl")
LANGUAGE = r".*language_model.*\.(q_proj|v_proj)"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return architectures.save(DRAWN, tmp_path_factory.mktemp("base") / "base")


def adapted(base, whole=True, **options):
    """Let plain peft adapt the whole model, or its language model, as if it had trained there."""
    model = transformers.AutoModelForImageTextToText.from_pretrained(base).eval()
    config = peft.LoraConfig(**{"r": 4, "lora_alpha": 12, "target_modules": LANGUAGE, **options})
    if whole:
        adapter = model = peft.get_peft_model(model, config)
    else:
        config.target_modules = ["q_proj", "v_proj"]
        model.model.language_model = adapter = peft.get_peft_model(model.model.language_model, config)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = 0.1 * torch.randn_like(parameter)
    return model, adapter


def built(base, **settings):
    name = f"vlm:{base.name}"
    backbone = PLUGINS.make("backbone", Choice(name, {"readout": "words", **settings}), {name: base})
    return backbone.build(("no", "yes"), ("no", "yes"), torch.float32, CPU)


@pytest.mark.parametrize(
    ("whole", "options", "settings"),
    [
        (True, {}, {"rank": 4, "targets": ("q_proj", "v_proj")}),
        (True, {"use_rslora": True}, {"rank": 16}),  # a larger rank and more layers than the adapter's
        (False, {}, {"rank": 8, "alpha": 1.0}),
    ],
)
def test_an_adapter_is_what_peft_makes_of_it(base, tmp_path, whole, options, settings):
    model, adapter = adapted(base, whole, **options)
    adapter.save_pretrained(tmp_path)
    backbone, official = built(base, **settings), equality.Official(equality.architecture(DRAWN), base)
    backbone.reset(3)
    facts = adopt(backbone, tmp_path)
    assert facts["layers"] == 6
    assert facts["rank"] == 4
    asked = equality.examples(4, equality.SEVERAL)
    before = equality.compare(backbone, official, asked, "right")
    assert before.logits > 0.1, "the adapter changes something"
    official.model = model.eval()
    agreement = equality.compare(backbone, official, asked, "right")
    assert agreement.logits < 1e-4
    assert agreement.same_text


@pytest.mark.parametrize(
    ("options", "settings", "words"),
    [
        ({"use_dora": True}, {}, ["is DoRA", "NAME:FOLDER"]),
        ({"modules_to_save": ["lm_head"]}, {}, ["whole modules (['lm_head'])", "merged into its base"]),
        ({"init_lora_weights": "pissa"}, {}, ["began by changing its base", "= pissa", "merged into its base"]),
        ({"init_lora_weights": "olora"}, {}, ["began by changing its base"]),
        ({"r": 16}, {"rank": 8}, ["has rank 16", "--set vlm:base.rank=16"]),
        (
            {"target_modules": r".*language_model.*\.(q_proj|up_proj)"},
            {},
            ["3 layers that have no LoRA", "up_proj"],
        ),
        ({"target_modules": r".*visual.*\.proj"}, {}, ["not in the language model"]),
    ],
)
def test_what_cannot_be_expressed_is_refused(base, tmp_path, options, settings, words):
    adapted(base, **options)[1].save_pretrained(tmp_path)
    with pytest.raises(FairbenchError) as caught:
        adopt(built(base, **settings), tmp_path)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_heads_classes_are_those_that_it_was_trained_for_in_whatever_order(base, tmp_path):
    """Of data whose positive class is the other one, every answer was turned round without a word."""

    def headed(*classes):
        backbone = PLUGINS.make("backbone", Choice("vlm:base", {}), {"vlm:base": base})
        backbone.build(classes, classes, torch.float32, CPU)
        backbone.reset(len(classes[0]))
        return backbone

    mine = headed("no", "yes")
    save(mine, tmp_path)
    adopt(turned := headed("yes", "no"), tmp_path)
    assert torch.equal(turned.head.weight, mine.head.weight[[1, 0]])
    assert torch.equal(turned.head.bias, mine.head.bias[[1, 0]])
    with pytest.raises(FairbenchError, match=r"tells apart no, yes, and the data ill, well"):
        adopt(headed("ill", "well"), tmp_path)


def test_an_adapter_that_lost_weights_is_refused(base, tmp_path):
    adapted(base)[1].save_pretrained(tmp_path)
    file, backbone = tmp_path / "adapter_model.safetensors", built(base)
    whole = load_file(file)
    halves = {name: value for name, value in whole.items() if "lora_A" in name}
    for kept, words in ((halves, r"holds no .*q_proj\.lora_B\.weight"), ({}, "holds no weights")):
        save_file(kept, file)
        with pytest.raises(FairbenchError, match=words):
            adopt(backbone, tmp_path)


@pytest.mark.parametrize(
    ("weight", "config", "words"),
    [
        (lambda value: torch.full_like(value, torch.nan), {}, "12 weights that are not finite"),
        (lambda value: value[:0], {}, "have rank 0"),
        (lambda value: value.flatten(), {}, "have rank 0"),
        (lambda value: value, {"r": 8}, r"have rank 4, and its adapter_config.json says r = 8"),
        (lambda value: value, {"lora_alpha": "12"}, "lora_alpha is '12', which is no number"),
        (lambda value: value, {"peft_type": "OF_TOMORROW"}, "of type OF_TOMORROW"),
    ],
    ids=["not finite", "no rank", "no matrix", "another rank", "alpha", "type"],
)
def test_damaged_adapters_are_refused_as_a_row_and_as_a_backbone(base, tmp_path, weight, config, words):
    folder = tmp_path / "mine"
    adapted(base)[1].save_pretrained(folder)
    file, about = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    save_file({name: weight(value) for name, value in load_file(file).items()}, file)
    about.write_text(json.dumps({**json.loads(about.read_text()), **config}))
    with pytest.raises(FairbenchError, match=words):
        adopt(built(base), folder)
    with pytest.raises(FairbenchError):
        built(folder)


def test_a_head_that_does_not_list_its_classes_is_refused(base, tmp_path):
    backbone = PLUGINS.make("backbone", Choice("vlm:base", {}), {"vlm:base": base})
    backbone.build(("no", "yes"), ("no", "yes"), torch.float32, CPU)
    backbone.reset(0)
    save(backbone, tmp_path)
    save_file(load_file(tmp_path / "head.safetensors"), tmp_path / "head.safetensors", {"classes": "[no, yes"})
    with pytest.raises(FairbenchError, match=r"does not list its classes: '.no, yes'"):
        adopt(backbone, tmp_path)


@pytest.mark.parametrize(
    "options",
    [{}, {"use_dora": True}, {"modules_to_save": ["lm_head"]}, {"target_modules": r".*visual.*\.(qkv|proj)"}],
    ids=["LoRA", "DoRA", "a whole module", "of the vision tower"],
)
def test_an_adapters_folder_is_a_backbone_with_the_adapter_merged(base, tmp_path, options):
    model, adapter = adapted(base, **options)
    if "modules_to_save" in options:
        for name, parameter in model.named_parameters():
            if "modules_to_save" in name:
                parameter.data = parameter.data + 0.05 * torch.randn_like(parameter)
    folder = tmp_path / "mine"
    adapter.save_pretrained(folder)
    backbone, official = built(folder), equality.Official(equality.architecture(DRAWN), base)
    assert backbone.facts["merged adapter"]["base"] == "base"
    asked = equality.examples(4, equality.SEVERAL)
    assert equality.compare(backbone, official, asked, "right").logits > 0.1, "the adapter changes something"
    official.model = model.eval()
    assert equality.compare(backbone, official, asked, "right").logits < 2e-4
    plain = PLUGINS.make("backbone", Choice("vlm:base", {}), {"vlm:base": base})
    ours = PLUGINS.make("backbone", Choice("vlm:mine", {}), {"vlm:mine": folder})
    before = ours.fingerprint()
    assert before != plain.fingerprint()
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    name, value = tensors.popitem()
    save_file({**tensors, name: value + 1}, file)
    assert ours.fingerprint() != before
    save_file(tensors, file)
    with pytest.raises(FairbenchError, match="does not fit its base: 1 names differ"):
        built(folder)


def test_without_a_head_the_readout_is_words(base, tmp_path):
    adapted(base)[1].save_pretrained(tmp_path)
    with pytest.raises(FairbenchError, match=r"has no head\n?.*readout=words"):
        adopt(built(base, readout="head"), tmp_path)


def test_a_card_names_its_data(tmp_path):
    card = tmp_path / "README.md"
    assert trained_on(tmp_path) == ()
    card.write_text("---\nbase_model: a/b\ndatasets:\n- org/fundus-sim\n- other\nlicense: mit\n---\ntext")
    assert trained_on(tmp_path) == ("org/fundus-sim", "other")
    card.write_text("---\ndatasets: [one, two]\n---\n")
    assert trained_on(tmp_path) == ("one", "two")


@pytest.mark.slow
def test_an_adapter_is_a_row_beside_the_others(base, tmp_path):
    """From the command line, after a job that trains and before one that does not: neither inherits it."""
    folder = tmp_path / "elsewhere"
    adapted(base)[1].save_pretrained(folder)
    (folder / "README.md").write_text("---\ndatasets:\n- me/fundus-sim\n---\n")
    command = ["run", "--backbones", f"vlm:{base}", "--datasets", "fundus-sim", "--attr", "gender", "--no-controls"]
    command += ["--methods", f"zero-shot,adapter:{folder}", "--out", str(tmp_path / "runs"), "--workers", "1"]
    for setting in ("fundus-sim.limit=40", "lora.epochs=0.1", "vlm:base.readout=words", "run.precision=float32"):
        command += ["--set", setting]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    records = {record.job.method.name: record for record in Store(tmp_path / "runs").contents().records}
    assert set(records) == {"vanilla", "zero-shot", "adapter:elsewhere"}
    given = records["adapter:elsewhere"]
    assert given.steps == 0
    assert given.facts["adapter"] == {"base": "base", "rank": 4, "layers": 6, "trained on": ["me/fundus-sim"]}
    assert any("me/fundus-sim" in warning for warning in given.warnings)
    assert len(given.job.method.fingerprint) == 16
    assert str(tmp_path) not in json.dumps(given.job.to_json())
    assert "adapter:elsewhere" in done.stdout
    file = folder / "adapter_model.safetensors"
    tensors = {name: value + 1 for name, value in load_file(file).items()}
    save_file(tensors, file)
    CliRunner().invoke(main, command)
    keys = {record.job.key for record in Store(tmp_path / "runs").contents().records}
    assert len(keys) == 4, "another adapter in the same folder is another job"


@pytest.mark.slow
def test_an_adapter_and_a_served_model_are_rows_of_one_board(tmp_path):
    pytest.importorskip("uvicorn")
    llava = next(case for case in architectures.ARCHITECTURES if case.kind == "llava")
    base = architectures.save(llava, tmp_path / "base")
    folder = tmp_path / "elsewhere"
    adapted(base)[1].save_pretrained(folder)
    with transformers_serve(base, tmp_path / "log") as served:
        settings = {f"endpoint.{name}": value for name, value in {**served, "max_tokens": 4}.items()}
        settings |= {"fundus-sim.limit": 40, "lora.epochs": 0.1, "vlm:base.readout": "words"}
        command = ["run", "--backbones", f"vlm:{base}", "--datasets", "fundus-sim", "--attr", "gender"]
        command += ["--methods", f"vanilla,adapter:{folder},endpoint", "--out", str(tmp_path / "runs")]
        command += ["--no-controls", "--workers", "1", "--set", "run.precision=float32", "--name", "elsewhere"]
        command += [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
        done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    (table,) = read_board(tmp_path / "runs" / "elsewhere.json").tables
    labels = {row.label for row in table.rows}
    assert labels == {"vanilla", "adapter:elsewhere", f"endpoint(max_tokens=4, model={base})"}
    assert all(row.score.rows == table.rows_tested for row in table.rows)


def test_a_folder_without_an_adapter_is_refused(base, tmp_path):
    command = ["run", "--backbones", f"vlm:{base}", "--datasets", "fundus-sim", "--out", str(tmp_path / "runs")]
    for given, words in ((str(tmp_path), "holds no adapter"), (None, "where is adapter")):
        done = CliRunner().invoke(main, [*command, "--methods", f"adapter:{given}" if given else "adapter"])
        assert done.exit_code == 2
        assert words in done.stderr
