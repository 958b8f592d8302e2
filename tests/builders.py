"""What several tests build: tables of people with their images, answers about them, calls of the command line."""

import io
import json
import signal
import struct
import zlib

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from fairbench.cli.main import main
from fairbench.jobs.job import Choice, Job, Record, Stage
from fairbench.jobs.store import Store
from fairbench.predictions.predictions import Predictions

GROUPS = {"black": 300, "white": 700}
BASE = {"role": "baseline"}

# What a name from data may hold: a formula, markup, script, a line break, a colour, reversed direction.
HOSTILE = "=cmd|' /C calc'!A0 `x` **b** <script>alert(1)</script> | a\n# head [l](javascript:x) \x1b[31m‮"

# Checks of the conformance kit that start another Python, which takes seconds each.
ELSEWHERE = (
    "check_order_and_fingerprint_are_the_same_elsewhere",
    "check_fingerprint_names_the_weights",
    "check_other_processes_learn_the_same",
)


def hears_ctrl_c():
    """Let a child hear Ctrl-C, which it would ignore where a shell put the tests into the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def sampled(cases, *fast, count=1, ids=None):
    """Make a test's parameters of cases: the `fast` ones, or the first `count`, in every run; all others slow."""
    assert all(case in cases for case in fast), "a case that is not there is in no run"
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)),
            id=ids(case) if ids else None,
            marks=[] if (case in fast if fast else place < count) else [pytest.mark.slow],
        )
        for place, case in enumerate(cases)
    ]


def kit_checks(checks):
    """Make a test's parameters of the kit's checks, of which those that start another Python are slow."""
    return [pytest.param(check, id=check.__name__, marks=_marks(check)) for check in checks]


def mutants(cases):
    """Make a test's parameters of (mutant, check, fault)."""
    return [pytest.param(*case, id=case[0].__name__, marks=_marks(case[1])) for case in cases]


def _marks(check):
    return [pytest.mark.slow] if check.__name__ in ELSEWHERE else []


