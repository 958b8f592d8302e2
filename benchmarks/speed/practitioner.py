"""What one writes without fairbench: a loop of transformers and PEFT that prepares and sees images at every step.

It logs, saves and evaluates nothing on the way, so that transformers' Trainer would take longer than it. It runs in
a process of its own, which is fairbench's in nothing, and takes a step when it is told to.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from transformers import get_linear_schedule_with_warmup

from fairbench import Backbone, Family, plugins

PACKAGES = ("torch", "transformers", "peft", "fairbench")
PROMPT = "Is there glaucoma?"
BATCH, ROWS = 16, 32  # of a step, and of a batch of answers


def shapes() -> dict[str, type[Backbone]]:
    """Return what can be measured: the quickstart's backbone, a tiny Qwen2.5-VL, and one of middle size.

    `middle` is tiny-llava at hidden width 512, with 8 layers and 256 image tokens.
    """
    backbones = plugins.load(["backbone"]).tables["backbone"]
    tiny = backbones["tiny-llava"]
    text = {"hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 8, "num_attention_heads": 8}
    vision = {"hidden_size": 192, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4}
    seen = {**vision, "image_size": 448, "patch_size": 28, "projection_dim": 64}
    shape = {"text": {**text, "vocab_size": 260}, "vision": seen, "image_token": 257}
    middle = type("MiddleLlava", (tiny,), {"name": "middle-llava", "shape": shape})
    return {"quickstart": tiny, "qwen": backbones["tiny-qwen2.5-vl"], "middle": middle}


def pictures(count: int = BATCH, side: int = 224) -> list[Image.Image]:
    """Return noise, in memory: what is in a picture takes no time."""
    drawn = np.random.default_rng(0).integers(0, 255, (count, side, side, 3), dtype=np.uint8)
    return [Image.fromarray(one) for one in drawn]


class Practitioner:
    """The model of a fairbench backbone, its own processor, PEFT's LoRA on the decoder, a linear head, AdamW."""

    def __init__(self, backbone: Family, classes: int, steps: int) -> None:
        """Load what `backbone` names anew: `backbone` is not built yet, and is used up."""
        backbone.load(torch.float32)
        self.model, self.processor = backbone.model, backbone.processor
        self.text = backbone.template() or None
        self.image = backbone.image
        self.model.requires_grad_(False)
        language = self.model.model.language_model
        adapter = LoraConfig(
            r=backbone.rank,
            lora_alpha=backbone.alpha,
            lora_dropout=backbone.dropout,
            target_modules=list(backbone.targets),
        )
        self.model.model.language_model = get_peft_model(language, adapter).base_model.model
        stage = backbone.recipe[-1]
        if "projector" in stage.train:
            backbone.projector().requires_grad_(True)
        self.head = nn.Linear(language.config.hidden_size, classes)
        self.trained = [p for p in [*self.model.parameters(), *self.head.parameters()] if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=stage.lr)
        self.schedule = get_linear_schedule_with_warmup(self.optimizer, stage.warmup, steps)
        self.clip = stage.clip

    def prepared(self, images: Sequence[Image.Image], prompt: str) -> dict[str, Any]:
        """Return the processor's batch."""
        if self.text:
            text = [self.text.format(prompt=prompt)] * len(images)
            made = self.processor(text=text, images=list(images), return_tensors="pt", padding=True)
        else:
            chats = [
                [{"role": "user", "content": [{"type": "image", "image": i}, {"type": "text", "text": prompt}]}]
                for i in images
            ]
            made = self.processor.apply_chat_template(
                chats,
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                processor_kwargs={"padding": True},
            )
        return dict(made)

    def scores(self, batch: dict[str, Any]) -> torch.Tensor:
        """Return the classes' logits, (B, classes)."""
        hidden = self.model.model(**batch, use_cache=False).last_hidden_state
        last = batch["attention_mask"].sum(1) - 1
        scores: torch.Tensor = self.head(hidden[torch.arange(len(hidden)), last])
        return scores

    def step(self, images: Sequence[Image.Image], prompt: str, target: torch.Tensor) -> None:
        """Take one step."""
        self.model.train()
        functional.cross_entropy(self.scores(self.prepared(images, prompt)), target).backward()
        nn.utils.clip_grad_norm_(self.trained, self.clip)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()

    @torch.no_grad()
    def answer(self, images: Sequence[Image.Image], prompt: str) -> torch.Tensor:
        """Return the classes' probabilities, (B, classes)."""
        self.model.eval()
        return self.scores(self.prepared(images, prompt)).softmax(-1)


class Script:
    """The practitioner in a process of its own."""

    def __init__(self, shape: str, steps: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(shape, steps, theirs), daemon=True)
        self.process.start()

    def ask(self, what: str) -> float:
        """Return the CPU seconds of the process's `start`, a `step` or `answer`, or a step's `flops`."""
        self.pipe.send(what)
        result: float = self.pipe.recv()
        return result


def _serve(shape: str, steps: int, pipe: Connection) -> None:
    torch.set_num_threads(1)
    script = Practitioner(shapes()[shape](), 2, steps)
    images, target = pictures(), torch.arange(BATCH) % 2
    works: dict[str, Callable[[], object]] = {
        "step": lambda: script.step(images, PROMPT, target),
        "answer": lambda: script.answer(images * (ROWS // BATCH), PROMPT),
    }
    started = time.process_time()
    while True:
        what = pipe.recv()
        if what == "start":
            pipe.send(started)
        elif what == "flops":
            with Flops() as counter:
                works["step"]()
            pipe.send(counter.get_total_flops())
        else:
            pipe.send(timed(works[what]))


def timed(work: Callable[[], object]) -> float:
    """Return the CPU seconds of some work."""
    start = time.process_time()
    work()
    return time.process_time() - start


class Flops(FlopCounterMode):
    """torch's count of floating-point operations, with attention on a CPU, which it leaves out."""

    def __init__(self) -> None:
        attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        super().__init__(display=False, custom_mapping={attention: _attention, backward: _attention_backward})


def _attention(query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    batch, heads, length, width = query
    return int(4 * batch * heads * length * key[-2] * width)


def _attention_backward(_: Any, query: Any, key: Any, *__: Any, out_shape: Any = None, **___: Any) -> int:
    return int(2.5 * _attention(query, key, key))


def matmul_rate(side: int = 512, repeats: int = 8) -> float:
    """Return the floating-point operations per CPU second of a square matrix product, on one thread."""
    matrix = torch.randn(side, side)
    start = time.process_time()
    for _ in range(repeats):
        matrix @ matrix
    return repeats * 2 * side**3 / (time.process_time() - start)


def environment() -> str:
    """Say on what a measurement was made."""
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    return (
        f"{packages}; Python {platform.python_version()} on {platform.machine()}, {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} thread, load {load:.1f}; CPU time"
    )
