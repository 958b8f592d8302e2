"""From a trained backbone to the predictions that a job leaves: a table of answers beside who they are about."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from fairbench.data.dataset import Dataset
from fairbench.errors import FairbenchError
from fairbench.models import sharding
from fairbench.models.backbone import Backbone
from fairbench.training.method import Method
from fairbench.training.run import Run

BATCH = 32
Places = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float64]
Examples = Sequence[Mapping[str, Tensor]]


def predict(
    accelerator: Accelerator,
    backbone: Backbone,
    dataset: Dataset,
    table: pd.DataFrame,
    load: Callable[[list[Places]], Iterable[Examples]],
    report: Callable[[int, int], None],
    size: int = BATCH,
) -> pd.DataFrame:
    """Answer every row of `table`; each process computes its share, and every process gets the whole.

    `load` yields the examples at some places of the table; `report(done, total)` counts batches of `size` rows.
    """
    pieces, idle = shares(accelerator, backbone, len(table), size)
    answer = answering(backbone, dataset)
    pairs: list[Any] = []
    with torch.no_grad():
        for number, (piece, examples) in enumerate(zip(pieces, load(pieces), strict=True)):
            answered = _by_halves(answer, examples, backbone)
            if number < len(pieces) - idle:
                pairs += zip(piece.tolist(), answered, strict=True)
            report(number + 1, len(pieces))
    if accelerator.num_processes > 1:
        pairs = gather_object(pairs)
    answers = [one for _, one in sorted(pairs, key=lambda pair: pair[0])]
    if not np.isfinite([number for numbers, _ in answers for number in numbers]).all():
        raise FairbenchError(
            f"the trained model's scores on the {table['split'].iloc[0]} split are not finite",
            "a smaller lr or strength may keep the training stable",
        )
    return frame(dataset, table, [numbers for numbers, _ in answers], [text for _, text in answers])


def shares(accelerator: Accelerator, backbone: Backbone, count: int, size: int) -> tuple[list[Places], int]:
    """Return which of `count` rows this process answers at once, up to `size`, and how many of these pieces, at the
    end, only keep other processes company: a sharded backbone needs all of them at every pass.
    """
    mine = np.array_split(np.arange(count), accelerator.num_processes)[accelerator.process_index]
    pieces = [mine[i : i + size] for i in range(0, len(mine), size)]
    idle = sharding.idle(backbone.mesh, count, len(pieces), size)
    return [*pieces, *[np.zeros(1, dtype=np.intp)] * idle], idle


# What a model made of one example: class probabilities and no text, or its answer's loss and the text it wrote.
Answer = tuple[list[float], str]


def answering(backbone: Backbone, dataset: Dataset) -> Callable[[Examples], list[Answer]]:
    """Return what answers a batch of examples."""
    return _written(backbone, dataset.max_new_tokens) if backbone.generates else _scored(backbone)


def _scored(backbone: Backbone) -> Callable[[Examples], list[Answer]]:
    def answer(examples: Examples) -> list[Answer]:
        device = next(backbone.parameters()).device
        inputs = {key: value.to(device) for key, value in backbone.stack(examples).items()}
        unknown = torch.full((len(examples),), -1, device=device)
        scores = backbone(inputs, unknown).scores.double().softmax(-1)
        return [(row, "") for row in scores.cpu().tolist()]

    return answer


def _written(backbone: Backbone, limit: int) -> Callable[[Examples], list[Answer]]:
    def answer(examples: Examples) -> list[Answer]:
        device = next(backbone.parameters()).device
        learnt, asked = (
            {key: value.to(device) for key, value in backbone.stack(examples, prompt_only).items()}
            for prompt_only in (False, True)
        )
        with backbone.precision(device):
            learnt["features"] = asked["features"] = backbone.features(learnt)  # the vision tower looks once
        loss = backbone(learnt, torch.full((len(examples),), -1, device=device)).loss.double()
        return [
            ([one], text) for one, text in zip(loss.cpu().tolist(), backbone.generate(asked, limit), strict=True)
        ]

    return answer


def _by_halves(answer: Callable[[Examples], list[Answer]], examples: Examples, backbone: Backbone) -> list[Answer]:
    """Answer some examples, by halves when the device runs out of memory."""
    try:
        return answer(examples)
    except torch.OutOfMemoryError as error:
        if backbone.mesh is not None:
            raise sharding.out_of_memory(next(backbone.parameters()).device) from error
        if len(examples) == 1:
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    half = len(examples) // 2
    return _by_halves(answer, examples[:half], backbone) + _by_halves(answer, examples[half:], backbone)


def indices(table: pd.DataFrame, classes: Sequence[str]) -> Places:
    """Return the class index of every row, -1 where answers are no classes."""
    if not classes:
        return np.full(len(table), -1, dtype=np.int64)
    return table["target"].map({name: index for index, name in enumerate(classes)}).to_numpy(dtype=np.int64)


def frame(
    dataset: Dataset, table: pd.DataFrame, numbers: Sequence[Sequence[float]] | None, texts: Sequence[str]
) -> pd.DataFrame:
    """Put answers beside who they are about: class probabilities, or a text with its reference's loss.

    Without `numbers` a text is all that is known, also where it names a class.
    """
    result = table[["id", "cluster", "split"]].reset_index(drop=True)
    if dataset.classes:
        result["target"] = indices(table, dataset.classes)
    if dataset.task == "generate":
        result = result.assign(prompt=table["prompt"].to_numpy(), reference=table["reference"].to_numpy())
        losses = {} if numbers is None else {"loss": [one for (one,) in numbers]}
        result = _read(result.assign(text=list(texts), **losses), dataset)
    elif numbers is None:
        result["answer"] = [dataset.parse(text) for text in texts]
    else:
        result["answer"] = np.argmax(numbers, axis=1)
        for index, probability in enumerate(np.array(numbers).T):
            result[f"p_{index}"] = probability
    for attribute in dataset.attributes:
        result[attribute] = table[attribute].to_numpy()
    return result


def _read(written: pd.DataFrame, dataset: Dataset) -> pd.DataFrame:
    """Find the class that each text names, where there are classes."""
    if dataset.classes:
        written["answer"] = [dataset.parse(text) for text in written["text"]]
    return written


def adjusted(
    method: Method, run: Run, validation: pd.DataFrame, test: pd.DataFrame, dataset: Dataset
) -> pd.DataFrame:
    """Let a method revise the test predictions without seeing the targets (nor, mostly, the groups)."""
    hidden = [
        *({"target", "reference", "loss"} & set(test.columns)),
        *(() if method.group_at_test else dataset.attributes),
    ]
    revised = method.adjust(run, validation.copy(), test.drop(columns=hidden))
    scores = [column for column in map(str, test.columns) if column.startswith("p_")]
    needed = ["text"] if dataset.task == "generate" else ["answer", *scores]
    lost = {"id", *needed} - set(map(str, revised.columns))
    if lost:
        raise FairbenchError(
            f"{method.name}.adjust lost the columns {', '.join(sorted(lost))}",
            "return the test rows with their answers changed, `test.assign(answer=…)`",
        )
    if list(revised["id"]) != list(test["id"]):
        raise FairbenchError(
            f"{method.name}.adjust must return the test rows it was given, in their order",
            "return `test.assign(answer=…)`",
        )
    if dataset.task == "generate":
        if not revised["text"].map(lambda text: isinstance(text, str)).all():
            raise FairbenchError(
                f"{method.name}.adjust returned a text that is none", "a text is a str, empty where there is none"
            )
        revised = _read(revised, dataset)
    if not revised[scores].map(lambda share: 0 <= share <= 1).all(axis=None):
        raise FairbenchError(f"{method.name}.adjust returned a probability outside 0 to 1", "give fractions")
    if scores and not revised["answer"].isin(range(len(scores))).all():
        raise FairbenchError(
            f"{method.name}.adjust returned an answer that is no class",
            "an answer is a class index, from 0 on",
        )
    if scores and "target" in test:
        known = list(run.job.attributes) if method.group_at_test else []
        _follows(method, revised["answer"].to_numpy(), revised[scores].to_numpy(), test, known)
    return revised.assign(**{column: test[column].to_numpy() for column in hidden})[list(test.columns)]


def _follows(method: Method, answer: Places, scores: Floats, test: pd.DataFrame, attributes: Sequence[str]) -> None:
    """Refuse answers that do not follow from the probabilities beside them.

    The most probable class does. So do, of two classes, answers by a cut, a group's own where it is known; drawn
    between cuts they may be right by luck, 3 standard deviations of it, more often than by any cut.
    """
    two = scores.shape[1] == 2
    given = scores[np.arange(len(answer)), answer]
    if (answer == scores.argmax(axis=1)).all() if two else (given == scores.max(axis=1)).all():
        return
    target = test["target"].to_numpy()
    right = int((answer == target).sum())
    most = 0.0
    if two:
        groups = test.groupby(list(attributes), dropna=False, observed=True).indices if attributes else {"": ...}
        most = sum(_most_right(scores[rows, 1], target[rows] == 1) for rows in groups.values())
        most += 1.5 * math.sqrt(len(answer))
    if right > most:
        raise FairbenchError(
            f"{method.name}.adjust returned answers that do not follow from its probabilities: {right:,} of "
            f"{len(answer):,} are right, more than by any cut of them"
        )


def _most_right(p: Floats, positive: npt.NDArray[np.bool_]) -> int:
    """Return how many rows the best cut answers right."""
    order = np.argsort(-p, kind="stable")
    gained = np.concatenate([[0], np.cumsum(np.where(positive[order], 1, -1))])
    return int((~positive).sum() + gained.max())
