"""How far logits move when images are read by torchvision instead of PIL: `python benchmarks/pixels.py FOLDER`.

FOLDER holds images; ten of them, evenly spread, go through a small random checkpoint of each architecture. Needs
torchvision, of the version that goes with the installed torch.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import architectures
import backbone_equality as equality
import torch
import transformers
from PIL import Image

from fairbench import plugins
from fairbench.jobs.job import Choice

PLUGINS = plugins.load(("backbone",))
QUESTION = "Is it malignant?"


@torch.no_grad()
def answers(
    folder: Path, pixels: str, template: str, pictures: list[Image.Image]
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return the next token's logits about each picture, (pictures, vocabulary), and what the model saw of it."""
    name = f"vlm:{folder.name}"
    settings = {"pixels": pixels} | ({"chat": template.replace("{}", "{prompt}")} if template else {})
    model = PLUGINS.make("backbone", Choice(name, settings), {name: folder})
    model.build(("no", "yes"), ("no", "yes"), torch.float32, torch.device("cpu"))
    examples = [model.prepare(picture, QUESTION) for picture in pictures]
    stacked = [model.stack([example]) for example in examples]
    logits = [model.vocabulary_scores(model.decode(one, model.encode(one))[-1][:, -1])[0] for one in stacked]
    return torch.stack(logits), [example["pixel_values"].float() for example in examples]


def main() -> None:
    transformers.logging.set_verbosity_error()
    files = sorted(path for path in Path(sys.argv[1]).iterdir() if path.suffix.lower() in (".jpg", ".png"))
    pictures = [Image.open(file).convert("RGB") for file in files[:: max(1, len(files) // 10)][:10]]
    print("| `model_type` | pixels: largest, mean | logits / SD, largest | same token |\n| --- | --: | --: | --: |")
    for case in map(equality.architecture, architectures.ARCHITECTURES):
        with tempfile.TemporaryDirectory() as name:
            folder = equality.save(case, Path(name) / "drawn")
            pil, seen = answers(folder, "pil", case.template, pictures)
            other, also = answers(folder, "torchvision", case.template, pictures)
        apart = torch.cat([(one - two).abs().flatten() for one, two in zip(seen, also, strict=True)])
        logits = float((pil - other).abs().max() / pil.std())
        same = int((pil.argmax(-1) == other.argmax(-1)).sum())
        print(
            f"| `{case.what}` | {apart.max():.3f}, {apart.mean():.1e} | {logits:.4f} | {same} of {len(pictures)} |"
        )


if __name__ == "__main__":
    main()
