"""Open image files of unknown origin: one way to decode, one to look without decoding."""

from __future__ import annotations

import contextlib
import io
import math
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image, ImageFile, ImageOps, PngImagePlugin, TiffImagePlugin

from fairbench.data import dicom
from fairbench.errors import FairbenchError

# A 16-bit chest radiograph has some 12 million pixels, a mammogram 30; beyond this, PIL itself grows wary.
MAX_PIXELS = 80_000_000
MAX_BYTES = 1 << 29
# Decoders that read pixels and do nothing else: EPS, for one, would start Ghostscript.
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP", "JPEG2000", "PPM")


TAIL = 4096  # bytes at a file's end that are searched for its end marker
WIDTH, HEIGHT, BITS, ZERO, ORIENTATION, SAMPLES = 256, 257, 258, 262, 274, 339  # TIFF's tags
WHITE, BLACK = 0, 1  # what 0 can be
UNSIGNED, KINDS = 1, {2: "signed", 3: "floating-point"}  # what samples can be
SHORT = 3  # a number of 16 bits
TIFF = (b"II*\0", b"MM\0*", b"II+\0")
# From the grey or the levels of such a PNG to what Pillow makes of them; of the transparent one it makes nothing.
TO_8_BITS: dict[str, Callable[[int], int]] = {
    "L;2": lambda grey: grey % 4 * 85,
    "L;4": lambda grey: grey % 16 * 17,
    "RGB;16B": lambda level: level >> 8,
}

Grey = npt.NDArray[np.generic]
Shade = Callable[[Grey], npt.NDArray[np.uint8]]  # 16-bit grey → 8-bit


class Unreadable(Exception):
    """An image cannot be used, and why."""


def by_257(grey: Grey) -> npt.NDArray[np.uint8]:
    """Make 8-bit of 16-bit grey: 65535 becomes 255."""
    return np.asarray((grey / 257.0).round().astype(np.uint8))  # type: ignore[operator]


def open_image(source: Path | BinaryIO, shade: Shade = by_257) -> Image.Image:
    """Decode an image to RGB, always from its bytes: given a path, Pillow maps some files and reads them otherwise.

    The first frame counts, the camera's orientation is applied, transparency goes onto black, and `shade` makes
    8-bit of 16-bit grey (default: divided by 257, 65535 → 255). DICOM has rules of its own (`dicom.first_frame`)
    and needs pydicom. Raises Unreadable for a file that is damaged, too large, of another format, or whose pixels
    have no stated range (floats, 32-bit beyond 65535).
    """
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise FairbenchError(
            "PIL is set to accept truncated images", "leave PIL.ImageFile.LOAD_TRUNCATED_IMAGES False"
        )
    try:
        data = _whole(source)
        if dicom.is_dicom(data[: dicom.HEAD]):
            return dicom.first_frame(io.BytesIO(data), MAX_PIXELS)
        with _opened(io.BytesIO(data)) as image:
            kind = image.format
        if kind == "PNG":
            _check_sums(io.BytesIO(data))
        with _opened(io.BytesIO(data)) as image:
            bits, inverted = _depth(image)
            if isinstance(image, PngImagePlugin.PngImageFile):
                _mend_transparency(image)
            return _rgb(ImageOps.exif_transpose(image), bits, inverted, shade)
    except (Unreadable, FairbenchError):
        raise
    except Exception as error:  # decoders raise nearly anything on damaged input
        raise Unreadable(reason(error)) from error


def peek(file: BinaryIO) -> tuple[int, int]:
    """Return an image's width and height, having looked at its structure; raises what its decoder would.

    A JPEG that has its end, a PNG whose checksums are right and a DICOM file with all its bytes are whole, so no
    pixel is decoded; any other file is.
    """
    head = file.read(dicom.HEAD)
    file.seek(0)
    if dicom.is_dicom(head):
        return dicom.measure(file, MAX_PIXELS)
    with _opened(file) as image:
        kind = image.format
        told = kind == "JPEG" or "exif" in image.info  # to look for it elsewhere, Pillow would decode a PNG
        turned = told and image.getexif().get(ORIENTATION, 1) in range(5, 9)
        size = (image.height, image.width) if turned else image.size
    file.seek(0)
    if kind == "PNG":
        _check_sums(file)
    elif kind != "JPEG" or not _ended(file):
        file.seek(0)
        return open_image(file).size
    return size


def _whole(source: Path | BinaryIO) -> bytes:
    if isinstance(source, Path):
        with source.open("rb") as file:
            return _whole(file)
    data = source.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise Unreadable(f"it has more than {MAX_BYTES:,} bytes")
    return data


