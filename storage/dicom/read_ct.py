"""Read a CT series as a regular grid of Hounsfield units."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset

from engine.errors import DicomError
from engine.model.arrays import F32, Bool
from engine.model.case import PatientPosition
from engine.model.grid import Grid
from storage.dicom.scan import Header, attribute
from storage.dicom.slice_geometry import stack_slices
from storage.dicom.uids import CtReference

PADDING_HU = -1024.0
"""Value given to padding outside of the scanned circle: the least a 12-bit CT number can say, that is, nothing."""


@dataclass(frozen=True)
class CtImage:
    """A CT with the identifiers that other files refer to it by.

    Parameters
    ----------
    grid
        The grid, along increasing x, y, z.
    ct_hu
        Hounsfield units, shape ``grid.shape_zyx``.
    patient_position
        Position on the couch.
    reference
        Identifiers of study, series, frame of reference and slices.
    notes
        What was assumed or mended.
    """

    grid: Grid
    ct_hu: F32
    patient_position: PatientPosition
    reference: CtReference
    notes: tuple[str, ...]


def read_ct(headers: Sequence[Header], series_uid: str | None = None) -> CtImage:
    """Read a CT series, slice by slice, so that hardly more than the result is held in memory.

    Parameters
    ----------
    headers
        Headers of CT slices, of one or more series.
    series_uid
        Which series; may be left out if there is only one.

    Raises
    ------
    DicomError
        If there is no CT, more than one without a choice, or if the series is damaged, incomplete or not supported;
        the message names the file.
    """
    stack = stack_slices(_choose_series(headers, series_uid))
    ct_hu = np.empty(stack.grid.shape_zyx, np.float32)
    n_padding = 0
    types: set[str] = set()
    for slice_, header in enumerate(stack.headers):
        dataset = _read_whole(header)
        types.add(_rescale_type(header, dataset))
        stored = _pixels(header, dataset)
        values = stored * _factor(header, dataset, "RescaleSlope") + _factor(
            header, dataset, "RescaleIntercept"
        )
        below_air = _padding(dataset, stored) & (values < PADDING_HU)
        values[below_air] = PADDING_HU
        n_padding += int(below_air.sum())
        ct_hu[slice_] = values[:: -1 if stack.flip_rows else 1, :: -1 if stack.flip_columns else 1]
    notes = list(stack.notes)
    if n_padding:
        notes.append(
            f"{n_padding} voxels of padding around the scanned circle were set to {PADDING_HU:.0f} HU"
        )
    if "US" in types:
        notes.append("the CT calls the unit of its values unspecified; Hounsfield units were assumed")
    first = stack.headers[0]
    if not first.text("FrameOfReferenceUID"):
        notes.append("the CT names no frame of reference, so structures could not be checked against it")
    reference = CtReference(
        study_uid=first.text("StudyInstanceUID"),
        series_uid=first.text("SeriesInstanceUID"),
        frame_of_reference_uid=first.text("FrameOfReferenceUID"),
        instance_uids=tuple(header.text("SOPInstanceUID") for header in stack.headers),
    )
    return CtImage(stack.grid, ct_hu, stack.patient_position, reference, tuple(notes))


def _choose_series(headers: Sequence[Header], series_uid: str | None) -> list[Header]:
    """Return the headers of the wanted series."""
    by_series: dict[str, list[Header]] = {}
    for header in headers:
        by_series.setdefault(header.text("SeriesInstanceUID"), []).append(header)
    if not by_series:
        raise DicomError("the folder holds no CT images: name the folder with the planning CT")
    listed = "; ".join(
        f"{uid} '{found[0].text('SeriesDescription')}' ({len(found)} slices)"
        for uid, found in sorted(by_series.items())
    )
    if series_uid is None and len(by_series) > 1:
        raise DicomError(f"the folder holds {len(by_series)} CT series: choose one by its UID among {listed}")
    if series_uid is not None and series_uid not in by_series:
        raise DicomError(f"there is no CT series {series_uid}: the folder holds {listed}")
    return by_series[series_uid] if series_uid is not None else next(iter(by_series.values()))


def _read_whole(header: Header) -> Dataset:
    """Return a slice with its pixels."""
    try:
        return dcmread(header.path)
    except Exception as error:  # pydicom raises many kinds on damaged files
        raise DicomError(
            f"'{header.path.name}' cannot be read ({type(error).__name__}: damaged?): export it again"
        ) from error


def _pixels(header: Header, dataset: Dataset) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return the stored numbers of a slice, shape (rows, columns)."""
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is None or "BitsAllocated" not in dataset or "PixelData" not in dataset:
        raise DicomError(f"'{header.path.name}' has no complete pixel data (truncated?): export it again")
    if not syntax.is_compressed:
        expected = rows * columns * int(dataset.BitsAllocated) // 8 * int(dataset.get("SamplesPerPixel", 1))
        if len(dataset.PixelData) < expected:
            raise DicomError(
                f"'{header.path.name}' is truncated ({len(dataset.PixelData)} bytes of pixels instead of {expected}): "
                "export it again"
            )
    try:
        stored = dataset.pixel_array
    except Exception as error:  # decoders raise many kinds
        raise DicomError(
            f"the pixels of '{header.path.name}' cannot be decoded ({syntax.name}: {type(error).__name__}): export it "
            "uncompressed (explicit little endian)"
        ) from error
    if stored.shape != (rows, columns):
        raise DicomError(
            f"'{header.path.name}' has pixels of shape {stored.shape} (a CT slice has one number per pixel)"
        )
    return stored.astype(np.float64)


def _factor(header: Header, dataset: Dataset, keyword: str) -> float:
    """Return Rescale Slope or Rescale Intercept."""
    value = attribute(dataset, keyword, header.path)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = np.nan
    if not np.isfinite(number):
        raise DicomError(
            f"'{header.path.name}' has no {keyword} (its pixels have no Hounsfield units): export it again"
        )
    return number


def _rescale_type(header: Header, dataset: Dataset) -> str:
    """Return the unit of the values; refuse what is not Hounsfield units."""
    unit = str(dataset.get("RescaleType") or "HU")
    if unit not in ("HU", "US"):
        raise DicomError(
            f"'{header.path.name}' holds '{unit}' values (not Hounsfield units): choose the plain CT reconstruction"
        )
    return unit


def _padding(dataset: Dataset, stored: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> Bool:
    """Return which pixels are padding (PS3.3 C.7.5.1.1.2)."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, np.bool_)
    limit = dataset.get("PixelPaddingRangeLimit", value)
    low, high = sorted((float(value), float(limit)))
    return (stored >= low) & (stored <= high)
