"""Show for every bundled method a setting in which theory says that it must help, and whether it does.

    python benchmarks/when_it_works.py [--seeds 0-4] [--workers 2] [--methods gr,hybrid]

A small model (`ToyBackbone`, width 16, LoRA and head) learns to tell bright from dark in drawn squares, through the
training loop that every benchmark uses. The upper half of a square is the true cue, the lower half another one:

- *shortcut*: the lower half is easy and tells the site, and in training the site goes with the answer in 90 %.
- *rare group*: for 10 % of the patients, one site, the answer stands in the lower half.
- *environments*: the lower half goes with the answer in 95 % at one site, in 75 % at the other, and in 10 % of
  the test patients; the upper half in 80 % everywhere.
- *offset*: one site's squares are brighter, and nothing else tells the site.
- *shift*: the same for 10 % of the patients, and the lower half tells which.
- *plant*: the lower half tells the site, which has nothing to do with the answer.
- *noise*: a third of the training answers are wrong, and training does not slow down.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fairbench import Method, Range, Stage, States, plugins
from fairbench.data.dataset import rows
from fairbench.testing.toys import Outcome, ToyBackbone, ToyDataset, train

LORA = {"rank": 8, "targets": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")}
CUE, PIXEL = 25.0, 30.0  # grey levels: how far a cue moves its half of the square, and the pixels' noise


class Cues(ToyDataset):
    """Squares whose upper and lower half are bright or dark; `setting` says by what."""

    name = "cues"
    attributes = {"site": ("a", "b")}
    rows_per_split = (800, 400, 2000)

    setting: Literal["shortcut", "rare group", "environments", "offset", "shift", "plant", "noise"] = "shortcut"
    draw: Annotated[int, Range(0)] = 0

    def table(self) -> pd.DataFrame:
        """Draw the rows of all splits; `image` is a number and the two halves' mean grey levels."""
        generator = np.random.default_rng([self.draw, 5])
        split = np.repeat(["train", "val", "test"], self.rows_per_split)
        taught = split == "train"
        sign = {name: np.where(generator.random(len(split)) < 0.5, 1, -1) for name in ("y", "coin", "site")}
        upper, lower, site, target = self.cues(generator, taught, **sign)
        wobble = generator.normal(0, [[20.0], [5.0]], (2, len(split)))
        level = 128 + CUE * np.stack([upper, lower]) + wobble
        names = [f"r{number:04d}" for number in range(len(split))]
        return pd.DataFrame(
            {
                "id": names,
                "cluster": names,
                "split": split,
                "image": [f"{number} {up:.3f} {low:.3f}" for number, (up, low) in enumerate(level.T)],
                "target": np.where(target > 0, "bright", "dark"),
                "site": np.where(site > 0, "a", "b"),
            }
        )

    def cues(self, generator: np.random.Generator, taught: Any, y: Any, coin: Any, site: Any) -> tuple[Any, ...]:
        """Return the two cues, the site and the answer of every row, each about −1 or 1."""

        def agree(odds: Any) -> Any:
            return np.where(generator.random(len(y)) < odds, y, -y)

        if self.setting == "shortcut":
            site = np.where(taught, agree(0.9), site)
            return y, site, site, y
        if self.setting == "rare group":
            site = np.where(generator.random(len(y)) < np.where(taught, 0.1, 0.5), -1, 1)
            return np.where(site > 0, y, coin), np.where(site > 0, coin, y), site, y
        if self.setting == "environments":
            return agree(0.8), agree(np.where(taught, np.where(site > 0, 0.95, 0.75), 0.1)), site, y
        if self.setting == "offset":
            return y + 0.8 * (site > 0), 0 * y, site, y
        if self.setting == "shift":
            site = np.where(generator.random(len(y)) < np.where(taught, 0.1, 0.5), -1, 1)
            return y + 1.6 * (site < 0), site, site, y
        if self.setting == "plant":
            return y, site, site, y
        return y, 0 * y, site, np.where(taught, agree(0.67), y)

    def image(self, row: Mapping[str, Any]) -> Image.Image:
        """Paint one square."""
        number, upper, lower = row["image"].split()
        pixels = np.random.default_rng([self.draw, 6, int(number)]).normal(0, PIXEL, (8, 8, 3))
        pixels[:4] += float(upper)
        pixels[4:] += float(lower)
        return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))

    def fingerprint(self) -> str:
        """Name the drawing."""
        return f"{self.setting}-{self.draw}"


# ── what is measured ─────────────────────────────────────────────────────────────────────────────


def tested(outcome: Outcome) -> pd.DataFrame:
    """Return the test rows with a column that says whether the answer is right."""
    test = outcome.predictions.query("split == 'test'")
    return test.assign(right=test["answer"] == test["target"])


def accuracy(outcome: Outcome, data: Cues) -> float:
    """Accuracy of everybody, %."""
    return 100 * float(tested(outcome)["right"].mean())


def worst_site(outcome: Outcome, data: Cues) -> float:
    """Accuracy of the worst site, %."""
    return 100 * float(tested(outcome).groupby("site")["right"].mean().min())


def worst_cell(outcome: Outcome, data: Cues) -> float:
    """Accuracy of the worst site × answer, %."""
    return 100 * float(tested(outcome).groupby(["site", "target"])["right"].mean().min())


def equalised_odds(outcome: Outcome, data: Cues) -> float:
    """The larger of the gaps in sensitivity and specificity, points."""
    rate = tested(outcome).groupby(["target", "site"])["right"].mean().unstack()
    return 100 * float((rate.max(axis=1) - rate.min(axis=1)).max())


def sensitivity(outcome: Outcome, data: Cues) -> float:
    """The gap in sensitivity, points."""
    rate = tested(outcome).query("target == 1").groupby("site")["right"].mean()
    return 100 * float(rate.max() - rate.min())


