"""What broken input prints: one clear message each (what, where, how), and the page that shows them all."""

import html
import io
import os
import re
import shutil
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from builders import encoded, noise, people, png_bomb, write_dataset
from fairbench_plugins.datasets.ham10000 import HAM10000
from fairbench_plugins.datasets.harvard_fairvlmed import HarvardFairVLMed
from fairbench_plugins.datasets.table import Table
from PIL import Image

from fairbench import Dataset, FairbenchError
from fairbench.data.dataset import rows
from fairbench.data.report import check

PAGE = Path(__file__).parents[2] / "docs" / "datasets.md"
START, END = "<!-- corrupt: begin -->\n", "<!-- corrupt: end -->"
COUNT = 40


# ── a folder in order, and the ways to break it ──────────────────────────────────────────────────


def glaucoma() -> pd.DataFrame:
    return people(COUNT, "scans/", ("healthy", "glaucoma")).assign(sex=np.resize(["female", "male"], COUNT))


def table(folder: Path) -> type[Dataset]:
    write_dataset(folder, glaucoma())
    return Table


def fairvlmed(folder: Path) -> type[Dataset]:
    HarvardFairVLMed.example(folder)
    return HarvardFairVLMed


def ham10000(folder: Path) -> type[Dataset]:
    made = glaucoma().rename(columns={"id": "image_id", "cluster": "lesion_id"})
    (folder / "HAM10000_images_part_1").mkdir(parents=True)
    for n, name in enumerate(made["image_id"]):
        noise(n).save(folder / f"HAM10000_images_part_1/{name}.jpg")
    made.assign(dx="nv").to_csv(folder / "HAM10000_metadata.csv", index=False)
    return HAM10000


def cell(column: str, value: str, row: int = 5) -> Callable[[Path], None]:
    """Write one cell of the table; row 5 of the data is line 7 of the file."""

    def spoil(folder: Path) -> None:
        path = next(folder.glob("*.csv"))
        written = pd.read_csv(path, dtype=str)
        written.loc[row, column] = value
        written.to_csv(path, index=False)

    return spoil


def column(name: str, values: object) -> Callable[[Path], None]:
    return lambda folder: glaucoma().assign(**{name: values}).to_csv(folder / "people.csv", index=False)


