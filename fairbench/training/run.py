"""What a method trains with: `forward` shows it the whole effective batch, `descend` takes one step.

A fairness loss is a statement about the whole batch, so neither micro-batches nor processes may
change it. `forward` computes the per-example outputs piece by piece and hands them over as leaves;
`descend` takes the loss's gradient at those leaves and replays each piece to carry it into the
weights. When the batch fits at once its graph is kept and nothing is computed twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn

from fairbench.errors import FairbenchError
from fairbench.jobs.job import PARTS, Job, Stage
from fairbench.jobs.journal import Journal
from fairbench.models import sharding
from fairbench.models.backbone import Backbone
from fairbench.models.batch import Batch, Inputs, Outputs, Rows, States
from fairbench.predictions.predictions import Predictions
from fairbench.training.device import indeterminate, strictly
from fairbench.training.features import SEEN, Questions, seen
from fairbench.training.sampling import Indices


class Source(Protocol):
    """Where examples come from: some rows of a split, or one of them with another prompt."""

    def load(self, split: str, rows: Sequence[int]) -> list[Mapping[str, Tensor]]:
        """Return the examples of these rows."""

    def with_prompt(self, split: str, row: int, prompt: str) -> Mapping[str, Tensor]:
        """Return one row's example, asked something else."""


Split = Literal["train", "val"]  # what a method may ask answers of
UNSTABLE = (  # a hint
    "a lower lr or a longer warmup (--set STAGE.lr=…, --set STAGE.warmup=…), a smaller strength of the method, or "
    "--set run.precision=float32 may mend it; else look for a division by 0 in the method's loss"
)
INEXACT = "not deterministic"  # a fact: the operation, for which every later step is lenient too


@dataclass
class _Forward:
    """One forward pass that may still be descended: what it needs to be replayed."""

    batch: Batch
    reads: States | None
    draws: Tensor
    number: int
    leaves: Outputs
    graph: Outputs | None


