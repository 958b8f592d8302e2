"""Turn a DICOM file's first frame into 8-bit RGB, by rules that are stated."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from fairbench.errors import FairbenchError

Floats = npt.NDArray[np.float64]

HEAD = 1024  # bytes that tell what a file is
MAGIC = b"DICM"  # after 128 bytes that mean nothing
# The first element of old files that lack both: a length, a character set, or the kind of image.
UNMARKED = tuple(b"\x08\x00" + element for element in (b"\x00\x00", b"\x01\x00", b"\x05\x00", b"\x08\x00"))
DEFLATED = b"1.2.840.10008.1.2.1.99"
# PS3.3 C.11.2.1.2 and C.11.2.1.3, from 0 to 1 before clipping: values, centre, width.
WINDOWS: dict[str, Callable[[Floats, float, float], Floats]] = {
    "LINEAR": lambda x, centre, width: (x - (centre - 0.5)) / max(width - 1, 1e-9) + 0.5,
    "LINEAR_EXACT": lambda x, centre, width: (x - centre) / width + 0.5,
    "SIGMOID": lambda x, centre, width: (1 + np.tanh(2 * (x - centre) / width)) / 2,
}


def is_dicom(head: bytes) -> bool:
    """Tell from a file's first `HEAD` bytes whether it is DICOM."""
    return head[128:132] == MAGIC or head.startswith(UNMARKED)


def first_frame(source: Path | BinaryIO, most: int) -> Image.Image:
    """Decode the first frame to RGB.

    Grey values are rescaled (slope and intercept, or a table), then the first window makes 0 to 255 of
    them; without a window, the file's table for display; without either, all that up to 8 bits can say, or of
    more bits the frame's own range. MONOCHROME1 is inverted; colours come from a palette, YBR or RGB. Raises
    FairbenchError where pydicom is not installed, and anything else for a file that cannot be decoded or has
    more than `most` pixels.
    """
    pixels = _pydicom().pixels
    described = _read(source, most)
    if "PixelData" not in described:
        raise ValueError(f"a DICOM file without pixel data (modality {described.get('Modality', 'not stated')})")
    syntax = described.file_meta.TransferSyntaxUID
    if syntax.is_compressed and not pixels.get_decoder(syntax).is_available:
        raise ValueError(f"its pixels are compressed by {syntax.name}, for which pydicom has no decoder here")
    stored = pixels.pixel_array(described, index=0)
    if described.PhotometricInterpretation == "PALETTE COLOR":
        stored = pixels.apply_color_lut(stored, described)
        return _eight_bit(stored / np.iinfo(stored.dtype).max)
    if stored.ndim == 3:
        return _eight_bit(stored / (2**described.BitsStored - 1))
    grey = _grey(stored, described)
    return _eight_bit(1 - grey if described.PhotometricInterpretation == "MONOCHROME1" else grey)


def measure(source: Path | BinaryIO, most: int) -> None:
    """Read a file's header only; raises like `first_frame`."""
    _read(source, most, stop_before_pixels=True)


@cache
def _pydicom() -> ModuleType:
    try:
        import pydicom
        import pydicom.pixels
    except ImportError as error:
        raise FairbenchError(
            f"DICOM images need pydicom ({error})", "pip install 'fairbench[dicom]', or convert them to PNG"
        ) from error
    return pydicom


def _read(source: Path | BinaryIO, most: int, **options: Any) -> Any:
    """Return the file's elements, those of its first frame included; pixels are not decoded yet."""
    pydicom = _pydicom()
    if isinstance(source, Path):
        with source.open("rb") as file:
            return _read(file, most, **options)
    if DEFLATED in source.read(HEAD):
        raise ValueError("a deflated DICOM file: what it unpacks to has no bound; convert it with dcmconv")
    source.seek(0)
    described = pydicom.dcmread(source, force=True, **options)
    rows, width = int(described.get("Rows") or 0), int(described.get("Columns") or 0)
    if rows * width > most:
        raise ValueError(f"{width}×{rows} pixels are more than {most:,}")
    if "TransferSyntaxUID" not in described.file_meta:  # old files: never compressed
        orders = {True: pydicom.uid.ExplicitVRLittleEndian, False: pydicom.uid.ExplicitVRBigEndian}
        described.file_meta.TransferSyntaxUID = orders[described.original_encoding[1]]
    # Enhanced files keep rescaling and windows one level down: for all frames, or for each.
    for kind in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in list(described.get(kind) or ())[:1]:
            for element in group:
                if element.VR == "SQ" and element.value:
                    described.update(element.value[0])
    return described


def _grey(stored: npt.NDArray[Any], described: Any) -> Floats:
    """Return grey values from 0 (black) to 1; those beyond are for the caller to clip."""
    pixels = _pydicom().pixels
    values = pixels.apply_modality_lut(stored, described).astype(np.float64)
    if described.get("WindowCenter") is not None and described.get("WindowWidth") is not None:
        centre, width = (float(np.ravel(described[key].value)[0]) for key in ("WindowCenter", "WindowWidth"))
        shape = described.get("VOILUTFunction") or "LINEAR"
        if shape not in WINDOWS or width <= 0:
            raise ValueError(f"its window has the function {shape} and the width {width:g}")
        return WINDOWS[shape](values, centre, width)
    if described.get("VOILUTSequence"):
        table = pixels.apply_voi(values.round().astype(np.int64), described)
        return np.asarray(table / (2.0 ** described.VOILUTSequence[0].LUTDescriptor[2] - 1))
    low, high = values.min(), values.max()
    if described.BitsStored <= 8:
        least = -(2 ** (described.BitsStored - 1)) if described.PixelRepresentation else 0
        ends = np.array([least, least + 2**described.BitsStored - 1])
        low, high = sorted(pixels.apply_modality_lut(ends, described))
    return np.asarray((values - low) / ((high - low) or 1))


def _eight_bit(shares: npt.NDArray[Any]) -> Image.Image:
    return Image.fromarray((np.clip(shares, 0, 1) * 255).round().astype(np.uint8)).convert("RGB")
