"""DICOM pictures: the standard's own formulas, files of many makers, and one clear error for the rest."""

import builtins
import io
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset as Elements
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_windowing
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless, SecondaryCaptureImageStorage

from fairbench import FairbenchError, Unreadable, open_image
from fairbench.data import dicom, images, inspection

BUNDLED = Path(pydicom.__file__).parent / "data" / "test_files"
RAMP = np.arange(0, 4096, 16, dtype=np.uint16).reshape(16, 16)  # 12 bits


def elements(stored=RAMP, bits=12, **said):
    """A small picture; what is said overrides or adds elements, None takes one away."""
    made = Elements()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID, made.Modality = SecondaryCaptureImageStorage, "1.2.3", "OT"
    made.PatientName = "Somebody^Real"
    made.Rows, made.Columns = (
        stored.shape[-2:] if stored.ndim < 4 and stored.shape[-1] != 3 else stored.shape[-3:-1]
    )
    made.SamplesPerPixel = 3 if stored.shape[-1] == 3 else 1
    made.PhotometricInterpretation = "RGB" if stored.shape[-1] == 3 else "MONOCHROME2"
    made.BitsAllocated = 8 * stored.dtype.itemsize
    made.BitsStored, made.HighBit = bits, bits - 1
    made.PixelRepresentation = int(stored.dtype.kind == "i")
    made.PixelData = stored.tobytes()
    if made.SamplesPerPixel == 3:
        made.PlanarConfiguration = 0
    for key, value in said.items():
        if value is None:
            delattr(made, key)
        else:
            setattr(made, key, value)
    return made


def written(made):
    buffer = io.BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    buffer.seek(0)
    return buffer


def peek(path):
    with path.open("rb") as file:
        return images.peek(file)


def grey(made):
    """One band of the opened picture; the three must be equal."""
    opened = np.asarray(open_image(written(made)))
    assert (opened == opened[:, :, :1]).all()
    return opened[:, :, 0]


# ── rules ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("shape", ["LINEAR", "LINEAR_EXACT", "SIGMOID", None])
@pytest.mark.parametrize(("centre", "width"), [(40, 400), (1000, 1.5), (2048, 4096), (-500, 50)])
@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (0.5, -100)])
def test_windows_are_the_standards(shape, centre, width, slope, intercept):
    """What pydicom's own windowing maps to what the rescaled bits can say is an independent answer."""
    made = elements(WindowCenter=centre, WindowWidth=width, RescaleSlope=slope, RescaleIntercept=intercept)
    if shape:
        made.VOILUTFunction = shape
    rescaled = RAMP * slope + intercept
    theirs = apply_windowing(rescaled.astype(float) if slope != 1 else rescaled, made)
    low, high = 0 * slope + intercept, 4095 * slope + intercept
    assert np.abs(grey(made).astype(int) - (theirs - low) / (high - low) * 255).max() <= 0.51


def test_the_first_of_several_windows_counts():
    one = grey(elements(WindowCenter=100, WindowWidth=200))
    assert (grey(elements(WindowCenter=[100, 3000], WindowWidth=[200, 900])) == one).all()


def test_without_a_window_up_to_8_bits_stay_and_more_are_stretched():
    small = np.array([[3, 100], [120, 200]], dtype=np.uint8)
    assert (grey(elements(small, 8)) == small).all()
    assert grey(elements(np.array([[1, 3], [7, 15]], dtype=np.uint8), 4)).tolist() == [[17, 51], [119, 255]]
    signed = np.array([[-1000, 0], [500, 1000]], dtype=np.int16)
    assert grey(elements(signed, 16)).tolist() == [[0, 128], [191, 255]]
    assert grey(elements(signed, 16, RescaleSlope=-1, RescaleIntercept=7)).tolist() == [[255, 128], [64, 0]]
    assert grey(elements(np.full((2, 2), 900, dtype=np.uint16))).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize("said", [{}, {"WindowCenter": 2000, "WindowWidth": 3000}])
def test_padding_is_black_and_no_part_of_the_range(photometric, said):
    stored = np.linspace(520, 4095, 256).astype(np.int16).reshape(16, 16)
    content = grey(elements(stored, 16, PhotometricInterpretation=photometric, **said))
    if not said:
        assert sorted((content[0, 0], content[-1, -1])) == [0, 255]
    padded = stored.copy()
    padded[:, :2] = -2000
    for limits in ({"PixelPaddingValue": -2000}, {"PixelPaddingValue": -2100, "PixelPaddingRangeLimit": -1900}):
        shown = grey(elements(padded, 16, PhotometricInterpretation=photometric, **said, **limits))
        assert (shown[:, :2] == 0).all()
        if said:
            assert (shown[:, 2:] == content[:, 2:]).all()
        else:
            low, high = stored[:, 2:].min(), stored[:, 2:].max()
            expected = (stored[:, 2:] - low) / (high - low)
            expected = 1 - expected if photometric == "MONOCHROME1" else expected
            assert np.abs(shown[:, 2:] - 255 * expected).max() <= 0.51


