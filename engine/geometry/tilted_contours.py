"""From contours that are not axial, but parallel to each other, to the fraction of every voxel that they cover."""

from collections.abc import Sequence

import numpy as np

from engine.geometry.resample import sample_onto
from engine.geometry.voxelise import Voxelised, voxelise
from engine.model.arrays import F32, F64
from engine.model.case import Contour
from engine.model.grid import Grid

OUT_OF_PLANE_MM = 0.1
"""Points may lie off their common planes by this much: coordinates are rounded, and planes are turned."""


def voxelise_tilted(contours_mm: Sequence[F64], grid: Grid) -> Voxelised | None:
    """Return the coverage of contours in parallel planes of any direction; None if they are not parallel.

    The contours are voxelised in coordinates along their planes, on voxels as large as those of ``grid``. This coverage
    is interpolated trilinearly at eight points of every voxel, of which the mean is taken. The edge becomes about a
    voxel wider than that of axial contours, and the volume of a structure of few voxels is off by about one per cent.

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
    corners_mm = np.array(
        [[x, y, z] for x in source.edges_mm_xyz[0][[0, -1]] for y in source.edges_mm_xyz[1][[0, -1]]
         for z in source.edges_mm_xyz[2][[0, -1]]]
    ) @ along  # fmt: skip
    coverage = _sample_finely(
        voxelised.coverage, index_from_source @ turn, grid, corners_mm.min(axis=0), corners_mm.max(axis=0)
    )
    return Voxelised(coverage, voxelised.notes)


def _sample_finely(coverage: F32, index_from_patient: F64, grid: Grid, low_mm: F64, high_mm: F64) -> F32:
    """Return the mean of a coverage over eight points of every voxel of ``grid`` between two corners; 0 beyond."""
    result = np.zeros(grid.shape_zyx, np.float32)
    (x0, x1), (y0, y1), (z0, z1) = (
        (int(begin), int(end))
        for edges_mm, low, high in zip(grid.edges_mm_xyz, low_mm, high_mm, strict=True)
        for begin, end in [
            np.clip(
                [np.searchsorted(edges_mm, low) - 1, np.searchsorted(edges_mm, high)], 0, edges_mm.size - 1
            )
        ]
    )
    if x0 >= x1 or y0 >= y1:
        return result
    dx, dy, dz = (0.5 * spacing_mm for spacing_mm in grid.spacing_mm_xyz)
    x_mm, y_mm, z_mm = (centres_mm for centres_mm in grid.centres_mm_xyz)
    for k in range(z0, z1):  # slice by slice, as the points are eight times as many as the voxels
        fine = Grid(
            (float(x_mm[x0]) - 0.5 * dx, float(y_mm[y0]) - 0.5 * dy, float(z_mm[k]) - 0.5 * dz),
            (dx, dy, dz),
            (2, 2 * (y1 - y0), 2 * (x1 - x0)),
        )
        points = sample_onto(coverage, index_from_patient, fine, 0.0)
        result[k, y0:y1, x0:x1] = points.reshape(2, y1 - y0, 2, x1 - x0, 2).mean(axis=(0, 2, 4))
    return result


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
