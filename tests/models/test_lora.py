"""The faster LoRA against PEFT's own: outputs, gradients, the share of dropout, and what no part reads."""

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from transformers import LlamaConfig, LlamaModel, Qwen2Config, Qwen2Model

from fairbench import FairbenchError
from fairbench.models.lora import dropped, last_token_only, share_inputs
from fairbench.testing import ToyBackbone

SHAPE = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
TARGETS = (["q_proj", "k_proj", "v_proj", "o_proj"], ["q_proj", "up_proj", "gate_proj"], ["down_proj"])


def decoder(kind, targets):
    torch.manual_seed(0)
    config, model = {"llama": (LlamaConfig, LlamaModel), "qwen": (Qwen2Config, Qwen2Model)}[kind]
    made = model(config(**SHAPE))
    made.requires_grad_(False)
    inject_adapter_in_model(LoraConfig(r=4, lora_alpha=8, lora_dropout=0.3, target_modules=targets), made)
    for name, parameter in made.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    return made


def outcome(model, embedded, mask):
    out = model(inputs_embeds=embedded, attention_mask=mask).last_hidden_state[:, -1]
    trained = [p for p in model.parameters() if p.requires_grad]
    return out.detach(), torch.autograd.grad(out.square().sum(), trained)


@pytest.mark.parametrize("kind", ["llama", "qwen"])
@pytest.mark.parametrize("targets", TARGETS)
@torch.no_grad()
def test_shared_inputs_give_what_peft_gives(kind, targets):
    model = decoder(kind, targets).eval().double()
    embedded, mask = torch.randn(3, 7, 32, dtype=torch.float64), torch.ones(3, 7, dtype=torch.long)
    mask[1, :3] = 0
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    with torch.enable_grad():
        out, gradients = outcome(model, embedded, mask)
        share_inputs(model)
        again, shared = outcome(model, embedded, mask)
        with last_token_only(model, mask):
            last, alone = outcome(model, embedded, mask)
    for mine, theirs in zip((again, *shared, last, *alone), 2 * (out, *gradients), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-10, rtol=1e-10)
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad or torch.equal(parameter, frozen[name])


def test_dropout_is_one_mask_for_layers_that_read_one_input():
    model = decoder("llama", ["q_proj", "k_proj", "v_proj"]).train()
    share_inputs(model)
    attention = model.layers[0].self_attn
    for layer in (attention.q_proj, attention.k_proj):
        layer.lora_A["default"].weight.data = torch.eye(4, 32)
        layer.lora_B["default"].weight.data.zero_()[:4] = torch.eye(4)
        layer.get_base_layer().weight.data.zero_()
    x = torch.ones(5, 6, 32)
    q, k = attention.q_proj(x)[..., :4], attention.k_proj(x)[..., :4]
    torch.testing.assert_close(q, k)
    assert sorted(q.unique().tolist()) == pytest.approx([0, 2 / 0.7], rel=1e-4)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_dropout_keeps_the_mean_and_drops_the_share(share):
    x = dropped(torch.ones(1001, 1000), share)
    spread = (share * (1 - share) / x.numel()) ** 0.5
    assert (x == 0).float().mean().item() == pytest.approx(share, abs=5 * spread + 1e-5)
    assert x.mean().item() == pytest.approx(1, abs=5 * spread / (1 - share) + 1e-4)


def test_dropout_of_nearly_all_is_finite_and_of_all_is_refused():
    assert dropped(torch.ones(9), 0.999999).isfinite().all()
    with pytest.raises(FairbenchError, match=r"dropout = 1\.0 must be at most 0\.99"):
        ToyBackbone(dropout=1.0)


def test_dropout_repeats_with_its_seed():
    drawn = []
    for _ in range(2):
        torch.manual_seed(3)
        drawn.append(dropped(torch.ones(9, 11), 0.4))
    assert torch.equal(*drawn)