def people(count=40, folder="", classes=("no", "yes")):
    """Make a dataset's table that keeps the contract: two rows a patient, three splits, some sex not recorded."""
    number = np.arange(count)
    return pd.DataFrame(
        {
            "id": [f"i{n:03d}" for n in number],
            "cluster": [f"c{n // 2:03d}" for n in number],
            "split": np.array(["train", "train", "val", "test"])[number // 2 % 4],
            "image": [f"{folder}{n}.png" for n in number],
            "target": np.array(classes)[number // 3 % 2],
            "sex": np.array(["female", "male", None], dtype=object)[number % 3],
            "age": [str(20 + n) for n in number],
        }
    )


def noise(seed=0, size=(8, 6)):
    """Draw an RGB image, (width, height), that looks like no other."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def write_dataset(folder, frame, name="people.csv", images=None, **options):
    """Write a table and, where there are none yet, its images (or those named); return the folder."""
    folder.mkdir(exist_ok=True, parents=True)
    frame.to_csv(folder / name, index=False, **options)
    for number, image in enumerate(frame["image"] if images is None else images):
        path = folder / image
        if not path.exists():
            path.parent.mkdir(exist_ok=True, parents=True)
            noise(number).save(path)
    return folder


ISIC = "ISIC2018_Task3_Training_"


def ham10000_example(path, packaging="kaggle", lesions=120):
    """Write a small folder in an official layout: `kaggle`, `dataverse`, `flat` or `isic`."""
    generator = np.random.default_rng(0)
    views = generator.choice([1, 2, 3], lesions, p=[0.75, 0.2, 0.05])
    lesion = np.repeat(np.arange(lesions), views)
    ages = generator.choice([0.0, 5.0, 40.0, 45.0, 60.0, 65.0, 70.0, 85.0, np.nan], lesions)
    sexes = generator.choice(["male", "female", "unknown"], lesions, p=[0.5, 0.45, 0.05])
    dx = generator.choice(
        ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"], lesions, p=[0.05, 0.08, 0.12, 0.05, 0.15, 0.5, 0.05]
    )
    table = pd.DataFrame(
        {
            "lesion_id": [f"HAM_{n:07d}" for n in lesion],
            "image_id": [f"ISIC_{24306 + n:07d}" for n in generator.permutation(len(lesion))],
            "dx": dx[lesion],
            "dx_type": generator.choice(["histo", "follow_up", "consensus", "confocal"], len(lesion)),
            "age": ages[lesion],
            "sex": sexes[lesion],
            "localization": generator.choice(["back", "face", "lower extremity", "unknown"], len(lesion)),
        }
    )
    half = sorted(table["image_id"])[len(table) // 2]
    folders = {
        "kaggle": ("HAM10000_images_part_1", "HAM10000_images_part_2"),
        "dataverse": ("HAM10000_images_part1", "HAM10000_images_part2"),
        "flat": (".", "."),
        "isic": (f"{ISIC}Input", f"{ISIC}Input"),
    }[packaging]
    for folder in folders:
        (path / folder).mkdir(parents=True, exist_ok=True)
    for image in table["image_id"]:
        noise = generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path / folders[int(image >= half)] / f"{image}.jpg")
    if packaging == "isic":
        truth = pd.DataFrame({"image": table["image_id"]})
        for code in ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"):
            truth[code] = (table["dx"] == code.lower()).astype(float)
        (path / f"{ISIC}GroundTruth").mkdir()
        truth.to_csv(path / f"{ISIC}GroundTruth/{ISIC}GroundTruth.csv", index=False)
        groups = table[["image_id", "lesion_id", "dx_type"]]
        groups.columns = ["image", "lesion_id", "diagnosis_confirm_type"]
        groups.to_csv(path / f"{ISIC}LesionGroupings.csv", index=False)
    elif packaging == "dataverse":
        table.assign(dataset="rosendahl").to_csv(path / "HAM10000_metadata", index=False)
    else:
        table.to_csv(path / "HAM10000_metadata.csv", index=False)
    return table


def opened(folder, kind, **settings):
    """Make a dataset of a kind that reads a folder."""
    dataset = kind(**settings)
    dataset.root = folder
    return dataset


def encoded(image, kind, **options):
    """Return an image's bytes in a file format."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_bomb(width, height):
    """Make a PNG of a few bytes that claims to be huge."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")


def patients(groups):
    """Make the rows of a test set without answers: a race with each group's size, gender, target."""
    n = sum(groups.values())
    table = pd.DataFrame({"id": [f"p{i}" for i in range(n)], "split": "test"})
    table["race"] = np.repeat([*groups], [*groups.values()])
    table["gender"] = np.where(np.arange(n) % 3 == 0, "male", "female")
    table["target"] = np.random.default_rng(7).integers(0, 2, n)
    return table


def accuracy_of(shares, groups=GROUPS, seed=0):
    """Say who is answered right: exactly the share of every group, at random within it."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.permutation(np.arange(n) < round(shares[g] * n)) for g, n in groups.items()])


def add(store, name, correct, *, attributes=("race",), seed=0, table=None, error=None, **changes):
    """Leave a record, and predictions that are right where `correct` says so."""
    about, started = changes.pop("about", {}), changes.pop("started", "2026-11-21T10:00:00+00:00")
    versions, settings = changes.pop("versions", {"fairbench": "0.1.0"}), changes.pop("settings", {})
    job = Job(
        Choice("toy", {}, "fairbench 0.1.0", changes.pop("fingerprint", "data-1")),
        Choice("tiny", {}, "fairbench 0.1.0", "weights-1"),
        Choice(name, settings, changes.pop("version", "fairbench 0.1.0")),
        (Stage(),),
        attributes,
        seed,
        **changes,
    )
    store.prepare(job)
    if error is None:
        table = (patients(GROUPS) if table is None else table).copy()
        table["answer"] = np.where(correct, table["target"], 1 - table["target"])
        table["p_1"] = np.where(table["answer"] == 1, 0.8, 0.2)
        table["p_0"] = 1 - table["p_1"]
        made_by = {"job": job.key, "started": started, "device": "cpu"}
        Predictions(table, ("no", "yes"), ("race", "gender")).save(store.predictions_file(job), made_by)
    cost = {"train": 12.0}, 10, 2**30, 1, 400, "cpu"
    store.save(Record(job, started, *cost, versions=versions, error=error, **about))
    return job


def scored(groups, seed=0, lean=0.0):
    """Make rows with scores, some equal, and the answers above one half; each next group scores `lean` higher."""
    rng = np.random.default_rng(seed)
    table = patients(groups).drop(columns="split")
    table["target"] = rng.integers(0, 2, len(table))
    offset = lean * np.repeat(np.arange(len(groups)), [*groups.values()])
    score = 0.3 + 0.3 * table["target"] + offset + rng.normal(0, 0.2, len(table))
    table["score"] = np.round(np.clip(score, 0, 1), 2)
    table["answer"] = (table["score"] > 0.5).astype(int)
    return table


def call(*words, code=0):
    """Run `fairbench WORDS` in this process; return its result once its status is as expected."""
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


def scored_runs(folder, groups=None):
    """Leave runs of a baseline and a method, two seeds each, with scores and losses of two stages."""
    store = Store(folder)
    for place, (name, role, used) in enumerate((("plain", "baseline", ()), ("fair", "contender", ("race",)))):
        for seed in (0, 1):
            rng = np.random.default_rng(10 * place + seed)
            table = patients(groups or {"asian": 30, "black": 300, "white": 700})
            table["p_1"] = np.clip(0.2 + 0.6 * table["target"] + rng.normal(0, 0.3, len(table)), 0, 1)
            table["p_0"] = 1 - table["p_1"]
            table["answer"] = (table["p_1"] > 0.5).astype(int)
            job = Job(Choice("toy", {}, "", "d"), Choice("tiny", {}, "", "w"), Choice(name), (Stage(),), used, seed)
            store.prepare(job)
            lines = [json.dumps({"stage": "a", "step": step, "loss": 1 / (1 + step)}) for step in range(300)]
            lines += ['{"stage": "b", "step": 0, "loss": 9.0}', '{"stage": "b", "st']  # the last is being written
            store.log_file(job).write_text("\n".join(lines))
            Predictions(table, ("no", "yes"), ("race", "gender")).save(store.predictions_file(job))
            store.save(Record(job, f"2026-11-2{seed}", {"train": 1.0}, 1, 1, 1, 1, role=role, versions={}))
    return store
