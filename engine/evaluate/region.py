"""The voxels of a structure as a list, so that many doses are judged without reading whole masks again."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.errors import CaseError
from engine.evaluate.dvh import Dvh
from engine.evaluate.subvoxel import part_doses, part_moments, spread_out
from engine.model.arrays import F32, I32, I64
from engine.model.case import Structure, StructureKind
from engine.model.grid import Grid


@dataclass(frozen=True, slots=True)
class Region:
    """The voxels that a structure touches.

    Parameters
    ----------
    name, kind
        As in `Structure`.
    grid_shape_zyx, spacing_mm_xyz
        The grid that the voxels belong to.
    voxel
        C-order index of every voxel, ascending; shape (n_voxel,).
    coverage
        Fraction of each voxel that lies inside, in (0, 1], same order and shape.
    kind_of_part, moments
        Where in each voxel that part lies: a row of ``moments``, shape (n_kind, 9), for each voxel; the first is that
        of whole voxels. See `engine.evaluate.subvoxel.part_moments`.
    """

    name: str
    kind: StructureKind
    grid_shape_zyx: tuple[int, int, int]
    spacing_mm_xyz: tuple[float, float, float]
    voxel: I64
    coverage: F32
    kind_of_part: I32
    moments: F32

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of a whole voxel."""
        return math.prod(self.spacing_mm_xyz)

    def dvh(self, dose_gy: npt.NDArray[np.floating]) -> Dvh:
        """Return the histogram of a dose of shape ``grid_shape_zyx``, which may vary inside of voxels.

        Raises
        ------
        CaseError
            If the shape is another, or a dose inside is not finite.
        """
        if dose_gy.shape != self.grid_shape_zyx:
            raise CaseError(
                f"dose of shape {dose_gy.shape} is not on the grid {self.grid_shape_zyx} of '{self.name}'"
            )
        flat = np.ascontiguousarray(dose_gy, dtype=np.float32).ravel()
        if not np.isfinite(flat[self.voxel]).all():
            raise CaseError(f"the dose in '{self.name}' holds values that are not finite numbers")
        mean_gy, spread_gy = np.empty(self.voxel.size), np.empty(self.voxel.size)
        part_doses(
            flat,
            np.array(self.grid_shape_zyx),
            self.voxel,
            self.kind_of_part,
            self.moments,
            np.array(self.spacing_mm_xyz),
            mean_gy,
            spread_gy,
        )
        parts_gy, parts = spread_out(mean_gy, spread_gy, self.coverage)
        return Dvh.from_voxels(self.name, parts_gy, parts, self.voxel_volume_mm3)


def region_from_coverage(name: str, kind: StructureKind, grid: Grid, coverage: F32) -> Region:
    """List the voxels of a structure that has ``coverage``, shape ``grid.shape_zyx``.

    Raises
    ------
    CaseError
        If coverage has another shape.
    """
    if coverage.shape != grid.shape_zyx:
        raise CaseError(f"structure '{name}' has shape {coverage.shape}, its grid {grid.shape_zyx}")
    flat = coverage.ravel()
    voxel = np.flatnonzero(flat > 0.0)
    spacing = np.array(grid.spacing_mm_xyz)
    partly = np.flatnonzero(flat[voxel] < 1.0)
    kind_of_part = np.zeros(voxel.size, np.int32)
    kind_of_part[partly] = np.arange(1, partly.size + 1)
    moments = np.zeros((partly.size + 1, 9), np.float32)
    moments[0, 3:6] = spacing**2 / 12.0
    part_moments(np.ascontiguousarray(coverage, np.float32), voxel[partly], spacing, moments[1:])
    return Region(name, kind, grid.shape_zyx, grid.spacing_mm_xyz, voxel, flat[voxel], kind_of_part, moments)


def regions_of(grid: Grid, structures: Iterable[Structure]) -> tuple[Region, ...]:
    """Return the regions of all structures that have any voxel on the grid."""
    regions = (region_from_coverage(s.name, s.kind, grid, s.coverage) for s in structures)
    return tuple(region for region in regions if region.voxel.size > 0)


def remaining_volume(regions: Iterable[Region]) -> Region | None:
    """Return the body without all targets and organs, the remaining volume at risk of ICRU Report 83.

    In a voxel at an edge the body keeps what the largest coverage of a target or organ leaves. None where there is no
    body, or nothing of it remains.
    """
    listed = list(regions)
    body = next((region for region in listed if region.kind == "EXTERNAL"), None)
    if body is None:
        return None
    taken = np.zeros(int(np.prod(body.grid_shape_zyx)), dtype=np.float32)
    for region in listed:
        if region.kind in ("TARGET", "ORGAN"):
            taken[region.voxel] = np.maximum(taken[region.voxel], region.coverage)
    left = np.zeros_like(taken)
    left[body.voxel] = np.clip(body.coverage - taken[body.voxel], 0.0, 1.0)
    if not left.any():
        return None
    grid = Grid((0.0, 0.0, 0.0), body.spacing_mm_xyz, body.grid_shape_zyx)
    return region_from_coverage("remaining volume at risk", "OTHER", grid, left.reshape(body.grid_shape_zyx))
