"""Check that planes form a regular stack, and work out where its voxels lie."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.errors import DicomError
from engine.model.arrays import F64
from engine.model.grid import Grid
from storage.dicom.planes import Plane

COSINE_TOLERANCE = 1e-4
"""Directions may be off by this much (0.03 mm over 300 mm)."""
POSITION_TOLERANCE_MM = 0.01
SPACING_TOLERANCE_FRACTION = 0.01
TILT_TOLERANCE_DEG = 0.5
"""A gantry tilt may be written with this rounding."""


@dataclass(frozen=True)
class Stack:
    """Planes in order, with the place of every voxel.

    Parameters
    ----------
    planes
        Planes in order: from feet to head, or along whichever patient axis is nearest to their normal.
    shape_zyx
        Number of planes, rows and columns.
    patient_from_index
        Patient coordinates of the voxel centre at column, row, plane (and 1), shape (4, 4).
    tilt_deg
        Angle by which the stack is sheared: the gantry was tilted.
    """

    planes: tuple[Plane, ...]
    shape_zyx: tuple[int, int, int]
    patient_from_index: F64
    tilt_deg: float

    @property
    def is_axial(self) -> bool:
        """Whether rows, columns and planes run along x, y and z (in either direction)."""
        cosines = self.planes[0].cosines
        axial = (np.sign(cosines[0]), 0, 0, 0, np.sign(cosines[4]), 0)
        return bool(np.abs(cosines - axial).max() <= COSINE_TOLERANCE)

    @property
    def angles_deg(self) -> tuple[float, float, float]:
        """Angle between columns, rows and planes, each in turn, and the patient axis that is nearest to it."""
        steps = self.patient_from_index[:3, :3]
        cosine = np.abs(steps / np.linalg.norm(steps, axis=0)).max(axis=0)
        x, y, z = np.degrees(np.arccos(np.clip(cosine, 0.0, 1.0)))
        return float(x), float(y), float(z)

    def axial_grid(self) -> Grid:
        """Return a grid along the patient's axes with a voxel for every one of the stack.

        For axial planes it holds the voxels themselves. Otherwise it covers all of their centres; each patient axis
        has the spacing of the stack's axis nearest to it.
        """
        nz, ny, nx = self.shape_zyx
        index = np.array(np.meshgrid([0, nx - 1], [0, ny - 1], [0, nz - 1], [1], indexing="ij")).reshape(
            4, -1
        )
        corners_mm = (self.patient_from_index @ index)[:3]
        low_mm, high_mm = corners_mm.min(axis=1), corners_mm.max(axis=1)
        steps = self.patient_from_index[:3, :3]
        spacing_mm = np.linalg.norm(steps, axis=0)[_nearest_axes(steps)]
        if self.is_axial:
            count = np.array([nx, ny, nz])
        else:
            count = np.ceil((high_mm - low_mm) / spacing_mm - 1e-6).astype(int) + 1
        x, y, z = low_mm.tolist()
        dx, dy, dz = spacing_mm.tolist()
        return Grid((x, y, z), (dx, dy, dz), (int(count[2]), int(count[1]), int(count[0])))


def stack_planes(planes: Sequence[Plane]) -> Stack:
    """Return the planes of one series in order, with the place of their voxels.

    Planes are ordered by position, never by number or file name. A stack that is sheared along z, as a tilted gantry
    leaves it, is a regular stack, too.

    Raises
    ------
    DicomError
        If geometry differs between planes, or planes are missing, doubled, shifted or unevenly spaced.
    """
    first = planes[0]
    if len(planes) < 2:
        raise DicomError(
            f"the series has only one slice, '{first.header.path.name}' (two or more are needed): export all of it"
        )
    _check_same(planes)
    row, column = first.cosines[:3], first.cosines[3:]
    normal = np.cross(row, column)
    normal *= np.sign(normal[np.abs(normal).argmax()]) / np.linalg.norm(normal)
    position_mm = np.array([plane.position_mm for plane in planes])
    order = np.argsort(position_mm @ normal, kind="stable")
    ordered = [planes[n] for n in order]
    position_mm = position_mm[order]
    height_mm = position_mm @ normal
    _check_even_spacing(ordered, height_mm)
    step_mm = (position_mm[-1] - position_mm[0]) / (len(ordered) - 1)
    tilt_deg = _tilt_deg(step_mm, normal, row, len(ordered))
    if tilt_deg == 0.0:
        step_mm = normal * (step_mm @ normal)
    _check_straight(ordered, position_mm, height_mm, step_mm, normal)
    _check_tilt(ordered, tilt_deg)
    rows, columns = (int(first.header.text(keyword)) for keyword in ("Rows", "Columns"))
    matrix = np.eye(4)
    matrix[:3] = np.stack(
        [row * first.spacing_mm[1], column * first.spacing_mm[0], step_mm, position_mm[0]], axis=1
    )
    return Stack(tuple(ordered), (len(ordered), rows, columns), matrix, tilt_deg)


def _nearest_axes(steps: F64) -> list[int]:
    """Return which of a stack's axes is nearest to x, y and z, each taken once."""
    cosine = np.abs(steps / np.linalg.norm(steps, axis=0))
    nearest = [0, 0, 0]
    for _ in range(3):
        axis, of_stack = np.unravel_index(int(cosine.argmax()), cosine.shape)
        nearest[int(axis)] = int(of_stack)
        cosine[axis, :] = cosine[:, of_stack] = -1.0
    return nearest


