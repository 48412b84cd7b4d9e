"""Read an RT Dose as dose to points on a regular grid along the patient's axes (PS3.3 C.8.8.3)."""

from dataclasses import dataclass

import numpy as np
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset

from engine.errors import DicomError, shortened
from engine.model.arrays import F32, F64
from engine.model.grid import Grid
from storage.dicom.sanity import LARGEST_SIDE, require_place
from storage.dicom.scan import Header, read_file

AXIS_TOLERANCE = 1e-4
"""Direction cosines this close to 0 and ±1 are rounded: 0.05 mm over half a metre."""
PLANE_TOLERANCE_MM = 0.01
LARGEST_N_VOXEL = 1 << 27
"""512 planes of 512 × 512 points."""
LARGEST_DOSE_GY = 1e5
"""Nothing is told above: ten times what stands beside a source."""
SUMMATIONS = ("PLAN", "MULTI_PLAN", "PLAN_OVERVIEW", "FRACTION", "BEAM", "CONTROL_POINT", "RECORD")


@dataclass(frozen=True)
class ReadDose:
    """A dose from elsewhere.

    Parameters
    ----------
    uid
        SOP Instance UID.
    label
        Comment as written, without control characters.
    grid
        Where the values are, along increasing x, y, z.
    dose_gy
        Shape ``grid.shape_zyx``.
    summation
        What was summed up: PLAN, BEAM, FRACTION, …
    plan_uid, beam_number
        The plan it belongs to, and of a beam's dose the beam; empty and None where not named.
    is_effective
        Whether it was weighted with a biological effectiveness.
    frame_of_reference_uid
        The coordinates it is given in.
    notes
        What looks odd.
    """

    uid: str
    label: str
    grid: Grid
    dose_gy: F32
    summation: str
    plan_uid: str
    beam_number: int | None
    is_effective: bool
    frame_of_reference_uid: str
    notes: tuple[str, ...]


def read_dose(header: Header) -> ReadDose:
    """Read a dose.

    Parameters
    ----------
    header
        The dose, as found by `storage.dicom.scan.scan_folder`.

    Raises
    ------
    DicomError
        If the file is damaged, its planes are not regular or not along the patient's axes, or its values are no dose
        in Gy.
    """
    try:
        with disable_value_validation():
            return _dose(read_file(header.path))
    except DicomError as error:
        raise DicomError(f"the dose '{header.path.name}' {error}") from error
    except Exception as error:  # pydicom and its decoders raise many kinds on damaged files
        raise DicomError(
            f"the dose '{header.path.name}' cannot be understood ({type(error).__name__}): export it again"
        ) from error


def _dose(dataset: Dataset) -> ReadDose:
    notes: list[str] = []
    units, kind = str(dataset.get("DoseUnits") or ""), str(dataset.get("DoseType") or "")
    if units != "GY":
        raise DicomError(
            f"has values in '{shortened(units)}' (no dose in Gy can be made of them): export absolute dose"
        )
    if kind not in ("PHYSICAL", "EFFECTIVE"):
        raise DicomError(
            f"has the type '{shortened(kind)}' (neither physical nor effective dose): export the dose itself"
        )
    if kind == "EFFECTIVE":
        notes.append("the dose is weighted with a biological effectiveness")
    values = _values(dataset)
    if float(values.min()) < 0.0:
        notes.append(f"the dose has negative values, down to {float(values.min()):g} Gy")
    grid, dose_gy = _along_axes(dataset, values)
    plans = dataset.get("ReferencedRTPlanSequence") or []
    summation = str(dataset.get("DoseSummationType") or "")
    if summation not in SUMMATIONS:
        notes.append(f"the dose calls what it sums up '{shortened(summation)}'")
    if len(plans) > 1:
        notes.append(f"the dose refers to {len(plans)} plans; the first is kept")
    return ReadDose(
        uid=str(dataset.SOPInstanceUID),
        label=shortened(" ".join(str(dataset.get("DoseComment") or "").split())),
        grid=grid,
        dose_gy=dose_gy,
        summation=summation,
        plan_uid=str(plans[0].get("ReferencedSOPInstanceUID") or "") if plans else "",
        beam_number=_beam_number(plans[0]) if plans else None,
        is_effective=kind == "EFFECTIVE",
        frame_of_reference_uid=str(dataset.get("FrameOfReferenceUID") or ""),
        notes=tuple(notes),
    )


def _beam_number(plan: Dataset) -> int | None:
    """Return the one beam that a reference to a plan names; None for none or several."""
    beams = [
        int(beam.ReferencedBeamNumber)
        for group in plan.get("ReferencedFractionGroupSequence") or []
        for beam in group.get("ReferencedBeamSequence") or []
    ]
    return beams[0] if len(beams) == 1 else None


