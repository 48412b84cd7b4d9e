"""The gamma index: dose difference and distance to agreement in one number.

Low et al. 1998 (Med Phys 25, 656-661): for a point of the reference dose, gamma is the least of

    sqrt(distance² / distance_mm² + difference² / criterion²)

over all positions of the evaluated dose, which is interpolated (trilinear) between its voxels. Positions are
tried on a cubic lattice around the point, nearest first, until distance alone exceeds what was found
(Wendling et al. 2007, Med Phys 34, 1647-1654).

The lattice makes gamma too high, never too low. With lattice step h the best position is missed by at most
h/2 along each axis, so that for an evaluated dose with gradients up to g gamma is at most
``(sqrt(3) h / 2) * sqrt(1 / distance_mm² + g² / criterion²)`` too high. Distance 0 is among the positions: a
point that agrees exactly has gamma 0.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from engine._jit import inlined, kernel
from engine.errors import CaseError
from engine.model.arrays import F32, F64
from engine.model.grid import Grid
from engine.units import PERCENT

Normalisation = Literal["global", "local"]


@dataclass(frozen=True, slots=True)
class GammaCriteria:
    """What counts as agreement.

    Parameters
    ----------
    dose_percent
        Dose difference that alone makes gamma 1; percent of the reference maximum (global) or of the dose
        of the reference point (local).
    distance_mm
        Distance that alone makes gamma 1.
    normalisation
        ``global`` or ``local``.
    cutoff_percent
        Reference points below this percentage of the reference maximum are left out.
    largest
        Search ends at this gamma, and greater values are reported as it.
    steps_per_distance
        Lattice positions per ``distance_mm``.

    Raises
    ------
    CaseError
        If a number is not positive (the cut-off: negative).
    """

    dose_percent: float
    distance_mm: float
    normalisation: Normalisation = "global"
    cutoff_percent: float = 10.0
    largest: float = 2.0
    steps_per_distance: int = 10

    def __post_init__(self) -> None:
        if min(self.dose_percent, self.distance_mm, self.largest, self.steps_per_distance) <= 0.0:
            raise CaseError(
                f"invalid gamma criteria {self} (percentages, distances and steps must be positive)"
            )
        if self.cutoff_percent < 0.0:
            raise CaseError(f"invalid cutoff_percent={self.cutoff_percent} (it must not be negative)")


@dataclass(frozen=True, slots=True)
class GammaResult:
    """Gamma on the reference points.

    Parameters
    ----------
    gamma
        Gamma in the shape of the reference dose; NaN where the point was left out.
    n_point
        Number of points that were judged.
    pass_percent
        Percentage of them with gamma of at most 1.
    mean, largest
        Mean and largest gamma of them.
    """

    gamma: F32
    n_point: int
    pass_percent: float
    mean: float
    largest: float


def gamma_between_grids(
    reference: tuple[Grid, F32], evaluated: tuple[Grid, F32], criteria: GammaCriteria
) -> GammaResult:
    """Compare two doses on grids that need not be the same.

    Every voxel centre of the reference above the cut-off that lies inside the evaluated grid (between its
    outer voxel centres) is a point.

    Raises
    ------
    CaseError
        If a dose does not fit its grid, or no point is left to judge.
    """
    grid, dose_gy = reference
    if dose_gy.shape != grid.shape_zyx:
        raise CaseError(f"reference dose of shape {dose_gy.shape} is not on its grid {grid.shape_zyx}")
    x, y, z = grid.centres_mm_xyz
    points = np.stack([axis.ravel() for axis in np.meshgrid(z, y, x, indexing="ij")[::-1]], axis=-1)
    result = gamma_at_points(points, dose_gy.ravel(), evaluated, criteria)
    return GammaResult(
        result.gamma.reshape(dose_gy.shape), result.n_point, result.pass_percent, result.mean, result.largest
    )


def gamma_at_points(
    points_mm_xyz: F64,
    reference_gy: F32,
    evaluated: tuple[Grid, F32],
    criteria: GammaCriteria,
    maximum_gy: float | None = None,
) -> GammaResult:
    """Compare doses that are known at points, such as ion chamber readings, with a dose on a grid.

    Parameters
    ----------
    points_mm_xyz, reference_gy
        Positions, shape (n_point, 3), and doses, shape (n_point,).
    evaluated
        The other dose and its grid.
    criteria
        What counts as agreement.
    maximum_gy
        Dose that stands for 100 % in global normalisation and cut-off; by default the highest reference dose.

    Raises
    ------
    CaseError
        If shapes do not fit, or no point is left to judge.
    """
    grid, dose_gy = evaluated
    if dose_gy.shape != grid.shape_zyx:
        raise CaseError(f"evaluated dose of shape {dose_gy.shape} is not on its grid {grid.shape_zyx}")
    if points_mm_xyz.shape != (reference_gy.size, 3):
        raise CaseError(
            f"points of shape {points_mm_xyz.shape} do not fit {reference_gy.size} reference doses"
        )
    top_gy = float(reference_gy.max(initial=0.0)) if maximum_gy is None else maximum_gy
    origin, spacing = np.array(grid.origin_mm_xyz), np.array(grid.spacing_mm_xyz)
    index_xyz = (points_mm_xyz - origin) / spacing
    last = np.array(grid.shape_zyx[::-1]) - 1
    inside = ((index_xyz >= -1e-9) & (index_xyz <= last + 1e-9)).all(axis=1)
    chosen = inside & (reference_gy >= top_gy * criteria.cutoff_percent / PERCENT) & (reference_gy > 0.0)
    if not chosen.any():
        raise CaseError(
            "gamma has no point to judge (all are outside of the evaluated grid or below the cut-off)"
        )
    dose_at_point_gy = reference_gy[chosen].astype(np.float64)
    base_gy = (
        np.full_like(dose_at_point_gy, top_gy) if criteria.normalisation == "global" else dose_at_point_gy
    )
    offsets_mm, distance_mm = _lattice(criteria)
    found = np.empty(dose_at_point_gy.size)
    _search(
        np.ascontiguousarray(index_xyz[chosen]),
        dose_at_point_gy,
        base_gy * (criteria.dose_percent / PERCENT),
        np.ascontiguousarray(dose_gy, dtype=np.float32),
        offsets_mm / spacing,
        distance_mm / criteria.distance_mm,
        criteria.largest,
        found,
    )
    gamma = np.full(reference_gy.size, np.nan, dtype=np.float32)
    gamma[chosen] = found
    return GammaResult(
        gamma, found.size, PERCENT * float(np.mean(found <= 1.0)), float(found.mean()), float(found.max())
    )


def _lattice(criteria: GammaCriteria) -> tuple[F64, F64]:
    """Return offsets, shape (n_offset, 3), and distances in mm, nearest first, up to the largest gamma."""
    n_step = int(np.ceil(criteria.largest * criteria.steps_per_distance))
    step_mm = criteria.distance_mm / criteria.steps_per_distance
    steps = np.arange(-n_step, n_step + 1) * step_mm
    offsets_mm = np.stack([axis.ravel() for axis in np.meshgrid(steps, steps, steps, indexing="ij")], axis=-1)
    distance_mm = np.sqrt((offsets_mm**2).sum(axis=1))
    order = np.argsort(distance_mm, kind="stable")
    order = order[distance_mm[order] <= criteria.largest * criteria.distance_mm * (1.0 + 1e-9)]
    return np.ascontiguousarray(offsets_mm[order]), distance_mm[order]


@inlined
def _trilinear(volume: F32, x: float, y: float, z: float) -> float:
    """Interpolate at a position in voxel indices; -1 outside of the outer voxel centres."""
    nz, ny, nx = volume.shape
    tolerance = 1e-9
    if x < -tolerance or y < -tolerance or z < -tolerance:
        return -1.0
    if x > nx - 1 + tolerance or y > ny - 1 + tolerance or z > nz - 1 + tolerance:
        return -1.0
    x0 = min(max(int(x), 0), max(nx - 2, 0))
    y0 = min(max(int(y), 0), max(ny - 2, 0))
    z0 = min(max(int(z), 0), max(nz - 2, 0))
    x1, y1, z1 = min(x0 + 1, nx - 1), min(y0 + 1, ny - 1), min(z0 + 1, nz - 1)
    u, v, w = x - x0, y - y0, z - z0
    low = (1.0 - v) * ((1.0 - u) * volume[z0, y0, x0] + u * volume[z0, y0, x1]) + v * (
        (1.0 - u) * volume[z0, y1, x0] + u * volume[z0, y1, x1]
    )
    high = (1.0 - v) * ((1.0 - u) * volume[z1, y0, x0] + u * volume[z1, y0, x1]) + v * (
        (1.0 - u) * volume[z1, y1, x0] + u * volume[z1, y1, x1]
    )
    return float((1.0 - w) * low + w * high)


@kernel
def _search(
    index_xyz: F64,
    reference_gy: F64,
    criterion_gy: F64,
    dose_gy: F32,
    offset_index_xyz: F64,
    distance: F64,
    largest: float,
    gamma: F64,
) -> None:
    """Write the least gamma of every point into ``gamma``, shape (n_point,).

    ``distance`` is in units of the distance criterion and ascending.
    """
    for point in range(reference_gy.size):
        best = largest * largest
        for step in range(distance.size):
            far = distance[step] * distance[step]
            if far >= best:
                break
            there_gy = _trilinear(
                dose_gy,
                index_xyz[point, 0] + offset_index_xyz[step, 0],
                index_xyz[point, 1] + offset_index_xyz[step, 1],
                index_xyz[point, 2] + offset_index_xyz[step, 2],
            )
            if there_gy >= 0.0:
                difference = (there_gy - reference_gy[point]) / criterion_gy[point]
                best = min(best, far + difference * difference)
        gamma[point] = np.sqrt(best)
