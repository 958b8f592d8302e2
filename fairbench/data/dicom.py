"""Turn a DICOM file's first frame into 8-bit RGB, by rules that are stated."""

from __future__ import annotations

import io
from functools import cache
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
DELIMITER = b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"  # what compressed pixels end with
TAIL = 4096


def is_dicom(head: bytes) -> bool:
    """Tell from a file's first `HEAD` bytes whether it is DICOM."""
    return head[128:132] == MAGIC or head.startswith(UNMARKED)


def first_frame(source: BinaryIO, most: int) -> Image.Image:
    """Decode the first frame to RGB.

    Grey values are rescaled (slope and intercept, or a table), then the first window makes 0 to 255 of
    them; without a window, the file's table for display; without either, all that up to 8 bits can say, or of
    more bits the frame's own range. Padding (PixelPaddingValue) is black and no part of that range. MONOCHROME1 is
    inverted; colours come from a palette, YBR or RGB. Raises FairbenchError where pydicom is not installed, and
    anything else for a file that cannot be decoded or has more than `most` pixels.
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
    padding = _padding(stored, described)
    grey = _grey(stored, described, padding)
    grey = 1 - grey if described.PhotometricInterpretation == "MONOCHROME1" else grey
    return _eight_bit(np.where(padding, 0.0, grey))


def measure(source: BinaryIO, most: int) -> tuple[int, int]:
    """Return width and height from a file's header, having seen that all bytes of its pixels are there.

    Raises like `first_frame`, which has the last word on a file that seems to be cut short.
    """
    described = _read(source, most, stop_before_pixels=True)
    start, end = source.tell(), source.seek(0, io.SEEK_END)
    size = int(described.get("Columns") or 0), int(described.get("Rows") or 0)
    if described.file_meta.TransferSyntaxUID.is_compressed:
        source.seek(max(0, end - TAIL))
        whole = DELIMITER in source.read()
    else:
        frames, samples = (int(described.get(key) or 1) for key in ("NumberOfFrames", "SamplesPerPixel"))
        bits = int(described.get("BitsAllocated") or 0) * samples * frames
        whole = 0 < size[0] * size[1] * bits <= 8 * (end - start)
    source.seek(0)
    return size if whole else first_frame(source, most).size


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


def _read(source: BinaryIO, most: int, **options: Any) -> Any:
    """Return the file's elements, those of its first frame included; pixels are not decoded yet."""
    pydicom = _pydicom()
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


def _padding(stored: npt.NDArray[Any], described: Any) -> npt.NDArray[np.bool_]:
    """Mark the stored values that fill up the frame (PS3.3 C.7.5.1.1.2): one value, or all up to the limit."""
    if described.get("PixelPaddingValue") is None:
        return np.zeros(stored.shape, dtype=np.bool_)
    limit = described.get("PixelPaddingRangeLimit")
    ends = [described.PixelPaddingValue, described.PixelPaddingValue if limit is None else limit]
    low, high = sorted(_signed(int(end), described) for end in ends)
    return (stored >= low) & (stored <= high)


def _signed(value: int, described: Any) -> int:
    """Read a value of signed pixels that the file holds as an unsigned one: 63536 is -2000 in 16 bits."""
    bits = described.BitsAllocated
    return value - 2**bits if described.PixelRepresentation and value >= 2 ** (bits - 1) else value


def _grey(stored: npt.NDArray[Any], described: Any, padding: npt.NDArray[np.bool_]) -> Floats:
    """Return grey values from 0 (black) to 1; those beyond are for the caller to clip."""
    pydicom = _pydicom()
    pixels = pydicom.pixels
    values = pixels.apply_modality_lut(stored, described).astype(np.float64)
    if described.get("WindowCenter") is not None and described.get("WindowWidth") is not None:
        window = pydicom.Dataset()  # the values are rescaled already: one bit of output is 0 to 1
        window.PhotometricInterpretation, window.BitsStored, window.PixelRepresentation = "MONOCHROME2", 1, 0
        for key in ("WindowCenter", "WindowWidth", "VOILUTFunction"):
            if described.get(key) is not None:
                window.add(described[key])
        return np.asarray(pixels.apply_windowing(values, window), dtype=np.float64)
    if described.get("VOILUTSequence"):
        table = pixels.apply_voi(values.round().astype(np.int64), described)
        return np.asarray(table / (2.0 ** described.VOILUTSequence[0].LUTDescriptor[2] - 1))
    content = values if padding.all() else values[~padding]
    low, high = content.min(), content.max()
    if described.BitsStored <= 8:
        least = -(2 ** (described.BitsStored - 1)) if described.PixelRepresentation else 0
        ends = np.array([least, least + 2**described.BitsStored - 1])
        low, high = sorted(pixels.apply_modality_lut(ends, described))
    return np.asarray((values - low) / ((high - low) or 1))


def _eight_bit(shares: npt.NDArray[Any]) -> Image.Image:
    return Image.fromarray((np.clip(shares, 0, 1) * 255).round().astype(np.uint8)).convert("RGB")