def _values(dataset: Dataset) -> F32:
    """Return the dose in the order of the file, shape (frames, rows, columns)."""
    shape = int(dataset.get("NumberOfFrames") or 1), int(dataset.Rows), int(dataset.Columns)
    if not (
        min(shape) >= 1
        and max(shape[1:]) <= LARGEST_SIDE
        and shape[0] * shape[1] * shape[2] <= LARGEST_N_VOXEL
    ):
        raise DicomError(
            f"has {shape[2]} × {shape[1]} × {shape[0]} points (more than can be): export a coarser grid"
        )
    if "PixelData" not in dataset:
        raise DicomError("has no values (cut short?): export it again")
    expected = shape[0] * shape[1] * shape[2] * int(dataset.BitsAllocated) // 8
    if not dataset.file_meta.TransferSyntaxUID.is_compressed and len(dataset.PixelData) < expected:
        raise DicomError(
            f"is cut short ({len(dataset.PixelData)} bytes of values instead of {expected}): export it again"
        )
    scaling = float(dataset.get("DoseGridScaling") or "nan")
    if not np.isfinite(scaling) or scaling <= 0.0:
        raise DicomError("has no Dose Grid Scaling (its values are no dose without): export it again")
    # In place, as 32-bit numbers times a float64 would need four times the memory.
    values: F32 = dataset.pixel_array.reshape(shape).astype(np.float32)
    with np.errstate(over="ignore"):
        values *= np.float32(scaling)
    largest_gy = float(np.abs(values).max())
    if not largest_gy <= LARGEST_DOSE_GY:
        raise DicomError(
            f"has values of {largest_gy:.3g} Gy (is its Dose Grid Scaling right?): export it again"
        )
    return values


def _along_axes(dataset: Dataset, values: F32) -> tuple[Grid, F32]:
    """Turn frames, rows and columns into slices along z, rows along y and columns along x, all increasing."""
    cosines = np.array(dataset.ImageOrientationPatient, dtype=np.float64).reshape(2, 3)
    direction = np.stack([np.cross(cosines[0], cosines[1]), cosines[1], cosines[0]])  # frames, rows, columns
    signs = np.rint(direction)
    if np.abs(direction - signs).max() > AXIS_TOLERANCE or (np.abs(signs).sum(axis=0) != 1).any():
        raise DicomError(
            "lies askew to the patient's axes (its values would have to be interpolated): export it along them"
        )
    row_mm, column_mm = (float(v) for v in dataset.PixelSpacing)
    offsets_mm = _offsets_mm(dataset, values.shape[0], signs[0])
    if offsets_mm.size > 1 and offsets_mm[1] < offsets_mm[0]:
        offsets_mm, values = offsets_mm[::-1], values[::-1]
    first_mm = np.array(dataset.ImagePositionPatient, dtype=np.float64) + signs[0] * offsets_mm[0]
    step_mm = np.array([_step_mm(dataset, offsets_mm), row_mm, column_mm])
    # Array axis for every patient axis x, y, z.
    of_axis = np.abs(signs).argmax(axis=0)
    origin_mm, spacing_mm = np.empty(3), np.empty(3)
    flips: list[slice] = [slice(None)] * 3
    for axis, array_axis in enumerate(of_axis):
        sign, n = signs[array_axis, axis], values.shape[array_axis]
        spacing_mm[axis] = step_mm[array_axis]
        origin_mm[axis] = first_mm[axis]
        if sign < 0:
            flips[array_axis] = slice(None, None, -1)
            origin_mm[axis] -= (n - 1) * spacing_mm[axis]
    turned = np.ascontiguousarray(values[tuple(flips)].transpose(of_axis[::-1]))
    x_mm, y_mm, z_mm = origin_mm.tolist()
    dx_mm, dy_mm, dz_mm = spacing_mm.tolist()
    require_place("it", origin_mm, spacing_mm)
    nz, ny, nx = turned.shape
    return Grid((x_mm, y_mm, z_mm), (dx_mm, dy_mm, dz_mm), (nz, ny, nx)), turned


def _offsets_mm(dataset: Dataset, n_frame: int, normal: F64) -> F64:
    """Return the position of every frame along the normal, from Image Position (C.8.8.3.2: relative, or absolute z)."""
    if n_frame == 1:
        return np.zeros(1)
    offsets_mm = np.atleast_1d(np.asarray(dataset.get("GridFrameOffsetVector"), dtype=np.float64))
    if offsets_mm.shape != (n_frame,) or not np.isfinite(offsets_mm).all():
        raise DicomError(
            f"has {offsets_mm.size} frame offsets for {n_frame} frames, or some that are no numbers: export it again"
        )
    if abs(offsets_mm[0]) <= PLANE_TOLERANCE_MM:
        return offsets_mm
    z_mm = float(dataset.ImagePositionPatient[2])
    if abs(offsets_mm[0] - z_mm) > PLANE_TOLERANCE_MM or abs(normal[2]) != 1.0:
        raise DicomError(
            f"has a first frame offset of {offsets_mm[0]:g} mm (neither 0 nor the position of the first frame): export "
            "it again"
        )
    along_mm: F64 = (offsets_mm - z_mm) * normal[2]
    return along_mm


def _step_mm(dataset: Dataset, offsets_mm: F64) -> float:
    """Return the distance of frames, which must be the same everywhere."""
    if offsets_mm.size == 1:
        thickness = dataset.get("SliceThickness")
        if not thickness:
            raise DicomError("has a single plane of unknown thickness: export a volume")
        return float(thickness)
    steps_mm = np.diff(offsets_mm)
    step_mm = float((offsets_mm[-1] - offsets_mm[0]) / steps_mm.size)
    if np.abs(steps_mm - step_mm).max() > PLANE_TOLERANCE_MM:
        raise DicomError(
            f"has planes {steps_mm.min():g} to {steps_mm.max():g} mm apart (lost frames?): export equal "
            "distances"
        )
    return step_mm
