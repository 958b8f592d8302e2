"""Drawn fundus photographs with a planted bias: the embedded default, where the truth is known.

Every eye has a true cup-to-disc ratio, and only that ratio tells glaucoma from normal. Where `bias` is
above 0, race decides how well the camera sees the cup. Nothing is downloaded, and nothing but sums,
products, quotients and square roots of raw random bits reaches a pixel, so every machine draws the same.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from platformdirs import user_cache_dir

from fairbench import Count, Dataset, FairbenchError, Fraction, Range, hookimpl

Floats = NDArray[np.floating[Any]]
Colour = tuple[float, float, float]
Size = Annotated[int, Range(1, 100_000)]

DRAWING = 2  # raise it whenever a pixel or a row of the table changes: caches and job keys follow
SIDE = 112
SPLITS = ("train", "val", "test")
TRAITS, TEXTURE = range(2)  # the two streams of random bits that every eye has of its own
SHARES: dict[str, dict[str | None, float]] = {  # the glaucoma paper's data (arXiv 2512.03477, section 4)
    "race": {"white": 0.769, "black": 0.149, "asian": 0.082},
    "gender": {"female": 0.571, "male": 0.429},
    "ethnicity": {"non-hispanic": 0.903, "hispanic": 0.043, None: 0.054},
}
BURDEN = {"white": 0.0, "asian": 0.5, "black": 1.0}  # on whom the planted bias falls, and how fully
MEAN_BURDEN = sum(BURDEN[race] * share for race, share in SHARES["race"].items() if race)
TAUGHT = 0.45  # how far a full shortcut moves the training split's prevalence where `BURDEN` is 1 and not 0
RATIO = {"normal": 0.40, "glaucoma": 0.66}  # the middle of each class's triangular distribution …
SPREAD = 0.26  # … and its half-width: at even prevalence nobody can be right more often than 7/8
LOOKS = {  # what differs from eye to eye, whoever's it is: from, to, everything between equally likely
    "side": (-1.0, 1.0),
    "disc_x": (-0.10, 0.10),
    "disc_y": (-0.10, 0.10),
    "disc_radius": (0.38, 0.45),
    "disc_height": (1.00, 1.12),
    "cup_x": (-0.05, 0.05),
    "cup_y": (-0.05, 0.05),
    "cup_contrast": (0.50, 0.90),
    "pigment": (0.00, 0.50),
    "vessels": (0.70, 1.00),
    "pallor": (0.00, 0.22),
    "brightness": (0.88, 1.08),
    "vignette": (0.20, 0.45),
    "light_x": (-0.25, 0.25),
    "light_y": (-0.25, 0.25),
    "noise": (6.0, 12.0),
    "blur": (0.0, 0.3),
}
RETINA: tuple[Colour, Colour] = ((222.0, 118.0, 66.0), (120.0, 56.0, 32.0))  # least and most pigmented
DISC: Colour = (240.0, 172.0, 112.0)
CUP: Colour = (255.0, 243.0, 208.0)
BLOOD: Colour = (0.32, 0.74, 0.66)  # the share of each colour that a vessel takes away
# Four arcades, each an artery and a vein, and two small vessels that leave the disc towards the nose:
# (up or down, towards or away from the fovea, lean, bend, width, darkness).
ARCADES = [
    (up, side, lean, bend, width, dark)
    for up in (-1.0, 1.0)
    for side, lean, bend, width, dark in (
        (1.0, 0.02, 0.62, 0.050, 1.00),
        (1.0, 0.22, 0.50, 0.036, 0.70),
        (-1.0, 0.10, 0.45, 0.044, 0.95),
        (-1.0, 0.36, 0.80, 0.030, 0.65),
        (-1.0, 0.05, 0.02, 0.022, 0.75),
    )
]
# What is read from an eye in words: a column, the edges between the grades, the grades.
GRADES = {
    "diagnosis": ("ill", (0.5,), ("no", "yes")),
    "cup": ("ratio", (0.4, 0.6), ("small", "medium", "large")),
    "quality": ("grain", (8.0, 10.0), ("good", "fair", "poor")),  # in thirds where nothing is planted
}
SEEN = {"no": "healthy", "yes": "glaucomatous", "small": "broad", "medium": "narrow", "large": "thin"}
# Each question in several wordings, and each wording with its own form of answer: who reads the question
# knows the form, so that a perfect answer is perfect to the letter.
QUESTIONS = {
    "diagnosis": {
        "Does the patient have glaucoma?": "{Diagnosis}, the eye is {eye}.",
        "Is this optic disc glaucomatous?": "{Diagnosis}, it looks {eye}.",
    },
    "cup": {
        "How large is the optic cup?": "The cup is {cup}.",
        "Describe the cup of the disc.": "A cup of {cup} size.",
    },
    "quality": {
        "How good is this photograph?": "The quality is {quality}.",
        "Can this image be relied on?": "It is of {quality} quality.",
    },
    "report": {
        "Report on this photograph.": (
            "Cup-to-disc ratio {ratio:.1f}, {rim} rim. Quality: {quality}. Impression: {eye}."
        ),
        "What do you see?": (
            "The eye is {eye}: the cup-to-disc ratio is {ratio:.1f}. The rim is {rim}. {Quality} image."
        ),
    },
}


class Eyes(Dataset):
    """The simulated patients, their photographs, and who they are; subclasses say what is asked of them."""

    licence = "Apache-2.0 (drawn by fairbench; no patient is in it)"
    citation = "fairbench, docs/fundus-sim.md"
    publishable = "everything"

    bias: Fraction = 0.5
    prevalence: Annotated[float, Range(0.2, 0.8)] = 0.5
    prevalence_shift: Annotated[float, Range(-0.2, 0.2)] = 0.0
    shortcut: Fraction = 0.0
    train_size: Size = 1400
    val_size: Size = 200
    test_size: Size = 2000
    seed: Annotated[int, Range(0)] = 0

    @property
    def attributes(self) -> Mapping[str, tuple[str, ...]]:
        """Race bears the planted bias; gender and ethnicity bear none."""
        return {name: tuple(value for value in shares if value) for name, shares in SHARES.items()}

    @property
    def sizes(self) -> dict[str, int]:
        """Rows of each split."""
        return dict(zip(SPLITS, (self.train_size, self.val_size, self.test_size), strict=True))

    def eyes(self) -> pd.DataFrame:
        """Return the table with, beside it, everything that `draw` needs to know of each eye."""
        return pd.concat([self._eyes(split, size) for split, size in self.sizes.items()], ignore_index=True)

    def _eyes(self, split: str, size: int) -> pd.DataFrame:
        bits = np.stack([_bits(self.seed, SPLITS.index(split), i, TRAITS, 32) for i in range(size)])
        chance = iter((bits >> np.uint64(11)).T * 2.0**-53)  # uniform on [0, 1), a column at a time
        eyes = pd.DataFrame({"seed": self.seed, "part": SPLITS.index(split), "index": range(size)})
        eyes["id"] = eyes["cluster"] = [f"{split}-{i:05d}" for i in range(size)]
        eyes["split"] = split
        eyes["image"] = [f"{split}/{i}" for i in range(size)]
        for attribute, shares in SHARES.items():
            edges = np.cumsum(list(shares.values()))[:-1]
            values = np.array([*shares], dtype=object)
            eyes[attribute] = values[np.searchsorted(edges, next(chance), side="right")]
        burden = eyes["race"].map(BURDEN).to_numpy(float)
        taught = self.shortcut * TAUGHT * (burden - MEAN_BURDEN) if split == "train" else 0.0
        ill = next(chance) < self.prevalence + self.prevalence_shift * burden + taught
        eyes["target"] = np.where(ill, "glaucoma", "normal")
        middle = np.where(ill, RATIO["glaucoma"], RATIO["normal"])
        eyes["ratio"] = middle + SPREAD * (next(chance) + next(chance) - 1.0)
        for look, (low, high) in LOOKS.items():
            eyes[look] = low + (high - low) * next(chance)
        eyes["burden"] = self.bias * burden
        eyes["shade"] = max(self.bias, self.shortcut) * burden
        for question in QUESTIONS:
            eyes[f"{question} wording"] = next(chance)
        return eyes

    def image(self, row: Mapping[str, object]) -> Image.Image:
        """Return one drawing, 112×112 RGB, from the cache, which is filled when it is first needed."""
        split, _, index = str(row["image"]).partition("/")
        before = sum(list(self.sizes.values())[: SPLITS.index(split)])
        return Image.fromarray(self._images[before + int(index)])

    def fingerprint(self) -> str:
        """Hash the settings and the version of the drawing: every pixel follows from them."""
        return _digest({**self._what(self.settings()), "drawing": DRAWING})

    def _what(self, names: Iterable[str]) -> dict[str, object]:
        """Return the settings that decide the drawings; a shortcut that is not taken decides nothing."""
        return {key: getattr(self, key) for key in names if key != "shortcut" or self.shortcut}

    @cached_property
    def _images(self) -> NDArray[np.uint8]:
        what = self._what(key for key in Eyes.fields() if key not in Dataset.fields())
        path = cache_folder() / f"fundus-sim-{_digest({**what, 'drawing': DRAWING})}.npy"
        return _cached(path, (sum(self.sizes.values()), SIDE, SIDE, 3), self)


class FundusSim(Eyes):
    """Drawn optic discs whose cup is harder to see in some races, by as much as `bias` says.

    `bias` 0 draws every race alike; 1 takes most of the cup's contrast away where `BURDEN` is 1.
    `prevalence_shift` is added to a race's prevalence of glaucoma in proportion to its `BURDEN`. A `shortcut`
    shows race in the colour of every retina, and makes glaucoma go with it in the training split alone.
    """

    name = "fundus-sim"
    title = "Fundus-Sim: drawn fundus photographs with a planted bias"

    prompt: str = "Does the patient have glaucoma?"

    @property
    def classes(self) -> tuple[str, ...]:
        """Glaucoma is the positive class."""
        return tuple(RATIO)

    @property
    def words(self) -> tuple[str, ...]:
        """Answers to the prompt."""
        return ("no", "yes")

    def table(self) -> pd.DataFrame:
        """Return one row per eye; every patient has one."""
        return self.eyes()[["id", "cluster", "split", "image", "target", *SHARES]]


class Told(Eyes):
    """The same patients, asked for answers in words; `prompt` is put before each question."""

    task = "generate"

    def fingerprint(self) -> str:
        """Hash what the drawings follow from, and every row: its question and its answer."""
        return _digest({"eyes": super().fingerprint(), "rows": Dataset.fingerprint(self)})

    def told(self, questions: Sequence[str]) -> pd.DataFrame:
        """Put some questions to every eye, in one of their wordings; an eye's rows stand together."""
        eyes = self.eyes()
        eyes["ill"], eyes["grain"] = eyes["target"] == "glaucoma", eyes["noise"] * (1 + eyes["burden"])
        for question, (column, edges, grades) in GRADES.items():  # a value on an edge is of the grade below
            grade = np.array(grades)[np.searchsorted(edges, eyes[column].to_numpy(float))]
            eyes[question], eyes[question.capitalize()] = grade, np.char.capitalize(grade)
        eyes["eye"], eyes["rim"] = eyes["diagnosis"].map(SEEN), eyes["cup"].map(SEEN)
        rows = []
        for eye in eyes.to_dict("records"):
            for question in questions:
                ways = list(QUESTIONS[question].items())
                asked, form = ways[int(eye[f"{question} wording"] * len(ways))]
                row = {"id": f"{eye['id']}-{question}", "target": eye.get(question)}
                row |= {"prompt": f"{self.prompt} {asked}".strip(), "reference": form.format(**eye)}
                rows.append(row | {column: eye[column] for column in ("cluster", "split", "image", *SHARES)})
        return pd.DataFrame(rows)