def _check_same(planes: Sequence[Plane]) -> None:
    """Refuse planes that differ in what one series must have in common."""
    first = planes[0]
    name = first.header.path.name
    frames = {plane.header.text("FrameOfReferenceUID"): plane.header.path.name for plane in planes}
    if len(frames) > 1:
        raise DicomError(
            f"the series has {len(frames)} frames of reference (its slices do not share coordinates; they are named by "
            f"{', '.join(repr(name) for name in frames.values())}, among others): export one acquisition only"
        )
    for plane in planes:
        header = plane.header
        for keyword in ("Rows", "Columns", "PatientPosition"):
            if header.text(keyword) != first.header.text(keyword) or (
                keyword != "PatientPosition" and not header.text(keyword)
            ):
                raise DicomError(
                    f"'{header.path.name}' has {keyword} '{header.text(keyword)}', '{name}' has "
                    f"'{first.header.text(keyword)}' (a series needs the same in every slice): export one acquisition "
                    "only"
                )
        if np.abs(plane.spacing_mm - first.spacing_mm).max() > 1e-6 * first.spacing_mm.max():
            raise DicomError(
                f"'{header.path.name}' has another PixelSpacing than '{name}' "
                "(a series needs the same in every slice): export one acquisition only"
            )
        if np.abs(plane.cosines - first.cosines).max() > COSINE_TOLERANCE:
            raise DicomError(
                f"'{header.path.name}' is turned against '{name}' (one series has one orientation)"
            )


def _tilt_deg(step_mm: F64, normal: F64, row: F64, n_plane: int) -> float:
    """Return the angle of a tilted gantry: the couch moves along z, and planes are turned about x; 0 for all else."""
    sideways_mm = np.linalg.norm(step_mm - normal * (step_mm @ normal)) * (n_plane - 1)
    off_z_mm = float(np.abs(step_mm[:2]).max()) * (n_plane - 1)
    about_x = bool(np.abs(row[1:]).max() <= COSINE_TOLERANCE)
    allowed_mm = _allowed_mm(float(np.linalg.norm(step_mm)) * (n_plane - 1))
    if sideways_mm <= allowed_mm or off_z_mm > allowed_mm or not about_x:
        return 0.0
    cosine = abs(float(step_mm @ normal)) / float(np.linalg.norm(step_mm))
    return float(np.degrees(np.arccos(min(cosine, 1.0))))


def _allowed_mm(length_mm: float) -> float:
    """Return by how much planes may lie off a line through all of them: positions and directions are rounded."""
    return max(POSITION_TOLERANCE_MM, COSINE_TOLERANCE * length_mm)


def _check_straight(
    ordered: Sequence[Plane], position_mm: F64, height_mm: F64, step_mm: F64, normal: F64
) -> None:
    """Refuse planes that are shifted sideways against the line through the first one."""
    expected_mm = position_mm[0] + np.outer((height_mm - height_mm[0]) / (step_mm @ normal), step_mm)
    shift_mm = np.linalg.norm(position_mm - expected_mm, axis=1)
    worst = int(shift_mm.argmax())
    if shift_mm[worst] > _allowed_mm(float(height_mm[-1] - height_mm[0])):
        raise DicomError(
            f"'{ordered[worst].header.path.name}' is shifted sideways by {shift_mm[worst]:.2f} mm against "
            f"'{ordered[0].header.path.name}' (two acquisitions?): reconstruct axial slices of one acquisition"
        )


def _check_tilt(ordered: Sequence[Plane], tilt_deg: float) -> None:
    """Refuse a tilt of the gantry that the positions do not show."""
    for plane in ordered:
        text = plane.header.text("GantryDetectorTilt")
        try:
            said_deg = abs(float(text or 0.0))
        except ValueError:
            said_deg = np.nan
        if not abs(said_deg - tilt_deg) <= TILT_TOLERANCE_DEG and (text or tilt_deg == 0.0):
            raise DicomError(
                f"'{plane.header.path.name}' says a gantry tilt of {text} degrees, its position and orientation show "
                f"{tilt_deg:.1f} (slices would be sheared): reconstruct axial slices without gantry tilt"
            )


def _check_even_spacing(ordered: Sequence[Plane], height_mm: F64) -> None:
    """Refuse doubled, missing and unevenly spaced planes."""
    names = [plane.header.path.name for plane in ordered]
    gap_mm = np.diff(height_mm)
    for n in map(int, np.flatnonzero(gap_mm <= POSITION_TOLERANCE_MM)):
        raise DicomError(
            f"'{names[n]}' and '{names[n + 1]}' lie at the same position, {height_mm[n]:.3f} mm along the normal "
            "(a doubled slice): take one of them, or one of the acquisitions, out"
        )
    typical_mm = float(np.median(gap_mm))
    allowed_mm = max(POSITION_TOLERANCE_MM, SPACING_TOLERANCE_FRACTION * typical_mm)
    for n in map(int, np.flatnonzero(np.abs(gap_mm - typical_mm) > allowed_mm)):
        where = (
            f"between '{names[n]}' at {height_mm[n]:.3f} mm and '{names[n + 1]}' at {height_mm[n + 1]:.3f} mm along "
            "the normal"
        )
        n_step = round(gap_mm[n] / typical_mm)
        if n_step >= 2 and abs(gap_mm[n] - n_step * typical_mm) <= n_step * allowed_mm:
            raise DicomError(f"{n_step - 1} slice(s) are missing {where}: export the whole series")
        raise DicomError(
            f"the spacing is uneven {where} ({gap_mm[n]:.3f} mm instead of {typical_mm:.3f} mm): "
            "reconstruct the series with even spacing"
        )
