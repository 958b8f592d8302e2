"""CheXbert F1: whether a text reports the same findings as its reference, label by label."""

import os
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fairbench import FairbenchError, Metric, Predictions, Undefined, hookimpl

CHEXBERT = "FAIRBENCH_CHEXBERT"
OBTAIN = (
    "`hf download StanfordAIMI/RRG_scorers chexbert.pth --local-dir F`, "
    f"`hf download google-bert/bert-base-uncased vocab.txt --local-dir F`, and set {CHEXBERT}=F"
)
LABELS = (
    *("Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation"),
    *("Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture"),
    *("Support Devices", "No Finding"),
)
FIVE = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")
PRESENT = 1  # of a head's answers: blank, present, absent, uncertain; of the last head's: blank, present
TOKENS = 512
BATCH = 32

Flags = npt.NDArray[np.bool_]


class Labeller:
    """CheXbert: a BERT whose first state feeds 13 heads of four answers and one of two, and what it has read."""

    def __init__(self, folder: Path) -> None:
        import torch
        from tokenizers import BertWordPieceTokenizer

        self.known: dict[str, Flags] = {}
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            saved = torch.load(folder / "chexbert.pth", map_location="cpu", weights_only=True)
            weights = {name.removeprefix("module."): tensor for name, tensor in saved["model_state_dict"].items()}
            self.bert, self.heads = _built(weights)
            self.tokenizer = BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=True)
        except Exception as error:  # whatever was wrong with the files, say which and how to get good ones
            raise FairbenchError(f"{CHEXBERT}={folder}: cannot be loaded: {error}", OBTAIN) from error
        self.bert.eval().to(self.device)
        self.heads.to(self.device)
        self.tokenizer.enable_truncation(TOKENS)
        self.tokenizer.enable_padding()

    def present(self, texts: Sequence[str]) -> Flags:
        """Say of every text which of LABELS it reports as present, (n, 14); uncertain is not present."""
        new = sorted({text for text in texts if text not in self.known}, key=len)
        for start in range(0, len(new), BATCH):
            batch = new[start : start + BATCH]
            self.known.update(zip(batch, self._read(batch), strict=True))
        return np.array([self.known[text] for text in texts]).reshape(-1, len(LABELS))

    def _read(self, texts: list[str]) -> Flags:
        import torch

        encoded = self.tokenizer.encode_batch([" ".join(text.split()) for text in texts])
        ids = torch.tensor([one.ids for one in encoded], device=self.device)
        mask = torch.tensor([one.attention_mask for one in encoded], device=self.device)
        with torch.inference_mode():
            first = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]
            answers = torch.stack([head(first).argmax(1) for head in self.heads], dim=1)
        return (answers == PRESENT).cpu().numpy()


def _built(weights: dict[str, Any]) -> tuple[Any, Any]:
    """Build BERT and the heads in the sizes of the weights, and load them strictly."""
    import torch
    from transformers import BertConfig, BertModel

    words, width = weights["bert.embeddings.word_embeddings.weight"].shape
    config = BertConfig(
        vocab_size=words,
        hidden_size=width,
        num_hidden_layers=len({name.split(".")[3] for name in weights if name.startswith("bert.encoder.layer.")}),
        num_attention_heads=width // 64,
        intermediate_size=weights["bert.encoder.layer.0.intermediate.dense.weight"].shape[0],
        max_position_embeddings=weights["bert.embeddings.position_embeddings.weight"].shape[0],
    )
    bert = BertModel(config, add_pooling_layer=False)
    unused = ("bert.pooler.", "bert.embeddings.position_ids")  # the heads read no pooler
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith(unused)}
    part = {name.removeprefix("bert."): tensor for name, tensor in kept.items() if name.startswith("bert.")}
    bert.load_state_dict(part)
    heads = torch.nn.ModuleList(torch.nn.Linear(width, 4 if place < 13 else 2) for place in range(len(LABELS)))
    heads.load_state_dict(
        {name.removeprefix("linear_heads."): t for name, t in kept.items() if name.startswith("linear_heads.")}
    )
    return bert, heads


@lru_cache(maxsize=1)
def _labeller(folder: str) -> Labeller:
    return Labeller(Path(folder))


def f1(labels: Sequence[str], macro: bool) -> Callable[[Predictions], float]:
    """Compute F1 of the labels that texts report: their mean, or of all labels together."""
    columns = [LABELS.index(label) for label in labels]

    def over(rows: Predictions) -> float:
        texts, references = zip(*rows.pairs, strict=True)
        labeller = _labeller(os.environ[CHEXBERT])
        said, true = (labeller.present(column)[:, columns] for column in (texts, references))
        hits, positives = (said & true).sum(axis=0), true.sum(axis=0)
        if macro and not positives.all():
            raise Undefined(f"no reference with {labels[int(positives.argmin())]}")
        if not positives.any():
            raise Undefined("no reference with any of the labels")
        both = positives + said.sum(axis=0)  # 2 TP + FP + FN
        return float((2 * hits / both).mean() if macro else 2 * hits.sum() / both.sum())

    return over


def version() -> str:
    """Name the checkpoint by its hash."""
    return f"CheXbert {_digest(os.environ[CHEXBERT])}, uncertain is not present"


@lru_cache(maxsize=1)
def _digest(folder: str) -> str:
    import hashlib

    with (Path(folder) / "chexbert.pth").open("rb") as file:
        return f"chexbert.pth sha256 {hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"


@hookimpl
def fairbench_metrics() -> Iterable[Metric]:
    """Offer micro and macro F1 over CheXpert's 14 labels and over its five."""
    for labels in (LABELS, FIVE):
        for kind in ("micro", "macro"):
            yield Metric(
                name=f"chexbert_{kind}_f1_{len(labels)}",
                title=f"CheXbert {kind}-F1-{len(labels)}",
                formula="2 TP / (2 TP + FP + FN) of findings reported present, uncertain counted absent, "
                + ("mean over" if kind == "macro" else "all of")
                + (" the 14 CheXpert labels" if labels is LABELS else f" {', '.join(FIVE)}"),
                source="Smit et al. 2020 (arXiv 2004.09167)",
                over=f1(labels, macro=kind == "macro"),
                scale="fraction",
                needs=("text",),
                undefined="a label (micro: any label) is in no reference",
                checkpoint=CHEXBERT,
                obtain=OBTAIN,
                made_with=version,
            )