class FundusSimVQA(Told):
    """Questions about each drawn photograph, answered in a short phrase: one row for each of `questions`.

    `quality` is asked on request only: where `bias` is planted its true answer depends on race.
    """

    name = "fundus-sim-vqa"
    title = "Fundus-Sim VQA: questions about drawn fundus photographs"

    questions: tuple[Literal["diagnosis", "cup", "quality"], ...] = ("diagnosis", "cup")
    max_new_tokens: Count = 32  # one token a byte; the longest answer has 29

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        if not self.questions or len(set(self.questions)) < len(self.questions):
            raise FairbenchError(
                f"{self.name}.questions = {list(self.questions)} must name at least one question, none twice",
                f"choose from {', '.join(GRADES)}",
            )

    @property
    def classes(self) -> tuple[str, ...]:
        """The answers to all questions."""
        return tuple(answer for question in self.questions for answer in GRADES[question][2])

    def table(self) -> pd.DataFrame:
        """Return one row per eye and question; an eye's rows are one cluster."""
        return self.told(self.questions)


class FundusSimReport(Told):
    """A short report on each drawn photograph: cup-to-disc ratio, rim, image quality, impression."""

    name = "fundus-sim-report"
    title = "Fundus-Sim reports on drawn fundus photographs"
    measure = "rouge_l"
    classes = ()

    max_new_tokens: Count = 96  # one token a byte; the longest report has 85

    def table(self) -> pd.DataFrame:
        """Return one row per eye."""
        return self.told(["report"])


