"""The first lines of a plugin of each kind: whole as they stand, so that they pass the conformance kit."""

from __future__ import annotations

import keyword
import re
from pathlib import Path

from fairbench import files as whole_files
from fairbench.errors import FairbenchError

LONGEST = 60  # characters of a name
METHOD = '''"""NAME: say in a line what it does."""

from torch import Tensor

from fairbench import Batch, Method, NonNegative, Outputs, hookimpl


class CLASS(Method):
    """Add strength · the gap between groups' mean losses. Say the idea, and where it is from (arXiv …, eq. …)."""

    name = "NAME"
    strength: NonNegative = 1.0

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        """Mean CE + strength · (largest − smallest mean loss of the batch's groups)."""
        return out.loss.mean() + self.strength * batch.gap(out.loss)


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer the method."""
    return [CLASS]
'''

METRIC = '''"""NAME: say in a line what it measures."""

import numpy as np
import numpy.typing as npt

from fairbench import Metric, Predictions, hookimpl


def by_row(rows: Predictions) -> npt.NDArray[np.float64]:
    """Score each row, (n,); NaN where a row does not enter."""
    return np.where(rows.answer == -1, 0.0, rows.answer == rows.target)


@hookimpl
def fairbench_metrics() -> list[Metric]:
    """Offer the metric."""
    return [
        Metric(
            name="NAME_",
            title="TITLE",
            formula="share of rows whose answer is the target",
            source="say where it is from",
            each=by_row,
            needs=("classes",),
        )
    ]
'''

DATASET = '''"""NAME: say whose images these are."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from fairbench import Dataset, ImageFolder, hookimpl

TABLE = "people.csv"


class CLASS(ImageFolder):
    """Images in a folder, and a table with a row for each: id, patient, split, image, diagnosis, sex."""

    name = "NAME"
    title = "TITLE"
    licence = "say under which terms they are given out"
    citation = "say whom to cite"
    homepage = "https://example.org"
    folder = ""
    prompt: str = "Is this eye ill?"
    classes = ("well", "ill")
    attributes = {"sex": ("female", "male")}

    def sources(self) -> list[Path]:
        """Name the files that the table is read from."""
        assert self.root is not None
        return [self.root / TABLE]

    def table(self) -> pd.DataFrame:
        """Read the table into the columns that fairbench knows; an empty sex is not recorded."""
        assert self.root is not None
        table = pd.read_csv(self.root / TABLE, dtype=str)
        names = {"patient": "cluster", "diagnosis": "target"}
        return self.readable(table.rename(columns=names))

    @classmethod
    def example(cls, folder: Path) -> Mapping[str, str]:
        """Write 48 made-up images of 24 patients in the format that `table` reads."""
        number = np.arange(48)
        table = pd.DataFrame(
            {
                "id": [f"i{n:02d}" for n in number],
                "patient": [f"p{n // 2:02d}" for n in number],
                "split": np.array(["train", "train", "val", "test"])[number // 2 % 4],
                "image": [f"{n:02d}.png" for n in number],
                "diagnosis": np.array(["well", "ill"])[number // 8 % 2],
                "sex": np.array(["female", "male"])[number % 2],
            }
        )
        table.to_csv(folder / TABLE, index=False)
        for n, image in enumerate(table["image"]):
            noise = np.random.default_rng(n).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(noise).save(folder / image)
        return {}


@hookimpl
def fairbench_datasets() -> list[type[Dataset]]:
    """Offer the dataset."""
    return [CLASS]
'''

BACKBONE = '''"""NAME: say which models these are."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel

from fairbench import Backbone, Inputs, hookimpl, tiny_tokenizer

SIDE = 8  # pixels
WIDTH = 16
IMAGE, PAD = 257, 256
DECODER = dict(
    hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, vocab_size=258
)


class CLASS(Backbone):
    """A small Llama behind a linear eye of two image tokens. Put your model in its place, verb by verb."""

    name = "NAME"
    rank = 4

    def construct(self) -> None:
        """Build eye and decoder from the configuration alone."""
        decoder = LlamaModel(LlamaConfig(**DECODER, bos_token_id=None, eos_token_id=None))
        self.model = nn.ModuleDict({"decoder": decoder, "eye": nn.Linear(3 * SIDE**2, 2 * WIDTH)})
        self.image_token_id, self.pad_token_id, self.end_token_id = IMAGE, PAD, PAD

    def load(self, dtype: torch.dtype) -> None:
        """Read the weights; here they are drawn from a fixed seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.construct()
        self.model.to(dtype)
        self.tokenizer = tiny_tokenizer(["<image>"], "")

    def fingerprint(self) -> str:
        """Name the weights."""
        return "NAME-0"

    @property
    def language_model(self) -> nn.Module:
        """The decoder, which LoRA is injected into."""
        return self.model["decoder"]

    @property
    def tokens(self) -> int:
        """About how many tokens an example takes: two for the image, and a prompt."""
        return 10

    def tokenise(self, text: str) -> list[int]:
        """Return token ids without special tokens."""
        return list(self.tokenizer.encode(text))

    def detokenise(self, ids: Sequence[int]) -> str:
        """Return the text of token ids."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def prepare(self, image: Image.Image, prompt: str) -> Inputs:
        """Make the tensors of one example: two image tokens, then the prompt."""
        pixels = torch.from_numpy(np.asarray(image.resize((SIDE, SIDE)), dtype=np.float32)).flatten()[None] / 255
        return {"input_ids": torch.tensor([IMAGE, IMAGE, *self.tokenise(prompt)]), "pixel_values": pixels}

    def encode(self, inputs: Inputs) -> Tensor:
        """Return the frozen vision features, one row for each image token."""
        eye = self.model["eye"]
        return eye((inputs["pixel_values"] - 0.5).to(eye.weight.dtype)).reshape(-1, WIDTH)

    def vocabulary_scores(self, hidden: Tensor) -> Tensor:
        """Return the vocabulary's logits."""
        return hidden @ self.language_model.get_input_embeddings().weight.T


@hookimpl
def fairbench_backbones() -> list[type[Backbone]]:
    """Offer the backbone."""
    return [CLASS]
'''

