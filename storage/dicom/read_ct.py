"""Read a CT series as a regular grid of Hounsfield units."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset

from engine.errors import DicomError, shortened
from engine.geometry.resample import sample_onto
from engine.model.arrays import F32, F64, Bool
from engine.model.case import PatientPosition
from engine.model.grid import Grid
from storage.dicom.choosing import by_series, choose_series
from storage.dicom.duplicates import without_duplicates
from storage.dicom.patient_position import patient_position
from storage.dicom.pixels import read_volume, rescaled, rescaling
from storage.dicom.planes import Plane, planes_of
from storage.dicom.read_registration import inverse
from storage.dicom.sanity import require_hu, require_one_patient
from storage.dicom.scan import Header
from storage.dicom.slice_geometry import Stack, stack_planes
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
        Identifiers of study, series, frame of reference and files.
    has_slice_files
        Whether every slice of the grid is a file of the series: not if it was interpolated, or is a multi-frame file.
    notes
        What was assumed or mended.
    """

    grid: Grid
    ct_hu: F32
    patient_position: PatientPosition
    reference: CtReference
    has_slice_files: bool
    notes: tuple[str, ...]


def read_ct(headers: Sequence[Header], series: str | None = None) -> CtImage:
    """Read a CT series, slice by slice, so that hardly more than the result is held in memory.

    A CT whose planes do not run along the patient's axes (oblique, sagittal, coronal, or sheared by a tilted gantry) is
    interpolated trilinearly onto a grid that does, as dose is computed on such grids alone.

    Parameters
    ----------
    headers
        Headers of CT slices, of one or more series; at least one.
    series
        Which series: its UID, its number or a part of its description; may be left out if there is only one.

    Raises
    ------
    DicomError
        If there is more than one CT without a choice, or if the series is damaged, incomplete or not supported;
        the message names the file.
    """
    chosen = choose_series(by_series(headers), series, "CT", "--series")
    require_one_patient(chosen, "the CT series mixes patients")
    chosen, duplicate_notes = without_duplicates(chosen)
    stack = stack_planes(planes_of(chosen))
    position, position_notes = patient_position(stack.planes[0])
    volume, unit_notes = _read_hu(stack)
    grid = stack.axial_grid()
    geometry_notes: tuple[str, ...] = ()
    if stack.is_axial and not stack.tilt_deg:
        cosines = stack.planes[0].cosines
        volume = np.ascontiguousarray(
            volume[:, :: -1 if cosines[4] < 0 else 1, :: -1 if cosines[0] < 0 else 1]
        )
    else:
        volume = sample_onto(volume, inverse(stack.patient_from_index), grid, PADDING_HU)
        geometry_notes = (_resampling_note(stack, grid),)
    first = stack.planes[0].header
    if not first.text("FrameOfReferenceUID"):
        unit_notes += ("the CT names no frame of reference, so structures could not be checked against it",)
    reference = CtReference(
        study_uid=first.text("StudyInstanceUID"),
        series_uid=first.text("SeriesInstanceUID"),
        frame_of_reference_uid=first.text("FrameOfReferenceUID"),
        instance_uids=tuple(dict.fromkeys(plane.header.text("SOPInstanceUID") for plane in stack.planes)),
    )
    return CtImage(
        grid,
        volume,
        position,
        reference,
        not geometry_notes and len(reference.instance_uids) == len(stack.planes),
        duplicate_notes + position_notes + geometry_notes + unit_notes,
    )


def _read_hu(stack: Stack) -> tuple[F32, tuple[str, ...]]:
    """Return Hounsfield units in the order of the stack, and notes."""
    n_padding = 0
    types: set[str] = set()

    def convert(plane: Plane, dataset: Dataset, stored: F64) -> F64:
        nonlocal n_padding
        types.add(_rescale_type(plane, dataset))
        values = rescaled(plane, dataset, stored, needed=True)
        below_air = _padding(dataset, stored) & (values < PADDING_HU)
        values[below_air] = PADDING_HU
        n_padding += int(below_air.sum())
        require_hu(plane.header.path.name, values)
        return values

    volume, notes = read_volume(stack, convert)
    if n_padding:
        notes += (f"{n_padding} voxels of padding around the scanned circle were set to {PADDING_HU:.0f} HU",)
    if "US" in types:
        notes += ("the CT calls the unit of its values unspecified; Hounsfield units were assumed",)
    return volume, notes


def _resampling_note(stack: Stack, grid: Grid) -> str:
    """Return what was done to a stack that does not run along the patient's axes."""
    nx, ny, nz = grid.shape_zyx[::-1]
    spacing = " × ".join(f"{spacing_mm:.3f}" for spacing_mm in grid.spacing_mm_xyz)
    if stack.tilt_deg:
        how = f"a gantry tilt of {stack.tilt_deg:.1f}°"
    else:
        how = "columns, rows and planes {:.1f}°, {:.1f}° and {:.1f}° off the nearest patient axes".format(
            *stack.angles_deg
        )
    return (
        f"the CT has {how}; it was interpolated onto an axial grid of {nx} × {ny} × {nz} voxels of {spacing} mm, with "
        f"{PADDING_HU:.0f} HU beyond its edges"
    )


def _rescale_type(plane: Plane, dataset: Dataset) -> str:
    """Return the unit of the values; refuse what is not Hounsfield units."""
    unit = str(rescaling(plane, dataset).get("RescaleType") or "HU")
    if unit not in ("HU", "US"):
        raise DicomError(
            f"'{plane.header.path.name}' holds '{shortened(unit)}' values (not Hounsfield units): choose the plain CT "
            "reconstruction"
        )
    return unit


def _padding(dataset: Dataset, stored: F64) -> Bool:
    """Return which pixels are padding (PS3.3 C.7.5.1.1.2)."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, np.bool_)
    limit = dataset.get("PixelPaddingRangeLimit")
    low, high = sorted((float(value), float(value if limit is None else limit)))
    padding: Bool = (stored >= low) & (stored <= high)
    return padding
