"""Images of unknown origin: stated rules for odd ones, one error for bad ones, each looked at once."""

import contextlib
import io
import multiprocessing
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from builders import encoded, noise, png_bomb
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from fairbench import FairbenchError
from fairbench.data import images, inspection
from fairbench.data.images import Unreadable, open_array, open_image
from fairbench.data.inspection import Look, inspect


def saved(image, kind, **options):
    return io.BytesIO(encoded(image, kind, **options))


JPEG = encoded(noise(size=(40, 30)), "JPEG")
PNG = encoded(noise(size=(40, 30)), "PNG")


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_divided_by_257(kind):
    grey = np.array([[0, 257, 25700, 65535]], dtype=np.uint16)
    opened = np.asarray(open_image(saved(Image.fromarray(grey), kind)))
    assert opened.tolist() == [[[0] * 3, [1] * 3, [100] * 3, [255] * 3]]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("mode", "kind"), [("L", "TIFF"), ("RGB", "TIFF"), ("RGB", "JPEG")])
def test_orientation_is_the_same_from_path_and_bytes(tmp_path, mode, kind, orientation):
    """Against the eight transpositions as TIFF 6.0 defines them, on a ramp that none of them leaves as it is."""
    ramp = np.add.outer(3 * np.arange(30), np.arange(40)).astype(np.uint8)
    turned = {
        1: ramp, 2: ramp[:, ::-1], 3: ramp[::-1, ::-1], 4: ramp[::-1],
        5: ramp.T, 6: ramp[::-1].T, 7: ramp[::-1, ::-1].T, 8: ramp[:, ::-1].T,
    }  # fmt: skip
    options = {"tiffinfo": {0x0112: orientation}} if kind == "TIFF" else {}
    if kind == "JPEG":
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = orientation
    path = tmp_path / "turned"
    path.write_bytes(encoded(Image.fromarray(ramp).convert(mode), kind, **options))
    one, other = open_image(path), open_image(io.BytesIO(path.read_bytes()))
    assert (np.asarray(one) == np.asarray(other)).all()
    assert np.abs(np.asarray(one)[..., 0].astype(int) - turned[orientation]).max() <= (3 if kind == "JPEG" else 0)
    with path.open("rb") as file:
        assert images.peek(file) == one.size


def tiff(grey, bits=16, zero=0, sample=1, order="<", orientation=1, compression=1):
    """A TIFF of one strip, written here by the standard: Pillow writes few of these kinds."""
    pixels = grey.astype(grey.dtype.newbyteorder(order)).tobytes() if bits != 12 else twelve(grey)
    pixels = zlib.compress(pixels) if compression == 8 else pixels
    height, width = grey.shape
    short = {256: width, 257: height, 258: bits, 259: compression, 262: zero, 274: orientation, 277: 1, 278: height}
    entries = [(tag, 3, struct.pack(f"{order}HH", value, 0)) for tag, value in {**short, 339: sample}.items()]
    entries += [(tag, 4, struct.pack(f"{order}I", value)) for tag, value in ((273, 8), (279, len(pixels)))]
    directory = b"".join(struct.pack(f"{order}HHI", tag, kind, 1) + value for tag, kind, value in sorted(entries))
    pixels += bytes(len(pixels) % 2)
    head = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8 + len(pixels))
    return head + pixels + struct.pack(f"{order}H", len(entries)) + directory + bytes(4)


def twelve(grey):
    """Two values of 12 bits in three bytes."""
    first, second = (grey >> 4).reshape(-1, 2).T
    return np.stack([first >> 4, first % 16 << 4 | second >> 8, second % 256], axis=1).astype(np.uint8).tobytes()


