"""From contours that are not axial, but parallel to each other, to the fraction of every voxel that they cover."""

from collections.abc import Sequence

import numpy as np

from engine.geometry.resample import sample_onto
from engine.geometry.voxelise import Voxelised, voxelise
from engine.model.arrays import F64
from engine.model.case import Contour
from engine.model.grid import Grid

OUT_OF_PLANE_MM = 0.1
"""Points may lie off their common planes by this much: coordinates are rounded, and planes are turned."""


def voxelise_tilted(contours_mm: Sequence[F64], grid: Grid) -> Voxelised | None:
    """Return the coverage of contours in parallel planes of any direction; None if they are not parallel.

    The contours are voxelised in coordinates along their planes, on voxels as large as those of ``grid``, and this
    coverage is interpolated trilinearly. The volume is kept but for rounding; the edge becomes about a voxel wider than
    that of axial contours.

    Parameters
    ----------
    contours_mm
        Points of every contour, patient coordinates, each of shape (n_point >= 3, 3).
    grid
        The grid to fill.
    """
    along = _common_axes(contours_mm)
    if along is None:
        return None
    turned = [points @ along.T for points in contours_mm]
    if max(float(np.ptp(points[:, 2])) for points in turned) > 2.0 * OUT_OF_PLANE_MM:
        return None
    # Contours of one plane may lie apart by rounding; `voxelise` would take them as planes of their own.
    heights_mm = _common_heights_mm(np.array([float(points[:, 2].mean()) for points in turned]))
    flat = [Contour(float(z), points[:, :2]) for z, points in zip(heights_mm, turned, strict=True)]
    source = _grid_over(flat, grid)
    voxelised = voxelise(flat, source)
    index_from_source = np.eye(4)
    index_from_source[:3, :3] = np.diag(1.0 / np.array(source.spacing_mm_xyz))
    index_from_source[:3, 3] = -np.array(source.origin_mm_xyz) / source.spacing_mm_xyz
    turn = np.eye(4)
    turn[:3, :3] = along
    coverage = sample_onto(voxelised.coverage, index_from_source @ turn, grid, 0.0)
    return Voxelised(coverage, voxelised.notes)


def _common_axes(contours_mm: Sequence[F64]) -> F64 | None:
    """Return two directions in the planes and their normal as rows, shape (3, 3); None without an area.

    The normal is that of the area vectors (half the sum of cross products of successive corners), of all contours.
    """
    areas = np.array(
        [
            0.5 * np.cross(points - points[0], np.roll(points, -1, axis=0) - points[0]).sum(axis=0)
            for points in contours_mm
        ]
    )
    largest = areas[np.linalg.norm(areas, axis=1).argmax()]
    total = (areas * np.where(areas @ largest < 0.0, -1.0, 1.0)[:, None]).sum(axis=0)
    length = float(np.linalg.norm(total))
    if length <= 0.0:
        return None
    normal = total / length
    first = np.cross(normal, np.eye(3)[np.abs(normal).argmin()])
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(normal, first), normal])


def _common_heights_mm(heights_mm: F64) -> F64:
    """Return heights with those that follow each other within the tolerance made equal to their mean."""
    order = np.argsort(heights_mm, kind="stable")
    group = np.concatenate([[0], np.cumsum(np.diff(heights_mm[order]) > OUT_OF_PLANE_MM)])
    means = np.bincount(group, heights_mm[order]) / np.bincount(group)
    result = np.empty_like(heights_mm)
    result[order] = means[group]
    return result


def _grid_over(contours: Sequence[Contour], like: Grid) -> Grid:
    """Return a grid over contours, one voxel larger on every side, with voxels like those of another grid."""
    points = np.concatenate([contour.points_mm_xy for contour in contours])
    heights_mm = np.unique([contour.z_mm for contour in contours])
    gap_mm = float(np.diff(heights_mm).max()) if heights_mm.size > 1 else 0.0
    dx, dy, dz = like.spacing_mm_xyz
    edge_mm = min(dx, dy)
    low = np.array([*(points.min(axis=0) - edge_mm), heights_mm[0] - 0.5 * gap_mm - dz])
    high = np.array([*(points.max(axis=0) + edge_mm), heights_mm[-1] + 0.5 * gap_mm + dz])
    spacing = np.array([edge_mm, edge_mm, dz])
    nx, ny, nz = (int(n) for n in np.ceil((high - low) / spacing).astype(int) + 1)
    x, y, z = low.tolist()
    return Grid((x, y, z), (edge_mm, edge_mm, dz), (nz, ny, nx))
