"""Open image files of unknown origin, and look at each of them only once."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image, ImageFile, ImageOps

from fairbench.data import dicom
from fairbench.errors import FairbenchError

# A 16-bit chest radiograph has some 12 million pixels, a mammogram 30; beyond this, PIL itself grows wary.
MAX_PIXELS = 80_000_000
MAX_BYTES = 1 << 29
# Decoders that read pixels and do nothing else: EPS, for one, would start Ghostscript.
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP", "JPEG2000", "PPM")


class Unreadable(Exception):
    """An image cannot be used, and why."""


def open_image(source: Path | BinaryIO) -> Image.Image:
    """Decode an image to RGB.

    The first frame counts, the camera's orientation is applied, transparency goes onto black, and
    16-bit grey is divided by 257 (65535 → 255). DICOM has rules of its own (`dicom.first_frame`) and
    needs pydicom. Raises Unreadable for a file that is damaged, too large, of another format, or whose
    pixels have no stated range (floats, 32-bit beyond 65535).
    """
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise FairbenchError(
            "PIL is set to accept truncated images", "leave PIL.ImageFile.LOAD_TRUNCATED_IMAGES False"
        )
    try:
        if _is_dicom(source):
            return dicom.first_frame(source, MAX_PIXELS)
        with Image.open(source, formats=FORMATS) as image:
            check_size(image)
            return _rgb(ImageOps.exif_transpose(image))
    except (Unreadable, FairbenchError):
        raise
    except Exception as error:  # decoders raise nearly anything on damaged input
        raise Unreadable(_reason(error)) from error


def check_size(image: Image.Image) -> None:
    """Refuse an image with more pixels than any medical image has, before decoding it."""
    if image.width * image.height > MAX_PIXELS:
        raise Unreadable(f"{image.width}×{image.height} pixels are more than {MAX_PIXELS:,}")


def peek(path: Path) -> None:
    """Read an image's header only; raises Unreadable, or what the decoder raises."""
    if _is_dicom(path):
        dicom.measure(path, MAX_PIXELS)
    else:
        with Image.open(path, formats=FORMATS) as image:
            check_size(image)


def open_array(source: Path | BinaryIO, key: str) -> npt.NDArray[np.generic]:
    """Read one array of a numpy archive (npz), which never runs anything that the file says.

    Raises Unreadable for a damaged archive, an array that is not there, is too large, or holds Python
    objects, which only a pickle could restore.
    """
    try:
        with zipfile.ZipFile(source) as archive:
            held = [name.removesuffix(".npy") for name in archive.namelist()]
            if key not in held:
                raise Unreadable(f"it has no array `{key}`, only {', '.join(held) or 'nothing'}")
            with archive.open(f"{key}.npy") as member:
                version = np.lib.format.read_magic(member)
                read = (
                    np.lib.format.read_array_header_1_0
                    if version == (1, 0)
                    else np.lib.format.read_array_header_2_0
                )
                shape, _, kind = read(member)
                if kind.hasobject:
                    raise Unreadable(f"array `{key}` holds Python objects, which only a pickle could restore")
                if math.prod(shape) > MAX_PIXELS:
                    raise Unreadable(f"array `{key}` has {math.prod(shape):,} values, more than {MAX_PIXELS:,}")
                if math.prod(shape) * kind.itemsize > 8 * MAX_PIXELS:
                    raise Unreadable(f"array `{key}` would unpack to {math.prod(shape) * kind.itemsize:,} bytes")
            with archive.open(f"{key}.npy") as member:
                return np.lib.format.read_array(member, allow_pickle=False)
    except Unreadable:
        raise
    except Exception as error:  # zipfile and numpy raise nearly anything on damaged input
        raise Unreadable(_reason(error)) from error


def _is_dicom(source: Path | BinaryIO) -> bool:
    if isinstance(source, Path):
        with source.open("rb") as file:
            return _is_dicom(file)
    head = source.read(dicom.HEAD)
    source.seek(0)
    return dicom.is_dicom(head)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        grey = np.asarray(image)
        if grey.min() < 0 or grey.max() > 65535:
            raise Unreadable(f"grey values from {grey.min()} to {grey.max()} are not 16-bit")
        image = Image.fromarray((grey / 257.0).round().astype(np.uint8))
    if image.mode == "F":
        raise Unreadable("floating-point pixels have no stated range")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return image.convert("RGB")


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, PIL.UnidentifiedImageError):
        return f"not an image of a known format ({', '.join(FORMATS)}, DICOM)"
    if isinstance(error, Image.DecompressionBombError):
        return f"it claims more pixels than {MAX_PIXELS:,}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return " ".join(str(error).split()) or type(error).__name__