@pytest.mark.parametrize("value", [-2000, -1, -32768])
@pytest.mark.parametrize("width", [0, 100])
def test_padding_of_signed_pixels_may_be_written_as_an_unsigned_number(value, width):
    stored = np.linspace(520, 4095, 256).astype(np.int16).reshape(16, 16)
    stored[:, :2] = value
    plain, wrapped = (elements(stored, 16, PixelPaddingValue=value) for _ in range(2))
    wrapped.add_new("PixelPaddingValue", "US", value % 2**16)
    if width:
        plain.PixelPaddingRangeLimit = min(value + width, -1)
        wrapped.add_new("PixelPaddingRangeLimit", "US", min(value + width, -1) % 2**16)
    assert (grey(wrapped) == grey(plain)).all()
    assert (grey(wrapped)[:, :2] == 0).all()
    assert grey(wrapped).max() == 255
    unsigned = elements(np.where(stored < 0, 63536, stored).astype(np.uint16), 16, PixelPaddingValue=63536)
    assert (grey(unsigned) == grey(plain)).all(), "where pixels are unsigned, it is what it is"


def test_padding_as_an_earlier_version_read_it_wrong(shared):
    path = shared / "cases/images/padding_no_window.dcm"
    stored, shown = pydicom.dcmread(path).pixel_array, np.asarray(open_image(path))[..., 0]
    padding = stored == pydicom.dcmread(path).PixelPaddingValue
    assert padding.mean() == 1 / 8
    assert (shown[padding] == 0).all()
    assert np.abs(shown[~padding] - (stored[~padding] - 520) / (4095 - 520) * 255).max() <= 0.51


@pytest.mark.parametrize("compressed", [False, True])
def test_files_that_are_cut_short_show_it_in_their_structure(tmp_path, compressed):
    made = elements(np.tile(RAMP, (4, 4)))
    if compressed:
        made.compress(RLELossless)
    data, path = written(made).getvalue(), tmp_path / "a.dcm"
    for end, whole in ((None, True), (-700, False)):
        path.write_bytes(data[:end])
        verdict = inspection.inspect(tmp_path, ["a.dcm"], False, tmp_path / f"cache{whole}")[0]["a.dcm"]
        assert (not verdict.fault) == whole, verdict
        assert (verdict.width, verdict.height) == ((64, 64) if whole else (0, 0))


def test_monochrome1_is_inverted_after_its_window():
    said = {"WindowCenter": 1000, "WindowWidth": 1500}
    assert (grey(elements(PhotometricInterpretation="MONOCHROME1", **said)) == 255 - grey(elements(**said))).all()


def test_the_first_frame_counts():
    film = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]])
    made = elements(film, NumberOfFrames=3)
    made.Rows, made.Columns = 16, 16
    assert (grey(made) == grey(elements())).all()


def test_enhanced_files_say_it_one_level_down():
    said, transformed, group = Elements(), Elements(), Elements()
    said.WindowCenter, said.WindowWidth = 300, 500
    transformed.RescaleSlope, transformed.RescaleIntercept = 2, -50
    group.FrameVOILUTSequence = [said]
    shared = Elements()
    shared.PixelValueTransformationSequence = [transformed]
    deep = elements(SharedFunctionalGroupsSequence=[shared], PerFrameFunctionalGroupsSequence=[group])
    flat = elements(WindowCenter=300, WindowWidth=500, RescaleSlope=2, RescaleIntercept=-50)
    assert (grey(deep) == grey(flat)).all()


def test_a_table_for_display_is_followed_where_there_is_no_window():
    table = Elements()
    table.LUTDescriptor, table.LUTData = [4096, 0, 8], list(range(255, -1, -1)) * 16
    table["LUTData"].VR = "US"
    table["LUTDescriptor"].VR = "US"
    made = elements(VOILUTSequence=[table])
    assert (grey(made) == (255 - RAMP % 256)).all()
    made.WindowCenter, made.WindowWidth = 100, 200
    assert (grey(made) == grey(elements(WindowCenter=100, WindowWidth=200))).all()


def test_colours():
    colours = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    assert (np.asarray(open_image(written(elements(colours, 8)))) == colours).all()
    deep = elements(colours.astype(np.uint16) * 257, 16)
    assert (np.asarray(open_image(written(deep))) == colours).all()


def test_compressed_pixels_are_those_that_were_stored():
    plain = grey(elements())
    run_lengths = elements()
    run_lengths.compress(RLELossless)
    assert (grey(run_lengths) == plain).all()
    buffer = io.BytesIO()
    Image.fromarray(RAMP).save(buffer, "JPEG2000", irreversible=False)
    made = elements(PixelData=encapsulate([buffer.getvalue()]))
    made["PixelData"].VR = "OB"
    made.file_meta.TransferSyntaxUID = JPEG2000Lossless
    assert (grey(made) == plain).all()


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("MR_small_RLE", "MR_small"),
        ("MR_small_jp2klossless", "MR_small"),
        ("MR_small_jpeg_ls_lossless", "MR_small"),
        ("MR_small_bigendian", "MR_small"),
        ("SC_rgb_rle_16bit", "SC_rgb_rle"),
        ("SC_rgb_jpeg_gdcm", "SC_rgb_gdcm_KY"),
    ],
)
def test_files_of_other_makers(name, same):
    """The same picture, compressed and not, from pydicom's collection."""
    one, other = (np.asarray(open_image(BUNDLED / f"{file}.dcm")).astype(int) for file in (name, same))
    assert one.std() > 20
    assert np.abs(one - other).max() <= 1


