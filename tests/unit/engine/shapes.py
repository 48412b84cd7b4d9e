"""Shapes that tests know everything about."""

from collections.abc import Callable

import numpy as np

from engine.model.arrays import F32
from engine.model.grid import Grid

Shape = Callable[..., np.ndarray]


def sampled(grid: Grid, inside: Shape, n: int = 6) -> F32:
    """Return coverage from n³ points a voxel."""
    axes = [
        (centres[:, None] + spacing * ((np.arange(n) + 0.5) / n - 0.5)).ravel()
        for centres, spacing in zip(grid.centres_mm_xyz, grid.spacing_mm_xyz, strict=True)
    ]
    x, y, z = axes[0][None, None, :], axes[1][None, :, None], axes[2][:, None, None]
    nz, ny, nx = grid.shape_zyx
    return inside(x, y, z).reshape(nz, n, ny, n, nx, n).mean(axis=(1, 3, 5)).astype(np.float32)


def grid_around(
    half_mm: float, spacing_mm: tuple[float, float, float], offset: tuple[float, float, float]
) -> Grid:
    """Return a grid that holds a cube around the origin; ``offset`` moves it by parts of a voxel."""
    n = [int(np.ceil(2.0 * half_mm / s)) + 2 for s in spacing_mm]
    x, y, z = (s * (o - 0.5 * m) for s, o, m in zip(spacing_mm, offset, n, strict=True))
    return Grid((x, y, z), spacing_mm, (n[2], n[1], n[0]))


def ball(radius_mm: float) -> Shape:
    return lambda x, y, z: x**2 + y**2 + z**2 <= radius_mm**2


def box(*ranges_mm: tuple[float, float]) -> Shape:
    def inside(*point: np.ndarray) -> np.ndarray:
        parts = [(p > low) & (p < high) for p, (low, high) in zip(point, ranges_mm, strict=True)]
        return parts[0] & parts[1] & parts[2]

    return inside


def box_coverage(grid: Grid, *ranges_mm: tuple[float, float]) -> F32:
    """Return the exact coverage of a box."""
    parts = []
    for edges, (low, high) in zip(grid.edges_mm_xyz, ranges_mm, strict=True):
        parts.append(
            np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0.0, None) / np.diff(edges)
        )
    x, y, z = parts
    return (z[:, None, None] * y[None, :, None] * x[None, None, :]).astype(np.float32)


def volume_mm3(coverage: F32, grid: Grid) -> float:
    return float(coverage.sum(dtype=np.float64)) * grid.voxel_volume_mm3
