"""Contours of a structure that is known as voxels, so that it can be written as an RT Structure Set."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from contourpy import FillType, contour_generator

from engine.model.arrays import F32, F64
from engine.model.case import Case, Contour
from engine.model.grid import Grid

_N_BISECTION = 20
_MATCHED_PIXEL = 0.005
"""A level whose area differs from the wanted one by less than this many pixels has been found."""
_LEAST_PIXEL = 0.25
"""Islands and holes smaller than this part of a pixel are rounding, not shape."""
_Polygon = tuple[F64, ...]
"""Outline in the order of its corners and, behind it, its holes the other way round; each of shape (n, 2)."""


def contours_of(coverage: F32, grid: Grid) -> tuple[Contour, ...]:
    """Return axial contours of a structure, one plane for each slice that it touches.

    Outlines are those of marching squares on the coverage of a slice (Lorensen and Cline 1987, in the plane), at the
    level, usually near 0.5, at which the area inside equals the covered area of the slice. `voxelise` of the contours
    therefore gives each slice its volume back. Where no level does so (a flat end in the middle of a slice: its
    voxels are covered by the same part), the slice is taken whole if that part is at least a half, and left out
    otherwise: a plane of contours stands for a whole slice.

    A hole is joined to its outline by a channel without width ("keyhole", DICOM PS3.3 C.8.8.6.3), which every reader
    understands, whether it counts crossings or fills polygon by polygon.

    Parameters
    ----------
    coverage
        Fraction of every voxel inside, shape ``grid.shape_zyx``.
    grid
        Its grid.
    """
    contours: list[Contour] = []
    x_mm, y_mm, z_mm = grid.centres_mm_xyz
    (dx_mm, dy_mm, _) = grid.spacing_mm_xyz
    for k in np.flatnonzero((coverage > 0.0).any(axis=(1, 2))):
        rows = np.flatnonzero((coverage[k] > 0.0).any(axis=1))
        columns = np.flatnonzero((coverage[k] > 0.0).any(axis=0))
        # A border of nothing closes every outline, at the edge of the grid as well.
        piece = np.pad(
            coverage[k, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float64), 1
        )
        corner_mm = (x_mm[columns[0]] - dx_mm, y_mm[rows[0]] - dy_mm)
        for polygon in _polygons_of_slice(piece):
            points_mm = _keyhole(polygon) * (dx_mm, dy_mm) + corner_mm
            contours.append(Contour(float(z_mm[k]), points_mm))
    return tuple(contours)


def with_contours(case: Case) -> Case:
    """Return the case with contours for those of its structures that have none."""
    return replace(
        case,
        structures=tuple(
            s if s.contours else replace(s, contours=contours_of(s.coverage, case.grid))
            for s in case.structures
        ),
    )


def _polygons_of_slice(piece: F64) -> list[_Polygon]:
    """Return the polygons of one slice, in pixels of ``piece``, shape (ny, nx), whose border is empty."""
    wanted = float(piece.sum())
    generator = contour_generator(z=piece, fill_type=FillType.OuterOffset)

    def at(level: float) -> list[_Polygon]:
        filled: Any = generator.filled(level, np.inf)
        return [
            # Every ring ends where it began, and says so.
            tuple(np.asarray(points[first : last - 1]) for first, last in pairwise(ends))
            for points, ends in zip(*filled, strict=True)
        ]

    def area(polygons: list[_Polygon]) -> float:
        return sum(_area(ring) for polygon in polygons for ring in polygon)

    low, high = 0.0, float(piece.max())
    level = min(0.5, 0.5 * high)
    for _ in range(_N_BISECTION):
        found = at(level)
        surplus = area(found) - wanted
        if abs(surplus) <= _MATCHED_PIXEL:
            return _without_specks(found)
        low, high = (level, high) if surplus > 0.0 else (low, level)
        level = 0.5 * (low + high)
    return _without_specks(at(0.5 * float(piece.max()))) if piece.max() >= 0.5 else []


def _without_specks(polygons: list[_Polygon]) -> list[_Polygon]:
    """Leave out islands and holes that are too small to be any."""
    kept = []
    for outline, *holes in polygons:
        if abs(_area(outline)) >= _LEAST_PIXEL:
            kept.append((outline, *(hole for hole in holes if abs(_area(hole)) >= _LEAST_PIXEL)))
    return kept


def _area(ring: F64) -> float:
    """Return the signed area of a polygon of shape (n, 2)."""
    x, y = ring.T
    return 0.5 * float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))


def _keyhole(polygon: _Polygon) -> F64:
    """Return outline and holes as one closed polygon, each hole reached from the nearest corner and left there."""
    joined, *holes = polygon
    for hole in holes:
        apart = ((joined[:, None, :] - hole[None, :, :]) ** 2).sum(axis=2)
        here, there = np.unravel_index(int(apart.argmin()), apart.shape)
        detour = np.concatenate([hole[there:], hole[: there + 1], joined[here : here + 1]])
        joined = np.concatenate([joined[: here + 1], detour, joined[here + 1 :]])
    return joined
