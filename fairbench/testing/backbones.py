"""What every backbone must do: checks whose names say what is promised."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fairbench.models.backbone import Backbone
from fairbench.models.batch import Inputs, States
from fairbench.testing import elsewhere

PROMPTS = ("Is it?", "Is there any sign of disease in this image?", "Well?")
SHAPES = ((64, 96), (96, 64), (50, 120))  # height, width
SIDES: tuple[Literal["left", "right"], ...] = ("left", "right")
LENGTH = 6  # tokens to write


def _ready(backbone: type[Backbone], generates: bool = False, **settings: Any) -> tuple[Backbone, list[Inputs]]:
    model = backbone(**settings).build(("no", "yes"), ("no", "yes"), torch.float32, torch.device("cpu"), generates)
    generator = np.random.default_rng(0)
    pictures = [Image.fromarray(generator.integers(0, 255, (*shape, 3), dtype=np.uint8)) for shape in SHAPES]
    return model, [model.prepare(p, q) for p, q in zip(pictures, PROMPTS, strict=True)]


def _unknown(examples: list[Inputs]) -> Tensor:
    return torch.full((len(examples),), -1)


def check_reads_image_and_prompt(backbone: type[Backbone]) -> None:
    """Another image, and another prompt, give other scores."""
    model, _ = _ready(backbone)
    generator = np.random.default_rng(1)
    pictures = [Image.fromarray(generator.integers(0, 255, (64, 96, 3), dtype=np.uint8)) for _ in range(2)]
    asked = [(pictures[0], PROMPTS[0]), (pictures[1], PROMPTS[0]), (pictures[0], PROMPTS[1])]
    examples = [model.prepare(picture, prompt) for picture, prompt in asked]
    with torch.no_grad():
        one, other, asked_else = (model(model.stack([e]), _unknown([e])).scores for e in examples)
    assert not torch.equal(one, other), "the scores of two images are the same: it does not see them"
    assert not torch.equal(one, asked_else), "the scores of two prompts are the same: it does not read them"


def check_fingerprint_names_the_weights(backbone: type[Backbone]) -> None:
    """Whatever was drawn before, and in another process, the same fingerprint means the same frozen weights."""
    known = elsewhere.identity(elsewhere.built(backbone))
    torch.manual_seed(5)
    assert elsewhere.identity(elsewhere.built(backbone)) == known, "built twice, it has other weights"
    assert elsewhere.frozen(backbone) == known, "another process builds other weights, or names them otherwise"


def check_computes_in_bfloat16(backbone: type[Backbone]) -> None:
    """In half the memory it still gives finite scores, near those of float32."""
    scores = []
    for dtype in (torch.float32, torch.bfloat16):
        model = elsewhere.built(backbone, dtype)
        model.reset(0)
        example = model.prepare(Image.new("RGB", (64, 64), (90, 120, 30)), PROMPTS[0])
        with torch.no_grad(), model.precision(torch.device("cpu")):
            scores.append(model(model.stack([example]), _unknown([example])).scores.float())
    assert scores[1].isfinite().all(), "its scores in bfloat16 are not finite"
    assert torch.allclose(scores[0], scores[1], atol=0.1 + 0.05 * float(scores[0].abs().max())), (
        "bfloat16 gives other scores"
    )


def check_padding_changes_nothing(backbone: type[Backbone]) -> None:
    """Scores and pooled states are the same alone, in a batch, padded left or right."""
    model, examples = _ready(backbone)
    reads = States(depths=(0.0, 0.5, 1.0), tokens="text")
    with torch.no_grad():
        alone = [model(model.stack([example]), _unknown([example]), reads) for example in examples]
        for side in SIDES:
            model.padding_side = side
            together = model(model.stack(examples), _unknown(examples), reads)
            for i, one in enumerate(alone):
                for what in ("scores", "states"):
                    same = torch.allclose(getattr(together, what)[i], getattr(one, what)[0], atol=1e-4)
                    assert same, f"padding {side} changes {what}"


def check_seeing_once_is_enough(backbone: type[Backbone]) -> None:
    """Cached features give what the image gives, and hold one row per image token."""
    model, examples = _ready(backbone)
    inputs = model.stack(examples)
    with torch.no_grad():
        features = model.encode(inputs)
        direct = model(inputs, _unknown(examples)).scores
        for key in model.encoder_inputs:
            inputs.pop(key, None)
        cached = model({**inputs, "features": features}, _unknown(examples)).scores
    count = int((inputs["input_ids"] == model.image_token_id).sum())
    assert len(features) == count, f"{len(features)} features for {count} image tokens"
    assert torch.equal(direct, cached), "cached features give other scores than the image"


def check_features_are_each_images_own(backbone: type[Backbone]) -> None:
    """`encode` gives a batch's images in their order, whatever their sizes, and nothing trained takes part."""
    model, examples = _ready(backbone)
    with torch.no_grad():
        alone = torch.cat([model.encode(model.stack([example])) for example in examples])
        together = model.encode(model.stack(examples))
        for parameter in model.trainable().values():
            parameter.add_(1.0)
        after = model.encode(model.stack(examples))
    assert torch.allclose(alone, together, atol=1e-4), "an image's features depend on the others in its batch"
    assert torch.equal(after, together), "features depend on what is trained, so they cannot be cached"


