"""Training without fairbench's loop: one graph over the whole batch, AdamW, clipping, warm-up and decay by hand."""

import math

import numpy as np
import torch

from fairbench.models.batch import last_token
from fairbench.testing.toys import ToyBackbone, ToyDataset


class Independent:
    """The toy's rows and weights, and steps on them that share no code with `training.run`."""

    def __init__(self, attribute="site", seed=0, splits=("train",)):
        data = ToyDataset()
        table = data.table()
        self.seed = seed
        self.model = ToyBackbone()
        self.model.build(data.classes, data.words, torch.float32, torch.device("cpu"))
        self.model.reset(seed)
        self.losses = []
        self.splits = {}
        for split in splits:
            rows = table[table["split"] == split]
            examples = [self.model.prepare(data.image(row), data.prompt) for row in rows.to_dict("records")]
            values = sorted(set(rows[attribute].dropna()))
            named = [*values, None]
            self.splits[split] = {
                "inputs": self.model.stack(examples),
                "target": torch.tensor([data.classes.index(name) for name in rows["target"]]),
                "group": torch.tensor([named.index(v if isinstance(v, str) else None) for v in rows[attribute]]),
            }

    def features(self, split, rows):
        """(B, image tokens, D)."""
        pixels = self.splits[split]["inputs"]["pixel_values"][rows]
        with torch.no_grad():
            return self.model.encode({"pixel_values": pixels}).reshape(len(rows), 2, -1)

    def forward(self, split, rows, features=None):
        """Scores (B, C) and the state that the head reads (B, D)."""
        data = self.splits[split]["inputs"]
        inputs = {key: data[key][rows] for key in ("input_ids", "attention_mask")}
        features = self.features(split, rows) if features is None else features
        hidden = self.model.decode(inputs, features.reshape(-1, features.shape[-1]))[-1]
        state = last_token(hidden, inputs["attention_mask"])
        return self.model.head(state), state

    def pooled(self, rows, index):
        """The mean of the image tokens' hidden states, of length 1 (B, D), and the scores, of training rows."""
        data = self.splits["train"]["inputs"]
        inputs = {key: data[key][rows] for key in ("input_ids", "attention_mask")}
        hidden = self.model.decode(inputs, self.features("train", rows).flatten(0, 1), every=True)
        image = inputs["input_ids"] == self.model.image_token_id
        means = torch.stack([hidden[index][row][image[row]].mean(0) for row in range(len(rows))])
        return means / means.norm(dim=1, keepdim=True), self.model.head(
            last_token(hidden[-1], inputs["attention_mask"])
        )

    def order(self, split, batch, epochs=1.0, stage=0, odds=None):
        """Row indices of every batch of a stage, drawn as docs/guide.md says: by (seed, stage, epoch)."""
        count, batches = len(self.splits[split]["target"]), []
        for epoch in range(math.ceil(epochs)):
            generator = np.random.default_rng([self.seed, stage, epoch])
            order = (
                generator.permutation(count)
                if odds is None
                else generator.choice(count, count, p=odds.double().numpy() / odds.double().numpy().sum())
            )
            batches += [torch.tensor(order[i : i + batch]) for i in range(0, count, batch)]
        return batches[: max(1, round(epochs * math.ceil(count / batch)))]

    def train(self, loss, stage, split="train", batch=8, number=0, odds=None, after=lambda: None):
        """Descend `loss(rows, step, steps)` over a stage."""
        parts = [p for part in stage.train for p in self.model.part(part)]
        for parameter in self.model.trainable().values():
            parameter.requires_grad_(False)
        for parameter in parts:
            parameter.requires_grad_(True)
        optimizer = torch.optim.AdamW(parts, weight_decay=stage.weight_decay)
        batches = self.order(split, batch, stage.epochs, number, odds)
        steps, warmup = len(batches), min(stage.warmup, len(batches) // 2)
        for step, rows in enumerate(batches):
            done = (step - warmup) / max(1, steps - warmup)
            self.rate = (step + 1) / warmup if step < warmup else 1 - done
            now = loss(rows, step, steps)
            self.losses.append(now.item())
            self.descend(now, parts, optimizer, stage.lr, stage.clip)
            after()

    def descend(self, loss, parts, optimizer, lr, clip=1.0):
        """One clipped step at this step's rate; only `parts` move, and only they get a gradient."""
        gradients = torch.autograd.grad(loss, parts, allow_unused=True)
        for parameter, gradient in zip(parts, gradients, strict=True):
            parameter.grad = torch.zeros_like(parameter) if gradient is None else gradient
        norm = torch.sqrt(sum((p.grad**2).sum() for p in parts))
        for parameter in parts:
            parameter.grad = parameter.grad * min(1.0, clip / (norm.item() + 1e-6))
        for group in optimizer.param_groups:
            group["lr"] = lr * self.rate
        optimizer.step()

    def difference(self, outcome):
        """The largest difference of any weight from a training by fairbench."""
        mine = self.model.trainable()
        assert set(mine) == set(outcome.weights)
        return max(float((mine[name].detach() - weight).abs().max()) for name, weight in outcome.weights.items())
