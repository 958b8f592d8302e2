"""What one writes without fairbench: transformers and PEFT, which prepare and see images at every step.

`trainer` is transformers' Trainer, which logs every ten steps and saves and evaluates nothing; `loop` is the least
that one could write in its place. Either runs in a process of its own, which is fairbench's in nothing, and takes a
step when it is told to.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import tempfile
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
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    get_linear_schedule_with_warmup,
)

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


class Labelled(nn.Module):
    """The practitioner's model as Trainer wants it: with labels in, and the loss out."""

    def __init__(self, script: Practitioner) -> None:
        super().__init__()
        self.script, self.model, self.head = script, script.model, script.head

    def forward(self, labels: torch.Tensor, **batch: Any) -> dict[str, torch.Tensor]:
        """Return the loss and the logits, (B, classes)."""
        logits = self.script.scores(batch)
        return {"loss": functional.cross_entropy(logits, labels), "logits": logits}


class Told(TrainerCallback):
    """What makes Trainer take its next step when it is told to, and says what the last one took, data included."""

    def __init__(self, script: Practitioner, pipe: Connection, started: float) -> None:
        self.script, self.pipe, self.started = script, pipe, started
        self.trainer: Trainer | None = None
        self.last: float | None = None

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Wait for the first step to be wanted."""
        self._wait()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Say what it took, and wait for the next."""
        assert self.last is not None
        self.pipe.send(time.process_time() - self.last)
        self._wait()

    def _wait(self) -> None:
        while (what := self.pipe.recv()) != "step":
            if what == "start":
                self.pipe.send(self.started)
            elif what == "flops":
                with Flops() as counter:
                    self.script.step(pictures(), PROMPT, torch.arange(BATCH) % 2)
                self.pipe.send(counter.get_total_flops())
            else:
                self.pipe.send(timed(self._answer))
        self.last = time.process_time()

    def _answer(self) -> None:
        assert self.trainer is not None
        rows = [{"image": image, "label": 0} for image in pictures(ROWS)]
        model = self.trainer.model
        model.eval()
        self.trainer.prediction_step(model, self.trainer.data_collator(rows), prediction_loss_only=False)
        model.train()


def _serve_trainer(shape: str, steps: int, pipe: Connection) -> None:
    torch.set_num_threads(1)
    script = Practitioner(shapes()[shape](), 2, steps)
    rows = [{"image": image, "label": place % 2} for place, image in enumerate(pictures(10 * BATCH))]

    def collate(some: Sequence[dict[str, Any]]) -> dict[str, Any]:
        labels = torch.tensor([row["label"] for row in some])
        return {**script.prepared([row["image"] for row in some], PROMPT), "labels": labels}

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=BATCH,
            max_steps=1_000_000,  # it is ended from outside
            warmup_steps=20,
            max_grad_norm=script.clip,
            logging_steps=10,
            save_strategy="no",
            report_to="none",
            remove_unused_columns=False,
            disable_tqdm=True,
            use_cpu=True,
        )
        told = Told(script, pipe, 0.0)
        trainer = Trainer(Labelled(script), arguments, collate, rows, callbacks=[told])
        trainer.remove_callback(PrinterCallback)
        told.trainer, told.started = trainer, time.process_time()
        trainer.train()


class Script:
    """The practitioner in a process of its own."""

    def __init__(self, shape: str, steps: int, peer: str = "trainer") -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=PEERS[peer], args=(shape, steps, theirs), daemon=True)
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


PEERS = {"trainer": _serve_trainer, "loop": _serve}


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
