"""CT in every transfer syntax that is met: values against those that were written."""

from pathlib import Path

import gdcm
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    RLELossless,
)

from engine.errors import DicomError
from storage.dicom.read_case import read_case
from tests.dicom_files import write_series

SHAPE = (4, 32, 40)


def texture(places: np.ndarray) -> np.ndarray:
    """Whole numbers from -1000 to about 2000, with edges and noise, as in a CT."""
    x, y, z = np.moveaxis(places, -1, 0)
    noise = np.sin(12.9898 * x + 78.233 * y + 37.7 * z) * 43758.5453 % 1.0
    return np.rint(
        np.where(x**2 + y**2 < 400.0, 40.0 + 60.0 * noise, -1000.0 + 20.0 * noise) + 8.0 * np.abs(z)
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_series(tmp_path, texture, shape_zyx=SHAPE, scale=(1.0, 0.0))
    return tmp_path


def expected_hu(folder: Path) -> np.ndarray:
    return read_case(folder).ct_hu


def rewrite(path: Path, syntax: str) -> None:
    dataset = dcmread(path)
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<i2").astype(">i2").tobytes()
        dataset["PixelData"].VR = "OW"
    bare = Dataset(dataset)  # forgets how it was read
    bare.file_meta = dataset.file_meta
    bare.save_as(path, enforce_file_format=True)


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian],
    ids=["implicit", "big endian", "deflated"],
)
def test_uncompressed_syntaxes_are_exact(folder: Path, syntax: str) -> None:
    before = expected_hu(folder)
    for path in folder.iterdir():
        rewrite(path, syntax)
        assert dcmread(path).file_meta.TransferSyntaxUID == syntax
    np.testing.assert_array_equal(read_case(folder).ct_hu, before)


def compress(path: Path, syntax: int, unsigned_12_bit: bool = False) -> None:
    """Compress a file by GDCM, which is not what reads headers, nor (for RLE) pixels."""
    if unsigned_12_bit:
        dataset = dcmread(path)
        stored = np.frombuffer(dataset.PixelData, "<i2").astype(int) + 1024
        assert stored.min() >= 0
        assert stored.max() < 4096
        dataset.PixelData = stored.astype("<u2").tobytes()
        dataset.PixelRepresentation, dataset.BitsStored, dataset.HighBit = 0, 12, 11
        dataset.RescaleIntercept = -1024
        dataset.save_as(path)
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    change.SetInput(reader.GetImage())
    if syntax == gdcm.TransferSyntax.JPEGLSNearLossless:
        codec = gdcm.JPEGLSCodec()
        codec.SetLossless(False)
        codec.SetLossyError(3)
        change.SetUserCodec(codec)
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(path))
    assert writer.Write()


@pytest.mark.parametrize("unsigned_12_bit", [False, True], ids=["16 bit signed", "12 bit unsigned"])
@pytest.mark.parametrize(
    "syntax",
    ["JPEGLosslessProcess14", "JPEGLosslessProcess14_1", "JPEGLSLossless", "JPEG2000Lossless", "RLELossless"],
)
def test_lossless_compression_is_exact(folder: Path, syntax: str, unsigned_12_bit: bool) -> None:
    before = expected_hu(folder)
    for path in folder.iterdir():
        compress(path, getattr(gdcm.TransferSyntax, syntax), unsigned_12_bit)
        assert dcmread(path).file_meta.TransferSyntaxUID.is_compressed
    found = read_case(folder)
    np.testing.assert_array_equal(found.ct_hu, before)
    assert not any("lossy" in note for note in found.notes)


@pytest.mark.parametrize(("syntax", "allowed_hu"), [("JPEGLSNearLossless", 3.0), ("JPEG2000", 60.0)])
def test_lossy_compression_is_read_with_a_note(folder: Path, syntax: str, allowed_hu: float) -> None:
    before = expected_hu(folder)
    for path in folder.iterdir():
        compress(path, getattr(gdcm.TransferSyntax, syntax), unsigned_12_bit=True)
    found = read_case(folder)
    assert np.abs(found.ct_hu - before).max() <= allowed_hu
    assert "4 of 4 slices went through lossy compression; values are not exact" in found.notes


def test_syntax_that_cannot_be_decoded_is_refused_by_name(folder: Path) -> None:
    path = sorted(folder.iterdir())[2]
    dataset = dcmread(path)
    dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.file_meta.TransferSyntaxUID = HTJ2KLossless
    dataset.save_as(path)
    with pytest.raises(DicomError, match="High-Throughput") as error:
        read_case(folder)
    assert path.name in str(error.value)


def test_lossy_jpeg_of_12_bit_is_refused_by_name(folder: Path) -> None:
    """No decoder at hand can do it."""
    path = sorted(folder.iterdir())[2]
    compress(path, gdcm.TransferSyntax.JPEGExtendedProcess2_4, unsigned_12_bit=True)
    with pytest.raises(DicomError, match="JPEG Extended") as error:
        read_case(folder)
    assert path.name in str(error.value)


def test_file_without_preamble_is_read(folder: Path) -> None:
    before = expected_hu(folder)
    for path in folder.iterdir():
        rewrite(path, ImplicitVRLittleEndian)
        whole = path.read_bytes()
        path.write_bytes(whole[whole.index(b"\x08\x00\x16\x00") :])
        assert path.read_bytes()[:2] == b"\x08\x00"
    np.testing.assert_array_equal(read_case(folder).ct_hu, before)
