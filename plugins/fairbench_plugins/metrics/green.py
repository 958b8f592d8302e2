"""GREEN: a language model lists the matching findings and the significant errors of a report."""

import os
import re
from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fairbench import FairbenchError, Metric, Predictions, hookimpl

GREEN = "FAIRBENCH_GREEN"
OBTAIN = f"`hf download StanfordAIMI/GREEN-radllama2-7b --local-dir F`, and set {GREEN}=F (13 GB, for a GPU)"
BATCH = 8
TOKENS = 2048  # of a prompt at most
WRITTEN = 2048  # of an analysis at most

# The prompt that the model was trained on, to the letter: github.com/Stanford-AIMI/GREEN, green_score/utils.py.
PROMPT = """\
Objective: Evaluate the accuracy of a candidate radiology report in comparison to a reference radiology report \
composed by expert radiologists.

    Process Overview: You will be presented with:

    1. The criteria for making a judgment.
    2. The reference radiology report.
    3. The candidate radiology report.
    4. The desired format for your assessment.

    1. Criteria for Judgment:

    For each candidate report, determine:

    The count of clinically significant errors.
    The count of clinically insignificant errors.

    Errors can fall into one of these categories:

    a) False report of a finding in the candidate.
    b) Missing a finding present in the reference.
    c) Misidentification of a finding's anatomic location/position.
    d) Misassessment of the severity of a finding.
    e) Mentioning a comparison that isn't in the reference.
    f) Omitting a comparison detailing a change from a prior study.
    Note: Concentrate on the clinical findings rather than the report's writing style. Evaluate only the findings \
that appear in both reports.

    2. Reference Report:
    {reference}

    3. Candidate Report:
    {text}

    4. Reporting Your Assessment:

    Follow this specific format for your output, even if no errors are found:
    ```
    [Explanation]:
    <Explanation>

    [Clinically Significant Errors]:
    (a) <Error Type>: <The number of errors>. <Error 1>; <Error 2>; ...; <Error n>
    ....
    (f) <Error Type>: <The number of errors>. <Error 1>; <Error 2>; ...; <Error n>

    [Clinically Insignificant Errors]:
    (a) <Error Type>: <The number of errors>. <Error 1>; <Error 2>; ...; <Error n>
    ....
    (f) <Error Type>: <The number of errors>. <Error 1>; <Error 2>; ...; <Error n>

    [Matched Findings]:
    <The number of matched findings>. <Finding 1>; <Finding 2>; ...; <Finding n>
    ```
"""


def read(analysis: str) -> float:
    """Read the score off an analysis: matched / (matched + significant errors), 0 where nothing matched."""
    matched = re.match(r"\d+(?=\.)", _section(analysis, "Matched Findings"))
    count = int(matched[0]) if matched else 0
    errors = _section(analysis, "Clinically Significant Errors")
    lines = re.findall(r"\(([a-f])\) (.*)", errors) or re.findall(r"\(([1-6])\) (.*)", errors)
    of_kind = {}
    for kind, line in sorted(lines):
        if number := re.search(r"(?<=: )\d+(?=\.)", line):
            of_kind[kind] = int(number[0])
    return count / (count + sum(of_kind.values())) if count else 0.0


def _section(analysis: str, name: str) -> str:
    section = re.search(rf"\[{name}\]:\s*(.*?)(?:\n\s*\n|\Z)", analysis, re.DOTALL)
    return section[1] if section and not section[1].startswith("No") else ""


class Judge:
    """The GREEN model, and the scores of the pairs it has judged."""

    def __init__(self, folder: str) -> None:
        import torch
        from transformers import AutoTokenizer, LlamaForCausalLM

        from fairbench import from_checkpoint

        if not Path(folder).is_dir():
            raise FairbenchError(f"{GREEN}={folder}: there is no such folder", OBTAIN)
        self.known: dict[tuple[str, str], float] = {}
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = torch.float16 if self.device == "cuda" else torch.float32
        self.model = from_checkpoint(Path(folder), LlamaForCausalLM, dtype)
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        self.model.eval().to(self.device)
        self.tokenizer.padding_side = "left"
        self.tokenizer.pad_token = self.tokenizer.eos_token

    def scores(self, pairs: list[tuple[str, str]]) -> npt.NDArray[np.float64]:
        """Score (text, reference) pairs, (n,); pairs of like length share a batch."""
        new = sorted({pair for pair in pairs if pair not in self.known}, key=lambda pair: len("".join(pair)))
        for start in range(0, len(new), BATCH):
            batch = new[start : start + BATCH]
            self.known.update(zip(batch, map(read, self.analyses(batch)), strict=True))
        return np.array([self.known[pair] for pair in pairs], dtype=np.float64)

    def analyses(self, pairs: list[tuple[str, str]]) -> list[str]:
        """Let the model write what it finds, greedily."""
        import torch

        inputs = self.tokenizer(
            [self.asked(*pair) for pair in pairs],
            padding=True,
            truncation=True,
            max_length=TOKENS,
            return_tensors="pt",
        ).to(self.device)
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        end = {"eos_token_id": self.tokenizer.eos_token_id, "pad_token_id": self.tokenizer.pad_token_id}
        with torch.inference_mode():
            written = self.model.generate(
                input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=WRITTEN, **end
            )
        return list(self.tokenizer.batch_decode(written[:, ids.shape[1] :], skip_special_tokens=True))

    def asked(self, text: str, reference: str) -> str:
        """Write one pair as the chat that the model was trained on."""
        prompt = PROMPT.format(text=text, reference=reference)
        return f"<|user|>\n{prompt}{self.tokenizer.eos_token}\n<|assistant|>\n"


@lru_cache(maxsize=1)
def _judge(folder: str) -> Judge:
    return Judge(folder)


def by_row(rows: Predictions) -> npt.NDArray[np.float64]:
    """Score each row by its GREEN, (n,), a fraction."""
    return _judge(os.environ[GREEN]).scores(rows.pairs)


@lru_cache(maxsize=1)
def _fingerprint(folder: str) -> str:
    from fairbench import checkpoint_fingerprint

    return checkpoint_fingerprint(folder)


def made_with() -> str:
    """Name the checkpoint by its fingerprint, and what ran it."""
    return f"GREEN {_fingerprint(os.environ[GREEN])}, greedy, transformers {version('transformers')}"


@hookimpl
def fairbench_metrics() -> Iterable[Metric]:
    """Offer GREEN."""
    return [
        Metric(
            name="green_score",
            title="GREEN",
            formula="mean over rows of matched findings / (matched findings + clinically significant errors), "
            "as the GREEN model lists them; 0 where nothing matches",
            source="Ostmeier et al. 2024 (arXiv 2405.03595)",
            each=by_row,
            scale="fraction",
            needs=("text",),
            checkpoint=GREEN,
            obtain=OBTAIN,
            made_with=made_with,
        )
    ]