def check_image_tokens_carry_the_image(backbone: type[Backbone]) -> None:
    """Features reach the embeddings of image tokens and no others, of which each example has some and some not."""
    model, examples = _ready(backbone)
    for side in SIDES:
        model.padding_side = side
        inputs = model.stack(examples)
        image = inputs["input_ids"] == model.image_token_id
        real = inputs["attention_mask"].bool()
        with torch.no_grad():
            features = model.encode(inputs)
            first, second = model.embed(inputs, features), model.embed(inputs, -features)
            words = model.language_model.get_input_embeddings()(inputs["input_ids"])  # type: ignore[operator]
        changed = (first != second).any(-1)
        assert not (changed & ~image).any(), "features reach tokens that are no image tokens"
        assert (changed & image).any(1).all(), "an example's image tokens do not depend on its image"
        assert torch.equal(first[~image], words[~image]), "tokens of text are not embedded as themselves"
        assert (real & ~image).any(1).all(), "an example has no tokens of text"
        assert not (image & ~real).any(), "padding counts as image"


def check_states_are_where_they_say(backbone: type[Backbone]) -> None:
    """Depth 0 is the embeddings, depth 1 what the readout reads, and in between is each layer's own output."""
    model, examples = _ready(backbone)
    inputs = model.stack(examples)
    inputs["token_draw"] = torch.full((len(examples),), 0.9999)  # the last of the tokens, which is the readout's
    outputs: dict[int, Tensor] = {}
    with torch.no_grad():
        features = model.features(inputs)
        embedded = model.embed(inputs, features)
        for i, layer in enumerate(_layers(model)):
            layer.register_forward_hook(lambda _, __, out, i=i: outputs.update({i: _first(out)}))
        hidden = model.decode(inputs, features, every=True)
        last = States(depths=(1.0,), tokens="all", pool="random-token")
        out = model(inputs, _unknown(examples), last)
        pooled = {
            tokens: model(inputs, _unknown(examples), States(depths=(0.0,), tokens=tokens)).states
            for tokens in ("image", "text")
        }
        read = model.head(out.states[:, 0])  # type: ignore[misc]
    assert len(hidden) == model.depth + 1, f"{len(hidden)} hidden states of {model.depth} layers"
    assert torch.equal(hidden[0], embedded), "the first hidden state is not the embeddings"
    for i in range(model.depth - 1):
        assert torch.equal(hidden[i + 1], outputs[i]), f"hidden state {i + 1} is not what layer {i} gives"
    assert torch.allclose(read, out.scores, atol=1e-5), "depth 1 is not the state that the readout reads"
    image = inputs["input_ids"] == model.image_token_id
    masks = {"image": image, "text": inputs["attention_mask"].bool() & ~image}
    for tokens, states in pooled.items():
        for i, mask in enumerate(masks[tokens]):
            assert torch.allclose(states[i, 0], embedded[i, mask].mean(0), atol=1e-5), (
                f"{tokens} tokens are mistaken"
            )


def _layers(model: Backbone) -> nn.ModuleList:
    """Return the decoder's layers: the one list of modules that is as long as the decoder is deep."""
    lists = [m for m in model.language_model.modules() if isinstance(m, nn.ModuleList) and len(m) == model.depth]
    assert lists, f"no list of {model.depth} layers in the language model"
    return lists[0]


def _first(out: Any) -> Tensor:
    tensor: Tensor = out[0] if isinstance(out, tuple) else out
    return tensor