@dataclass
class Run:
    """One training, from the method's side.

    `train` and `validation` are the rows of these splits (never the test split), `rows` those that this stage
    draws from, `device` where tensors live, `progress` the share of this stage's steps already taken,
    `generator` random numbers that are the same on every process. `answers` are the model's to a split, with
    the weights as they are. `questions` are the test rows, for a method that answers them itself, and
    `known` the training rows as a model would be shown them; `words` what an
    answer to them may be and `limit` how many tokens it may take; `journal` keeps what was answered over a kill.
    `facts` are free notes for the record; `tried` is how many settings a method tried
    before it chose one.
    """

    job: Job
    backbone: Backbone
    train: Rows
    validation: Rows
    source: Source
    accelerator: Accelerator
    micro_batch: int
    generator: torch.Generator
    warn: Callable[[str], None]
    answers: Callable[[Split], Predictions]
    questions: Questions
    known: Questions
    words: Sequence[str]
    limit: int
    journal: Journal
    facts: dict[str, Any] = field(default_factory=dict)
    tried: int = 0
    stage: Stage | None = None
    stage_number: int = -1
    step: int = 0
    steps: int = 0
    last_loss: float = math.nan

    def __post_init__(self) -> None:
        self._pending: list[_Forward] = []
        self._forwards = 0
        self.players: dict[int, torch.optim.Optimizer] = {}
        self.totals: dict[str, tuple[float, int]] = {}

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        device: torch.device = self.accelerator.device
        return device

    @property
    def split(self) -> str:
        """The split that this stage draws from."""
        return "train" if self.stage is None else self.stage.split

    @property
    def rows(self) -> Rows:
        """The rows that this stage draws from."""
        return self.train if self.split == "train" else self.validation

    @property
    def progress(self) -> float:
        """Share of the stage's steps already taken, 0 to 1."""
        return self.step / max(self.steps, 1)

    def begin(self, stage: Stage) -> None:
        """Open a stage: its parts learn, all else is frozen, every player starts a new optimizer."""
        self.stage, self.step = stage, 0
        self.stage_number += 1
        self.players.clear()
        for parameter in self.backbone.trainable().values():
            parameter.requires_grad_(False)
        groups: list[dict[str, Any]] = []
        for part in stage.train:
            parameters = self.backbone.part(part)
            for parameter in parameters:
                parameter.requires_grad_(True)
            if parameters:
                groups.append({"params": parameters, "lr": stage.lr * stage.lr_scale.get(part, 1.0)})
            elif part != "head":  # the readout `words` has none, and every recipe names it
                raise FairbenchError(
                    f"stage {stage.name} trains the {part}, which {self.backbone.name} does not have",
                    "leave the part out of the stage's `train`",
                )
        if not groups:
            known = [part for part in PARTS if self.backbone.part(part)]
            raise FairbenchError(
                f"stage {stage.name} trains {', '.join(stage.train)}, but there is nothing to train",
                f"name a part that this backbone has: {', '.join(known)}",
            )
        self.players[id(self.backbone)] = self._player(groups)

    def image_features(self, split: str, rows: Sequence[int]) -> Tensor:
        """Return what the frozen vision tower makes of some rows' images, (len(rows), D), in float32 on the CPU:
        what a linear probe would read (`Backbone.summary`).
        """
        summaries = []
        for start in range(0, len(rows), SEEN):
            examples = self.source.load(split, rows[start : start + SEEN])
            for example in examples if "features" in examples[0] else seen(self.backbone, examples):
                summaries.append(self.backbone.summary(example["features"].to(self.device)).float().cpu())
        return torch.stack(summaries)

    @torch.no_grad()
    def answered(self, test: pd.DataFrame, shown: Iterable[tuple[Sequence[Image.Image], str]]) -> pd.DataFrame:
        """Return the test rows with the model's answers to other questions: of each row its images and a text."""
        answers: list[Any] = []
        for images, text in shown:
            example = self.backbone.prepare_images(images, text)
            inputs = self.backbone.stack([example], prompt_only=self.backbone.generates)
            inputs = {key: value.to(self.device) for key, value in inputs.items()}
            if self.backbone.generates:
                answers += self.backbone.generate(inputs, self.limit)
            else:
                unknown = torch.full((1,), -1, device=self.device)
                answers += self.backbone(inputs, unknown).scores.double().softmax(-1).cpu().tolist()
        if self.backbone.generates:
            return test.assign(text=answers)
        shares = np.array(answers)
        columns = {f"p_{index}": shares[:, index] for index in range(shares.shape[1])}
        return test.assign(answer=shares.argmax(axis=1), **columns)

    def restart(self) -> None:
        """Forget what was trained: every part of the backbone is again as it was before the first stage."""
        self.backbone.reset(self.job.seed)

    def only(self, chosen: Callable[[str], bool]) -> None:
        """Of what this stage trains, let only the parameters of these names learn (in `start_stage`)."""
        names = {id(parameter): name for name, parameter in self.backbone.trainable().items()}
        for group in self.players[id(self.backbone)].param_groups:
            for parameter in group["params"]:
                parameter.requires_grad_(chosen(names[id(parameter)]))
            group["params"] = [parameter for parameter in group["params"] if parameter.requires_grad]

    def advance(self, step: int) -> None:
        """Open a step: forward passes that the last one never descended are dropped."""
        self.step, self._forwards = step, 0
        self._pending.clear()

    def join(self, module: nn.Module, lr: float | None = None) -> torch.optim.Optimizer:
        """Return the optimizer of a module of the method's, made when it is first asked for."""
        assert self.stage is not None
        if id(module) not in self.players:
            rate = self.stage.lr if lr is None else lr
            self.players[id(module)] = self._player([{"params": list(module.parameters()), "lr": rate}])
        return self.players[id(module)]

    def _player(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        assert self.stage is not None
        for group in groups:
            group["peak"] = group["lr"]
        return torch.optim.AdamW(groups, weight_decay=self.stage.weight_decay)

    # ── batches ──────────────────────────────────────────────────────────────────────────────────

    def batch(self, rows: Tensor) -> Batch:
        """Return any rows of those that this stage draws from as a batch; `rows` (B,) may repeat some."""
        rows = rows.cpu()
        share = self.share(len(rows))
        examples = self.source.load(self.split, rows[share].tolist())
        return self.compose(rows, examples, int(share[0]) if len(share) else 0)

    def share(self, count: int) -> Indices:
        """Return which positions of a batch of `count` this process computes."""
        processes, rank = self.accelerator.num_processes, self.accelerator.process_index
        mine: Indices = np.array_split(np.arange(count), processes)[rank]
        return mine

    def compose(self, rows: Tensor, examples: Sequence[Mapping[str, Tensor]], start: int) -> Batch:
        """Make the batch of some rows, of which this process has the `examples` from position `start` on."""
        return Batch(
            row=rows.to(self.device),
            target=self.rows.target[rows].to(self.device),
            group=self.rows.group[rows].to(self.device),
            attributes={name: codes[rows].to(self.device) for name, codes in self.rows.attributes.items()},
            n_groups=len(self.rows.groups),
            examples=examples,
            start=start,
        )

    def ask(self, batch: Batch, prompts: Sequence[str]) -> Batch:
        """Return the same patients asked something else: `prompts` has one text for each row of the batch."""
        own = slice(batch.start, batch.start + len(batch.examples))
        rows = batch.row[own].tolist()
        examples = [self.source.with_prompt(self.split, *pair) for pair in zip(rows, prompts[own], strict=True)]
        return replace(batch, examples=examples)

    # ── forward ──────────────────────────────────────────────────────────────────────────────────

    def forward(self, batch: Batch, reads: States | None = None) -> Outputs:
        """Return the whole effective batch's per-example outputs, ready for any loss over them."""
        draws = torch.rand(len(batch.row), generator=self.generator)
        entry = _Forward(batch, reads, draws, self._forwards, Outputs(*[torch.empty(0)] * 3), None)
        self._forwards += 1
        local = self._retry(lambda: self._compute(entry))
        whole = {name: self._gather(value.detach(), batch) for name, value in local.tensors().items()}
        for value in whole.values():
            value.requires_grad_(True)
        entry.leaves = Outputs(**whole)
        self._pending.append(entry)
        return entry.leaves

    def _compute(self, entry: _Forward) -> Outputs:
        pieces = self._pieces(entry)
        entry.graph = None
        if len(pieces) == 1:
            entry.graph = self._piece(entry, pieces[0])
            return entry.graph
        with torch.no_grad():
            parts = [self._piece(entry, piece) for piece in pieces]
        if not parts:  # a last batch smaller than the number of processes
            return self._nothing(entry)
        names = parts[0].tensors()
        return Outputs(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})

    def _pieces(self, entry: _Forward) -> list[slice]:
        """Return which examples are computed at once; none are in a pass that keeps other processes company."""
        count = len(entry.batch.examples)
        pieces = [slice(i, min(i + self.micro_batch, count)) for i in range(0, count, self.micro_batch)]
        idle = sharding.idle(self.backbone.mesh, len(entry.batch.row), len(pieces), self.micro_batch)
        return [*pieces, *[slice(count, count)] * idle]

    def _piece(self, entry: _Forward, piece: slice) -> Outputs:
        """Run one micro-batch, under random numbers of its own so that a replay repeats its dropout."""
        if piece.start == piece.stop:
            return self._idle(entry)
        batch, start = entry.batch, entry.batch.start
        where = slice(start + piece.start, start + piece.stop)
        inputs = self._inputs(batch, piece)
        if batch.partner is not None:
            inputs["features"] = self._blended(inputs, batch.partner[0], batch.partner[1][where], piece)
        inputs["token_draw"] = entry.draws[where].to(self.device)
        seed = np.random.SeedSequence([self.job.seed, self.stage_number, self.step, entry.number, where.start])
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            reseed(self.device, int(seed.generate_state(1)[0]))
            out: Outputs = self.backbone(inputs, batch.target[where], entry.reads)
        return out

    def _idle(self, entry: _Forward) -> Outputs:
        """Run the batch's first example and keep nothing of it, so that its gradient is 0: sharded weights are
        gathered by all processes together, also those that have no example.
        """
        row = entry.batch.row[:1].cpu()
        spare = self.compose(row, self.source.load(self.split, row.tolist()), 0)
        out = self._piece(replace(entry, batch=spare), slice(0, 1))
        return Outputs(**{name: value[:0] for name, value in out.tensors().items()})

    def _inputs(self, batch: Batch, piece: slice) -> Inputs:
        return {k: v.to(self.device) for k, v in self.backbone.stack(batch.examples[piece]).items()}

    def _blended(self, inputs: Inputs, other: Batch, share: Tensor, piece: slice) -> Tensor:
        """Blend the image features of one micro-batch with another's, token by token."""
        partners = self._inputs(other, piece)
        counts, theirs = ((x["input_ids"] == self.backbone.image_token_id).sum(1) for x in (inputs, partners))
        if not torch.equal(counts, theirs):
            raise FairbenchError(
                f"{self.backbone.name} gives some images more tokens than others, and these cannot be mixed",
                "choose a fixed resolution for the backbone, or leave the method out",
            )
        with self.backbone.precision(self.device):
            own, others = (self.backbone.features(x) for x in (inputs, partners))
        weight = share.to(own).repeat_interleave(counts)[:, None]
        return weight * own + (1 - weight) * others

    def _nothing(self, entry: _Forward) -> Outputs:
        empty = torch.zeros(0, device=self.device)
        states = None
        if entry.reads is not None:
            states = empty.reshape(0, len(entry.reads.depths), self.backbone.width)
        classes = 0 if self.backbone.generates else len(self.train.classes)
        return Outputs(empty, empty, empty.reshape(0, classes), states)

    def _gather(self, local: Tensor, batch: Batch) -> Tensor:
        """Collect every process's examples: each adds its own into zeros, which is exact."""
        if self.accelerator.num_processes == 1:
            return local.clone()
        whole = torch.zeros(len(batch.row), *local.shape[1:], dtype=local.dtype, device=self.device)
        whole[batch.start : batch.start + len(local)] = local
        gathered: Tensor = self.accelerator.reduce(whole, "sum") if whole.numel() else whole
        return gathered

    # ── descend ──────────────────────────────────────────────────────────────────────────────────

    def descend(self, loss: Tensor, module: nn.Module | None = None, lr: float | None = None) -> None:
        """Take one optimizer step for one player and no other weights.

        The player is what this stage trains, or `module`, a submodule of the method with its own
        AdamW at `lr` (default: the stage's). Raises FairbenchError when the loss is not finite or
        reaches no weight.
        """
        assert self.stage is not None
        if module is not None:
            self._finite(loss)
            parameters = list(module.parameters())
            self.join(module, lr)
            gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            self._step(id(module), parameters)
            return
        parameters = self._backward(loss, keep=False)
        self._pending.clear()
        self._step(id(self.backbone), parameters)

    def gradient(self, loss: Tensor) -> Tensor:
        """Return the loss's gradient at `weights`, (P,), and take no step; forward passes stay for another one."""
        return _flat([p.new_zeros(p.shape) if p.grad is None else p.grad for p in self._backward(loss, keep=True)])

    def apply(self, gradient: Tensor) -> None:
        """Take one optimizer step of what this stage trains along a gradient (P,) that the method made."""
        parameters = self._learning()
        for parameter, part in zip(parameters, self._parts(gradient), strict=True):
            parameter.grad = part.clone()
        self._pending.clear()
        self._step(id(self.backbone), parameters)

    def weights(self) -> Tensor:
        """Return a copy of the weights that this stage trains, (P,)."""
        return _flat([parameter.detach() for parameter in self._learning()])

    def load(self, weights: Tensor) -> None:
        """Put weights (P,) in place of those that this stage trains; forward passes made before are forgotten."""
        with torch.no_grad():
            for parameter, part in zip(self._learning(), self._parts(weights), strict=True):
                parameter.copy_(part)
        self._pending.clear()

    def _learning(self) -> list[nn.Parameter]:
        return [p for group in self.players[id(self.backbone)].param_groups for p in group["params"]]

    def _parts(self, vector: Tensor) -> list[Tensor]:
        """Cut a vector (P,) into the shapes of the parameters that this stage trains."""
        parameters = self._learning()
        total = sum(p.numel() for p in parameters)
        if vector.shape != (total,):
            raise FairbenchError(
                f"a vector of shape {tuple(vector.shape)} is given for {total} weights",
                "a vector has one number for each weight that this stage trains, see run.weights()",
            )
        pieces = torch.split(vector, [p.numel() for p in parameters])
        return [piece.view_as(p) for p, piece in zip(parameters, pieces, strict=True)]

    def _finite(self, loss: Tensor) -> float:
        value = loss.item()
        if not math.isfinite(value):
            raise FairbenchError(self._not_finite(value), UNSTABLE)
        return value

    def _backward(self, loss: Tensor, keep: bool) -> list[nn.Parameter]:
        """Set the gradients of what this stage trains, and `keep` graphs for another loss or free them."""
        self.last_loss = self._finite(loss)
        leaves = [leaf for entry in self._pending for leaf in entry.leaves.tensors().values()]
        for leaf in leaves:
            leaf.grad = None
        if loss.requires_grad and leaves:
            torch.autograd.backward(loss, inputs=leaves, retain_graph=keep)
        self._retry(lambda: self._exactly(lambda: self._replay(keep)))
        parameters = self._learning()
        self._reduce(parameters)
        if all(parameter.grad is None for parameter in parameters):
            raise FairbenchError(
                "the loss reaches no weight that this step may change",
                "a loss is made of forward passes since the last step or change of weights",
            )
        return parameters

    def _replay(self, keep: bool) -> None:
        """Carry the leaves' gradients into the weights, micro-batch by micro-batch."""
        self.players[id(self.backbone)].zero_grad()
        for entry in self._pending:
            if all(leaf.grad is None for leaf in entry.leaves.tensors().values()):
                continue  # this loss does not look at that forward pass
            graph = entry.graph
            if not keep:
                entry.graph = None
            for piece in self._pieces(entry):
                out = self._piece(entry, piece) if graph is None else graph
                offset = entry.batch.start
                roots, gradients = [], []
                for name, leaf in entry.leaves.tensors().items():
                    if leaf.grad is not None and getattr(out, name).requires_grad:
                        roots.append(getattr(out, name))
                        gradients.append(leaf.grad[offset + piece.start : offset + piece.stop])
                if roots:
                    torch.autograd.backward(roots, gradients, retain_graph=keep and graph is not None)

    def _exactly(self, work: Callable[[], None]) -> None:
        """Replay by deterministic operations alone, or where one has no such form on this device, say so and go on.

        Only by this is attention's backward pass deterministic on a GPU: to be warned does not change its kernel.
        """
        with strictly(INEXACT not in self.facts):
            try:
                return work()
            except RuntimeError as error:
                operation = indeterminate(error)
                if operation is None:
                    raise
        self.facts[INEXACT] = operation
        self.warn(
            f"{operation} has no deterministic form on {self.device.type}: another run may differ in last bits"
        )
        for entry in self._pending:
            entry.graph = None
        return work()

    def _reduce(self, parameters: Sequence[nn.Parameter]) -> None:
        if self.accelerator.num_processes > 1:
            flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
            flat = self.accelerator.reduce(flat, "sum")
            for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
                parameter.grad = part.view_as(parameter)

    def _step(self, player: int, parameters: Sequence[nn.Parameter]) -> None:
        assert self.stage is not None
        optimizer = self.players[player]
        norm = nn.utils.clip_grad_norm_(parameters, self.stage.clip)
        if not torch.isfinite(norm):
            raise FairbenchError(
                f"the gradient is not finite at step {self.step} of stage {self.stage.name}", UNSTABLE
            )
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * rate_factor(self.stage, self.step, self.steps)
        optimizer.step()
        optimizer.zero_grad()

    def _not_finite(self, loss: float) -> str:
        assert self.stage is not None
        batch = self._pending[-1].batch if self._pending else None
        present = sorted(set(batch.group.tolist())) if batch is not None else []
        names = ", ".join(self.train.groups[g] if g >= 0 else "not recorded" for g in present)
        return (
            f"the loss of {self.job.method.label} is {loss} at step {self.step} of stage {self.stage.name}; "
            f"groups in the batch: {names or 'none'}"
        )

    def _retry(self, work: Callable[[], Any]) -> Any:
        """Halve the micro-batch and try again when the device runs out of memory."""
        while True:
            try:
                return work()
            except torch.OutOfMemoryError as error:
                if self.backbone.mesh is not None:
                    raise sharding.out_of_memory(self.device) from error
                if self.micro_batch <= 1:
                    raise FairbenchError(
                        f"one example at a time does not fit into the memory of {self.device}",
                        "use a smaller image resolution, checkpointing, or a larger device",
                    ) from error
                self.micro_batch = max(1, self.micro_batch // 2)
                for entry in self._pending:
                    entry.graph = None
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            self.warn(f"out of memory at step {self.step}: micro-batch halved to {self.micro_batch}")

    # ── notes ────────────────────────────────────────────────────────────────────────────────────

    def note(self, notes: Mapping[str, float]) -> None:
        """Average what a method noted over the steps."""
        for name, value in notes.items():
            total, count = self.totals.get(name, (0.0, 0))
            self.totals[name] = (total + float(value), count + 1)

    def noted(self) -> dict[str, float]:
        """Return the averages so far."""
        return {name: total / count for name, (total, count) in self.totals.items()}


def reseed(device: torch.device, seed: int) -> None:
    """Seed the CPU's and the device's random numbers; torch.manual_seed notes tracebacks for absent devices."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def rate_factor(stage: Stage, step: int, steps: int) -> float:
    """Return the factor on the learning rate at a step: linear warm-up, then the stage's decay.

    The decays are those of transformers' schedules. Its warm-up opens with a step at a rate of 0, which learns
    nothing; this one ends one step earlier, so that every step learns.
    """
    warmup = min(stage.warmup, steps // 2)
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done))}[stage.decay]
