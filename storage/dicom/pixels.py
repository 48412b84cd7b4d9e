"""Pixels of images, decoded and rescaled, plane by plane."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import JPEG2000, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless

from engine.errors import DicomError
from engine.model.arrays import F32, F64
from storage.dicom.planes import Plane, functional_group, is_multi_frame
from storage.dicom.sanity import naming, require_size
from storage.dicom.scan import Header, attribute, read_whole
from storage.dicom.slice_geometry import Stack

LOSSY_SYNTAXES = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless)
"""Always lossy; JPEG 2000 (1.2.840.10008.1.2.4.91) may be either, which Lossy Image Compression says."""

Convert = Callable[[Plane, Dataset, F64], F64]
"""From a plane, its whole dataset and its stored numbers, shape (rows, columns), to values."""


def read_volume(stack: Stack, convert: Convert) -> tuple[F32, tuple[str, ...]]:
    """Return the values of a stack, shape ``stack.shape_zyx``, and notes; no more than one file is held beside them.

    Raises
    ------
    DicomError
        If pixels are absent, truncated or cannot be decoded.
    """
    require_size(stack.shape_zyx, stack.planes[0].header.path.name)
    volume = np.empty(stack.shape_zyx, np.float32)
    of_file: dict[int, list[int]] = {}
    for slice_, plane in enumerate(stack.planes):
        of_file.setdefault(id(plane.header), []).append(slice_)
    n_lossy = 0
    for slices in of_file.values():
        header = stack.planes[slices[0]].header
        with naming(header.path):
            dataset = read_whole(header)
            n_lossy += is_lossy(dataset) * len(slices)
            for slice_, stored in zip(
                slices, _frames(header, dataset, [stack.planes[n].frame for n in slices]), strict=True
            ):
                volume[slice_] = convert(stack.planes[slice_], dataset, stored)
    notes: tuple[str, ...] = ()
    if n_lossy:
        notes = (
            f"{n_lossy} of {len(stack.planes)} slices went through lossy compression; values are not exact",
        )
    return volume, notes


def rescaled(plane: Plane, dataset: Dataset, stored: F64, needed: bool) -> F64:
    """Return the values of stored numbers by Rescale Slope and Intercept (PS3.3 C.11.1.1.2), of this very plane.

    Raises
    ------
    DicomError
        If one of them is absent though ``needed``, or no number.
    """
    item = rescaling(plane, dataset)
    slope, intercept = (
        _factor(plane.header, item, keyword, absent)
        for keyword, absent in (
            ("RescaleSlope", None if needed else 1.0),
            ("RescaleIntercept", None if needed else 0.0),
        )
    )
    if needed and slope <= 0.0:
        raise DicomError(
            f"'{plane.header.path.name}' has RescaleSlope {slope:g} (it must be positive): export it again"
        )
    with np.errstate(over="ignore"):
        return stored * slope + intercept


def rescaling(plane: Plane, dataset: Dataset) -> Dataset:
    """Return what holds slope, intercept and unit of a plane: the file, or a functional group."""
    if is_multi_frame(plane.header):
        return functional_group(dataset, plane.frame, "PixelValueTransformationSequence", plane.header)
    return dataset


def is_lossy(dataset: Dataset) -> bool:
    """Return whether an image lost information to compression, now or at any time before."""
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    said = str(dataset.get("LossyImageCompression") or "")
    return said == "01" or syntax in LOSSY_SYNTAXES or (syntax == JPEG2000 and said != "00")


def _frames(header: Header, dataset: Dataset, frames: Sequence[int]) -> Iterator[F64]:
    """Yield the stored numbers of frames, each of shape (rows, columns)."""
    rows, columns = (int(header.text(keyword)) for keyword in ("Rows", "Columns"))
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is None or "BitsAllocated" not in dataset or "PixelData" not in dataset:
        raise DicomError(f"'{header.path.name}' has no complete pixel data (truncated?): export it again")
    if not syntax.is_compressed:
        n_frame = int(dataset.get("NumberOfFrames") or 1)
        n_sample = int(dataset.get("SamplesPerPixel") or 1)
        expected = n_frame * rows * columns * int(dataset.BitsAllocated) // 8 * n_sample
        if len(dataset.PixelData or b"") < expected:
            raise DicomError(
                f"'{header.path.name}' is truncated ({len(dataset.PixelData or b'')} bytes of pixels instead of "
                f"{expected}): export it again"
            )
    decoded: Iterator[npt.NDArray[np.integer]] = iter_pixels(dataset, indices=list(frames))
    for _ in frames:
        try:
            stored = next(decoded)
        except Exception as error:  # decoders raise many kinds
            raise DicomError(
                f"the pixels of '{header.path.name}' cannot be decoded ({syntax.name}: {type(error).__name__}): export "
                "it uncompressed (explicit little endian)"
            ) from error
        if stored.shape != (rows, columns):
            raise DicomError(
                f"'{header.path.name}' has pixels of shape {stored.shape} (a slice has one number per pixel)"
            )
        yield stored.astype(np.float64)


def _factor(header: Header, dataset: Dataset, keyword: str, absent: float | None) -> float:
    """Return Rescale Slope or Rescale Intercept, or ``absent`` where there is none."""
    value = attribute(dataset, keyword, header.path)
    if value is None and absent is not None:
        return absent
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = np.nan
    if not np.isfinite(number):
        raise DicomError(f"'{header.path.name}' has no {keyword} (its pixels have no unit): export it again")
    return number