GREY = (np.add.outer(40 * np.arange(3), 10 * np.arange(4)) * 257).astype(np.uint16)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(
    ("bits", "order", "compression"), [(16, "<", 1), (16, ">", 1), (16, "<", 8), (16, ">", 8), (12, "<", 1)]
)
def test_grey_that_shows_0_white_is_turned_over(bits, order, compression, orientation):
    shown = np.rot90(GREY // 257, -1) if orientation == 6 else GREY // 257
    for zero, expected in ((1, shown), (0, 255 - shown)):
        data = tiff(GREY, bits, zero, order=order, orientation=orientation, compression=compression)
        opened = np.asarray(open_image(io.BytesIO(data)))[..., 0].astype(int)
        assert np.abs(opened - expected).max() <= (bits == 12)
        assert images.peek(io.BytesIO(data)) == opened.shape[::-1]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (tiff(GREY.astype(np.int16), sample=2), "16 bits, signed, 0 is white, little-endian"),
        (tiff(GREY.astype(np.int16), sample=2, order=">"), "16 bits, signed, 0 is white, big-endian"),
        (tiff(GREY.astype(np.uint32), 32), "32 bits, 0 is white, little-endian"),
        (tiff(GREY.astype(np.uint32), 32, order=">"), "32 bits, 0 is white, big-endian"),
        (tiff(GREY.astype(np.float64), 64, 1, sample=3), "64 bits, floating-point, little-endian"),
        (tiff(GREY, 12, order=">"), "12 bits, 0 is white, big-endian"),
        (tiff(GREY, 12, 1, order=">"), "12 bits, big-endian"),
    ],
)
def test_a_tiff_that_pillow_does_not_read_says_of_what_kind_it_is(data, kind):
    for look in (open_image, images.peek):
        with pytest.raises(Unreadable, match=f"a TIFF of a kind that Pillow does not read: {kind}$"):
            look(io.BytesIO(data))
    with pytest.raises(Unreadable) as cut_short:
        open_image(io.BytesIO(data[:-100]))
    assert "Pillow does not read" not in str(cut_short.value)


def test_twelve_bits_are_twelve_bits():
    data = encoded(Image.fromarray(np.array([[0, 0]], dtype=np.uint16)), "TIFF")
    for tag, form, before, after in ((258, "<HHIHxx", 16, 12), (279, "<HHII", 4, 3)):
        kind = 4 if tag == 279 else 3
        assert data.count(struct.pack(form, tag, kind, 1, before)) == 1
        data = data.replace(struct.pack(form, tag, kind, 1, before), struct.pack(form, tag, kind, 1, after))
    assert data.endswith(b"\0" * 4)
    data = data[:-4] + b"\x00\x0f\xff\0"  # 000 and fff
    assert np.asarray(open_image(io.BytesIO(data)))[0, :, 0].tolist() == [0, 255]


def test_the_cases_that_an_earlier_version_read_wrong(shared):
    upright = np.asarray(Image.open(shared / "cases/images/upright.png"))
    turned = open_image(shared / "cases/images/grey_orientation_6.tif")
    assert turned.size == (48, 64)
    assert (np.asarray(turned)[..., 0] == np.rot90(upright, -1)).all()
    negative = np.asarray(open_image(shared / "cases/images/white_is_zero_16bit.tif"))[..., 0].astype(int)
    assert np.abs(negative - (255 - upright)).max() <= 1
    with pytest.raises(Unreadable, match="truncated"):
        open_image(shared / "cases/images/truncated_60_bytes.jpg")


def test_grey_palette_and_cmyk_become_rgb():
    for mode in ("L", "P", "CMYK", "1"):
        assert open_image(saved(Image.new(mode, (3, 2)), "TIFF")).mode == "RGB"


def test_transparency_goes_onto_black():
    clear_white = Image.new("RGBA", (1, 1), (255, 255, 255, 0))
    half_white = Image.new("LA", (1, 1), (255, 128))
    assert open_image(saved(clear_white, "PNG")).getpixel((0, 0)) == (0, 0, 0)
    assert open_image(saved(half_white, "PNG")).getpixel((0, 0)) == (128, 128, 128)