# ── what a file is, and what it cannot be ────────────────────────────────────────────────────────


def test_dicom_is_told_by_its_content_whatever_it_is_called(tmp_path):
    path = tmp_path / "scan.jpg"
    path.write_bytes(written(elements()).getvalue())
    assert open_image(path).size == (16, 16)
    assert peek(path) == (16, 16)
    assert not dicom.is_dicom(b"\x89PNG" + bytes(200))


def test_old_files_lack_the_mark():
    made = elements(SpecificCharacterSet="ISO_IR 6")
    data = written(made).getvalue()
    old = data[data.index(b"\x08\x00\x05\x00CS") :]
    assert (np.asarray(open_image(io.BytesIO(old))) == np.asarray(open_image(written(made)))).all()


def spoilt(change):
    made = elements()
    change(made)
    return written(made).getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (spoilt(lambda m: delattr(m, "PixelData")), r"without pixel data \(modality OT\)"),
        (spoilt(lambda m: setattr(m, "PixelData", m.PixelData[:100])), "less than expected"),
        (
            spoilt(lambda m: (setattr(m, "Rows", 60_000), setattr(m, "Columns", 60_000))),
            "60000×60000 pixels are more",
        ),
        (
            spoilt(lambda m: (setattr(m, "WindowCenter", 3), setattr(m, "WindowWidth", 0))),
            "Window Width must be greater than or equal to 1",
        ),
        (spoilt(lambda m: delattr(m, "Rows")), "Rows"),
        (b"\0" * 128 + b"DICM", "without pixel data"),
        (b"\0" * 128 + b"DICM" + b"\xff" * 300, "without pixel data"),
        ((BUNDLED / "image_dfl.dcm").read_bytes(), "deflated DICOM file: what it unpacks to has no bound"),
        ((BUNDLED / "MR_truncated.dcm").read_bytes(), "less than expected"),
        ((BUNDLED / "reportsi.dcm").read_bytes(), r"without pixel data \(modality SR\)"),
    ],
)
def test_what_cannot_be_shown_says_why(data, reason):
    with pytest.raises(Unreadable, match=reason) as error:
        open_image(io.BytesIO(data))
    assert "\n" not in str(error.value)
    assert "Somebody" not in str(error.value), "names stay where they are"


def test_too_many_pixels_are_refused_before_any_is_decoded(monkeypatch, tmp_path):
    def decode(*_, **__):
        raise AssertionError("decoded")

    monkeypatch.setattr(pydicom.pixels, "pixel_array", decode)
    path = tmp_path / "big.dcm"
    path.write_bytes(spoilt(lambda m: (setattr(m, "Rows", 60_000), setattr(m, "Columns", 60_000))))
    for look in (open_image, peek):
        with pytest.raises((Unreadable, ValueError), match="more than 80,000,000"):
            look(path)


def test_without_a_decoder_the_file_says_how_it_is_compressed(monkeypatch):
    class Absent:
        is_available = False

    monkeypatch.setattr(pydicom.pixels, "get_decoder", lambda syntax: Absent)
    with pytest.raises(
        Unreadable, match="compressed by JPEG-LS Lossless Image Compression, for which pydicom has no"
    ):
        open_image(BUNDLED / "MR_small_jpeg_ls_lossless.dcm")


def test_without_pydicom_one_error_says_what_to_install(monkeypatch, tmp_path):
    """It is raised, not counted as one unreadable file after another."""
    real = builtins.__import__

    def absent(name, *rest):
        if name.split(".")[0] == "pydicom":
            raise ImportError("No module named 'pydicom'")
        return real(name, *rest)

    for name in [name for name in sys.modules if name.split(".")[0] == "pydicom"]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "a.dcm").write_bytes(written(elements()).getvalue())
    monkeypatch.setattr(builtins, "__import__", absent)
    dicom._pydicom.cache_clear()
    try:
        for look in (open_image, peek):
            with pytest.raises(FairbenchError, match="need pydicom") as error:
                look(tmp_path / "a.dcm")
            assert error.value.hint == "pip install 'fairbench[dicom]', or convert them to PNG"
        with pytest.raises(FairbenchError, match="need pydicom"):
            inspection.inspect(tmp_path, ["a.dcm"], True, tmp_path / "cache")
    finally:
        dicom._pydicom.cache_clear()


def test_png_needs_no_pydicom():
    code = """
        import io, sys
        from PIL import Image
        from fairbench import open_image
        buffer = io.BytesIO()
        Image.new("L", (3, 3)).save(buffer, "PNG")
        buffer.seek(0)
        open_image(buffer)
        assert "pydicom" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)