def text(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Change the bytes of the table."""

    def spoil(folder: Path) -> None:
        path = folder / "people.csv"
        path.write_bytes(change(path.read_bytes()))

    return spoil


def parquet(change: Callable[[bytes], bytes] = lambda data: data, **columns: object) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / "people.csv").unlink()
        buffer = io.BytesIO()
        glaucoma().assign(**columns).to_parquet(buffer)
        (folder / "people.parquet").write_bytes(change(buffer.getvalue()))

    return spoil


def image(data: bytes | Callable[[Path], None], name: str = "scans/5.png") -> Callable[[Path], None]:
    """Put something else in the place of one image."""

    def spoil(folder: Path) -> None:
        (folder / name).unlink()
        if isinstance(data, bytes):
            (folder / name).write_bytes(data)
        else:
            data(folder / name)

    return spoil


def npz(**arrays: object) -> Callable[[Path], None]:
    return image(lambda path: np.savez_compressed(path, **arrays), "Training/data_00003.npz")


def forged_npz(shape: tuple[int, ...], kind: str) -> Callable[[Path], None]:
    """An archive of a few bytes whose array claims to be huge."""
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (63 - (10 + len(header)) % 64) + b"\n"

    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(
                "slo_fundus.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(64)
            )

    return image(write, "Training/data_00003.npz")


def dicom(**said: object) -> bytes:
    made = pydicom.dcmread(Path(pydicom.__file__).parent / "data/test_files/MR_small.dcm")
    for key, value in said.items():
        if value is None:
            delattr(made, key)
        else:
            setattr(made, key, value)
    buffer = io.BytesIO()
    made.save_as(buffer)
    return buffer.getvalue()


def folder_instead(folder: Path) -> None:
    (folder / "people.csv").unlink()
    (folder / "people.csv").mkdir()


@dataclass(frozen=True, eq=False)
class Case:
    """One way to break a folder. `says` is a pattern of what must be printed; empty where it must be read."""

    what: str
    spoil: Callable[[Path], object]
    says: str = ""
    build: Callable[[Path], type[Dataset]] = table
    settings: dict[str, str] = field(default_factory=dict)


PLAIN = {
    "prompt": "Glaucoma?",
    "positive": "glaucoma",
    "attribute_columns": "sex,age",
    "bins": "age: 0-49, 50+",
}
WORDS = "\u00fcber"
CASES = [
    # the table's file
    Case("empty file", text(lambda _: b""), "people.csv is empty"),
    Case("header and nothing else", text(lambda data: data.splitlines()[0]), "has a header and no rows"),
    Case("byte order mark and CRLF", text(lambda data: b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n"))),
    Case("semicolons", text(lambda data: data.replace(b",", b";"))),
    Case(
        "an unknown delimiter", text(lambda data: data.replace(b",", b":")), "columns are separated by comma, semi"
    ),
    Case(
        "not UTF-8",
        text(lambda data: data.replace(b"i009", f"i{WORDS}".encode("cp1252"))),
        r"not written in utf-8 \(from byte \d+ on\)",
    ),
    Case("NUL bytes", text(lambda data: data.replace(b"i009", b"i\0")), "holds NUL bytes"),
    Case(
        "a delimiter in a cell without quotes",
        text(lambda d: d.replace(b"i005", b"i0, 05")),
        "line 7 has 8 cells",
    ),
    Case("cut short in the middle of a line", text(lambda data: data[:-9]), "line 41 has 5 cells, its header 7"),
    Case("a quote that never ends", text(lambda d: d.replace(b"i005", b'"i005')), "unexpected end of data"),
    Case(
        "two columns of one name",
        text(lambda data: data.replace(b"cluster", b"sex", 1)),
        "two columns called 'sex'",
    ),
    Case("truncated parquet", parquet(lambda data: data[:-30]), "people.parquet is no whole parquet file"),
    Case("a folder where the file should be", folder_instead, "is not a file"),
    Case("two tables", lambda f: shutil.copy(f / "people.csv", f / "old.csv"), r"which file .* is the table\?"),
    # its columns
    Case(
        "the wrong image column", lambda _: None, "none of the 40 images is there", settings={"image_column": "id"}
    ),
    Case("a column that is not there", lambda _: None, "no column 'eye'", settings={"cluster_column": "eye"}),
    Case(
        "duplicate id",
        cell("id", "i004"),
        "1 of id stand in several rows, for instance 'i004' in line 6 and 7",
    ),
    Case("no id", cell("id", ""), r"1 rows have no id \(the first: line 7\)"),
    Case("integers of twenty digits as id", column("id", [str(10**19 + n) for n in range(COUNT)])),
    Case(
        "integers that were rounded to floating point",
        parquet(id=[1e17 + 16 * n for n in range(COUNT)]),
        "may have lost its last digits",
    ),
    Case("no split in one row", cell("split", ""), "1 rows have no split"),
    Case("an unknown split", cell("split", "holdout"), "split is 'holdout' in line 7, which is not among train"),
    Case("no row in val", column("split", ["train"] * 20 + ["test"] * 20), "has no rows in val"),
    Case("a patient in two splits", cell("split", "test", 8), "clusters sit in more than one split.*c004"),
    Case("no label in one row", cell("target", "n/a"), "1 rows have no target"),
    Case(
        "a label outside the map",
        cell("target", "suspect"),
        "target is 'suspect' in line 7",
        settings={"positive": "", "order": "healthy,glaucoma"},
    ),
    Case(
        "two classes, neither known as positive",
        lambda _: None,
        "which of glaucoma and healthy",
        settings={"positive": ""},
    ),
    Case("a target of one class", column("target", "healthy"), r"target has one value \(healthy\)"),
    Case(
        "numbers as a target",
        column("target", [str(n / 7) for n in range(COUNT)]),
        "target has 40 values",
        settings={"most_groups": "20", "positive": ""},
    ),
    Case("an attribute that nobody has", column("sex", "unknown"), "sex is empty or unrecorded in every row"),
    Case("an attribute in codes", column("sex", ["0", "1"] * 20), "a number does not say who somebody is"),
    Case("an age without bins", lambda _: None, "age has 40 values", settings={"bins": ""}),
    Case("an age that is no number", cell("age", "adult"), "age is 'adult' in line 7, which lies in none of"),
    # paths
    Case(
        "a path out of the folder",
        cell("image", "../../etc/passwd"),
        "'../../etc/passwd' is not inside the data folder",
    ),
    Case("an absolute path", cell("image", "/etc/passwd"), "'/etc/passwd' is not inside the data folder"),
    Case("a drive letter", cell("image", "C:\\scans\\05.png"), "is not inside the data folder"),
    Case("NUL in a path", parquet(image=["a\0b.png"] * COUNT), "is not inside the data folder"),
    Case("an image that is not there", image(lambda path: None), "scans/5.png: there is no such file"),
    Case(
        "links that lead in a circle",
        image(lambda path: path.symlink_to(path.name)),
        "too many levels of symbolic links",
    ),
    Case("a folder where an image should be", image(lambda path: path.mkdir()), "scans/5.png: not a file"),
    # images
    Case("an empty image", image(b""), "not an image of a known format"),
    Case("a web page called png", image(b"<!doctype html><title>Log in</title>"), "not an image of a known format"),
    Case("truncated JPEG", image(encoded(noise(size=(24, 24)), "JPEG")[:-200]), "truncated"),
    Case("truncated PNG", image(encoded(noise(size=(200, 200)), "PNG")[:-9000]), "Truncated"),
    Case("a decompression bomb", image(png_bomb(60_000, 60_000)), "it claims more pixels than 80,000,000"),
    Case(
        "16-bit grey out of range",
        image(encoded(Image.fromarray(np.full((9, 9), 70_000, np.int32)), "TIFF")),
        "not 16-bit",
    ),
    Case(
        "floating-point pixels",
        image(encoded(Image.fromarray(np.ones((9, 9), np.float32)), "TIFF")),
        "no stated range",
    ),
    Case(
        "grey of 32 bits whose 0 is white",
        image(encoded(Image.fromarray(np.ones((9, 9), np.int32)), "TIFF", tiffinfo={262: 0})),
        "Pillow does not read: 32 bits, signed, 0 is white, little-endian",
    ),
    Case("DICOM without pixel data", image(dicom(PixelData=None)), r"without pixel data \(modality MR\)"),
    Case("DICOM that is cut short", image(dicom()[:-600]), "less than expected"),
    Case(
        "DICOM that claims to be huge",
        image(dicom(Rows=60_000, Columns=60_000)),
        "60000×60000 pixels are more than",
    ),
    Case("a black image", image(encoded(Image.new("RGB", (9, 9)), "PNG")), r"scans/5\.png: constant \(0, 0, 0\)"),
    Case(
        "one image in two splits",
        lambda f: shutil.copy(f / "scans/4.png", f / "scans/6.png"),
        "in several splits",
    ),
    # formats of single datasets
    Case(
        "npz that holds a pickle",
        npz(slo_fundus=np.array([{}], dtype=object)),
        "Python objects, which only a pickle",
        fairvlmed,
    ),
    Case("npz without its picture", npz(oct=np.zeros(3)), "no array `slo_fundus`, only oct", fairvlmed),
    Case(
        "npz that is cut short",
        image(b"PK\x03\x04" + bytes(50), "Training/data_00003.npz"),
        "not a zip file",
        fairvlmed,
    ),
    Case(
        "zip bomb: an array of too many values",
        forged_npz((10**6, 10**6), "|u1"),
        "more than 80,000,000",
        fairvlmed,
    ),
    Case(
        "zip bomb: an array of too long values",
        forged_npz((9,), "|S999999999"),
        "would unpack to 8,999,999,991 bytes",
        fairvlmed,
    ),
    Case("a diagnosis outside the list", cell("dx", "melanom"), "image i005 has dx 'melanom'", ham10000),
]


# ── what is printed ──────────────────────────────────────────────────────────────────────────────


def made(case: Case, folder: Path) -> Dataset:
    kind = case.build(folder)
    case.spoil(folder)
    dataset = kind(**({**PLAIN, **case.settings} if kind is Table else case.settings))
    dataset.root = folder
    return dataset


@pytest.fixture
def printed(tmp_path_factory) -> Callable[[Case], tuple[str, str]]:
    """What `run` says of a case and its hint; where it runs, the cautions of `data check`. Each is made once."""

    def say(case: Case) -> tuple[str, str]:
        if case not in SAID:
            SAID[case] = _say(case, tmp_path_factory.mktemp("corrupt") / "data")
        return SAID[case]

    return say


SAID: dict[Case, tuple[str, str]] = {}


def _say(case: Case, folder: Path) -> tuple[str, str]:
    try:
        dataset = made(case, folder)
        rows(dataset)
    except FairbenchError as error:
        return error.message.replace(str(folder), "FOLDER"), error.hint.replace(str(folder), "FOLDER")
    cautions = [text for text in check(dataset).cautions if "byte for byte" in text or "show nothing" in text]
    return (f"it is read; `data check` cautions: {cautions[0]}" if cautions else "nothing: it is read as it is"), ""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_one_message_says_what_where_and_how(case, printed):
    message, hint = printed(case)
    if not case.says:
        assert message == "nothing: it is read as it is"
        return
    said = f"{message}\n{hint}"
    assert re.search(case.says, said, re.DOTALL), said
    assert len(said.splitlines()) <= 2, "two lines"
    assert "Traceback" not in said
    assert re.search(r"FOLDER|scans/|data_|i0|table\.|dataset table", said), "it says where"


def test_there_are_enough():
    assert len({case.what for case in CASES}) == len(CASES) >= 25


@pytest.mark.parametrize("name", ["people.csv", "scans/5.png"])
def test_a_file_that_may_not_be_read(printed, name):
    def lock(folder: Path) -> None:
        (folder / name).chmod(0)
        if os.access(folder / name, os.R_OK):
            pytest.skip("this user may read everything")

    said = " ".join(printed(Case("", lock)))
    assert "permission denied" in said.lower()
    assert name in said


def test_few_damaged_images_are_left_out_with_a_warning(tmp_path):
    """What is an error above is a warning for one file among hundreds."""
    dataset = made(Case("", image(b"")), tmp_path / "data")
    dataset.unreadable_share = 0.1
    assert len(rows(dataset)) == COUNT - 1
    assert dataset.warnings[0].startswith("1 of 40 images cannot be read (scans/5.png: not an image")


def escaped(said: str) -> str:
    """Text in a cell of a table that may hold anything."""
    return re.sub(r"([|*_\[\]\\])", r"\\\1", html.escape(said, quote=False))


def test_the_page_shows_what_is_printed(printed):
    lines = ["| broken | what is printed | hint |", "|---|---|---|"]
    hints: set[str] = set()
    for case in CASES:
        message, hint = printed(case)
        if len(hint) > 80 and hint in hints:  # what is said of every damaged image need not be read twenty times
            message, hint = message.replace(": more than the 1.00% that are tolerated", " …"), "the same"
        hints.add(hint)
        lines.append(f"| {' | '.join(map(escaped, (case.what, message, hint)))} |")
    made_now = "\n".join([*lines, ""])
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(START)
    shown, after = rest.split(END)
    if os.environ.get("FAIRBENCH_WRITE_DOCS"):
        PAGE.write_text(f"{before}{START}{made_now}{END}{after}", encoding="utf-8")
        return
    if shown != made_now:
        pytest.fail(
            "docs/datasets.md is out of date: FAIRBENCH_WRITE_DOCS=1 python -m pytest tests/data/test_corrupt.py"
        )