def _opened(file: BinaryIO) -> Image.Image:
    """Read a header; raises Unreadable for more pixels than any medical image has, before one is decoded."""
    try:
        image: Image.Image = Image.open(file, formats=FORMATS)
    except PIL.UnidentifiedImageError as error:
        image = _turned(file, error)
    if image.width * image.height > MAX_PIXELS:
        raise Unreadable(f"{image.width}×{image.height} pixels are more than {MAX_PIXELS:,}")
    return image


def _turned(file: BinaryIO, error: Exception) -> Image.Image:
    """Open a TIFF of 12 or 16 bits whose 0 is white, of which Pillow reads few kinds: as if 0 were black.

    Its tag goes on saying what the file says. Raises Unreadable for any other kind of TIFF, and `error` for what
    is none, or damaged.
    """
    file.seek(0)
    if not (data := file.read(4)).startswith(TIFF):
        raise error
    data += file.read(MAX_BYTES)
    order, big = ("<" if data.startswith(b"II") else ">"), b"+" in data[2:4]
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if big else 8])
        start, stream = tags.next, io.BytesIO(data)
        stream.seek(start)
        tags.load(stream)
    except Exception:  # on damaged input Pillow raises nearly anything
        raise error from None
    if tags.next == start or not {WIDTH, HEIGHT} <= set(tags):  # the list of tags has no end, or is none
        raise error
    bits, samples, white = tags.get(BITS, (1,)), tags.get(SAMPLES, (UNSIGNED,)), tags.get(ZERO) == WHITE
    if white and samples == (UNSIGNED,) and bits in ((12,), (16,)):
        said, instead = (struct.pack(f"{order}HHIH", ZERO, SHORT, 1, value) for value in (WHITE, BLACK))
        with contextlib.suppress(SyntaxError):  # Pillow's own, where it knows no such pixels
            image = TiffImagePlugin.TiffImageFile(io.BytesIO(data[:start] + data[start:].replace(said, instead, 1)))
            image.tag_v2[ZERO] = WHITE
            return image
    told = (f"{' + '.join(map(str, bits))} bits", KINDS.get(samples[0]), "0 is white" if white else None)
    kind = ", ".join(filter(None, (*told, "little-endian" if order == "<" else "big-endian")))
    raise Unreadable(f"a TIFF of a kind that Pillow does not read: {kind}")


def _mend_transparency(image: PngImagePlugin.PngImageFile) -> None:
    """Say which colour of a PNG is transparent in the 8 bits to which Pillow brings its pixels."""
    clear, kind = image.info.get("transparency"), image.tile[0].args
    if clear is not None and kind in TO_8_BITS:
        to_8_bits = TO_8_BITS[kind]
        image.info["transparency"] = to_8_bits(clear) if isinstance(clear, int) else tuple(map(to_8_bits, clear))


def _check_sums(file: BinaryIO) -> None:
    """Hold every chunk of a PNG against its checksum, which decoding does not; raises where one is wrong."""
    with _opened(file) as image:
        image.verify()


def _ended(file: BinaryIO) -> bool:
    """Whether a JPEG has its end marker, padding aside; where it has not, it may still be whole."""
    file.seek(max(0, file.seek(0, io.SEEK_END) - TAIL))
    return file.read().rstrip(b"\0").endswith(b"\xff\xd9")


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
        raise Unreadable(reason(error)) from error


def _depth(image: Image.Image) -> tuple[int, bool]:
    """Return how many bits deep grey of up to 16 bits is, and whether 0 is white: above 8, Pillow ignores both."""
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    return min(16, int(tags.get(BITS, (16,))[0])), tags.get(ZERO) == WHITE


def _rgb(image: Image.Image, bits: int, inverted: bool, shade: Shade) -> Image.Image:
    if image.mode.startswith("I"):
        grey = np.asarray(image)
        if grey.min() < 0 or grey.max() > 65535:
            raise Unreadable(f"grey values from {grey.min()} to {grey.max()} are not 16-bit")
        top = 2**bits - 1
        grey = top - grey if inverted else grey
        if (clear := image.info.get("transparency")) is not None:  # of a PNG
            grey = np.where(grey == clear, 0, grey)
        image = Image.fromarray(shade(grey if bits == 16 else np.round(grey * (65535 / top))))
    if image.mode == "F":
        raise Unreadable("floating-point pixels have no stated range")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return image.convert("RGB")


def reason(error: Exception) -> str:
    """Say in a few words why a file could not be opened or decoded."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, PIL.UnidentifiedImageError):
        return f"not an image of a known format ({', '.join(FORMATS)}, DICOM)"
    if isinstance(error, Image.DecompressionBombError):
        return f"it claims more pixels than {MAX_PIXELS:,}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return " ".join(str(error).split()) or type(error).__name__
