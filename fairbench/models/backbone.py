"""The Backbone contract: a frozen vision-language model with a small trainable part.

A family of models (one plugin file) says how to construct, load, prepare and see; where transformers
implements it, `Family` says most of that. What all decoders share lives here: LoRA on the language
model only, image features among the tokens, readouts, hidden states.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from PIL import Image
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.nn import functional

from fairbench.errors import FairbenchError
from fairbench.jobs.job import PARTS, Stage
from fairbench.models.batch import Inputs, Outputs, States, last_token, text_positions
from fairbench.models.generation import before_end, greedy
from fairbench.models.lora import last_token_only, share_inputs
from fairbench.models.pooling import answered, pool
from fairbench.models.sharding import in_turn, shard
from fairbench.settings import Configurable, Count, Positive, Range

ALL_LINEAR = "all-linear"


class Backbone(Configurable, nn.Module):
    """A vision-language model whose weights stay frozen but for the parts that a stage trains."""

    recipe: ClassVar[tuple[Stage, ...]]  # the stages that a benchmark uses unless it states its own
    batch_size: ClassVar[int] = 8
    takes_several: ClassVar[bool] = False  # whether a row may show several images: `prepare_images`

    readout: Literal["head", "words"] = "head"
    rank: Count = 32
    alpha: Positive = 64.0
    dropout: Annotated[float, Range(0, 0.99)] = 0.05  # of all, nothing would be left to scale up
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    checkpointing: bool = False

    # ── what a family says ──────────────────────────────────────────────────────────────────────

    @abstractmethod
    def construct(self) -> None:
        """Set `model` from the configuration alone (maybe on `meta`)."""

    @abstractmethod
    def load(self, dtype: torch.dtype) -> None:
        """Like `construct`, with the real weights in `dtype`, and set the three `…_token_id`.

        Raises FairbenchError when the weights are absent.
        """

    def load_preprocessing(self) -> None:
        """Load what `prepare` and `tokenise` need: everything, unless a family can do with less."""
        self.load(torch.float32)

    @abstractmethod
    def fingerprint(self) -> str:
        """Hash what identifies weights, processor and configuration, without loading them."""

    @property
    @abstractmethod
    def language_model(self) -> nn.Module:
        """The decoder: gets LoRA, takes `inputs_embeds`."""

    @abstractmethod
    def tokenise(self, text: str) -> list[int]:
        """Return a text's token ids, without special tokens."""

    @abstractmethod
    def detokenise(self, ids: Sequence[int]) -> str:
        """Return the text of some token ids, without special tokens."""

    @abstractmethod
    def prepare(self, image: Image.Image, prompt: str) -> Inputs:
        """Turn one example into tensors on a CPU worker: `input_ids` (T,) and image tensors to concatenate."""

    def prepare_images(self, images: Sequence[Image.Image], prompt: str) -> Inputs:
        """Turn one example of one or several images into tensors; a family that takes several overrides it."""
        if len(images) != 1:
            raise FairbenchError(
                f"{self.alias} takes one image a row, and here are {len(images)}",
                "choose a backbone that takes several (docs/backbones.md), or one image a row",
            )
        return self.prepare(images[0], prompt)

    def try_images(self, count: int) -> None:
        """See, once loaded, that it takes as many images a row as a dataset has; raises FairbenchError if not."""
        self.prepare_images([Image.new("RGB", (64, 64))] * count, "")

    @abstractmethod
    def encode(self, inputs: Inputs) -> Tensor:
        """Return frozen vision features, one row per image token of the batch; nothing in here is trained."""

    @abstractmethod
    def vocabulary_scores(self, hidden: Tensor) -> Tensor:
        """Map (B, D) final hidden states to (B, vocabulary) logits."""

    @property
    def encoder_inputs(self) -> tuple[str, ...]:
        """What of `prepare` nothing but `encode` needs, so that features take its place."""
        return ("pixel_values",)

    @property
    def end_token_ids(self) -> frozenset[int]:
        """Every token that ends an answer."""
        return frozenset([self.end_token_id])

    @property
    @abstractmethod
    def tokens(self) -> int:
        """About how many tokens one example takes, for estimates of cost."""

    def positions(self, inputs: Inputs) -> Tensor:
        """Return where each token stands, (…, B, T), as the language model wants it; padding shifts nothing."""
        return text_positions(inputs["attention_mask"])

    def weight_bytes(self, width: float) -> float:
        """Return the bytes of an average frozen weight, where a number takes `width`; fewer when quantised."""
        return width

    def projector(self) -> nn.Module | None:
        """The module between vision and language, where it may be trained."""
        return None

    def vision_tail(self) -> nn.Module | None:
        """The last part of the vision tower, where it may be trained; `encode` then ends before it."""
        return None

    def project(self, inputs: Inputs, features: Tensor) -> Tensor:
        """Turn features into (image tokens, D) pseudo-words: by the projector, where there is one."""
        projector = self.projector()
        if projector is None:
            return features
        projected: Tensor = projector(features.to(next(projector.parameters()).dtype))
        return projected

    def summary(self, features: Tensor) -> Tensor:
        """Return what a linear probe reads of one image's features: mean and largest, (its tokens, F) → (2 F,)."""
        return torch.cat([features.mean(0), features.amax(0)])

    # ── what all families share ──────────────────────────────────────────────────────────────────

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.model: Any = None  # the nn.Module that `construct` or `load` sets
        self.image_token_id: int
        self.pad_token_id: int
        self.end_token_id: int  # what an answer is taught to end with
        self.generates = False  # whether answers are written as text
        self.dtype = torch.float32
        self.padding_side: Literal["right", "left"] = "right"
        self.head: nn.Linear | None = None
        self.word_ids: list[int] = []
        self.classes: tuple[str, ...] = ()
        self.mesh: DeviceMesh | None = None  # the processes that hold a part of the frozen weights each
        self.facts: dict[str, Any] = {}  # what loading found out, for the record

    @property
    def width(self) -> int:
        """Hidden size of the language model."""
        return int(self.language_model.config.hidden_size)  # type: ignore[union-attr, arg-type]

    @property
    def depth(self) -> int:
        """Number of decoder layers."""
        return int(self.language_model.config.num_hidden_layers)  # type: ignore[union-attr, arg-type]

    def build(
        self,
        classes: Sequence[str],
        words: Sequence[str],
        dtype: torch.dtype,
        device: torch.device,
        generates: bool = False,
    ) -> Backbone:
        """Load the weights in `dtype`, add what is trained for these classes (in float32), and move to `device`.

        A backbone that `generates` answers in words and has no readout of classes. One with a `mesh` is divided
        over its processes, which build it together.
        """
        self.dtype = dtype

        def load() -> None:
            self.load(dtype)
            self.attach(classes, words, generates)
            if self.mesh is not None:
                shard(self.language_model, self.depth, self.trainable().values(), self.mesh)
            self.to(device)

        in_turn(self.mesh, load)
        share_inputs(self.language_model, stacked=self.mesh is None)
        return self

    def attach(self, classes: Sequence[str], words: Sequence[str], generates: bool = False) -> None:
        """Freeze everything, then add LoRA and the readout for these classes, or none where it `generates`."""
        from peft import LoraConfig, inject_adapter_in_model

        self.requires_grad_(False)
        self.lora_config = LoraConfig(
            r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout, target_modules=self.lora_targets()
        )
        inject_adapter_in_model(self.lora_config, self.language_model)
        for part in ("lora", "projector", "vision"):
            for parameter in self.part(part):
                parameter.data = parameter.data.float()
        if self.checkpointing:
            # Reentrant checkpointing gives no gradient and no error where only inputs are asked for.
            self.language_model.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
        self.generates, self.classes = generates, tuple(classes)
        if generates:
            pass
        elif self.readout == "head":
            self.head = nn.Linear(self.width, len(classes))
        else:
            self.word_ids = [self.tokenise(word)[0] for word in words]
            if len(set(self.word_ids)) < len(words):
                raise FairbenchError(
                    f"{self.alias}: the words {list(words)} share a first token, so the readout `words` cannot "
                    "tell them apart",
                    "give the dataset other words, or use readout `head`",
                )
        self._start = {
            name: {key: value.clone() for key, value in module.state_dict().items()}
            for name, module in self.trained_modules().items()
            if name != "head"
        }
        for parameter in self.trainable().values():
            parameter.requires_grad_(True)
        self.train(False)

    def lora_targets(self) -> list[str]:
        """Return what gets LoRA: `targets`, each of which must be there, or every linear layer for `all-linear`.

        Raises FairbenchError for a target that matches nothing, which peft would pass over beside one that does.
        """
        linear = [name for name, module in self.language_model.named_modules() if isinstance(module, nn.Linear)]
        if self.targets == (ALL_LINEAR,):
            return linear
        names = [name for name, _ in self.language_model.named_modules()]
        for target in self.targets:
            if not any(name == target or name.endswith(f".{target}") for name in names):
                there = sorted({name.rpartition(".")[2] for name in linear if not name[-1].isdigit()})
                raise FairbenchError(
                    f"{self.alias}.targets: the language model has no layer `{target}`",
                    f"its linear layers are {', '.join(there)}; `{ALL_LINEAR}` takes them all",
                )
        return list(self.targets)

    def reset(self, seed: int) -> None:
        """Put every trainable part back to its start, drawn from `seed` where it is random."""
        from peft.tuners.lora import LoraLayer

        device = next(self.parameters()).device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            for module in self.language_model.modules():
                if isinstance(module, LoraLayer):
                    module.reset_lora_parameters("default", True)
            if self.head is not None:
                self.head.reset_parameters()
            self.reset_modules()

    def reset_modules(self) -> None:
        """Put projector and vision tail back to their loaded weights; a family whose projector starts random
        draws it anew.
        """
        for name, module in self.trained_modules().items():
            if name in self._start:
                module.load_state_dict(self._start[name])

    def trained_modules(self) -> dict[str, nn.Module]:
        """Return what a stage may train besides LoRA, by the name of its part, where this backbone has it."""
        offered = {"head": self.head, "projector": self.projector(), "vision": self.vision_tail()}
        return {name: module for name, module in offered.items() if module is not None}

    def part(self, name: str) -> list[nn.Parameter]:
        """Return the parameters of one of PARTS, none where this backbone lacks it."""
        if name not in PARTS:
            raise FairbenchError(f"no part of a backbone is called `{name}`", f"there is: {', '.join(PARTS)}")
        if name == "lora":
            return [p for n, p in self.language_model.named_parameters() if "lora_" in n]
        modules = self.trained_modules()
        return list(modules[name].parameters()) if name in modules else []

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return every parameter that some stage may train, by name."""
        ids = {id(p) for part in PARTS for p in self.part(part)}
        return {name: p for name, p in self.named_parameters() if id(p) in ids}

    def train(self, mode: bool = True) -> Backbone:
        """Switch the language model's dropout; vision stays in evaluation mode, whatever its norms."""
        super().train(False)
        if self.model is not None:
            self.language_model.train(mode)
        return self

    def stack(self, examples: Sequence[Mapping[str, Tensor]], prompt_only: bool = False) -> Inputs:
        """Pad the examples' tokens to the longest on `padding_side` and concatenate everything else.

        An answer to learn follows its prompt and is marked in `answer_mask`. `prompt_only` leaves answers out and
        pads on the left, so that every example goes on at the same place.
        """
        answers = [() if prompt_only else example.get("answer_ids", ()) for example in examples]
        lengths = [len(e["input_ids"]) + len(answer) for e, answer in zip(examples, answers, strict=True)]
        shape = (len(examples), max(lengths))
        ids = torch.full(shape, self.pad_token_id)
        mask, answered = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.bool)
        for i, (example, answer, n) in enumerate(zip(examples, answers, lengths, strict=True)):
            left = prompt_only or self.padding_side == "left"
            where = slice(shape[1] - n, None) if left else slice(0, n)
            ids[i, where] = torch.cat([example["input_ids"], torch.as_tensor(answer, dtype=torch.long)])
            mask[i, where] = 1
            answered[i, where][n - len(answer) :] = True
        rest = {k: torch.cat([e[k] for e in examples]) for k in examples[0] if k not in ("input_ids", "answer_ids")}
        return {
            "input_ids": ids,
            "attention_mask": mask,
            **({"answer_mask": answered} if answered.any() else {}),
            **rest,
        }

    def forward(self, inputs: Inputs, target: Tensor, reads: States | None = None) -> Outputs:
        """Score every example's classes, or its answer where it `generates`."""
        everywhere = self.generates or self.checkpointing or reads is not None
        alone = None if everywhere else inputs["attention_mask"]
        with self.precision(target.device), last_token_only(self.language_model, alone):
            hidden = self.decode(inputs, self.features(inputs), every=reads is not None)
        states = None if reads is None else self.pooled(hidden, inputs, reads)
        if self.generates:
            return Outputs(*answered(hidden[-1], inputs, self.vocabulary_scores), states)
        last = last_token(hidden[-1], inputs["attention_mask"])
        if self.head is not None:
            scores = self.head(last.to(self.head.weight.dtype))
        else:
            scores = self.vocabulary_scores(last)[:, self.word_ids].float()
        known = target >= 0
        loss = functional.cross_entropy(scores, target.clamp_min(0), reduction="none")
        p_true = scores.softmax(-1).gather(1, target.clamp_min(0)[:, None]).squeeze(1)
        return Outputs(loss.where(known, 0.0), p_true.where(known, 0.0), scores, states)

    def precision(self, device: torch.device) -> torch.autocast:
        """Return the context that computes in the backbone's number format."""
        return torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32)

    def features(self, inputs: Inputs) -> Tensor:
        """Return what is seen, from `inputs["features"]` where it was seen before."""
        if "features" in inputs:
            return inputs["features"]
        with torch.no_grad():
            return self.encode(inputs)

    def embed(self, inputs: Inputs, features: Tensor) -> Tensor:
        """Embed the tokens, (B, T, D), with the image's pseudo-words where its tokens stand."""
        ids = inputs["input_ids"]
        embedded: Tensor = self.language_model.get_input_embeddings()(ids)  # type: ignore[operator]
        visual = self.project(inputs, features).to(embedded.dtype)
        return embedded.masked_scatter((ids == self.image_token_id)[..., None], visual)

    def decode(
        self, inputs: Inputs, features: Tensor, every: bool = False, cache: Any = None
    ) -> tuple[Tensor, ...]:
        """Run the language model: hidden states (B, T, D), all depth+1 of them if `every`, else the last only.

        A `cache` that has seen all but the newest token saves running the others again.
        """
        positions = self.positions(inputs)
        if cache is not None and cache.get_seq_length():
            embedded = self.language_model.get_input_embeddings()(inputs["input_ids"][:, -1:])  # type: ignore[operator]
            positions = positions[..., -1:]
        else:
            embedded = self.embed(inputs, features)
        out = self.language_model(
            inputs_embeds=embedded,
            attention_mask=inputs["attention_mask"],
            position_ids=positions,
            output_hidden_states=every,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        return tuple(out.hidden_states) if every else (out.last_hidden_state,)

    def continuations(self, inputs: Inputs, limit: int) -> list[list[int]]:
        """Return the tokens that follow prompts stacked `prompt_only`, greedily, up to an end token or `limit`."""
        return greedy(self, inputs, limit)

    def generate(self, inputs: Inputs, limit: int) -> list[str]:
        """Answer prompts that were stacked `prompt_only` with at most `limit` tokens each."""
        ends = self.end_token_ids
        return [self.detokenise(before_end(ids, ends)).strip() for ids in self.continuations(inputs, limit)]

    def pooled(self, hidden: tuple[Tensor, ...], inputs: Inputs, reads: States) -> Tensor:
        """Pool (depth+1) hidden states of (B, T, D) to (B, depths, D), as asked."""
        return pool(hidden, inputs, self.image_token_id, reads)
