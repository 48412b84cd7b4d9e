"""From contours to the fraction of every voxel that a structure covers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.errors import CaseError
from engine.geometry.contour_slabs import Slab, contour_slabs
from engine.geometry.voxelise_kernels import SNAP_FRACTION, even_odd_coverage
from engine.model.arrays import F32, F64
from engine.model.case import Contour
from engine.model.grid import Grid

OUTSIDE_MM = 0.01
"""Contours that stick out of the grid by no more than this do so by rounding."""


@dataclass(frozen=True)
class Voxelised:
    """A structure on a grid.

    Parameters
    ----------
    coverage
        Fraction of every voxel inside the structure, in [0, 1]; shape ``grid.shape_zyx``.
    notes
        What was decided where the contours leave room for doubt, one sentence part each.
    """

    coverage: F32
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Window:
    """The columns and rows of a grid that polygons touch."""

    column_begin: int
    column_end: int
    row_begin: int
    row_end: int


def voxelise(contours: Sequence[Contour], grid: Grid) -> Voxelised:
    """Return the fraction of every voxel that lies inside the contours.

    In the plane, the area of polygon and pixel in common is exact, and the even-odd rule decides what is inside:
    a polygon in another is a hole, one in the hole an island; keyhole contours work (their channel has no width);
    polygons side by side add up; where polygons overlap, the part in common is outside; a polygon that occurs twice
    counts once. Along z, every plane stands for a slab (see `contour_slabs`), and a voxel gets the average of the
    slabs that it meets, weighted by overlap, so planes need not lie on slices. The sum of coverage times voxel volume
    is the sum of polygon area times slab thickness, as far as it lies on the grid. A structure of a single plane is as
    thick as a slice.

    Parameters
    ----------
    contours
        Polygons of one structure, in any order; none give an empty structure.
    grid
        The grid to fill.

    Raises
    ------
    CaseError
        If a contour has fewer than three corners, a coordinate that is not finite, or far too many crossings.
    """
    coverage = np.zeros(grid.shape_zyx, np.float32)

    def same_body(below: tuple[F64, ...], above: tuple[F64, ...]) -> bool:
        return _share_half(below, above, grid)

    slabs, notes = contour_slabs(contours, grid.spacing_mm_xyz[2], same_body)
    if not slabs:
        return Voxelised(coverage, notes)
    window = _window([polygon for slab in slabs for polygon in slab.polygons_mm_xy], grid)
    cache: dict[int, F64] = {}
    edges_mm = grid.edges_mm_xyz[2]
    tops_mm = np.array([slab.top_mm for slab in slabs])
    for k in range(grid.shape_zyx[0]):
        bottom_mm, top_mm = edges_mm[k], edges_mm[k + 1]
        first = int(np.searchsorted(tops_mm, bottom_mm, side="right"))
        for index in [index for index in cache if index < first]:
            del cache[index]
        total: F64 | None = None
        for index in range(first, len(slabs)):
            slab = slabs[index]
            overlap_mm = min(top_mm, slab.top_mm) - max(bottom_mm, slab.bottom_mm)
            if slab.bottom_mm >= top_mm:
                break
            if overlap_mm <= SNAP_FRACTION * (top_mm - bottom_mm):
                continue
            if index not in cache:
                cache[index] = _plane_coverage(slab.polygons_mm_xy, grid, window)
            part = cache[index] * (overlap_mm / (top_mm - bottom_mm))
            total = part if total is None else total + part
        if total is not None:
            total[total > 1.0 - SNAP_FRACTION] = 1.0
            coverage[k, window.row_begin : window.row_end, window.column_begin : window.column_end] = total
    return Voxelised(coverage, notes + _outside_notes(slabs, grid))


def _pixel_points(points_mm_xy: F64, grid: Grid) -> F64:
    """Return points in pixel units, where pixel ``[row, column]`` spans whole numbers; shape (n_point, 2)."""
    corner_mm = np.array(grid.origin_mm_xyz[:2]) - 0.5 * np.array(grid.spacing_mm_xyz[:2])
    pixels: F64 = (points_mm_xy - corner_mm) / np.array(grid.spacing_mm_xyz[:2])
    return pixels


def _window(polygons_mm_xy: Sequence[F64], grid: Grid) -> _Window:
    """Return the smallest window of the grid that holds all polygons (empty where they miss it)."""
    points = np.concatenate([_pixel_points(polygon, grid) for polygon in polygons_mm_xy])
    _, ny, nx = grid.shape_zyx
    low, high = points.min(axis=0), points.max(axis=0)
    column_begin, row_begin = (min(max(math.floor(v), 0), n) for v, n in zip(low, (nx, ny), strict=True))
    column_end, row_end = (min(max(math.ceil(v), 0), n) for v, n in zip(high, (nx, ny), strict=True))
    return _Window(column_begin, max(column_end, column_begin), row_begin, max(row_end, row_begin))


def _plane_coverage(polygons_mm_xy: Sequence[F64], grid: Grid, window: _Window) -> F64:
    """Return the area fractions of the pixels of a window, shape (n_row, n_column)."""
    n_row, n_column = window.row_end - window.row_begin, window.column_end - window.column_begin
    coverage = np.zeros((n_row, n_column), np.float64)
    starts = [
        _pixel_points(polygon, grid) - (window.column_begin, window.row_begin) for polygon in polygons_mm_xy
    ]
    edge = np.concatenate([np.concatenate([p, np.roll(p, -1, axis=0)], axis=1) for p in starts])
    edge[edge[:, 1] > edge[:, 3]] = edge[edge[:, 1] > edge[:, 3]][:, [2, 3, 0, 1]]
    edge = edge[(edge[:, 1] < edge[:, 3]) & (edge[:, 3] > 0.0) & (edge[:, 1] < n_row)]
    if coverage.size == 0 or len(edge) == 0:
        return coverage
    edge = edge[np.argsort(edge[:, 1], kind="stable")]
    heights = np.clip(np.concatenate([edge[:, 1], edge[:, 3]]), 0.0, n_row)
    rows = np.arange(math.floor(heights.min()), math.ceil(heights.max()) + 1, dtype=np.float64)
    rows = rows[(rows >= heights.min()) & (rows <= heights.max())]
    low_x, low_y, high_x, high_y = (np.ascontiguousarray(column) for column in edge.T)
    events = np.unique(np.concatenate([heights, rows]))
    if not even_odd_coverage(low_x, low_y, high_x, high_y, events, coverage):
        raise CaseError(
            f"contours of {len(edge)} edges in one plane cross each other too often to be an outline; draw them again"
        )
    return coverage


def _share_half(below: tuple[F64, ...], above: tuple[F64, ...], grid: Grid) -> bool:
    """Return whether two planes have at least half of the smaller one's area in common, seen along z."""
    window = _window([*below, *above], grid)
    lower, upper = _plane_coverage(below, grid, window), _plane_coverage(above, grid, window)
    smaller = min(float(lower.sum()), float(upper.sum()))
    return smaller > 0.0 and float(np.minimum(lower, upper).sum()) >= 0.5 * smaller


def _outside_notes(slabs: Sequence[Slab], grid: Grid) -> tuple[str, ...]:
    """Return a note if contours stick out of the grid, sideways or by whole planes."""
    points_mm = np.concatenate([polygon for slab in slabs for polygon in slab.polygons_mm_xy])
    x_mm, y_mm, z_mm = grid.edges_mm_xyz
    outside_mm = max(
        x_mm[0] - points_mm[:, 0].min(),
        points_mm[:, 0].max() - x_mm[-1],
        y_mm[0] - points_mm[:, 1].min(),
        points_mm[:, 1].max() - y_mm[-1],
        z_mm[0] - slabs[0].top_mm,
        slabs[-1].bottom_mm - z_mm[-1],
    )
    if outside_mm <= OUTSIDE_MM:
        return ()
    return (f"sticks out of the grid by up to {outside_mm:.1f} mm and is cut there",)