def readable(outcome: Outcome, data: Cues) -> float:
    """Balanced accuracy of a linear probe of the site, fitted on the trained model's states, %."""
    backbone, table = ToyBackbone(**LORA), rows(data).query("split != 'val'")
    backbone.build(data.classes, data.words, torch.float32, torch.device("cpu"))
    with torch.no_grad():
        for name, parameter in backbone.trainable().items():
            parameter.copy_(outcome.weights[name])
        examples = [backbone.prepare(data.image(row), data.prompt) for row in table.to_dict("records")]
        out = backbone(backbone.stack(examples), torch.full((len(table),), -1), States(normalise=True))
    assert out.states is not None
    states, taught = out.states.flatten(1).numpy(), (table["split"] == "train").to_numpy()
    reader = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    reader.fit(states[taught], table["site"][taught])
    return 100 * float(balanced_accuracy_score(table["site"][~taught], reader.predict(states[~taught])))


Measure = Callable[[Outcome, Cues], float]
LOWER_IS_BETTER = (equalised_odds, sensitivity, readable)
TRAINING = {
    "noise": Stage(epochs=8, lr=3e-3, warmup=10, decay="constant"),
    "plant": Stage(epochs=20, lr=3e-3, warmup=10),
}


@dataclass(frozen=True)
class Case:
    """A method in the setting where theory says that it must help, and by what that shows."""

    setting: str
    method: str
    measure: Measure
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The method as a leaderboard would name it."""
        told = ", ".join(f"{key}={value}" for key, value in self.settings.items())
        return f"{self.method}({told})" if told else self.method


CELLS = {"by": "group-class"}
CASES = (
    Case("shortcut", "resample", worst_cell, CELLS),
    Case("shortcut", "reweight", worst_cell, CELLS),
    Case("shortcut", "group-dro", worst_cell, CELLS),
    Case("shortcut", "gr", worst_cell, {**CELLS, "cap": 100.0}),
    Case("shortcut", "hybrid", worst_cell, {**CELLS, "cap": 100.0}),
    Case("shortcut", "jtt", worst_cell, {"share": 1.0, "up_weight": 20.0}),
    Case("shortcut", "fairtune", worst_cell),
    Case("shortcut", "dfr", worst_cell),
    Case("shortcut", "lisa", worst_cell, {"within_class": 1.0}),
    Case("shortcut", "distil", worst_cell),
    Case("rare group", "gr", worst_site),
    Case("rare group", "hybrid", worst_site),
    Case("rare group", "resample", worst_site),
    Case("rare group", "reweight", worst_site),
    Case("rare group", "group-dro", worst_site),
    Case("rare group", "min-group", worst_site, {"memory": 50}),
    Case("rare group", "fr", worst_site, {"strength": 1.0, "memory": 50}),
    Case("rare group", "loss-variance", worst_site, {"memory": 50}),
    Case("rare group", "fairclip-sinkhorn", worst_site, {"strength": 10.0}),
    Case("rare group", "focal", worst_site),
    Case("environments", "irm", accuracy, {"strength": 30.0, "anneal": 0.1}),
    Case("environments", "fishr", accuracy, {"strength": 100.0}),
    Case("shift", "coral", worst_site),
    Case("offset", "thresholds", sensitivity),
    Case("offset", "eq-odds", equalised_odds),
    Case("noise", "swad", accuracy),
    Case("plant", "min-mi", readable, {"strength": 1.0}),
    Case("plant", "adversarial", readable),
)


def trained(setting: str, method: str, settings: Mapping[str, Any], measure: Measure, seed: int) -> float:
    """Train one model in this process and measure it."""
    torch.set_num_threads(1)
    kind: type[Method] = plugins.load(("method",)).find("method", method)
    data = Cues(setting=setting, draw=seed)
    outcome = train(
        kind,
        dict(settings),
        backbone_settings=LORA,
        dataset=Cues,
        dataset_settings={"setting": setting, "draw": seed},
        stages=(TRAINING.get(setting, Stage(epochs=8, lr=3e-3, warmup=10)),),
        batch_size=32,
        seed=seed,
    )
    return measure(outcome, data)


def told(values: list[float]) -> str:
    """Write a mean with the lowest and highest value."""
    return f"{np.mean(values):.1f} ({min(values):.1f}–{max(values):.1f})"


def main() -> None:
    """Train everything, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0-4")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--methods", default="")
    options = parser.parse_args()
    first, _, last = options.seeds.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    wanted = options.methods.split(",") if options.methods else [case.method for case in CASES]
    cases = [case for case in CASES if case.method in wanted]
    plain = {(case.setting, case.measure) for case in cases}
    with ProcessPoolExecutor(options.workers, get_context("spawn")) as pool:
        base = {
            (setting, measure): [pool.submit(trained, setting, "vanilla", {}, measure, seed) for seed in seeds]
            for setting, measure in plain
        }
        ours = [
            [pool.submit(trained, case.setting, case.method, case.settings, case.measure, seed) for seed in seeds]
            for case in cases
        ]
        print("| setting | method | what should be better | vanilla | method | seeds in which it is |")
        print("| --- | --- | --- | ---: | ---: | ---: |")
        for case, runs in zip(cases, ours, strict=True):
            before = [run.result() for run in base[case.setting, case.measure]]
            after = [run.result() for run in runs]
            sign = -1 if case.measure in LOWER_IS_BETTER else 1
            better = sum(sign * (b - a) > 0 for a, b in zip(before, after, strict=True))
            what = (case.measure.__doc__ or "").rstrip(".").lower()
            print(
                f"| {case.setting} | `{case.label}` | {what} | {told(before)} | {told(after)} "
                f"| {better} of {len(seeds)} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