FILES = {"method": METHOD, "metric": METRIC, "dataset": DATASET, "backbone": BACKBONE}

TEST = '''"""It keeps the contract of a KIND."""

from fairbench.testing import parametrize_KIND

from MODULE import WHAT


@parametrize_KIND(SUBJECT)
def test_CONTRACT(check, KIND):
    check(KIND)
'''

DATASET_TEST = '''"""It keeps the contract of a dataset, on the folder of its own example."""

import pytest
from fairbench.testing import DATASET_CHECKS

from MODULE import CLASS


@pytest.mark.parametrize("check", DATASET_CHECKS)
def test_contract(check, tmp_path):
    dataset = CLASS(**CLASS.example(tmp_path))
    dataset.root = tmp_path
    check(dataset)
'''

PROJECT = """[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "fairbench-NAME"
version = "0.1.0"
description = "A KIND for fairbench"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["fairbench"]

[project.entry-points.fairbench]
KIND-NAME = "MODULE"

[tool.hatch.build.targets.wheel]
only-include = ["MODULE.py"]
"""

README = """# fairbench-NAME

A KIND for fairbench.

    pip install -e .
    fairbench check NAME
    pip install pytest && pytest
"""

Written = dict[str, str]


def check_name(name: str) -> None:
    """Raise FairbenchError for a name that is no short word of lower-case letters, digits and hyphens."""
    if not re.fullmatch(r"[a-z][a-z0-9]*([-_.][a-z0-9]+)*", name) or len(name) > LONGEST:
        raise FairbenchError(
            f"`{name:.60}` cannot be a name",
            "write lower-case letters and digits, joined by - where there are words",
        )


def files(kind: str, name: str, package: bool) -> Written:
    """Return what to write, by path: one file, or a package with an entry point, a test and a README.

    Raises FairbenchError for what cannot be a name.
    """
    check_name(name)
    module = re.sub(r"\W", "_", name)
    own = "".join(part.capitalize() for part in module.split("_"))
    if own in {*keyword.kwlist, *re.findall(r"\b[A-Z]\w*", FILES[kind])}:  # what Python or the file calls so
        own += kind.capitalize()
    words = {
        "NAME_": module,
        "NAME": name,
        "CLASS": own,
        "TITLE": " ".join(module.split("_")).capitalize(),
        "KIND": kind,
        "MODULE": f"fairbench_{module}",
        "WHAT": "fairbench_metrics" if kind == "metric" else "CLASS",
        "SUBJECT": "fairbench_metrics()[0]" if kind == "metric" else "CLASS",
        "CONTRACT": "contract",
    }

    def fill(text: str) -> str:
        for word in ("WHAT", "SUBJECT", *(w for w in words if w not in ("WHAT", "SUBJECT"))):
            text = text.replace(word, words[word])
        return text

    if not package:
        return {f"{module}.py": fill(FILES[kind])}
    folder = f"fairbench-{name}"
    return {
        f"{folder}/{words['MODULE']}.py": fill(FILES[kind]),
        f"{folder}/pyproject.toml": fill(PROJECT),
        f"{folder}/README.md": fill(README),
        f"{folder}/tests/test_{module}.py": fill(DATASET_TEST if kind == "dataset" else TEST),
    }


def write(wanted: Written, folder: Path) -> list[Path]:
    """Write files; raises FairbenchError, having written nothing, where one of them is there already."""
    paths = {folder / name: text for name, text in wanted.items()}
    for path in paths:
        if path.exists():
            raise FairbenchError(f"{path} is there already", "choose another name, or move it away")
    for path, text in paths.items():
        whole_files.write(path, text)
    return list(paths)