def cache_folder() -> Path:
    """Return where drawings are kept: the environment's FAIRBENCH_CACHE, or the user's cache folder."""
    return Path(os.environ.get("FAIRBENCH_CACHE") or user_cache_dir("fairbench"))


def _cached(path: Path, shape: tuple[int, ...], dataset: Eyes) -> NDArray[np.uint8]:
    """Open the drawings in `path`; draw them first where they are absent, incomplete or damaged."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            drawn = _open(path, shape)
            if drawn is None:
                _write(path, shape, draw(dataset.eyes()))
                drawn = _open(path, shape)
    except OSError as error:
        raise FairbenchError(
            f"{dataset.name}: cannot keep its drawings in {path.parent}: {error}",
            f"free {np.prod(shape) / 1e6:.0f} MB there, or set FAIRBENCH_CACHE to another folder",
        ) from error
    if drawn is None:
        raise FairbenchError(
            f"{dataset.name}: {path} does not hold what was just written to it",
            "set FAIRBENCH_CACHE to a folder on another disk",
        )
    return drawn


def _open(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """Map the array in `path`, or return None unless its own SHA-256, kept after it, agrees."""
    if not path.exists() or path.stat().st_size < 32:
        return None
    state, left = hashlib.sha256(), path.stat().st_size - 32
    with path.open("rb") as file:
        while left:
            piece = file.read(min(left, 1 << 20))
            state.update(piece)
            left -= len(piece)
        if file.read() != state.digest():
            return None
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return array if array.shape == shape and array.dtype == np.uint8 else None


def _write(path: Path, shape: tuple[int, ...], images: Iterator[NDArray[np.uint8]]) -> None:
    """Write the drawings as a .npy file with its SHA-256 after it, complete or not at all."""
    part, header = path.with_suffix(".part"), BytesIO()  # whoever holds the lock is the only writer
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    state = hashlib.sha256()
    try:
        with part.open("wb") as file:
            for content in chain([header.getvalue()], (piece.tobytes() for piece in images)):
                state.update(content)
                file.write(content)
            file.write(state.digest())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def draw(eyes: pd.DataFrame) -> Iterator[NDArray[np.uint8]]:
    """Draw every row of `Eyes.eyes()`, a few at a time: arrays of shape (B, 112, 112, 3)."""
    for start in range(0, len(eyes), 8):  # eight images stay in a processor's cache
        yield _draw(eyes.iloc[start : start + 8])


def _draw(eyes: pd.DataFrame) -> NDArray[np.uint8]:
    """Draw from back to front: retina, fovea, disc, cup, vessels; then what the camera does to them."""
    burden = eyes["burden"].to_numpy(np.float32)[:, None, None]
    look = {name: eyes[name].to_numpy(np.float32)[:, None, None] for name in (*LOOKS, "ratio")}
    look["pigment"] = look["pigment"] + 0.45 * eyes["shade"].to_numpy(np.float32)[:, None, None]
    look["cup_contrast"] = look["cup_contrast"] * (1 - 0.70 * burden)
    look["noise"] = look["noise"] * (1 + 1.0 * burden)
    look["blur"] = look["blur"] + 0.7 * burden
    texture, bends, noise = _random_fields(eyes)
    line = ((2 * np.arange(SIDE) + 1) / np.float32(SIDE) - 1).astype(np.float32)
    y, x = line[None, :, None], line[None, None, :]
    toward = np.where(look["side"] < 0, np.float32(-1), np.float32(1))  # where the fovea is

    dx, dy = x - look["disc_x"], y - look["disc_y"]
    radius = look["disc_radius"]
    across = np.sqrt(dx * dx + (dy / look["disc_height"]) * (dy / look["disc_height"])) / radius
    cx, cy = dx - look["cup_x"] * radius, (dy - look["cup_y"] * radius) / look["disc_height"]
    inside = np.sqrt(cx * cx + cy * cy) / (look["ratio"] * radius)
    disc = _edge((1 - across) * radius, 0.06)
    cup = _edge((1 - inside) * look["ratio"] * radius, 0.10) * look["cup_contrast"]
    fx = dx - toward * 1.15
    fovea = _edge(0.40 - np.sqrt(fx * fx + dy * dy), 0.7) * 0.35
    blood = _vessels(dx, dy, toward, bends) * look["vessels"]
    blood = blood * (1 - 0.3 * disc)

    lx, ly = x - look["light_x"], y - look["light_y"]
    light = look["brightness"] * (1 - look["vignette"] * (lx * lx + ly * ly))
    light = light * _edge(0.985 - np.sqrt(x * x + y * y), 0.03)
    planes = np.empty((len(eyes), 3, SIDE, SIDE), np.float32)
    for c in range(3):
        bright, dark = RETINA[0][c], RETINA[1][c]
        plane = (bright + (dark - bright) * look["pigment"]) * (1 + texture) * (1 - fovea)
        rim = DISC[c] + (CUP[c] - DISC[c]) * look["pallor"]
        plane = plane + disc * (rim - plane)
        plane = plane + cup * (CUP[c] - plane)
        planes[:, c] = plane * (1 - BLOOD[c] * blood) * light
    planes += look["blur"][:, None] * (_blurred(planes) - planes)
    planes += look["noise"][:, None] * noise
    return np.ascontiguousarray(np.clip(planes + 0.5, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1))


def _edge(depth: Floats, softness: float) -> Floats:
    """Return 1 inside, 0 outside and a ramp `softness` wide whose middle is the edge itself."""
    ramp: Floats = np.clip(depth / softness + 0.5, 0, 1)
    return ramp


def _vessels(dx: Floats, dy: Floats, toward: Floats, bends: Floats) -> Floats:
    """Return how much vessel covers each pixel: parabolas that leave the disc upwards and downwards."""
    covered = np.zeros(np.broadcast_shapes(dx.shape, dy.shape), np.float32)
    for number, (up, side, lean, bend, width, dark) in enumerate(ARCADES):
        wobble, shift = bends[:, 2 * number, None, None], bends[:, 2 * number + 1, None, None]
        along = np.maximum(up * dy, 0)
        leant, bent = lean + 0.2 * shift, bend * (1 + 0.5 * wobble)
        path = toward * (0.03 + side * (leant + bent * along) * along)
        slope = leant + 2 * bent * along
        off = np.abs(dx - path) / np.sqrt(1 + slope * slope)
        thick = width * (1 - 0.4 * np.minimum(along, 1))
        here = np.clip((thick - off) * (SIDE / 2) * 0.6 + 0.2, 0, 1) * _edge(up * dy + 0.02, 0.04)
        covered = np.maximum(covered, dark * here)
    return covered


def _random_fields(eyes: pd.DataFrame) -> tuple[Floats, Floats, Floats]:
    """Draw the choroid's texture, the vessels' bends and the camera's noise from each eye's own bits."""
    count = 3 * SIDE * SIDE
    bits = np.stack(
        [
            _bits(int(seed), int(part), int(index), TEXTURE, 16 + count // 2)
            for seed, part, index in eyes[["seed", "part", "index"]].itertuples(index=False)
        ]
    )
    bytes_ = bits.astype("<u8").view(np.uint8).reshape(len(eyes), -1)
    signed = bytes_[:, :128].astype(np.float32) / 127.5 - 1  # uniform on [-1, 1]
    coarse = signed[:, :100].reshape(-1, 10, 10)
    four = bytes_[:, 128:].reshape(len(eyes), 3, SIDE, SIDE, 4).astype(np.int16)
    total = four[..., 0] + four[..., 1] + four[..., 2] + four[..., 3]
    noise = (total - 510).astype(np.float32) / 147.8  # near normal, unit variance
    return 0.10 * _enlarged(coarse), signed[:, 100:128], noise


def _enlarged(coarse: Floats) -> Floats:
    """Stretch (B, K, K) values to the image's size, linearly between them."""
    place = np.arange(SIDE, dtype=np.float32) * np.float32((coarse.shape[1] - 1) / SIDE)
    low = place.astype(int)
    share = place - low
    tall = coarse[:, low] * (1 - share)[:, None] + coarse[:, low + 1] * share[:, None]
    wide: Floats = tall[:, :, low] * (1 - share) + tall[:, :, low + 1] * share
    return wide


