"""Booleans of coverages, exact where surfaces are plane, whether they touch, coincide or cross within a voxel."""

import numpy as np

from engine._jit import inlined, kernel
from engine.model.arrays import F32
from engine.model.grid import Grid
from engine.structures.surface import half_space_position, outward_normal

_N_SAMPLE = 6
"""Points along each edge of a voxel that two surfaces cut: their overlap there is known to about 1 %."""


def overlap(one: F32, other: F32, grid: Grid) -> F32:
    """Return the part of every voxel that lies in both of two structures, shape ``grid.shape_zyx``.

    Where one of them fills a voxel, it is the other's coverage. Where both cover it in part, two planes cut it (see
    `engine.structures.surface`) and the overlap is counted on points. Neither product nor minimum of the coverages
    would do: of two that touch there is nothing, of two that coincide there is all.
    """
    result = np.zeros_like(one)
    dx_mm, dy_mm, dz_mm = grid.spacing_mm_xyz
    _overlap(np.ascontiguousarray(one), np.ascontiguousarray(other), dx_mm, dy_mm, dz_mm, result)
    return result


def union(one: F32, other: F32, grid: Grid) -> F32:
    """Return the part of every voxel that lies in either of two structures."""
    result: F32 = np.clip(one + other - overlap(one, other, grid), 0.0, 1.0)
    return result


def difference(one: F32, other: F32, grid: Grid) -> F32:
    """Return the part of every voxel that lies in the first structure and not in the other."""
    result: F32 = np.clip(one - overlap(one, other, grid), 0.0, 1.0)
    return result


@inlined
def _plane(coverage: F32, k: int, j: int, i: int, dx: float, dy: float, dz: float) -> tuple[float, ...]:
    """Return normal, in units of voxel edges, and position of the plane in a voxel."""
    x, y, z = outward_normal(coverage, k, j, i, dx, dy, dz)
    x, y, z = x * dx, y * dy, z * dz
    return x, y, z, half_space_position(coverage[k, j, i], abs(x), abs(y), abs(z))


@kernel
def _overlap(one: F32, other: F32, dx: float, dy: float, dz: float, result: F32) -> None:
    """Fill ``result``; all arrays have the same shape."""
    nz, ny, nx = one.shape
    for k in range(nz):
        for j in range(ny):
            for i in range(nx):
                a, b = one[k, j, i], other[k, j, i]
                if a <= 0.0 or b <= 0.0:
                    continue
                if a >= 1.0 or b >= 1.0:
                    result[k, j, i] = min(a, b)
                    continue
                ax, ay, az, at = _plane(one, k, j, i, dx, dy, dz)
                bx, by, bz, bt = _plane(other, k, j, i, dx, dy, dz)
                least, most = max(0.0, a + b - 1.0), min(a, b)
                if ax == ay == az == 0.0 or bx == by == bz == 0.0:
                    result[k, j, i] = min(max(a * b, least), most)
                    continue
                n_both = n_one = n_other = 0
                for r in range(_N_SAMPLE):
                    z = (r + 0.5) / _N_SAMPLE - 0.5
                    for q in range(_N_SAMPLE):
                        y = (q + 0.5) / _N_SAMPLE - 0.5
                        for p in range(_N_SAMPLE):
                            x = (p + 0.5) / _N_SAMPLE - 0.5
                            in_one = ax * x + ay * y + az * z < at
                            in_other = bx * x + by * y + bz * z < bt
                            n_one += in_one
                            n_other += in_other
                            n_both += in_one and in_other
                # As a part of the smaller one, whose true coverage is known better than its points say.
                smaller = min(n_one, n_other)
                part = n_both / smaller if smaller > 0 else a * b / most
                result[k, j, i] = min(max(part * most, least), most)