def png(bits, colour, pixels, transparent):
    """A PNG of one row, written here by the standard: Pillow writes no grey of 2 bits, and no colours of 16."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    count = len(pixels) * 8 // (bits * (3 if colour == 2 else 1))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", count, 1, bits, colour, 0, 0, 0))
    key = chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent))
    return b"\x89PNG\r\n\x1a\n" + header + key + chunk(b"IDAT", zlib.compress(b"\0" + pixels)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (png(1, 0, b"\x0f", [1]), [0] * 8),
        (png(2, 0, b"\x1b", [3]), [0, 85, 170, 0]),
        (png(4, 0, b"\x8f", [15]), [136, 0]),
        (png(4, 0, b"\x8f", [8]), [0, 255]),
        (png(8, 0, b"\x80\xff", [255]), [128, 0]),
        (png(16, 0, b"\x80\x80\xff\xff", [0xFFFF]), [128, 0]),
        (png(16, 0, b"\x80\x80\x80\x81", [0x8080]), [0, 128]),
        (png(8, 2, b"\x80\x80\x80\xff\xff\xff", [255] * 3), [128, 0]),
        (png(16, 2, b"\x80\x00" * 3 + b"\xff\xff" * 3, [0x8000] * 3), [0, 255]),
        (png(16, 2, b"\x80\x00" * 3 + b"\xff\xff" * 3, [0x00FF] * 3), [128, 255]),
    ],
)
def test_the_transparent_colour_of_a_png_is_black_whatever_its_depth(data, shown):
    opened = np.asarray(open_image(io.BytesIO(data)))[0]
    assert opened.tolist() == [[level] * 3 for level in shown]


def test_camera_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    assert open_image(saved(Image.new("RGB", (4, 2)), "JPEG", exif=exif)).size == (2, 4)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (encoded(Image.fromarray(np.zeros((2, 2), np.float32)), "TIFF"), "no stated range"),
        (encoded(Image.fromarray(np.full((2, 2), 70000, np.int32)), "TIFF"), "not 16-bit"),
        (png_bomb(60_000, 60_000), "pixels"),
        (png_bomb(10_000, 8_001), "more than 80,000,000"),
        (b"", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_reason(source, reason):
    with pytest.raises(Unreadable, match=reason):
        open_image(io.BytesIO(source))


@settings(deadline=None, max_examples=60)
@given(data=st.sampled_from([JPEG, PNG]), share=st.floats(0, 0.97))
def test_a_truncated_file_is_never_accepted(data, share):
    with pytest.raises(Unreadable):
        open_image(io.BytesIO(data[: int(share * len(data))]))


@settings(deadline=None, max_examples=60)
@given(data=st.sampled_from([JPEG, PNG]), place=st.floats(0, 0.999), junk=st.binary(min_size=1, max_size=40))
def test_damage_raises_one_kind_of_error(data, place, junk):
    start = int(place * len(data))
    with contextlib.suppress(Unreadable):
        assert open_image(io.BytesIO(data[:start] + junk + data[start + len(junk) :])).mode == "RGB"


def test_a_process_that_accepts_truncated_images_is_stopped(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(FairbenchError, match="truncated"):
        open_image(io.BytesIO(JPEG))


# ── inspecting a folder ──────────────────────────────────────────────────────────────────────────


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    for number in range(6):
        noise(number, (40, 30)).save(root / f"{number}.png")
    return root


@pytest.fixture
def looks(monkeypatch):
    """Names of the files that were really opened."""
    seen, real = [], inspection._try

    def watched(path, *how):
        seen.append(path.name)
        return real(path, *how)

    monkeypatch.setattr(inspection, "_try", watched)
    return seen


NAMES = [f"{number}.png" for number in range(6)]


def test_each_file_is_looked_at_until_it_changes(folder, tmp_path, looks):
    first, trouble = inspect(folder, NAMES, True, tmp_path / "cache")
    assert sorted(looks) == NAMES
    assert not trouble
    assert {verdict.fault for verdict in first.values()} == {""}
    again, _ = inspect(folder, NAMES, True, tmp_path / "cache")
    assert len(looks) == 6
    assert again == first
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:100])
    changed, _ = inspect(folder, NAMES, True, tmp_path / "cache")
    assert looks[6:] == ["3.png"]
    assert changed["3.png"].fault
    (folder / "4.png").unlink()
    gone, _ = inspect(folder, NAMES, True, tmp_path / "cache")
    assert gone["4.png"].fault == "there is no such file"
    inspect(folder, NAMES[:2], False, tmp_path / "cache")
    assert looks[7:] == NAMES[:2], "a look at the structure is not a look at pixels"


def test_content_tells_equal_files_from_different_ones(folder, tmp_path):
    (folder / "5.png").write_bytes((folder / "0.png").read_bytes())
    verdicts, _ = inspect(folder, NAMES, True, tmp_path / "cache")
    assert verdicts["5.png"].content == verdicts["0.png"].content
    assert len({verdict.content for verdict in verdicts.values()}) == 5


@pytest.mark.parametrize("decode", [True, False])
def test_what_is_cut_short_or_damaged_in_the_middle_is_found_either_way(folder, tmp_path, decode):
    """A JPEG without its end, a PNG with a bit turned, whether pixels are decoded or only the structure is seen."""
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:1000])
    data = bytearray((folder / "2.png").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "2.png").write_bytes(data)
    jpeg = encoded(noise(3, (300, 200)), "JPEG")
    (folder / "3.png").write_bytes(jpeg[:-60])
    (folder / "4.png").write_bytes(jpeg + bytes(100))  # padded, and whole
    (folder / "5.png").write_bytes(encoded(noise(5, (40, 30)), "TIFF")[:-60])
    verdicts, _ = inspect(folder, NAMES, decode, tmp_path / "cache")
    assert [bool(verdicts[name].fault) for name in NAMES] == [False, True, True, True, False, True]
    assert "truncated" in verdicts["3.png"].fault
    assert "checksum" in verdicts["2.png"].fault
    assert [(verdicts[name].width, verdicts[name].height) for name in ("0.png", "4.png")] == [(40, 30), (300, 200)]


def test_a_jpeg_with_odd_bytes_at_its_end_is_whole_all_the_same(tmp_path):
    (tmp_path / "a.jpg").write_bytes(JPEG + b"appended by some camera")
    assert not inspect(tmp_path, ["a.jpg"], False, tmp_path / "cache")[0]["a.jpg"].fault


@pytest.mark.parametrize("content", ["", "[]", "{", '{"0.png": 3}', '{"0.png": {"size": 1}}', "\0\xff"])
def test_a_spoilt_verdict_file_is_made_again(folder, tmp_path, looks, content):
    inspect(folder, NAMES, True, tmp_path)
    (kept,) = tmp_path.glob("*.json")
    kept.write_text(content, encoding="utf-8")
    verdicts, trouble = inspect(folder, NAMES, True, tmp_path)
    assert len(looks) == 12
    assert not trouble
    assert not any(verdict.fault for verdict in verdicts.values())


def test_a_cache_that_cannot_be_written_is_reported(folder, tmp_path):
    (tmp_path / "cache").write_text("a file stands where the folder should be")
    verdicts, trouble = inspect(folder, NAMES, True, tmp_path / "cache")
    assert len(verdicts) == 6
    assert str(tmp_path / "cache") in trouble


def _inspect_and_log(folder, cache, log, start):
    real = inspection._try

    def logged(path, *how):
        with open(log, "a") as file:
            file.write(f"{path.name}\n")
        return real(path, *how)

    inspection._try = logged
    start.wait()
    verdicts, trouble = inspect(folder, NAMES, True, cache)
    os._exit(0 if len(verdicts) == 6 and not trouble else 1)


def test_processes_share_one_look(folder, tmp_path):
    context = multiprocessing.get_context("fork" if hasattr(os, "fork") else "spawn")
    start, log = context.Barrier(4), tmp_path / "log"
    arguments = (folder, tmp_path / "cache", log, start)
    workers = [context.Process(target=_inspect_and_log, args=arguments) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert sorted(Path(log).read_text().split()) == NAMES


def archive(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    buffer.seek(0)
    return buffer


def test_an_array_of_an_archive_is_read_as_it_was_written():
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert (open_array(archive(other=np.zeros(2), pixels=pixels), "pixels") == pixels).all()


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (archive(pixels=np.array([{"a": 1}], dtype=object)), "Python objects, which only a pickle"),
        (archive(other=np.zeros(2)), "no array `pixels`, only other"),
        (archive(pixels=np.zeros((10_000, 10_000), np.uint8)), "100,000,000 values, more than 80,000,000"),
        (io.BytesIO(archive(pixels=np.random.default_rng(0).random(999)).getvalue()[:4000]), "not a zip file"),
        (io.BytesIO(b""), "not a zip file"),
    ],
)
def test_an_archive_that_cannot_be_trusted_says_why(source, says):
    with pytest.raises(Unreadable, match=says):
        open_array(source, "pixels")


def test_verdicts_are_shared_only_by_those_who_look_alike(folder, tmp_path):
    def refuse(source):
        raise Unreadable("no picture for me")

    assert not inspect(folder, NAMES, True, tmp_path)[0]["0.png"].fault
    assert inspect(folder, NAMES, True, tmp_path, Look("picky", refuse))[0]["0.png"].fault == "no picture for me"
    assert not inspect(folder, NAMES, True, tmp_path)[0]["0.png"].fault
