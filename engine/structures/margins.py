"""Margins: a structure grown or shrunk by its own distance in each of six directions.

Growing by margins is the sum of Minkowski with an ellipsoid whose half axes are the margins; where margins to both
sides of an axis differ, each octant has the ellipsoid of its own three. A point at ``v`` from the surface has then
been reached if ``g(v) = sqrt(Σ (v_i / m_i)²) <= 1``, with ``m_i`` the margin to the side that ``v_i`` points to.
Shrinking is growing what is outside, with the sides exchanged.

The distance to the surface is searched among points on it (`engine.structures.surface`); coverage of the new surface's
voxels is that of a plane through it. So nothing is bound to whole voxels. Accuracy: docs/methods/structures.md.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import maximum_filter1d
from scipy.spatial import cKDTree

from engine._jit import kernel
from engine.errors import CaseError
from engine.model.arrays import F32, F64, I64
from engine.model.grid import Grid
from engine.structures.surface import EMPTY, FULL, half_space_fraction, surface_points

_CLOSEST_MM = 1.0
"""Points on the surface are at most this far apart, and at most a quarter of the smallest margin,"""
_MOST_ACROSS = 9
"""but no more than this many are put across a voxel."""
_NO_MARGIN_MM = 1e-3
"""Stands for a margin of nothing, so that directions can be told apart."""


@dataclass(frozen=True)
class Margins:
    """How far a structure reaches beyond its surface, in directions of the patient; none is negative, all in mm."""

    left: float
    right: float
    anterior: float
    posterior: float
    superior: float
    inferior: float

    def __post_init__(self) -> None:
        if not all(np.isfinite(v) and v >= 0.0 for v in self.as_tuple()):
            raise CaseError(f"invalid margins {self} (each must be zero or more)")

    @classmethod
    def all_round(cls, margin_mm: float) -> "Margins":
        """Return the same margin in every direction."""
        return cls(*(margin_mm,) * 6)

    def as_tuple(self) -> tuple[float, ...]:
        """Return the six numbers in the order of the fields."""
        return self.left, self.right, self.anterior, self.posterior, self.superior, self.inferior

    def low_high(self) -> F64:
        """Return how far to reach to smaller and to greater x, y, z (LPS: +x left, +y posterior, +z head), (3, 2)."""
        return np.array(
            [[self.right, self.left], [self.anterior, self.posterior], [self.inferior, self.superior]]
        )

    def mirrored(self) -> "Margins":
        """Return the margins with left and right, front and back, head and feet exchanged."""
        return Margins(self.right, self.left, self.posterior, self.anterior, self.inferior, self.superior)


def grow(coverage: F32, grid: Grid, margins: Margins) -> F32:
    """Return the coverage of a structure with margins; the grid cuts what reaches beyond it.

    Parameters
    ----------
    coverage
        Fraction of every voxel inside, shape ``grid.shape_zyx``.
    grid
        Its grid; spacings may differ.
    margins
        How far to reach.
    """
    low_high = margins.low_high()
    if not (coverage > EMPTY).any() or low_high.max() == 0.0:
        return coverage.copy()
    spacing = np.array(grid.spacing_mm_xyz)
    reach = np.ceil(low_high.max(axis=1) / spacing).astype(int)[::-1] + 1
    box = tuple(
        slice(max(int(touched[0]) - n, 0), int(touched[-1]) + n + 1)
        for n, touched in zip(reach, _touched(coverage), strict=True)
    )
    result = coverage.copy()
    result[box] = _grown(np.ascontiguousarray(coverage[box]), spacing, low_high, reach)
    return result


def shrink(coverage: F32, grid: Grid, margins: Margins) -> F32:
    """Return the coverage of a structure whose surface was moved inwards, on the side that each margin names.

    Parameters are those of `grow`. Where the structure touches the edge of the grid it is taken to go on beyond.
    """
    if not (coverage > EMPTY).any() or max(margins.as_tuple()) == 0.0:
        return coverage.copy()
    spacing = np.array(grid.spacing_mm_xyz)
    box = tuple(slice(max(int(t[0]) - 2, 0), int(t[-1]) + 3) for t in _touched(coverage))
    low_high = margins.mirrored().low_high()
    reach = np.ceil(low_high.max(axis=1) / spacing).astype(int)[::-1] + 1
    result = np.zeros_like(coverage)
    outside = np.ascontiguousarray(1.0 - coverage[box])
    result[box] = np.minimum(1.0 - _grown(outside, spacing, low_high, reach), coverage[box])
    return result


def _touched(coverage: F32) -> list[I64]:
    """Return the slices, rows and columns that a structure touches."""
    return [np.flatnonzero((coverage > 0.0).any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]


def _grown(coverage: F32, spacing: F64, low_high: F64, reach: I64) -> F32:
    """Return a piece of coverage grown by ``low_high``, shape (3, 2); ``reach`` voxels hold it all (z, y, x)."""
    points, normals = _surface(coverage, spacing, low_high)
    result = coverage.copy()
    if not len(points):
        return result
    near = (coverage > EMPTY).astype(np.uint8)
    for axis, n in enumerate(reach):
        near = maximum_filter1d(near, 2 * int(n) + 1, axis=axis, mode="constant")
    wanted = np.flatnonzero((near.ravel() > 0) & (coverage.ravel() < FULL))
    index = np.stack(np.unravel_index(wanted, coverage.shape)[::-1], axis=1)
    centre = index * spacing
    metric = np.maximum(low_high, _NO_MARGIN_MM)
    if np.array_equal(metric[:, 0], metric[:, 1]):
        # A little further than the margin: the voxels of its surface have their centres on both sides.
        bound = 1.0 + float((spacing / metric[:, 0]).max())
        tree = cKDTree(points / metric[:, 0])
        _, nearest = tree.query(centre / metric[:, 0], distance_upper_bound=bound, workers=-1)
        nearest = np.where(nearest == len(points), -1, nearest)
    else:
        nearest = _nearest_by_octant(centre, points, metric, spacing)
    found = np.flatnonzero(nearest >= 0)
    inside = coverage.ravel()[wanted[found]] >= 0.5
    grown = np.empty(found.size, np.float64)
    _new_coverage(
        centre[found], points[nearest[found]], normals[nearest[found]], inside, metric, spacing, grown
    )
    flat = result.ravel()
    flat[wanted[found]] = np.maximum(flat[wanted[found]], grown.astype(np.float32))
    return result


def _surface(coverage: F32, spacing: F64, low_high: F64) -> tuple[F64, F64]:
    """Return points on the surface and their normals, dense enough for the margins."""
    smallest = float(low_high[low_high > 0.0].min())
    apart = min(_CLOSEST_MM, 0.25 * smallest)
    n_across = np.clip(2 * np.ceil(0.5 * (spacing / apart - 1.0)) + 1, 1, _MOST_ACROSS)
    nothing = np.empty((0, 3))
    n = surface_points(coverage, spacing, n_across, nothing, nothing)
    points, normals = np.empty((n, 3)), np.empty((n, 3))
    if n:
        n = surface_points(coverage, spacing, n_across, points, normals)
    return points[:n], normals[:n]


@kernel
def _new_coverage(
    centre: F64, point: F64, normal: F64, inside: np.ndarray, metric: F64, spacing: F64, result: F64
) -> None:
    """Write the coverage of voxels whose nearest points of the old surface are known; arrays of shape (n, 3), (n,)."""
    v = np.empty(3)
    gradient = np.empty(3)
    for n in range(centre.shape[0]):
        total = 0.0
        for axis in range(3):
            v[axis] = centre[n, axis] - point[n, axis]
            m = metric[axis, 1] if v[axis] > 0.0 else metric[axis, 0]
            gradient[axis] = v[axis] / (m * m)
            total += v[axis] * gradient[axis]
        g = np.sqrt(total)
        length = np.sqrt(gradient[0] ** 2 + gradient[1] ** 2 + gradient[2] ** 2)
        if g < 1e-6 or length == 0.0:
            # On the old surface itself: the new one lies a margin away along its normal.
            reached = 0.0
            for axis in range(3):
                m = metric[axis, 1] if normal[n, axis] > 0.0 else metric[axis, 0]
                gradient[axis] = normal[n, axis]
                reached += (m * normal[n, axis]) ** 2
            distance = np.sqrt(reached)
            length = 1.0
        else:
            # Slope of g along its gradient, so that (1 - g) / slope is a distance in mm.
            slope = length / g
            distance = (1.0 + g) / slope if inside[n] else (1.0 - g) / slope
        result[n] = half_space_fraction(
            distance,
            abs(gradient[0]) / length * spacing[0],
            abs(gradient[1]) / length * spacing[1],
            abs(gradient[2]) / length * spacing[2],
        )


def _nearest_by_octant(centre: F64, points: F64, metric: F64, spacing: F64) -> I64:
    """Return the nearest point by a metric that differs from side to side, -1 where none is near."""
    edge = metric.max(axis=1) + spacing
    low = points.min(axis=0)
    n_cell = np.maximum(np.ceil((points.max(axis=0) - low) / edge), 1).astype(np.int64)
    cell = np.minimum(((points - low) / edge).astype(np.int64), n_cell - 1)
    number = (cell[:, 2] * n_cell[1] + cell[:, 1]) * n_cell[0] + cell[:, 0]
    order = np.argsort(number, kind="stable")
    begin = np.searchsorted(number[order], np.arange(int(np.prod(n_cell)) + 1))
    nearest = np.empty(centre.shape[0], np.int64)
    _search_cells(centre, points[order], metric, low, edge, n_cell, begin, nearest)
    return np.where(nearest >= 0, order[np.maximum(nearest, 0)], -1)


@kernel
def _search_cells(
    centre: F64, points: F64, metric: F64, low: F64, edge: F64, n_cell: I64, begin: I64, nearest: I64
) -> None:
    """Find the nearest of ``points``, sorted by cell, among the 27 cells around each centre."""
    here = np.empty(3, np.int64)
    for n in range(centre.shape[0]):
        for axis in range(3):
            here[axis] = int(np.floor((centre[n, axis] - low[axis]) / edge[axis]))
        best, chosen = np.inf, -1
        for c in range(max(here[2] - 1, 0), min(here[2] + 2, n_cell[2])):
            for b in range(max(here[1] - 1, 0), min(here[1] + 2, n_cell[1])):
                row = (c * n_cell[1] + b) * n_cell[0]
                for a in range(max(here[0] - 1, 0), min(here[0] + 2, n_cell[0])):
                    for p in range(begin[row + a], begin[row + a + 1]):
                        total = 0.0
                        for axis in range(3):
                            v = centre[n, axis] - points[p, axis]
                            v /= metric[axis, 1] if v > 0.0 else metric[axis, 0]
                            total += v * v
                        if total < best:
                            best, chosen = total, p
        nearest[n] = chosen
