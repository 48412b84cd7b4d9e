"""Check that CT slices form a regular axial stack, and work out its grid."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.errors import DicomError
from engine.model.arrays import F64
from engine.model.case import PatientPosition
from engine.model.grid import Grid
from storage.dicom.scan import Header

COSINE_TOLERANCE = 1e-4
"""Directions may be off by this much (0.03 mm over 300 mm)."""
POSITION_TOLERANCE_MM = 0.01
SPACING_TOLERANCE_FRACTION = 0.01
TILT_TOLERANCE_DEG = 0.05
SUPINE_HEAD_FIRST_VIEW = (1, 1)
GANTRY_VIEWS: dict[PatientPosition, tuple[int, int]] = {
    "HFS": (1, 1),
    "HFP": (-1, -1),
    "FFS": (-1, 1),
    "FFP": (1, -1),
}
"""Signs of x along rows and of y along columns when an image is seen from the foot end of the couch (PS3.3
C.7.3.1.1.2: the picture is that of the gantry, the coordinates are those of the patient)."""


@dataclass(frozen=True)
class Stack:
    """Slices in order with their grid.

    Parameters
    ----------
    headers
        Slices from feet to head (increasing z).
    grid
        The grid, along increasing x, y and z.
    flip_rows, flip_columns
        Whether stored rows run along decreasing y, and stored columns along decreasing x.
    patient_position
        Position on the couch.
    notes
        What was assumed.
    """

    headers: tuple[Header, ...]
    grid: Grid
    flip_rows: bool
    flip_columns: bool
    patient_position: PatientPosition
    notes: tuple[str, ...]


def stack_slices(headers: Sequence[Header]) -> Stack:
    """Return the slices of one series in order, with the grid that they make up.

    Slices are ordered by position, never by number or file name.

    Raises
    ------
    DicomError
        If geometry is absent, differs between slices, is not axial, or the slices are missing, doubled or unevenly
        spaced, or if orientation and patient position contradict each other.
    """
    if len(headers) < 2:
        raise DicomError(
            f"the series has only one slice, '{headers[0].path.name}' (two or more are needed): export all of it"
        )
    _check_same(headers)
    sign_x, sign_y = _view(headers[0])
    for header in headers:
        if _view(header) != (sign_x, sign_y):
            raise DicomError(
                f"'{header.path.name}' is turned against '{headers[0].path.name}' (one series has one orientation)"
            )
    position_mm = np.array([_numbers(header, "ImagePositionPatient", 3) for header in headers])
    order = np.argsort(position_mm[:, 2], kind="stable")
    ordered = [headers[n] for n in order]
    position_mm = position_mm[order]
    _check_aligned(ordered, position_mm)
    dz_mm = _even_spacing_mm(ordered, position_mm[:, 2])
    rows, columns = int(headers[0].text("Rows")), int(headers[0].text("Columns"))
    dy_mm, dx_mm = _numbers(headers[0], "PixelSpacing", 2)
    x_mm = position_mm[0, 0] - (columns - 1) * dx_mm if sign_x < 0 else position_mm[0, 0]
    y_mm = position_mm[0, 1] - (rows - 1) * dy_mm if sign_y < 0 else position_mm[0, 1]
    grid = Grid(
        (float(x_mm), float(y_mm), float(position_mm[0, 2])),
        (float(dx_mm), float(dy_mm), dz_mm),
        (len(ordered), rows, columns),
    )
    patient_position, notes = _patient_position(headers[0], (sign_x, sign_y))
    return Stack(tuple(ordered), grid, sign_y < 0, sign_x < 0, patient_position, notes)


def _numbers(header: Header, keyword: str, count: int) -> F64:
    """Return an attribute of ``count`` numbers."""
    value = header.value(keyword)
    try:
        numbers = np.array([] if value in (None, "") else value, dtype=np.float64).reshape(-1)
    except ValueError:
        numbers = np.empty(0)
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise DicomError(
            f"'{header.path.name}' has no usable {keyword} (found '{value}'; it cannot be placed in the patient): "
            "export it again"
        )
    if keyword == "PixelSpacing" and numbers.min() <= 0.0:
        raise DicomError(f"'{header.path.name}' has PixelSpacing {numbers} (it must be positive)")
    return numbers


def _check_same(headers: Sequence[Header]) -> None:
    """Refuse slices that differ in what one series must have in common."""
    first = headers[0]
    frames = {header.text("FrameOfReferenceUID"): header.path.name for header in headers}
    if len(frames) > 1:
        raise DicomError(
            f"the series has {len(frames)} frames of reference (its slices do not share coordinates; they are named by "
            f"{', '.join(repr(name) for name in frames.values())}, among others): export one acquisition only"
        )
    spacing_mm = _numbers(first, "PixelSpacing", 2)
    for header in headers:
        for keyword in ("Rows", "Columns", "PatientPosition"):
            if header.text(keyword) != first.text(keyword) or (
                keyword != "PatientPosition" and not header.text(keyword)
            ):
                raise DicomError(
                    f"'{header.path.name}' has {keyword} '{header.text(keyword)}', '{first.path.name}' has "
                    f"'{first.text(keyword)}' (a series needs the same in every slice): export one acquisition only"
                )
        if np.abs(_numbers(header, "PixelSpacing", 2) - spacing_mm).max() > 1e-6 * spacing_mm.max():
            raise DicomError(
                f"'{header.path.name}' has another PixelSpacing than '{first.path.name}' "
                "(a series needs the same in every slice): export one acquisition only"
            )


def _view(header: Header) -> tuple[int, int]:
    """Return the signs of x along rows and y along columns of an axial slice."""
    cosines = _numbers(header, "ImageOrientationPatient", 6)
    sign_x, sign_y = (1 if cosine > 0 else -1 for cosine in (cosines[0], cosines[4]))
    if np.abs(cosines - (sign_x, 0, 0, 0, sign_y, 0)).max() > COSINE_TOLERANCE:
        raise DicomError(
            f"'{header.path.name}' has orientation {cosines.tolist()} (oblique, tilted or not axial): "
            "reconstruct axial slices without gantry tilt, rows along the patient's left-right"
        )
    tilt = header.text("GantryDetectorTilt")
    if tilt and abs(float(_numbers(header, "GantryDetectorTilt", 1)[0])) > TILT_TOLERANCE_DEG:
        raise DicomError(
            f"'{header.path.name}' has a gantry tilt of {tilt} degrees (slices would be sheared): "
            "reconstruct axial slices without gantry tilt"
        )
    return sign_x, sign_y


def _check_aligned(ordered: Sequence[Header], position_mm: F64) -> None:
    """Refuse slices that are shifted sideways."""
    shift_mm = np.abs(position_mm[:, :2] - position_mm[0, :2]).max(axis=1)
    worst = int(shift_mm.argmax())
    if shift_mm[worst] > POSITION_TOLERANCE_MM:
        raise DicomError(
            f"'{ordered[worst].path.name}' is shifted sideways by {shift_mm[worst]:.2f} mm against "
            f"'{ordered[0].path.name}' (gantry tilt or two acquisitions): reconstruct axial slices of one acquisition"
        )


def _even_spacing_mm(ordered: Sequence[Header], z_mm: F64) -> float:
    """Return the distance of slices; refuse doubled, missing and unevenly spaced ones."""
    gap_mm = np.diff(z_mm)
    for n in map(int, np.flatnonzero(gap_mm <= POSITION_TOLERANCE_MM)):
        raise DicomError(
            f"'{ordered[n].path.name}' and '{ordered[n + 1].path.name}' lie at the same position, z = {z_mm[n]:.3f} mm "
            "(a doubled slice): take one of them, or one of the acquisitions, out"
        )
    typical_mm = float(np.median(gap_mm))
    allowed_mm = max(POSITION_TOLERANCE_MM, SPACING_TOLERANCE_FRACTION * typical_mm)
    for n in map(int, np.flatnonzero(np.abs(gap_mm - typical_mm) > allowed_mm)):
        where = (
            f"between '{ordered[n].path.name}' at z = {z_mm[n]:.3f} mm and '{ordered[n + 1].path.name}' at "
            f"z = {z_mm[n + 1]:.3f} mm"
        )
        n_step = round(gap_mm[n] / typical_mm)
        if n_step >= 2 and abs(gap_mm[n] - n_step * typical_mm) <= n_step * allowed_mm:
            raise DicomError(f"{n_step - 1} slice(s) are missing {where}: export the whole series")
        raise DicomError(
            f"the spacing is uneven {where} ({gap_mm[n]:.3f} mm instead of {typical_mm:.3f} mm): "
            "reconstruct the series with even spacing"
        )
    return float((z_mm[-1] - z_mm[0]) / (len(z_mm) - 1))


def _patient_position(header: Header, view: tuple[int, int]) -> tuple[PatientPosition, tuple[str, ...]]:
    """Return the patient position, after checking it against the orientation of the picture.

    Pictures come as the gantry sees them, or turned so that the patient's left is always on the right. Anything else
    means that somebody entered a position which is not the one that the coordinates were made for, so left and right
    cannot be trusted.
    """
    name = header.text("PatientPosition")
    if not name:
        if view != SUPINE_HEAD_FIRST_VIEW:
            raise DicomError(
                f"'{header.path.name}' has no PatientPosition and an unusual orientation (left and right cannot be "
                "told): enter the patient position"
            )
        return "HFS", ("the CT does not say the patient position; head first supine (HFS) was assumed",)
    for position, gantry_view in GANTRY_VIEWS.items():
        if name == position:
            if view not in (gantry_view, SUPINE_HEAD_FIRST_VIEW):
                raise DicomError(
                    f"'{header.path.name}' has PatientPosition {name} but an orientation that contradicts it "
                    "(left and right cannot be trusted): correct the patient position at its source"
                )
            return position, ()
    raise DicomError(
        f"'{header.path.name}' has PatientPosition '{name}' (known are {', '.join(GANTRY_VIEWS)}): other positions are "
        "not supported"
    )