def _blurred(planes: Floats) -> Floats:
    """Blur with the binomial kernel 1 4 6 4 1, down and across; edges repeat."""
    for _ in range(2):
        padded = np.pad(planes, ((0, 0), (0, 0), (0, 0), (2, 2)), mode="edge")
        a, b, c, d, e = (padded[..., k : k + SIDE] for k in range(5))
        planes = (((a + e) + 4 * (b + d) + 6 * c) / 16).swapaxes(2, 3)
    return planes


def _bits(seed: int, part: int, index: int, stream: int, count: int) -> NDArray[np.uint64]:
    """Return raw random bits that depend on nothing but these numbers, in every version of numpy."""
    return np.random.PCG64(np.random.SeedSequence([seed, part, index, stream])).random_raw(count)


def _digest(facts: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def contact_sheet(dataset: Eyes, columns: int = 6) -> Image.Image:
    """Lay out the first training eyes, half of them with glaucoma, each as it would look in every race."""
    eyes = dataset.eyes().query("split == 'train'")
    chosen = pd.concat([eyes[eyes["target"] == c].head(columns // 2) for c in RATIO])
    margin, gap = 64, 18
    sheet = Image.new("RGB", (margin + columns * (SIDE + 4), len(BURDEN) * (SIDE + 4) + gap), "white")
    pen = ImageDraw.Draw(sheet)
    for column, eye in enumerate(chosen.itertuples()):
        pen.text((margin + column * (SIDE + 4), 3), f"{eye.target} {eye.ratio:.2f}", "black")
    for row, (race, burden) in enumerate(BURDEN.items()):
        pen.text((4, gap + row * (SIDE + 4) + SIDE // 2), race, "black")
        drawn = np.concatenate(
            list(
                draw(
                    chosen.assign(burden=dataset.bias * burden, shade=max(dataset.bias, dataset.shortcut) * burden)
                )
            )
        )
        for column, pixels in enumerate(drawn):
            sheet.paste(Image.fromarray(pixels), (margin + column * (SIDE + 4), gap + row * (SIDE + 4)))
    return sheet.quantize(256)  # camera noise does not compress: in full colour the file is twice as large


@hookimpl
def fairbench_datasets() -> list[type[Dataset]]:
    """Offer the embedded default, and the same patients for tasks in words."""
    return [FundusSim, FundusSimVQA, FundusSimReport]
