"""Vision-language models of transformers: computed by the model's own code, from image features computed once.

The model's own `forward` places features, positions and masks; it is given what its own `get_image_features`
returned. `Pretrained` loads a checkpoint, `Tiny` draws one.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fairbench.errors import FairbenchError
from fairbench.models.backbone import Backbone
from fairbench.models.batch import Inputs
from fairbench.models.image_features import Form, flattened
from fairbench.models.remembered import Remembered
from fairbench.models.supported import architecture_of

TOKEN_TYPES = "token_type_ids"  # ends the name of what goes with each token
SHAPE = ".shape"  # ends the name of the tensor that holds each example's shape of another
QUESTION = "Is there a finding?"  # that a chat template is tried with
SUFFIX_TYPE = {"paligemma": 1}  # the token type of an answer, where it is not that of a question's text, 0
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 140, 3), dtype=np.uint8))
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1}  # of logits, in units of their standard deviation


class Family(Backbone):
    """A vision-language model of transformers, with its own processor and chat template."""

    architecture: ClassVar[Any] = None  # the `…ForConditionalGeneration`; None: whatever the configuration names
    shape: ClassVar[Mapping[str, Any]]  # of one size, for `config`
    takes_several: ClassVar[bool] = True
    format_setting: ClassVar[str] = ""  # the setting that gives a prompt's format where there is no chat template

    @abstractmethod
    def config(self) -> Any:
        """Return the configuration of this size, without reading a checkpoint."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.places = Remembered()
        self.encodes_batches = False  # whether images of one shape can be encoded together; `verify` finds out

    def template(self) -> str:
        """Return the prompt's format, with the image's token and `{prompt}`; empty: the chat template is used."""
        return ""

    def construct(self) -> None:
        """Build the architecture with whatever weights the current device context gives."""
        self.model = architecture_of(self.config())(self.config())

    def ready(self, processor: Any) -> None:
        """Take the processor, once the model is there."""
        self.processor, self.tokenizer = processor, processor.tokenizer
        config = self.model.config
        image = getattr(config, "image_token_id", None)
        self.image_token_id = config.image_token_index if image is None else image
        self.image: str = getattr(processor, "image_token", None) or self.tokenizer.decode([self.image_token_id])
        self.end_token_id = self.tokenizer.eos_token_id
        self.pad_token_id = self.tokenizer.pad_token_id or 0
        if self.image_token_id not in self.tokenizer.added_tokens_decoder or self.end_token_id is None:
            raise FairbenchError(
                f"{self.alias}: the tokenizer has no special token {self.image_token_id} for images, or no end",
                "the tokenizer in the folder belongs to another checkpoint; copy this one's own",
            )
        if not (self.template() or processor.chat_template):
            setting = self.format_setting
            raise FairbenchError(
                f"{self.alias}: the folder has no chat template",
                "copy chat_template.jinja or tokenizer_config.json"
                + (f", or say --set {self.alias}.{setting}='{self.image}{{prompt}}'" if setting else ""),
            )
        if not self.template():
            self._hold_template()

    def _hold_template(self) -> None:
        """Refuse a chat template that cannot be filled, or that leaves out the question."""
        from jinja2 import TemplateError

        content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
        try:
            text = self.processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
            )
        except TemplateError as error:
            raise FairbenchError(
                f"{self.alias}: the folder's chat template cannot be filled: {error}", "copy the checkpoint's own"
            ) from error
        if QUESTION not in text:
            raise FairbenchError(
                f"{self.alias}: the folder's chat template leaves out the question", "copy the checkpoint's own"
            )

    def build(self, *arguments: Any, **options: Any) -> Backbone:
        """Load and attach as every backbone, and hold the result against transformers' own forward pass."""
        super().build(*arguments, **options)
        self.verify()
        return self

    @property
    def inner(self) -> Any:
        """The model without its language-model head."""
        return self.model.model

    @property
    def language_model(self) -> nn.Module:
        """The decoder."""
        decoder: nn.Module = self.model.get_decoder()
        return decoder

    @property
    def encoder_inputs(self) -> tuple[str, ...]:
        """The pixels, which only the vision tower looks at."""
        return ("pixel_values", "pixel_attention_mask")

    @property
    def end_token_ids(self) -> frozenset[int]:
        """The tokenizer's end token and those that the checkpoint's generation configuration lists."""
        listed = self.model.generation_config.eos_token_id
        also = [] if listed is None else [listed] if isinstance(listed, int) else listed
        return frozenset([self.end_token_id, *also])

    def tokenise(self, text: str) -> list[int]:
        """Return token ids, without special tokens of the tokenizer's own accord."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def detokenise(self, ids: Sequence[int]) -> str:
        """Return the text of token ids."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    # ── inputs ───────────────────────────────────────────────────────────────────────────────────

    def process(self, images: Sequence[Image.Image], prompt: str) -> dict[str, Tensor]:
        """Return what the processor makes of some images and a question about them, a batch of one."""
        if self.image in prompt or self.image_token_id in self.tokenise(prompt):
            raise FairbenchError(
                f"{self.alias}: a prompt must not hold {self.image}, which stands for the image",
                "leave it out of the question: fairbench puts the image there",
            )
        made: Mapping[str, Any]
        if self.template():
            text = self.template().replace(self.image, self.image * len(images)).replace("{prompt}", prompt)
            made = self.processor(text=[text], images=[list(images)], return_tensors="pt")
        else:
            content = [*({"type": "image", "image": image} for image in images), {"type": "text", "text": prompt}]
            made = self.processor.apply_chat_template(
                [{"role": "user", "content": content}],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
            )
        return {key: value for key, value in made.items() if isinstance(value, Tensor) and key != "labels"}

    def prepare(self, image: Image.Image, prompt: str) -> Inputs:
        """Process one example: `input_ids` (T,), and whatever else the processor makes, as a batch of one."""
        return self.prepare_images([image], prompt)

    def prepare_images(self, images: Sequence[Image.Image], prompt: str) -> Inputs:
        """Process one example of one or several images, which come before the question."""
        made = self.process(images, prompt)
        ids = made["input_ids"][0]
        example = {"input_ids": ids}
        for key, value in made.items():
            if key not in ("input_ids", "attention_mask"):
                example[key] = value
        return example

    def stack(self, examples: Sequence[Mapping[str, Tensor]], prompt_only: bool = False) -> Inputs:
        """Pad what goes with each token as the tokens are padded; flatten the rest, whose shapes may differ."""
        text = [{k: e[k] for k in ("input_ids", "answer_ids", "features") if k in e} for e in examples]
        inputs = super().stack(text, prompt_only)
        real = inputs["attention_mask"].bool()
        for key in examples[0]:
            values = [example[key] for example in examples]
            if key in ("input_ids", "answer_ids", "features"):
                continue
            if key.endswith(TOKEN_TYPES):
                padded = torch.zeros_like(inputs["input_ids"])
                for row, value in enumerate(values):
                    places = real[row].nonzero()[:, 0]
                    padded[row, places] = SUFFIX_TYPE.get(self.model.config.model_type, 0)
                    padded[row, places[: value.shape[1]]] = value[0]
                inputs[key] = padded
            else:
                inputs[key] = torch.cat([value.flatten() for value in values])
                inputs[key + SHAPE] = torch.tensor([value.shape for value in values])
        return inputs

    def each(self, inputs: Inputs, key: str) -> list[Tensor]:
        """Return one flattened input example by example."""
        shapes = inputs[key + SHAPE].tolist()
        parts = torch.split(inputs[key], [int(np.prod(shape)) for shape in shapes])
        return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]

    def arguments(self, inputs: Inputs, function: Any) -> dict[str, Tensor]:
        """Return those inputs beside the pixels that a function of the model names, over the whole batch."""
        chosen = {}
        for key in _named(function):
            if key not in inputs or key in self.encoder_inputs:
                continue
            if key + SHAPE not in inputs:
                chosen[key] = inputs[key]
            elif len({tuple(value.shape[1:]) for value in self.each(inputs, key)}) == 1:
                chosen[key] = torch.cat(self.each(inputs, key))
        return chosen

    # ── features ─────────────────────────────────────────────────────────────────────────────────

    def image_outputs(self, inputs: Inputs) -> Iterator[Any]:
        """Yield what `get_image_features` makes of each example, in order; of all at once where shapes agree."""
        named = inspect.signature(self.inner.get_image_features).parameters
        keys = [key for key in named if key + SHAPE in inputs]
        values = {key: self.each(inputs, key) for key in keys}
        alike = all(len({value.shape for value in each}) == 1 for each in values.values())
        count = len(inputs["input_ids"])
        together = alike and self.encodes_batches
        for rows in [slice(None)] if together else [slice(row, row + 1) for row in range(count)]:
            given = {key: torch.cat(each[rows]) for key, each in values.items()}
            given = {k: v.to(self.model.dtype) if v.is_floating_point() else v for k, v in given.items()}
            yield self.inner.get_image_features(**given, return_dict=True)

    def encode(self, inputs: Inputs) -> Tensor:
        """Return the model's own image features, and beside each of them what goes into deeper layers."""
        return torch.cat([flattened(output) for output in self.image_outputs(inputs)])

    def image_output(self, inputs: Inputs, features: Tensor) -> Any:
        """Give features the form in which `get_image_features` returned them."""
        return self.form.restore(self.project(inputs, features))

    # ── the model's own forward pass ─────────────────────────────────────────────────────────────

    def decode(
        self, inputs: Inputs, features: Tensor, every: bool = False, cache: Any = None
    ) -> tuple[Tensor, ...]:
        """Run the model's own forward pass: hidden states (B, T, D), all depth+1 of them if `every`."""
        if cache is not None:
            raise NotImplementedError("transformers' own generate keeps its cache")
        with as_it_was(self.inner):
            if hasattr(self.inner, "get_rope_index"):  # Qwen's places in three dimensions: a loop over examples
                self.inner.get_rope_index = partial(self.places, self.inner.get_rope_index)
            out = self.inner(
                **self.arguments(inputs, type(self.inner).forward),
                mm_encoder_outputs={"image": self.image_output(inputs, features)},
                output_hidden_states=every,
                use_cache=False,
            )
        return tuple(out.hidden_states) if every else (out.last_hidden_state,)

    def embed(self, inputs: Inputs, features: Tensor) -> Tensor:
        """Return what the decoder starts from, (B, T, D)."""
        return self.decode(inputs, features, every=True)[0]

    def vocabulary_scores(self, hidden: Tensor) -> Tensor:
        """Apply the language-model head with all that the model does around it: scaling, soft caps."""
        head = self.model.get_output_embeddings()
        given = _Given(hidden.to(head.weight.dtype)[:, None])
        with replaced(self.inner, "forward", lambda *_, **__: given):
            scores: Tensor = self.model(
                input_ids=torch.zeros(len(hidden), 1, dtype=torch.long, device=hidden.device)
            ).logits
        return scores[:, 0]

    @torch.no_grad()
    def continuations(self, inputs: Inputs, limit: int) -> list[list[int]]:
        """Let transformers generate greedily, never an image's token."""
        from transformers import GenerationConfig

        how = GenerationConfig(
            max_new_tokens=limit,
            do_sample=False,
            eos_token_id=sorted(self.end_token_ids),
            pad_token_id=self.pad_token_id,
            suppress_tokens=[self.image_token_id],
        )
        features = self.features(inputs)
        with self.precision(features.device), as_it_was(self.inner):
            ids = self.model.generate(
                **self.arguments(inputs, type(self.model).forward),
                mm_encoder_outputs={"image": self.image_output(inputs, features)},
                generation_config=how,
                synced_gpus=self.mesh is not None,
            )
        written: list[list[int]] = ids[:, inputs["input_ids"].shape[1] :].tolist()
        return written

    @torch.no_grad()
    def try_images(self, count: int) -> None:
        """Compare an example of several images with transformers' own forward pass, as a load does one of one."""
        self.verify(count)

    @torch.no_grad()
    def verify(self, count: int = 1) -> None:
        """Compare one example's logits with transformers' own forward pass; raises FairbenchError if they differ.

        The difference, in units of the logits' standard deviation, goes into the record.
        """
        kind, device = self.model.config.model_type, next(self.model.parameters()).device
        pictures = "one picture" if count == 1 else f"{count} pictures at once"
        hint = "this architecture cannot be held; docs/backbones.md lists those that can"
        try:
            difference = self.difference(device, count)
        except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, NotImplementedError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise FairbenchError(f"{self.alias}: a {kind} cannot answer about {pictures}: {error}", hint) from error
        self.facts["difference from transformers"] = max(
            difference, self.facts.get("difference from transformers", 0.0)
        )
        if not difference <= TOLERANCE[self.dtype]:
            raise FairbenchError(
                f"{self.alias}: with image features computed once, a {kind} gives other logits than its own "
                f"forward pass (by {difference:.2g} of their standard deviation)",
                hint,
            )

    def can_encode_batches(self, example: Inputs, device: torch.device) -> bool:
        """Whether two pictures concatenated are encoded as each alone, which packed pixels (MiniCPM-V) are not."""
        one, two = (self.stack([example] * count) for count in (1, 2))
        alone = self.encode({key: value.to(device) for key, value in one.items()}).float()
        self.encodes_batches = True
        try:
            both = self.encode({key: value.to(device) for key, value in two.items()}).float()
        except (RuntimeError, ValueError, IndexError):
            return False
        finally:
            self.encodes_batches = False
        tolerance = float(alone.abs().max()) * TOLERANCE[self.dtype]
        return both.shape == (2 * len(alone), alone.shape[1]) and torch.allclose(
            both, torch.cat([alone, alone]), atol=tolerance, rtol=0
        )

    def difference(self, device: torch.device, count: int = 1) -> float:
        """Return the largest difference of logits about some pictures, in units of their standard deviation."""
        pictures = [PICTURE.rotate(90 * number, expand=True) for number in range(count)]
        made = {k: v.to(device) for k, v in self.process(pictures, "Is it?").items()}
        made = {k: v.to(self.model.dtype) if v.is_floating_point() else v for k, v in made.items()}
        example = self.prepare_images(pictures, "Is it?")
        inputs = {k: v.to(device) for k, v in self.stack([example]).items()}
        self.encodes_batches = self.can_encode_batches(example, device)
        with self.precision(device):
            self.form = Form(next(iter(self.image_outputs(inputs))))
            with as_it_was(self.inner):
                theirs = self.model(**made).logits[0].float()
            ours = self.vocabulary_scores(self.decode(inputs, self.encode(inputs))[-1][0]).float()
        return float((ours - theirs).abs().max() / theirs.std())


class _Given(dict[str, Any]):
    """Hidden states in the place of a model's output: nothing else is there."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__(last_hidden_state=hidden)

    def __getattr__(self, name: str) -> Any:
        return self.get(name)

    def __getitem__(self, key: Any) -> Any:
        return self.get("last_hidden_state") if key == 0 else self.get(key)


@cache
def _named(function: Any) -> tuple[str, ...]:
    """Name the arguments of a class's function; of a module's own the cache would hold the module."""
    return tuple(inspect.signature(function).parameters)


@contextmanager
def replaced(module: nn.Module, name: str, function: Any) -> Iterator[None]:
    """Let one module answer otherwise for a while."""
    setattr(module, name, function)
    try:
        yield
    finally:
        delattr(module, name)


@contextmanager
def as_it_was(module: nn.Module) -> Iterator[None]:
    """Take back what a module keeps of a forward pass, as Qwen its `rope_deltas`: no call knows of another."""
    before = dict(vars(module))
    try:
        yield
    finally:
        for name in [name for name in vars(module) if name not in before]:
            del vars(module)[name]
        vars(module).update(before)
