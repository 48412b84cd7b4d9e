"""Which slab of the patient each contour plane stands for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from engine.errors import CaseError
from engine.model.arrays import F64
from engine.model.case import Contour

SAME_PLANE_MM = 0.01
"""Contours closer than this along z lie in one plane (positions are written with rounding)."""
GAP_FACTOR = 1.5
"""Planes further apart than this many typical spacings are a gap: at least one plane is absent in between."""
BRIDGE_FACTOR = 3.5
"""A gap up to this many typical spacings (up to two absent planes) may be a forgotten contour."""

SameBody = Callable[[tuple[F64, ...], tuple[F64, ...]], bool]


@dataclass(frozen=True)
class Slab:
    """All polygons of one plane, with the range along z that they stand for.

    Parameters
    ----------
    bottom_mm, top_mm
        Range along z.
    polygons_mm_xy
        Polygons of the plane, each of shape (n_point, 2); inside is decided by the even-odd rule.
    """

    bottom_mm: float
    top_mm: float
    polygons_mm_xy: tuple[F64, ...]


def contour_slabs(
    contours: Sequence[Contour], single_plane_mm: float, same_body: SameBody
) -> tuple[tuple[Slab, ...], tuple[str, ...]]:
    """Return the slabs of a structure, from feet to head, and notes on what was decided.

    Each plane reaches half-way to its neighbours. The first and the last plane reach beyond by half of the distance to
    their only neighbour. A structure of a single plane is ``single_plane_mm`` thick.

    The typical spacing is the lower median of all distances. Where two planes are more than 1.5 typical spacings
    apart, contours are absent in between, which DICOM does not explain (PS3.3 C.8.8.6). They are taken as forgotten,
    and both planes reach half-way, if the distance is at most 3.5 typical spacings and ``same_body`` says that the
    polygons on both sides belong together; otherwise the structure really ends and begins again there: both planes
    are end planes (of a lone plane: half the typical spacing to that side), and never reach beyond half-way. Both
    cases are noted.

    A polygon that occurs twice in a plane (any starting corner, any direction) counts once: drawn twice by mistake, it
    would cancel itself under the even-odd rule.

    Raises
    ------
    CaseError
        If a contour has fewer than three corners or a coordinate that is not finite.
    """
    planes, n_doubled = _planes(contours)
    notes = [f"{n_doubled} contour(s) drawn twice were counted once"] if n_doubled else []
    if not planes:
        return (), ()
    z_mm = np.array([plane_z_mm for plane_z_mm, _ in planes])
    gap_mm = np.diff(z_mm)
    typical_mm = float(np.sort(gap_mm)[(gap_mm.size - 1) // 2]) if gap_mm.size else single_plane_mm
    runs: list[list[int]] = [[0]]
    for plane, distance_mm in enumerate(gap_mm, start=1):
        joined = distance_mm <= GAP_FACTOR * typical_mm
        if not joined:
            where = f"no contours from z = {z_mm[plane - 1]:.2f} to {z_mm[plane]:.2f} mm"
            joined = distance_mm <= BRIDGE_FACTOR * typical_mm and same_body(
                planes[plane - 1][1], planes[plane][1]
            )
            notes.append(f"{where}: {'filled from both sides' if joined else 'left empty'}")
        if joined:
            runs[-1].append(plane)
        else:
            runs.append([plane])
    slabs: list[Slab] = []
    for run in runs:
        slabs += _run_slabs(planes, run, gap_mm, typical_mm)
    return tuple(slabs), tuple(notes)


def _planes(contours: Sequence[Contour]) -> tuple[list[tuple[float, tuple[F64, ...]]], int]:
    """Return position and polygons of every plane from feet to head, and how many doubled polygons were dropped."""
    planes: list[tuple[float, dict[bytes, F64]]] = []
    n_doubled = 0
    for contour in sorted(contours, key=lambda contour: contour.z_mm):
        points = np.ascontiguousarray(contour.points_mm_xy, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != 2 or points.shape[0] < 3:
            raise CaseError(
                f"a contour at z = {contour.z_mm} mm has points of shape {points.shape} (it needs (n >= 3, 2))"
            )
        if not (np.isfinite(points).all() and np.isfinite(contour.z_mm)):
            raise CaseError(f"a contour at z = {contour.z_mm} mm has coordinates that are not finite numbers")
        if not planes or contour.z_mm - planes[-1][0] > SAME_PLANE_MM:
            planes.append((float(contour.z_mm), {}))
        polygons = planes[-1][1]
        key = _edge_key(points)
        n_doubled += key in polygons
        polygons.setdefault(key, points)
    return [(z_mm, tuple(polygons.values())) for z_mm, polygons in planes], n_doubled


def _edge_key(points_mm_xy: F64) -> bytes:
    """Return bytes that are equal for polygons with the same set of edges, to a nanometre."""
    corner = np.round(points_mm_xy, 6) + 0.0
    edge = np.concatenate([corner, np.roll(corner, -1, axis=0)], axis=1)
    edge = edge[(edge[:, :2] != edge[:, 2:]).any(axis=1)]
    swap = (edge[:, 0] > edge[:, 2]) | ((edge[:, 0] == edge[:, 2]) & (edge[:, 1] > edge[:, 3]))
    edge[swap] = edge[swap][:, [2, 3, 0, 1]]
    return bytes(edge[np.lexsort(edge.T)].tobytes())


def _run_slabs(
    planes: list[tuple[float, tuple[F64, ...]]], run: list[int], gap_mm: F64, typical_mm: float
) -> list[Slab]:
    """Return the slabs of planes that follow each other without a gap."""
    first, last = run[0], run[-1]
    below_mm = gap_mm[first] if last > first else typical_mm
    above_mm = gap_mm[last - 1] if last > first else typical_mm
    if first > 0:
        below_mm = min(below_mm, gap_mm[first - 1])
    if last < len(planes) - 1:
        above_mm = min(above_mm, gap_mm[last])
    z_mm = np.array([planes[plane][0] for plane in run])
    border_mm = np.concatenate(
        [[z_mm[0] - 0.5 * below_mm], 0.5 * (z_mm[1:] + z_mm[:-1]), [z_mm[-1] + 0.5 * above_mm]]
    )
    return [
        Slab(float(border_mm[n]), float(border_mm[n + 1]), planes[plane][1]) for n, plane in enumerate(run)
    ]
