"""The planes of images, whether every file holds one or a multi-frame file holds many."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from engine.errors import DicomError, shortened
from engine.model.arrays import F64
from storage.dicom.sanity import naming, require_place
from storage.dicom.scan import Header, attribute, read_whole

ORTHONORMAL_TOLERANCE = 1e-3
"""Directions may be longer than 1, or closer to each other than a right angle, by this much."""


@dataclass(frozen=True)
class Plane:
    """Where one picture lies in the patient.

    Parameters
    ----------
    header
        Header of its file.
    frame
        Which frame of the file, from 0.
    position_mm
        Centre of the first pixel, shape (3,).
    cosines
        Directions of increasing column and of increasing row, shape (6,) (PS3.3 C.7.6.2.1.1).
    spacing_mm
        Distance of rows and of columns, shape (2,).
    """

    header: Header
    frame: int
    position_mm: F64
    cosines: F64
    spacing_mm: F64


def planes_of(headers: Sequence[Header]) -> list[Plane]:
    """Return all planes of some files.

    Raises
    ------
    DicomError
        If a file does not say where its planes lie.
    """
    planes: list[Plane] = []
    for header in headers:
        with naming(header.path):
            if is_multi_frame(header):
                dataset = read_whole(header, pixels=False)
                n_frame = int(_numbers(header, "NumberOfFrames", header.value("NumberOfFrames"), 1)[0])
                planes += [_plane(header, dataset, frame) for frame in range(n_frame)]
            else:
                planes.append(_plane(header, None, 0))
    return planes


def is_multi_frame(header: Header) -> bool:
    """Return whether a file describes its frames in functional groups (PS3.3 C.7.6.16)."""
    return header.value("ImagePositionPatient") is None and header.value("NumberOfFrames") is not None


def functional_group(dataset: Dataset, frame: int, keyword: str, header: Header) -> Dataset:
    """Return what a multi-frame file says about one frame, by itself or for all; empty if it says nothing.

    Raises
    ------
    DicomError
        If its functional groups are damaged.
    """
    try:
        for groups in (
            (dataset.get("PerFrameFunctionalGroupsSequence") or [])[frame : frame + 1],
            dataset.get("SharedFunctionalGroupsSequence") or [],
        ):
            for group in groups:
                if group.get(keyword):
                    item: Dataset = group[keyword].value[0]
                    return item
    except Exception as error:  # pydicom raises many kinds on damaged sequences
        raise DicomError(
            f"the functional groups of '{header.path.name}' cannot be understood ({type(error).__name__}: damaged?): "
            "export it again"
        ) from error
    return Dataset()


def _plane(header: Header, dataset: Dataset | None, frame: int) -> Plane:
    """Return a plane of a file; ``dataset`` is given for multi-frame files."""

    def numbers(group: str, keyword: str, count: int) -> F64:
        if dataset is None:
            return _numbers(header, keyword, header.value(keyword), count)
        item = functional_group(dataset, frame, group, header)
        return _numbers(header, keyword, attribute(item, keyword, header.path), count)

    cosines = numbers("PlaneOrientationSequence", "ImageOrientationPatient", 6)
    row, column = cosines[:3], cosines[3:]
    wrong = max(abs(float(row @ row) - 1.0), abs(float(column @ column) - 1.0), abs(float(row @ column)))
    if wrong > 2.0 * ORTHONORMAL_TOLERANCE:
        raise DicomError(
            f"'{header.path.name}' has orientation {cosines.tolist()} (not two directions at a right angle): export it "
            "again"
        )
    spacing_mm = numbers("PixelMeasuresSequence", "PixelSpacing", 2)
    if spacing_mm.min() <= 0.0:
        raise DicomError(f"'{header.path.name}' has PixelSpacing {spacing_mm} (it must be positive)")
    position_mm = numbers("PlanePositionSequence", "ImagePositionPatient", 3)
    require_place(header.path.name, position_mm, spacing_mm)
    return Plane(header, frame, position_mm, cosines, spacing_mm)


def _numbers(header: Header, keyword: str, value: Any, count: int) -> F64:
    """Return a value of ``count`` numbers."""
    try:
        numbers = np.array([] if value in (None, "") else value, dtype=np.float64).reshape(-1)
    except (ValueError, TypeError):
        numbers = np.empty(0)
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise DicomError(
            f"'{header.path.name}' has no usable {keyword} (found '{shortened(str(value))}'; it cannot be placed in "
            "the patient): export it again"
        )
    return numbers
