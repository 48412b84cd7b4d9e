"""Regions of objectives on the optimiser's rows: relative volumes of a structure, perhaps without others, and doses.

Some objectives compare each voxel's dose with one of its own: a level that falls with the distance from a target, or
a dose from elsewhere.
"""

from collections.abc import Sequence

import numpy as np

from engine.errors import CaseError
from engine.geometry.bricks import BrickLayout
from engine.geometry.resample import average_onto, interpolate_onto
from engine.model.arrays import F32
from engine.model.case import Case
from engine.model.grid import Grid
from engine.optimise.functions import DoseFallOff
from engine.structures.distance import distance_outside_mm


def region_share(case: Case, layout: BrickLayout, name: str, excluding: Sequence[str]) -> F32:
    """Return the relative volume of every row's voxel in a structure without others; the sum is 1.

    Voxels that the body does not touch are left out.

    Parameters
    ----------
    case
        CT and structures.
    layout
        Row numbering of the optimiser's grid.
    name, excluding
        The structure, and those that are taken away from it.

    Raises
    ------
    CaseError
        If nothing is left.
    """
    coverage = case.structure(name).coverage
    for other in excluding:
        coverage = coverage * (1.0 - case.structure(other).coverage)
    coverage = coverage * (case.external.coverage > 0.0)
    rows = layout.to_rows(average_onto(coverage, case.grid, layout.grid))
    total = float(rows.sum(dtype=np.float64))
    if total <= 0.0:
        without = f" without {', '.join(excluding)}" if excluding else ""
        raise CaseError(f"structure '{name}'{without} has no voxel inside the body; leave its objective out")
    return (rows / total).astype(np.float32)


def fall_off_gy(case: Case, layout: BrickLayout, share: F32, function: DoseFallOff) -> F32:
    """Return the level of every row of a region, shape (n_row,); 0 elsewhere.

    Parameters
    ----------
    case
        CT and structures.
    layout
        Row numbering of the optimiser's grid.
    share
        Relative volumes of the region.
    function
        How the level falls.
    """
    row = np.flatnonzero(share)
    target = case.structure(function.from_structure)
    level_gy = np.zeros(share.size, dtype=np.float32)
    level_gy[row] = function.level_gy(distance_outside_mm(target, case.grid, layout.centres_mm(row)))
    return level_gy


def imported_gy(dose_gy: F32, grid: Grid, layout: BrickLayout, share: F32, name: str) -> F32:
    """Return a dose from elsewhere on every row of a region, shape (n_row,); 0 elsewhere.

    Parameters
    ----------
    dose_gy, grid
        The dose, and the grid that it is on.
    layout
        Row numbering of the optimiser's grid.
    share
        Relative volumes of the region.
    name
        The dose's name, for messages.

    Raises
    ------
    CaseError
        If it does not reach all voxels of the region.
    """
    reached = layout.to_rows(_reached(grid, layout.grid))
    n_beyond = int(np.count_nonzero((share > 0.0) & (reached == 0.0)))
    if n_beyond:
        raise CaseError(
            f"the dose '{name}' does not reach {n_beyond} of the {np.count_nonzero(share)} voxels of a region whose "
            "objective refers to it; name a smaller structure, or export the dose on a larger grid"
        )
    on_rows = layout.to_rows(interpolate_onto(dose_gy, grid, layout.grid, np.ones_like(dose_gy)))
    return np.where(share > 0.0, on_rows, np.float32(0.0)).astype(np.float32)


def _reached(source: Grid, target: Grid) -> F32:
    """Return 1 for voxels of ``target`` with their centre in a voxel of ``source``, and 0 for others."""
    inside = [
        ((centres >= edges[0]) & (centres <= edges[-1])).astype(np.float32)
        for centres, edges in zip(target.centres_mm_xyz, source.edges_mm_xyz, strict=True)
    ]
    x, y, z = inside
    reached: F32 = z[:, None, None] * y[:, None] * x
    return reached
