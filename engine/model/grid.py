"""A regular voxel grid in patient coordinates."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from engine.errors import CaseError
from engine.model.arrays import F64


@dataclass(frozen=True)
class Grid:
    """A regular voxel grid along the axes of DICOM patient coordinates (LPS: +x left, +y posterior, +z head).

    Arrays on a grid have shape ``shape_zyx`` (slices, rows, columns), C order.

    Parameters
    ----------
    origin_mm_xyz
        Centre of voxel ``[0, 0, 0]``.
    spacing_mm_xyz
        Distance between voxel centres; all three are positive.
    shape_zyx
        Number of voxels in array order.

    Raises
    ------
    CaseError
        If a spacing is not positive or a shape is empty.
    """

    origin_mm_xyz: tuple[float, float, float]
    spacing_mm_xyz: tuple[float, float, float]
    shape_zyx: tuple[int, int, int]

    def __post_init__(self) -> None:
        if not all(np.isfinite(self.origin_mm_xyz)):
            raise CaseError(f"invalid origin_mm_xyz={self.origin_mm_xyz} (every coordinate must be finite)")
        if not all(np.isfinite(self.spacing_mm_xyz)) or min(self.spacing_mm_xyz) <= 0.0:
            raise CaseError(f"invalid spacing_mm_xyz={self.spacing_mm_xyz} (every spacing must be positive)")
        if min(self.shape_zyx) < 1:
            raise CaseError(f"invalid shape_zyx={self.shape_zyx} (every axis needs at least one voxel)")

    def __reduce__(self) -> tuple[type["Grid"], tuple[tuple[float, ...], tuple[float, ...], tuple[int, ...]]]:
        # Without the axes that were worked out: a grid travels with every task of a cluster.
        return type(self), (self.origin_mm_xyz, self.spacing_mm_xyz, self.shape_zyx)

    @property
    def n_voxel(self) -> int:
        """Number of voxels."""
        nz, ny, nx = self.shape_zyx
        return nz * ny * nx

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel."""
        dx, dy, dz = self.spacing_mm_xyz
        return dx * dy * dz

    @cached_property
    def centres_mm_xyz(self) -> tuple[F64, F64, F64]:
        """Voxel centres along x, y and z: three arrays of shapes (nx,), (ny,), (nz,)."""
        nz, ny, nx = self.shape_zyx
        x, y, z = (
            origin + spacing * np.arange(n, dtype=np.float64)
            for origin, spacing, n in zip(self.origin_mm_xyz, self.spacing_mm_xyz, (nx, ny, nz), strict=True)
        )
        return x, y, z

    @cached_property
    def edges_mm_xyz(self) -> tuple[F64, F64, F64]:
        """Voxel faces along x, y and z: three arrays, each one longer than the centres."""
        nz, ny, nx = self.shape_zyx
        x, y, z = (
            origin + spacing * (np.arange(n + 1, dtype=np.float64) - 0.5)
            for origin, spacing, n in zip(self.origin_mm_xyz, self.spacing_mm_xyz, (nx, ny, nz), strict=True)
        )
        return x, y, z

    def as_dict(self) -> dict[str, list[float] | list[int]]:
        """Return the grid as plain lists, for digests and stored attributes."""
        return {
            "origin_mm_xyz": [float(v) for v in self.origin_mm_xyz],
            "spacing_mm_xyz": [float(v) for v in self.spacing_mm_xyz],
            "shape_zyx": [int(v) for v in self.shape_zyx],
        }

    @classmethod
    def from_dict(cls, values: dict[str, list[float] | list[int]]) -> "Grid":
        """Return the grid that `as_dict` described."""
        x, y, z = (float(v) for v in values["origin_mm_xyz"])
        dx, dy, dz = (float(v) for v in values["spacing_mm_xyz"])
        nz, ny, nx = (int(v) for v in values["shape_zyx"])
        return cls((x, y, z), (dx, dy, dz), (nz, ny, nx))