def check_only_the_language_model_is_adapted(backbone: type[Backbone]) -> None:
    """LoRA sits in the language model and nowhere else, and everything else is frozen."""
    model, _ = _ready(backbone)
    inside = {id(p) for p in model.language_model.parameters()}
    lora = [p for name, p in model.named_parameters() if "lora_" in name]
    assert lora, "there is no LoRA"
    assert all(id(p) in inside for p in lora), "LoRA sits outside the language model"
    trained = {id(p) for p in model.trainable().values()}
    free = [name for name, p in model.named_parameters() if p.requires_grad != (id(p) in trained)]
    assert not free, f"{free[0]} is trained without being among what is trainable, or the reverse"


def check_reset_forgets(backbone: type[Backbone]) -> None:
    """`reset` makes a used model equal to a new one with the same seed, and seeds differ."""
    model, _ = _ready(backbone)
    model.reset(1)
    first = {name: p.detach().clone() for name, p in model.trainable().items()}
    with torch.no_grad():
        for parameter in model.trainable().values():
            parameter.add_(1.0)
    model.reset(1)
    assert all(torch.equal(p, first[name]) for name, p in model.trainable().items()), "a reset does not forget"
    model.reset(2)
    assert any(not torch.equal(p, first[name]) for name, p in model.trainable().items()), "seeds make no difference"


def check_words_read_the_vocabulary(backbone: type[Backbone]) -> None:
    """The readout `words` is the vocabulary's logits of the words' first tokens, after the last real token."""
    model, examples = _ready(backbone, readout="words")
    assert model.part("head") == [], "with the readout `words` it still has a head to train"
    first = [model.tokenise(word)[0] for word in ("no", "yes")]
    with torch.no_grad():
        for side in SIDES:
            model.padding_side = side
            scores = model(model.stack(examples), _unknown(examples)).scores
            assert scores.shape == (len(examples), 2), f"scores of two words have the shape {tuple(scores.shape)}"
            for i, example in enumerate(examples):
                alone = model.stack([example])
                hidden = model.decode(alone, model.features(alone))[-1]
                wanted = model.vocabulary_scores(hidden[:, -1])[0, first]
                assert torch.allclose(scores[i], wanted, atol=1e-4), f"padded {side}, the words' scores are others"


def check_writing_depends_on_the_example_alone(backbone: type[Backbone]) -> None:
    """An answer is what one greedy token after another gives, at any batch size and with any neighbours."""
    model, examples = _ready(backbone, generates=True)
    alone = [model.generate(model.stack([example], prompt_only=True), LENGTH)[0] for example in examples]
    for side in SIDES:
        model.padding_side = side
        assert model.generate(model.stack(examples, prompt_only=True), LENGTH) == alone, (
            "neighbours change an answer"
        )
        turned = model.generate(model.stack(examples[::-1], prompt_only=True), LENGTH)
        assert turned == alone[::-1], "the order of examples changes an answer"
    for example, text in zip(examples, alone, strict=True):
        assert _step_by_step(model, example) == text, "remembering earlier tokens changes an answer"


@torch.no_grad()
def _step_by_step(model: Backbone, example: Inputs) -> str:
    """Write one answer, reading everything anew for each token."""
    written: list[int] = []
    while len(written) < LENGTH:
        longer = {
            **example,
            "input_ids": torch.cat([example["input_ids"], torch.tensor(written, dtype=torch.long)]),
        }
        inputs = model.stack([longer])
        scores = model.vocabulary_scores(model.decode(inputs, model.features(inputs))[-1][:, -1])[0]
        scores[model.image_token_id] = -torch.inf
        written.append(int(scores.argmax()))
        if written[-1] == model.end_token_id:
            written.pop()
            break
    return model.detokenise(written).strip()


def check_text_survives_the_tokenizer(backbone: type[Backbone]) -> None:
    """What is tokenised reads the same again, and holds no special tokens."""
    model, _ = _ready(backbone)
    for text in ("no finding", "Größe 12.75 mm²"):
        ids = model.tokenise(text)
        assert model.detokenise(ids).strip() == text, f"{text!r} is read back as {model.detokenise(ids)!r}"
        special = {model.image_token_id, model.end_token_id} & set(ids)
        assert not special, f"tokenised text holds the special token {special}"


BACKBONE_CHECKS: tuple[Callable[[type[Backbone]], None], ...] = (
    check_reads_image_and_prompt,
    check_fingerprint_names_the_weights,
    check_computes_in_bfloat16,
    check_padding_changes_nothing,
    check_seeing_once_is_enough,
    check_features_are_each_images_own,
    check_image_tokens_carry_the_image,
    check_states_are_where_they_say,
    check_only_the_language_model_is_adapted,
    check_reset_forgets,
    check_words_read_the_vocabulary,
    check_writing_depends_on_the_example_alone,
    check_text_survives_the_tokenizer,
)
